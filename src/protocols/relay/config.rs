//! A relay's limits, and whom it serves.
//!
//! How what there is is shared among peers, `../pool.rs` says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::node::Access;

use super::fleet::Fleet;
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
    /// has two for a while, and one key may serve on a few machines. With more the oldest one is dropped whose session
    /// does not answer.
    pub registrations_a_peer: usize,
    /// Registrations of all strangers of one host (IPv6: of one /64 network), or behind one other relay; default `None`, a
    /// quarter of all.
    pub registrations_a_host: Option<usize>,
    /// Longest time that a registration lasts without being renewed; default 1 h.
    pub lifetime: Duration,
    /// Circuits in all; default 16. Each one may use the relay's whole rate.
    pub circuits: usize,
    /// Circuits that one peer dials; default 4.
    pub circuits_a_peer: usize,
    /// Circuits that all strangers of one host, or behind one other relay, dial; default `None`, half of all.
    pub circuits_a_host: Option<usize>,
    /// A circuit that has carried no byte either way for so long is ended (code 10); default 15 min. Sessions
    /// inside of circuits send something every 15 s by themselves, so this is one that both its ends have forgotten.
    pub idle: Duration,
    /// The same while circuits are short: after so long without a byte one is ended (code 11) for a peer that has none; default
    /// 1 min, four times as long as a session is ever silent.
    pub idle_when_full: Duration,
    /// When circuits are short, one that has lasted so long may be ended (code 11) for a peer that has none: of whoever dialled
    /// most, the oldest first; default 5 min. Such a peer is refused no longer than that, by circuits of its equals.
    pub min_life: Duration,
    /// Bytes a second of all circuits that one peer dialled, both ways together; default 10 MiB/s.
    pub rate: u64,
    /// Time for a registered peer to take or refuse a circuit, whichever of its registrations it is asked by; default 10 s.
    pub patience: Duration,
    /// Where it is kept who is registered at which relay; default this process. A fleet of relays shares one, and
    /// each of them tells diallers which other one to ask.
    pub presence: Arc<dyn Presence>,
    /// The relay's part in a fleet: the members lead to each other's peers, and [`presence`](Self::presence) is not asked. Default none.
    pub fleet: Option<Fleet>,
}

setters!(RelayConfig {
    with_access => access: Access,
    with_registrations => registrations: usize,
    with_registrations_a_peer => registrations_a_peer: usize,
    with_registrations_a_host => registrations_a_host: Option<usize>,
    with_lifetime => lifetime: Duration,
    with_circuits => circuits: usize,
    with_circuits_a_peer => circuits_a_peer: usize,
    with_circuits_a_host => circuits_a_host: Option<usize>,
    with_idle => idle: Duration,
    with_idle_when_full => idle_when_full: Duration,
    with_min_life => min_life: Duration,
    with_rate => rate: u64,
    with_patience => patience: Duration,
    with_presence => presence: Arc<dyn Presence>,
    with_fleet => fleet: Option<Fleet>,
});

impl RelayConfig {
    /// The defaults, for these peers.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self {
            access,
            registrations: 128,
            registrations_a_peer: 4,
            registrations_a_host: None,
            lifetime: Duration::from_secs(3600),
            circuits: 16,
            circuits_a_peer: 4,
            circuits_a_host: None,
            idle: Duration::from_secs(15 * 60),
            idle_when_full: Duration::from_secs(60),
            min_life: Duration::from_secs(5 * 60),
            rate: 10 << 20,
            patience: Duration::from_secs(10),
            presence: Arc::new(InMemory::default()),
            fleet: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Each field is taken by name, so that a new one is missed here before it is missed there.
    #[test]
    fn the_page_about_relays_has_every_limit_and_its_default() {
        let RelayConfig {
            access,
            registrations,
            registrations_a_peer,
            registrations_a_host,
            lifetime,
            circuits,
            circuits_a_peer,
            circuits_a_host,
            idle,
            idle_when_full,
            min_life,
            rate,
            patience,
            presence: _,
            fleet: _,
        } = RelayConfig::new(Access::Nobody);
        assert_eq!(access, Access::Nobody);
        let seconds = |time: Duration| format!("{} s", time.as_secs());
        let part = |given: Option<usize>, part: &str| {
            given.map_or_else(|| part.to_owned(), |given| given.to_string())
        };
        let page = include_str!("../../../docs/MESH.md");
        for (name, value) in [
            ("registrations", registrations.to_string()),
            ("registrations_a_peer", registrations_a_peer.to_string()),
            (
                "registrations_a_host",
                part(registrations_a_host, "a quarter of all"),
            ),
            ("lifetime", seconds(lifetime)),
            ("circuits", circuits.to_string()),
            ("circuits_a_peer", circuits_a_peer.to_string()),
            ("circuits_a_host", part(circuits_a_host, "half of all")),
            ("idle", seconds(idle)),
            ("idle_when_full", seconds(idle_when_full)),
            ("min_life", seconds(min_life)),
            ("rate", format!("{rate} B/s")),
            ("patience", seconds(patience)),
        ] {
            let row = format!("| `{name}` | {value} |");
            assert!(page.contains(&row), "docs/MESH.md lacks {row}");
        }
    }
}
