//! What is typed at a console, on its way to the service: held until that takes it, up to a bound, and thrown away while there is none.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

/// Typed and not taken by the service yet. Beyond that the keyboard is not read, escapes included.
const TYPED: usize = 64 * 1024;

/// What was typed, on its way.
#[derive(Default)]
pub(super) struct Typed {
    bytes: Mutex<Vec<u8>>,
    /// There is nobody to send it to: it is thrown away.
    away: AtomicBool,
    /// Something is to be sent.
    more: Notify,
    /// There is room again.
    room: Notify,
}

impl Typed {
    pub(super) fn push(&self, bytes: &[u8]) {
        if self.away.load(Ordering::Relaxed) {
            return;
        }
        lock(&self.bytes).extend(bytes);
        self.more.notify_one();
    }

    /// There is something else to send, beside it.
    pub(super) fn has_more(&self) {
        self.more.notify_one();
    }

    fn take(&self) -> Vec<u8> {
        let taken = std::mem::take(&mut *lock(&self.bytes));
        self.room.notify_one();
        taken
    }

    /// The service is gone, or there again. What was on its way to the old one is for nobody.
    pub(super) fn away(&self, yes: bool) {
        self.away.store(yes, Ordering::Relaxed);
        self.take();
    }

    pub(super) async fn wait_for_room(&self) {
        while lock(&self.bytes).len() >= TYPED {
            self.room.notified().await;
        }
    }
}

/// Sends it, and what waits beside it, until that fails.
pub(super) async fn send(mut input: impl AsyncWrite + Unpin, typed: &Typed) -> io::Result<()> {
    loop {
        let bytes = typed.take();
        input.write_all(&bytes).await?;
        input.flush().await?;
        typed.more.notified().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
