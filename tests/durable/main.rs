//! Durable sessions under all that befalls connections: nothing is lost, nothing comes twice, and nothing out of order; and
//! where the other end is gone for good, that is said.
//!
//! Everybody runs a part of it. The full run:
//!
//! ```text
//! CEPA_CUTS=1000 CEPA_CUT_MIB=1024 CEPA_RELAY_KILLS=200 CEPA_KILLS=250 cargo test --release --test durable -- --nocapture
//! ```
// Two ends in one task.
#![allow(clippy::large_futures)]

mod children;
mod crowd;
mod cuts;
mod kills;
mod namespaces;
mod relay;
#[path = "../support/mod.rs"]
mod support;
