//! Two streams joined: what comes out of one goes into the other, both ways, until both have ended.
//!
//! tokio's `copy_bidirectional` gives up both ways on the first error of either, which cuts the
//! output of a command that does not read all its input (`head -1`). Here the two ways end apart:
//!
//! - the end of a stream shuts down the writing side of the other, and that way is done;
//! - a stream that *takes* no more ends its way only (or everything, where the owner of the stream
//!   says so: [`Join::end_with_near`]), because the other way may still have something to say;
//! - a stream that cannot be *read* ends everything: its data is cut, and the other end must not
//!   take that for a clean end. The caller drops both streams, which resets a substream. The same holds for an end of
//!   stream behind a write that failed by a reset or a loss: the system tells of that once, and then reads an end.
//!
//! Whoever is gone altogether is missed, though nothing is read there and nothing is to be written (behind an end of stream, or
//! while the other side takes nothing): what it wrote is still passed on, as long as it is taken, and nothing goes to it any more.
//!
//! The owner may also hold the end of the near stream back ([`Join::hold_near_end`]), to find out
//! first whether it was a clean one: a command's output ends the same whether it worked or not.
//!
//! All four halves are polled by one task, so no stream is split and no waker is lost.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cepa::mux::{ReceivePool, StreamError, Substream};
use cepa::onion::Onion;
use cepa::transports::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep, timeout};

use crate::chunk::{Chunk, Pieces};
use crate::direction::{Direction, State};
use crate::limits::UNHEARD;
use crate::splice_end::Ended;

/// How long what was taken of a stream that broke may take to leave.
const LEAVING: Duration = Duration::from_secs(30);

/// A near stream that takes no more may have something to give, if no more than so long passes without.
const QUIET: Duration = Duration::from_secs(1);

/// Whoever leaves two pipes closes them one after the other; with the first one gone, the second may end for so long.
const CLOSING: Duration = Duration::from_millis(100);

/// While something waits to be taken, the question whether its writer is gone costs a descriptor, and bulk waits all the time: it is put
/// where nothing was taken for so long.
const ASKED: Duration = Duration::from_millis(100);

/// How long what is left of a stream that was cut may wait without any of it being taken.
const STALLED: Duration = Duration::from_secs(30);

/// A stream that can tell that its other end is gone, though it is neither read nor written; see [`Stream::poll_left`].
pub(crate) trait Leaves: Pieces {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error>;

    /// See [`Stream::poll_drained`].
    fn poll_drained(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Leaves for Stream {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        Self::poll_left(self, cx, reading)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_drained(self, cx)
    }
}

impl Leaves for Onion<Stream> {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        self.wire_mut().poll_left(cx, reading)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire_mut().poll_drained(cx)
    }
}

impl Leaves for Onion<Substream> {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        if reading {
            return Poll::Pending;
        }
        self.wire_mut().poll_lost(cx)
    }
}

/// Ready once nothing that was written is taken back by a reset, and where it cannot leave.
fn poll_gone(cx: &mut Context<'_>, stream: &mut (impl AsyncWrite + Leaves + Unpin)) -> Poll<()> {
    match ready!(Pin::new(&mut *stream).poll_flush(cx)) {
        Ok(()) => stream.poll_drained(cx),
        Err(_) => Poll::Ready(()),
    }
}

/// Waits until it may be cut without taking back what was written, and not for ever.
pub(crate) async fn leave_before_cut(stream: &mut (impl AsyncWrite + Leaves + Unpin)) {
    let _ = timeout(LEAVING, poll_fn(|cx| poll_gone(cx, stream))).await;
}

/// What [`Join::step`] came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The near stream has ended, and its end is held back until [`Join::pass_end_on`]; the other way goes on
    /// meanwhile. Comes once.
    NearEnded,
    /// The same of the far stream, until [`Join::pass_far_end_on`].
    FarEnded,
    /// All is over.
    Over(Ended),
}

/// A running join of `near` and `far`. Dropping it drops nothing: the streams are borrowed.
#[derive(Debug)]
pub(crate) struct Join<'a, N, F> {
    near: &'a mut N,
    far: &'a mut F,
    outward: Direction,
    inward: Direction,
    end_with_near: bool,
    end_with_reader: bool,
    end_with_far: bool,
    stop_with_far: bool,
    near_end_reported: bool,
    far_end_reported: bool,
    /// A stream could not be read; what was taken of it before leaves first, if it does so in time.
    broken: Option<(Ended, Pin<Box<Sleep>>)>,
    near_gone: Gone,
    far_gone: Gone,
    patience: Option<Duration>,
    /// The near stream takes no more, and has given nothing since then; and how much it had given.
    quiet: Option<(u64, Pin<Box<Sleep>>)>,
    /// A write failed, since the near stream takes no more.
    closing: Option<Pin<Box<Sleep>>>,
    /// One way is done since then, and how much the other had carried.
    waiting: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<'a, N, F> Join<'a, N, F>
where
    N: AsyncRead + AsyncWrite + Leaves + Unpin,
    F: AsyncRead + AsyncWrite + Leaves + Unpin,
{
    pub(crate) fn new(near: &'a mut N, far: &'a mut F) -> Self {
        Self {
            near,
            far,
            outward: Direction::new(),
            inward: Direction::new(),
            end_with_near: false,
            end_with_reader: false,
            end_with_far: false,
            stop_with_far: false,
            near_end_reported: false,
            far_end_reported: false,
            broken: None,
            near_gone: Gone::default(),
            far_gone: Gone::default(),
            patience: None,
            quiet: None,
            closing: None,
            waiting: None,
        }
    }

    /// What is in hand of either way is counted to this: the memory of the peer at the far end.
    pub(crate) fn counted(mut self, memory: &ReceivePool) -> Self {
        for way in [&mut self.outward, &mut self.inward] {
            way.piece = Chunk::counted(memory.clone());
        }
        self
    }

    /// Once one way is done, the other one may be silent for so long; then the join is over.
    pub(crate) fn patience(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// The whole join ends when the near stream takes no more.
    pub(crate) fn end_with_near(mut self) -> Self {
        self.end_with_near = true;
        self
    }

    /// Somebody reads what goes to the near stream, as at standard output: there is no limit to how slowly. Once they have
    /// left and the far stream says more, the join ends with the near stream soon, whatever that still gives.
    pub(crate) fn end_with_reader(mut self) -> Self {
        self.end_with_reader = true;
        self
    }

    /// The whole join ends when the far stream ends, however much the near one has to say.
    pub(crate) fn end_with_far(mut self, yes: bool) -> Self {
        self.end_with_far = yes;
        self
    }

    /// The near stream has nothing more to give once the data of the far one has ended: it is read no further.
    pub(crate) fn stop_near_with_far(mut self, yes: bool) -> Self {
        self.stop_with_far = yes;
        self
    }

    /// The far stream may end its data before it ends itself, and say something in between: it is read on.
    pub(crate) fn read_far_to_its_end(mut self, yes: bool) -> Self {
        self.inward.read_on = yes;
        self
    }

    /// Whether the near stream has more to give to the far one.
    pub(crate) fn near_may_send(&self) -> bool {
        !self.outward.is_done() && !matches!(self.outward.state, State::Held)
    }

    /// Whether the near stream has given anything.
    pub(crate) fn near_gave(&self) -> bool {
        self.outward.carried > 0 || !self.outward.piece.waiting().is_empty()
    }

    /// Whether the far stream has more to give to the near one.
    pub(crate) fn far_may_send(&self) -> bool {
        !self.inward.is_done() && !matches!(self.inward.state, State::Held)
    }

    /// Whether more may go to the near stream.
    pub(crate) fn near_takes_more(&self) -> bool {
        !self.inward.is_done()
    }

    /// Asks to be told of the near stream's end before the far one is ([`Step::NearEnded`]).
    pub(crate) fn hold_near_end(mut self) -> Self {
        self.outward.hold = true;
        self
    }

    /// Asks to be told of the far stream's end before the near one is ([`Step::FarEnded`]).
    pub(crate) fn hold_far_end(mut self) -> Self {
        self.inward.hold = true;
        self
    }

    /// After [`Step::FarEnded`]: it was a clean end, the near stream may have it.
    pub(crate) fn pass_far_end_on(&mut self) {
        self.inward.pass_on();
    }

    /// After [`Step::NearEnded`]: it was a clean end, the far stream may have it.
    pub(crate) fn pass_end_on(&mut self) {
        self.outward.pass_on();
    }

    /// What can be read of the near stream now is all there is: whoever writes there is gone, though others may hold it open.
    pub(crate) fn near_has_ended(&mut self) {
        self.outward.ends_when_empty();
    }

    /// The same for the far stream.
    pub(crate) fn far_has_ended(&mut self) {
        self.inward.ends_when_empty();
    }

    /// What waits in the far stream is to leave, even if no more data comes for it.
    pub(crate) fn flush_far(&mut self) {
        self.outward.unflushed = true;
    }

    /// Nothing more goes to the near stream, because what read there is gone; what it has written
    /// still comes.
    pub(crate) fn near_is_gone(&mut self) {
        if !self.inward.is_done() {
            self.inward.state = if self.inward.piece.waiting().is_empty() {
                State::Done
            } else {
                State::Left(io::ErrorKind::BrokenPipe.into())
            };
        }
    }

    /// Nothing more goes to the far stream, because it is lost; what it has sent still comes.
    pub(crate) fn far_is_gone(&mut self) {
        if !self.outward.is_done() {
            self.outward.state = State::Left(io::ErrorKind::NotConnected.into());
        }
    }

    /// Nothing more goes to the far stream, because what read there has ended; what it has written still comes.
    pub(crate) fn far_has_left(&mut self) {
        if !self.outward.is_done() {
            self.outward.state = State::Done;
        }
    }

    /// Whether the near stream has ended in order, and the far one was told.
    pub(crate) fn near_end_passed(&self) -> bool {
        matches!(self.outward.state, State::Done)
    }

    /// Carries on to the end of both ways.
    pub(crate) async fn run(&mut self) -> Ended {
        loop {
            match self.step().await {
                Step::NearEnded => self.pass_end_on(),
                Step::FarEnded => self.pass_far_end_on(),
                Step::Over(ended) => return ended,
            }
        }
    }

    /// Carries on to the next thing to decide. Cancel safe: bytes taken and not given stay here.
    pub(crate) async fn step(&mut self) -> Step {
        poll_fn(|cx| self.poll_step(cx)).await
    }

    /// The same; `None` as soon as the near stream takes nothing more, where it is to tell that.
    pub(crate) async fn step_until(&mut self, taken: bool) -> Option<Step> {
        poll_fn(|cx| match self.poll_step(cx) {
            Poll::Ready(step) => Poll::Ready(Some(step)),
            Poll::Pending if taken && self.inward.is_done() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.broken.is_some() {
            return self.poll_broken(cx);
        }
        self.outward.cut = self.inward.writer_was_cut();
        if let Poll::Ready(Err(e)) = self.outward.poll(cx, self.near, self.far) {
            self.broken = Some((Ended::Near(e), Box::pin(sleep(LEAVING))));
            return self.poll_broken(cx);
        }
        self.inward.cut = self.outward.writer_was_cut();
        if let Poll::Ready(Err(e)) = self.inward.poll(cx, self.far, self.near) {
            self.broken = Some((Ended::Far(e), Box::pin(sleep(LEAVING))));
            return self.poll_broken(cx);
        }
        if self.stop_with_far && matches!(self.inward.state, State::ReadingOn) {
            self.stop_with_far = false;
            self.outward.ends_when_empty();
            cx.waker().wake_by_ref();
        }
        let by_reader = self.end_with_reader;
        // Of who left in order all that they wrote is wanted; the taker says itself when it takes nothing any more. But it may wait for
        // somebody to take what it says: whoever is gone as a whole does not.
        let cut = self.inward.writer_was_cut() || (self.end_with_near && self.inward.has_left());
        let limited = |why: &io::Error| by_reader || cut || !is_in_order(why);
        let reading = self.outward.is_reading();
        let stalled = self
            .near_gone
            .poll(cx, self.near, reading, &self.outward, limited);
        if let Poll::Ready(e) = stalled {
            return Poll::Ready(Step::Over(match self.near_gone.why.take() {
                Some(why) if by_reader => Ended::NearLeft(why),
                _ => Ended::Near(e),
            }));
        }
        let cut = self.outward.writer_was_cut();
        let limited = |why: &io::Error| !by_reader && (cut || !is_in_order(why));
        let reading = self.inward.is_reading();
        let stalled = self
            .far_gone
            .poll(cx, self.far, reading, &self.inward, limited);
        if let Poll::Ready(e) = stalled {
            return Poll::Ready(Step::Over(Ended::Far(e)));
        }
        // Where the reader decides, a write that fails tells that there was something more for them.
        if !by_reader && let Some(e) = self.near_gone.reported() {
            self.inward.taker_is_gone(e);
        }
        // An end in order was all, though the session may have ended with it.
        let all_said = self.end_with_far && matches!(self.inward.state, State::Done);
        if let Some(e) = self.far_gone.reported().filter(|_| !all_said) {
            self.outward.taker_is_gone(e);
        }
        if self.end_with_near {
            // What it wrote before it left is passed on first, and what may still be coming: of two pipes one may be closed.
            let is_gone = self.near_gone.why.is_some() || self.inward.has_left();
            // Of who was cut nothing is whole any more. Who left in order has its input passed on, for which the service must not wait.
            let cut = self.inward.writer_was_cut();
            let most = if cut { UNHEARD } else { usize::MAX };
            let unheard = !by_reader && is_gone && {
                let said = self.inward.poll_unheard(cx, self.far, most);
                said.is_ready()
            };
            if is_gone && (unheard || self.outward.is_done() || self.is_quiet(cx)) {
                let why = self.near_gone.why.take();
                if let Some(e) = why.or_else(|| self.inward.left()) {
                    return Poll::Ready(Step::Over(Ended::NearLeft(e)));
                }
            }
        }
        let (outward, inward) = (self.outward.is_done(), self.inward.is_done());
        if matches!(self.outward.state, State::Held) && !self.near_end_reported {
            self.near_end_reported = true;
            return Poll::Ready(Step::NearEnded);
        }
        if matches!(self.inward.state, State::Held) && !self.far_end_reported {
            self.far_end_reported = true;
            return Poll::Ready(Step::FarEnded);
        }
        // A held end waits for its owner, not for the other stream.
        let held =
            matches!(self.outward.state, State::Held) || matches!(self.inward.state, State::Held);
        let waited = inward != outward && !held && self.poll_patience(cx);
        // A write that fails may tell of it first.
        let reader_left =
            self.end_with_near && (self.near_gone.why.is_some() || self.inward.has_left());
        let far_ended = self.end_with_far && !reader_left;
        if waited || inward && (outward || far_ended) {
            let (near_left, far_left) = (self.inward.left(), self.outward.left());
            return Poll::Ready(Step::Over(Ended::Both {
                near_left,
                far_left,
            }));
        }
        Poll::Pending
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Some((ended, until)) = &mut self.broken else {
            return Poll::Pending;
        };
        let left = match ended {
            Ended::Near(_) if !self.outward.is_done() => poll_gone(cx, self.far),
            Ended::Far(_) if !self.inward.is_done() => poll_gone(cx, self.near),
            _ => Poll::Ready(()),
        };
        if left.is_pending() {
            ready!(until.as_mut().poll(cx));
        }
        match self.broken.take() {
            Some((ended, _)) => Poll::Ready(Step::Over(ended)),
            None => Poll::Pending,
        }
    }

    /// Whether nothing more is waited for of a near stream that is gone.
    fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        // A service that had more to say to a reader that left is not waited for.
        if self.inward.has_left() && (self.end_with_reader || self.near_gone.why.is_none()) {
            let closing = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSING)));
            return closing.as_mut().poll(cx).is_ready();
        }
        let carried = self.outward.carried;
        let fresh = || (carried, Box::pin(sleep(QUIET)));
        let (before, timer) = self.quiet.get_or_insert_with(fresh);
        if *before != carried || !self.outward.is_idle() {
            *before = carried;
            timer.set(sleep(QUIET));
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Whether the one way that is left has been silent for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(patience) = self.patience else {
            return false;
        };
        let carried = self.outward.carried + self.inward.carried;
        let fresh = || (carried, Box::pin(sleep(patience)));
        let (before, timer) = self.waiting.get_or_insert_with(fresh);
        if *before != carried {
            *before = carried;
            timer.set(sleep(patience));
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Bytes that went from near to far, and from far to near.
    #[cfg(test)]
    pub(crate) fn carried(&self) -> (u64, u64) {
        (self.outward.carried, self.inward.carried)
    }
}

/// Whether the other end of a stream is gone.
#[derive(Debug, Default)]
struct Gone {
    why: Option<io::Error>,
    reported: bool,
    /// What it wrote waits since then, and how much of it had been taken.
    stalled: Option<(u64, Pin<Box<Sleep>>)>,
    /// The same since it was last seen to move.
    moved: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Gone {
    /// Ready when it is gone and what it wrote is not taken any more; `from` is the way of that. `limited`: whether that waits only so
    /// long, by why it is gone.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut impl Leaves,
        reading: bool,
        from: &Direction,
        limited: impl Fn(&io::Error) -> bool,
    ) -> Poll<io::Error> {
        if self.why.is_none() {
            if from.is_waiting() && self.moves(cx, from) {
                return Poll::Pending;
            }
            self.why = Some(ready!(stream.poll_left(cx, reading)));
        }
        if !from.is_stuck() || !self.why.as_ref().is_some_and(limited) {
            self.stalled = None;
            return Poll::Pending;
        }
        let fresh = || (from.carried, Box::pin(sleep(STALLED)));
        let (carried, timer) = self.stalled.get_or_insert_with(fresh);
        if *carried != from.carried {
            *carried = from.carried;
            timer.set(sleep(STALLED));
        }
        ready!(timer.as_mut().poll(cx));
        let text = "it is gone, and what it wrote is not taken";
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    /// Whether any of what waits was taken lately.
    fn moves(&mut self, cx: &mut Context<'_>, from: &Direction) -> bool {
        let fresh = || (from.carried, Box::pin(sleep(ASKED)));
        let (carried, timer) = self.moved.get_or_insert_with(fresh);
        while timer.as_mut().poll(cx).is_ready() {
            if *carried == from.carried {
                return false;
            }
            *carried = from.carried;
            timer.set(sleep(ASKED));
        }
        true
    }

    /// Why, the first time.
    fn reported(&mut self) -> Option<io::Error> {
        let why = self.why.as_ref().filter(|_| !self.reported)?;
        self.reported = true;
        Some(again(why))
    }
}

/// Whether that is how who closed a socket or a pipe is gone. A session that is lost may be so by a closed pipe.
fn is_in_order(why: &io::Error) -> bool {
    let of_session = why.get_ref().and_then(|e| e.downcast_ref::<StreamError>());
    why.kind() == io::ErrorKind::BrokenPipe && of_session.is_none()
}

/// The same error once more: of one that a stream of ours tells, its cause decides how it is taken.
fn again(e: &io::Error) -> io::Error {
    match e.get_ref().and_then(|e| e.downcast_ref::<StreamError>()) {
        Some(cause) => cause.clone().into(),
        None => match e.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(e.kind(), e.to_string()),
        },
    }
}

#[cfg(test)]
mod tests;
