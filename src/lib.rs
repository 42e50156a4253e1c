//! cepa (*Allium cepa*, the onion): a multiplexed peer-to-peer secure channel over anything that
//! carries bytes.
//!
//! Everything is a byte stream, and everything that improves a byte stream is a byte stream.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

#[macro_use]
mod setters;

pub mod gate;
pub mod identity;
pub mod link;
pub mod mux;
pub mod node;
pub mod onion;
pub mod protocols;
pub mod session;
pub mod stack;
pub mod tls;
mod wire;

pub use cepa_transports as transports;
pub use cepa_transports::{ByteStream, Side};
