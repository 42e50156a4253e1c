//! What several protocols share: messages with their length in front, and closing so that the last one arrives.
//!
//! | file | holds |
//! | --- | --- |
//! | `message.rs` | the form of a message, without IO |
//! | `exchange.rs` | sending and reading one |
//! | `linger.rs` | closing without losing what was written last |
//! | `status.rs` | how requests that go through somebody else are answered |

mod linger;
pub(crate) use linger::{drain, linger_close};

// Only optional protocols have messages.
#[cfg(any(feature = "mesh", feature = "sealed"))]
mod exchange;
#[cfg(any(feature = "mesh", feature = "sealed"))]
mod message;
#[cfg(any(feature = "mesh", feature = "sealed"))]
mod status;
#[cfg(any(feature = "mesh", feature = "sealed"))]
pub use message::MessageError;
#[cfg(all(feature = "sealed", not(feature = "mesh")))]
pub(crate) use status::Status;
#[cfg(feature = "mesh")]
pub use status::Status;
#[cfg(any(feature = "mesh", feature = "sealed"))]
pub(crate) use {
    exchange::{fault, receive, send},
    message::{Message, VERSION, clean_reason, message},
};

#[cfg(all(feature = "mesh", feature = "sealed", any(test, feature = "fuzzing")))]
pub(crate) use message::fuzz_one;
