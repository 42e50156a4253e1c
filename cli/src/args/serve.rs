//! The command line of `cepa serve`: its words and their help.

use std::path::PathBuf;

use cepa::node::PeerAddr;
use cepa::transports::Endpoint;
use clap::Args;

use super::options::{GateLimits, LocalHints, Parking, Watching};
use crate::keep::{self, Consoles};
use crate::values::{AllowArg, Places, Service, listen_addr, placed_addr};

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
    #[arg(value_name = "ADDR", required_unless_present = "register", value_parser = listen_addr)]
    pub(crate) listen: Vec<Endpoint>,
    /// A name or address by which others reach what ADDR listens at, for --invite
    #[arg(long, value_name = "HOST", requires = "invite")]
    pub(crate) public: Option<String>,
    /// Register at this relay, cepa://RELAYID@ADDR, so that peers reach the services through it. May
    /// replace ADDR (repeatable)
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) register: Vec<PeerAddr>,
    /// Offer the service ADDR under this name (repeatable)
    #[arg(long = "service", value_name = "NAME=ADDR")]
    pub(crate) services: Vec<Service>,
    /// Who may connect: a peer id, @NAME of a known peer, `known` for all known peers, or `any`
    /// (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<AllowArg>,
    /// Where peers that --allow names may have this machine listen (`cepa forward -R`): ports of this
    /// machine alone, IP:PORT, or unix:PATH. PORT may be N-N, or * for all; 0 allows a free one to be
    /// chosen (repeatable)
    #[arg(long = "allow-remote", value_name = "[IP:]PORT[,…]")]
    pub(crate) allow_remote: Vec<Places>,
    /// Who sees all sessions with `cepa status`; a peer that is allowed by name sees its own (repeatable)
    #[arg(long = "allow-status", value_name = "PEERID|@NAME|known")]
    pub(crate) allow_status: Vec<AllowArg>,
    /// Print an invitation, for `cepa join` on another machine. Who joins is remembered under this name
    /// and may open the services from then on
    #[arg(long, value_name = "NAME")]
    pub(crate) invite: Option<String>,
    /// Who else may introduce peers to the services. Unknown peers can then connect, but open only the
    /// services that they are introduced to (repeatable)
    #[arg(long = "introducer", value_name = "PEERID|@NAME|known|any")]
    pub(crate) introducers: Vec<AllowArg>,
    /// Remembers across restarts which introductions were used or revoked. Without it, a used one works
    /// again if the clock was set back. The file is created if it does not exist
    #[arg(long, value_name = "FILE", requires = "introducers")]
    pub(crate) state: Option<PathBuf>,
    /// Also accept requests from `cepa send`, from the peers that --allow names: directly, or through a
    /// `--register` relay that runs with --carry
    #[arg(long)]
    pub(crate) sealed: bool,
    /// Maximum number of connections in one session; further ones wait. Default and maximum: a third of
    /// `ulimit -n`
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
    pub(crate) watching: Watching,
}
