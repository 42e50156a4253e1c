//! The command line of `cepa services`: its words and their help.

use clap::Args;

use super::options::Looking;
use crate::values::DialTarget;

#[derive(Debug, Args)]
#[command(after_help = "\
It makes a session, as `cepa connect` does, and prints a line for each service:
its name, and what it is:
  stream    a connection, for `connect` or `forward -L`
  command   a command that runs for each connection, for `connect`
  terminal  a command in a terminal, for `console`
  serial    a serial line, for `console`
  socks     a proxy, for `forward -D`
  files     a folder, for `cp`
  programs  programs with arguments of your own, for `exec`
  forward   a service of another peer, which passes it on
  echo      sends back what arrives
  demo      what `cepa demo` talks to
What the peer offers to others is not shown, nor what an introduction opens. A
peer with an older cepa does not list its services: exit code 7.

Example:
  cepa services @ann")]
pub(crate) struct Services {
    /// @NAME of a known peer or of a target in `config.toml` (`cepa config --help`), where the peer
    /// listens, or its own address (cepa://PEERID@HINT,HINT)
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// Print one JSON object: `peer`, `name` (if it has one here), `services` (each with `name` and
    /// `kind`, which may be null), `complete`
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) looking: Looking,
}
