//! Standard error, written by a thread of its own: a pipe that nobody reads, or a terminal that was stopped with ^S, holds up that
//! thread and nothing else. Lines wait in a queue of fixed length; when it is full they are dropped, and counted in the
//! next one that there is room for.
//!
//! While a console has the terminal, a line feed alone does not go to the start of the line, so lines end with CR LF then. The thread
//! asks when it writes, and not when a line is queued: the terminal may have changed in between.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Whether standard error is a terminal that is raw, or about to be.
static RAW: AtomicBool = AtomicBool::new(false);

/// To be said before the terminal becomes raw, and after it no longer is. A file keeps its plain lines.
pub(crate) fn raw(yes: bool) {
    RAW.store(yes && io::stderr().is_terminal(), Ordering::SeqCst);
    if yes {
        // What is being written at the moment ends as it was.
        flush(BEFORE_RAW);
    }
}

/// How long a terminal may take to show what was said before it becomes raw.
const BEFORE_RAW: Duration = Duration::from_secs(1);

/// The text with each line feed behind a carriage return, where the terminal is raw.
fn ended(text: Vec<u8>, raw: bool) -> Vec<u8> {
    if !raw {
        return text;
    }
    let mut out = Vec::with_capacity(text.len() + 8);
    for byte in text {
        if byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

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
            Item::Text(text) => stderr.write_all(&ended(text, RAW.load(Ordering::SeqCst))),
            Item::Flush(done) => done.send(()).map_err(|_| io::ErrorKind::BrokenPipe.into()),
        };
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let line =
                format!("({dropped} lines were dropped: nobody read standard error for a while)\n");
            let _ = stderr.write_all(&ended(line.into_bytes(), RAW.load(Ordering::SeqCst)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_terminal_gets_a_carriage_return_with_each_line_feed_and_one_only() {
        assert_eq!(ended(b"a\nb\r\n".to_vec(), true), b"a\r\nb\r\n");
        assert_eq!(ended(b"a\nb\r\n".to_vec(), false), b"a\nb\r\n");
    }
}
