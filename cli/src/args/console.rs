//! The command line of `cepa console`: its words and their help.

use std::path::PathBuf;

use clap::Args;

use super::of_mesh::CodeRelay;
use super::options::Dialling;
use crate::keep;
use crate::values::{DialTarget, EscapeChar};

#[derive(Debug, Args)]
#[command(after_help = "\
Every key goes to the service, even ^C. So does the size of the window: offer a
shell with `cepa serve --service NAME='exec:bash -l,pty=yes'`. At the start of a
line:
  ~.   leave; a command in a terminal on the other end gets SIGHUP
  ~B   send a break, if the service is a serial line
  ~D   lower DTR of a serial line, and raise it again next time
  ~T   the same with RTS
  ~^Z  suspend this program (the session lasts up to an hour)
  ~l   switch the log on or off
  ~s   show the path, its round trip, and the bytes of this session
  ~R   if the connection is lost, dial again at once
  ~~   send the character itself
  ~?   show this list
Text that a serial line sends outside the session, such as boot messages,
appears on standard error, in another colour unless NO_COLOR is set. The console
ends when the service ends, with the exit status of its command, or with exit
code 1 if the service failed.

If the connection is lost, the session is kept and goes on over the next one,
and so do the keys typed meanwhile: for 10 minutes, or as --park says at both
ends. If the server does not keep sessions, or with --no-durable, it ends. Who
leaves meanwhile waits up to 3 s for the server to be told; a message says if it
was not, for it keeps the command then.

With --attach NAME, the command outlives this program, whatever ends that: ~.,
a kill, or a network that stays away. It goes on at the server, which keeps its
last 64 KiB of output. The same command line attaches again, shows that output,
and goes on; a command that has ended meanwhile is told with its exit status,
once. The server keeps a console for 10 minutes, or as its --keep-consoles says.
Only you find it: by your key, the service and the name. If you attach twice,
the first console ends with exit code 9. --attached lists your consoles, and
--attach NAME --end ends one.

With --watch you see what somebody else's console says from now on, a kept one
with what it said last. Nothing you type is sent. If your connection is slow,
you miss some and read `[N bytes skipped]`; nobody waits for you. Who may open
the service may watch it, unless the server says watch=no; who has the console
is told.

With --reconnect, a lost session is made again and the service opened again, as
with `cepa connect --reconnect`. Keys typed meanwhile are discarded, except ~.
to leave. It ends with exit code 3, 4, 5 or 7 when the two ends refuse each
other or are incompatible.")]
pub(crate) struct Console {
    /// @NAME of a known peer or of a target in `config.toml` (`cepa config --help`), where the peer
    /// listens, its own address (cepa://PEERID@HINT,HINT/SERVICE), or a ticket or short code
    /// (`cepa share`)
    #[arg(value_name = "ADDR")]
    pub(crate) address: DialTarget,
    /// The service; not needed if the address names it or the peer has only one
    #[arg(value_name = "SERVICE", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// Keep the command at the server under this name, and attach again if it is there. For services
    /// with a terminal (exec:…,pty=yes). Letters, digits, `-` and `_`; up to 4 a peer
    #[arg(long, value_name = "NAME", value_parser = keep::console_name)]
    pub(crate) attach: Option<String>,
    /// Show what a console says that somebody else has: a serial line (serial:), or a kept console
    /// (--attach NAME says which, where there are several). Keys are not sent; ~. leaves
    #[arg(long, conflicts_with_all = ["attached", "end"])]
    pub(crate) watch: bool,
    /// With --attach: end that console. Its command is hung up, also if somebody is attached
    #[arg(long, requires = "attach", conflicts_with = "reconnect")]
    pub(crate) end: bool,
    /// List the consoles that the server keeps for you, at SERVICE or at all: the name, the service,
    /// since when, and whether somebody is attached
    #[arg(long, conflicts_with_all = ["attach", "reconnect"])]
    pub(crate) attached: bool,
    /// Append the service's output to this file as it comes (created for you alone, mode 0600). If it
    /// can't be written, that is said once, and the console goes on
    #[arg(long, value_name = "FILE", conflicts_with_all = ["attached", "end"])]
    pub(crate) log: Option<PathBuf>,
    /// Empty the log first
    #[arg(long, requires = "log")]
    pub(crate) log_truncate: bool,
    /// Begin each line of the log with its time (UTC)
    #[arg(long, conflicts_with_all = ["attached", "end"])]
    pub(crate) log_timestamps: bool,
    /// The escape character, also as in ^], or `none`
    #[arg(long, value_name = "CHAR", default_value = "~")]
    pub(crate) escape: EscapeChar,
    /// If the session is lost for good, make a new one and open the service again. A peer that does not
    /// keep sessions loses one with each connection
    #[arg(long)]
    pub(crate) reconnect: bool,
    #[command(flatten)]
    pub(crate) code_relay: CodeRelay,
    #[command(flatten)]
    pub(crate) dialling: Dialling,
}

impl Console {
    /// Whether somebody sits down, and does not only ask for what is kept.
    pub(crate) fn sits(&self) -> bool {
        !self.attached && !self.end
    }
}
