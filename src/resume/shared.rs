//! What a durable stream and its handles share: the letters from the handles, and what they may know.
//!
//! The stream owns the engine and the path, so that no byte takes a lock. A handle that wants something leaves a letter
//! and wakes whoever polls the stream; the answer comes back by a channel of one. The lock is held for neither IO nor waking.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use cepa_transports::Rate;
use tokio::sync::{Notify, oneshot};

use super::engine::Counters;
use super::error::{AttachError, PathLost, Refusal, SessionLost};
use super::hello::At;

/// The time that the engine is told: tokio's, so that a test can hold it still.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a handle wants.
pub(crate) enum Letter<P> {
    Endure,
    /// Under a number that was not used before.
    Propose(u64, oneshot::Sender<At>),
    Withdraw(u64),
    Claim(At, oneshot::Sender<Result<At, Refusal>>),
    AttachProposed {
        path: P,
        line_rate: Option<Rate>,
        proposal: u64,
        theirs: At,
        done: oneshot::Sender<Result<u64, AttachError>>,
    },
    AttachClaimed {
        path: P,
        line_rate: Option<Rate>,
        theirs: At,
        ours: At,
        done: oneshot::Sender<Result<u64, AttachError>>,
    },
    SetPark(Duration),
    Probe,
    GiveUp(SessionLost),
}

/// What handles may know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Why there is no path, while there is none.
    pub(crate) lost: Option<PathLost>,
    /// The stream is over: in order, or why not.
    pub(crate) over: Option<Result<(), SessionLost>>,
    /// Once it is over: all that this end said has arrived; and all that the peer said is here as well.
    pub(crate) heard: bool,
    pub(crate) complete: bool,
    pub(crate) counters: Counters,
    /// Since when there is no path.
    pub(crate) pathless_since: Option<Instant>,
    pub(crate) peer_park: Option<Duration>,
    /// How long the session is kept without a path: the shorter time of the two ends.
    pub(crate) park: Duration,
    pub(crate) round_trip: Option<Duration>,
}

struct Inner<P> {
    /// None once the stream was dropped.
    letters: Option<Vec<Letter<P>>>,
    status: Status,
}

pub(crate) struct Shared<P> {
    inner: Mutex<Inner<P>>,
    /// There are letters.
    waiting: AtomicBool,
    /// Wakes whoever polls the stream.
    waker: Waker,
    pub(crate) changed: Notify,
    pub(crate) received: AtomicU64,
    pub(crate) held: AtomicU64,
    proposals: AtomicU64,
}

impl<P> Shared<P> {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            inner: Mutex::new(Inner {
                letters: Some(Vec::new()),
                status: Status::default(),
            }),
            waiting: AtomicBool::new(false),
            waker,
            changed: Notify::new(),
            received: AtomicU64::new(0),
            held: AtomicU64::new(0),
            proposals: AtomicU64::new(0),
        }
    }

    /// A number for a proposal.
    pub(crate) fn number(&self) -> u64 {
        self.proposals.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<P>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a letter; it is dropped where nobody is left to read it.
    pub(crate) fn post(&self, letter: Letter<P>) {
        let unread = {
            let mut inner = self.lock();
            match &mut inner.letters {
                Some(letters) => {
                    letters.push(letter);
                    None
                }
                None => Some(letter),
            }
        };
        if unread.is_none() {
            self.waiting.store(true, Ordering::Release);
            self.waker.wake_by_ref();
        }
        // Outside of the lock: what it holds may leave a letter when it goes.
        drop(unread);
    }

    /// Whether there may be letters.
    pub(crate) fn has_letters(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// The letters, if there are any.
    pub(crate) fn letters(&self) -> Vec<Letter<P>> {
        if !self.waiting.load(Ordering::Acquire) || !self.waiting.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut inner = self.lock();
        inner
            .letters
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Nobody reads letters any more.
    pub(crate) fn close(&self) {
        let letters = self.lock().letters.take();
        drop(letters);
    }

    pub(crate) fn status(&self) -> Status {
        self.lock().status.clone()
    }

    /// Changes what handles may know, and tells them.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
        self.changed.notify_waiters();
    }
}
