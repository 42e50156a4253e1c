//! What can be said on the command line.

use clap::{Args, ValueEnum};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Unharmed,
    Memory,
    Line,
    Migration,
    Stall,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only this part.
    #[arg(long)]
    pub(super) only: Option<Part>,
    /// Rounds of `unharmed`.
    #[arg(long, default_value_t = 9)]
    pub(super) rounds: usize,
    /// MiB of a transfer in `unharmed`.
    #[arg(long, default_value_t = 256)]
    pub(super) mib: u64,
    /// Seconds of messages in `unharmed`, for each kind in each round.
    #[arg(long, default_value_t = 1.0)]
    pub(super) seconds: f64,
    /// Idle sessions of each kind in `memory`.
    #[arg(long, default_value_t = 1000)]
    pub(super) sessions: usize,
    /// Moves in `migration`.
    #[arg(long, default_value_t = 50)]
    pub(super) moves: usize,
}
