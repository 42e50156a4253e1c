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
mod keyboard;
mod keys;
mod log;
mod own;
mod presence;
mod raw;
pub(crate) mod ring;
pub(crate) mod seat;
pub(crate) mod served;
mod sitting;
mod statistics;
mod typed;
pub(crate) mod watched;
pub(crate) mod wire;
mod words;

use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cepa::link::StatsHandle;
use cepa::mux::GoAwayCode;
use cepa::session::{PathChange, Session, SessionEnd};
use cepa::transports::{self, Endpoint, Stream};
use futures::FutureExt as _;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, WriteHalf, join, split,
};
use tokio::time::sleep;

use crate::args;
use crate::behind_ssh;
use crate::chosen;
use crate::connect::{reset_by_peer, service};
use crate::connection::{Connected, OnLine};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::keep;
use crate::reconnect::Reconnect;
use crate::say::Line;
use crate::service_end::{self, Becomes, How, Opened, becomes};
use crate::short_code;
use crate::signal::Signals;
use chatter::Chatter;
use framed::Outbox;
use keyboard::SAID;
use log::Log;
use raw::Raw;
use sitting::{Seat, lock, show};
use statistics::Counts;
use typed::send;
use wire::{Message, Status};

pub(crate) async fn run(mut args: args::Console) -> Result<(), Failure> {
    let identity = id::load(&args.dialling.identity)?;
    behind_ssh::service(&mut args.address, &mut args.service)?;
    let service = service(&args.address, &args.service)?;
    if args.attach.is_some() && service.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "--attach needs the name of the service; write it behind the address",
        ));
    }
    if args.watch && service.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "--watch needs the name of the service; write it behind the address",
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
    short_code::redeem(
        &mut args.address,
        &args.dialling.trust,
        &args.code_relay,
        &identity,
    )
    .await?;
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
    .going_on_without_us(args.attach.is_some() || args.watch)
    .notifying(|peer, line| raw::print_line(Line::from(line).with("peer", peer)));
    let mut connection = again.first(args.reconnect).await?;
    if args.dialling.durable.is_asked_for() {
        keep::warn_if_not(&connection.session);
    }
    let service = chosen::service(&connection, &service).await?;
    let peer = connection.session.peer().id();
    let counts = Counts::new(on_line.stats);
    let seat = Seat::new(&service, peer, &args, log, counts);
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

/// How long a service may take until it is open or has failed, at a server that does not say so: by then it is there.
const SOON: Duration = Duration::from_secs(5);

/// How it came to an end.
enum Outcome {
    /// `~.`, the end of the keyboard, or the signal of this number.
    Left(Option<u8>),
    /// The service's output; what that becomes, and why its session is lost.
    Ended(io::Result<()>, Becomes, Option<Failure>),
    /// The session was lost and is not made again.
    Failed(Failure),
}

impl Seat<'_> {
    async fn attached(
        &self,
        connection: &mut Connected,
        again: &mut Reconnect<'_>,
        reconnect: bool,
        chatter: &Chatter,
    ) -> Result<(), Failure> {
        let far = self.open(connection).await?;
        let (mut far, is_there) = self.begun(far, &connection.session).await;
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
            let leaves = if self.keeps_running() {
                "leave it running"
            } else {
                "leave"
            };
            format!(" (Enter, then {}. to {leaves})", crate::words::key(escape))
        });
        let short = self.peer.short();
        let joined = if self.watches {
            "watching"
        } else {
            "connected to"
        };
        // Before the terminal is raw: who is killed by a signal leaves it so. And before it is said that there is something to leave.
        let signals = Signals::watch();
        if is_there {
            say(self.line(format_args!("{joined} {name} at {short}…{to_leave}")));
        }
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
                if !self.keeps_running() {
                    raw::print_line(self.line(format_args!("{name} was opened again")));
                }
            }
        };
        if self.attach.is_some() || self.watches {
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
            let left = words::left(name, self.keeps_running(), self.ending.keep());
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
            Becomes::Failure(_) if self.keeps_running() && is_stopped(&connection.session) => {
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

    /// Waits a moment for what comes first, and tells whether the service is there: a line that somebody else has is refused once it was to be
    /// opened, and nobody is connected to it.
    async fn begun(&self, mut far: Box<dyn Far>, session: &Session) -> (Box<dyn Far>, bool) {
        // A kept console tells how it is, and does that behind the first line.
        if self.attach.is_some() || self.watches {
            return (far, true);
        }
        let round_trip = session.mux_stats().round_trip.unwrap_or_default();
        let mut first = vec![0; 16 * 1024];
        let begins = async {
            // It may begin by what terminal this is.
            far.flush().await?;
            far.read(&mut first).await
        };
        let began = tokio::select! {
            began = begins => began,
            () = self.ending.opened() => return (far, true),
            () = sleep(SOON.max(round_trip * 3)) => return (far, true),
        };
        match began {
            Ok(0) => {
                let is_there = !self.ending.has_failed();
                (far, is_there)
            }
            Ok(n) => {
                first.truncate(n);
                let (output, input) = split(far);
                let output = io::Cursor::new(first).chain(output);
                (Box::new(join(output, input)), true)
            }
            Err(_) => (far, true),
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
            kept if self.watches => {
                let kept = kept.unwrap_or_default();
                service_end::watch(session, kept, self.service, &self.ending, heard)
                    .await
                    .map_err(own::without_watch)
            }
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
                *lock(&self.outbox) = outbox;
                self.send_to_other_end(Message::Terminal(raw::describe()));
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
}

/// A substream with messages beside its data, or the plain one where the server knows no consoles.
trait Far: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Far for T {}

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
