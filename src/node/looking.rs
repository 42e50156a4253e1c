//! What there is at a node now, for who looks at it: its sessions, and what peers hold of what there is.

use crate::identity::PeerId;
use crate::mux::Stats;
use crate::session::Session;

use super::Node;
use super::live::Path;
use super::shares::{Resource, ShareLimits};

impl Node {
    /// The peers with whom there are sessions, how each came to be, and its mux's counters.
    #[must_use]
    pub fn sessions(&self) -> Vec<(PeerId, Path, Stats)> {
        let all = self.core.sessions().into_iter();
        all.map(|(peer, live)| (peer, live.current(), live.session.mux_stats()))
            .collect()
    }

    /// All sessions that are not over, the oldest first: with whom, over what each runs now (or ran last), and the session. Those
    /// too that are not used any more, since there is a better one with the same peer.
    #[must_use]
    pub fn standing_sessions(&self) -> Vec<(PeerId, Path, Session)> {
        let mut all = self.core.table().standing();
        all.sort_unstable_by_key(|live| live.session.number());
        all.into_iter()
            .map(|live| (live.who.id, live.current(), live.session.clone()))
            .collect()
    }

    /// How much of a resource is held now, by one peer or by all.
    #[must_use]
    pub fn held(&self, resource: Resource, peer: Option<PeerId>) -> usize {
        self.core.shares.held(resource, peer)
    }

    /// The limits of what peers make this node hold.
    #[must_use]
    pub fn share_limits(&self) -> ShareLimits {
        self.core.config.shares
    }

    /// Bytes of memory that all peers make this node hold, as [`ShareLimits::receive_memory`]
    /// counts them.
    #[must_use]
    pub fn receive_memory(&self) -> usize {
        self.core.shares.memory_used()
    }
}
