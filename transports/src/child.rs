//! The command behind an `exec:` stream: what it says on standard error, and how it ends.
//!
//! A task drains standard error from the start, whether anybody asks for it or not: a command whose
//! diagnostics nobody reads must not come to a halt on a full pipe. The lines wait in a ring of fixed
//! size; when nobody takes them, the oldest are dropped and counted.
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

/// Lines kept for whoever asks: enough for the story of a failure; bounds what a command that never
/// stops talking can make us keep (256 lines of at most 4 KiB: 1 MiB).
const KEPT_LINES: usize = 256;
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
    /// when a process that it left behind keeps it open), then tells how it ended. Every line that it wrote
    /// is in [`Child::stderr`] by then, and what is left of a process group of its own gets SIGHUP. Cancel safe, and may be called again.
    ///
    /// A command that waits for the end of its input must be given it first: shut the stream down or
    /// drop it.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await?;
        if let Some(drain) = &mut self.drain
            && tokio::time::timeout(DRAIN_GRACE, &mut *drain)
                .await
                .is_err()
        {
            drain.abort();
            self.stderr.end();
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
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<String>,
    lost: u64,
    ended: bool,
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
                if let Some(line) = lines.queue.pop_front() {
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
        self.lock().queue.drain(..).collect()
    }

    /// How many lines were dropped because nobody took them.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.shared
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut lines = self.lock();
        if lines.queue.len() >= KEPT_LINES {
            lines.queue.pop_front();
            lines.lost += 1;
        }
        lines
            .queue
            .push_back(String::from_utf8_lossy(line).into_owned());
        drop(lines);
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
    loop {
        let n = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        for &byte in chunk.iter().take(n) {
            if byte == b'\n' {
                stderr.push(&line);
                line.clear();
            } else {
                line.push(byte);
                if line.len() >= LINE_MAX {
                    stderr.push(&line);
                    line.clear();
                }
            }
        }
    }
    if !line.is_empty() {
        stderr.push(&line);
    }
    stderr.end();
}
