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
        None
    }
}

impl fmt::Display for RelayEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { relay } => write!(f, "registered at relay {relay}"),
            Self::Unregistered { relay, reason } => {
                write!(f, "not registered at relay {relay}: {reason}; trying again")
            }
            Self::GivenUp { relay, reason } => {
                write!(f, "not registered at relay {relay}: {reason}")
            }
            Self::TakenBack { relay } => {
                write!(f, "the registration at relay {relay} was taken back here")
            }
        }
    }
}
