//! The command line of `cepa share`: its words and their help.

use std::time::Duration;

use cepa::identity::UnixTime;
use cepa::node::PeerAddr;
use cepa::transports::Endpoint;
use clap::Args;

use super::options::IdentityFile;
use super::watching::Watching;
use crate::keep;
use crate::values::{Service, listen_addr, placed_addr, until};

#[derive(Debug, Args)]
#[command(after_help = "\
Prints a ticket, one line, on standard output, and stays until Ctrl-C or the end
of the ticket's time. Send the ticket to a friend in private: whoever uses it
first is the only one who can, and gets these services, nothing else. The friend
needs no setup:

  cepa forward TICKET -L 8080        this machine's port 8080 is the service
  cepa connect TICKET                standard input and output are the service
  cepa console TICKET                the same at a terminal
  cepa cp TICKET:/ .                 the files of a folder, files:DIR

Of several services the friend names one: `-L 8080=web`, `connect TICKET web`,
`cp TICKET:docs/ .`. `-` in the place of TICKET reads it from standard input,
which other users of the machine can't see (not for `cp`).
The ticket is of no use once this command has ended.

With --code a short code is printed instead, such as 7-lusab-badaf, which can
be said on the phone; the friend gives it in the place of TICKET. Both ends
need the same relay: at each --relay or the default one of `config.toml`. It is
good for one friend, who comes within 15 minutes and can run the same command
again. Whoever gives a wrong one uses it up, which ends this command with exit
code 7.

Over a relay neither side needs an open port. Without --relay the default relay
of `config.toml` is used (`cepa config --help`). Services are as in `cepa serve
--help`.

Example:
  cepa share web=8080 --relay cepa://RELAYID@tcp:HOST:7711")]
pub(crate) struct Share {
    /// A service: its name, and the address behind it, as in web=8080 (a port of this machine) or
    /// sh=exec:bash,pty=yes. Without a name, it is called by its port, program, socket or device
    #[arg(value_name = "NAME=ADDR", required = true)]
    pub(crate) services: Vec<Service>,
    /// Be reachable through this relay, cepa://RELAYID@ADDR or @NAME (repeatable)
    #[arg(long = "relay", value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) relays: Vec<PeerAddr>,
    /// Also listen here: tcp:HOST:PORT (port 0 picks a free port; 0.0.0.0 is every address of this
    /// machine) (repeatable)
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) listen: Vec<Endpoint>,
    /// The name or address by which others reach what --listen listens at, where that is another one
    #[arg(long, value_name = "HOST", requires = "listen")]
    pub(crate) public: Option<String>,
    /// How long the ticket can be used, as in 90s, 10min, 8h or 2d; default 1d
    #[arg(long = "for", value_name = "TIME", value_parser = keep::park, allow_hyphen_values = true)]
    pub(crate) lasts: Option<Duration>,
    /// Until when it can be used, as `date -Is` prints a time: 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = until, conflicts_with = "lasts")]
    pub(crate) until: Option<UnixTime>,
    /// How often it can be used; each connect, console or forward that has opened a service is one use.
    /// Default: any number of times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: Option<u32>,
    /// Print a short code instead of the ticket: a number and two words, for a friend with the same relay
    #[arg(long)]
    pub(crate) code: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
    #[command(flatten)]
    pub(crate) watching: Watching,
}
