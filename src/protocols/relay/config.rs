//! A relay's limits, and whom it serves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::node::Access;

use super::presence::{InMemory, Presence};

/// The limits of a relay, and whom it serves. Start from [`RelayConfig::new`].
#[derive(Clone)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Whom: others are refused, whatever they ask for. [`Relay::set_access`](super::Relay::set_access) changes it.
    pub access: Access,
    /// Registrations in all; default 128. Each one is a session that stays.
    pub registrations: usize,
    /// Registrations of one peer; default 4: a peer that reconnects before its old session was found dead
    /// has two for a while, and one key may serve on a few machines.
    pub registrations_a_peer: usize,
    /// Longest time that a registration lasts without being renewed; default 1 h.
    pub lifetime: Duration,
    /// Circuits in all; default 16. Each one may use the relay's whole rate.
    pub circuits: usize,
    /// Circuits that one peer dials; default 4.
    pub circuits_a_peer: usize,
    /// Bytes a second of all circuits that one peer dialled, both ways together; default 10 MiB/s.
    pub rate: u64,
    /// Time for a registered peer to take or refuse a circuit; default 10 s.
    pub patience: Duration,
    /// Where it is kept who is registered at which relay; default this process. A fleet of relays shares one, and
    /// each of them tells diallers which other one to ask.
    pub presence: Arc<dyn Presence>,
}

impl RelayConfig {
    /// The defaults, for these peers.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self {
            access,
            registrations: 128,
            registrations_a_peer: 4,
            lifetime: Duration::from_secs(3600),
            circuits: 16,
            circuits_a_peer: 4,
            rate: 10 << 20,
            patience: Duration::from_secs(10),
            presence: Arc::new(InMemory::default()),
        }
    }
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig")
            .field("registrations", &self.registrations)
            .field("circuits", &self.circuits)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}
