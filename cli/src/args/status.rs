//! The command line of `cepa status`: its words and their help.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
It shows the sessions of a running `cepa serve`, `relay`, `node` or `forward`,
and what is open in them. Start that with --control PATH (in a node's file,
control = \"PATH\"). Only its own user and root may ask.

IN and OUT are bytes so far, /S is bytes per second lately, QUEUED is what waits
to be sent. PRIO is the class of a stream's priority: 0 goes first, 7 last.
docs/WATCHING.md describes every field of --json.

Exit codes: 5 if nothing answers at PATH, 8 if this user may not ask there.

Examples:
  cepa serve tcp:0.0.0.0:7000 --service up=echo: --allow known \\
      --control ~/.cepa.sock
  cepa status --control ~/.cepa.sock
  cepa status --control ~/.cepa.sock --watch")]
pub(crate) struct Status {
    /// The control socket of the command
    #[arg(long, value_name = "PATH")]
    pub(crate) control: PathBuf,
    /// Print JSON: one object
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it anew each second, until Ctrl-C; with --json, one object a line
    #[arg(long)]
    pub(crate) watch: bool,
}
