//! Options that several commands have: who we are, and whom we take the other end for.

use std::path::PathBuf;

use clap::Args;

use crate::values::{Expected, TrustWord};

#[derive(Debug, Args)]
pub(crate) struct IdentityFile {
    /// The identity to use, a PEM file; without it the default one, which is made at first use
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
}

/// Whom to take the other end for. Without any of these: whoever is known at that address
/// (`cepa peer ls`).
#[derive(Debug, Args)]
#[allow(clippy::struct_field_names)] // they are the names of the options
pub(crate) struct Trust {
    /// The peer id that the other end must prove, or @NAME of a known peer
    #[arg(long, value_name = "PEERID|@NAME", conflicts_with_all = ["trust", "trust_new"])]
    pub(crate) expect: Option<Expected>,
    /// `any` takes whoever answers, and tells who it was: open to a man in the middle
    #[arg(long, value_name = "any", conflicts_with = "trust_new")]
    pub(crate) trust: Option<TrustWord>,
    /// Trust whoever answers where nobody is known yet, and remember it: open to a man in the middle
    /// the first time. Another key at that address is refused from then on
    #[arg(long)]
    pub(crate) trust_new: bool,
    /// Or whoever has a certificate for the host of ADDR from an authority in this PEM file (`system`:
    /// from an authority that the system trusts)
    #[arg(long, value_name = "FILE|system")]
    pub(crate) ca: Option<String>,
}

/// Whether an address of a peer may lead through something else than the network.
#[derive(Debug, Args)]
pub(crate) struct LocalHints {
    /// Follow hints of cepa:// addresses that run a command or open a device or socket here (exec:, serial:, unix:). Without it
    /// only network connections are made for them
    #[arg(long = "local-hints")]
    pub(crate) allowed: bool,
}

impl Trust {
    /// Whether any of the options was given.
    pub(crate) fn says_something(&self) -> bool {
        self.expect.is_some() || self.trust.is_some() || self.trust_new || self.ca.is_some()
    }
}
