//! The command behind an `exec:` stream: what it says on standard error, and how it ends.
//!
//! A task drains standard error from the start, whether anybody asks for it or not. The lines wait in a queue of
//! bounded size. While it is full the command waits for whoever reads them, on its own pipe; but a command whose
//! diagnostics nobody reads must not come to a halt: when no line was taken for a while, the oldest are dropped and counted,
//! until one is taken again.
use std::collections::VecDeque;
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::group::Group;

/// Memory of the lines that wait for whoever asks: bounds what a command that never stops talking can make us keep.
const KEPT: usize = 64 * 1024;
/// What a line costs beside its text.
const LINE: usize = 64;
/// How long a full queue waits for its reader before lines are dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a pipe holds: once the command has ended, all beyond that is of others.
const PIPE: usize = 64 * 1024;
/// A longer line is split, so that a command that never ends its line cannot grow us.
const LINE_MAX: usize = 4096;
/// How long standard error may stay open after the command has ended. A process that it left behind
/// (ssh's connection master, a daemon) may hold it for ever.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// A running command. Dropping it kills the command: that process alone, or, where it was started by
/// [`dial_for_peer`](crate::dial_for_peer) or has a terminal, all of its process group and what descends from it.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    group: Group,
    stderr: Stderr,
    drain: Option<JoinHandle<()>>,
}

impl Child {
    /// Takes over a process that was spawned with `kill_on_drop`, and drains its standard error.
    ///
    /// `leads`: it leads a process group of its own.
    pub(crate) fn new(mut process: process::Child, leads: bool) -> Self {
        let stderr = Stderr::default();
        let group = Group::new(process.id(), leads);
        // There is none where the command has a terminal: that gets it all.
        let drain = process
            .stderr
            .take()
            .map(|pipe| tokio::spawn(drain(pipe, stderr.clone())));
        if drain.is_none() {
            stderr.end();
        }
        Self {
            process,
            group,
            stderr,
            drain,
        }
    }

    /// Kills the command from elsewhere; a clone of it may be kept.
    pub fn killer(&self) -> Killer {
        Killer(self.group.clone())
    }

    /// The process id, until the end of the process has been waited for.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// What the command says on standard error. Clones share one queue: each line goes to one reader.
    pub fn stderr(&self) -> Stderr {
        self.stderr.clone()
    }

    /// Waits for the command to end and its standard error to be drained (at most one second longer,
    /// when a process that it left behind keeps it open, and for as long as a slow reader of its lines goes on taking some), then
    /// tells how it ended. Every line that it wrote is in [`Child::stderr`] by then, and what is left of a process group of its own gets SIGHUP. Cancel safe, and may be called again.
    ///
    /// A command that waits for the end of its input must be given it first: shut the stream down or
    /// drop it.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await?;
        self.stderr.lock().exited = true;
        if let Some(drain) = &mut self.drain {
            while tokio::time::timeout(DRAIN_GRACE, &mut *drain)
                .await
                .is_err()
            {
                // Unless it is a slow reader that it waits for.
                if !self.stderr.lock().waits {
                    self.stderr.shared.stop.notify_one();
                }
            }
        }
        self.drain = None;
        self.group.ended();
        Ok(status)
    }

    /// Kills the command now, and what belongs to it as when it is dropped.
    ///
    /// # Errors
    /// When it has ended already, or may not be killed.
    pub fn start_kill(&mut self) -> io::Result<()> {
        self.group.kill();
        self.process.start_kill()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// Kills a command, and what belongs to it; see [`Child`].
#[derive(Clone, Debug)]
pub struct Killer(Group);

impl Killer {
    /// Kills it now. It takes no more of its input from here on, whatever becomes of its pipes. Nothing happens where its end has been waited for.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// The same, and all that descends from it, as far as that is known (on Linux), though it has no process group of its own.
    pub fn kill_all(&self) {
        self.0.kill_descent();
        self.0.kill();
    }
}

/// The lines that a command wrote to standard error.
#[derive(Clone, Debug, Default)]
pub struct Stderr {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Notify,
    /// A line was taken.
    taken: Notify,
    /// Who holds the pipe open is not waited for any longer.
    stop: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<String>,
    /// Memory of them.
    size: usize,
    lost: u64,
    ended: bool,
    /// Room is waited for; and that was done in vain since a line was taken.
    waits: bool,
    stalled: bool,
    /// The command has ended.
    exited: bool,
}

fn size(line: &str) -> usize {
    line.len() + LINE
}

impl Lines {
    /// Takes it if there is room, or if nobody is to be waited for.
    fn push(&mut self, line: String) -> Result<(), String> {
        let size = size(&line);
        if self.size + size > KEPT && !self.stalled {
            return Err(line);
        }
        while self.size + size > KEPT && self.pop().is_some() {
            self.lost += 1;
        }
        self.size += size;
        self.queue.push_back(line);
        Ok(())
    }

    fn pop(&mut self) -> Option<String> {
        let line = self.queue.pop_front()?;
        self.size -= size(&line);
        Some(line)
    }
}

impl Stderr {
    /// The next line without its line break, bytes that are no UTF-8 replaced, else as the command wrote it:
    /// [clean](crate::text::clean) it before it is shown. `None` at the end. Cancel safe.
    pub async fn next_line(&self) -> Option<String> {
        loop {
            // Registered before looking, so that a line that comes in between wakes us.
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut lines = self.lock();
                if let Some(line) = lines.pop() {
                    lines.stalled = false;
                    drop(lines);
                    self.shared.taken.notify_one();
                    return Some(line);
                }
                if lines.ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// The lines that wait now, without waiting for more: the last words of a command that failed.
    pub fn take_lines(&self) -> Vec<String> {
        let mut lines = self.lock();
        lines.stalled = false;
        lines.size = 0;
        let taken = lines.queue.drain(..).collect();
        drop(lines);
        self.shared.taken.notify_one();
        taken
    }

    /// How many lines were dropped so far because nobody took any for five seconds: each time the oldest, those before the
    /// [next](Self::next_line).
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.shared
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn push(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut line = String::from_utf8_lossy(line).into_owned();
        loop {
            {
                let mut lines = self.lock();
                match lines.push(line) {
                    Ok(()) => {
                        lines.waits = false;
                        break;
                    }
                    Err(back) => line = back,
                }
                lines.waits = true;
            }
            let taken = self.shared.taken.notified();
            if tokio::time::timeout(PATIENCE, taken).await.is_err() {
                self.lock().stalled = true;
            }
        }
        self.shared.changed.notify_waiters();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.shared.changed.notify_waiters();
    }
}

async fn drain(mut pipe: impl AsyncRead + Unpin, stderr: Stderr) {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    let mut left = PIPE;
    while left > 0 {
        // What was read before it ended is not counted.
        let exited = stderr.lock().exited;
        let n = tokio::select! {
            biased;
            read = pipe.read(&mut chunk) => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            },
            () = stderr.shared.stop.notified() => break,
        };
        if exited {
            left = left.saturating_sub(n);
        }
        for &byte in chunk.iter().take(n) {
            if byte == b'\n' {
                stderr.push(&line).await;
                line.clear();
            } else {
                line.push(byte);
                if line.len() >= LINE_MAX {
                    stderr.push(&line).await;
                    line.clear();
                }
            }
        }
    }
    if !line.is_empty() {
        stderr.push(&line).await;
    }
    stderr.end();
}
