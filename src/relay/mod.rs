//! Relays: how two peers reach each other when only a third one can be reached by both.
//!
//! A node that nobody can connect to keeps a session with a relay and [registers](Registration) there. Whoever
//! wants to talk to it [dials](dial) its peer id at the relay; the relay asks it, and from then on
//! copies bytes between two substreams. The two make a session of their own on that stream, with TLS between
//! them, so the relay sees ciphertext, and how much of it, and who talks to whom. It can delay and cut, and
//! can neither read nor alter without being noticed.
//!
//! | file | holds |
//! | --- | --- |
//! | `message.rs` | the messages, without IO |
//! | `exchange.rs` | sending and reading them |
//! | `client.rs` | a node's side |
//! | `server.rs` | a relay's side |
//! | `ledger.rs` | who is registered and who has circuits; the quotas |
//! | `presence.rs` | where a fleet of relays remembers who is registered at which of them |
//! | `copy.rs` | a circuit |
//! | `error.rs` | why it did not come about |

mod client;
mod copy;
mod error;
mod exchange;
mod ledger;
mod message;
mod presence;
mod server;

pub use client::{Registration, dial, is_circuit, take};
pub use error::RelayError;
// Forwarders join substreams too.
pub(crate) use copy::{End, code_of, copy};
// Other rooms' messages have the same form.
pub(crate) use exchange::{fault, receive, send};
pub use message::Status;
pub(crate) use message::{MAX_REASON, Message, VERSION, message};
pub use presence::{InMemory, Presence};
pub use server::{Allow, Relay, RelayConfig, RelayStats};

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use message::fuzz;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use message::fuzz_one;
