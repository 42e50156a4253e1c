//! What a node wants of direct paths, and what its attempts share.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::identity::PeerId;
use crate::node::Node;

use super::budget::Budget;

/// Whom a node connects to, and when. Start from the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectConfig {
    /// Whether addresses of private networks are told and tried, where both peers seem to be in the same one; default yes.
    pub private: bool,
    /// Whether QUIC is tried beside TCP, where the relay listens for it; default yes.
    pub quic: bool,
    /// Whether a router is asked to map a port (PCP, NAT-PMP, UPnP) where an attempt without that has failed; default yes.
    pub map: bool,
    /// How long a session has led through a relay before it is tried for the first time; default 1 s: many a session is over by then.
    pub after: Duration,
    /// The pause before the second attempt, default 30 s; then longer and longer ones.
    pub pause: Duration,
    /// The longest pause, default 30 min: networks change, and an attempt costs both ends a few packets.
    pub longest_pause: Duration,
    /// Connections of TCP are tried, which tests may not want.
    #[doc(hidden)]
    pub tcp: bool,
    /// Addresses of this machine itself are told and tried, for tests.
    #[doc(hidden)]
    pub loopback: bool,
}

setters!(DirectConfig {
    with_private => private: bool,
    with_quic => quic: bool,
    with_map => map: bool,
    with_after => after: Duration,
    with_pause => pause: Duration,
    with_longest_pause => longest_pause: Duration,
    with_tcp => tcp: bool,
    with_loopback => loopback: bool,
});

impl Default for DirectConfig {
    fn default() -> Self {
        Self {
            private: true,
            quic: true,
            map: true,
            after: Duration::from_secs(1),
            pause: Duration::from_secs(30),
            longest_pause: Duration::from_secs(30 * 60),
            tcp: true,
            loopback: false,
        }
    }
}

/// A node tries for direct paths to peers with whom it has sessions through relays.
pub(super) struct Direct {
    pub(super) node: Node,
    pub(super) config: DirectConfig,
    pub(super) budget: Budget,
    /// One at a time: two listeners on one port would get each other's connections.
    pub(super) turn: Semaphore,
    /// Peers with whom the latest attempt came to nothing.
    pub(super) failed: Mutex<VecDeque<PeerId>>,
}

/// Peers that are remembered so; what is forgotten costs an attempt without a mapped port.
const FAILED: usize = 32;

impl Direct {
    /// Whether the next attempt is made with a port that the router maps.
    pub(super) fn is_to_map(&self, peer: PeerId) -> bool {
        self.config.map && self.failed().contains(&peer)
    }

    /// What has come of the latest attempt with a peer.
    pub(super) fn remember(&self, peer: PeerId, has_failed: bool) {
        let mut failed = self.failed();
        failed.retain(|it| *it != peer);
        if has_failed {
            failed.truncate(FAILED - 1);
            failed.push_front(peer);
        }
    }

    fn failed(&self) -> MutexGuard<'_, VecDeque<PeerId>> {
        // Whatever is lost of it costs no more than that.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
