//! A path inside this process: two ends of a byte stream with a rate, a buffer and a delay each way.
//!
//! `engine` has the rules of one direction, `alarm` the clock that wakes its reader and its writer, and this file
//! the streams. `pongs` tampers with what a plain yamux peer answers.

mod alarm;
mod engine;
mod pongs;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use alarm::Alarm;
use engine::Direction;

pub(crate) use engine::Path;
pub(crate) use pongs::{Pongs, Tampered};

/// Two ends, and the knob that changes the rate of both directions.
pub(crate) fn link(path: Path) -> io::Result<(End, End, Knob)> {
    let alarm = Alarm::new()?;
    let there = Way::new(path, alarm.clone());
    let back = Way::new(path, alarm);
    let near = End {
        out: Arc::clone(&there),
        back: Arc::clone(&back),
    };
    let far = End {
        out: Arc::clone(&back),
        back: Arc::clone(&there),
    };
    Ok((
        near,
        far,
        Knob {
            ways: [there, back],
        },
    ))
}

/// One end. Dropping it closes its direction.
pub(crate) struct End {
    out: Arc<Way>,
    back: Arc<Way>,
}

/// Changes the rate while the link is in use.
pub(crate) struct Knob {
    ways: [Arc<Way>; 2],
}

impl Knob {
    pub(crate) fn set_rate(&self, rate: f64) {
        for way in &self.ways {
            let mut state = way.state();
            state.direction.set_rate(Instant::now(), rate);
            state.wake();
        }
    }
}

/// One direction between two tasks.
struct Way {
    state: Mutex<State>,
    alarm: Alarm,
}

struct State {
    direction: Direction,
    reader: Waiting,
    writer: Waiting,
}

/// Who waits, and the alarm that is set for them.
#[derive(Default)]
struct Waiting {
    waker: Option<Waker>,
    alarm: Option<Instant>,
}

impl Waiting {
    /// Sets an alarm unless an earlier one is still to ring.
    fn arm(&mut self, alarm: &Alarm, now: Instant, at: Instant) {
        let set = self.alarm.is_some_and(|set| set > now && set <= at);
        if let (Some(waker), false) = (&self.waker, set) {
            alarm.wake_at(at, waker.clone());
            self.alarm = Some(at);
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        let same = self.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if !same {
            self.waker = Some(cx.waker().clone());
            // An alarm that is set would ring for somebody else.
            self.alarm = None;
        }
    }
}

impl State {
    fn wake(&mut self) {
        for waiting in [&mut self.reader, &mut self.writer] {
            waiting.alarm = None;
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Way {
    fn new(path: Path, alarm: Alarm) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                direction: Direction::new(path, Instant::now()),
                reader: Waiting::default(),
                writer: Waiting::default(),
            }),
            alarm,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.state();
        state.direction.close();
        state.wake();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.out.close();
        // Nobody reads any more.
        self.back.close();
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.back.state();
        let state = &mut *state;
        let now = Instant::now();
        let n = state.direction.pop(now, into.initialize_unfilled());
        into.advance(n);
        if n > 0 || state.direction.at_end() || into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        state.reader.wait(cx);
        if let Some(at) = state.direction.next_arrival() {
            state.reader.arm(&self.back.alarm, now, at);
        }
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.out.state();
        let state = &mut *state;
        if state.direction.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let now = Instant::now();
        let n = state.direction.push(now, bytes);
        if n > 0 || bytes.is_empty() {
            if let Some(at) = state.direction.next_arrival() {
                state.reader.arm(&self.out.alarm, now, at);
            }
            return Poll::Ready(Ok(n));
        }
        state.writer.wait(cx);
        let at = state.direction.next_room();
        state.writer.arm(&self.out.alarm, now, at);
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn carries_bytes_both_ways_in_order_and_ends() {
        let path = Path {
            rate: 10e6,
            buffer: 4096,
            delay: Duration::from_millis(1),
        };
        let (mut near, mut far, knob) = link(path).unwrap();
        let data: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            near.write_all(&sent[..100_000]).await.unwrap();
            knob.set_rate(20e6);
            near.write_all(&sent[100_000..]).await.unwrap();
            near.shutdown().await.unwrap();
            near.read_u8().await.unwrap()
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(got == data);
        far.write_u8(42).await.unwrap();
        assert_eq!(writer.await.unwrap(), 42);
    }

    #[tokio::test]
    async fn an_end_that_is_dropped_ends_the_other() {
        let path = Path {
            rate: 1e6,
            buffer: 16,
            delay: Duration::ZERO,
        };
        let (near, mut far, _knob) = link(path).unwrap();
        drop(near);
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(far.write_all(&[0; 64]).await.is_err());
    }
}
