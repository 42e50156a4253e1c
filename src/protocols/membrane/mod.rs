//! Membranes: forwarders that also wrap the references that pass through them, in either direction, and that can be
//! revoked as a whole.
//!
//! A [`Membrane`] offers services of other peers as its node's own, as a [`Forwarder`](super::forward::Forwarder) does. What
//! passes are messages ([`send_message`], [`receive_message`]); a [`reference()`] in one of them is exchanged for another that
//! leads through the membrane as well. So whatever the two sides give each other through it, they have through it, and
//! [`Membrane::revoke`] takes all of it away at once.
//!
//! What leads through it stays bound to what it was made from, however often it crosses and in whichever direction: uses are
//! counted together, each crossing that gives it to another peer takes one of the times that it may be passed on, it
//! never expires later, and what is revoked takes along what was made from it. Several membranes of one node know of each
//! other: what has passed one of them and passes another leads through both.
//!
//! It guards what speaks in its messages, and means to be guarded: two sides that conspire can tell each other an
//! introduction in a coding that nobody else knows. Its node sees everything that passes, as a forwarder does.
//!
//! | file | holds |
//! | --- | --- |
//! | `message.rs` | how a reference is recognised |
//! | `state.rs` | what was let through, and whether it is revoked |
//! | `join.rs` | one stream |
//! | `event.rs` | what happens |

use std::fmt;
use std::sync::Arc;

use crate::node::{Access, Hint, PeerAddr};
use crate::session::{ServiceName, ServiceNameError};

use super::introduction::Introductions;

mod event;
mod join;
mod message;
mod state;

pub use event::MembraneEvent;
pub use message::{
    MAX_MESSAGE, MessageFlaw, REFERENCE_TAG, receive_message, reference, references, send_message,
};
pub use state::MembraneError;

use state::{Passage, State, Upstream};

/// A membrane of a node. Clones are the same one; when the last is dropped it is revoked.
#[derive(Clone)]
pub struct Membrane {
    held: Arc<Held>,
}

struct Held {
    state: Arc<State>,
}

impl Membrane {
    /// A membrane of the node that takes part in introductions. `hints` say where this node is reached, for those to whom
    /// it gives wrapped references; they have a session with it already, and need them once that is lost.
    #[must_use]
    pub fn new(introductions: &Introductions, hints: impl IntoIterator<Item = Hint>) -> Self {
        let hints = hints.into_iter().collect();
        let state = Arc::new(State::new(introductions.clone(), hints));
        Self {
            held: Arc::new(Held { state }),
        }
    }

    /// Offers a service of another peer through this membrane. A service of that name that is there already is replaced;
    /// it is taken back as any other ([`Node::withdraw`](crate::node::Node::withdraw)).
    ///
    /// A substream that breaks the rules of messages, or carries a reference that does not pass, is reset with the code 9
    /// at both ends; one that is open when the membrane is revoked with the code 8.
    ///
    /// # Errors
    /// The name can't be one of a service.
    pub fn offer(&self, name: &str, access: Access, to: PeerAddr) -> Result<(), ServiceNameError> {
        let name = ServiceName::unreserved(name)?;
        let passage = Passage::new(&self.held.state, Upstream::Address(to));
        let node = self.held.state.node();
        join::offer(node, name.as_str(), access, Arc::new(passage));
        Ok(())
    }

    /// Takes away all that leads through it: its services and the references that passed are refused with that reason from
    /// now on, and when this returns no stream is open through it.
    ///
    /// # Cancel safety
    /// Dropping the future does not take it back, and waits for nothing.
    pub async fn revoke(&self) {
        self.held.state.cut();
        self.held.state.idle().await;
    }

    /// Whether it was revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.held.state.is_revoked()
    }

    /// How many references have passed that have not expired; at most 1,024 are let through,
    /// and 256 of one peer.
    #[must_use]
    pub fn references(&self) -> usize {
        self.held.state.references()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.state.cut();
        // What was offered by name may be somebody else's by now.
        self.state.clear();
    }
}

impl fmt::Debug for Membrane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membrane")
            .field("revoked", &self.is_revoked())
            .field("references", &self.references())
            .finish_non_exhaustive()
    }
}

/// For the fuzz target.
#[cfg(all(feature = "sealed", any(test, feature = "fuzzing")))]
pub(super) fn fuzz(bytes: &[u8]) {
    message::fuzz(bytes);
}
