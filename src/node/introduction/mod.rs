//! Introductions: a reference to a service that somebody gives to somebody else.
//!
//! An [`Introduction`] is a signed value. It is passed on in whatever way its giver likes: in a request or an answer
//! of a program's own, or as a line of text. Its recipient connects to the service's owner, directly or through a
//! relay, shows it there, and gets the one service that it is for, as often as it says.
//!
//! Everything is checked where the service is: that the first issuer may introduce (the owner itself may, others
//! where `Node::introducers` says so), that all links are signed and follow from each other, that TLS has
//! proved the recipient, the time, that nobody took it back, and that uses are left.
//!
//! | file | holds |
//! | --- | --- |
//! | `statement.rs` | what an introduction says, its codec, whether it holds together |
//! | `book.rs` | uses and revocations, at the owner |
//! | `wire.rs` | the messages |
//! | `owner.rs` | judging and admitting |
//! | `recipient.rs` | showing and taking back |
//! | `flaw.rs` | what can be wrong |

pub(super) mod book;
mod flaw;
pub(super) mod owner;
pub(super) mod recipient;
mod statement;
pub(super) mod wire;

pub use flaw::Flaw;
pub use recipient::IntroducedError;
pub use statement::{Introduction, MAX_LINKS, Terms};

/// For the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    statement::fuzz(bytes);
    wire::fuzz(bytes);
}
