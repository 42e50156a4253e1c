//! The engine behind its lock, and the waking of everybody who waits for it.
//!
//! The lock is a plain mutex, held for the engine's bookkeeping only: never across IO, crypto or an
//! await, and never while somebody is woken. Copies of more than a few KiB are made outside of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, oneshot};

use super::engine::Engine;
use super::error::MuxError;

/// Pings of the application that may be under way at once; more wait.
const PINGS_AT_ONCE: usize = 32;

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// A stream waits to be accepted, or the session ended.
    pub(crate) accept: Notify,
    /// An open may succeed or fail now.
    pub(crate) open: Notify,
    /// Something was recorded for those who watch.
    pub(crate) events: Notify,
    /// The driver is done, or a go-away has left.
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
                pings: Vec::new(),
                go_away_flushed: false,
                driver_done: false,
            }),
            accept: Notify::new(),
            open: Notify::new(),
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
        let mut inner = self.lock();
        let result = f(&mut inner);
        let wakes = inner.engine.take_wakes();
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
        drop(inner);
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
        if notices.accept || notices.ended {
            self.accept.notify_waiters();
        }
        if notices.event {
            self.events.notify_waiters();
        }
        if notices.open || notices.ended {
            self.open.notify_waiters();
        }
        result
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

/// The time that the engine is told: tokio's, so that a test can hold it still.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
