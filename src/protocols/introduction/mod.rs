//! Introductions: a reference to a service that somebody gives to somebody else.
//!
//! An [`Introduction`] is a signed value. It is passed on in whatever way its giver likes: in a request or an answer
//! of a program's own, or as a line of text. Its recipient connects to the service's owner, directly or through a
//! relay, shows it there, and gets the one service that it is for, as often as it says.
//!
//! A node takes part with [`Introductions`]. Everything is checked where the service is: that the first issuer may introduce (the
//! owner itself may, others where [`Introductions::introducers`] says so), that all links are signed and follow from each
//! other, that TLS has proved the recipient, the time, that nobody took it back, and that uses are left.
//!
//! | file | holds |
//! | --- | --- |
//! | `introductions.rs` | a node that takes part |
//! | `statement.rs` | an introduction: its links, whether it holds together |
//! | `link.rs` | one link: what it says, its codec |
//! | `book.rs` | uses and revocations, at the owner |
//! | `clock.rs` | the time, which does not go back |
//! | `record.rs` | what outlives the owner's process |
//! | `state.rs` | all that an owner knows |
//! | `party.rs` | a peer by its keys, present and former |
//! | `wire.rs` | the messages |
//! | `owner.rs` | judging and admitting |
//! | `recipient.rs` | showing and taking back |
//! | `flaw.rs` | what can be wrong |
//! | `event.rs` | what happens at an owner |

mod book;
#[cfg(test)]
mod book_tests;
mod clock;
mod event;
mod flaw;
mod introductions;
mod link;
mod owner;
mod party;
mod recipient;
mod record;
mod state;
mod statement;
mod wire;

pub use event::IntroductionEvent;
pub use flaw::{ChainFlaw, Flaw};
pub use introductions::{Introductions, IntroductionsError};
pub(in crate::protocols) use link::{Ancestor, Name};
pub(in crate::protocols) use party::Party;
pub use recipient::IntroducedError;
pub use record::{StateFileError, StateFileProblem};
pub use statement::{Introduction, MAX_LINKS, Terms};

/// For the fuzz target.
#[cfg(all(feature = "sealed", any(test, feature = "fuzzing")))]
pub(super) fn fuzz(bytes: &[u8]) {
    statement::fuzz(bytes);
    wire::fuzz(bytes);
}
