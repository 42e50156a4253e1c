//! What is measured, and how much of it.

use clap::{Args, ValueEnum};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Registered nodes
    #[arg(long, default_value_t = 1000)]
    pub(super) nodes: usize,
    /// Circuits, four a dialler
    #[arg(long, default_value_t = 2000)]
    pub(super) circuits: usize,
    /// Registrations that are timed, of either kind
    #[arg(long, default_value_t = 1000)]
    pub(super) samples: usize,
    /// Bulk of one round of `copying`, in MiB
    #[arg(long, default_value_t = 512)]
    pub(super) mib: u64,
    /// Rounds of `copying` and `busy`
    #[arg(long, default_value_t = 5)]
    pub(super) rounds: usize,
    /// How long `fairness` and `busy` are watched, in seconds
    #[arg(long, default_value_t = 5)]
    pub(super) seconds: u64,
    /// Without the mux's pacing, at all ends
    #[arg(long)]
    pub(super) unpaced: bool,
    /// Only this one
    #[arg(long)]
    pub(super) only: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Memory,
    Copying,
    Fairness,
    OnePeer,
    Busy,
}
