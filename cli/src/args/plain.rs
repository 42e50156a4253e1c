//! The command lines of what meets no peer: their words and their help.

use cepa::transports::Endpoint;
use clap::Args;

use crate::values::Explained;

#[derive(Debug, Args)]
#[command(after_help = "\
The other end runs `cepa probe --answer ADDR`, or has a loopback plug (its two
data lines joined). The probe takes about 4 s of line in each direction, and
nothing else may use the line meanwhile. It is the line alone that is looked at:
no link, no TLS.")]
pub(crate) struct Probe {
    /// The line, without layers: serial:PATH, or anything else that carries bytes
    #[arg(value_name = "ADDR")]
    pub(crate) address: Endpoint,
    /// Answer probes from the other end, until stopped
    #[arg(long)]
    pub(crate) answer: bool,
    /// The findings as a JSON object
    #[arg(long, conflicts_with = "answer")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The name under BY-ID stays with an adapter when others are plugged in: it is the
one to write into an address, as in
serial:/dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00-port0,baud=115200
What else an address can tell of a line: `cepa explain --help`.")]
pub(crate) struct Ports {
    /// As a JSON list
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How much each substream carries, each way, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) size: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Of a serial line an address tells what is not usual:
  serial:/dev/ttyUSB0,flow=sw      XON and XOFF are the line's own
  serial:/dev/ttyUSB0,mtu=240      a radio modem: frames of 240 bytes at most
  serial:/dev/ttyUSB0,duplex=half  two wires for both ways (RS-485): turns
Behind a serial server the link is told:
mux+tls+link,escape=xonxoff,mtu=240,duplex=half+tcp:HOST:PORT. One end is
enough. docs/ADDRESSES.md has every option.

A peer's address (cepa://PEERID@HINT;HINT/SERVICE), an introduction and the code
of an invitation are explained as well. Nothing is dialled, and the secret of a
code is not shown.")]
pub(crate) struct Explain {
    /// The address, or what `cepa introduce` or `cepa invite` printed
    #[arg(value_name = "ADDR")]
    pub(crate) address: Explained,
}
