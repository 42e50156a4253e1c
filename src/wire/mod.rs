//! What several protocols share: messages with their length in front, and closing so that the last one arrives.
//!
//! | file | holds |
//! | --- | --- |
//! | `message.rs` | the form of a message, without IO |
//! | `exchange.rs` | sending and reading one |
//! | `linger.rs` | closing without losing what was written last |
//! | `status.rs` | how requests that go through somebody else are answered |

mod exchange;
mod linger;
mod message;
mod status;

pub(crate) use exchange::{fault, receive, send};
pub(crate) use linger::linger_close;
pub(crate) use message::{Message, VERSION, clean_reason, message};
pub use status::Status;

#[cfg(test)]
pub(crate) use message::MessageError;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use message::fuzz_one;
