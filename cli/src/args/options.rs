//! Options that several commands have: who we are, and whom we take the other end for.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::values::{Expected, TrustWord};

#[derive(Debug, Args)]
pub(crate) struct IdentityFile {
    /// Use the identity in this PEM file. The default one is created at first use
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
}

/// Whom to take the other end for. Without any of these: whoever is known at that address
/// (`cepa peer ls`).
#[derive(Debug, Args)]
#[allow(clippy::struct_field_names)] // they are the names of the options
pub(crate) struct Trust {
    /// Accept only the peer with this id, or @NAME for a known peer
    #[arg(long, value_name = "PEERID|@NAME", conflicts_with_all = ["trust", "trust_new"])]
    pub(crate) expect: Option<Expected>,
    /// `any` accepts any peer and prints its id. Unsafe: someone in between is not noticed.
    #[arg(long, value_name = "any", conflicts_with = "trust_new")]
    pub(crate) trust: Option<TrustWord>,
    /// If no peer is known at this address yet, accept the one that answers and remember it. Later, only
    /// that peer is accepted there. Unsafe the first time: someone in between is not noticed
    #[arg(long)]
    pub(crate) trust_new: bool,
    /// Also accept a peer that has a certificate for the host in ADDR, issued by an authority in this
    /// PEM file or, with `system`, by one that the system trusts
    #[arg(long, value_name = "FILE|system")]
    pub(crate) ca: Option<String>,
}

/// What standard error tells, and in which form.
#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct Logging {
    /// Also show dials, handshakes, sessions and services; -vv shows more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Form of the lines on standard error: `text`, or `json` for one object a line
    #[arg(
        long,
        global = true,
        value_name = "text|json",
        hide_possible_values = true,
        hide_default_value = true,
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Whether an address of a peer may lead through something else than the network.
#[derive(Debug, Args)]
pub(crate) struct LocalHints {
    /// Let cepa:// addresses run commands and open devices or sockets on this machine (exec:, serial:,
    /// unix:). By default they lead only to network connections
    #[arg(long = "local-hints")]
    pub(crate) allowed: bool,
}

impl Trust {
    /// Whether any of the options was given.
    pub(crate) fn says_something(&self) -> bool {
        self.expect.is_some() || self.trust.is_some() || self.trust_new || self.ca.is_some()
    }
}
