//! `cepa console`: this terminal at a service of a peer.
//!
//! ```text
//!   keyboard --> keys --> typed, up to 64 KiB --> messages --> substream
//!   screen   <------------------------------------ data   <-- substream
//!   window changes, ~B --> outbox --> messages
//! ```
//!
//! The terminal is raw while the service is joined, and only then: questions about a new peer and
//! passphrases come before. The three ways run side by side, so that a service which takes no input
//! can still be left, and one that says much can still be typed at.
//!
//! With `--reconnect` a lost session is made again, and the service opened anew in it; the terminal stays raw
//! meanwhile, and only the escapes are listened to.
//!
//! With `--attach` the service is one that outlives this program, and is found again by the name of that console. What it has done to
//! the terminal (another screen, no cursor, the mouse) is taken back when somebody leaves it.
//!
//! A server that does not know consoles (a program of one's own on the library) gets the plain service:
//! bytes pass, window sizes do not.

mod chatter;
mod escapes;
pub(crate) mod framed;
pub(crate) mod keeper;
pub(crate) mod kept;
mod keys;
mod log;
mod own;
mod presence;
mod raw;
pub(crate) mod ring;
pub(crate) mod seat;
pub(crate) mod served;
mod statistics;
mod typed;
pub(crate) mod wire;
mod words;

use std::fmt::Display;
use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::link::StatsHandle;
use cepa::mux::GoAwayCode;
use cepa::session::{PathChange, Session, SessionEnd};
use cepa::transports::{self, Endpoint, Stream};
use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::args;
use crate::connect::{reset_by_peer, service};
use crate::connection::{Connected, OnLine};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::keep;
use crate::pausable::Pausable;
use crate::reconnect::Reconnect;
use crate::say::Line;
use crate::service_end::{self, Becomes, Ending, How, Opened, becomes};
use crate::short_code;
use crate::signal::Signals;
use crate::stderr;
use chatter::Chatter;
use escapes::Escapes;
use framed::Outbox;
use keys::{Key, Keys};
use log::Log;
use raw::Raw;
use statistics::Counts;
use typed::{Typed, send};
use wire::{Message, Status};

pub(crate) async fn run(mut args: args::Console) -> Result<(), Failure> {
    let identity = id::load(&args.dialling.identity)?;
    let service = service(&args.address, &args.service)?;
    if args.attach.is_some() && service.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "--attach needs the name of the service; write it behind the address",
        ));
    }
    let wants = match &args.attach {
        _ if args.attached => Some(own::Wants::List),
        Some(name) if args.end => Some(own::Wants::End(name)),
        _ => None,
    };
    if let Some(wants) = wants {
        return own::run(&args, &identity, &service, wants).await;
    }
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::new(
            Code::Usage,
            "a console needs a terminal as standard input and output; for pipes and files, use `cepa connect`",
        ));
    }
    let log = Log::open(&args, &service)?;
    short_code::redeem(&mut args.address, &args.dialling.trust, &identity).await?;
    let chatter = Chatter::start();
    let on_line = OnLine {
        chatter: chatter.sink(),
        stats: StatsHandle::default(),
    };
    let mut again = Reconnect::new(
        &args.address,
        &args.dialling,
        &identity,
        Some(on_line.clone()),
    )
    .keeping(args.dialling.durable.keep(true))
    .going_on_without_us(args.attach.is_some())
    .notifying(|peer, line| raw::print_line(Line::from(line).with("peer", peer)));
    let mut connection = again.first(args.reconnect).await?;
    if args.dialling.durable.is_asked_for() {
        keep::warn_if_not(&connection.session);
    }
    let service = connection.service(&service).await?;
    let peer = connection.session.peer().id();
    let counts = Counts::new(on_line.stats);
    let attach = args.attach.as_deref();
    let seat = Seat::new(&service, peer, attach, args.escape.byte(), log, counts);
    let result = seat
        .attached(&mut connection, &mut again, args.reconnect, &chatter)
        .await;
    if args.attach.is_some() {
        // What runs on was told, and is kept in any case.
        connection.close_silently().await;
        return result.map_err(Failure::attaching_again);
    }
    connection.close().await;
    result
}

/// How it came to an end.
enum Outcome {
    /// `~.`, the end of the keyboard, or the signal of this number.
    Left(Option<u8>),
    /// The service's output; what that becomes, and why its session is lost.
    Ended(io::Result<()>, Becomes, Option<Failure>),
    /// The session was lost and is not made again.
    Failed(Failure),
}

/// Who sits here, and where.
struct Seat<'a> {
    service: &'a str,
    peer: PeerId,
    /// What the console is called at the server, where that keeps it.
    attach: Option<&'a str>,
    escape: Option<u8>,
    typed: Typed,
    /// Of the substream that is joined now.
    outbox: Mutex<Outbox>,
    /// How the service said that it ended, and whether it was to.
    ending: Ending,
    says: AtomicBool,
    /// Who bears with this program while it is suspended; nobody while the session is made again.
    at: Mutex<Option<Pausable>>,
    /// Output of a service.
    came: AtomicBool,
    /// What that has done to the terminal.
    modes: Mutex<Escapes>,
    log: Log,
    counts: Counts,
}

impl<'a> Seat<'a> {
    fn new(
        service: &'a str,
        peer: PeerId,
        attach: Option<&'a str>,
        escape: Option<u8>,
        log: Log,
        counts: Counts,
    ) -> Self {
        Self {
            service,
            peer,
            attach,
            escape,
            typed: Typed::default(),
            outbox: Mutex::default(),
            ending: Ending::default(),
            says: AtomicBool::new(false),
            at: Mutex::default(),
            came: AtomicBool::new(false),
            modes: Mutex::default(),
            log,
            counts,
        }
    }

    /// A line of the tool's own, with what it is about.
    fn line(&self, text: impl Display) -> Line {
        let line = Line::from(text).with("peer", self.peer);
        if self.service.is_empty() {
            line
        } else {
            line.with("service", self.service)
        }
    }

    async fn attached(
        &self,
        connection: &mut Connected,
        again: &mut Reconnect<'_>,
        reconnect: bool,
        chatter: &Chatter,
    ) -> Result<(), Failure> {
        let mut far = self.open(connection).await?;
        let stdio: Endpoint = "stdio:"
            .parse()
            .map_err(|e| Failure::new(Code::Other, format!("{e}")))?;
        let raw = Raw::terminal()
            .map_err(|e| Failure::new(Code::Other, format!("cannot set up the terminal: {e}")))?;
        let (keyboard, mut screen) = split(transports::dial(&stdio).await?);
        let name = match self.service {
            "" => "the service",
            service => service,
        };
        let to_leave = self.escape.map_or_else(String::new, |escape| {
            let leaves = if self.attach.is_some() {
                "leave it running"
            } else {
                "leave"
            };
            format!(" (Enter, then {}. to {leaves})", crate::words::key(escape))
        });
        let short = self.peer.short();
        say(self.line(format_args!("connected to {name} at {short}…{to_leave}")));
        // Before the terminal is raw: who is killed by a signal leaves it so.
        let signals = Signals::watch();
        let outcome = {
            let _raw = raw.enter().map_err(|e| {
                Failure::new(Code::Other, format!("cannot set up the terminal: {e}"))
            })?;
            chatter.raw(true);
            let mut leaving = pin!(self.leaving(keyboard, &raw, signals));
            loop {
                let joined = self.joined(far, &mut screen, &connection.session);
                let outcome = tokio::select! {
                    ended = joined => Ok(ended),
                    signal = &mut leaving => Err(signal),
                };
                let ended = match outcome {
                    Ok(ended) => ended,
                    Err(signal) => break Outcome::Left(signal),
                };
                let lost = match &ended {
                    Err(e) if !reset_by_peer(e) => connection.lost().await,
                    _ => None,
                };
                let how = self.how(&ended, lost.is_some());
                let why = match (becomes(&how, reconnect), lost) {
                    (Becomes::Reconnect, Some(why)) => why,
                    (becomes, lost) => break Outcome::Ended(ended, becomes, lost),
                };
                // What is typed now is not meant for a service that knows nothing of what was before.
                self.typed.away(true);
                *lock(&self.at) = None;
                let back = tokio::select! {
                    back = self.back(connection, again, why) => back,
                    signal = &mut leaving => break Outcome::Left(signal),
                };
                match back {
                    Ok(fresh) => far = fresh,
                    Err(failure) => break Outcome::Failed(failure),
                }
                self.typed.away(false);
                if self.attach.is_none() {
                    raw::print_line(self.line(format_args!("{name} was opened again")));
                }
            }
        };
        if self.attach.is_some() {
            // Its program runs on, and does not do it.
            let back = lock(&self.modes).off();
            let _ = screen.write_all(&back).await;
            let _ = screen.flush().await;
        }
        chatter.raw(false);
        if !matches!(&outcome, Outcome::Ended(_, Becomes::Success, _)) {
            // The cursor stands behind what the service said last.
            raw::new_line();
        }
        if let Outcome::Left(_) = outcome {
            let left = words::left(name, self.attach.is_some(), self.ending.keep());
            say(self.line(left));
        }
        let (ended, becomes, lost) = match outcome {
            Outcome::Failed(failure) => return Err(failure),
            Outcome::Left(None) => return Ok(()),
            Outcome::Left(Some(signal)) => return Err(Failure::by_signal(signal)),
            Outcome::Ended(ended, becomes, lost) => (ended, becomes, lost),
        };
        match becomes {
            Becomes::Success | Becomes::Reconnect => Ok(()),
            // It was never opened: nothing has come of it.
            Becomes::Status(Status::Failed(why))
                if !self.came.load(Ordering::Relaxed)
                    && Status::Failed(why.clone()) != service_end::broke_off() =>
            {
                Err(Failure::new(Code::Refused, why))
            }
            Becomes::Status(status) => {
                if let Status::Exited(code) = status {
                    say(self.line(&status).error(code));
                }
                service_end::ended(status)
            }
            Becomes::Failure(_) if self.attach.is_some() && is_stopped(&connection.session) => {
                let why = "the server was stopped, and the console ended with it";
                Err(Failure::new(Code::Lost, why).about(self.peer))
            }
            Becomes::Failure(code) => Err(lost.unwrap_or_else(|| {
                let message = match ended {
                    Ok(()) => "the service ended without a status; see the server's log".to_owned(),
                    Err(e) => format!("the service ended abnormally: {e}"),
                };
                Failure::new(code, message)
            })),
        }
    }

    /// How the service ended, by the end of its output and what it has said.
    fn how(&self, ended: &io::Result<()>, lost: bool) -> How {
        match (self.ending.take(), ended) {
            (Some(status), _) => How::Said(status),
            (None, Ok(())) if self.says.load(Ordering::Relaxed) => How::Unsaid,
            (None, Ok(())) => How::Ended,
            (None, Err(_)) if lost => How::Lost,
            (None, Err(_)) => How::Reset,
        }
    }

    /// Another session, and the service in it.
    async fn back(
        &self,
        connection: &mut Connected,
        again: &mut Reconnect<'_>,
        mut why: Failure,
    ) -> Result<Box<dyn Far>, Failure> {
        loop {
            let notify = |line: &str| raw::print_line(self.line(line));
            *connection = again.after(connection, why, notify).await?;
            match self.open(connection).await {
                Err(failure) if failure.is_transient() => why = failure,
                result => return result,
            }
        }
    }

    async fn open(&self, connection: &Connected) -> Result<Box<dyn Far>, Failure> {
        let about = self.line("").asked_for();
        let heard = move |line: &str| raw::print_line(about.clone().saying(line));
        let session = &connection.session;
        self.says.store(false, Ordering::Relaxed);
        let far = match self.attach {
            Some(kept) => service_end::attach(session, kept, self.service, &self.ending, heard)
                .await
                .map_err(own::without_attach),
            None => service_end::open(session, wire::PREFIX, self.service, &self.ending, heard)
                .await
                .map_err(Failure::from),
        }?;
        *lock(&self.at) = Some(connection.pausable());
        match far {
            Opened::Plain(plain) => {
                raw::print_line(self.line(
                    "the server does not support consoles, so the service does not learn the window size",
                ));
                *lock(&self.outbox) = Outbox::default();
                Ok(plain)
            }
            Opened::Framed(far) => {
                self.says.store(true, Ordering::Relaxed);
                let outbox = far.outbox();
                outbox.push(Message::Terminal(raw::describe()));
                *lock(&self.outbox) = outbox;
                Ok(far)
            }
        }
    }

    /// Carries the substream to the end of its output.
    async fn joined(
        &self,
        far: Box<dyn Far>,
        screen: &mut WriteHalf<Stream>,
        session: &Session,
    ) -> io::Result<()> {
        let (output, input) = split(far);
        let mut sending = pin!(send(input, &self.typed));
        let mut reading = pin!(show(output, screen, self));
        let mut back = pin!(self.redraw_when_back(session));
        let mut takes_input = true;
        loop {
            tokio::select! {
                ended = &mut reading => return ended,
                // What it still says tells why.
                _ = &mut sending, if takes_input => takes_input = false,
                () = &mut back => {}
            }
        }
    }

    /// Has a program that fills the screen draw it anew when the connection is back, over what was said of that: its window has
    /// another size for a moment. Never ends.
    async fn redraw_when_back(&self, session: &Session) {
        let mut changes = session.path_changes();
        while let Some(change) = changes.next().await {
            if !matches!(change, PathChange::Resumed { .. }) || !lock(&self.modes).on_other_screen()
            {
                continue;
            }
            sleep(SAID).await;
            let mut other = raw::describe();
            other.size.rows = if other.size.rows > 1 {
                other.size.rows - 1
            } else {
                2
            };
            self.send_to_other_end(Message::Terminal(other));
            sleep(NUDGE).await;
            self.send_to_other_end(Message::Terminal(raw::describe()));
        }
        pending::<()>().await;
    }

    /// Minds the keyboard, the window and signals; ends when somebody wants to leave, with the signal that told so.
    async fn leaving(
        &self,
        keyboard: ReadHalf<Stream>,
        raw: &Raw,
        mut signals: Signals,
    ) -> Option<u8> {
        tokio::select! {
            () = self.type_in(keyboard, raw) => None,
            signal = signals.ended_by() => Some(signal),
            () = self.watch_window() => None,
        }
    }

    fn send_to_other_end(&self, message: Message) {
        lock(&self.outbox).push(message);
        self.typed.has_more();
    }

    /// Ends when somebody wants to leave, or the keyboard is gone.
    async fn type_in(&self, mut keyboard: ReadHalf<Stream>, raw: &Raw) {
        let mut keys = Keys::new(self.escape);
        let mut buffer = [0; 4096];
        loop {
            self.typed.wait_for_room().await;
            let n = match keyboard.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
            for key in keys.read(buffer.get(..n).unwrap_or_default()) {
                match key {
                    Key::Bytes(bytes) => {
                        let n = bytes.len() as u64;
                        self.counts.outward.fetch_add(n, Ordering::Relaxed);
                        self.typed.push(&bytes);
                    }
                    Key::Leave => return,
                    Key::Break => self.send_to_other_end(Message::Break),
                    Key::Suspend => {
                        self.suspend(raw).await;
                        self.send_to_other_end(Message::Terminal(raw::describe()));
                    }
                    Key::Log => raw::print_line(self.line(self.log.switch()).asked_for()),
                    Key::Statistics => {
                        let session = self.session();
                        Self::print(self.counts.lines(session.as_ref()).await);
                    }
                    Key::Redial => self.redial(),
                    Key::Help => {
                        let escape = self.escape.map(crate::words::key).unwrap_or_default();
                        Self::print(words::help(&escape, self.attach.is_some()));
                    }
                }
            }
        }
    }

    /// Lines of the tool's own, amid the output.
    fn print(lines: impl IntoIterator<Item = String>) {
        raw::print_lines(lines.into_iter().map(|line| Line::from(line).asked_for()));
    }

    /// Its session, unless that is made again.
    fn session(&self) -> Option<Session> {
        lock(&self.at).as_ref().map(|at| at.session().clone())
    }

    /// Dials at once, where the connection is lost and the session goes on over another one.
    fn redial(&self) {
        let session = self.session();
        let state = session.as_ref().map(|session| {
            session.reconnect_now();
            (session.outlives_connections(), session.path().is_some())
        });
        let line = words::redialled(state, self.attach.is_some());
        raw::print_line(self.line(line).asked_for());
    }

    /// Stops this process until somebody lets it go on. A peer that knows of it keeps the session; one that does not ends it
    /// soon, and that is said.
    async fn suspend(&self, raw: &Raw) {
        let at = lock(&self.at).clone();
        let paused = match at {
            Some(at) => {
                let (paused, granted) = at.pause().await;
                raw::print_line(self.line(words::suspended(granted, at.is_durable())));
                paused
            }
            None => Vec::new(),
        };
        stderr::flush(SAID);
        raw.suspend();
        // We are back, and may be missed again.
        drop(paused);
    }

    /// Tells the other end of each new size of the window. Never ends.
    async fn watch_window(&self) {
        let Ok(mut changes) = signal(SignalKind::window_change()) else {
            return pending().await;
        };
        while changes.recv().await.is_some() {
            self.send_to_other_end(Message::Terminal(raw::describe()));
        }
        pending::<()>().await;
    }
}

/// A substream with messages beside its data, or the plain one where the server knows no consoles.
trait Far: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Far for T {}

async fn show(
    mut output: ReadHalf<Box<dyn Far>>,
    screen: &mut WriteHalf<Stream>,
    seat: &Seat<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = output.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        seat.came.store(true, Ordering::Relaxed);
        let some = buffer.get(..n).unwrap_or_default();
        seat.counts.inward.fetch_add(n as u64, Ordering::Relaxed);
        if let Err(why) = seat.log.record(some).await {
            raw::print_line(seat.line(why));
        }
        lock(&seat.modes).follow(some);
        raw::shown(some);
        // A screen that is gone ends the keyboard too.
        let _ = screen.write_all(some).await;
        let _ = screen.flush().await;
    }
}

/// Whether the peer has ended the session since it stops.
fn is_stopped(session: &Session) -> bool {
    let stopped = |end| {
        matches!(
            end,
            SessionEnd::GoneAway {
                code: GoAwayCode::ShuttingDown | GoAwayCode::Normal
            } | SessionEnd::ClosedByPeer
        )
    };
    session.closed().now_or_never().is_some_and(stopped)
}

/// How long a window has another size: long enough for a program to see it.
const NUDGE: Duration = Duration::from_millis(100);

/// How long the terminal may take for what is said before.
const SAID: Duration = Duration::from_millis(200);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
