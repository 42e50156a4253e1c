//! What happens at a recipient of sealed messages.

use std::fmt;

use cepa_transports::text::quoted;

use crate::identity::PeerId;
use crate::node::ProtocolEvent;

/// A sealed request was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedEvent {
    /// From whom.
    pub sender: PeerId,
    /// Who brought it: a carrier, or the sender itself.
    pub carrier: PeerId,
    /// For which service.
    pub service: String,
}

impl ProtocolEvent for SealedEvent {
    fn peer(&self) -> Option<PeerId> {
        Some(self.sender)
    }
}

impl fmt::Display for SealedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} asks the service {}, sealed",
            self.sender,
            quoted(&self.service)
        )?;
        if self.sender != self.carrier {
            write!(f, " and brought by {}", self.carrier)?;
        }
        Ok(())
    }
}
