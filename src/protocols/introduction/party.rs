//! Who takes part: a peer by its present key, and by those that it held before and has replaced.
//!
//! What was issued for an old key is its successor's as well, and what an old key has issued its successor may take back:
//! the peer's certificate proves it in the session ([`Peer::former_ids`]). It does not go the other way round: an old key
//! is not the new one.

use crate::identity::{Identity, Lineage, PeerId, UnixTime};
use crate::node::Node;
use crate::tls::Peer;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::protocols) struct Party {
    pub(in crate::protocols) id: PeerId,
    former: Vec<PeerId>,
}

impl Party {
    pub(in crate::protocols) fn of(peer: &Peer) -> Self {
        Self {
            id: peer.id(),
            former: peer.former_ids().to_vec(),
        }
    }

    /// The peer of an id, as the session proves it that there is with it.
    pub(in crate::protocols) fn at(node: &Node, id: PeerId) -> Self {
        match node.session_with(id) {
            Some(session) => Self::of(session.peer()),
            None => Self::new(id),
        }
    }

    /// This node itself.
    pub(in crate::protocols) fn own(identity: &Identity) -> Self {
        let id = identity.peer_id();
        let lineage = Lineage::new(id, identity.chain().into(), UnixTime::now());
        Self {
            id,
            former: lineage.former().to_vec(),
        }
    }

    /// By this key alone.
    pub(in crate::protocols) fn new(id: PeerId) -> Self {
        Self {
            id,
            former: Vec::new(),
        }
    }

    /// Whether it is the peer of this id.
    pub(in crate::protocols) fn is(&self, id: &PeerId) -> bool {
        self.id == *id || self.former.contains(id)
    }

    #[cfg(test)]
    pub(super) fn replacing(self, former: PeerId) -> Self {
        Self {
            former: vec![former],
            ..self
        }
    }
}
