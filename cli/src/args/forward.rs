//! The command line of `cepa forward`: its words and their help.

use clap::Args;

use super::of_mesh::CodeRelay;
use super::options::Dialling;
use super::watching::Watching;
use crate::values::{DialTarget, Dynamic, Local, Remote};

#[derive(Debug, Args)]
#[command(after_help = "\
All connections share one session, made at the start. `ulimit -n` limits their
number here; connections beyond the server's limit wait.

If the connection to the server is lost, the session is kept and goes on over
the next one: open connections notice a pause, and new ones wait. If the session
is lost (no new connection for 10 minutes or the time of --park; the server was
restarted or does not keep sessions), all connections are reset (those on a Unix
socket end), and the command ends with exit code 6.

With --reconnect it keeps listening and connects again, with the pauses of
`cepa connect --reconnect`; new connections wait for the new session. The first
attempt must succeed: exit code 5 or 6 if the peer is not there. It ends with
exit code 3, 4, 5 or 7 when the two ends refuse each other or are incompatible.

Ctrl-C and SIGTERM end it with exit code 0 once it listens. The second one ends
it at once. On a terminal the last line shows the bytes to the peer (out) and
from it (in), their rates, and the open connections; -q leaves it out.

Through ssh (ssh:[USER@]HOST[:PORT]) SERVICE may be an address there, as with
ssh -L: a port, HOST:PORT or a path; -D and -R need nothing at the far end.
  cepa forward ssh:server -L 5433=/run/db.sock -L 8080=80")]
pub(crate) struct Forward {
    /// @NAME of a known peer or of a target in `config.toml` (`cepa config --help`), where the peer
    /// listens, its own address (cepa://PEERID@HINT,HINT), or a ticket or short code
    /// (`cepa share`)
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// Listen here, and forward each connection to this service: a port of this machine, HOST:PORT,
    /// tcp:HOST:PORT, unix:PATH, or rfc2217:HOST:PORT for programs that look for a serial line there
    /// (pyserial, ser2net; needs no cepa). The only service that there is needs no name: -L 8080 (repeatable)
    #[arg(
        short = 'L',
        long = "local",
        value_name = "LISTEN=SERVICE",
        required_unless_present_any = ["dynamics", "remotes"]
    )]
    pub(crate) locals: Vec<Local>,
    /// Listen here for programs that use a SOCKS 5 proxy (socks5h://), and have this service connect
    /// them where they want; default `socks`. The server offers it with --service socks=socks:ALLOWED
    /// and resolves the names (repeatable)
    #[arg(short = 'D', long = "dynamic", value_name = "LISTEN[=SERVICE]")]
    pub(crate) dynamics: Vec<Dynamic>,
    /// Have the peer listen there, and forward each connection to ADDRESS here: a port of the peer's
    /// machine (0: it chooses one), IP:PORT or unix:PATH; ADDRESS is PORT, HOST:PORT or unix:PATH. The
    /// peer's owner allows it with `serve --allow-remote` (repeatable)
    #[arg(short = 'R', long = "remote", value_name = "LISTEN=ADDRESS")]
    pub(crate) remotes: Vec<Remote>,
    /// If the session is lost for good, make a new one and go on. A peer that does not keep sessions
    /// loses one with each connection
    #[arg(long)]
    pub(crate) reconnect: bool,
    #[command(flatten)]
    pub(crate) code_relay: CodeRelay,
    #[command(flatten)]
    pub(crate) dialling: Dialling,
    #[command(flatten)]
    pub(crate) watching: Watching,
}
