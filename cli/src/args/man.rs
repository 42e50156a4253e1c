//! The command line of `cepa man`: its words and their help.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
The pages are cepa.1 and one a command, such as cepa-peer-add.1. man(1) finds
them in ~/.local/share/man/man1 and in /usr/local/share/man/man1:
  cepa man ~/.local/share/man/man1 && man cepa-connect")]
pub(crate) struct Man {
    /// Write them into this folder, which is made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
