//! The command line of `cepa serve`: its words and their help.

use std::path::PathBuf;

use cepa::transports::Endpoint;
use clap::Args;

use super::of_forward::ServeRemote;
use super::of_mesh::ServeMesh;
use super::options::{GateLimits, LocalHints, Parking};
use super::watching::Watchers;
use crate::keep::{self, Consoles};
use crate::values::{AllowArg, Service, listen_addr};

#[derive(Debug, Args)]
#[command(after_help = "\
A service is an address. The server opens it once for each request:
  exec:COMMAND            run a command on standard input and output
  exec:COMMAND,pty=yes    run it in a terminal, for `cepa console`
  tcp:HOST:PORT, unix:PATH, serial:PATH
                          connect there; PORT alone is tcp:127.0.0.1:PORT.
                          Peers that may open a serial line or a terminal
                          may watch it (`cepa console --watch`), unless the
                          address ends with ,watch=no
  pty:PATH                create a terminal that any program can open
  echo:                   send back what arrives
  socks:HOST[:PORT],...   connect where `cepa forward -D` asks for, among these:
                          a name, *.NAME, an address, ADDRESS/BITS or * (all
                          that is public); PORT may be N-N or *, default 80
                          and 443. A name that leads to a private address
                          needs that address in the list, too
  files:DIR, files:DIR,ro
                          let `cepa cp` copy files to and from the folder DIR,
                          or (ro) only from it; nothing outside of DIR is
                          reached, by no path and no symlink
  command:/PROGRAM,...    let `cepa exec` run these programs, with any arguments
                          and without a shell. A program that can start others
                          (find, tar, vi) allows those, too
  cepa://PEERID@ADDR/SERVICE
                          connect to another peer's service. Its bytes are
                          readable on this machine, and that peer sees this
                          machine's id, not the client's

Only peers that --allow names may connect. When the server refuses a peer, it
prints the peer's id and the command that allows it.

A peer may open every service. If there is only one, it need not name it.
`serve stdio:` serves a single session, and ends with it.")]
pub(crate) struct Serve {
    /// Where to listen: tcp:HOST:PORT (port 0 picks a free port), unix:PATH, stdio:, pty:PATH or
    /// serial:PATH
    #[arg(value_name = "ADDR", value_parser = listen_addr)]
    #[cfg_attr(feature = "mesh", arg(required_unless_present = "register"))]
    #[cfg_attr(not(feature = "mesh"), arg(required = true))]
    pub(crate) listen: Vec<Endpoint>,
    /// Offer the service ADDR under this name (repeatable). Without a name, it is called by its port,
    /// program, socket or device: exec:/bin/login is login
    #[arg(long = "service", value_name = "NAME=ADDR")]
    pub(crate) services: Vec<Service>,
    /// Who may connect: a peer id, @NAME of a known peer, `known` for all known peers, or `any`
    /// (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<AllowArg>,
    /// Maximum number of connections in one session; further ones wait. Default and maximum: about a
    /// third of `ulimit -n`, at most 5,280
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections_a_session: Option<u32>,
    /// Maximum number of sessions of one peer; default 16
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) sessions_a_peer: Option<u32>,
    /// Maximum number of commands (exec:) that run at once for one peer; default 32
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) commands_a_peer: Option<u32>,
    #[command(flatten)]
    pub(crate) remote: ServeRemote,
    #[command(flatten)]
    pub(crate) mesh: ServeMesh,
    #[command(flatten)]
    pub(crate) parking: Parking,
    /// How long `cepa console --attach NAME` finds its command again after it was left, as in 10min,
    /// 8h or 2d, or `off` to keep none. Default as --park; with --no-durable, off
    #[arg(long, value_name = "TIME|off", value_parser = keep::consoles)]
    pub(crate) keep_consoles: Option<Consoles>,
    #[command(flatten)]
    pub(crate) gate: GateLimits,
    /// Use the identity in this PEM file instead of the default one. With several, a peer that
    /// connects with --expect PEERID gets that identity; any other gets the first (repeatable)
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) watchers: Watchers,
}
