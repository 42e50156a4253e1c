//! The command line of `cepa status`: its words and their help.

use std::path::PathBuf;

use clap::Args;

use super::options::Looking;
use crate::values::DialTarget;

#[derive(Debug, Args)]
#[command(after_help = "\
It shows the sessions of a running `cepa serve`, `share`, `relay`, `node` or
`forward`, and what is open in them. Start that with --control PATH (in a node's
file, control = \"PATH\"). Only its own user and root may ask.

With ADDR it asks a peer (`serve`, `relay` or `node`) what that one sees of your
session with it. Peers that it allows by name may ask; those that its
--allow-status names see all sessions.

IN and OUT are bytes so far, /S is bytes per second lately, QUEUED is what waits
to be sent. PRIO is the class of a stream's priority: 0 goes first, 7 last.
docs/WATCHING.md describes every field of --json.

Exit codes: 5 if nothing answers at PATH, 7 if the peer shows you nothing, 8 if
this user may not ask at PATH.

Examples:
  cepa serve tcp:0.0.0.0:7000 --service up=echo: --allow known \\
      --control ~/.cepa.sock
  cepa status --control ~/.cepa.sock
  cepa status --control ~/.cepa.sock --watch
  cepa status @ann")]
pub(crate) struct Status {
    /// Ask a peer: @NAME of a known peer or of a target in `config.toml`, where it listens, or its own
    /// address (cepa://PEERID@HINT,HINT)
    #[arg(value_name = "ADDR")]
    pub(crate) address: Option<DialTarget>,
    /// The control socket of a command of this machine
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON: one object
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it anew each second, until Ctrl-C; with --json, one object a line
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}
