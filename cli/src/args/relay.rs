//! The command line of `cepa relay`: its words and their help.

use cepa::node::PeerAddr;
use cepa::transports::Endpoint;
use clap::Args;

use super::fleet::Fleet;
use super::options::{GateLimits, IdentityFile, LocalHints};
use super::watching::Watchers;
use crate::values::{AllowArg, listen_addr, placed_addr, rate};

#[derive(Debug, Args)]
#[command(after_help = "\
A server registers with `cepa serve --register cepa://RELAYID@ADDR`. Peers then
reach it at cepa://PEERID@relay:RELAYID@ADDR/SERVICE. Their TLS is end to end:
the relay sees who talks to whom and how much, and nothing else. Only peers that
--allow names may use the relay.

With --carry it also delivers sealed messages (`cepa send`) to peers that are
connected to it.

When one relay is not enough, start more with --fleet: a peer registers at any
of them, and is reached through any of them. docs/FLEET.md tells how.")]
pub(crate) struct Relay {
    /// Where to listen: tcp:HOST:PORT (port 0 picks a free port) or unix:PATH
    #[arg(value_name = "ADDR", required_unless_present = "register", value_parser = listen_addr)]
    pub(crate) listen: Vec<Endpoint>,
    /// A name or address by which others reach this machine, for the addresses that are printed; by
    /// default what this machine knows of its own (repeatable)
    #[arg(long, value_name = "HOST", requires = "listen")]
    pub(crate) public: Vec<String>,
    /// Who may use the relay: a peer id, @NAME of a known peer, `known` for all known peers, or `any` (repeatable)
    #[arg(long, value_name = "PEERID|@NAME|known|any")]
    pub(crate) allow: Vec<AllowArg>,
    /// Also register at this relay, so that peers reach this one through it (repeatable)
    #[arg(long, value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) register: Vec<PeerAddr>,
    /// Also deliver sealed messages. The relay can neither read nor change them
    #[arg(long)]
    pub(crate) carry: bool,
    /// Maximum number of registrations
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) registrations: usize,
    /// Maximum number of circuits (relayed connections)
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) circuits: usize,
    /// Maximum number of circuits that one peer dials
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) circuits_a_peer: usize,
    /// Maximum bytes per second for all circuits that one peer dialled, both directions together; K, M
    /// and G are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "10M", value_parser = rate)]
    pub(crate) rate: u64,
    #[command(flatten)]
    pub(crate) fleet: Fleet,
    #[command(flatten)]
    pub(crate) gate: GateLimits,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    #[command(flatten)]
    pub(crate) watchers: Watchers,
}
