//! Peers of this process: diallers, and such that take circuits without a TLS of their own, so that the machine is the relays'.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::node::{Hint, PeerAddr};
use cepa::protocols::relay::{self, Registration};
use cepa::session::Session;
use cepa::stack::StackConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::rig::Relay;
use crate::Outcome;
use crate::mesh::copying::carry as carry_over;

const LIFETIME: Duration = Duration::from_secs(3600);

/// What a circuit begins with.
const ECHO: u8 = b'e';
const SINK: u8 = b's';

/// A session with a relay, as somebody new.
pub(super) async fn session(relay: &Relay) -> Outcome<(PeerId, Session)> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    let id = identity.peer_id();
    let config = StackConfig::new(identity, Arc::new(Pinned::one(relay.id)));
    let address: PeerAddr = relay.address.parse()?;
    let Some(Hint::Direct(at)) = address.hints().first() else {
        return Err("a relay without a place".into());
    };
    Ok((id, Session::dial(at, &config).await?))
}

/// Registered as long as it is.
pub(super) struct Taker {
    pub(super) id: PeerId,
    session: Session,
    /// Kept for what its end is.
    registration: Option<Registration>,
}

impl Taker {
    pub(super) async fn at(relay: &Relay) -> Outcome<Self> {
        let (id, session) = session(relay).await?;
        let registration = Registration::at(&session, LIFETIME).await?;
        let accepting = session.clone();
        tokio::spawn(async move {
            while let Ok(incoming) = accepting.accept().await {
                tokio::spawn(async move {
                    if let Ok((stream, _)) = relay::take(incoming).await {
                        let _ = treat(stream).await;
                    }
                });
            }
        });
        Ok(Self {
            id,
            session,
            registration: Some(registration),
        })
    }

    /// Leaves, and comes again.
    pub(super) async fn again(&mut self) -> Outcome<()> {
        drop(self.registration.take());
        self.registration = Some(Registration::at(&self.session, LIFETIME).await?);
        Ok(())
    }
}

async fn treat(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome<()> {
    let what = stream.read_u8().await?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            n if what == ECHO => {
                stream.write_all(&buffer[..n]).await?;
                stream.flush().await?;
            }
            _ => {}
        }
    }
    stream.shutdown().await?;
    Ok(())
}

/// Bytes to somebody, through whichever relay the session is with, until they have come.
pub(super) async fn carry(session: &Session, to: PeerId, bytes: u64) -> Outcome<()> {
    let mut stream = relay::dial(session, to).await?;
    stream.write_all(&[SINK]).await?;
    carry_over(stream, bytes).await
}

/// Circuits that say something all the time; how many of them were cut, in the end.
pub(super) struct Talks(
    Vec<tokio::task::JoinHandle<Outcome<()>>>,
    tokio::sync::watch::Sender<bool>,
);

impl Talks {
    pub(super) async fn begin(session: &Session, to: PeerId, count: usize) -> Outcome<Self> {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut all = Vec::new();
        for _ in 0..count {
            let mut stream = relay::dial(session, to).await?;
            let stopped = stopped.clone();
            all.push(tokio::spawn(async move {
                stream.write_all(&[ECHO]).await?;
                let mut some = [7; 64];
                while !*stopped.borrow() {
                    stream.write_all(&some).await?;
                    stream.flush().await?;
                    stream.read_exact(&mut some).await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(())
            }));
        }
        Ok(Self(all, stop))
    }

    pub(super) async fn cut(self) -> Outcome<usize> {
        self.1.send(true)?;
        let mut cut = 0;
        for talk in self.0 {
            cut += usize::from(talk.await?.is_err());
        }
        Ok(cut)
    }
}
