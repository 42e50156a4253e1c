//! A circuit: two substreams joined, byte for byte, by a relay that understands none of it. Forwarders join theirs
//! the same way.
//!
//! What arrives is handed on without a copy, and no more is taken than the other side has room for, so
//! back-pressure reaches from end to end. An end of stream is passed on as one, a reset as a reset with its
//! code; a session that is lost resets the other side with [`LOST`]. A [`Policy`] holds both ways to a rate.
//! Both ways are polled by one task, so nothing is split and no waker is lost.
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
use tokio::time::sleep;

use crate::mux::{GoAwayCode, MuxError, StreamError, Substream};

/// Code of the reset that tells one end of a circuit that the other end's session is lost.
pub(crate) const LOST: u32 = 7;

/// Code of the reset that tells one end that whoever joins the two shuts down.
pub(crate) const GOING: u32 = 12;

/// Chunks of one way before the task lets others run; both ends may always be ready.
const TURNS: u32 = 16;

/// Pauses between two looks at what has not left yet, each twice as long as the one before.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// One end of a circuit, with what was read of it already.
pub(crate) struct End {
    stream: Substream,
    held: Bytes,
    /// Nothing more will come from it.
    ended: bool,
    /// Nothing more goes to it.
    shut: bool,
}

impl End {
    pub(crate) fn new((stream, held): (Substream, Bytes)) -> Self {
        Self {
            stream,
            held,
            ended: false,
            shut: false,
        }
    }
}

/// Carries a join to its end: both ways have ended and left, one of the ends failed, or `over` gave the code of a
/// reset. `moved` hears how many bytes each step took on.
///
/// # Cancel safety
/// Dropping the future resets both ends.
pub(crate) async fn copy(
    mut one: End,
    mut two: End,
    policy: Arc<dyn Policy>,
    over: impl Future<Output = u32>,
    mut moved: impl FnMut(usize),
) {
    let mut over = pin!(over);
    let mut there = Allowance::new(Arc::clone(&policy));
    let mut back = Allowance::new(policy);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(code) = over.as_mut().poll(cx) {
            return Poll::Ready(Err(code));
        }
        let code = |error| code_of(&error);
        let first = poll_way(&mut one, &mut two, &mut there, &mut moved, cx).map_err(code)?;
        let second = poll_way(&mut two, &mut one, &mut back, &mut moved, cx).map_err(code)?;
        ready!(first);
        ready!(second);
        Poll::Ready(Ok(()))
    });
    let ended = match ended.await {
        Ok(()) => tokio::select! {
            biased;
            code = over => Err(code),
            () = left([&one, &two]) => Ok(()),
        },
        Err(code) => Err(code),
    };
    if let Err(code) = ended {
        one.stream.reset(code);
        two.stream.reset(code);
    }
}

/// Waits until everything has left, or can't any more. The mux does not tell, so this looks now and then.
async fn left(ends: [&End; 2]) {
    let mut pause = FIRST_LOOK;
    while ends.iter().any(|end| end.stream.stats().unsent > 0) {
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_LOOK);
    }
}

/// Moves what can be moved from one end to the other.
fn poll_way(
    from: &mut End,
    to: &mut End,
    allowance: &mut Allowance,
    moved: &mut impl FnMut(usize),
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut turns = 0;
    loop {
        if from.held.is_empty() && !from.ended {
            match ready!(from.stream.poll_read_chunk(cx))? {
                Some(chunk) => from.held = chunk,
                None => from.ended = true,
            }
        }
        if from.held.is_empty() {
            if from.ended && !to.shut {
                ready!(Pin::new(&mut to.stream).poll_shutdown(cx))?;
                to.shut = true;
            }
            if from.ended {
                return Poll::Ready(Ok(()));
            }
            continue;
        }
        let most = ready!(allowance.poll(cx, from.held.len()));
        let mut part = from.held.slice(..most);
        let n = ready!(to.stream.poll_write_chunk(cx, &mut part))?;
        from.held.advance(n);
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
