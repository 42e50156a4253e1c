//! Relays: how two peers reach each other when only a third one can be reached by both.
//!
//! A node that nobody can connect to keeps a session with a relay and registers there ([`Relays::register`]). Whoever
//! wants to talk to it dials its peer id at the relay; the relay asks it, and from then on
//! copies bytes between two substreams. The two make a session of their own on that stream, with TLS between
//! them, so the relay sees ciphertext, and how much of it, and who talks to whom. It can delay and cut, and
//! can neither read nor alter without being noticed.
//!
//! A node uses relays through [`Relays`], and is one with a [`Relay`]. Below both are [`Registration`], [`dial`] and
//! [`take`], for sessions that are no node's.
//!
//! | file | holds |
//! | --- | --- |
//! | `message.rs` | the messages, without IO |
//! | `client.rs`, `stream.rs` | the node's side of one session, and of one circuit |
//! | `known.rs` | what a node has heard of its relays' fleets |
//! | `relays.rs` | a node that uses relays: staying registered, taking circuits, reaching peers |
//! | `server.rs` | a relay |
//! | `registering.rs`, `circuits.rs` | what it does for one peer |
//! | `unread.rs` | circuits between two members that nobody reads |
//! | `nameplates.rs` | where two peers meet that have a short code |
//! | `seen.rs` | where it sees a peer, signed |
//! | `inner.rs` | what its tasks share |
//! | `config.rs` | its limits |
//! | `presence.rs` | where a fleet of relays remembers who is registered at which of them |
//! | `across.rs`, `holding.rs` | from one member of a fleet to another: a circuit, and how many registrations a peer has there |
//! | `fleet/` | relays that lead to each other's peers |
//! | `error.rs`, `event.rs` | why it did not come about, and what happened |

mod across;
mod circuits;
mod client;
mod config;
mod error;
mod event;
pub mod fleet;
mod holding;
mod inner;
mod known;
mod message;
mod nameplates;
mod presence;
mod registering;
mod relays;
#[cfg(feature = "nat")]
mod seen;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod unread;

pub use crate::wire::Status;
pub use client::{Registration, dial, is_circuit, take};
pub use config::RelayConfig;
pub use error::{CircuitEnd, RegisterError, RelayError};
pub use event::RelayEvent;
pub use presence::{InMemory, Presence};
pub use relays::Relays;
#[cfg(all(feature = "nat", test))]
pub(super) use seen::testing;
#[cfg(feature = "nat")]
pub(super) use seen::{Nonce, WhereSeen, verify, where_seen};
pub use server::{Relay, RelayStats};

/// For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    message::fuzz(bytes);
    fleet::entry::fuzz(bytes);
    #[cfg(feature = "nat")]
    seen::fuzz(bytes);
}
