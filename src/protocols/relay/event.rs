//! What happens to a node at its relays.

use std::fmt;

use crate::identity::PeerId;
use crate::node::ProtocolEvent;

/// What happened to a node at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayEvent {
    /// Registered there.
    Registered {
        /// Which relay.
        relay: PeerId,
    },
    /// Not registered there (any more); tried again by itself.
    Unregistered {
        /// Which relay.
        relay: PeerId,
        /// Why, in one line.
        reason: String,
    },
    /// Another process that has this node's key has registered there after it, and gets its circuits now.
    TakenOver {
        /// Which relay.
        relay: PeerId,
    },
    /// At a relay: a peer has registered while another process with its key is registered and alive.
    KeyShared {
        /// Whose key it is.
        peer: PeerId,
    },
    /// At a relay of a fleet: another one has this relay's key, or somebody writes in its name what it says of itself.
    IdentityShared {
        /// This relay.
        relay: PeerId,
    },
    /// Not registered there, and not tried again: nothing would come of it.
    GivenUp {
        /// Which relay.
        relay: PeerId,
        /// Why, in one line.
        reason: String,
    },
    /// The registration there was [taken back](super::Relays::unregister).
    TakenBack {
        /// Which relay.
        relay: PeerId,
    },
}

impl ProtocolEvent for RelayEvent {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::KeyShared { peer } => Some(*peer),
            _ => None,
        }
    }
}

impl fmt::Display for RelayEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { relay } => write!(f, "registered at relay {relay}"),
            Self::Unregistered { relay, reason } => {
                write!(f, "not registered at relay {relay}: {reason}; trying again")
            }
            Self::TakenOver { relay } => write!(
                f,
                "warning: another process with our key has registered at relay {relay} and gets our callers now: two processes share one key, give each its own"
            ),
            Self::KeyShared { peer } => write!(
                f,
                "warning: {peer} has registered while another process with the same key is: the newer one gets its callers; give each a key of its own"
            ),
            Self::IdentityShared { relay } => write!(
                f,
                "warning: another relay uses this identity in the fleet ({relay}), or somebody writes its entry in the store: give each relay a key of its own"
            ),
            Self::GivenUp { relay, reason } => {
                write!(f, "not registered at relay {relay}: {reason}")
            }
            Self::TakenBack { relay } => {
                write!(f, "the registration at relay {relay} was taken back here")
            }
        }
    }
}
