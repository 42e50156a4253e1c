//! What happens at an owner of services that peers are introduced to.

use std::fmt;

use cepa_transports::text::quoted;

use crate::identity::PeerId;
use crate::node::ProtocolEvent;

/// What a peer did with an introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IntroductionEvent {
    /// It got a service.
    Introduced {
        /// Who.
        peer: PeerId,
        /// Which service.
        service: String,
        /// Who introduced it, the first one first.
        by: Vec<PeerId>,
    },
    /// It took an introduction back.
    Revoked {
        /// Who.
        peer: PeerId,
        /// To which service.
        service: String,
    },
}

impl ProtocolEvent for IntroductionEvent {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Introduced { peer, .. } | Self::Revoked { peer, .. } => Some(*peer),
        }
    }
}

impl fmt::Display for IntroductionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Introduced { peer, service, by } => {
                let by: Vec<String> = by.iter().rev().map(PeerId::to_string).collect();
                let by = by.join(", who was introduced by ");
                write!(
                    f,
                    "{peer} gets the service {}, introduced by {by}",
                    quoted(service)
                )
            }
            Self::Revoked { peer, service } => {
                write!(
                    f,
                    "{peer} revoked an introduction to the service {}",
                    quoted(service)
                )
            }
        }
    }
}
