//! Descriptors that can only be read and written with calls that block: one plain thread for each
//! direction, and a small buffer under a lock between it and the task.
//!
//! The threads are detached. A reader that is stuck in the kernel when the stream is dropped stays
//! there until the next byte comes or the process ends, and then goes away; it holds nothing but its
//! duplicate of the descriptor.
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::ReadBuf;

/// Bytes between thread and task: what a pipe holds.
const BUFFER: usize = 64 * 1024;

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// The task does not want any more: no reader is left, or the writer was shut down.
    dropped: bool,
    /// The thread has come to an end; for a writer: all is written and the descriptor closed.
    ended: bool,
    /// A chunk is on its way into the kernel.
    busy: bool,
    error: Option<(io::ErrorKind, String)>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the end, for good or with an error, and wakes the task.
    fn end(&self, error: Option<&io::Error>) {
        let mut state = self.lock();
        state.ended = true;
        state.busy = false;
        state.error = error.map(|e| (e.kind(), e.to_string()));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(|_| ())
}

/// Somebody else may have made the shared description non-blocking; then waiting is done here.
fn wait_for(fd: &impl AsFd, flags: PollFlags) {
    let _ = poll(&mut [PollFd::new(fd, flags)], None);
}

pub(super) struct ThreadReader {
    shared: Arc<Shared>,
}

impl ThreadReader {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = Arc::clone(&shared);
        spawn("cepa-fd-read", move || read_all(File::from(fd), &thread))?;
        Ok(Self { shared })
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if state.bytes.is_empty() && buf.remaining() > 0 {
            return match (&state.error, state.ended) {
                (Some((kind, text)), _) => Poll::Ready(Err(io::Error::new(*kind, text.clone()))),
                (None, true) => Poll::Ready(Ok(())),
                (None, false) => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        while buf.remaining() > 0 {
            let (front, _) = state.bytes.as_slices();
            let n = front.len().min(buf.remaining());
            if n == 0 {
                break;
            }
            buf.put_slice(front.get(..n).unwrap_or(front));
            state.bytes.drain(..n);
        }
        self.shared.changed.notify_all();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ThreadReader {
    fn drop(&mut self) {
        self.shared.lock().dropped = true;
        self.shared.changed.notify_all();
    }
}

fn read_all(mut file: File, shared: &Shared) {
    let mut chunk = vec![0; BUFFER];
    loop {
        {
            // One chunk ahead at most: what nobody asked for stays in the kernel, for others.
            let mut state = shared.lock();
            while !state.bytes.is_empty() && !state.dropped {
                state = shared.wait(state);
            }
            if state.dropped {
                return;
            }
        }
        match file.read(&mut chunk) {
            Ok(0) => return shared.end(None),
            Ok(n) => {
                let mut state = shared.lock();
                state.bytes.extend(chunk.iter().take(n));
                let waker = state.waker.take();
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(&file, PollFlags::IN);
            }
            Err(error) => return shared.end(Some(&error)),
        }
    }
}

pub(super) struct ThreadWriter {
    shared: Arc<Shared>,
}

impl ThreadWriter {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = Arc::clone(&shared);
        spawn("cepa-fd-write", move || write_all(File::from(fd), &thread))?;
        Ok(Self { shared })
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if let Some((kind, text)) = &state.error {
            return Poll::Ready(Err(io::Error::new(*kind, text.clone())));
        }
        if state.dropped || state.ended {
            return Poll::Ready(Err(closed()));
        }
        let n = buf.len().min(BUFFER.saturating_sub(state.bytes.len()));
        if n == 0 && !buf.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.bytes.extend(buf.iter().take(n));
        self.shared.changed.notify_all();
        Poll::Ready(Ok(n))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if let Some((kind, text)) = &state.error {
            return Poll::Ready(Err(io::Error::new(*kind, text.clone())));
        }
        if state.ended || (state.bytes.is_empty() && !state.busy) {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when all is written and the descriptor closed.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        state.dropped = true;
        self.shared.changed.notify_all();
        if let Some((kind, text)) = &state.error {
            return Poll::Ready(Err(io::Error::new(*kind, text.clone())));
        }
        if state.ended {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for ThreadWriter {
    fn drop(&mut self) {
        // What was accepted is still written, if the process lives that long; flush makes sure.
        self.shared.lock().dropped = true;
        self.shared.changed.notify_all();
    }
}

fn write_all(mut file: File, shared: &Shared) {
    loop {
        let chunk = {
            let mut state = shared.lock();
            while state.bytes.is_empty() && !state.dropped {
                state = shared.wait(state);
            }
            if state.bytes.is_empty() {
                drop(state);
                drop(file);
                return shared.end(None);
            }
            state.busy = true;
            let waker = state.waker.take();
            let chunk = std::mem::take(&mut state.bytes);
            drop(state);
            // There is room again.
            if let Some(waker) = waker {
                waker.wake();
            }
            chunk
        };
        let (front, back) = chunk.as_slices();
        if let Err(error) =
            write_chunk(&mut file, front).and_then(|()| write_chunk(&mut file, back))
        {
            drop(file);
            return shared.end(Some(&error));
        }
        let mut state = shared.lock();
        state.busy = false;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn write_chunk(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or(&[]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(file, PollFlags::OUT);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a write after the end of writing gets, whatever carries the descriptor.
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "write after shutdown")
}
