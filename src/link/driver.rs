//! The thin shell between the engine and a byte stream: one future that owns the stream.
//!
//! ```text
//!   read --> engine.handle_input --> the application's reader is woken
//!   engine.poll_transmit --> write, flush       (the next frame is asked for when this one was taken)
//!   timer --> engine.handle_timeout
//! ```
//!
//! It goes on while the application does nothing: what comes is acknowledged, what was lost goes again.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use cepa_transports::ByteStream;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::config::ChatterSink;
use super::engine::{End, Engine};
use super::error::LinkError;
use super::shared::{Shared, now};

/// Read at once: what a serial driver holds.
const CHUNK: usize = 4096;

/// Rounds of reading and writing before other tasks get a turn.
const ROUNDS: usize = 16;

/// How long a link that the application has dropped, after it had ended its stream, still delivers it.
const AFTER_DROP: Duration = Duration::from_secs(3);

/// How long the stream below may take for the last frame and its own end.
const PARTING: Duration = Duration::from_secs(1);

/// The task of a link: it moves the bytes. Spawn it, or poll it beside other things.
///
/// It ends when the link does: `Ok` when both directions had ended, the reason otherwise. Dropping it
/// before cuts the link off.
#[must_use = "a link does nothing unless its driver is polled"]
pub struct Driver {
    run: Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>,
}

impl Driver {
    pub(crate) fn new(
        io: impl ByteStream,
        shared: Arc<Shared>,
        chatter: Option<ChatterSink>,
    ) -> Self {
        let shell = Shell {
            io,
            guard: Guard { shared },
            chatter,
            out: Vec::new(),
            written: 0,
            flushed: true,
            timer: None,
            armed: None,
            dropped_at: None,
        };
        Self {
            run: Box::pin(shell.run()),
        }
    }
}

impl Future for Driver {
    type Output = Result<(), LinkError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.run.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Tells the application when the driver is gone, however it went.
struct Guard {
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared
            .drive(|inner| inner.engine.handle_failure(LinkError::DriverGone));
    }
}

struct Shell<T> {
    io: T,
    guard: Guard,
    chatter: Option<ChatterSink>,
    /// What is being written, and how much of it was taken.
    out: Vec<u8>,
    written: usize,
    flushed: bool,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
    /// When the application was seen to have dropped its end.
    dropped_at: Option<Instant>,
}

impl<T: ByteStream> Shell<T> {
    async fn run(mut self) -> Result<(), LinkError> {
        let end = poll_fn(|cx| self.poll_link(cx)).await;
        // Errors change nothing any more.
        let _ = tokio::time::timeout(PARTING, self.linger_close()).await;
        match end {
            End::Closed => Ok(()),
            End::Failed(error) => Err(error),
        }
    }

    /// Works until the link is over.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS {
            let read = self.poll_read(cx);
            let wrote = self.poll_write(cx);
            if let Poll::Ready(Err(error)) = &wrote {
                let error = LinkError::Io(io::Error::new(error.kind(), error.to_string()).into());
                self.with_engine(|engine| engine.handle_failure(error));
            }
            let (end, deadline) = self.look(cx);
            if let Some(end) = end {
                return Poll::Ready(end);
            }
            let late = self.poll_timer(cx, deadline);
            if read.is_pending() && wrote.is_pending() && late.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the engine what happened.
    fn with_engine(&self, what: impl FnOnce(&mut Engine)) {
        self.guard.shared.drive(|inner| what(&mut inner.engine));
    }

    /// Whether it is over, and when to look again.
    fn look(&mut self, cx: &mut Context<'_>) -> (Option<End>, Option<Instant>) {
        let (dropped_at, blocked) = (&mut self.dropped_at, !self.out.is_empty());
        self.guard.shared.drive(|inner| {
            let now = now();
            inner.driver = Some(cx.waker().clone());
            let mut leave_at = None;
            if inner.dropped {
                let at = *dropped_at.get_or_insert(now) + AFTER_DROP;
                if inner.engine.is_finishing() && now < at {
                    leave_at = Some(at);
                } else {
                    inner.engine.abandon(now);
                }
            }
            let end = inner.engine.end().cloned();
            let deadline = inner.engine.poll_timeout(now, inner.waits(), blocked);
            (end, deadline.into_iter().chain(leave_at).min())
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; CHUNK];
        let mut space = ReadBuf::new(&mut space);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut space));
        match read {
            Ok(()) if space.filled().is_empty() => self.with_engine(Engine::handle_eof),
            Ok(()) => {
                let chatter = self.guard.shared.drive(|inner| {
                    inner.engine.handle_input(now(), space.filled());
                    inner.engine.take_chatter()
                });
                self.chat(&chatter);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.with_engine(|e| e.handle_failure(LinkError::Io(error.into()))),
        }
        Poll::Ready(())
    }

    fn chat(&self, bytes: &[u8]) {
        if let Some(sink) = self.chatter.as_ref().filter(|_| !bytes.is_empty()) {
            sink(bytes);
        }
    }

    /// Writes what the engine has, until it has nothing or the stream takes no more. Ready means that
    /// there was progress.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            let out = &mut self.out;
            let any = self
                .guard
                .shared
                .drive(|inner| inner.engine.poll_transmit(now(), out));
            if !any && self.flushed {
                return Poll::Pending;
            }
            self.flushed = false;
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.out.clear();
        self.written = 0;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Keeps the timer at the engine's next deadline, and tells the engine when it has come.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if self.armed != Some(deadline) {
            timer.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.armed = None;
        let chatter = self.guard.shared.drive(|inner| {
            inner.engine.handle_timeout(now());
            inner.engine.take_chatter()
        });
        self.chat(&chatter);
        Poll::Ready(())
    }

    /// Sends what is left to say, and ends the stream below.
    async fn linger_close(&mut self) -> io::Result<()> {
        loop {
            let rest = self.out.get(self.written..).unwrap_or_default();
            self.io.write_all(rest).await?;
            self.out.clear();
            self.written = 0;
            let out = &mut self.out;
            if !self
                .guard
                .shared
                .drive(|inner| inner.engine.poll_transmit(now(), out))
            {
                break;
            }
        }
        self.io.flush().await?;
        self.io.shutdown().await
    }
}
