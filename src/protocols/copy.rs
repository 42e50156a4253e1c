//! A circuit: two substreams joined, byte for byte, by a relay that understands none of it. Forwarders join theirs
//! the same way.
//!
//! What arrives is handed on without a copy, and no more is taken than the other side has room for, so
//! back-pressure reaches from end to end. An end of stream is passed on as one, a reset as a reset with its
//! code; a session that is lost resets the other side with [`LOST`]. A [`Policy`] holds both ways to a rate.
//! Both ways are polled by one task, so nothing is split and no waker is lost.
//!
//! The two ways end apart, and [`verdict`] says what each end is told: an end that takes no more may have said something before,
//! which the other end gets in front of the reset. A reset takes back what is queued, so it waits until that has left.
//!
//! What is read of one end says nothing of the other one: the queue there takes some whether anybody reads it or not. So an end's
//! window does not grow before the other end has granted more than it did at first, nor does the queue there, and nothing is read for which
//! that has no room: a circuit that nobody reads holds two first windows and two queues of 16 KiB, and a piece where it came at that moment. A peer that
//! grants more without reading has the usual window and queue.
//!
//! A join is over when both ways have ended *and* all of it has left: what an end does not take stays in memory here, and
//! whoever counts joins counts that.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use cepa_transports::throttle::{Allowance, Policy};
use tokio::io::AsyncWrite;

use crate::mux::{GoAwayCode, MuxError, StreamError, Substream};

/// Code of the reset that tells one end of a circuit that the other end's session is lost.
pub(crate) const LOST: u32 = 7;

/// Code of the reset that ends a join whose place is wanted for another peer.
pub(crate) const TAKEN_BACK: u32 = 11;

/// Code of the reset that tells one end that whoever joins the two shuts down.
pub(crate) const GOING: u32 = 12;

/// Chunks of one way before the task lets others run; both ends may always be ready.
const TURNS: u32 = 16;

/// An end that is to be reset has so long to take some more of what comes before: a slow reader is told of room seldom.
const STALLED: Duration = Duration::from_secs(300);

/// One end of a circuit, with what was read of it already.
pub(crate) struct End {
    stream: Substream,
    held: Bytes,
    /// Nothing more will come from it.
    ended: bool,
    /// Nothing more goes to it.
    shut: bool,
    /// The other end learns otherwise of the end of this one's session.
    told_apart: bool,
    /// The other end is not known to take anything, so this one's window stays small: what is read of it tells nothing.
    untaken: bool,
}

impl End {
    pub(crate) fn new((mut stream, held): (Substream, Bytes)) -> Self {
        stream.hand_on();
        Self {
            stream,
            held,
            ended: false,
            shut: false,
            told_apart: false,
            untaken: true,
        }
    }

    /// The other end's session ends with this one's: a reset before that would say something else.
    pub(crate) fn ending_with_its_session(mut self) -> Self {
        self.told_apart = true;
        self
    }

    /// Nothing comes from it any more, for this reason.
    fn cut(&self, error: &io::Error) -> WayEnd {
        self.over(error).unwrap_or(WayEnd::Cut(code_of(error)))
    }

    /// It takes no more.
    fn left(&self, error: &io::Error) -> WayEnd {
        self.over(error).unwrap_or(WayEnd::Left(code_of(error)))
    }

    fn over(&self, error: &io::Error) -> Option<WayEnd> {
        let is_over = matches!(
            stream_error(error),
            Some(StreamError::Session(_) | StreamError::SessionClosedByPeer)
        );
        (self.told_apart && is_over).then_some(WayEnd::Over)
    }
}

/// Carries a join to its end: both ways have ended and left, one of the ends failed, or `over` gave the code of a
/// reset. `moved` hears how many bytes each step took on.
///
/// Where the session of an end is over that is [told apart](End::ending_with_its_session), both streams come back: dropping them is a
/// reset.
///
/// # Cancel safety
/// Dropping the future resets both ends.
pub(crate) async fn copy(
    mut one: End,
    mut two: End,
    policy: Arc<dyn Policy>,
    over: impl Future<Output = u32>,
    mut moved: impl FnMut(usize),
) -> Option<[Substream; 2]> {
    let mut over = pin!(over);
    let mut there = Allowance::new(Arc::clone(&policy));
    let mut back = Allowance::new(policy);
    let (mut first, mut second) = (None, None);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(code) = over.as_mut().poll(cx) {
            return Poll::Ready(Err(code));
        }
        if first.is_none()
            && let Poll::Ready(end) = poll_way(&mut one, &mut two, &mut there, &mut moved, cx)
        {
            first = Some(end);
        }
        if second.is_none()
            && let Poll::Ready(end) = poll_way(&mut two, &mut one, &mut back, &mut moved, cx)
        {
            second = Some(end);
        }
        // Behind its end a stream is not read any more, and may still be reset: it takes no more.
        for (end, way) in [(&mut one, &mut second), (&mut two, &mut first)] {
            if way.is_none()
                && end.ended
                && end.held.is_empty()
                && let Poll::Ready(error) = end.stream.poll_lost(cx)
            {
                *way = Some(end.left(&error));
            }
        }
        match verdict(first, second) {
            Some(closing) => Poll::Ready(Ok(closing)),
            None => Poll::Pending,
        }
    });
    let ended = match ended.await {
        Ok(closing) => tokio::select! {
            biased;
            code = over => Err(code),
            _ = async { tokio::join!(finish(&mut one.stream, closing[0]), finish(&mut two.stream, closing[1])) } => Ok(closing),
        },
        Err(code) => Err(code),
    };
    match ended {
        Err(code) => {
            one.stream.reset(code);
            two.stream.reset(code);
            None
        }
        Ok([Closing::Session, _]) => Some([one.stream, two.stream]),
        Ok(_) => None,
    }
}

/// How a way came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WayEnd {
    /// What gave has ended, and what takes was told so.
    Ended,
    /// What gave was cut: it is over for both ways.
    Cut(u32),
    /// What takes takes no more. It may have said something before.
    Left(u32),
    /// A session is over, which the other end is told apart.
    Over,
}

/// What one end is told, behind all that was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// It has its end already.
    End,
    Reset(u32),
    /// Nothing: its session ends.
    Session,
}

/// What the two ends are told, given how the way from the first to the second has ended and how the other one has; `None`: it goes on.
fn verdict(first: Option<WayEnd>, second: Option<WayEnd>) -> Option<[Closing; 2]> {
    use WayEnd::{Cut, Ended, Left, Over};
    Some(match (first, second) {
        (Some(Over), _) | (_, Some(Over)) => [Closing::Session; 2],
        (Some(Cut(code)), _) | (_, Some(Cut(code))) | (Some(Left(code)), Some(Left(_))) => {
            [Closing::Reset(code); 2]
        }
        (Some(Ended), Some(Ended)) => [Closing::End; 2],
        // Behind its end the first is told that the second takes no more.
        (Some(Left(code)), Some(Ended)) => [Closing::Reset(code), Closing::End],
        (Some(Ended), Some(Left(code))) => [Closing::End, Closing::Reset(code)],
        (None, _) | (_, None) => return None,
    })
}

/// Tells an end, as soon as all that was written to it has left.
async fn finish(stream: &mut Substream, closing: Closing) {
    match closing {
        Closing::End => {
            let _ = stream.drained(None).await;
        }
        Closing::Session => {
            let _ = stream.drained(Some(STALLED)).await;
        }
        Closing::Reset(code) => {
            let _ = stream.drained(Some(STALLED)).await;
            stream.reset(code);
        }
    }
}

/// Moves what can be moved from one end to the other.
fn poll_way(
    from: &mut End,
    to: &mut End,
    allowance: &mut Allowance,
    moved: &mut impl FnMut(usize),
    cx: &mut Context<'_>,
) -> Poll<WayEnd> {
    let mut turns = 0;
    loop {
        if from.held.is_empty() && !from.ended {
            // What there is no room for stays where it is: the peer gets no credit for it, and it is in memory once.
            let mut room = usize::MAX;
            if from.stream.has_unread() {
                room = match ready!(to.stream.poll_room(cx)) {
                    Ok(room) => room,
                    Err(e) => return Poll::Ready(to.left(&e)),
                };
            }
            match ready!(from.stream.poll_read_part(cx, room)) {
                Ok(Some(chunk)) => from.held = chunk,
                Ok(None) => from.ended = true,
                Err(e) => return Poll::Ready(from.cut(&e)),
            }
        }
        if from.held.is_empty() {
            if from.ended && !to.shut {
                match ready!(Pin::new(&mut to.stream).poll_shutdown(cx)) {
                    Ok(()) => to.shut = true,
                    Err(e) => return Poll::Ready(to.left(&e)),
                }
            }
            if from.ended {
                return Poll::Ready(WayEnd::Ended);
            }
            continue;
        }
        let most = ready!(allowance.poll(cx, from.held.len()));
        let mut part = from.held.slice(..most);
        let n = match ready!(to.stream.poll_write_chunk(cx, &mut part)) {
            Ok(n) => n,
            Err(e) => return Poll::Ready(to.left(&e)),
        };
        from.held.advance(n);
        if from.untaken && to.stream.is_taken() {
            from.untaken = false;
            from.stream.hold_window(false);
        }
        allowance.used(n);
        moved(n);
        turns += 1;
        if turns >= TURNS {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    }
}

/// The code with which an end of a join is reset when the other one fails with this error.
pub(crate) fn code_of(error: &io::Error) -> u32 {
    match stream_error(error) {
        Some(StreamError::ResetByPeer { code }) => *code,
        // The other end is well: it is this one that goes, and has closed its session first.
        Some(StreamError::Session(MuxError::GaveUp {
            code: GoAwayCode::ShuttingDown,
        })) => GOING,
        _ => LOST,
    }
}

fn stream_error(error: &io::Error) -> Option<&StreamError> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_which_of_the_two_is_gone() {
        let code = |error: StreamError| code_of(&io::Error::from(error));
        assert_eq!(code(StreamError::ResetByPeer { code: 5 }), 5);
        assert_eq!(code(StreamError::Session(MuxError::Eof)), LOST);
        let by_peer = MuxError::GoAway {
            code: GoAwayCode::ShuttingDown,
        };
        assert_eq!(code(StreamError::Session(by_peer)), LOST);
        let here = MuxError::GaveUp {
            code: GoAwayCode::ShuttingDown,
        };
        assert_eq!(code(StreamError::Session(here)), GOING);
    }
}
