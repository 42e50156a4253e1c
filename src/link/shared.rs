//! The engine behind its lock, and who waits for it.
//!
//! The lock is held for the engine's work alone, never across IO or a wake-up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::engine::{Engine, Waits};

pub(crate) struct Shared {
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    /// Waits for something to read.
    pub(crate) reader: Option<Waker>,
    /// Waits for room.
    pub(crate) writer: Option<Waker>,
    /// Waits for all that was written to have gone.
    pub(crate) flusher: Option<Waker>,
    /// Waits for the arrival of all that was written.
    pub(crate) closer: Option<Waker>,
    /// Has nothing to do.
    pub(crate) driver: Option<Waker>,
    /// The application has dropped its end.
    pub(crate) dropped: bool,
}

impl Shared {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            inner: Mutex::new(Inner {
                engine,
                reader: None,
                writer: None,
                flusher: None,
                closer: None,
                driver: None,
                dropped: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something the application does; wakes the driver where `f` says so.
    pub(crate) fn command<R>(&self, f: impl FnOnce(&mut Inner) -> (R, bool)) -> R {
        let mut inner = self.lock();
        let (result, wake) = f(&mut inner);
        let waker = if wake { inner.driver.take() } else { None };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// Something the driver does; wakes whoever waits for what has become of it.
    pub(crate) fn drive<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        let result = f(&mut inner);
        let wakes = inner.take_wakes();
        drop(inner);
        wakes.into_iter().flatten().for_each(Waker::wake);
        result
    }
}

impl Inner {
    pub(crate) fn waits(&self) -> Waits {
        Waits {
            room: self.writer.is_some(),
            flush: self.flusher.is_some(),
        }
    }

    fn take_wakes(&mut self) -> [Option<Waker>; 4] {
        let engine = &self.engine;
        let ended = engine.end().is_some();
        let take = |waker: &mut Option<Waker>, when: bool| when.then(|| waker.take()).flatten();
        let readable = ended || engine.is_readable() || engine.is_read_out();
        let writable = ended || (self.writer.is_some() && engine.is_writable(now()));
        let flushed = ended || (self.flusher.is_some() && engine.is_flushed(now()));
        let closed = ended || engine.is_finished();
        [
            take(&mut self.reader, readable),
            take(&mut self.writer, writable),
            take(&mut self.flusher, flushed),
            take(&mut self.closer, closed),
        ]
    }
}

/// The one clock of the link: tokio's, so that tests can stop it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
