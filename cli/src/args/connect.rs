//! The command line of `cepa connect`: its words and their help.

use clap::Args;

use super::of_mesh::CodeRelay;
use super::options::Dialling;
use crate::values::DialTarget;

#[derive(Debug, Args)]
#[command(after_help = "\
Standard input and output carry the service's bytes unchanged. The end of
standard input is passed on; output continues until the service ends. If the
service runs a command (exec:), its standard error appears on standard error
here, and `cepa connect` exits with its exit status (128 + N if signal N killed
it). If the reader of standard output stops first, `cepa connect` exits with
status 0.

With --durable, the session outlives its connection, if the server keeps it too.
SIGINT, SIGTERM and SIGHUP then end it at the server as well, which may take
3 s; the exit status is 128 + N for signal N.

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
    /// @NAME of a known peer or of a target in `config.toml` (`cepa config --help`), where the peer
    /// listens, its own address (cepa://PEERID@HINT,HINT/SERVICE), a ticket or short code (`cepa
    /// share`), or an introduction. `-` reads it from the first line of standard input: other users of
    /// this machine can see a command line
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// The service; not needed if the address names it or the peer has only one
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// If the session is lost for good, make a new one and open the service again. A peer that does not
    /// keep sessions loses one with each connection
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
    pub(crate) code_relay: CodeRelay,
    #[command(flatten)]
    pub(crate) dialling: Dialling,
}
