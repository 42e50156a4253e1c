//! A command on a terminal that outlives who sits at it: a kept console.
//!
//! ```text
//!   command --> terminal --> ring, the last 64 KiB --> who is attached
//!      ^                                                     |
//!      \------------- typed <--------------------------------/
//!
//!   ATTACHED --it leaves, or its session is lost--> ALONE --nobody comes in time--> hung up
//!      ^  \---------another one with the same key: takes over                |
//!      \----------------------------------------------attach---------------/
//! ```
//!
//! The ring is all there is between the command and who is attached, who has a place in it. While somebody is there and has a
//! connection, the command waits for them as at any console, and they miss nothing. Else it goes on, and only the last is kept.
//!
//! Whoever attaches gets what is kept, as far as a terminal only draws it (`escapes.rs`), and the command a window of another size
//! for a moment: programs that fill a screen draw it anew then, though the size is the same in the end.
//!
//! How the command ended is told once: it counts as told when the other end has closed its substream behind that.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::mux::Held;
use cepa::node::Share;
use cepa::transports::{Endpoint, Stream, Terminal, TransportError, WindowSize, dial_for_peer};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Sleep, sleep, timeout};

use super::escapes::Escapes;
use super::presence::{Presence, Why};
use super::ring::{RING, Ring};
use super::seat::{Left, PIECE, Seat};
use super::served;
use super::watched::{Asked, Source};
use super::wire::{Found, Message, Status, in_seconds};
use crate::child::{self, Watched};
use crate::keep::in_words;
use crate::limits::{DRAIN, HANG_UP};
use crate::log::say_of;
use crate::say::Line;
use crate::splice::Leaves as _;

/// Turns before the task lets others run.
const TURNS: u32 = 16;

/// Watchers that whoever attaches next is told of.
const UNTOLD: usize = 4;

/// How long a window has another size. Long enough for a program to see it, and short for who looks on.
const NUDGE: Duration = Duration::from_millis(100);

/// Where whoever attaches comes in; the console is found there until this is dropped.
pub(crate) struct Door {
    pub(crate) seats: mpsc::Receiver<Seat>,
    /// What there was under its name when it was begun.
    pub(crate) found: Found,
    /// What whoever comes back finds in place of it, where that is to be said.
    pub(crate) gone: Option<Found>,
    /// Whether somebody sits there.
    pub(crate) presence: Presence,
    /// Takes it off the list, where that is remembered.
    pub(crate) close: Option<Box<dyn FnOnce(Option<Found>) + Send>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(close) = self.close.take() {
            close(self.gone);
        }
        self.seats.close();
        while let Ok(seat) = self.seats.try_recv() {
            seat.late();
        }
    }
}

/// What a console is called, and for whom it is.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) peer: PeerId,
    pub(crate) service: String,
    pub(crate) name: String,
}

impl Label {
    fn say(&self, what: impl std::fmt::Display) {
        let (name, service, short) = (&self.name, &self.service, self.peer.short());
        let line = Line::from(format!("console {name} of {short}… at {service}: {what}"));
        say_of(self.peer, line.with("service", service));
    }
}

/// A command that is kept, and who is attached.
pub(crate) struct Kept {
    // Dropped before the stream: a command is killed before its terminal closes.
    child: Option<Watched>,
    /// None once it has ended.
    stream: Option<Stream>,
    exited: BoxFuture<'static, child::End>,
    exit: Option<child::End>,
    /// What it wrote must have come by then, once it has exited.
    drained: Option<Pin<Box<Sleep>>>,
    output_ended: bool,
    ring: Ring,
    /// Of all output.
    modes: Escapes,
    typed: Vec<u8>,
    seat: Option<Seat>,
    door: Box<Door>,
    source: Source,
    /// Who watches, for whoever attaches next.
    untold: Vec<String>,
    /// How long it is kept while nobody is attached, and since when that is.
    keep: Duration,
    until: Option<Pin<Box<Sleep>>>,
    nudge: Option<Pin<Box<Sleep>>>,
    label: Label,
    share: Option<Share>,
    _memory: Held,
}

/// Why a console is no more.
enum Over {
    /// How it ended is known where that was wanted.
    Told,
    /// Nobody came back.
    Expired,
    /// Nobody can come back.
    Unlisted(Why),
    /// The server ends.
    Stopped,
}

/// What a console takes of its peer's part.
pub(crate) struct Takes {
    pub(crate) share: Share,
    pub(crate) memory: Held,
}

impl Kept {
    /// Starts the command.
    pub(crate) async fn start(
        to: &Endpoint,
        terminal: &Terminal,
        label: Label,
        takes: Takes,
        (door, source): (Box<Door>, Source),
        keep: Duration,
    ) -> Result<Self, TransportError> {
        let mut stream = dial_for_peer(to, terminal).await?;
        let child = stream.take_child().map(|child| {
            // Its terminal gets all it says.
            Watched::serving(child, label.service.clone(), label.peer, Box::new(|_| None))
        });
        let exited: BoxFuture<'static, child::End> = match &child {
            Some(child) => Box::pin(child.end()),
            None => Box::pin(std::future::pending()),
        };
        Ok(Self {
            child,
            stream: Some(stream),
            exited,
            exit: None,
            drained: None,
            output_ended: false,
            ring: Ring::default(),
            modes: Escapes::default(),
            typed: Vec::new(),
            seat: None,
            door,
            source,
            untold: Vec::new(),
            keep,
            until: None,
            nudge: None,
            label,
            share: Some(takes.share),
            _memory: takes.memory,
        })
    }

    /// Serves whoever attaches, `first` before others, until nobody can any more.
    pub(crate) async fn run(mut self, first: Seat, mut stopped: watch::Receiver<bool>) {
        self.sit_down(first, false);
        let over = tokio::select! {
            over = poll_fn(|cx| self.poll(cx)) => over,
            _ = stopped.wait_for(|stopped| *stopped) => Over::Stopped,
        };
        let Self {
            child,
            stream,
            seat,
            mut door,
            label,
            exit,
            ..
        } = self;
        door.gone = match over {
            Over::Expired => Some(Found::Expired),
            Over::Unlisted(Why::Displaced) => Some(Found::Displaced),
            Over::Unlisted(Why::Withdrawn | Why::Asked) | Over::Told | Over::Stopped => None,
        };
        // Whoever waits for the end does so to the end of this.
        let _there = door.presence.clone();
        // From here on whoever comes gets a new one.
        drop(door);
        let unlisted = match over {
            Over::Unlisted(why) => Some(why),
            _ => None,
        };
        let unread = exit.map_or_else(String::new, |end| format!("; {end}"));
        match over {
            Over::Told => {}
            Over::Expired => label.say(format_args!("nobody came back: it is ended{unread}")),
            Over::Unlisted(Why::Withdrawn) => {
                label.say(format_args!("the service is gone: it is ended{unread}"));
            }
            Over::Unlisted(Why::Asked) => {
                label.say(format_args!("its peer has asked for its end{unread}"));
            }
            Over::Unlisted(Why::Displaced) => {
                label.say(format_args!(
                    "it made room for a peer that is allowed by name: it is ended{unread}"
                ));
            }
            Over::Stopped => label.say(format_args!("ended with the server{unread}")),
        }
        match (seat, unlisted) {
            (Some(seat), Some(why)) => seat.ends(Status::Failed(why.text().to_owned())),
            (seat, _) => drop(seat),
        }
        // It hangs up.
        drop(stream);
        if let Some(child) = &child {
            let _ = timeout(HANG_UP, child.ended()).await;
        }
    }

    fn sit_down(&mut self, mut seat: Seat, again: bool) {
        if let Some(old) = self.seat.take() {
            self.label
                .say("attached again, from another connection; the earlier one ends");
            old.ends(Status::TakenOver);
        } else if again {
            self.label.say("attached again");
        }
        self.until = None;
        seat.served.outbox().push(Message::Kept {
            found: if again {
                Found::Itself
            } else {
                self.door.found
            },
            seconds: in_seconds(self.door.presence.state().there),
            keep: in_seconds(self.keep),
        });
        for line in self.untold.drain(..) {
            seat.tell(line);
        }
        seat.at = self.ring.first_line();
        seat.again_until = self.ring.total();
        seat.modes = Some(self.modes.clone());
        if self.ring.start() > 0 {
            // What switched them on is not kept.
            seat.piece = self.modes.on();
        }
        let control = self.stream.as_ref().and_then(Stream::control);
        match (control, again) {
            (Some(control), true) => {
                let size = seat.served.size();
                let other = WindowSize {
                    rows: if size.rows > 1 { size.rows - 1 } else { 2 },
                    ..size
                };
                // A terminal that cannot be told goes on as it is.
                let _ = control.resize(other);
                self.nudge = Some(Box::pin(sleep(NUDGE)));
            }
            _ => {
                if let Some(stream) = &self.stream {
                    seat.served.joined_to(stream);
                }
            }
        }
        self.door.presence.is(Some(&seat.session));
        self.seat = Some(seat);
    }

    /// Nobody is attached any more.
    fn stand_up(&mut self) {
        if let Some(seat) = self.seat.take() {
            let time = in_words(self.keep);
            self.label.say(format_args!("left; kept for {time}"));
            // Its substream is dropped.
            let _ = seat.left.send(Left::Gone);
            self.wait_for_somebody();
        }
    }

    fn wait_for_somebody(&mut self) {
        self.door.presence.is(None);
        self.until = Some(Box::pin(sleep(self.keep)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        for _ in 0..TURNS {
            let mut moved = false;
            match self.door.seats.poll_recv(cx) {
                Poll::Ready(Some(seat)) => {
                    self.sit_down(seat, true);
                    moved = true;
                }
                // Whoever is attached could not come back, and may be somebody who may not be here any more.
                Poll::Ready(None) => {
                    return Poll::Ready(Over::Unlisted(self.door.presence.why()));
                }
                _ => {}
            }
            if let Some(nudge) = &mut self.nudge
                && nudge.as_mut().poll(cx).is_ready()
            {
                self.nudge = None;
                if let (Some(seat), Some(stream)) = (&self.seat, &self.stream) {
                    seat.served.joined_to(stream);
                }
            }
            self.poll_watched(cx);
            moved |= self.poll_output(cx);
            moved |= self.poll_exit(cx);
            match self.poll_seat(cx) {
                Ok(Poll::Ready(())) => return Poll::Ready(Over::Told),
                Ok(Poll::Pending) => {}
                Err(_) => {
                    self.stand_up();
                    moved = true;
                }
            }
            moved |= self.poll_typed(cx);
            if let Some(until) = &mut self.until
                && until.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Over::Expired);
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// How much may be read of the terminal now. Who is there gets all of it; who is not is not waited for.
    fn room(&self) -> usize {
        match &self.seat {
            Some(seat) if seat.is_there() => {
                let behind = self.ring.total().saturating_sub(seat.at);
                RING.saturating_sub(usize::try_from(behind).unwrap_or(RING))
                    .min(PIECE)
            }
            _ => PIECE,
        }
    }

    /// Does what watchers want.
    fn poll_watched(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(asked) = self.source.poll_asked(cx) {
            match (asked, &mut self.seat) {
                (Asked::History, _) => self.source.history(&self.ring, &self.modes),
                (Asked::Tell(line), Some(seat)) => seat.tell(line),
                (Asked::Tell(line), None) if self.untold.len() < UNTOLD => self.untold.push(line),
                (Asked::Tell(_), None) => {}
            }
        }
    }

    /// Reads the terminal; whether there was something.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> bool {
        let room = self.room();
        let Some(stream) = self.stream.as_mut().filter(|_| !self.output_ended) else {
            return false;
        };
        if room == 0 {
            return false;
        }
        let mut space = [0; PIECE];
        let mut space = ReadBuf::new(space.get_mut(..room).unwrap_or_default());
        match Pin::new(stream).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) if !space.filled().is_empty() => {
                self.ring.push(space.filled());
                self.modes.follow(space.filled());
                self.source.push(space.filled());
                true
            }
            Poll::Ready(_) => {
                self.output_ended = true;
                true
            }
            Poll::Pending => {
                let drained = self.drained.as_mut();
                // Others may hold the terminal for ever.
                self.output_ended = drained.is_some_and(|at| at.as_mut().poll(cx).is_ready());
                self.output_ended
            }
        }
    }

    /// Notices that the command has exited; whether something has changed.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> bool {
        if self.exit.is_none() {
            let Poll::Ready(end) = self.exited.as_mut().poll(cx) else {
                return false;
            };
            if end.failed && self.seat.is_some() {
                self.label.say(&end);
            }
            self.exit = Some(end);
            self.drained = Some(Box::pin(sleep(DRAIN)));
            return true;
        }
        if !self.output_ended || self.stream.is_none() {
            return false;
        }
        // What it took is free; what it said last is kept for as long as it itself would be.
        (self.child, self.stream, self.share) = (None, None, None);
        if self.seat.is_none() {
            if let Some(end) = &self.exit {
                self.label
                    .say(format_args!("{end}; the next attach is told"));
            }
            self.wait_for_somebody();
        }
        true
    }

    /// Sends who is attached what there is. Ready when they know how it ended; `Err` when they are gone.
    fn poll_seat(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, io::Error> {
        let Some(seat) = &mut self.seat else {
            return Ok(Poll::Pending);
        };
        // Its session may end as soon as it knows how the command ended: then it has closed its substream before.
        let told = match (&self.exit, seat.reported) {
            (Some(end), true) => seat.poll_tell(cx, &served::ended(end.exit)),
            _ => Poll::Pending,
        };
        if let Poll::Ready(told) = told {
            return told.map(Poll::Ready);
        }
        if seat.poll_lost(cx) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if let Poll::Ready(e) = seat.poll_show(cx, &self.ring, &self.modes) {
            return Err(e);
        }
        let over = self.exit.as_ref().filter(|_| self.stream.is_none());
        let Some(end) = over.filter(|_| seat.has_all(&self.ring)) else {
            return Ok(Poll::Pending);
        };
        match seat.poll_tell(cx, &served::ended(end.exit)) {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(e)) => Err(e),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Passes on what is typed; whether there was something. Who has no more to type has left.
    fn poll_typed(&mut self, cx: &mut Context<'_>) -> bool {
        if let (Some(stream), false) = (&mut self.stream, self.typed.is_empty()) {
            match Pin::new(stream).poll_write(cx, &self.typed) {
                Poll::Ready(Ok(n)) => {
                    self.typed.drain(..n);
                    return true;
                }
                // Nobody reads the terminal any more.
                Poll::Ready(Err(_)) => self.typed.clear(),
                Poll::Pending => {}
            }
        }
        let Some(seat) = self.seat.as_mut().filter(|seat| !seat.reported) else {
            return false;
        };
        if !self.typed.is_empty() {
            // It is not read meanwhile.
            if seat.served.far.poll_left(cx, false).is_ready() {
                self.stand_up();
                return true;
            }
            return false;
        }
        let mut space = [0; PIECE];
        let mut space = ReadBuf::new(&mut space);
        match Pin::new(&mut seat.served.far).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) if !space.filled().is_empty() => {
                if self.stream.is_some() {
                    self.typed.extend(space.filled());
                }
                true
            }
            Poll::Ready(_) => {
                self.stand_up();
                true
            }
            Poll::Pending => false,
        }
    }
}
