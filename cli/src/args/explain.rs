//! The command line of `cepa explain`: its words and their help.

use clap::Args;

use crate::values::Explained;

#[derive(Debug, Args)]
#[command(after_help = "\
Options for unusual serial lines:
  serial:/dev/ttyUSB0,flow=sw      the line uses XON and XOFF itself
  serial:/dev/ttyUSB0,mtu=240      a radio modem: frames of up to 240 bytes
  serial:/dev/ttyUSB0,duplex=half  one pair for both directions (RS-485)
Behind a serial server that knows RFC 2217 they are the same, with
rfc2217:HOST:PORT. For a raw port of a serial server, give them to the link:
mux+tls+link,escape=xonxoff,mtu=240,duplex=half+tcp:HOST:PORT. It is enough to
set them at one end. docs/ADDRESSES.md describes every option.

Where only the web is let through (passwords and headers are shown as ***):
  wss:www.example.com:443/cepa                 behind a reverse proxy
  tcp:HOST:PORT,proxy=socks5h://[USER:PASSWORD@]HOST:PORT
  ws:HOST:PORT/PATH,proxy=http://HOST:PORT,header=NAME:VALUE

Where only UDP is let through (peers are known by their keys, as always):
  quic:HOST:PORT

Where there is a login (docs/ADDRESSES.md says what runs at the far end):
  ssh:me@server:2222,service=db=unix:/run/db.sock

With several networks:
  tcp:HOST:PORT,bind=192.0.2.1,interface=eth1,mark=42

`cepa explain` also explains @NAME (what it stands for, and which file says so),
a peer's address (cepa://PEERID@HINT,HINT/SERVICE), a ticket, an introduction
and an invitation code. It does not connect to anything, and does not show the
secret of a code.")]
pub(crate) struct Explain {
    /// An address, @NAME, a ticket, an introduction or an invitation code
    #[arg(value_name = "ADDR")]
    pub(crate) address: Explained,
    /// Print a JSON object: `kind` (address, peer, name, introduction, invitation or ticket) and `lines`, each
    /// with a `word` and its `meaning`
    #[arg(long)]
    pub(crate) json: bool,
}
