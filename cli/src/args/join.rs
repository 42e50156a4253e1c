//! The command line of `cepa join`: its words and their help.

use cepa::transports::Endpoint;
use clap::Args;

use super::of_mesh::CodeRelay;
use super::options::IdentityFile;

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The code that `cepa invite` printed, long or short, or `-` to read it from standard input (other
    /// users of this machine can see a command line)
    #[arg(value_name = "CODE")]
    pub(crate) code: String,
    /// Remember the peer that invited under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Connect to this address instead of the one in the code
    #[arg(long, value_name = "ADDR")]
    pub(crate) at: Option<Endpoint>,
    #[command(flatten)]
    pub(crate) code_relay: CodeRelay,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
