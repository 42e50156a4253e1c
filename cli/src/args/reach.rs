//! The command lines of what dials a peer, or joins two streams: their words and their help.

use cepa::node::PeerAddr;
use cepa::transports::Endpoint;
use clap::Args;

use super::options::{IdentityFile, Keeping, LocalHints, Trust};
use crate::values::{DialTarget, Escape, Local, peer_addr, piped_addr};

#[derive(Debug, Args)]
#[command(after_help = "\
Standard input and output carry the service's bytes unchanged. The end of
standard input is passed on; output continues until the service ends. If the
service runs a command (exec:), its standard error appears on standard error
here, and `cepa connect` exits with its exit status (128 + N if signal N killed
it). If the reader of standard output stops first, `cepa connect` exits with
status 0.

With --durable, the session outlives its connection, if the server allows that.

With --reconnect, a lost session is made again and the service opened again. Its
output starts from the beginning, and data in transit is lost, which a message
on standard error says. The pauses between attempts double from 0.25 s to 30 s
(2 s on serial lines, ptys and Unix sockets). A peer that is full and a service
that is not available right now are tried again too. The command ends
  when the service ends
  with exit code 3, 4, 5 or 7 when the two ends refuse each other or are
  incompatible
  with exit code 6 when the session is lost after the end of standard input,
  which cannot be read twice (empty input, such as </dev/null, can)")]
pub(crate) struct Connect {
    /// Where the peer listens, its own address (cepa://PEERID@HINT;HINT/SERVICE, or cepa://@NAME/SERVICE
    /// for a known peer), or an introduction
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// The service; not needed if the address names it or the peer has only one
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// If the session is lost, connect again and open the service again
    #[arg(long)]
    pub(crate) reconnect: bool,
    /// Exit with this status if cepa itself fails rather than the service's command; ssh uses 255
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) error_status: Option<u8>,
    /// Transfer only the bytes, without the command's exit status or standard error. If the command
    /// fails, the exit code is 1
    #[arg(long)]
    pub(crate) no_status: bool,
    #[command(flatten)]
    pub(crate) durable: Keeping,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every key goes to the service, even ^C. So does the size of the window: offer a
shell with `cepa serve --service NAME='exec:bash -l,pty=yes'`. At the start of a
line:
  ~.   leave; a command in a terminal on the other end gets SIGHUP
  ~B   send a break, if the service is a serial line
  ~^Z  suspend this program (the session lasts up to an hour)
  ~~   send the character itself
  ~?   show help
Text that a serial line sends outside the session, such as boot messages,
appears on standard error, in another colour unless NO_COLOR is set. The console
ends when the service ends, with the exit status of its command, or with exit
code 1 if the service failed.

If the connection is lost, the session is kept and goes on over the next one,
and so do the keys typed meanwhile: for 10 minutes, or as --park says at both
ends. If the server does not keep sessions, or with --no-durable, it ends.

With --reconnect, a lost session is made again and the service opened again, as
with `cepa connect --reconnect`. Keys typed meanwhile are discarded, except ~.
to leave. It ends with exit code 3, 4, 5 or 7 when the two ends refuse each
other or are incompatible.")]
pub(crate) struct Console {
    /// Where the peer listens, or its own address (cepa://PEERID@HINT;HINT/SERVICE, or
    /// cepa://@NAME/SERVICE for a known peer)
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// The service; not needed if the address names it or the peer has only one
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// The escape character, or `none`
    #[arg(long, value_name = "CHAR", default_value = "~")]
    pub(crate) escape: Escape,
    /// If the session is lost, connect again and open the service again
    #[arg(long)]
    pub(crate) reconnect: bool,
    #[command(flatten)]
    pub(crate) durable: Keeping,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

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

Example:
  cepa forward -L tcp:127.0.0.1:5433=db --expect PEERID \\
      'exec:ssh host cepa serve stdio: --service db=unix:/db.sock --allow ID'
where PEERID is the host's peer id and ID this machine's.")]
pub(crate) struct Forward {
    /// Where the peer listens, or its own address (cepa://PEERID@HINT;HINT, or cepa://@NAME for a known
    /// peer)
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// Listen here (tcp: or unix:), and forward each connection to this service (repeatable)
    #[arg(
        short = 'L',
        long = "local",
        value_name = "LISTEN=SERVICE",
        required = true
    )]
    pub(crate) locals: Vec<Local>,
    /// If the session is lost, connect again and go on
    #[arg(long)]
    pub(crate) reconnect: bool,
    #[command(flatten)]
    pub(crate) durable: Keeping,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The request and the answer may have up to 48 KiB each. The recipient runs `cepa
serve --sealed`, or `cepa node` with `sealed = true` for the service. The
carrier, if any, runs `cepa relay --carry` or a node with [carrier]; the
recipient is registered there. It sees who sends to whom, when and how much.

If the carrier reports that the recipient refused or does not answer, that is no
proof: the recipient may have handled the request.")]
pub(crate) struct Send {
    /// The recipient: cepa://PEERID/SERVICE, or cepa://@NAME/SERVICE for a known peer
    #[arg(value_name = "ADDR", value_parser = peer_addr)]
    pub(crate) address: PeerAddr,
    /// Send it through this carrier, cepa://CARRIERID@ADDR. By default, connect to the recipient
    #[arg(long, value_name = "CARRIER", value_parser = peer_addr)]
    pub(crate) by: Option<PeerAddr>,
    #[command(flatten)]
    pub(crate) local_hints: LocalHints,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The bytes pass unchanged, through the TLS layers that the addresses name
(tls+tcp:HOST:PORT). The end of one stream is passed on to the other; the
command ends when both directions have ended. A serial line never ends: use -t
to stop after a silence:
  echo 'show version' | cepa pipe -t 2 stdio: serial:/dev/ttyUSB0
On a Unix socket, a lost connection looks like an end. With `framed` at both
ends they differ, and a command is killed when its connection is lost, so that
it does not take half of its input for all of it:
  cepa pipe --listen unix:/run/up.sock,framed \\
      \"exec:sh -c 'cat >new && mv new done'\"
is what `cepa serve --service up=unix:/run/up.sock,framed` connects to.")]
pub(crate) struct Pipe {
    /// After one side ends, stop when the other has been silent for this many seconds. By default, wait
    /// for its end
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = crate::values::seconds)]
    pub(crate) patience: Option<f64>,
    /// Listen at the first address (tcp: or unix:), and connect each client to the second one, opened
    /// again for each, until stopped
    #[arg(short, long)]
    pub(crate) listen: bool,
    /// The first stream
    #[arg(value_name = "ADDR", value_parser = piped_addr)]
    pub(crate) one: Endpoint,
    /// The second stream
    #[arg(value_name = "ADDR", value_parser = piped_addr)]
    pub(crate) other: Endpoint,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) identity: IdentityFile,
}
