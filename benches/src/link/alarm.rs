//! Wakes tasks at a time, to about a tenth of a millisecond: a thread that sleeps until the next alarm.
//!
//! tokio's own timer is as coarse as a millisecond or two, which would be most of what a good peer takes.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

/// A clone rings in the same thread. The thread ends when the last is dropped.
#[derive(Clone)]
pub(crate) struct Alarm {
    /// Dropped before the thread is told, so that it finds nobody left.
    shared: Arc<Shared>,
    _last: Arc<Last>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<BinaryHeap<Reverse<Entry>>>,
    changed: Condvar,
}

struct Last {
    shared: Weak<Shared>,
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.changed.notify_one();
        }
    }
}

struct Entry {
    at: Instant,
    waker: Waker,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Entry>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    pub(crate) fn new() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let last = Arc::new(Last {
            shared: Arc::downgrade(&shared),
        });
        let (of_thread, alive) = (Arc::clone(&shared), Arc::downgrade(&last));
        std::thread::Builder::new()
            .name("alarm".into())
            .spawn(move || ring(&of_thread, &alive))?;
        Ok(Self {
            shared,
            _last: last,
        })
    }

    pub(crate) fn wake_at(&self, at: Instant, waker: Waker) {
        let mut queue = self.shared.queue();
        let sooner = queue.peek().is_none_or(|first| at < first.0.at);
        queue.push(Reverse(Entry { at, waker }));
        drop(queue);
        if sooner {
            self.shared.changed.notify_one();
        }
    }
}

fn ring(shared: &Shared, alive: &Weak<Last>) {
    let mut queue = shared.queue();
    while alive.strong_count() > 0 {
        let now = Instant::now();
        match queue.peek() {
            Some(first) if first.0.at <= now => {
                let due = queue.pop();
                drop(queue);
                if let Some(Reverse(entry)) = due {
                    entry.waker.wake();
                }
                queue = shared.queue();
            }
            Some(first) => {
                let wait = first.0.at - now;
                let woken = shared.changed.wait_timeout(queue, wait);
                queue = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            None => {
                let woken = shared.changed.wait(queue);
                queue = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
