//! The command line of `cepa invite`: its words and their help.

use std::path::PathBuf;

use cepa::node::PeerAddr;
use cepa::transports::Endpoint;
use clap::Args;

use super::options::IdentityFile;
use crate::keep::INVITE_MINUTES;
use crate::values::placed_addr;

#[derive(Debug, Args)]
#[command(after_help = "\
The code is printed on standard output. It contains this machine's peer id, its
address, and a secret that works once. Send it to the other side in private:
whoever uses it first joins. The command ends when a peer has joined; each side
is then a known peer of the other. Until then, this address offers nothing
else.

With --relay, no port has to be open here. Without ADDR and --relay, the default
relay of `config.toml` is used. With --control, a running `cepa node` invites,
where it listens and is registered. To invite at a running `cepa serve`, start
it with --invite NAME.

With --code a short code is printed instead, such as 7-lusab-badaf, which can be
said on the phone. Both ends need the same relay: here --relay, those of the
node or the default one, there `cepa join --relay` or the default one. It is
good for one use within 15 minutes. Whoever gives a wrong one uses it up, which
ends this command with exit code 7.")]
pub(crate) struct Invite {
    /// Where to listen: tcp:HOST:PORT (port 0 picks a free port) or unix:PATH
    #[arg(value_name = "ADDR")]
    pub(crate) listen: Option<Endpoint>,
    /// Be reachable through this relay, cepa://RELAYID@ADDR or @NAME (repeatable)
    #[arg(long = "relay", value_name = "RELAY", value_parser = placed_addr)]
    pub(crate) relays: Vec<PeerAddr>,
    /// Have the node invite that runs with `control = "PATH"` in its file
    #[arg(long, value_name = "PATH", conflicts_with_all = ["listen", "relays", "at", "path"])]
    pub(crate) control: Option<PathBuf>,
    /// The address to put into the code, if the other side reaches this machine at another one
    #[arg(long, value_name = "ADDR", requires = "listen")]
    pub(crate) at: Option<Endpoint>,
    /// Remember the peer that joins under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "MINUTES", default_value_t = INVITE_MINUTES, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub(crate) minutes: u32,
    /// Print a short code instead: a number and two words
    #[arg(long)]
    pub(crate) code: bool,
    /// Show the code as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
