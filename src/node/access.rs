//! Who may open a service.

use std::collections::HashSet;

use crate::identity::PeerId;

/// Who may open a service; nobody unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    #[default]
    Nobody,
    /// These peers.
    Peers(HashSet<PeerId>),
    /// Every peer that the node's trust lets in at all.
    Anyone,
}

impl Access {
    /// These peers and no other.
    pub fn peers(peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self::Peers(peers.into_iter().collect())
    }

    /// Whether this peer may.
    #[must_use]
    pub fn allows(&self, peer: &PeerId) -> bool {
        match self {
            Self::Nobody => false,
            Self::Peers(peers) => peers.contains(peer),
            Self::Anyone => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_the_default_and_nobody_else_gets_in() {
        let [one, two] = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        assert!(!Access::default().allows(&one));
        assert!(Access::Anyone.allows(&one));
        assert!(Access::peers([one]).allows(&one));
        assert!(!Access::peers([one]).allows(&two));
    }
}
