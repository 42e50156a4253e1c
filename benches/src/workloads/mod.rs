//! The workloads, W1 to W8. Each is one subcommand that measures once in a fresh process and prints one line of JSON.

pub(crate) mod bulk;
pub(crate) mod churn;
pub(crate) mod idle;
pub(crate) mod layers;
pub(crate) mod pingpong;
pub(crate) mod probe;
pub(crate) mod sessions;
pub(crate) mod shared;

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use shared::Values;

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) workload: String,
    /// The options that it ran with, the peer among them.
    pub(crate) setup: serde_json::Value,
    pub(crate) values: BTreeMap<String, f64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// W1: one substream carries bulk in 64 KiB writes over loopback
    W1Bulk(bulk::Bulk),
    /// W2: many substreams share bulk; is it shared evenly?
    W2Share(bulk::Share),
    /// W3: 64 bytes there and back, on one or many substreams
    W3Pingpong(pingpong::Pingpong),
    /// W4: open, 64 bytes there and back, close
    W4Churn(churn::Churn),
    /// W4: the same by the name of a service in a session, beside the mux alone
    W4Sessions(sessions::Sessions),
    /// W5: a 64-byte round trip beside a bulk substream over loopback
    W5Loopback(probe::Loopback),
    /// W5: the same over a slow path
    W5Slow(probe::Slow),
    /// W6: memory of substreams that are open and idle
    W6Substreams(idle::Substreams),
    /// W6: memory of connections that are open and idle
    W6Connections(idle::Connections),
    /// W7: bulk through some layers of TLS, without a mux
    W7Bulk(layers::Bulk),
    /// W7: what one more layer costs, beside what its AEAD alone costs
    W7Layer(layers::Layer),
    /// W7: 64 bytes there and back through some layers of TLS, without a mux
    W7Pingpong(layers::Pingpong),
    /// W8: bulk over a fast and far path
    W8Far(bulk::Far),
}

impl Workload {
    pub(crate) fn run(&self) -> Outcome<Record> {
        match self {
            Self::W1Bulk(options) => record("w1-bulk", options, options.run()?),
            Self::W2Share(options) => record("w2-share", options, options.run()?),
            Self::W3Pingpong(options) => record("w3-pingpong", options, options.run()?),
            Self::W4Churn(options) => record("w4-churn", options, options.run()?),
            Self::W4Sessions(options) => record("w4-sessions", options, options.run()?),
            Self::W5Loopback(options) => record("w5-loopback", options, options.run()?),
            Self::W5Slow(options) => record("w5-slow", options, options.run()?),
            Self::W6Substreams(options) => record("w6-substreams", options, options.run()?),
            Self::W6Connections(options) => record("w6-connections", options, options.run()?),
            Self::W7Bulk(options) => record("w7-bulk", options, options.run()?),
            Self::W7Layer(options) => record("w7-layer", options, options.run()?),
            Self::W7Pingpong(options) => record("w7-pingpong", options, options.run()?),
            Self::W8Far(options) => record("w8-far", options, options.run()?),
        }
    }
}

fn record(workload: &str, options: &impl Serialize, values: Values) -> Outcome<Record> {
    Ok(Record {
        workload: workload.to_owned(),
        setup: serde_json::to_value(options)?,
        values: values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    })
}
