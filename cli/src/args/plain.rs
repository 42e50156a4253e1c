//! The command lines of what meets no peer: their words and their help.

use cepa::transports::Endpoint;
use clap::Args;

use crate::values::Explained;

#[derive(Debug, Args)]
#[command(after_help = "\
The other end runs `cepa probe --answer ADDR`, or has a loopback plug (its two
data lines joined). The probe takes about 4 s in each direction. Nothing else
may use the line at that time. It tests only the line, without link or TLS.")]
pub(crate) struct Probe {
    /// The line, without layers: serial:PATH, or anything else that carries bytes
    #[arg(value_name = "ADDR")]
    pub(crate) address: Endpoint,
    /// Answer probes from the other end, until stopped
    #[arg(long)]
    pub(crate) answer: bool,
    /// Print the result as a JSON object
    #[arg(long, conflicts_with = "answer")]
    pub(crate) json: bool,
}

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

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// MiB to send through each substream in each direction
    #[arg(long, value_name = "MIB", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) size: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Options for unusual serial lines:
  serial:/dev/ttyUSB0,flow=sw      the line uses XON and XOFF itself
  serial:/dev/ttyUSB0,mtu=240      a radio modem: frames of up to 240 bytes
  serial:/dev/ttyUSB0,duplex=half  one pair for both directions (RS-485)
For a line behind a serial server, give these options to the link:
mux+tls+link,escape=xonxoff,mtu=240,duplex=half+tcp:HOST:PORT. It is enough to
set them at one end. docs/ADDRESSES.md describes every option.

`cepa explain` also explains a peer's address
(cepa://PEERID@HINT;HINT/SERVICE), an introduction and an invitation code. It
does not connect to anything, and does not show the secret of a code.")]
pub(crate) struct Explain {
    /// An address, an introduction or an invitation code
    #[arg(value_name = "ADDR")]
    pub(crate) address: Explained,
}
