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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use tokio::io::ReadBuf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    #[tokio::test]
    async fn both_ways_are_carried_and_half_close_is_passed_on() {
        let (mut near, user) = duplex(1000);
        let (mut far, mut peer) = duplex(100);
        let joined = tokio::spawn(async move {
            let mut join = Join::new(&mut near, &mut far);
            let ended = join.step().await;
            (format!("{ended:?}"), join.carried())
        });
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let (mut from_user, mut to_user) = tokio::io::split(user);
        let sender = tokio::spawn(async move {
            to_user.write_all(&sent).await.unwrap();
            to_user.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert!(got == data);
        sender.await.unwrap();
        // The other way is still open after the first has ended.
        peer.write_all(b"late").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut late = Vec::new();
        from_user.read_to_end(&mut late).await.unwrap();
        assert_eq!(late, b"late");
        let (ended, carried) = joined.await.unwrap();
        assert_eq!(ended, "Over(Both { near_left: None, far_left: None })");
        assert_eq!(carried, (300_000, 4));
    }

    #[tokio::test]
    async fn a_taker_that_leaves_ends_its_way_only() {
        let (mut near, user) = duplex(64);
        let (mut far, mut peer) = duplex(64);
        let joined =
            tokio::spawn(
                async move { format!("{:?}", Join::new(&mut near, &mut far).run().await) },
            );
        drop(user); // takes nothing, and its writing side has ended
        peer.write_all(b"into the void").await.unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        assert!(joined.await.unwrap().starts_with("Both { near_left: Some("));
    }

    #[tokio::test]
    async fn a_taker_that_leaves_ends_everything_where_asked() {
        let (mut near, user) = duplex(64);
        let (mut far, mut peer) = duplex(64);
        drop(user);
        peer.write_all(b"x").await.unwrap();
        let ended = Join::new(&mut near, &mut far).end_with_near().run().await;
        assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
    }

    #[tokio::test]
    async fn a_stream_that_cannot_be_read_ends_everything() {
        let mut near = Broken;
        let (mut far, _peer) = duplex(64);
        let ended = Join::new(&mut near, &mut far).run().await;
        assert!(matches!(ended, Ended::Near(_)), "{ended:?}");
    }

    /// A stream whose other end has left: it gives so many bytes (or zeros for ever), takes nothing, and tells `why`.
    struct HasLeft {
        gives: Option<usize>,
        why: fn() -> io::Error,
    }

    impl HasLeft {
        /// A pipe without a reader, and an input that never ends.
        const ENDLESS: Self = Self {
            gives: None,
            why: || rustix::io::Errno::PIPE.into(),
        };
    }

    impl Pieces for HasLeft {}

    impl Leaves for HasLeft {
        fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
            Poll::Ready((self.why)())
        }
    }

    impl AsyncRead for HasLeft {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let n = self.gives.unwrap_or(usize::MAX).min(buf.remaining());
            buf.put_slice(&vec![0; n]);
            self.gives = self.gives.map(|all| all - n);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for HasLeft {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err((self.why)()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// What a join to such a standard input and output comes to.
    async fn to_a_reader_that_left(mut near: HasLeft, far: &mut tokio::io::DuplexStream) -> Ended {
        let mut join = Join::new(&mut near, far).end_with_near().end_with_reader();
        let over = tokio::time::timeout(DAY, join.run()).await;
        over.expect("it does not end")
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_left_ends_an_endless_input_where_the_service_says_more() {
        // A service that echoes, as long as somebody takes that.
        let (mut far, peer) = duplex(64);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(peer);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let start = tokio::time::Instant::now();
        let ended = to_a_reader_that_left(HasLeft::ENDLESS, &mut far).await;
        assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
        assert!(start.elapsed() <= QUIET * 2, "{:?}", start.elapsed());
    }

    /// The two pipes of a process that is gone: its output cannot be written to, and its input ends a moment later.
    struct TwoPipes(Pin<Box<Sleep>>);

    impl AsyncRead for TwoPipes {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.0.as_mut().poll(cx).map(Ok)
        }
    }

    impl AsyncWrite for TwoPipes {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::Error::from_raw_os_error(32)))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Pieces for TwoPipes {}

    impl Leaves for TwoPipes {
        fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_of_input_right_behind_the_end_of_its_reader_is_one() {
        let moments = [(CLOSING / 2, true), (CLOSING * 2, false)];
        // A service that says how it ended decides the end, but not before its reader does.
        for ((after, passed), says) in moments.into_iter().flat_map(|m| [(m, false), (m, true)]) {
            let (mut far, mut peer) = duplex(64);
            peer.write_all(b"more").await.unwrap();
            let mut near = TwoPipes(Box::pin(sleep(after)));
            let mut join = Join::new(&mut near, &mut far)
                .end_with_near()
                .end_with_reader()
                .end_with_far(says);
            let ended = join.run().await;
            assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}, {says}");
            assert_eq!(join.near_end_passed(), passed, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_left_is_why_it_ends_where_the_service_takes_nothing() {
        let (mut far, _peer) = duplex(64);
        let ended = to_a_reader_that_left(HasLeft::ENDLESS, &mut far).await;
        assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_service_gets_all_of_the_input_though_nobody_reads_its_output() {
        let (mut far, mut peer) = duplex(64);
        let near = HasLeft {
            gives: Some(100_000),
            ..HasLeft::ENDLESS
        };
        let service = tokio::spawn(async move {
            let (mut all, mut some) = (0, [0; 1000]);
            loop {
                // Slowly, so that nothing is taken for a while each time.
                sleep(QUIET * 2).await;
                match peer.read(&mut some).await.unwrap() {
                    0 => return all,
                    n => all += n,
                }
            }
        });
        let ended = to_a_reader_that_left(near, &mut far).await;
        assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
        drop(far);
        assert_eq!(service.await.unwrap(), 100_000);
    }

    /// Gives so many bytes; a write fails, and from then on it seems to have left in order: the system tells of a reset once.
    struct WasReset(rustix::io::Errno, usize);

    impl Pieces for WasReset {}

    impl Leaves for WasReset {
        fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
            Poll::Ready(io::ErrorKind::BrokenPipe.into())
        }
    }

    impl AsyncRead for WasReset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let now = buf.remaining().min(self.1);
            buf.put_slice(&vec![0; now]);
            self.1 -= now;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for WasReset {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.0.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_does_not_wait_for_a_service_that_waits_for_it() {
        use rustix::io::Errno;
        for (why, end_with_near) in [
            (Errno::CONNRESET, false),
            (Errno::CONNRESET, true),
            (Errno::PIPE, true),
        ] {
            // It says something, and takes no more until that is taken.
            let (mut far, mut peer) = duplex(64);
            peer.write_all(b"an answer").await.unwrap();
            let mut near = WasReset(why, usize::MAX);
            let mut join = Join::new(&mut near, &mut far);
            join.end_with_near = end_with_near;
            let ended = tokio::time::timeout(DAY, join.run()).await;
            let ended = ended.unwrap_or_else(|_| panic!("{why}, {end_with_near}: it stays"));
            assert!(matches!(ended, Ended::Near(_)), "{ended:?}");
        }
    }

    /// A service that says something all the time and takes something only where `takes`; how much it was.
    fn talking(takes: bool) -> (DuplexStream, tokio::task::JoinHandle<usize>) {
        let (far, mut peer) = duplex(64);
        let service = tokio::spawn(async move {
            let (mut taken, mut some) = (0, [0; 64]);
            while peer.write_all(b"an answer").await.is_ok() {
                if takes {
                    match peer.read(&mut some).await {
                        Ok(0) | Err(_) => break,
                        Ok(n) => taken += n,
                    }
                }
            }
            taken
        });
        (far, service)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_cut_is_missed_at_once_by_a_service_that_talks_on() {
        let (mut far, _service) = talking(false);
        let begun = tokio::time::Instant::now();
        let mut near = WasReset(rustix::io::Errno::CONNRESET, usize::MAX);
        let mut join = Join::new(&mut near, &mut far).end_with_near();
        let ended = join.run().await;
        assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_a_client_wrote_that_left_in_order_is_passed_on_whatever_its_service_says() {
        const ALL: usize = 64 << 15;
        let (mut far, service) = talking(true);
        let mut near = WasReset(rustix::io::Errno::PIPE, ALL);
        let mut join = Join::new(&mut near, &mut far).end_with_near();
        let ended = join.run().await;
        assert!(matches!(ended, Ended::NearLeft(_)), "{ended:?}");
        assert!(join.near_end_passed());
        drop(far);
        assert_eq!(service.await.unwrap(), ALL);
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_wrote_who_left_in_order_waits_as_long_as_its_reader_does() {
        let (mut far, mut peer) = duplex(64);
        let mut near = HasLeft {
            gives: Some(100_000),
            why: || io::ErrorKind::BrokenPipe.into(),
        };
        let reader = tokio::spawn(async move {
            sleep(Duration::from_secs(600)).await;
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.map(|_| all.len())
        });
        let ended = Join::new(&mut near, &mut far).run().await;
        assert!(matches!(ended, Ended::Both { .. }), "{ended:?}");
        drop(far);
        assert_eq!(reader.await.unwrap().unwrap(), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_of_a_session_that_is_over_waits_for_the_reader_of_standard_output() {
        let mut far = HasLeft {
            gives: Some(100_000),
            why: || io::ErrorKind::NotConnected.into(),
        };
        let (mut near, user) = duplex(64);
        let (mut from_user, _to_user) = tokio::io::split(user);
        let reader = tokio::spawn(async move {
            sleep(Duration::from_secs(600)).await;
            let mut all = Vec::new();
            from_user.read_to_end(&mut all).await.map(|_| all.len())
        });
        let mut join = Join::new(&mut near, &mut far)
            .end_with_near()
            .end_with_reader()
            .end_with_far(true);
        let ended = join.run().await;
        assert!(matches!(ended, Ended::Both { .. }), "{ended:?}");
        drop(near);
        assert_eq!(reader.await.unwrap().unwrap(), 100_000);
    }

    #[tokio::test]
    async fn an_end_in_order_is_one_though_the_session_ends_with_it() {
        // In one poll the far stream ends, and its session tells that it is over.
        let mut far = HasLeft {
            gives: Some(3),
            why: || io::ErrorKind::NotConnected.into(),
        };
        let (mut near, _user) = duplex(64);
        let ended = Join::new(&mut near, &mut far)
            .end_with_far(true)
            .run()
            .await;
        let clean = matches!(
            ended,
            Ended::Both {
                near_left: None,
                far_left: None
            }
        );
        assert!(clean, "{ended:?}");
    }

    /// A stream that counts how often it is asked whether its other end is gone.
    struct Asked(tokio::io::DuplexStream, Arc<AtomicUsize>);

    impl Pieces for Asked {}

    impl Leaves for Asked {
        fn poll_left(&mut self, _: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
            if !reading {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
            Poll::Pending
        }
    }

    impl AsyncRead for Asked {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Asked {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, data)
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whether_a_writer_is_gone_is_asked_only_where_nothing_moves() {
        let (near, mut user) = duplex(1 << 20);
        let (mut far, mut peer) = duplex(1000);
        let asked = Arc::new(AtomicUsize::new(0));
        let mut near = Asked(near, Arc::clone(&asked));
        user.write_all(&vec![7; 200_000]).await.unwrap();
        let joined = tokio::spawn(async move { Join::new(&mut near, &mut far).run().await });
        let mut some = [0; 1000];
        for _ in 0..100 {
            sleep(ASKED / 4).await;
            peer.read_exact(&mut some).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        sleep(ASKED * 3).await;
        assert!(asked.load(Ordering::Relaxed) > 0);
        joined.abort();
    }

    impl Leaves for tokio::io::DuplexStream {
        fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
            Poll::Pending
        }
    }

    impl Pieces for Broken {}

    impl Leaves for Broken {
        fn poll_left(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Error> {
            Poll::Pending
        }
    }

    /// A stream whose reads fail.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(data.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
