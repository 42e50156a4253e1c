//! The command line of `cepa reload`: its words and their help.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
It does what SIGHUP does, and says what came of it: what has changed, what could
not be done, and what waits until the node is started anew. A file with an error
in it changes nothing.

`cepa serve`, `relay` and `forward` have no file: start them anew.

Exit codes: 0 all of it was taken over; 1 some of it could not be, or waits
until the node is started anew (the line on standard error names it); 2 the file
is wrong; 5 nothing answers at PATH; 7 that command has no file.")]
pub(crate) struct Reload {
    /// The control socket of the node: `control` in its file, or its --control
    #[arg(long, value_name = "PATH")]
    pub(crate) control: PathBuf,
}
