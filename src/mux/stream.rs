//! A substream: one ordered byte stream both ways inside a session.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::chunk;
use super::code::Refusal;
use super::config::StreamTimeouts;
use super::engine::Engine;
use super::preface::Preface;
use super::priority::Priority;
use super::shared::Shared;
use super::stats::StreamStats;
use super::store::Key;
use crate::observe;

/// Written data up to this size is copied while the engine is locked; more is copied before.
const COPY_LOCKED: usize = 4 << 10;

/// One byte stream inside a session: tokio's `AsyncRead`, `AsyncBufRead` and `AsyncWrite`, and with
/// the feature `futures-io` those of the futures crate.
///
/// - The end of stream that a read reports is the peer's FIN, and nothing else. Every other end (a
///   reset, a lost connection, the end of the session) is an error, again at every read, with a
///   [`StreamError`](super::StreamError) inside. What arrived before such an end is read first.
/// - `shutdown` ends this direction behind what was written; reading goes on.
/// - Dropping a substream that was not shut down resets it; after `shutdown`, what was written is
///   still sent. So is it with [`tokio::io::split`]: to drop the write half ends nothing, and when both halves are gone
///   without `shutdown` the stream is reset.
/// - A substream that is kept keeps its session, without any [`Mux`](super::Mux); what the peer opens is refused then.
/// - `flush` has nothing to do: the session sends everything without being asked. To know that all
///   has left before the program ends, await [`Mux::close`](super::Mux::close).
/// - Reading is cancel safe: what a dropped future has not returned stays in the stream. So is one write: a dropped
///   future has written nothing. Not so `write_all`, which is many. A write of nothing waits for nothing.
///
/// The time limits of [`StreamTimeouts`] apply; see [`Substream::set_timeouts`].
pub struct Substream {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
    /// Borrowed from the engine and not yet read whole.
    pub(super) piece: Bytes,
    /// What is to come before the reader's bytes, or why it did not.
    pub(super) preface: Option<Box<dyn Preface>>,
}

impl Substream {
    pub(crate) fn new(shared: Arc<Shared>, key: Key) -> Self {
        observe::substream_up(key.id);
        Self {
            shared,
            key,
            piece: Bytes::new(),
            preface: None,
        }
    }

    /// Two halves, for two tasks; `reader.unsplit(writer)` joins them again.
    ///
    /// Dropping the write half ends nothing: `shutdown` does. When both are dropped, so is the stream.
    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }

    /// The number of the stream on the wire: odd when the session's client opened it.
    pub fn id(&self) -> u32 {
        self.key.id
    }

    /// Reads whatever has arrived, without a copy; `None` at the end of the stream.
    ///
    /// # Errors
    /// As reading does.
    pub async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_read_chunk(cx)).await
    }

    /// [`Substream::read_chunk`] for those who poll.
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        ready!(self.poll_preface(cx))?;
        if !self.piece.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.piece))));
        }
        let read = self.shared.with(|engine| engine.read(self.key, cx.waker()));
        read.map_err(Into::into)
    }

    /// [`Substream::poll_read_chunk`], where no more than `most` bytes are taken.
    pub(crate) fn poll_read_part(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        ready!(self.poll_preface(cx))?;
        if !self.piece.is_empty() {
            let part = self.piece.split_to(most.min(self.piece.len()));
            return Poll::Ready(Ok(Some(part)));
        }
        let read = |engine: &mut Engine| engine.read_part(self.key, most, cx.waker());
        self.shared.with(read).map_err(Into::into)
    }

    /// Whether data has come that nobody has read.
    pub(crate) fn has_unread(&self) -> bool {
        !self.piece.is_empty() || self.shared.with(|engine| engine.has_unread(self.key))
    }

    /// How many bytes a write would take now; more than 0.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.for_writer(|engine, key| engine.write_space(key, cx.waker()))?
            .map_err(Into::into)
    }

    /// Writes all of `data`, without a copy.
    ///
    /// Not cancel safe: a dropped future may have written a part. Use
    /// [`Substream::poll_write_chunk`] where that matters.
    ///
    /// # Errors
    /// As writing does.
    pub async fn write_chunk(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            std::future::poll_fn(|cx| self.poll_write_chunk(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Takes from the front of `data` what the stream has room for, without a copy.
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(self.for_writer(|engine, key| {
            engine.write_space(key, cx.waker()).map_ok(|space| {
                let n = space.min(data.len());
                engine.write(key, data.split_to(n));
                n
            })
        })?)?;
        Poll::Ready(Ok(n))
    }

    /// Waits until everything that was written has left, and the end behind it where there was a `shutdown`: then
    /// [`Substream::reset`] takes nothing of it back, and the peer reads it before the reset. With `stalled` it gives up when
    /// none has left for so long (looked at once in that time); without, it waits for as long as the peer takes nothing.
    ///
    /// # Errors
    /// As writing does, where what was written is lost; [`io::ErrorKind::TimedOut`] when it has stalled;
    /// [`io::ErrorKind::Unsupported`] with `stalled` outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn drained(&mut self, stalled: Option<Duration>) -> io::Result<()> {
        loop {
            let before = self.stats().data_out;
            let drained = std::future::poll_fn(|cx| self.poll_drained(cx));
            let Some(limit) = stalled else {
                return drained.await;
            };
            // A timer panics there.
            if Handle::try_current().is_err() {
                let why =
                    "what has stalled can be told inside a tokio runtime only: call it inside one";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            match timeout(limit, drained).await {
                Ok(done) => return done,
                Err(_) if self.stats().data_out > before => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// [`Substream::drained`] for those who poll, without a limit. It and writing keep one waker between them.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared
            .with(|engine| engine.drained(self.key, cx.waker()))
            .map_err(|error| self.preface_error().unwrap_or_else(|| error.into()))
    }

    /// Ready once the stream is lost, by a reset or with its session: for who waits for something else and would not notice.
    /// Behind an end of stream reading does not tell of that. What came before can still be read.
    ///
    /// Woken as a write that waits for room: poll both from one task.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.shared
            .with(|engine| engine.lost(self.key, cx.waker()))
            .map(|error| self.preface_error().unwrap_or_else(|| error.into()))
    }

    /// Ends both directions at once and drops what is queued. The peer reads an error; `code` tells
    /// it why if it knows codes (hashicorp/yamux and rust-yamux do not). 0 means no reason; codes from `0x63657000` to
    /// `0x636570ff` are for the mux itself.
    pub fn reset(&mut self, code: u32) {
        self.piece = Bytes::new();
        if self.preface_error().is_none() {
            self.preface = None;
        }
        self.shared.with(|engine| engine.reset(self.key, code));
    }

    /// Refuses a stream that the peer opened: for an application that has done nothing with it, whatever came. The peer
    /// reads [`StreamError::RefusedByPeer`](super::StreamError::RefusedByPeer) where it is one of ours, and so knows that it may try again
    /// elsewhere; others read a reset.
    pub fn refuse(self) {
        self.shared
            .with(|engine| engine.refuse(self.key, Refusal::Application));
    }

    /// Replaces the time limits that the stream got from
    /// [`Config::stream_timeouts`](super::Config::stream_timeouts).
    pub fn set_timeouts(&mut self, timeouts: StreamTimeouts) {
        self.shared
            .with(|engine| engine.set_timeouts(self.key, timeouts));
    }

    /// Puts the stream before or behind the others of its session, in what this end sends. What is
    /// queued moves with it.
    pub fn set_priority(&mut self, priority: Priority) {
        self.shared
            .with(|engine| engine.set_priority(self.key, priority));
    }

    /// The priority that was set last; [`Priority::NORMAL`] at first.
    pub fn priority(&self) -> Priority {
        self.stats().priority
    }

    /// What is read of this is written to another one, and the other way: its window stays as it is until
    /// [`Self::hold_window`] says otherwise, and little is queued before somebody is known to [take](Self::is_taken) it.
    pub(crate) fn hand_on(&mut self) {
        self.shared.with(|engine| engine.hand_on(self.key));
    }

    /// Keeps the receive window as small as it is until it is told otherwise: for who hands on what is read, as long as nobody is
    /// known to [take](Self::is_taken) it there.
    pub(crate) fn hold_window(&mut self, held: bool) {
        self.shared
            .with(|engine| engine.hold_window(self.key, held));
    }

    /// Whether the peer has granted more than at first, as it does once it has read some of what was written.
    pub(crate) fn is_taken(&self) -> bool {
        self.shared.with(|engine| engine.is_taken(self.key))
    }

    /// Says what the stream is for, for who looks at the session ([`StreamInfo::label`](super::StreamInfo::label)). The peer is not
    /// told. The last one counts.
    pub fn set_label(&mut self, label: &str) {
        self.shared.with(|engine| engine.set_label(self.key, label));
    }

    /// Counters and gauges of the stream; all zero once the session has forgotten it.
    pub fn stats(&self) -> StreamStats {
        let mut stats = self.shared.with(|engine| engine.stream_stats(self.key));
        stats.unread += self.piece.len();
        stats
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_preface(cx))?;
        if self.piece.is_empty() {
            let borrow = |engine: &mut Engine| engine.borrow(self.key, cx.waker());
            if let Some(piece) = ready!(self.shared.with(borrow))? {
                self.piece = piece;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_slices(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if total <= COPY_LOCKED {
            let n = ready!(self.for_writer(|engine, key| {
                engine.write_space(key, cx.waker()).map_ok(|space| {
                    let mut left = space.min(total);
                    let n = left;
                    for slice in slices {
                        let (now, _) = slice.split_at(slice.len().min(left));
                        if !now.is_empty() {
                            engine.write_copy(key, now);
                        }
                        left -= now.len();
                    }
                    n
                })
            })?)?;
            return Poll::Ready(Ok(n));
        }
        // Only this handle writes, so the space can not shrink while the copy is made.
        let space = ready!(self.for_writer(|engine, key| engine.write_space(key, cx.waker()))?)?;
        let n = space.min(total);
        let mut left = n;
        let mut pieces = Vec::new();
        for slice in slices {
            let (now, _) = slice.split_at(slice.len().min(left));
            pieces.extend(chunk::copy(now));
            left -= now.len();
        }
        self.shared.with(|engine| {
            for piece in pieces {
                engine.write(self.key, piece);
            }
        });
        Poll::Ready(Ok(n))
    }
}

impl std::fmt::Debug for Substream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Substream")
            .field("id", &self.key.id)
            .finish_non_exhaustive()
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        self.shared.with(|engine| engine.release(self.key));
        observe::substream_down(self.key.id);
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_fill(cx))?;
        let n = self.piece.len().min(buf.remaining());
        buf.put_slice(self.piece.get(..n).unwrap_or_default());
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Substream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_fill(cx))?;
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().consume(amount);
    }
}

impl Substream {
    pub(super) fn consume(&mut self, amount: usize) {
        self.piece.advance(amount.min(self.piece.len()));
        if self.piece.is_empty() {
            // Lets go of the read chunk behind it.
            self.piece = Bytes::new();
        }
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.for_writer(Engine::shutdown)?;
        Poll::Ready(ended.map_err(Into::into))
    }
}

#[cfg(feature = "futures-io")]
mod futures_traits {
    use super::{Context, IoSlice, Pin, Poll, Substream, io, ready};

    impl futures_io::AsyncRead for Substream {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            ready!(self.poll_fill(cx))?;
            let n = self.piece.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..n), self.piece.get(..n)) {
                to.copy_from_slice(from);
            }
            self.consume(n);
            Poll::Ready(Ok(n))
        }
    }

    impl futures_io::AsyncBufRead for Substream {
        fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
            tokio::io::AsyncBufRead::poll_fill_buf(self, cx)
        }

        fn consume(self: Pin<&mut Self>, amount: usize) {
            self.get_mut().consume(amount);
        }
    }

    impl futures_io::AsyncWrite for Substream {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_slices(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_slices(cx, bufs)
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            tokio::io::AsyncWrite::poll_shutdown(self, cx)
        }
    }
}
