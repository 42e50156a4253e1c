//! Relays that are one fleet: what they share lives in an etcd.
//!
//! The engine of a fleet, which decides what is written and what is believed, is in [`cepa::protocols::relay`]; it has no IO. Here are
//! the client of etcd ([`etcd`]) and what drives the engine with it.

pub mod etcd;
#[cfg(feature = "testkit")]
pub mod testkit;

mod address;
mod health;
mod keeper;

pub use address::FleetAddress;
pub use health::{Health, Listener, StoreEvent};
pub use keeper::{Keeper, LEASE, check};
