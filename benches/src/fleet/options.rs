//! What is measured, and how much of it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Registered nodes, a third at each relay
    #[arg(long, default_value_t = 3000)]
    pub(super) nodes: usize,
    /// Processes that have them
    #[arg(long, default_value_t = 3)]
    pub(super) processes: usize,
    /// Members of the etcd
    #[arg(long, default_value_t = 1)]
    pub(super) etcd: usize,
    /// Circuits of either kind that are timed
    #[arg(long, default_value_t = 1000)]
    pub(super) samples: usize,
    /// Bulk of one round of `copy`, in MiB
    #[arg(long, default_value_t = 256)]
    pub(super) mib: u64,
    /// Rounds of `copy`
    #[arg(long, default_value_t = 5)]
    pub(super) rounds: usize,
    /// How long `churn` lasts, in seconds
    #[arg(long, default_value_t = 60)]
    pub(super) seconds: u64,
    /// Registrations a minute of `churn`
    #[arg(long, default_value_t = 10_000)]
    pub(super) a_minute: u64,
    /// The tool; by default the one beside this program
    #[arg(long)]
    pub(super) cepa: Option<PathBuf>,
    /// Only these parts
    #[arg(long)]
    pub(super) only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Lookup,
    Copy,
    Etcd,
    Churn,
    Kill,
}
