//! A serial cable: two byte streams with a [`Medium`] between them, in tokio's time.
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

use super::line::LineSettings;
use super::medium::Medium;

/// Two ends joined by a line. `there` is what happens to the bytes of the first end, `back` to those of
/// the second; the seed decides both.
pub fn cable(there: &LineSettings, back: &LineSettings, seed: u64) -> (CableEnd, CableEnd) {
    ends(Medium::two_way(there, back, seed, now()))
}

/// Two ends on the same wires: what both send at the same time collides. `echo`: each hears what it sends.
pub fn bus(settings: &LineSettings, echo: bool, seed: u64) -> (CableEnd, CableEnd) {
    ends(Medium::one_way(settings, echo, seed, now()))
}

fn ends(medium: Medium) -> (CableEnd, CableEnd) {
    let wires = Arc::new(Mutex::new(Wires {
        medium,
        over: false,
        users: [User::default(), User::default()],
    }));
    let end = |number| CableEnd {
        wires: Arc::clone(&wires),
        number,
        reading: Alarm::default(),
        writing: Alarm::default(),
    };
    (end(0), end(1))
}

/// One end of a [`cable`] or a [`bus`].
#[derive(Debug)]
pub struct CableEnd {
    wires: Arc<Mutex<Wires>>,
    number: usize,
    reading: Alarm,
    writing: Alarm,
}

#[derive(Debug)]
struct Wires {
    medium: Medium,
    over: bool,
    users: [User; 2],
}

/// What is kept for an end.
#[derive(Debug, Default)]
struct User {
    /// Arrived, and not read yet.
    arrived: Vec<u8>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wires {
    /// Something changed: readers have to look when they will hear of it.
    fn wake_readers(&mut self) {
        for user in &mut self.users {
            if let Some(waker) = user.reader.take() {
                waker.wake();
            }
        }
    }
}

impl CableEnd {
    /// Ends both directions for both ends, as when a port is pulled out: what is on the way is lost, reads
    /// give the end of the stream and writes fail.
    pub fn cut_off(&self) {
        cut_off(&self.wires);
    }

    /// Looks at the direction that this end sends in, also once the end itself is in use.
    pub fn watch(&self) -> CableWatch {
        CableWatch {
            wires: Arc::clone(&self.wires),
            number: self.number,
        }
    }
}

/// Looks at one direction of a [`cable`].
#[derive(Clone, Debug)]
pub struct CableWatch {
    wires: Arc<Mutex<Wires>>,
    number: usize,
}

impl CableWatch {
    /// Bytes that the driver holds.
    pub fn queued(&self) -> usize {
        lock(&self.wires).medium.queued(now(), self.number)
    }

    /// Bytes that the driver would take now.
    pub fn room(&self) -> usize {
        lock(&self.wires).medium.room(now(), self.number)
    }

    /// Bytes that have left the driver since the start.
    pub fn carried(&self) -> u64 {
        lock(&self.wires).medium.carried(self.number)
    }

    /// As [`CableEnd::cut_off`], once the end itself is in use.
    pub fn cut_off(&self) {
        cut_off(&self.wires);
    }

    /// Bytes of both ends that collided since the start.
    pub fn collided(&self) -> u64 {
        lock(&self.wires).medium.collided()
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
                let mut wires = lock(&this.wires);
                let fresh = wires.medium.read(now(), this.number);
                let over = wires.over;
                let next = wires.medium.next_heard(this.number);
                let Some(user) = wires.users.get_mut(this.number) else {
                    return Poll::Pending;
                };
                user.arrived.extend(fresh);
                if !user.arrived.is_empty() || over || buf.remaining() == 0 {
                    let n = user.arrived.len().min(buf.remaining());
                    let taken: Vec<u8> = user.arrived.drain(..n).collect();
                    buf.put_slice(&taken);
                    return Poll::Ready(Ok(()));
                }
                user.reader = Some(cx.waker().clone());
                next
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
                let mut wires = lock(&this.wires);
                if wires.over {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                let taken = wires.medium.write(now(), this.number, bytes);
                if taken > 0 || bytes.is_empty() {
                    wires.wake_readers();
                    return Poll::Ready(Ok(taken));
                }
                if let Some(user) = wires.users.get_mut(this.number) {
                    user.writer = Some(cx.waker().clone());
                }
                wires.medium.next_room(this.number)
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

fn cut_off(wires: &Mutex<Wires>) {
    let mut wires = lock(wires);
    wires.over = true;
    wires.wake_readers();
    for user in &mut wires.users {
        user.arrived.clear();
        if let Some(waker) = user.writer.take() {
            waker.wake();
        }
    }
    wires.medium.flush(0);
    wires.medium.flush(1);
}

fn lock(wires: &Mutex<Wires>) -> MutexGuard<'_, Wires> {
    wires.lock().unwrap_or_else(PoisonError::into_inner)
}
