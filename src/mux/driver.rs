//! The thin shell between the engine and a byte stream: one future that owns the stream.
//!
//! ```text
//!   read up to 32 KiB --> engine.handle_input          (streams wake their readers)
//!   engine.poll_transmit --> one write --> flush       (a batch; the next one is asked for only
//!                                                       when this one is flushed)
//!   timer --> engine.handle_timeout
//! ```
//!
//! Reading never waits for writing, so two ends that both write a lot can not block each other. The
//! future parks when there is nothing to read, nothing to send and no deadline; who gives the engine
//! something to send wakes it. While the engine has no room for unread data nothing is read, and who makes room
//! wakes it.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cepa_transports::ByteStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::batch::{Batch, MAX_SLICES};
use super::chunk::{self, CHUNK, SHARE_MIN};
use super::engine::Engine;
use super::error::MuxError;
use super::shared::{Shared, now};
use crate::observe::Traffic;

/// Room for the first read, and while little comes. It is allocated for each small message, and allocators have so much at hand:
/// glibc's caches end behind 1,032 bytes.
const READ_FIRST: usize = 1 << 10;

/// Rounds of reading and writing before other tasks get a turn: 256 KiB, which the caches still hold when
/// the application looks at them.
const ROUNDS: usize = 4;

/// The task of a session: it moves the bytes. Spawn it, or poll it beside other things.
///
/// It ends when the session does: `Ok` when one of the two ends wanted it to, the reason otherwise.
/// Dropping it before cuts the session off, and every stream reports [`MuxError::DriverGone`].
#[must_use = "a session does nothing unless its driver is polled"]
pub struct Driver {
    run: Pin<Box<dyn Future<Output = Result<(), MuxError>> + Send>>,
}

impl Driver {
    /// `lead` is what a layer below puts in front of each batch.
    pub(crate) fn new(
        io: impl ByteStream,
        shared: Arc<Shared>,
        close_timeout: Duration,
        lead: usize,
    ) -> Self {
        let mut shell = Shell {
            vectored: io.is_write_vectored(),
            io,
            guard: Guard { shared },
            batch: Batch::behind(lead),
            lead,
            chunk: Vec::new(),
            room: READ_FIRST,
            needs_flush: false,
            stopped: false,
            parked: false,
            go_away_sent: false,
            timer: None,
            armed: None,
            end: None,
            deadline: None,
            traffic: Traffic::new(),
        };
        Self {
            // By reference: an `async fn` that takes the shell itself would hold it twice.
            run: Box::pin(async move { shell.run(close_timeout).await }),
        }
    }
}

impl Future for Driver {
    type Output = Result<(), MuxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.run.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Tells everybody when the driver is gone, however it went.
struct Guard {
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.with_inner(|inner| {
            inner.engine.handle_driver_gone();
            inner.driver_done = true;
        });
        self.shared.done.notify_waiters();
    }
}

struct Shell<T> {
    io: T,
    guard: Guard,
    /// What is being written.
    batch: Batch,
    /// Bytes that the layer below puts in front of it, where that has frames of its own.
    lead: usize,
    /// Where the next read goes.
    chunk: Vec<u8>,
    /// How much room a fresh `chunk` gets: twice as much when a read filled it, half when one hardly used it.
    room: usize,
    /// Something was written that is not known to have left the stream below.
    needs_flush: bool,
    /// The engine holds as much as it may; nothing is read until it has room.
    stopped: bool,
    /// The engine has nothing to send, and our waker for when it has.
    parked: bool,
    /// A go-away is in what was written and not flushed, or was before.
    go_away_sent: bool,
    /// Whether `io` takes several slices at once.
    vectored: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// What `timer` is set to.
    armed: Option<Instant>,
    /// Why the session is over, and the next deadline, as the engine had them when it was last asked or told.
    end: Option<MuxError>,
    deadline: Option<Instant>,
    traffic: Traffic,
}

impl<T: ByteStream> Shell<T> {
    async fn run(&mut self, close_timeout: Duration) -> Result<(), MuxError> {
        let end = poll_fn(|cx| self.poll_session(cx)).await;
        match &end {
            // Nothing can be sent, or nobody listens.
            MuxError::Io(_) | MuxError::KeepaliveTimeout { .. } => {}
            // The peer is gone; say goodbye to the layers below.
            MuxError::Eof => {
                // In memory of its own, which a session has no use for before it ends; so below.
                let shutdown = tokio::time::timeout(close_timeout, self.io.shutdown());
                let _ = Box::pin(shutdown).await;
            }
            _ => {
                let by = self.guard.shared.with(|engine| engine.closed_by());
                let by = by.unwrap_or_else(|| now() + close_timeout);
                // Errors change nothing any more: why the session ended is known.
                let close = tokio::time::timeout_at(by.into(), self.linger_close());
                let _ = Box::pin(close).await;
            }
        }
        if end.is_clean() { Ok(()) } else { Err(end) }
    }

    /// Works until the session is over.
    ///
    /// Most of a small message's time is such overhead as turns of the engine's lock, so there is one for what
    /// was read and what is to be written then, and none to ask again when there was nothing more to send.
    fn poll_session(&mut self, cx: &mut Context<'_>) -> Poll<MuxError> {
        let mut reading = true;
        self.parked = false;
        for _ in 0..ROUNDS {
            reading = reading && self.poll_read(cx).is_ready();
            let wrote = match self.poll_write(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(error)) => {
                    self.with_engine(cx, |engine, _| engine.handle_io_error(error));
                    true
                }
                Poll::Pending => false,
            };
            if let Some(end) = self.end.take() {
                return Poll::Ready(end);
            }
            if !reading && !wrote && self.poll_timer(cx).is_pending() {
                if self.parked || self.poll_look(cx).is_pending() {
                    return Poll::Pending;
                }
                self.with_engine(cx, Engine::handle_timeout);
            }
        }
        // With bytes to move all the time, deadlines are looked at here.
        let _ = self.poll_timer(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether something happened that can not wait until the byte stream takes what it was given.
    fn poll_look(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.guard.shared.with_inner(|inner| {
            if std::mem::take(&mut inner.look) {
                return Poll::Ready(());
            }
            inner.writing = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Reads one chunk and hands it to the engine, unless that holds as much as it may.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stopped {
            let waker = cx.waker();
            self.stopped = !self.guard.shared.with(|engine| engine.resume(now(), waker));
            if self.stopped {
                self.chunk = Vec::new();
                if self.lead > 0 {
                    // A layer with frames of its own may have to tell its peer that we are there.
                    let _ = Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut []));
                }
                return Poll::Pending;
            }
        }
        if self.chunk.capacity() != self.room {
            self.chunk = if self.room == CHUNK {
                chunk::take()
            } else {
                Vec::with_capacity(self.room)
            };
        }
        let Poll::Ready(read) = pin!(self.io.read_buf(&mut self.chunk)).poll(cx) else {
            if self.room == READ_FIRST {
                // Little comes: what waits for it holds nothing.
                self.chunk = Vec::new();
            }
            return Poll::Pending;
        };
        match read {
            Ok(0) => self.with_engine(cx, |engine, _| engine.handle_eof()),
            Ok(n) => {
                self.traffic.received(n);
                let mut held = self.room;
                if n == self.room {
                    self.room = (2 * self.room).min(CHUNK);
                } else if n < self.room / 8 {
                    self.room = (self.room / 2).max(READ_FIRST);
                }
                let bytes = if n < SHARE_MIN {
                    held = n;
                    let bytes = Bytes::copy_from_slice(&self.chunk);
                    self.chunk.clear();
                    bytes
                } else {
                    chunk::share(std::mem::take(&mut self.chunk))
                };
                self.with_engine(cx, |engine, now| engine.handle_chunk(now, bytes, held));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.with_engine(cx, |engine, _| engine.handle_io_error(error)),
        }
        Poll::Ready(())
    }

    /// Tells the engine what happened, and asks what is to be sent then, unless the last batch is still on its way.
    fn with_engine(&mut self, cx: &mut Context<'_>, what: impl FnOnce(&mut Engine, Instant)) {
        let batch = (self.batch.is_empty() && !self.needs_flush).then_some(&mut self.batch);
        let asked = batch.is_some();
        let (parked, end, deadline, go_away_sent, stopped, quiet) =
            self.guard.shared.with_inner(|inner| {
                // We are awake, so nothing of it need wake us.
                (inner.driver, inner.writing, inner.look) = (None, None, false);
                // Once, for what came and for what leaves: there is no waiting in between.
                let now = now();
                what(&mut inner.engine, now);
                let engine = &mut inner.engine;
                let mut parked = false;
                if let Some(batch) = batch {
                    engine.poll_transmit(now, batch);
                    parked = batch.is_empty() || !engine.wants_transmit();
                }
                let reported = (
                    parked,
                    engine.end().cloned(),
                    engine.poll_timeout(),
                    engine.go_away_sent(),
                    engine.is_stopped(),
                    engine.take_quiet(),
                );
                if parked {
                    inner.driver = Some(cx.waker().clone());
                }
                reported
            });
        (self.parked, self.end, self.deadline) = (parked, end, deadline);
        self.stopped = stopped;
        if quiet {
            // A layer below does the same when it is asked and has nothing, which was just now.
            self.chunk = Vec::new();
            self.room = READ_FIRST;
            self.batch.give_back();
        }
        if asked {
            self.go_away_sent = go_away_sent;
            if !self.vectored {
                self.batch.join();
            }
        }
    }

    /// Writes and flushes a batch, unless there is nothing to send or the stream takes no more.
    /// Ready means progress was made.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.batch.is_empty() && !self.needs_flush {
            if !self.parked {
                self.with_engine(cx, |_, _| {});
            }
            if self.batch.is_empty() {
                return Poll::Pending;
            }
        }
        while !self.batch.is_empty() {
            ready!(self.poll_write_batch(cx))?;
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_write_batch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let used = self.batch.slices(&mut slices);
        let slices = slices.get(..used).unwrap_or_default();
        let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.traffic.sent(n);
        self.batch.advance(n);
        self.needs_flush = true;
        Poll::Ready(Ok(()))
    }

    fn flushed(&mut self) {
        self.needs_flush = false;
        if std::mem::take(&mut self.go_away_sent) {
            self.guard
                .shared
                .with_inner(|inner| inner.go_away_flushed = true);
            self.guard.shared.done.notify_waiters();
        }
    }

    /// Keeps the timer at the engine's next deadline, and tells the engine when it has come.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        // A timer that is early does no harm: a deadline that moved away needs no new timer.
        let reset = self.armed.is_none_or(|armed| deadline < armed);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if reset {
            timer.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.armed = None;
        self.with_engine(cx, Engine::handle_timeout);
        Poll::Ready(())
    }

    /// Sends what is left, closes this direction, and reads until the peer has closed its own.
    async fn linger_close(&mut self) -> io::Result<()> {
        loop {
            while !self.batch.is_empty() {
                poll_fn(|cx| self.poll_write_batch(cx)).await?;
            }
            let batch = &mut self.batch;
            self.guard
                .shared
                .with(|engine| engine.poll_transmit(now(), batch));
            if self.batch.is_empty() {
                break;
            }
        }
        self.io.flush().await?;
        self.flushed();
        self.io.shutdown().await?;
        let mut unread = Vec::with_capacity(READ_FIRST);
        while self.io.read_buf(&mut unread).await? > 0 {
            unread.clear();
        }
        Ok(())
    }
}
