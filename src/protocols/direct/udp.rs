//! A UDP port for an attempt, and where the relay sees it.
//!
//! What the relay sees of a session over TCP says nothing of a UDP port. So the node makes a second session with the relay, over QUIC and
//! from that very port, and asks in it. The relay says at which port it listens for `quic:`, and only its own address is asked there; where
//! it does not listen, or UDP is not let through, there is no UDP port and nothing is tried with one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cepa_transports::QuicPort;
use tokio::time::timeout;

use crate::identity::PeerId;
use crate::node::Node;
use crate::session::Session;

use super::super::relay::{Nonce, WhereSeen, where_seen};

/// For the session with the relay, and for its answer: some round trips. Where UDP is not let through, an attempt is so much longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A UDP port, and a session with the relay from there.
pub(super) struct Udp {
    pub(super) port: QuicPort,
    relay: Session,
}

impl Udp {
    /// A port at this address of the machine. `None` where the relay is not reached from there.
    pub(super) async fn open(
        node: &Node,
        relay: PeerId,
        relay_at: SocketAddr,
        own: IpAddr,
    ) -> Option<Self> {
        let port = QuicPort::open(own).ok()?;
        let reached = timeout(PATIENCE, async {
            let stream = port.connect(relay_at).await.ok()?;
            node.aside(relay, stream).await.ok()
        });
        let relay = reached.await.ok().flatten()?;
        Some(Self { port, relay })
    }

    /// Where the relay sees the port, signed for whom the nonce is from. The session with it ends: nothing else goes through.
    pub(super) async fn where_seen(
        self,
        node: &Node,
        nonce: Nonce,
    ) -> Option<(QuicPort, WhereSeen)> {
        let Self { port, relay } = self;
        let seen = timeout(PATIENCE, where_seen(&relay, node.id(), nonce)).await;
        node.spawn(async move { relay.close().await });
        Some((port, seen.ok()?.ok()?))
    }
}
