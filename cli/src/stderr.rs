//! Standard error, written by a thread of its own: a pipe that nobody reads, or a terminal that was stopped with ^S, holds up that
//! thread and nothing else. Lines wait in a queue of bounded size; when it is full they are dropped, and counted in a line behind
//! the last one that there was room for. Who passes on lines of a command waits for [`room`] first, for as long as somebody reads.
//!
//! On a terminal there may be a status line ([`status`]), which has no line end and is always the last: it is taken away before
//! another line is written, and stands behind it again, in one write. Only the last one waits, so that it takes no place of lines.
//!
//! While a console has the terminal, a line feed alone does not go to the start of the line, so lines end with CR LF then. The thread
//! asks when it writes, and not when a line is queued: the terminal may have changed in between.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::columns::{WIDTH, count};

/// Memory of the lines that wait, of at most 16 KiB each.
const MOST: usize = 512 * 1024;
/// Up to here there is room for as much as comes at once.
const ROOM: usize = MOST / 4;
/// What a line costs beside its text.
const LINE: usize = 64;
/// How long room is waited for while nobody reads.
const PATIENCE: Duration = Duration::from_secs(5);

/// The form of the line about dropped ones, where that is not plain text.
pub(crate) static NOTES: OnceLock<fn(&str) -> String> = OnceLock::new();

enum Item {
    Text(Vec<u8>),
    /// Whoever waits is told that all before it was written.
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    size: usize,
    /// The status line to show from now on.
    status: Option<String>,
    /// Lines that there was no room for.
    dropped: u64,
    /// Items that were written, ever.
    written: u64,
    /// Room was waited for in vain since one was written.
    stalled: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
    /// One was written.
    moved: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Counts are whole after every statement.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
static QUEUE: LazyLock<Option<Arc<Queue>>> = LazyLock::new(|| {
    let queue = Arc::new(Queue::default());
    let thread = thread::Builder::new().name("stderr".to_owned());
    let of_thread = Arc::clone(&queue);
    thread
        .spawn(move || run(&of_thread))
        .is_ok()
        .then_some(queue)
});

/// Writes whole lines; never waits for who reads them. A closed standard error is nobody's error.
pub(crate) fn write(text: Vec<u8>) {
    let Some(queue) = &*QUEUE else {
        let _ = io::stderr().write_all(&text);
        return;
    };
    let mut waiting = queue.lock();
    let size = text.len() + LINE;
    if waiting.size + size > MOST {
        waiting.dropped += 1;
        return;
    }
    waiting.size += size;
    waiting.items.push_back(Item::Text(text));
    drop(waiting);
    queue.more.notify_one();
}

/// Shows this as the last line of the terminal from now on, in place of the one before; empty for none.
pub(crate) fn status(line: String) {
    // Without the thread nobody would take it away in time.
    if let Some(queue) = &*QUEUE {
        queue.lock().status = Some(line);
        queue.more.notify_one();
    }
}

/// Takes the cursor to the start of its line, and empties that.
const EMPTIED: &str = "\r\x1b[K";

/// Columns that a line may have: the last one would wrap at some terminals.
pub(crate) fn columns() -> usize {
    let size = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    match size {
        0 => WIDTH,
        size => size.min(WIDTH),
    }
    .saturating_sub(1)
}

/// Whether the terminal is this process's to draw on, as far as a shell has a say in it.
pub(crate) fn is_in_front() -> bool {
    // A terminal that is not this session's has no group that could be another one.
    tcgetpgrp(io::stderr()).map_or(true, |front| front == getpgrp())
}

/// What shows a text where the status line `before` is seen, and the line `after` is to be seen behind it.
fn around(before: &str, text: &[u8], after: &str) -> Vec<u8> {
    let emptied = if before.is_empty() { "" } else { EMPTIED };
    [emptied.as_bytes(), text, after.as_bytes()].concat()
}

/// Waits until there is room for many lines, unless nobody reads for long: what is written then may be dropped. To be called
/// inside the runtime.
pub(crate) fn room() -> BoxFuture<'static, ()> {
    Box::pin(async {
        let Some(queue) = &*QUEUE else {
            return;
        };
        loop {
            let moved = queue.moved.notified();
            let before = {
                let waiting = queue.lock();
                if waiting.size <= ROOM || waiting.stalled {
                    return;
                }
                waiting.written
            };
            if timeout(PATIENCE, moved).await.is_err() {
                let mut waiting = queue.lock();
                waiting.stalled = waiting.written == before;
            }
        }
    })
}

/// Waits until everything was written, as long as some of it is within each such time.
pub(crate) fn flush(within: Duration) {
    let Some(queue) = &*QUEUE else {
        return;
    };
    let (done, written) = mpsc::sync_channel(1);
    queue.lock().items.push_back(Item::Flush(done));
    queue.more.notify_one();
    loop {
        let before = queue.lock().written;
        match written.recv_timeout(within) {
            Err(RecvTimeoutError::Timeout) if queue.lock().written > before => {}
            _ => return,
        }
    }
}

fn run(queue: &Queue) {
    let mut stderr = io::stderr();
    let mut shown = String::new();
    let mut put = |text: Vec<u8>, shown: &str| {
        // One write a line, so that lines of several processes do not mix.
        let text = ended(text, RAW.load(Ordering::SeqCst));
        let _ = stderr.write_all(&around(shown, &text, shown));
        let _ = stderr.flush();
    };
    loop {
        let (item, dropped) = {
            let waiting = queue.lock();
            let empty =
                |waiting: &mut Waiting| waiting.items.is_empty() && waiting.status.is_none();
            let waiting = queue.more.wait_while(waiting, empty);
            let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            if let Some(status) = waiting.status.take() {
                drop(waiting);
                let _ = io::stderr().write_all(&around(&shown, b"", &status));
                shown = status;
                continue;
            }
            let Some(item) = waiting.items.pop_front() else {
                continue;
            };
            // Behind all that there was room for.
            let last = !matches!(waiting.items.front(), Some(Item::Text(_)));
            let dropped = if last {
                std::mem::take(&mut waiting.dropped)
            } else {
                0
            };
            (item, dropped)
        };
        let size = match item {
            Item::Text(text) => {
                let size = text.len() + LINE;
                put(text, &shown);
                size
            }
            Item::Flush(done) => {
                let _ = done.send(());
                0
            }
        };
        if dropped > 0 {
            let were = if dropped == 1 { "was" } else { "were" };
            let line = format!(
                "({} {were} dropped: nobody read standard error for a while)",
                count(dropped, "line")
            );
            let line = NOTES.get().map_or(line.clone(), |form| form(&line));
            put(format!("{line}\n").into_bytes(), &shown);
        }
        let mut waiting = queue.lock();
        waiting.size -= size;
        waiting.written += 1;
        waiting.stalled = false;
        drop(waiting);
        queue.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_taken_away_before_a_line_and_stands_behind_it() {
        let text = |before, text: &str, after| {
            String::from_utf8(around(before, text.as_bytes(), after)).unwrap()
        };
        assert_eq!(text("", "a\n", ""), "a\n");
        assert_eq!(text("", "", "now"), "now");
        assert_eq!(text("old", "", "now"), "\r\x1b[Know");
        assert_eq!(text("now", "a\n", "now"), "\r\x1b[Ka\nnow");
        assert_eq!(text("now", "", ""), "\r\x1b[K");
    }

    #[test]
    fn a_raw_terminal_gets_a_carriage_return_with_each_line_feed_and_one_only() {
        assert_eq!(ended(b"a\nb\r\n".to_vec(), true), b"a\r\nb\r\n");
        assert_eq!(ended(b"a\nb\r\n".to_vec(), false), b"a\nb\r\n");
    }
}
