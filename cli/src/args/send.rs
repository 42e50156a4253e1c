//! The command line of `cepa send`: its words and their help.

use cepa::node::PeerAddr;
use clap::Args;

use super::options::{IdentityFile, LocalHints};
use crate::values::{dialled_addr, peer_addr};

#[derive(Debug, Args)]
#[command(after_help = "\
The request and the answer may have up to 48 KiB each. The recipient runs `cepa
serve --sealed`, or `cepa node` with `sealed = true` for the service. The
carrier, if any, runs `cepa relay --carry` or a node with [carrier]; the
recipient is registered there. It sees who sends to whom, when and how much.

If the carrier reports that the recipient refused or does not answer, that is no
proof: the recipient may have handled the request.")]
pub(crate) struct Send {
    /// The recipient: cepa://PEERID/SERVICE, or @NAME/SERVICE
    #[arg(value_name = "ADDR", value_parser = dialled_addr)]
    pub(crate) address: PeerAddr,
    /// Send it through this carrier, cepa://CARRIERID@ADDR or @NAME. By default, connect to the recipient
    #[arg(long, value_name = "CARRIER", value_parser = peer_addr)]
    pub(crate) by: Option<PeerAddr>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
