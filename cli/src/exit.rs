//! How the tool ends: exit codes, and the one line on standard error that goes with each.
//!
//! Every failure becomes a [`Failure`], a code and one sentence that ends with what to do next. What
//! a peer, a child or an address wrote may be part of the sentence, so it is cleaned ([`clean`]) before
//! it reaches a terminal: a banner cannot move the cursor or forge a second line.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use cepa::identity::{IdentityError, PeerId, Refusal};
use cepa::mux::{GoAwayCode, MuxError};
use cepa::node::{ListenError, PeerAddrError};
use cepa::resume::Refusal as Resumption;
use cepa::session::{ConnectError, OpenError, SessionEnd, SessionLost};
use cepa::stack::BindingError;
use cepa::tls::{TlsConfigError, TlsError};
use cepa::transports::text::{clean, is_printable};
use cepa::transports::{Action, Endpoint, Target, TransportError, TransportErrorKind};

use tokio::task::JoinError;

use crate::advice::{self, Advice};
use crate::keep::in_words;
use crate::say::{Line, safe_json};
pub(crate) use crate::say::{SECRETS, command_with, quoted, say};

/// Shown at the end of `cepa --help`; the numbers are an interface, scripts rely on them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  success, or the reader of standard output stopped first
  1  any other failure
  2  usage: an option or an address is wrong
  3  identity: another peer answered, or its certificate is expired or invalid
  4  unknown peer, and nobody to ask: give --expect, --trust-new or --trust any
  5  cannot connect: nothing there, the command failed, or it is not TLS
  6  connection lost or timed out, in the handshake or later
  7  the peer refused: it does not allow this identity, or has no such service
  8  local: key, configuration, permission, or an address to listen on
  9  taken over: another `console --attach` or `forward -R` with the same key
 10  some files were not copied (`cp`); each has a line on standard error
130  interrupted by Ctrl-C; 143 by SIGTERM, 129 as the terminal was closed

If a command ran at the other end (`connect`, `console`, `pipe exec:…`), cepa
exits with its status, or with 128 + N (at most 254) if signal N killed it. Use
`connect --error-status N` to tell a failure of cepa from one of the command.

Errors are one line on standard error and begin with `cepa:`. If the command
itself prints a line that begins with `cepa:`, it is shown as `(command) cepa:
…`. Standard output carries only data.

With `--log-format json` each line is a JSON object; servers put the time in
front of log lines where standard error is not a terminal. RUST_LOG=cepa=debug
in the environment is like -v.";

/// A refusal that begins so is one for now: the service is there, and may be had later.
pub(crate) const NOT_NOW: &str = "not now: ";

/// Exit codes of the tool, as [`HELP`] documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Other = 1,
    Usage = 2,
    Identity = 3,
    UnknownPeer = 4,
    Connect = 5,
    Lost = 6,
    Refused = 7,
    Local = 8,
    TakenOver = 9,
    Some = 10,
}

/// Why a command ended early: the exit code, and a sentence for the person at the terminal.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// What to do next, shown behind the message.
    advice: Option<Advice>,
    /// The same may work later, with nothing changed here: what `--reconnect` goes by.
    is_transient: bool,
    /// The peer had no room for the session.
    full: bool,
    /// The process exits with this, and not with the code.
    exit: Option<u8>,
    whose: Whose,
    /// Whom it is about, where a log should say so.
    peer: Option<PeerId>,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Cepa,
    /// The command of the other end, which has said itself why, where it did.
    Command,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            advice: None,
            is_transient: matches!(code, Code::Connect | Code::Lost),
            full: false,
            exit: None,
            whose: Whose::Cepa,
            peer: None,
        }
    }

    /// An error of the library, with the tool's advice for it.
    pub(crate) fn of(code: Code, error: &(dyn Error + 'static)) -> Self {
        Self {
            advice: advice::of(error),
            ..Self::new(code, error.to_string())
        }
    }

    /// A command of the other end failed: its status is ours. It has said itself why, where it did.
    pub(crate) fn of_command(status: u8) -> Self {
        let mut failure = Self::new(Code::Other, "").exiting(status);
        failure.whose = Whose::Command;
        failure
    }

    /// A signal has ended this process, which had something to put in order first.
    pub(crate) fn by_signal(signal: u8) -> Self {
        Self::of_command(128_u8.saturating_add(signal))
    }

    /// The process exits with this status, whatever failed.
    pub(crate) fn exiting(mut self, status: u8) -> Self {
        self.exit = Some(status);
        self
    }

    /// It is about this peer.
    pub(crate) fn about(mut self, peer: PeerId) -> Self {
        self.peer = Some(peer);
        self
    }

    /// It is the command of the other end that failed, and not cepa.
    pub(crate) fn is_of_command(&self) -> bool {
        self.whose == Whose::Command
    }

    /// Whether it may, where more is known than the code tells.
    pub(crate) fn passing(mut self, is_transient: bool) -> Self {
        self.is_transient = is_transient;
        self
    }

    /// Whether the same may work later, with nothing changed here.
    pub(crate) fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// Whether the peer, which wants us, had no room.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Without the advice to do what is done anyway.
    pub(crate) fn while_reconnecting(mut self) -> Self {
        self.advice = self.advice.filter(|advice| !advice.is_to_reconnect());
        self
    }

    /// With the option that makes a new session, where that would have helped and nothing else is advised.
    pub(crate) fn with_reconnect(mut self) -> Self {
        if self.is_transient {
            self.advice = self.advice.or(Some(Advice::Reconnect));
        }
        self
    }

    /// With the option that keeps a session, where that would have helped.
    pub(crate) fn with_durable(self) -> Self {
        self.advising(Advice::ConnectAgainDurably)
    }

    /// For a program that is never run again by itself; `durably`: its session would have outlived the connection, had it been asked to.
    pub(crate) fn running_again(self, durably: bool) -> Self {
        self.advising(if durably {
            Advice::RunAgainDurably
        } else {
            Advice::RunAgain
        })
    }

    /// For a copy, which goes on from what is there.
    pub(crate) fn copying_again(self) -> Self {
        self.advising(Advice::CopyAgain)
    }

    /// A console is kept at the peer, whatever becomes of the session.
    pub(crate) fn attaching_again(self) -> Self {
        self.advising(Advice::AttachAgain)
    }

    /// With this advice in place of that to connect again.
    fn advising(mut self, other: Advice) -> Self {
        self.advice = self.advice.map(|advice| match advice {
            Advice::ConnectAgainAfterCut => other,
            advice => advice,
        });
        self
    }

    /// Adds what is only known further out: the service, the child's last words, the command to run.
    pub(crate) fn with(mut self, more: impl fmt::Display) -> Self {
        let between = if self.message.ends_with(['?', '.', '!']) {
            ""
        } else {
            ";"
        };
        let _ = write!(self.message, "{between} {more}");
        self
    }

    /// With what the peer's owner has to add.
    pub(crate) fn asking_to_allow(self, own: PeerId) -> Self {
        Self {
            advice: Some(Advice::AskToAllow(Some(own))),
            ..self
        }
    }

    /// With what the owner of a service has to add for our sealed messages.
    pub(crate) fn asking_to_take_sealed(self, own: PeerId) -> Self {
        Self {
            advice: Some(Advice::AskToTakeSealed(own)),
            ..self
        }
    }

    /// A status of its own for what is cepa's failure and not that of a command.
    pub(crate) fn with_error_status(self, status: Option<u8>) -> Self {
        match status {
            Some(status) if !self.is_of_command() => self.exiting(status),
            _ => self,
        }
    }

    /// What the process exits with.
    pub(crate) fn status(&self) -> u8 {
        self.exit.unwrap_or(self.code as u8)
    }

    /// Prints `cepa: …` on standard error and gives the code for the process.
    pub(crate) fn report(&self) -> u8 {
        if !self.is_of_command() {
            let mut line = Line::from(format_args!("cepa: {self}")).error(self.status());
            if let Some(peer) = self.peer {
                line = line.with("peer", peer);
            }
            say(line.bare());
        }
        self.status()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// Text for standard output. The reader may have left already (`cepa explain … | head -0`), which
/// ends the command quietly; a full disk does not.
///
/// Lines that hold something foreign are cleaned.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write_out(&safe(text)).map(drop)
}

/// The same in place of all that stands on the terminal; whether somebody still sees it.
pub(crate) fn print_screen(text: &str) -> Result<bool, Failure> {
    // Home, then erase to the end (ECMA-48, CUP and ED): a line that stays as it was does not flicker.
    let lines = safe(text).replace('\n', "\x1b[K\n");
    write_out(&format!("\x1b[H{lines}\x1b[J"))
}

fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |l| (l, "\n"));
        // As it is, with the spaces at its end, if it may stay.
        if line.chars().all(is_printable) {
            safe.push_str(line);
        } else {
            safe.push_str(&clean(line, usize::MAX));
        }
        safe.push_str(end);
    }
    safe
}

/// As [`print`], for lines of the tool's own that go on and on; whether anybody still reads them.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    write_out(&safe_json(text))
}

/// Text that is of use to who reads it alone: where nobody does, that is an error.
pub(crate) fn hand_over(text: &str) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let nowhere = |why: &str| {
        let why = format!(
            "nobody can read the code: {why}; send standard output to a terminal, file or pipe"
        );
        Failure::new(Code::Local, why)
    };
    let of = |path| std::fs::metadata(path).map(|it| it.rdev());
    // A closed descriptor is opened on it when the process starts.
    if let (Ok(out), Ok(null)) = (of("/dev/stdout"), of("/dev/null"))
        && out == null
        && null != 0
    {
        return Err(nowhere("standard output is closed, or /dev/null"));
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| nowhere(&format!("cannot write to standard output: {e}")))
}

/// Whether somebody reads it.
fn write_out(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Other,
            format!("cannot write to standard output: {e}"),
        )),
        result => Ok(result.is_ok()),
    }
}

/// JSON for standard output. What a terminal would obey stands in its strings as an escape, of which there are none
/// outside of them but line ends.
pub(crate) fn print_json(json: &str) -> Result<(), Failure> {
    write_out(&safe_json(json)).map(drop)
}

/// The code of a failure to dial or to listen.
fn transport_code(action: Action, endpoint: &str, kind: TransportErrorKind) -> Code {
    // A command that was to be served is at fault itself; what to listen on otherwise is a question of this machine.
    let is_command = endpoint
        .parse::<Endpoint>()
        .is_ok_and(|at| matches!(at.target(), Target::Exec { .. } | Target::Ssh { .. }));
    match kind {
        TransportErrorKind::Lost => Code::Lost,
        _ if action == Action::Listen && !is_command => Code::Local,
        // A taken port and a forbidden device are put right on this machine.
        TransportErrorKind::PermissionDenied | TransportErrorKind::AddressInUse => Code::Local,
        TransportErrorKind::Invalid => Code::Usage,
        _ => Code::Connect,
    }
}

impl From<TransportError> for Failure {
    fn from(e: TransportError) -> Self {
        let code = transport_code(e.action(), e.endpoint(), e.kind());
        Self::of(code, &e).passing(e.kind().is_transient())
    }
}

impl From<ListenError> for Failure {
    fn from(e: ListenError) -> Self {
        match e {
            ListenError::Transport(e) => e.into(),
            e => Self::of(Code::Other, &e),
        }
    }
}

impl From<PeerAddrError> for Failure {
    fn from(e: PeerAddrError) -> Self {
        Self::of(Code::Usage, &e)
    }
}

impl From<IdentityError> for Failure {
    fn from(e: IdentityError) -> Self {
        Self::of(Code::Local, &e)
    }
}

impl From<TlsConfigError> for Failure {
    fn from(e: TlsConfigError) -> Self {
        Self::of(Code::Local, &e)
    }
}

/// Which code a refusal of *ours* has: a peer nobody named is a question, any other is an answer.
fn refusal_code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Unknown { .. } => Code::UnknownPeer,
        _ => Code::Identity,
    }
}

impl From<TlsError> for Failure {
    fn from(e: TlsError) -> Self {
        let code = match e.root() {
            TlsError::Refused(refusal) => refusal_code(refusal),
            TlsError::NotHere { .. } => Code::Identity,
            TlsError::RefusedByPeer { .. } => Code::Refused,
            TlsError::Truncated { .. }
            | TlsError::GivenUp
            | TlsError::TimedOut
            | TlsError::Io(_) => Code::Lost,
            TlsError::Local { .. } => Code::Local,
            _ => Code::Connect,
        };
        Self::of(code, &e)
    }
}

/// The code of a failed connection.
pub(crate) fn connect_code(e: &ConnectError) -> Code {
    match e {
        ConnectError::Transport(e) => Failure::from(e.clone()).code,
        ConnectError::Tls(e) => Failure::from(e.clone()).code,
        ConnectError::Config(_) => Code::Local,
        ConnectError::Binding(BindingError::Mismatch) => Code::Identity,
        ConnectError::Binding(_) => Code::Connect,
        ConnectError::Layers { .. } => Code::Usage,
        ConnectError::GoneAway { .. } => Code::Refused,
        _ => Code::Lost,
    }
}

impl From<ConnectError> for Failure {
    fn from(e: ConnectError) -> Self {
        let full =
            matches!(&e, ConnectError::GoneAway { code } if matches!(code, GoAwayCode::Limit(_)));
        let failure = Self::of(connect_code(&e), &e).passing(e.is_transient());
        Self { full, ..failure }
    }
}

impl From<OpenError> for Failure {
    fn from(e: OpenError) -> Self {
        let (e, not_now) = match e {
            OpenError::Refused { service, reason } => {
                let for_now = reason.strip_prefix(NOT_NOW).map(str::to_owned);
                let not_now = for_now.is_some();
                let reason = for_now.unwrap_or(reason);
                (OpenError::Refused { service, reason }, not_now)
            }
            e => (e, false),
        };
        let code = match &e {
            OpenError::Refused { .. }
            | OpenError::InnerTlsRequired { .. }
            | OpenError::NoInnerTls { .. }
            | OpenError::InnerTlsEndsBeyond { .. }
            | OpenError::InnerTlsEndsHere { .. }
            | OpenError::DialInstead { .. }
            | OpenError::Dropped { .. } => Code::Refused,
            OpenError::InnerBinding { .. } => Code::Identity,
            OpenError::TimedOut { .. } | OpenError::Session(_) | OpenError::Mux(_) => Code::Lost,
            OpenError::Name { .. } => Code::Usage,
            OpenError::Tls(tls) => return tls.clone().into(),
            _ => Code::Other,
        };
        let is_transient = not_now || e.is_transient();
        let failure = match e {
            OpenError::Session(end) => Self::from(end),
            e => Self::of(code, &e),
        };
        failure.passing(is_transient)
    }
}

/// What a task has given. One that panicked is a failure of the command, not a clean end.
pub(crate) fn joined<E>(task: Result<Result<(), E>, JoinError>) -> Result<Result<(), E>, Failure> {
    match task {
        Ok(given) => Ok(given),
        Err(e) if e.is_panic() => Err(Failure::new(
            Code::Other,
            "a part of cepa has panicked; please report the lines above",
        )),
        // It was not wanted any more.
        Err(_) => Ok(Ok(())),
    }
}

impl From<SessionEnd> for Failure {
    fn from(e: SessionEnd) -> Self {
        if is_cut(&e) {
            return Self {
                advice: Some(Advice::ConnectAgainAfterCut),
                ..Self::new(Code::Lost, CUT)
            };
        }
        if let SessionEnd::GivenUp(lost) = &e {
            return Self {
                advice: Some(Advice::ConnectAgainAfterCut),
                ..Self::new(Code::Lost, given_up(lost))
            };
        }
        Self::of(Code::Lost, &e)
    }
}

/// Why a session that outlives its connection is lost all the same.
fn given_up(lost: &SessionLost) -> String {
    match lost {
        SessionLost::Refused(Resumption::Unknown | Resumption::Over) => format!(
            "{CUT}, and the peer no longer knows the session: it was restarted, or gave the session up"
        ),
        SessionLost::Refused(Resumption::NoRoom) => {
            format!("{CUT}, and the peer gave the session up to make room for others")
        }
        // One of the two ends had nobody who could come back.
        SessionLost::Expired { after } if after.is_zero() => CUT.to_owned(),
        SessionLost::Expired { after } => {
            format!("{CUT}: no path for {}", in_words(*after))
        }
        lost => format!("the session is lost: {lost}"),
    }
}

const CUT: &str = "the connection to the peer was cut";

/// Whether the connection was cut, and there is no more to say about it: by which layer it was seen helps nobody. What a line
/// says of itself does ("the serial line hung up").
fn is_cut(end: &SessionEnd) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let error: &io::Error = match end {
        SessionEnd::Lost(MuxError::Eof) => return true,
        SessionEnd::Lost(MuxError::Io(e)) => e,
        SessionEnd::Tls(e) => match e.root() {
            TlsError::Truncated { .. } => return true,
            TlsError::Io(e) => e,
            _ => return false,
        },
        _ => return false,
    };
    let cut = matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    );
    cut && of_system(error)
}

/// Whether it is the operating system that says so.
fn of_system(error: &io::Error) -> bool {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = at {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.raw_os_error().is_some()) {
            return true;
        }
        // What an io::Error keeps is not its source, which is the source of that.
        let kept = io.and_then(io::Error::get_ref);
        at = kept.map_or_else(|| error.source(), |kept| Some(kept));
    }
    false
}

/// What TLS said in a failed connection, if it was TLS that failed.
pub(crate) fn tls(e: &ConnectError) -> Option<&TlsError> {
    match e {
        ConnectError::Tls(e) => Some(e.root()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_our_id_says_what_its_owner_has_to_add() {
        let own = PeerId::from_bytes([7; 32]);
        let refused = Failure::from(TlsError::RefusedByPeer { alert: 46 }).asking_to_allow(own);
        assert_eq!(
            refused.to_string(),
            format!(
                "the peer does not allow this machine (alert 46, certificate_unknown); \
                 ask its owner to add: --allow {own}"
            )
        );
    }

    #[test]
    fn what_to_listen_at_is_a_question_of_this_machine() {
        use TransportErrorKind::{AddressInUse, Invalid, Lost, NotFound, PermissionDenied};
        for (action, at, kind, code) in [
            (Action::Listen, "tcp:127.0.0.1:1", AddressInUse, Code::Local),
            (Action::Listen, "tcp:192.0.2.1:1", Invalid, Code::Local),
            (Action::Listen, "unix:/none/x", NotFound, Code::Local),
            (Action::Listen, "serial:/dev/none", NotFound, Code::Local),
            (Action::Listen, "pty:/none/x", NotFound, Code::Local),
            (Action::Listen, "serial:/dev/none", Lost, Code::Lost),
            (Action::Listen, "exec:none", NotFound, Code::Connect),
            (Action::Listen, "ssh:none", Invalid, Code::Usage),
            (Action::Dial, "serial:/dev/none", NotFound, Code::Connect),
            (
                Action::Dial,
                "serial:/dev/none",
                PermissionDenied,
                Code::Local,
            ),
            (Action::Dial, "pty:/none/x", NotFound, Code::Connect),
            (Action::Dial, "exec:none", NotFound, Code::Connect),
            (Action::Dial, "tcp:h:1", Invalid, Code::Usage),
            (Action::Dial, "tcp:h:1", Lost, Code::Lost),
        ] {
            let is = transport_code(action, at, kind);
            assert_eq!(is, code, "{action:?} {at} {kind:?}");
        }
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted("tcp:[::1]:7"), "'tcp:[::1]:7'");
        assert_eq!(quoted("tcp:127.0.0.1:7,a=b"), "tcp:127.0.0.1:7,a=b");
        assert_eq!(quoted("exec:sh -c 'a'"), r"'exec:sh -c '\''a'\'''");
        assert_eq!(quoted(""), "''");
    }
}
