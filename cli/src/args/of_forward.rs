//! The options of servers for `cepa forward -R`.

use clap::Args;

use crate::remote_place::Places;

/// Where peers may have a server listen.
#[derive(Debug, Args)]
pub(crate) struct ServeRemote {
    /// Where peers that --allow names may have this machine listen (`cepa forward -R`): ports of this
    /// machine alone, IP:PORT, or unix:PATH. PORT may be N-N, or * for all; 0 allows a free one to be
    /// chosen (repeatable)
    #[arg(long = "allow-remote", value_name = "[IP:]PORT[,…]")]
    allow_remote: Vec<Places>,
}

impl ServeRemote {
    pub(crate) fn allowed(&self) -> &[Places] {
        &self.allow_remote
    }
}
