//! The IO of a durable stream, done inline in the polls of whoever uses it: no task stands between, which would cost a turn of
//! the scheduler for every message.
//!
//! ```text
//!   poll_write --> replay           poll_read <-- frames <-- path
//!   poll_flush --> one vectored write: acknowledgement, header, data from the replay --> path
//! ```
//!
//! All that comes is read into the caller's buffer, and what is no data is taken out there (`engine/incoming.rs`). Whoever reads also
//! sends what must not wait (answers, acknowledgements) and keeps the time; a read with an empty buffer does only that, for one
//! who can't take data now. Somebody has to read while others write, as the mux does, since acknowledgements come among the
//! data; behind the peer's end the writer reads them itself.

mod io_impl;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use cepa_transports::joint_waker::JointWaker;
use cepa_transports::{ByteStream, Rate, Side};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf, Take};
use tokio::task::coop::has_budget_remaining;
use tokio::time::Sleep;

use super::config::Config;
use super::engine::{Came, Engine, Over, SLICES};
use super::error::{PathLost, PathLostWhy, SessionLost};
use super::handle::Handle;
use super::paid::Memory;
use super::shared::{Letter, Shared, now};

/// What is written waits for a flush, up to so many bytes.
const UNFLUSHED: u64 = 128 << 10;

/// Reads of one poll before other tasks get a turn.
const TURN: usize = 128;

/// Makes a stream that outlives `path`, on which the hello was said; `side` is our role in its TLS.
pub(crate) fn durable<P: ByteStream>(
    path: P,
    side: Side,
    config: &Config,
) -> (Durable<P>, Handle<P>) {
    let wakers = JointWaker::new();
    let shared = Arc::new(Shared::new(wakers.joint().clone()));
    let durable = Durable {
        engine: Engine::new(side, config, now()),
        path: Some(path.take(0)),
        enduring: false,
        unflushed: false,
        broken: None,
        room_wanted: false,
        settled: false,
        cut: false,
        shared: Arc::clone(&shared),
        wakers,
        timer: None,
        armed: None,
        watched: false,
    };
    durable.publish();
    (durable, Handle::new(shared))
}

/// A byte stream that outlives the paths below it. See the head of this file and [`Handle`].
pub(crate) struct Durable<P: ByteStream> {
    engine: Engine,
    /// Its limit is set before each read, so that little has to be moved in the caller's buffer.
    path: Option<Take<P>>,
    /// The end of the path is not ours.
    enduring: bool,
    /// The path was written to and not flushed since.
    unflushed: bool,
    /// The path takes nothing any more. What the peer said before may still be read; it is lost behind that.
    broken: Option<io::Error>,
    /// A writer waits for room.
    room_wanted: bool,
    /// It is over, and everybody knows.
    settled: bool,
    /// The path ended, and we do not outlive it.
    cut: bool,
    shared: Arc<Shared<P>>,
    wakers: JointWaker,
    timer: Option<Pin<Box<Sleep>>>,
    /// What `timer` is set to.
    armed: Option<Instant>,
    /// It was polled since, and wakes whoever waits: it need not be polled for each message.
    watched: bool,
}

/// What came of reading.
enum Incoming {
    /// Data, which is in the caller's buffer.
    Data,
    /// The end, or nothing any more.
    End,
    NoPath,
}

impl<P: ByteStream> Durable<P> {
    /// The peer said in its hello for how long it keeps the session.
    pub(crate) fn peer_keeps(&mut self, park: Duration) {
        self.engine.set_peer_park(park);
        self.publish();
    }

    /// What is kept is taken from there. To be said before anything is written.
    pub(crate) fn pay_from(&mut self, memory: Box<dyn Memory>) {
        self.engine.pay_from(memory);
    }

    /// The first path carries so many bytes a second, as far as that is known.
    pub(crate) fn set_line_rate(&mut self, rate: Option<Rate>) {
        self.engine.set_line_rate(rate);
    }

    /// Reads what the handles have left.
    fn sync(&mut self) {
        if self.shared.has_letters() {
            for letter in self.shared.letters() {
                self.obey(letter);
            }
        }
        if self.engine.over().is_some() {
            self.settle();
        }
    }

    fn obey(&mut self, letter: Letter<P>) {
        match letter {
            Letter::Endure => self.enduring = true,
            Letter::Propose(number, to) => {
                // Who does not wait for it any more has left a letter that withdraws it.
                if let Some(at) = self.engine.propose(number) {
                    let _ = to.send(at);
                }
            }
            Letter::Withdraw(number) => self.engine.withdraw(number),
            Letter::Claim(theirs, to) => {
                let had_path = self.engine.has_path();
                let claimed = self.engine.claim(now(), theirs);
                if had_path && !self.engine.has_path() {
                    self.lose_path(PathLostWhy::Claimed);
                }
                let _ = to.send(claimed);
            }
            Letter::AttachProposed {
                path,
                line_rate,
                proposal,
                theirs,
                done,
            } => {
                let engine = &mut self.engine;
                let attached = engine.attach_proposed(now(), proposal, theirs, line_rate);
                self.attached(path, attached.is_ok());
                drop(done.send(attached));
            }
            Letter::AttachClaimed {
                path,
                line_rate,
                theirs,
                ours,
                done,
            } => {
                let engine = &mut self.engine;
                let attached = engine.attach_claimed(now(), theirs, ours, line_rate);
                self.attached(path, attached.is_ok());
                drop(done.send(attached));
            }
            Letter::SetPark(park) => self.engine.set_park(park),
            Letter::Probe => self.engine.probe(now()),
            Letter::GiveUp(why) => self.engine.give_up(why),
        }
    }

    fn attached(&mut self, path: P, taken: bool) {
        if !taken {
            return;
        }
        self.path = Some(path.take(0));
        self.broken = None;
        // What was said at its start may not have left.
        self.unflushed = true;
        self.enduring = true;
        // In front of its number, by which others find it: the old loss is none of the new path's.
        self.shared.publish(|status| {
            (status.lost, status.pathless_since) = (None, None);
        });
        self.publish();
        // Who waits to read waits for this one now, and so does who waits to write.
        self.wakers.joint().wake_by_ref();
    }

    /// Tells the handles how it is.
    fn publish(&self) {
        let engine = &self.engine;
        let (received, held) = (engine.received(), engine.held() as u64);
        self.shared.received.store(received, Ordering::Relaxed);
        self.shared.held.store(held, Ordering::Relaxed);
        self.shared.publish(|status| {
            status.counters = engine.counters();
            status.peer_park = engine.peer_park();
            status.park = engine.park_limit();
            status.round_trip = engine.round_trip();
        });
    }

    /// The path carries nothing any more.
    fn lose_path(&mut self, why: PathLostWhy) {
        let at = now();
        self.path = None;
        self.unflushed = false;
        self.broken = None;
        self.engine.handle_path_lost(at);
        if !self.enduring && self.engine.both_ended() {
            if self.engine.all_arrived() {
                self.engine.finish_in_order();
            } else {
                // Nobody is going to say whether it has.
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, why.to_string());
                self.engine.give_up(SessionLost::Path(Arc::new(error)));
            }
        }
        if self.engine.over().is_none() {
            let number = self.engine.counters().paths;
            self.shared.publish(|status| {
                status.pathless_since = Some(at);
                status.lost = Some(PathLost { why, at, number });
            });
        }
        self.publish();
    }

    /// A path that fails is lost, and its failure our own unless we outlive it.
    fn path_failed(&mut self, error: io::Error) -> io::Result<()> {
        if !self.enduring && !self.engine.both_ended() {
            return Err(error);
        }
        self.lose_path(PathLostWhy::Io(Arc::new(error)));
        Ok(())
    }

    /// The same of one that takes nothing any more, which is lost when there is nothing more to be read.
    fn write_failed(&mut self, error: io::Error) -> io::Result<()> {
        if !self.enduring {
            return self.path_failed(error);
        }
        self.broken = Some(error);
        self.engine.handle_broken(now());
        self.wakers.joint().wake_by_ref();
        Ok(())
    }

    /// Nothing more is to be read at once: a path that takes nothing either is lost.
    fn drop_broken(&mut self) {
        if let Some(error) = self.broken.take() {
            self.lose_path(PathLostWhy::Io(Arc::new(error)));
        }
    }

    /// It is over: says so to the peer where there is a path, and to everybody here.
    fn settle(&mut self) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        self.say_goodbye();
        let over = match self.engine.over() {
            Some(Over::Lost(why)) => Err(why.clone()),
            Some(Over::InOrder) | None => Ok(()),
        };
        self.publish();
        let (heard, complete) = (self.engine.all_arrived(), self.engine.is_complete());
        self.shared.publish(|status| {
            status.over.get_or_insert(over);
            (status.heard, status.complete) = (heard, complete);
            status.pathless_since = None;
        });
        self.wakers.joint().wake_by_ref();
    }

    /// Writes what the path takes at once, closes it and drops it.
    fn say_goodbye(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        if self.poll_pump_with(cx).is_ready()
            && let Some(path) = &mut self.path
        {
            let _ = Pin::new(path.get_mut()).poll_shutdown(cx);
        }
        self.path = None;
    }

    /// Writes all that is to be written, and flushes it. Ready as well when there is no path left.
    fn poll_pump(&mut self) -> Poll<io::Result<()>> {
        let waker = self.wakers.joint().clone();
        self.poll_pump_with(&mut Context::from_waker(&waker))
    }

    fn poll_pump_with(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_path(cx))?;
        let Some(path) = &mut self.path else {
            return Poll::Ready(Ok(()));
        };
        if self.unflushed && self.broken.is_none() {
            match ready!(Pin::new(path.get_mut()).poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(error) => return Poll::Ready(self.write_failed(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_path(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // One moment does for all that the path takes without waiting.
        let (mut moment, mut wrote) = (None, false);
        // Once something was written, what else there may be waits for time to pass.
        while !wrote || self.engine.has_output() {
            let Some(path) = self.path.as_mut().filter(|_| self.broken.is_none()) else {
                return Poll::Ready(Ok(()));
            };
            if !self.engine.stage(|| *moment.get_or_insert_with(now)) {
                return Poll::Ready(Ok(()));
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.engine.output(&mut slices);
            let slices = slices.get(..used).unwrap_or_default();
            let error = match ready!(Pin::new(path.get_mut()).poll_write_vectored(cx, slices)) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(n) => {
                    self.engine.wrote(n);
                    (self.unflushed, wrote) = (true, true);
                    continue;
                }
                Err(error) => error,
            };
            return Poll::Ready(self.write_failed(error));
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what a reader must not sit on. An error is the writer's to hear of.
    fn pump_for_reader(&mut self) {
        if self.unflushed || self.engine.is_urgent() {
            let _ = self.poll_pump();
        }
    }

    /// Reads until there is data for the caller, which then is in `buf`.
    fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Incoming>> {
        for _ in 0..TURN {
            if self.cut || self.engine.read_ended() || self.engine.over().is_some() {
                return Poll::Ready(Ok(Incoming::End));
            }
            let Some(path) = &mut self.path else {
                return Poll::Ready(Ok(Incoming::NoPath));
            };
            let (wanted, before) = (self.engine.wanted(), buf.filled().len());
            let polled = if wanted < buf.remaining() {
                path.set_limit(wanted as u64);
                Pin::new(path).poll_read(cx, buf)
            } else {
                Pin::new(path.get_mut()).poll_read(cx, buf)
            };
            let bytes = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if !ready!(self.poll_came(polled, bytes.len()))? {
                continue;
            }
            let came = self.engine.handle_bytes(now(), bytes);
            buf.set_filled(before + came.data);
            self.tell(came);
            if came.data > 0 {
                return Poll::Ready(Ok(Incoming::Data));
            }
        }
        // The peer keeps us busy with nothing.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What came of a read from the path: bytes, or that it is lost (false).
    fn poll_came(&mut self, polled: Poll<io::Result<()>>, n: usize) -> Poll<io::Result<bool>> {
        match ready!(polled) {
            Ok(()) if n > 0 => Poll::Ready(Ok(true)),
            Ok(()) => {
                if !self.enduring && !self.engine.both_ended() {
                    self.cut = true;
                    return Poll::Ready(Ok(false));
                }
                self.lose_path(PathLostWhy::Ended);
                Poll::Ready(Ok(false))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Poll::Ready(Ok(false)),
            Err(error) => Poll::Ready(self.path_failed(error).map(|()| false)),
        }
    }

    /// Tells whom it concerns that this came.
    fn tell(&mut self, came: Came) {
        if came.data > 0 {
            let received = self.engine.received();
            self.shared.received.store(received, Ordering::Relaxed);
        }
        if came.frames {
            self.publish();
        }
        if self.engine.over().is_some() {
            self.settle();
        }
        if std::mem::take(&mut self.engine.freed) && std::mem::take(&mut self.room_wanted) {
            self.wakers.joint().wake_by_ref();
        }
    }

    /// Keeps the timer at the engine's next deadline, and tells the engine when it has come.
    fn poll_timer(&mut self) -> Poll<()> {
        loop {
            if self.is_timed() {
                return Poll::Pending;
            }
            let deadline = self.engine.poll_timeout();
            self.engine.hurried = false;
            let Some(deadline) = deadline else {
                return Poll::Pending;
            };
            // A timer that is early does no harm: a deadline that moved away needs no new timer.
            let reset = self.armed.is_none_or(|armed| deadline < armed);
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            if reset {
                timer.as_mut().reset(deadline.into());
                (self.armed, self.watched) = (Some(deadline), false);
            }
            if self.watched && !timer.is_elapsed() {
                return Poll::Pending;
            }
            // A task that has used its turn up is polled again, and the timer does not keep its waker.
            self.watched = has_budget_remaining();
            ready!(
                timer
                    .as_mut()
                    .poll(&mut Context::from_waker(self.wakers.joint()))
            );
            (self.armed, self.watched) = (None, false);
            let now = now();
            if now < deadline {
                continue;
            }
            if let Some(why) = self.engine.handle_timeout(now) {
                let broken = self.broken.take();
                let why = broken.map_or(why, |error| PathLostWhy::Io(Arc::new(error)));
                if !self.enduring {
                    let error = io::Error::new(io::ErrorKind::TimedOut, why.to_string());
                    self.engine.give_up(SessionLost::Path(Arc::new(error)));
                }
                self.lose_path(why);
            }
            if self.engine.over().is_some() {
                self.settle();
            }
            return Poll::Ready(());
        }
    }

    /// The timer is set to no later than the engine's next deadline, has not come, and wakes whoever waits.
    fn is_timed(&self) -> bool {
        let set = self.armed.filter(|_| self.watched && !self.engine.hurried);
        debug_assert!(
            set.is_none_or(|set| self.engine.poll_timeout().is_none_or(|next| set <= next)),
            "a deadline that has come nearer, and nobody said so"
        );
        set.is_some() && self.timer.as_ref().is_some_and(|timer| !timer.is_elapsed())
    }

    /// The same for a writer who waits, or whose bytes may have to be answered sooner than what the timer is set to.
    fn keep_time(&mut self, waits: bool) {
        if waits || self.engine.hurried {
            while self.poll_timer().is_ready() {}
        }
    }

    /// The error of whoever comes when it is over.
    fn over(&self) -> io::Result<()> {
        match self.engine.over() {
            Some(Over::Lost(why)) => Err(why.clone().into()),
            Some(Over::InOrder) | None => Ok(()),
        }
    }

    /// Nothing more is to be read.
    fn poll_end(&mut self) -> Poll<io::Result<()>> {
        self.over()?;
        if self.engine.over().is_none() && self.engine.read_ended() {
            // The peer waits for it: its end has arrived.
            let pumped = self.poll_pump();
            if self.engine.all_arrived() {
                let _ = ready!(pumped);
                if self.engine.over().is_none() {
                    self.engine.finish_in_order();
                }
            }
        }
        if self.engine.over().is_some() {
            self.settle();
        }
        Poll::Ready(Ok(()))
    }
}

impl<P: ByteStream> Drop for Durable<P> {
    fn drop(&mut self) {
        if self.engine.over().is_none() {
            // Whose last bytes are not acknowledged does not know whether they have arrived.
            if self.engine.is_complete() {
                self.engine.finish_in_order();
            } else {
                self.engine.give_up(SessionLost::DriverGone);
            }
        }
        self.settle();
        self.shared.close();
    }
}

impl<P: ByteStream> std::fmt::Debug for Durable<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durable").finish_non_exhaustive()
    }
}
