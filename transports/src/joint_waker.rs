//! One waker for the write side of the stream below that wakes both the reading and the writing task.
//!
//! A reader of a stream that keeps output back drains that output too (the rest of a frame; in an onion an alert, the
//! answer to a KeyUpdate). Polling the write side below with the reader's waker would replace the writer's there, and
//! the writer would sleep for ever. So the write side is always polled with this joint waker, and each task leaves its
//! own with it.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

#[derive(Debug, Default)]
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

/// See the head of this file. For cepa's own streams; no part of the public interface.
#[derive(Debug)]
pub struct JointWaker {
    both: Arc<Both>,
    joint: Waker,
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
        Self { both, joint }
    }

    /// Notes the task that waits to read.
    pub fn reader(&self, cx: &Context<'_>) {
        self.both.reader.register(cx.waker());
    }

    /// Notes the task that waits to write.
    pub fn writer(&self, cx: &Context<'_>) {
        self.both.writer.register(cx.waker());
    }

    /// What the wire's write side is to be polled with.
    #[must_use]
    pub fn joint(&self) -> &Waker {
        &self.joint
    }
}
