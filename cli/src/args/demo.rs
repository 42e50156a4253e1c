//! The command line of `cepa demo`: its words and their help.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// MiB to send through each substream in each direction
    #[arg(long, value_name = "MIB", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) size: u32,
}
