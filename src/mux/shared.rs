//! The engine behind its lock, and the waking of everybody who waits for it.
//!
//! The lock is a plain mutex, held for the engine's bookkeeping only: never across IO, crypto or an
//! await, and never while somebody is woken. Copies of more than a few KiB are made outside of it.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, oneshot};

use super::engine::Engine;
use super::error::{MuxError, OpenError};
use super::line::Line;
use super::store::Key;

/// Pings of the application that may be under way at once; more wait.
const PINGS_AT_ONCE: usize = 32;

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Something was recorded for those who watch.
    pub(crate) events: Notify,
    /// The driver is done, a go-away has left, or nothing can be opened any more.
    pub(crate) done: Notify,
    pub(crate) pings: Semaphore,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    /// The driver, while it has nothing to send.
    pub(crate) driver: Option<Waker>,
    /// The driver, while it waits for the byte stream to take what it has, and whether it is to look at the engine.
    pub(crate) writing: Option<Waker>,
    pub(crate) look: bool,
    /// Who waits to open, and who to accept.
    opening: Line,
    accepting: Line,
    /// Somebody left a line whose turn it may have been.
    left: bool,
    /// Who waits for which ping.
    pings: Vec<(u64, oneshot::Sender<Duration>)>,
    /// A go-away has reached the byte stream below.
    pub(crate) go_away_flushed: bool,
    /// The driver has returned or was dropped.
    pub(crate) driver_done: bool,
}

impl Shared {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            inner: Mutex::new(Inner {
                engine,
                driver: None,
                writing: None,
                look: false,
                opening: Line::default(),
                accepting: Line::default(),
                left: false,
                pings: Vec::new(),
                go_away_flushed: false,
                driver_done: false,
            }),
            events: Notify::new(),
            done: Notify::new(),
            pings: Semaphore::new(PINGS_AT_ONCE),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        #[cfg(test)]
        super::model::step();
        // The engine does not panic; if a bug makes it, the other streams still get their errors.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the engine, and wakes whom it concerns, after the lock is free again.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        self.with_inner(|inner| f(&mut inner.engine))
    }

    /// [`Shared::with`], for the driver and the pings.
    pub(crate) fn with_inner<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let result = f(inner);
        let mut wakes = inner.engine.take_wakes();
        let notices = inner.engine.take_notices();
        let driver = if inner.driver.is_some() && inner.engine.wants_transmit() {
            inner.driver.take()
        } else {
            None
        };
        let writing = if notices.driver || notices.ended {
            inner.look = true;
            inner.writing.take()
        } else {
            None
        };
        let mut answered = Vec::new();
        for (token, round_trip) in notices.pongs {
            if let Some(at) = inner.pings.iter().position(|(known, _)| *known == token) {
                answered.push((inner.pings.swap_remove(at).1, round_trip));
            }
        }
        let hopeless = if inner.engine.end().is_some() {
            std::mem::take(&mut inner.pings)
        } else {
            Vec::new()
        };
        let left = std::mem::take(&mut inner.left) || notices.ended;
        if notices.accept || left {
            let room = inner.engine.accept_room();
            inner.accepting.wake(room, &mut wakes);
        }
        let mut spent = false;
        if notices.open || left {
            let room = inner.engine.open_room();
            inner.opening.wake(room, &mut wakes);
            spent = inner.engine.is_spent();
        }
        drop(guard);
        #[cfg(test)]
        super::model::step();
        drop(hopeless);
        for driver in [driver, writing].into_iter().flatten() {
            driver.wake();
        }
        wakes.wake();
        for (waiter, round_trip) in answered {
            // Whoever asked may have stopped waiting.
            let _ = waiter.send(round_trip);
        }
        if notices.event {
            self.events.notify_waiters();
        }
        if spent {
            self.done.notify_waiters();
        }
        result
    }

    /// Opens a stream and begins it, if there is room and nobody waits for that.
    pub(crate) fn open_now<R>(
        &self,
        now: Instant,
        begin: impl FnOnce(&mut Engine, Key) -> R,
    ) -> Result<Option<(Key, R)>, OpenError> {
        self.with_inner(|inner| {
            if inner.opening.ahead_of(None) >= inner.engine.open_room() {
                return Ok(None);
            }
            let opened = inner.engine.open(now)?;
            Ok(opened.map(|key| (key, begin(&mut inner.engine, key))))
        })
    }

    /// Opens a stream, when it is this caller's turn.
    pub(crate) async fn open(&self) -> Result<Key, OpenError> {
        let mut place = Place::new(self, |inner| &mut inner.opening);
        poll_fn(|cx| {
            self.with_inner(|inner| {
                if inner.opening.ahead_of(place.number) < inner.engine.open_room() {
                    if let Some(opened) = inner.engine.open(now()).transpose() {
                        place.leave(inner);
                        return Poll::Ready(opened);
                    }
                } else if place.number.is_none() {
                    inner.engine.open_waits();
                }
                place.wait(inner, cx);
                Poll::Pending
            })
        })
        .await
    }

    /// Takes a stream of the peer, when it is this caller's turn, and has a `look` at it.
    pub(crate) async fn accept<R>(
        &self,
        look: impl Fn(&mut Engine, Key) -> R,
    ) -> Result<(Key, R), MuxError> {
        let mut place = Place::new(self, |inner| &mut inner.accepting);
        poll_fn(|cx| {
            self.with_inner(|inner| {
                if inner.accepting.ahead_of(place.number) < inner.engine.accept_room() {
                    let accepted = inner.engine.accept();
                    let accepted = accepted.map(|key| Ok((key, look(&mut inner.engine, key))));
                    let end = || inner.engine.end().cloned().map(Err);
                    if let Some(done) = accepted.or_else(end) {
                        place.leave(inner);
                        return Poll::Ready(done);
                    }
                }
                place.wait(inner, cx);
                Poll::Pending
            })
        })
        .await
    }

    /// Asks for a round trip.
    pub(crate) fn ping(&self) -> Result<oneshot::Receiver<Duration>, MuxError> {
        self.with_inner(|inner| {
            let token = inner.engine.ping()?;
            let (answer, answered) = oneshot::channel();
            inner.pings.retain(|(_, waiter)| !waiter.is_closed());
            inner.pings.push((token, answer));
            Ok(answered)
        })
    }
}

/// The place of a future in a line, which it leaves when it is dropped.
struct Place<'a> {
    shared: &'a Shared,
    line: fn(&mut Inner) -> &mut Line,
    number: Option<u64>,
}

impl<'a> Place<'a> {
    fn new(shared: &'a Shared, line: fn(&mut Inner) -> &mut Line) -> Self {
        Self {
            shared,
            line,
            number: None,
        }
    }

    fn wait(&mut self, inner: &mut Inner, cx: &Context<'_>) {
        let line = (self.line)(inner);
        self.number = Some(line.wait(self.number, cx.waker()));
    }

    fn leave(&mut self, inner: &mut Inner) {
        if let Some(number) = self.number.take() {
            (self.line)(inner).leave(number);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.number.is_some() {
            let shared = self.shared;
            shared.with_inner(|inner| {
                self.leave(inner);
                inner.left = true;
            });
        }
    }
}

/// The time that the engine is told: tokio's, so that a test can hold it still.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
