//! Connecting and listening at once, from one port, until it is given up.
//!
//! A connection that both ends begin at one moment opens the NATs of both. One whose SYN comes before the other end's has left is
//! dropped there, and repeated by the system after a second; or it is refused, and tried again after a pause that differs each time, so that
//! two that miss each other do not do so for ever.
//!
//! QUIC goes beside that, from a UDP port that listens as well. There both ends knock first (`knock.rs`), which opens their NATs; the one whose knock
//! is answered connects. What comes about waits a while at the end that chooses: over TCP the session is encrypted once and not
//! twice.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cepa_transports::{PortListener, SharedPort, Stream};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backend::{self, random};

use super::knock::Word;
use super::talk::{ByQuic, ByTcp};

/// Connections that are tried to one address. One sends two SYNs at most.
const TRIES: u32 = 8;

/// How long one of them waits: its SYN is repeated after 1 s (RFC 6298), and not again within this.
const ONE_TRY: Duration = Duration::from_millis(2500);

/// The shortest pause between two tries, and how much longer it may be.
const PAUSE: (u64, u64) = (50, 400);

/// Connections that are accepted in one attempt: the peer comes over a few ways, and others do not know the port.
const ACCEPTED: usize = 8;

/// Datagrams to one address, and the pauses behind the first half of them and behind the others: 8.8 s in all.
const KNOCKS: u32 = 16;
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(1);

/// Datagrams that are answered: each as long as what is answered.
const ANSWERS: u32 = 64;

/// How much longer a connection of QUIC waits to be chosen: a SYN is repeated after 1 s, and there is a handshake behind it.
const HEAD_START: Duration = Duration::from_secs(2);

/// Tries all of these addresses, and hands over each connection that comes about. Goes on until every try is made; never ends
/// by itself while a listener has not had its share.
pub(super) async fn punch(
    tcp: ByTcp,
    quic: Option<ByQuic>,
    chooses: bool,
    found: mpsc::Sender<Stream>,
) {
    let wait = chooses && !tcp.to.is_empty();
    let from = Instant::now() + if wait { HEAD_START } else { Duration::ZERO };
    let by_tcp = async {
        let knocking = tcp.to.into_iter().map(|at| knock(tcp.port, at, &found));
        tokio::join!(join_all(knocking), accept(tcp.listener, &found));
    };
    let by_quic = async {
        if let Some(quic) = &quic {
            quic.punch(from, &found).await;
        }
    };
    tokio::join!(by_tcp, by_quic);
}

async fn accept(listener: PortListener, found: &mpsc::Sender<Stream>) {
    let mut accepted = 0;
    while accepted < ACCEPTED {
        match listener.accept().await {
            Ok(stream) => {
                accepted += 1;
                if found.send(stream).await.is_err() {
                    return;
                }
            }
            // It was gone again, or there are no descriptors.
            Err(_) => sleep(Duration::from_millis(PAUSE.1)).await,
        }
    }
}

async fn knock(port: SharedPort, to: SocketAddr, found: &mpsc::Sender<Stream>) {
    for _ in 0..TRIES {
        match timeout(ONE_TRY, port.connect(to)).await {
            Ok(Ok(stream)) => {
                let _ = found.send(stream).await;
                return;
            }
            // There is one already: the listener has it.
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => return,
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(pause(backend::seed())).await;
    }
}

impl ByQuic {
    async fn punch(&self, from: Instant, found: &mpsc::Sender<Stream>) {
        let knocks = self.to.iter().filter_map(|at| Some((*at, random().ok()?)));
        let knocks: Vec<_> = knocks.collect();
        let to_found = async |stream: Option<Stream>| {
            sleep_until(from).await;
            if let Some(stream) = stream {
                // Who looks at them may have enough.
                let _ = found.send(stream).await;
            }
        };
        let hear = async {
            let (mut answered, mut called) = (0, Vec::new());
            let mut calling = FuturesUnordered::new();
            loop {
                let (who, heard) = tokio::select! {
                    knocked = self.port.knocked() => match knocked {
                        Ok(knocked) => knocked,
                        Err(_) => return,
                    },
                    Some(()) = calling.next(), if !calling.is_empty() => continue,
                };
                if let Some(answer) = self.words.answer(&heard)
                    && answered < ANSWERS
                {
                    answered += 1;
                    self.port.knock(who, &answer);
                }
                if let Some(at) = self.words.proves(&heard, &knocks)
                    && !called.contains(&at)
                {
                    called.push(at);
                    calling.push(async move { to_found(self.port.connect(at).await.ok()).await });
                }
            }
        };
        let accept = async {
            let (mut accepted, mut arriving) = (0, FuturesUnordered::new());
            loop {
                tokio::select! {
                    came = self.port.accept(), if accepted < ACCEPTED => {
                        let Ok(came) = came else { return };
                        accepted += 1;
                        arriving.push(async move { to_found(came.stream().await).await });
                    }
                    Some(()) = arriving.next(), if !arriving.is_empty() => {}
                    else => return,
                }
            }
        };
        tokio::join!(self.knock(&knocks), hear, accept);
    }

    async fn knock(&self, knocks: &[(SocketAddr, Word)]) {
        for n in 0..KNOCKS {
            for (at, random) in knocks {
                self.port.knock(*at, &self.words.knock(*random));
            }
            sleep(if n < KNOCKS / 2 { SOON } else { LATER }).await;
        }
    }
}

fn pause(seed: u64) -> Duration {
    let (least, more) = PAUSE;
    Duration::from_millis(least + seed % more)
}
