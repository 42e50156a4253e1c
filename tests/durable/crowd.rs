//! What the tests of durable sessions share: two peers, a server, and a crowd of streams that carry bytes both ways and compare
//! the digest of each.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cepa::identity::{Identity, PeerId, Pinned};
use cepa::session::{ServiceStream, Session};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, listen};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};

use crate::support::Random;

/// A number from the environment, for runs that are longer than those of everybody.
pub(crate) fn scaled(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => usual,
    }
}

/// A lost path is noticed within so long, in place of the seconds that users have.
pub(crate) fn quick() -> cepa::resume::Config {
    cepa::resume::Config::default()
        .with_keepalive(Duration::from_millis(200))
        .with_keepalive_timeout(Duration::from_millis(500))
}

/// Two peers that expect each other and keep their sessions.
pub(crate) struct Peers {
    pub(crate) client: StackConfig,
    pub(crate) server: StackConfig,
}

impl Peers {
    pub(crate) fn new(kept: &cepa::resume::Config) -> Self {
        let (a, b) = (crate::support::identity(), crate::support::identity());
        Self {
            client: config(&a, b.peer_id(), kept),
            server: config(&b, a.peer_id(), kept),
        }
    }
}

/// One end, which expects the other.
pub(crate) fn config(own: &Identity, other: PeerId, kept: &cepa::resume::Config) -> StackConfig {
    let trust = Arc::new(Pinned::one(other));
    StackConfig::new(own.clone(), trust)
        .with_resume(Some(kept.clone()))
        // A handshake in a blackhole is given up soon.
        .with_layer_timeout(Duration::from_secs(5))
}

/// A server that accepts for ever; sessions that are new come out of it.
pub(crate) struct Server {
    pub(crate) at: Endpoint,
    pub(crate) sessions: UnboundedReceiver<Session>,
    task: AbortHandle,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        let text = self.at.to_string();
        let (_, address) = text.rsplit_once("tcp:").unwrap();
        address.parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn serve(at: &str, config: &StackConfig) -> Server {
    let mut listener = listen(&at.parse().unwrap()).await.unwrap();
    let at = listener.endpoint().clone();
    let (sender, sessions) = unbounded_channel();
    let (config, endpoint) = (config.clone(), at.clone());
    let task = tokio::spawn(async move {
        // Handshakes end with it.
        let mut handshakes = JoinSet::new();
        while let Ok(accepted) = listener.accept().await {
            let Some(stream) = accepted else { return };
            let (config, endpoint, sender) = (config.clone(), endpoint.clone(), sender.clone());
            handshakes.spawn(async move {
                // The others were taken up by a session that is there, or harmed in their handshake.
                if let Ok(session) = Session::accept_on(stream, &endpoint, &config).await {
                    let _ = sender.send(session);
                }
            });
            while handshakes.try_join_next().is_some() {}
        }
    });
    Server {
        at,
        sessions,
        task: task.abort_handle(),
    }
}

/// Bytes to send, of a length that fits nothing, so that a piece that is lost or doubled moves all behind it.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| Random::new(99).bytes(1_048_573));

/// What passed in one direction of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) bytes: u64,
    pub(crate) digest: [u8; 32],
}

/// What both directions of a stream had, as one end saw it.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) sent: Passed,
    pub(crate) got: Passed,
}

/// Sends and receives at once. Sends at least so many bytes, and more for as long as `go_on` says so.
pub(crate) async fn exchange<S>(
    stream: S,
    seed: u64,
    least: u64,
    go_on: impl Fn() -> bool + Send + 'static,
) -> Exchanged
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        let (mut random, mut hash, mut bytes) = (Random::new(seed), Sha256::new(), 0);
        let mut at = random.below(BYTES.len());
        while bytes < least || go_on() {
            let piece = &BYTES[at..];
            let piece = &piece[..piece.len().min(1 + random.below(32 << 10))];
            to.write_all(piece).await.expect("writing failed");
            hash.update(piece);
            bytes += piece.len() as u64;
            at = (at + piece.len()) % BYTES.len();
        }
        to.shutdown().await.expect("ending failed");
        Passed {
            bytes,
            digest: hash.finalize().into(),
        }
    });
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; 32 << 10];
    loop {
        match from.read(&mut piece).await.expect("reading failed") {
            0 => break,
            n => {
                hash.update(&piece[..n]);
                bytes += n as u64;
            }
        }
    }
    let got = Passed {
        bytes,
        digest: hash.finalize().into(),
    };
    Exchanged {
        sent: sending.await.unwrap(),
        got,
    }
}

/// Serves [`crowd`] at the other end: what each stream had comes back by its number.
pub(crate) async fn serve_crowd(
    session: Session,
    streams: usize,
    least: u64,
    go_on: impl Fn() -> bool + Clone + Send + 'static,
) -> Vec<Exchanged> {
    let mut running = JoinSet::new();
    for _ in 0..streams {
        let incoming = session.accept().await.expect("the session is over");
        let number: u64 = incoming.service().parse().unwrap();
        let go_on = go_on.clone();
        running.spawn(async move {
            let stream = incoming.accept().await.expect("accepting failed");
            let exchanged = exchange(stream, 2 * number + 1, least, go_on).await;
            (number, exchanged)
        });
    }
    in_order(running.join_all().await)
}

/// So many streams at once, both ways.
pub(crate) async fn crowd(
    session: &Session,
    streams: usize,
    least: u64,
    go_on: impl Fn() -> bool + Clone + Send + 'static,
) -> Vec<Exchanged> {
    let mut running = JoinSet::new();
    for number in 0..streams as u64 {
        let (session, go_on) = (session.clone(), go_on.clone());
        running.spawn(async move {
            let opened = session.open(&number.to_string()).await;
            let stream: ServiceStream = opened.expect("opening failed");
            let exchanged = exchange(stream, 2 * number, least, go_on).await;
            (number, exchanged)
        });
    }
    in_order(running.join_all().await)
}

fn in_order(mut all: Vec<(u64, Exchanged)>) -> Vec<Exchanged> {
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, exchanged)| exchanged).collect()
}

/// Each direction of each stream had the same at both ends. Says how many bytes that were.
pub(crate) fn compare(near: &[Exchanged], far: &[Exchanged]) -> u64 {
    assert_eq!(near.len(), far.len());
    let mut bytes = 0;
    for (number, (near, far)) in near.iter().zip(far).enumerate() {
        assert!(near.sent == far.got, "stream {number}: {near:?} {far:?}");
        assert!(near.got == far.sent, "stream {number}: {near:?} {far:?}");
        bytes += near.sent.bytes + near.got.bytes;
    }
    bytes
}

/// Does not let a session wait: a test has less patience with its attempts to dial than a user.
pub(crate) fn impatient(session: &Session) -> AbortHandle {
    let session = session.clone();
    tokio::spawn(async move {
        let mut missing = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            missing = if session.path().is_some() {
                0
            } else {
                missing + 1
            };
            if missing == 4 {
                session.reconnect_now();
                missing = 0;
            }
        }
    })
    .abort_handle()
}
