//! A byte stream that outlives the paths below it.
//!
//! TLS and TCP end when an address changes, a line drops, or a laptop sleeps, and with them the mux and all that
//! runs in it. So between the mux and TLS stands a stream that belongs to the session and not to the connection:
//!
//! ```text
//!       mux                                       mux
//!        |                                         |
//!    Durable  -- data, numbered by offset -->   Durable      the session: as long as both ends want it
//!        |    <-- "I have all below 4,711" --      |
//!   TLS, TCP                                   TLS, TCP      a path: one after another
//! ```
//!
//! Each end keeps what it has sent until the other says that it has it (`replay`). When the path is lost, whoever can dials
//! again. The new connection is authenticated as the first one was, shows the same two peers, and begins with a *hello*: which
//! session, which generation of path, how many bytes have come, and a proof that it is the session's other
//! end (`hello`). The answer says the same of the other side. From there each sends on where the other stands. The mux
//! notices nothing but a pause.
//!
//! A path has a *rank*: its generation, and who dialled it. The greatest wins at both ends, so that they agree when each dials the
//! other at once, and a new path may replace one that still lives (`path`).
//!
//! What a peer says never makes this end hold more: what is not acknowledged is bounded, and where it is full the application
//! waits. What it says it has received lies between what it said before and what was written, or the session ends.
//!
//! | file | holds |
//! | --- | --- |
//! | `config.rs` | limits |
//! | `frame.rs` | the wire behind the hello |
//! | `hello.rs`, `exchange.rs` | the hello, without IO and over a stream |
//! | `replay.rs` | the bytes that may be sent again |
//! | `paid.rs` | the memory that these are taken from |
//! | `path.rs` | where a path stands, and whether it lives |
//! | `engine.rs`, `engine/` | all rules, without IO |
//! | `stream.rs`, `stream/` | the IO |
//! | `handle.rs`, `shared.rs` | what the session does with it |
//! | `error.rs` | why a path, and why a session was lost |

mod config;
mod engine;
mod error;
mod exchange;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod hello;
mod paid;
mod path;
mod replay;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{OverReason, PathLostWhy, Refusal, SessionLost, Violation};

pub(crate) use error::{AttachError, PathLost};
pub(crate) use exchange::{
    HelloError, answer_refused, answer_resumed, client_new, client_resume, read_hello,
};
pub(crate) use frame::LEAD;
pub(crate) use handle::Handle;
pub(crate) use hello::{At, Hello, HelloMalformed, Id, Ticket};
pub(crate) use paid::Memory;
pub(crate) use stream::{Durable, durable};
