//! The command line of `cepa ports`: its words and their help.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
The name under BY-ID does not change when other adapters are plugged in. Use it
in addresses:
serial:/dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00-port0,baud=115200
For the other options of a line, see `cepa explain --help`.")]
pub(crate) struct Ports {
    /// Print a JSON list
    #[arg(long)]
    pub(crate) json: bool,
}
