//! What happens at a membrane.

use std::fmt;

use cepa_transports::text::quoted;

use crate::identity::PeerId;
use crate::node::ProtocolEvent;

/// A peer gave another one a reference through a membrane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembraneEvent {
    /// Who gave it.
    pub from: PeerId,
    /// Who got it.
    pub to: PeerId,
    /// The service that it is for, and whose service it is.
    pub service: String,
    /// Whose.
    pub owner: PeerId,
}

impl ProtocolEvent for MembraneEvent {
    fn peer(&self) -> Option<PeerId> {
        Some(self.from)
    }
}

impl fmt::Display for MembraneEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} gave {} a reference to {} of {}, through a membrane",
            self.from,
            self.to,
            quoted(&self.service),
            self.owner
        )
    }
}
