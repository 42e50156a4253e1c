//! The command line of `cepa probe`: its words and their help.

use cepa::transports::Endpoint;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
The other end runs `cepa probe --answer ADDR`, or has a loopback plug (its two
data lines joined). The probe takes about 4 s in each direction. Nothing else
may use the line at that time. It tests only the line, without link or TLS.")]
pub(crate) struct Probe {
    /// The line, without layers: serial:PATH, rfc2217:HOST:PORT, or anything
    /// else that carries bytes
    #[arg(value_name = "ADDR")]
    pub(crate) address: Endpoint,
    /// Answer probes from the other end, until stopped
    #[arg(long)]
    pub(crate) answer: bool,
    /// Print the result as a JSON object
    #[arg(long, conflicts_with = "answer")]
    pub(crate) json: bool,
}
