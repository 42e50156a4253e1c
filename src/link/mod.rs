//! A reliable byte stream over anything that loses, damages or interrupts bytes: a serial line, above
//! all.
//!
//! TLS dies of one flipped bit, so on a noisy line something has to stand below it that repeats what was
//! lost. The two ends agree on an epoch (`opening`), cut the stream into frames with a checksum
//! (`frame`, `codec`), and send again what the other end has not seen (`send`, `receive`), paced by
//! what is known of the line (`line`); where that carries one way at a time they take turns (`turn`). `engine` has the rules without any IO, `driver` the IO without
//! any rules. On the wire it looks as docs/PROTOCOL.md has it.
//!
//! Nothing here is secret or authentic: whoever can write to the line can end a link, or make it
//! repeat itself. What passes is protected by the TLS layer above.
//!
//! ```no_run
//! # async fn example(line: tokio::io::DuplexStream) -> std::io::Result<()> {
//! use cepa::transports::Rate;
//! use cepa::{Side, link};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let mut config = link::Config::default();
//! config.line_rate = Some(Rate::bytes_per_second(11_520.0)); // 115,200 baud, ten bits a byte
//! let (mut stream, driver) = link::link(line, Side::Client, &config);
//! tokio::spawn(driver);
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?; // returns when all has arrived
//! # Ok(()) }
//! ```

mod codec;
mod config;
mod driver;
mod engine;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod half_duplex;
mod line;
mod opening;
mod ranges;
mod receive;
mod send;
mod shared;
mod stats;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cepa_transports::{ByteStream, Side};

use crate::backend::seed;

pub use cepa_transports::endpoint::Escapes;
pub use config::{ChatterSink, Config};
pub use driver::Driver;
pub use error::LinkError;
pub use stats::{LinkInfo, Stats, StatsHandle};
pub use stream::Link;

use engine::Engine;
use shared::Shared;

/// Starts a link over `io`. The client speaks first; two clients find each other too, two servers do
/// not. Nothing happens until the driver is polled, which has to be inside a tokio runtime with time
/// enabled.
pub fn link(io: impl ByteStream, side: Side, config: &Config) -> (Link, Driver) {
    let shared = Arc::new(Shared::new(Engine::new(
        side,
        config,
        seed(),
        shared::now(),
    )));
    if let Some(handle) = &config.stats {
        stream::read_by(handle, &shared);
    }
    let driver = Driver::new(io, Arc::clone(&shared), config.chatter.clone());
    (Link::new(shared), driver)
}
