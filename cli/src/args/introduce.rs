//! The command line of `cepa introduce`: its words and their help.

use cepa::protocols::introduction::Introduction;
use clap::Args;

use super::options::IdentityFile;
use crate::values::{Expected, Reference};

#[derive(Debug, Args)]
#[command(after_help = "\
Send the printed introduction to A, who uses it with `cepa connect
INTRODUCTION`. B must accept introductions from this identity (`cepa serve
--introducer`, or `introducers` in its node's configuration), or be this
identity itself.

`cepa introduce A INTRODUCTION` passes an introduction on. `cepa introduce
--revoke INTRODUCTION` revokes one.")]
pub(crate) struct Introduce {
    /// The peer to introduce: a peer id, @NAME of a known peer, or `@` for whoever uses it first
    #[arg(value_name = "A", required_unless_present = "revoke")]
    pub(crate) recipient: Option<Expected>,
    /// The peer that has the service: cepa://PEERID@HINT,HINT, or an introduction to pass on
    #[arg(value_name = "B", required_unless_present = "revoke")]
    pub(crate) to: Option<Reference>,
    /// B's service; not needed if B includes it
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Number of connections that it allows; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u32,
    /// How long it is valid
    #[arg(long, value_name = "MINUTES", default_value_t = 1440,
          value_parser = clap::value_parser!(u32).range(1..=5_256_000))]
    pub(crate) minutes: u32,
    /// How many times it may be passed on
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) further: u8,
    /// Revoke this introduction, which this identity issued
    #[arg(long, value_name = "INTRODUCTION", conflicts_with_all = ["recipient", "to", "service"])]
    pub(crate) revoke: Option<Introduction>,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
