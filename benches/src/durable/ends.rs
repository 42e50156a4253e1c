//! Sessions of either kind, and their peers.

use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::resume;
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::{Layer, Stream};
use cepa::{ByteStream, Side};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;

/// Whether a session outlives its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Durable,
}

/// Two peers that expect each other.
#[derive(Clone)]
pub(super) struct Peers {
    pub(super) client: StackConfig,
    pub(super) server: StackConfig,
}

impl Peers {
    pub(super) fn new() -> Outcome<Self> {
        let one = || Identity::generate(KeyKind::Ed25519);
        let (a, b) = (one()?, one()?);
        let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
        Ok(Self {
            client: StackConfig::new(a, Arc::new(for_a)),
            server: StackConfig::new(b, Arc::new(for_b)),
        })
    }

    pub(super) fn of(&self, kind: Kind) -> Self {
        let kept = (kind == Kind::Durable).then(resume::Config::default);
        Self {
            client: self.client.clone().with_resume(kept.clone()),
            server: self.server.clone().with_resume(kept),
        }
    }
}

/// Two sockets over loopback.
async fn tcp() -> Outcome<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// A session over loopback.
pub(super) async fn over_tcp(peers: &Peers) -> Outcome<(Session, Session)> {
    let (near, far) = tcp().await?;
    over((near, far), &[], peers).await
}

/// A session over whatever joins the two ends.
pub(super) async fn over(
    (near, far): (impl ByteStream, impl ByteStream),
    layers: &[Layer],
    peers: &Peers,
) -> Outcome<(Session, Session)> {
    let near = Stream::from_io(near, "near");
    let far = Stream::from_io(far, "far");
    let (near, far) = tokio::join!(
        Session::handshake(near, layers, Side::Client, &peers.client),
        Session::handshake(far, layers, Side::Server, &peers.server),
    );
    let (near, far) = (near?, far?);
    if near.outlives_connections() != peers.client.resume.is_some() {
        return Err("the session is not of the kind that was wanted".into());
    }
    Ok((near, far))
}
