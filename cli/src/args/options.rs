//! Options that several commands have: who we are, and whom we take the other end for.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Args, Command, ValueEnum};

use super::of_mesh::CodeRelay;
use super::sharing::Sharing;
use crate::direct::DirectChoice;
use crate::gate::Gate;
use crate::keep::{self, Keep};
use crate::values::{Expected, TrustWord};
use crate::words::ProxyChoice;

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
    /// Accept only the peer with this id (or its words from `cepa id show --words`, in quotes), or @NAME
    /// for a known peer
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

/// How many strangers may be in a handshake at once, where a command listens.
#[derive(Debug, Args)]
pub(crate) struct GateLimits {
    /// Limits on handshakes, as KEY=VALUE,…:
    ///   places=100             handshakes at once
    ///   per-host=8             handshakes at once from one host
    ///   waiting=256            connections that wait for a place
    ///   waiting-per-host=32    of these, from one host
    ///   wait=6s                how long one waits for a place
    ///   refused=5s             penalty for a handshake that is refused
    ///   timed-out=10s          penalty for a handshake that times out
    ///   tolerated=15s          penalty above which a host is shut out
    ///   longest=10min          longest time that a host is shut out
    ///   proven=1h              how long after a success it is not shut out
    #[arg(long = "gate", value_name = "KEY=VALUE,…", verbatim_doc_comment)]
    pub(crate) limits: Option<Gate>,
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
    /// Colours on standard error: `auto` uses them on a terminal unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_name = "auto|always|never",
        hide_possible_values = true,
        hide_default_value = true,
        default_value = "auto"
    )]
    pub(crate) color: Color,
}

/// Through what peers are dialled.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct ByProxy {
    /// Dial peers through a proxy where their addresses name none: `env` for that of ALL_PROXY,
    /// HTTPS_PROXY and NO_PROXY, `none`, or a proxy such as socks5h://HOST:PORT. Default: `proxy` in
    /// `config.toml`, or none
    #[arg(long = "proxy", global = true, value_name = "env|none|URL")]
    pub(crate) choice: Option<ProxyChoice>,
    /// Whether to look for a direct path to peers that are reached by a relay, through NATs: `yes`,
    /// `public` (without addresses of private networks), `unmapped` (no router is asked to map a port),
    /// `public,unmapped` or `no`. Default: `direct` in `config.toml`, or yes
    #[arg(long = "direct", global = true, value_name = "yes|public|unmapped|no", hide_possible_values = true,
          value_parser = DirectWord)]
    pub(crate) direct: Option<DirectChoice>,
}

/// A word of `--direct`. Completions know them all; one that is none is told as in a file.
#[derive(Clone)]
struct DirectWord;

impl TypedValueParser for DirectWord {
    type Value = DirectChoice;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<DirectChoice, clap::Error> {
        let words = StringValueParser::new().try_map(|word| word.parse::<DirectChoice>());
        words.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = DirectChoice::WORDS.into_iter();
        Some(Box::new(words.map(PossibleValue::new)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Whether an address of a peer may lead through something else than the network.
#[derive(Debug, Args)]
pub(crate) struct LocalHints {
    /// Let cepa:// addresses run commands and open devices or sockets on this machine (exec:, ssh:,
    /// serial:, unix:). By default they lead only to network connections
    #[arg(long = "local-hints")]
    pub(crate) allowed: bool,
}

/// Whether the session of a command that dials outlives its connection.
#[derive(Debug, Args)]
pub(crate) struct Keeping {
    /// If the connection is lost, keep the session and go on over the next connection: nothing is lost.
    /// Needs a peer that does so too. On by default, but not for `connect` and `exec`
    #[arg(long, conflicts_with = "no_durable")]
    durable: bool,
    /// End the session with its connection
    #[arg(long)]
    no_durable: bool,
    /// How long to keep a session without a connection, as in 90s, 10min, 8h or 2d; default 10min. The
    /// shorter time of the two ends counts. Implies --durable
    #[arg(long, value_name = "TIME", value_parser = keep::park, conflicts_with = "no_durable",
          allow_hyphen_values = true)]
    park: Option<Duration>,
}

impl Keeping {
    /// What `config.toml` says, where the command line says nothing.
    pub(super) fn or(&mut self, durable: Option<bool>, park: Option<Duration>) {
        if self.durable || self.no_durable || self.park.is_some() {
            return;
        }
        self.durable = durable == Some(true);
        self.no_durable = durable == Some(false);
        self.park = park;
    }

    pub(crate) fn keep(&self, by_default: bool) -> Keep {
        let wanted = self.durable || self.park.is_some() || by_default;
        if wanted && !self.no_durable {
            Keep::For(self.park)
        } else {
            Keep::Not
        }
    }

    /// Whether it was asked for, and is not only the default.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.durable || self.park.is_some()
    }
}

/// What every command has that dials one peer and talks with a service there. Not `--reconnect`: each says in its own words what
/// begins again.
#[derive(Debug, Args)]
pub(crate) struct Dialling {
    /// Say only what is wrong: warnings and errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) durable: Keeping,
    #[command(flatten)]
    pub(crate) sharing: Sharing,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

/// What every command has that dials one peer and opens no service there.
#[derive(Debug, Args)]
pub(crate) struct Looking {
    #[command(flatten)]
    pub(crate) code_relay: CodeRelay,
    #[command(flatten)]
    pub(crate) sharing: Sharing,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

/// Whether a server keeps sessions whose connection is lost.
#[derive(Debug, Args)]
pub(crate) struct Parking {
    /// End every session with its connection. By default, a session whose client can reconnect is kept
    /// for it, with the data in transit
    #[arg(long)]
    no_durable: bool,
    /// How long to keep a session without a connection, as in 90s, 10min, 8h or 2d; default 10min. The
    /// shorter time of the two ends counts
    #[arg(long, value_name = "TIME", value_parser = keep::park, conflicts_with = "no_durable",
          allow_hyphen_values = true)]
    park: Option<Duration>,
}

impl Parking {
    pub(crate) fn keep(&self) -> Keep {
        if self.no_durable {
            Keep::Not
        } else {
            Keep::For(self.park)
        }
    }
}

impl Trust {
    /// Whether any of the options was given.
    pub(crate) fn says_something(&self) -> bool {
        self.expect.is_some() || self.trust.is_some() || self.trust_new || self.ca.is_some()
    }
}
