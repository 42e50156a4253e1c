//! The command line of `cepa mesh`: its words and their help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Mesh {
    /// Show its listeners, services, relays and sessions
    Status(MeshStatus),
}

#[derive(Debug, Args)]
pub(crate) struct MeshStatus {
    /// The node's control socket: `control` in its configuration
    #[arg(long, value_name = "PATH")]
    pub(crate) control: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
