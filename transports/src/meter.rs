//! Counting bytes both ways.
//!
//! A [`Meter`] is a handle on shared counters: keep a clone, give another to the [`Metered`] stream, and read
//! it at any time, also after the stream has moved into a driver or is gone. Several streams may share
//! one. Put between two layers, it counts what the upper one hands down: at the bottom, wire bytes.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Shared counters. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    writes: AtomicU64,
    above: OnceLock<Meter>,
}

impl Meter {
    /// Counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes read so far.
    pub fn bytes_in(&self) -> u64 {
        self.counters.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes written so far, as far as the stream below has taken them.
    pub fn bytes_out(&self) -> u64 {
        self.counters.bytes_out.load(Ordering::Relaxed)
    }

    /// Writes that went through so far: on a socket, system calls.
    pub fn writes(&self) -> u64 {
        self.counters.writes.load(Ordering::Relaxed)
    }

    /// Counts bytes that were read by other means than a [`Metered`] stream.
    pub fn add_in(&self, bytes: usize) {
        // A usize fits into 64 bits on every machine there is.
        self.counters
            .bytes_in
            .fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(above) = self.counters.above.get() {
            above.add_in(bytes);
        }
    }

    /// Counts one write of so many bytes by other means than a [`Metered`] stream.
    pub fn add_out(&self, bytes: usize) {
        self.counters
            .bytes_out
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        if let Some(above) = self.counters.above.get() {
            above.add_out(bytes);
        }
    }

    /// What has passed so far and will pass counts to `above` as well, from now on: the streams of one session, one after
    /// the other. Only the first call counts.
    pub fn join(&self, above: &Meter) {
        if Arc::ptr_eq(&self.counters, &above.counters)
            || self.counters.above.set(above.clone()).is_err()
        {
            return;
        }
        let counters = &above.counters;
        for (to, n) in [
            (&counters.bytes_in, self.bytes_in()),
            (&counters.bytes_out, self.bytes_out()),
            (&counters.writes, self.writes()),
        ] {
            to.fetch_add(n, Ordering::Relaxed);
        }
    }
}

/// A byte stream whose bytes are counted. As cancel safe as the stream inside.
#[derive(Debug)]
pub struct Metered<T> {
    inner: T,
    meter: Meter,
}

impl<T> Metered<T> {
    /// Counts what passes `inner` on `meter`.
    pub fn new(inner: T, meter: Meter) -> Self {
        Self { inner, meter }
    }

    /// The counters.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The stream inside.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        self.meter.add_in(buf.filled().len().saturating_sub(before));
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.meter.add_out(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.meter.add_out(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
