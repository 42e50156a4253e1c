//! The command line of `cepa invite`: its words and their help.

use cepa::transports::Endpoint;
use clap::Args;

use super::options::IdentityFile;

#[derive(Debug, Args)]
#[command(after_help = "\
The code is printed on standard output. It contains this machine's peer id, its
address, and a secret that works once. Send it to the other side in private:
whoever uses it first joins. The command ends when a peer has joined; each side
is then a known peer of the other. Until then, this address offers nothing
else.")]
pub(crate) struct Invite {
    /// Where to listen: tcp:HOST:PORT (port 0 picks a free port) or unix:PATH
    #[arg(value_name = "ADDR")]
    pub(crate) listen: Endpoint,
    /// The address to put into the code, if the other side reaches this machine at another one
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    /// Remember the peer that joins under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub(crate) minutes: u32,
    /// Show the code as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
