//! A serial cable: two byte streams with a [`Line`] each way between them, in tokio's time.
//!
//! A write gives the line what its driver's buffer takes; a read takes what has arrived. Both wait by a
//! timer for what the line does next, so everything above runs in virtual time where tokio's clock is
//! paused, and every run is the same; and in real time where it is not. As a real cable, it carries no end: a
//! stream that is shut down or dropped falls silent, and the other one waits. [`CableEnd::cut_off`] is there for tests
//! that want an end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::line::{Line, LineSettings};

/// Two ends joined by a line. `there` is what happens to the bytes of the first end, `back` to those of
/// the second; the seed decides both.
pub fn cable(there: &LineSettings, back: &LineSettings, seed: u64) -> (CableEnd, CableEnd) {
    let start = now();
    let way = |settings: &LineSettings, turn: u64| {
        let seed = seed.wrapping_mul(2).wrapping_add(turn);
        Arc::new(Mutex::new(Way {
            line: Line::new(settings.clone(), seed, start),
            arrived: Vec::new(),
            over: false,
            reader: None,
            writer: None,
        }))
    };
    let (there, back) = (way(there, 0), way(back, 1));
    let end = |out: &Shared, back: &Shared| CableEnd {
        out: Arc::clone(out),
        back: Arc::clone(back),
        reading: Alarm::default(),
        writing: Alarm::default(),
    };
    (end(&there, &back), end(&back, &there))
}

/// One end of a [`cable`].
#[derive(Debug)]
pub struct CableEnd {
    out: Shared,
    back: Shared,
    reading: Alarm,
    writing: Alarm,
}

type Shared = Arc<Mutex<Way>>;

#[derive(Debug)]
struct Way {
    line: Line,
    /// Arrived, and not read yet.
    arrived: Vec<u8>,
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl CableEnd {
    /// Ends both directions for both ends, as when a port is pulled out: what is on the way is lost, reads
    /// give the end of the stream and writes fail.
    pub fn cut_off(&self) {
        for way in [&self.out, &self.back] {
            let mut way = lock(way);
            way.over = true;
            way.arrived.clear();
            way.line.flush();
            for waker in [way.reader.take(), way.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }

    /// Looks at the direction that this end sends in, also once the end itself is in use.
    pub fn watch(&self) -> CableWatch {
        CableWatch {
            out: Arc::clone(&self.out),
        }
    }
}

/// Looks at one direction of a [`cable`].
#[derive(Clone, Debug)]
pub struct CableWatch {
    out: Shared,
}

impl CableWatch {
    /// Bytes that the driver holds.
    pub fn queued(&self) -> usize {
        lock(&self.out).line.queued(now())
    }

    /// Bytes that the driver would take now.
    pub fn room(&self) -> usize {
        lock(&self.out).line.room(now())
    }

    /// Bytes that have left the driver since the start.
    pub fn carried(&self) -> u64 {
        lock(&self.out).line.carried()
    }
}

impl AsyncRead for CableEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let next = {
                let mut way = lock(&this.back);
                let fresh = way.line.read(now());
                way.arrived.extend(fresh);
                if !way.arrived.is_empty() || way.over || buf.remaining() == 0 {
                    let n = way.arrived.len().min(buf.remaining());
                    let taken: Vec<u8> = way.arrived.drain(..n).collect();
                    buf.put_slice(&taken);
                    return Poll::Ready(Ok(()));
                }
                way.reader = Some(cx.waker().clone());
                way.line.next()
            };
            if this.reading.poll(cx, next).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for CableEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let next = {
                let mut way = lock(&this.out);
                if way.over {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                let taken = way.line.write(now(), bytes);
                if taken > 0 || bytes.is_empty() {
                    if let Some(reader) = way.reader.take() {
                        reader.wake();
                    }
                    return Poll::Ready(Ok(taken));
                }
                way.writer = Some(cx.waker().clone());
                way.line.next()
            };
            if this.writing.poll(cx, next).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A timer that is set anew at each poll.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready when the time has come; never where there is none, until somebody else wakes.
    fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else {
            return Poll::Pending;
        };
        let at = at.into();
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock(way: &Shared) -> MutexGuard<'_, Way> {
    way.lock().unwrap_or_else(PoisonError::into_inner)
}
