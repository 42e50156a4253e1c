//! Direct paths through NATs: two peers that have met at a relay try to do without it.
//!
//! ```text
//!   ann, who dialled                     the relay, to both                    bob
//!     begin (nonce)            ------------------------------------------->     where do you see me? (ann's nonce)
//!     where do you see me? (bob's nonce)    <---   offer (nonce, seen, local)
//!     offer (seen, local)      ------------------------------------------->     may I try that? listens
//!                              <--------------------------------   ready
//!     go                       ------------------------------------------->     connects to what ann has offered
//!     half a round trip later: connects to what bob has offered
//!     TLS, as client           <======= over whichever came about first =======>     TLS, as server
//! ```
//!
//! All of that is said inside the session of the two, where the relay reads none of it. The connections leave from the port of each
//! one's connection with the relay, which a NAT maps as it has mapped that one; both at one moment, since many a NAT answers what
//! comes unasked by a reset. A listener on the same port is for who comes from another port than the relay has seen, as from behind a
//! symmetric NAT. Beside that QUIC is tried from a UDP port of its own, of which the relay is asked as well (`udp.rs`). The session goes on over the first connection on which both have proven their keys: with
//! [`StackConfig::resume`](crate::stack::StackConfig::resume) the same session with all that is open in it, else a new one, which is
//! used for what is opened from then on. The way by the relay is dialled again when the direct one is lost, and then the two try again.
//!
//! To what addresses a node connects is for its owner to say, and not for the peer: `policy.rs` decides, `budget.rs` bounds how often.
//!
//! | file | holds |
//! | --- | --- |
//! | `policy.rs` | to which addresses a node connects |
//! | `budget.rs` | how often it does that |
//! | `message.rs` | what the two say to each other |
//! | `knock.rs` | what they say on UDP before QUIC |
//! | `talk.rs` | the exchange, up to the moment at which both begin |
//! | `udp.rs` | a UDP port, and where the relay sees it |
//! | `gateway.rs`, `mapping.rs` | the router, and a port that it maps |
//! | `punch.rs` | connecting and listening at once |
//! | `trying.rs` | when it is tried, and tried again |
//! | `state.rs` | what a node wants of it, and what its attempts share |
//! | `event.rs` | what comes of it |

mod budget;
mod event;
mod gateway;
mod knock;
mod mapping;
mod message;
mod policy;
mod punch;
mod state;
mod talk;
#[cfg(test)]
mod tests;
mod trying;
mod udp;

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::node::{Admission, Call, Node, Protocol, ProtocolError};
use crate::session::reserved;

use self::budget::Budget;
use self::state::Direct;

pub use event::{DirectEvent, NotDirect, now_direct};
pub use state::DirectConfig;

/// Has a node try for direct paths, and answer peers that do. Its [`StackConfig::shared_port`](crate::stack::StackConfig::shared_port) has
/// to be set.
///
/// # Errors
/// The node does that already.
///
/// # Panics
/// Outside a tokio runtime.
pub fn on(node: &Node, config: DirectConfig) -> Result<(), ProtocolError> {
    let direct = Arc::new(Direct {
        node: node.handle(),
        config,
        budget: Budget::default(),
        turn: Semaphore::new(1),
        failed: Mutex::default(),
    });
    // From before anything happens.
    let events = node.events();
    node.add_protocol(Arc::<Direct>::clone(&direct) as _)?;
    node.spawn(trying::watch(direct, events));
    Ok(())
}

impl Protocol for Direct {
    fn names(&self) -> &[&'static str] {
        &[reserved::NAT]
    }

    // Whoever has a session may ask; what is done is what the policy allows, and no more than the budget has.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { trying::serve(&self, call).await })
    }

    fn keeps_session(&self) -> bool {
        false
    }

    fn delays_shutdown(&self) -> bool {
        false
    }
}

/// For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    message::fuzz(bytes);
    knock::fuzz(bytes);
}
