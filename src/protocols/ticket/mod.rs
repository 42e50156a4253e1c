//! Tickets: a text that gives whoever uses it first some services of a peer, for a while.
//!
//! A [`Ticket`] says who has the services and where that peer may be found, and holds a secret of 128 random bits. Nothing of the
//! secret is sent: whoever has the ticket connects to the peer, pins its id, opens `cepa.ticket` and shows a proof
//! about both keys and this very session, as with an invitation ([`Invitation`](crate::identity::Invitation)). The peer's answer
//! proves that it has made the ticket, and names the services. From then on the session may open them
//! ([`Tickets::admits`]), in whichever form there is.
//!
//! The first peer with a right proof is the only one from then on. Each session that shows the ticket is one use. Why a
//! right proof is of no use (too late, used by somebody else, used up) is told to who shows it; who has no right
//! one learns that alone, and may try again as often as with an invitation.
//!
//! | file | holds |
//! | --- | --- |
//! | `text.rs` | the ticket, and its text |
//! | `wire.rs` | the messages |
//! | `holder.rs` | showing a ticket |
//! | `owner.rs` | judging it, and who may open what by it |

mod holder;
mod owner;
mod text;
mod wire;

pub use holder::{TicketError, show};
pub use owner::{TicketEvent, Tickets};
pub use text::{Ticket, TicketTextError};
pub use wire::{MAX_SERVICES, TicketRefusal};

/// For the fuzz target.
#[cfg(all(feature = "sealed", any(test, feature = "fuzzing")))]
pub(super) fn fuzz(bytes: &[u8]) {
    text::fuzz(bytes);
    wire::fuzz(bytes);
}
