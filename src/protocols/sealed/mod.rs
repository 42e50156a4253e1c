//! Sealed messages: a request that a third peer carries, who can neither read nor alter it, and its answer likewise.
//!
//! The sender seals the request for a key of the recipient ([`SealingKey`], which the recipient's identity has signed),
//! with its own signature inside. A carrier, with which both have a session, takes it there and brings the
//! answer, which opens only for that sender and that request. So two peers that can't connect to each other exchange a message
//! without a session, at two public-key operations each; a conversation is better had through a relay.
//!
//! The carrier sees who, when and how much; it can drop and delay. What it alters does not open, what it repeats is
//! refused, and an answer to another request is none. What it says itself ([`SealedError::NotBrought`]) proves nothing.
//!
//! Nothing here needs a carrier: [`seal_request`], [`Mailbox`] and [`Awaiting`] do the same for bytes that go any other way.
//!
//! | file | holds |
//! | --- | --- |
//! | `seal.rs` | HPKE, the one file that names its crate |
//! | `letter.rs` | what is sealed and signed, its codec |
//! | `mailbox.rs` | a recipient's keys, opening requests |
//! | `window.rs` | each request is let in once |
//! | `bounds.rs` | how large things may be |
//! | `wire.rs` | the messages to and from a carrier |
//! | `quota.rs` | how much one peer may have carried |
//! | `node.rs` | a node that takes part |
//! | `state.rs` | the services that take sealed requests; whether the node is a carrier |
//! | `serve.rs` | the sides of a carrier and of a recipient |
//! | `ask.rs` | the side of a sender |
//! | `flaw.rs` | what can be wrong |
//! | `event.rs` | what happens |

mod ask;
mod bounds;
mod event;
mod flaw;
mod letter;
mod mailbox;
mod node;
mod quota;
mod seal;
mod serve;
mod state;
#[cfg(test)]
mod tests;
mod window;
mod wire;

pub use ask::SealedError;
pub use bounds::{MAX_BODY, MAX_SEALED};
pub use event::SealedEvent;
pub use flaw::SealFlaw;
pub use letter::{Answered, Awaiting, SealingKey, seal_request};
pub use mailbox::{Mailbox, Opened, Replier, Sender};
pub use node::Sealed;
pub use quota::{CarrierConfig, CarrierStats};
pub use state::SealedCall;

/// For the fuzz target.
#[cfg(all(feature = "mesh", any(test, feature = "fuzzing")))]
pub(super) fn fuzz(bytes: &[u8]) {
    letter::fuzz(bytes);
    wire::fuzz(bytes);
}
