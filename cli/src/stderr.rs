//! Standard error, written by a thread of its own: a pipe that nobody reads, or a terminal that was stopped with ^S, holds up that
//! thread and nothing else. Lines wait in a queue of fixed length; when it is full they are dropped, and counted in the
//! next one that there is room for.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait, of at most 16 KiB each.
const LINES: usize = 256;

/// Pause between two attempts to get into a full queue, at the end of the process.
const PAUSE: Duration = Duration::from_millis(5);

enum Item {
    Text(Vec<u8>),
    /// Whoever waits is told that all before it was written.
    Flush(SyncSender<()>),
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// `None` where no thread could be started: then the caller writes.
static QUEUE: LazyLock<Option<SyncSender<Item>>> = LazyLock::new(|| {
    let (queue, items) = sync_channel(LINES);
    let thread = thread::Builder::new().name("stderr".to_owned());
    thread.spawn(move || run(&items)).is_ok().then_some(queue)
});

/// Writes whole lines; never waits for who reads them. A closed standard error is nobody's error.
pub(crate) fn write(text: Vec<u8>) {
    let Some(queue) = &*QUEUE else {
        let _ = io::stderr().write_all(&text);
        return;
    };
    if let Err(TrySendError::Full(_)) = queue.try_send(Item::Text(text)) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until everything was written, but no longer than this.
pub(crate) fn flush(within: Duration) {
    let until = Instant::now() + within;
    let Some(queue) = &*QUEUE else {
        return;
    };
    let (done, written) = mpsc::sync_channel(1);
    let mut item = Item::Flush(done);
    while let Err(TrySendError::Full(back)) = queue.try_send(item) {
        if Instant::now() >= until {
            return;
        }
        item = back;
        thread::sleep(PAUSE);
    }
    let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
}

fn run(items: &Receiver<Item>) {
    let mut stderr = io::stderr();
    while let Ok(item) = items.recv() {
        let _ = match item {
            // One write a line, so that lines of several processes do not mix.
            Item::Text(text) => stderr.write_all(&text),
            Item::Flush(done) => done.send(()).map_err(|_| io::ErrorKind::BrokenPipe.into()),
        };
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(
                stderr,
                "({dropped} lines were dropped: nobody read standard error for a while)"
            );
        }
    }
}
