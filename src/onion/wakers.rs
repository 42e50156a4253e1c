//! One waker for the wire's write side that wakes both the reading and the writing task.
//!
//! A reader of the onion drains its pending output too (an alert, the answer to a KeyUpdate, what a
//! writer left behind). Polling the wire's write side with the reader's waker would replace the
//! writer's there, and the writer would sleep for ever. So the write side is always polled with
//! this joint waker, and each task leaves its own with it.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

#[derive(Default)]
struct Both {
    reader: AtomicWaker,
    writer: AtomicWaker,
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

pub(super) struct Wakers {
    both: Arc<Both>,
    joint: Waker,
}

impl Wakers {
    pub(super) fn new() -> Self {
        let both = Arc::new(Both::default());
        let joint = Waker::from(Arc::clone(&both));
        Self { both, joint }
    }

    /// Notes the task that waits to read.
    pub(super) fn reader(&self, cx: &Context<'_>) {
        self.both.reader.register(cx.waker());
    }

    /// Notes the task that waits to write.
    pub(super) fn writer(&self, cx: &Context<'_>) {
        self.both.writer.register(cx.waker());
    }

    /// What the wire's write side is to be polled with.
    pub(super) fn joint(&self) -> &Waker {
        &self.joint
    }
}
