//! The stream that the application sees.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::engine::End;
use super::shared::{Shared, now};
use super::stats::{Stats, StatsHandle};

/// A reliable byte stream over an unreliable one.
///
/// - Reads end when the other end has shut its stream down and all of it was read. Any other end is an
///   error, whose source is a [`LinkError`](super::LinkError): nothing is ever missing before an end.
/// - Writes wait for the opening, and while the line has enough to do: about 70 ms of it, so that what
///   is written next is not late.
/// - What is written goes by itself. Flushing waits until it has, and the line is free within 20 ms: who
///   decides what to write only then never has it wait behind what was written before.
/// - Shutting down returns when all that was written has arrived.
/// - Dropping the stream tells the other end, which reads an error, unless it was shut down before;
///   then the driver delivers what is under way, for up to 3 s.
///
/// Reads and writes are cancel safe.
pub struct Link {
    shared: Arc<Shared>,
}

impl Link {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What reads the counters when the link is inside a stack.
    pub(crate) fn handle(&self) -> StatsHandle {
        let handle = StatsHandle::default();
        read_by(&handle, &self.shared);
        handle
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.shared.command(|inner| (inner.engine.stats(), false))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.command(|inner| {
            inner.dropped = true;
            ((), true)
        });
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.shared.command(|inner| {
            if inner.engine.is_readable() {
                inner
                    .engine
                    .read(out.remaining(), |bytes| out.put_slice(bytes));
                // A window that opens again is told.
                return (Poll::Ready(Ok(())), inner.engine.wants_ack());
            }
            if inner.engine.is_read_out() {
                return (Poll::Ready(Ok(())), false);
            }
            let end = match inner.engine.end() {
                Some(End::Failed(error)) => Err(error.clone().into()),
                Some(End::Closed) => Ok(()),
                None => {
                    inner.reader = Some(cx.waker().clone());
                    return (Poll::Pending, false);
                }
            };
            (Poll::Ready(end), false)
        })
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.shared.command(|inner| {
            if let Some(error) = ended(inner.engine.end(), inner.engine.is_finishing()) {
                return (Poll::Ready(Err(error)), false);
            }
            match inner.engine.write(now(), bytes) {
                0 if !bytes.is_empty() => {
                    inner.writer = Some(cx.waker().clone());
                    // The driver's timer has to know that somebody waits.
                    (Poll::Pending, true)
                }
                n => (Poll::Ready(Ok(n)), true),
            }
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.command(|inner| {
            if let Some(End::Failed(error)) = inner.engine.end() {
                return (Poll::Ready(Err(error.clone().into())), false);
            }
            if inner.engine.is_flushed(now()) {
                return (Poll::Ready(Ok(())), false);
            }
            inner.flusher = Some(cx.waker().clone());
            (Poll::Pending, true)
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.command(|inner| {
            inner.engine.finish();
            if inner.engine.is_finished() {
                return (Poll::Ready(Ok(())), true);
            }
            match inner.engine.end() {
                Some(End::Closed) => (Poll::Ready(Ok(())), false),
                Some(End::Failed(error)) => (Poll::Ready(Err(error.clone().into())), false),
                None => {
                    inner.closer = Some(cx.waker().clone());
                    (Poll::Pending, true)
                }
            }
        })
    }
}

/// Why nothing can be written any more.
fn ended(end: Option<&End>, finishing: bool) -> Option<io::Error> {
    match end {
        Some(End::Failed(error)) => Some(error.clone().into()),
        Some(End::Closed) => Some(io::ErrorKind::BrokenPipe.into()),
        None if finishing => Some(io::Error::new(
            io::ErrorKind::BrokenPipe,
            "written after shutdown",
        )),
        None => None,
    }
}

/// Gives the counters to a handle, as long as the link is there.
pub(super) fn read_by(handle: &StatsHandle, shared: &Arc<Shared>) {
    let of = Arc::downgrade(shared);
    handle.set(Box::new(move || {
        let shared = of.upgrade()?;
        Some(shared.command(|inner| (inner.engine.stats(), false)))
    }));
}
