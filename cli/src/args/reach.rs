//! The command lines of what dials a peer, or joins two streams: their words and their help.

use cepa::node::PeerAddr;
use cepa::transports::Endpoint;
use clap::Args;

use super::options::{IdentityFile, LocalHints, Trust};
use crate::values::{DialTarget, Escape, Local, peer_addr, piped_addr};

#[derive(Debug, Args)]
#[command(after_help = "\
Standard input and output carry the bytes of the service as they are. The end of
standard input is passed on, and output goes on until the service ends. A
command behind the service (exec:) is run to its end: its standard error comes
to standard error, and its exit status is the exit status here (128 + N where
signal N ended it). When the reader of standard output leaves first, the command
ends quietly with exit code 0.

With --reconnect a session that is lost is made again, and the service opened
anew: its output begins at its own beginning, and what was on its way either way
is gone, which is told on standard error. The pauses between attempts double
from 0.25 s to 30 s, on serial lines, ptys and Unix sockets to 2 s. A peer that
is full, and a service that cannot be reached at the moment, are asked again
too. It ends with the service, with exit code 3, 4, 5 or 7 when the two ends no
longer want or understand each other, and with 6 when the session is lost after
the end of standard input, which cannot be read a second time; one without a
byte (</dev/null) is empty the second time too.")]
pub(crate) struct Connect {
    /// Where the peer listens, which peer it is (cepa://PEERID@HINT;HINT/SERVICE, or cepa://@NAME/SERVICE for
    /// a known one), or what `cepa introduce` printed
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// The service; may be left out where the peer has only one, or the address names it
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// When the session is lost, make another one and open the service anew
    #[arg(long)]
    pub(crate) reconnect: bool,
    /// Exit with this status when it is cepa that fails, and not the command of the service: 255 is what ssh has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) error_status: Option<u8>,
    /// Do not ask how the service ends: its bytes alone, as any program of the library has them. A command that
    /// fails is exit code 1 then
    #[arg(long)]
    pub(crate) no_status: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every key goes to the service, ^C too; the size of the window goes along, and
`serve --service NAME='exec:bash -l,pty=yes'` gives it to a shell. At the start
of a line:
  ~.   leave; a command on a terminal of the other end is hung up
  ~B   send a break, where a serial line is below the service
  ~^Z  suspend this program
  ~~   the character itself
  ~?   help
What a serial line says beside the session (boot messages) is shown on standard
error, in another colour unless NO_COLOR is set. A peer keeps the session of a
program that was suspended by ~^Z for an hour at most. The command ends with the
service: with exit code 1 if that failed.

With --reconnect a session that is lost is made again, and the service opened
anew, with the pauses of `cepa connect --reconnect`; what is typed meanwhile is
thrown away, but for ~. which leaves. It ends with exit code 3, 4, 5 or 7 when
the two ends no longer want or understand each other.")]
pub(crate) struct Console {
    /// Where the peer listens, or which peer it is: cepa://PEERID@HINT;HINT/SERVICE, or cepa://@NAME/SERVICE
    /// for a known one
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// The service; may be left out where the peer has only one, or the address names it
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// The escape character, or `none`
    #[arg(long, value_name = "CHAR", default_value = "~")]
    pub(crate) escape: Escape,
    /// When the session is lost, make another one and open the service anew
    #[arg(long)]
    pub(crate) reconnect: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
All connections share one session, which is made at start. There may be as many
as this process may open files (ulimit -n); where the peer has no room for so
many, the others wait for as long as their clients do. When it is lost they are
reset (a Unix socket knows no reset, its connections end), and the command ends
with exit code 6.

With --reconnect it listens on instead and makes another session, with the
pauses of `cepa connect --reconnect`; connections that come meanwhile wait for
it. The first session has to come about at once: exit code 5 or 6 where the peer
is not there. It ends with exit code 3, 4, 5 or 7 when the two ends no longer
want or understand each other.

Example:
  cepa forward -L tcp:127.0.0.1:5433=db --expect PEERID \\
      'exec:ssh host cepa serve stdio: --service db=unix:/db.sock --allow ID'
where PEERID is the host's peer id, and ID this machine's.")]
pub(crate) struct Forward {
    /// Where the peer listens, or which peer it is: cepa://PEERID@HINT;HINT, or cepa://@NAME for a known one
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// Listen here (tcp: or unix:), and carry each connection to that service (repeatable)
    #[arg(
        short = 'L',
        long = "local",
        value_name = "LISTEN=SERVICE",
        required = true
    )]
    pub(crate) locals: Vec<Local>,
    /// When the session is lost, make another one and go on
    #[arg(long)]
    pub(crate) reconnect: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Request and answer have at most 48 KiB each. The recipient is `cepa serve
--sealed`, or `cepa node` with `sealed = true` for the service; the carrier is
`cepa relay --carry` or a node with [carrier], where the recipient is
registered. The carrier sees who, when and how much. What it says itself (that
the recipient refused, or does not answer) proves nothing: the request may have
been carried out.")]
pub(crate) struct Send {
    /// To whom: cepa://PEERID/SERVICE, or cepa://@NAME/SERVICE for a known peer
    #[arg(value_name = "ADDR", value_parser = peer_addr)]
    pub(crate) address: PeerAddr,
    /// Who carries it: cepa://CARRIERID@ADDR; without one the recipient is connected to
    #[arg(long, value_name = "CARRIER", value_parser = peer_addr)]
    pub(crate) by: Option<PeerAddr>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The two are joined as they are, with the TLS layers that their addresses name
(tls+tcp:HOST:PORT); the end of one stream is passed on to the other, and both
directions are waited for. A serial line never ends: for one command and its
answer, -t says how long a silence ends it,
  echo 'show version' | cepa pipe -t 2 stdio: serial:/dev/ttyUSB0
A Unix socket can't tell a cut from an end. Where both ends say framed, an end
is said, and a command behind a cut is killed instead of taking half for all:
  cepa pipe --listen unix:/run/up.sock,framed \\
      \"exec:sh -c 'cat >new && mv new done'\"
is what `cepa serve --service up=unix:/run/up.sock,framed` connects to.")]
pub(crate) struct Pipe {
    /// Once one direction has ended, wait for the other until it is silent for so long; without it, to its end
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = crate::values::seconds)]
    pub(crate) patience: Option<f64>,
    /// Wait at the first address (tcp: or unix:), and join each who connects to the other one, opened anew, until
    /// stopped
    #[arg(short, long)]
    pub(crate) listen: bool,
    /// One stream
    #[arg(value_name = "ADDR", value_parser = piped_addr)]
    pub(crate) one: Endpoint,
    /// The other
    #[arg(value_name = "ADDR", value_parser = piped_addr)]
    pub(crate) other: Endpoint,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
