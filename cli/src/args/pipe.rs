//! The command line of `cepa pipe`: its words and their help.

use cepa::transports::Endpoint;
use clap::Args;

use super::options::{IdentityFile, Trust};
use crate::values::piped_addr;

#[derive(Debug, Args)]
#[command(after_help = "\
The bytes pass unchanged, through the TLS layers that the addresses name
(tls+tcp:HOST:PORT). The end of one stream is passed on to the other; the
command ends when both directions have ended. A serial line never ends: use -t
to stop after a silence:
  echo 'show version' | cepa pipe -t 2 stdio: serial:/dev/ttyUSB0
On a Unix socket, a lost connection looks like an end. With `framed` at both
ends they differ, and a command is killed when its connection is lost, so that
it does not take half of its input for all of it:
  cepa pipe --listen unix:/run/up.sock,framed \\
      \"exec:sh -c 'cat >new && mv new done'\"
is what `cepa serve --service up=unix:/run/up.sock,framed` connects to.")]
pub(crate) struct Pipe {
    /// After one side ends, stop when the other has been silent for this many seconds. By default, wait
    /// for its end
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = crate::values::seconds)]
    pub(crate) patience: Option<f64>,
    /// Listen at the first address (tcp:, unix: or rfc2217:), and connect each client to the second one, opened
    /// again for each, until stopped
    #[arg(short, long)]
    pub(crate) listen: bool,
    /// The first stream
    #[arg(value_name = "ADDR", value_parser = piped_addr)]
    pub(crate) one: Endpoint,
    /// The second stream
    #[arg(value_name = "ADDR", value_parser = piped_addr)]
    pub(crate) other: Endpoint,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
