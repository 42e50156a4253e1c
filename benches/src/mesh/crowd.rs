//! Nodes and diallers, as many as are wanted in one process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::protocols::relay::{self, Registration};
use cepa::session::{Incoming, Session};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Stream};
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::relay::Running;
use crate::{Failure, Outcome};

/// Handshakes on their way at once: a relay turns more than a hundred away.
const AT_ONCE: usize = 8;

/// For how long nodes register.
const LIFETIME: Duration = Duration::from_secs(3600);

/// What a circuit is opened with: how the node treats what comes.
pub(super) const ECHO_ONCE: u8 = b'e';
pub(super) const SINK: u8 = b's';
/// It writes for as long as something is taken, and reads nothing.
pub(super) const STUFF: u8 = b'w';

/// It says nothing, and reads nothing.
pub(super) const LEAVE: u8 = b'l';

/// Bytes of one echo.
pub(super) const ECHO: usize = 1024;

/// What all nodes share.
#[derive(Debug)]
pub(super) struct Crowd {
    /// How many bytes have come, by who sent them.
    counts: Mutex<HashMap<PeerId, Arc<AtomicU64>>>,
}

impl Crowd {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::default(),
        })
    }

    /// Bytes so far, by who sent them.
    pub(super) fn counted(&self) -> Vec<(PeerId, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counts.iter();
        all.map(|(peer, count)| (*peer, count.load(Ordering::Relaxed)))
            .collect()
    }

    fn count_of(&self, peer: PeerId) -> Arc<AtomicU64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counts.entry(peer).or_default())
    }
}

/// A node that has registered.
pub(super) struct Node {
    pub(super) id: PeerId,
    pub(super) session: Session,
    /// Registered as long as this is.
    pub(super) registration: Registration,
}

impl Node {
    /// Comes from nothing: a key, a session, a registration. The key is made before the clock starts.
    pub(super) async fn come(relay: &Running, crowd: &Arc<Crowd>) -> Outcome<(Self, Duration)> {
        let (config, at) = identity(relay)?;
        let begun = std::time::Instant::now();
        let session = Session::dial(&at, &config).await?;
        let registration = Registration::at(&session, LIFETIME).await?;
        let took = begun.elapsed();
        tokio::spawn(accept(session.clone(), Arc::clone(crowd)));
        let id = config.identity.peer_id();
        let node = Self {
            id,
            session,
            registration,
        };
        Ok((node, took))
    }

    /// Registers once more, over the session that there is.
    pub(super) async fn again(&mut self) -> Outcome<Duration> {
        let begun = std::time::Instant::now();
        self.registration = Registration::at(&self.session, LIFETIME).await?;
        Ok(begun.elapsed())
    }
}

/// So many nodes, some of them at once.
pub(super) async fn nodes(
    relay: &Running,
    crowd: &Arc<Crowd>,
    count: usize,
) -> Outcome<Vec<(Node, Duration)>> {
    let coming = (0..count).map(|_| Node::come(relay, crowd));
    let all = futures::stream::iter(coming).buffer_unordered(AT_ONCE);
    all.try_collect().await
}

/// So many sessions of diallers.
pub(super) async fn diallers(relay: &Running, count: usize) -> Outcome<Vec<(PeerId, Session)>> {
    let coming = (0..count).map(|_| async {
        let (config, at) = identity(relay)?;
        let session = Session::dial(&at, &config).await?;
        Ok::<_, Failure>((config.identity.peer_id(), session))
    });
    let all = futures::stream::iter(coming).buffer_unordered(AT_ONCE);
    all.try_collect().await
}

pub(super) fn identity(relay: &Running) -> Outcome<(StackConfig, Endpoint)> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    let mut config = StackConfig::new(identity, Arc::new(Pinned::one(relay.id)));
    config.mux.pacing = !relay.unpaced;
    Ok((config, format!("tcp:127.0.0.1:{}", relay.port).parse()?))
}

/// A circuit to a node, which is told what to do with what comes.
pub(super) async fn circuit(session: &Session, to: PeerId, treat: u8) -> Outcome<Stream> {
    let mut stream = relay::dial(session, to).await?;
    stream.write_all(&[treat]).await?;
    if treat == ECHO_ONCE {
        let mut some = [7; ECHO];
        stream.write_all(&some).await?;
        stream.flush().await?;
        stream.read_exact(&mut some).await?;
    }
    Ok(stream)
}

/// A node's side.
async fn accept(session: Session, crowd: Arc<Crowd>) {
    while let Ok(incoming) = session.accept().await {
        let crowd = Arc::clone(&crowd);
        tokio::spawn(async move {
            // An end of a circuit is no failure of the bench.
            let _ = serve(incoming, &crowd).await;
        });
    }
}

async fn serve(incoming: Incoming, crowd: &Arc<Crowd>) -> Outcome<()> {
    if relay::is_circuit(incoming.service()) {
        let (stream, from) = relay::take(incoming).await?;
        return treat(stream, from, crowd).await;
    }
    let from = incoming.peer().id();
    treat(incoming.accept().await?, from, crowd).await
}

async fn treat(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    from: PeerId,
    crowd: &Arc<Crowd>,
) -> Outcome<()> {
    let treat = stream.read_u8().await?;
    if treat == ECHO_ONCE {
        let mut some = [0; ECHO];
        stream.read_exact(&mut some).await?;
        stream.write_all(&some).await?;
        stream.flush().await?;
        // Open, and nobody reads.
        return std::future::pending().await;
    }
    if treat == LEAVE {
        stream.shutdown().await?;
        return std::future::pending().await;
    }
    if treat == STUFF {
        let chunk = vec![2; 16 << 10];
        loop {
            stream.write_all(&chunk).await?;
        }
    }
    let count = crowd.count_of(from);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            n => count.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
    stream.shutdown().await?;
    Ok(())
}
