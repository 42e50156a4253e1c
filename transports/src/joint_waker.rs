//! One waker for the write side of the stream below that wakes both the reading and the writing task.
//!
//! A reader of a stream that keeps output back drains that output too (the rest of a frame; in an onion an alert, the
//! answer to a KeyUpdate). Polling the write side below with the reader's waker would replace the writer's there, and
//! the writer would sleep for ever. So the write side is always polled with this joint waker, and each task leaves its
//! own with it.
//!
//! A task's waker stays when it was woken, and is replaced by that of another task only. So whoever polls again with the same one
//! has nothing to do but to compare, which is most polls; and a wake may wake a task that waits no more, which does no harm.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// The task that reads or the one that writes.
#[derive(Debug, Default)]
struct Task(Mutex<Option<Waker>>);

impl Task {
    fn replace(&self, waker: Waker) {
        let before = self.lock().replace(waker);
        // Outside of the lock: the last waker of a task drops the task.
        drop(before);
    }

    fn wake(&self) {
        let waker = self.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Both {
    reader: Task,
    writer: Task,
}

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// See the head of this file. For cepa's own streams; no part of the public interface.
#[derive(Debug)]
pub struct JointWaker {
    both: Arc<Both>,
    joint: Waker,
    /// What `both` has.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Default for JointWaker {
    fn default() -> Self {
        Self::new()
    }
}

impl JointWaker {
    /// A waker that wakes nobody yet.
    #[must_use]
    pub fn new() -> Self {
        let both = Arc::new(Both::default());
        let joint = Waker::from(Arc::clone(&both));
        Self {
            both,
            joint,
            reader: None,
            writer: None,
        }
    }

    /// Notes the task that waits to read.
    pub fn reader(&mut self, cx: &Context<'_>) {
        if changes(&mut self.reader, cx.waker()) {
            self.both.reader.replace(cx.waker().clone());
        }
    }

    /// Notes the task that waits to write.
    pub fn writer(&mut self, cx: &Context<'_>) {
        if changes(&mut self.writer, cx.waker()) {
            self.both.writer.replace(cx.waker().clone());
        }
    }

    /// What the wire's write side is to be polled with.
    #[must_use]
    pub fn joint(&self) -> &Waker {
        &self.joint
    }
}

/// Whether `known` wakes another task than `waker` does; it is `waker` then.
fn changes(known: &mut Option<Waker>, waker: &Waker) -> bool {
    if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
        return false;
    }
    *known = Some(waker.clone());
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn both_tasks_are_woken_each_time_and_the_last_of_each_kind() {
        let counts: [Arc<Count>; 3] = Default::default();
        let wakers = counts.clone().map(Waker::from);
        let [reads, writes, reads_later] = wakers.each_ref().map(Context::from_waker);
        let mut joint = JointWaker::new();
        joint.joint().wake_by_ref();
        let woken = |want: [usize; 3]| {
            let got = counts
                .each_ref()
                .map(|count| count.0.load(Ordering::Relaxed));
            assert_eq!(got, want);
        };
        woken([0, 0, 0]);
        joint.reader(&reads);
        joint.joint().wake_by_ref();
        woken([1, 0, 0]);
        joint.writer(&writes);
        // Noted again or not, it is woken again.
        joint.joint().wake_by_ref();
        woken([2, 1, 0]);
        joint.reader(&reads);
        joint.joint().wake_by_ref();
        woken([3, 2, 0]);
        joint.reader(&reads_later);
        joint.joint().wake_by_ref();
        woken([3, 3, 1]);
        joint.reader(&reads);
        joint.joint().wake_by_ref();
        woken([4, 4, 1]);
    }

    #[test]
    fn no_task_is_kept_by_a_stream_that_is_gone() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut joint = JointWaker::new();
        joint.reader(&Context::from_waker(&waker));
        joint.writer(&Context::from_waker(&waker));
        drop((joint, waker));
        assert_eq!(Arc::strong_count(&count), 1);
    }
}
