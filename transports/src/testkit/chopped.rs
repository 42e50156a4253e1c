//! A stream that moves as little at a time as it likes.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pattern::Rng;

/// How much one read or write moves at most.
#[derive(Clone, Debug)]
pub enum Cuts {
    /// Always so many bytes (0 is taken as 1).
    Fixed(usize),
    /// 1 to `max` bytes.
    Random {
        /// The most.
        max: usize,
    },
    /// These sizes, one after the other and then from the front again.
    Listed(Vec<usize>),
}

/// Cuts reads and writes, and says "pending" without need (the task is woken at once).
///
/// Reads and writes draw from one sequence of sizes. What it does is fixed by the seed and
/// by the order of the calls.
#[derive(Debug)]
pub struct Chopped<T> {
    inner: T,
    cuts: Cuts,
    next: usize,
    rng: Rng,
    pauses: u8,
}

impl<T> Chopped<T> {
    /// Cuts as told; a fifth of the calls is pending first.
    pub fn new(inner: T, cuts: Cuts, seed: u64) -> Self {
        Self {
            inner,
            cuts,
            next: 0,
            rng: Rng::new(seed),
            pauses: 20,
        }
    }

    /// How many calls out of a hundred are pending first; at most 90, so that there is an end.
    #[must_use]
    pub fn with_pauses(mut self, percent: u8) -> Self {
        self.pauses = percent.min(90);
        self
    }

    /// The stream inside.
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn cut(&mut self) -> usize {
        let n = match &self.cuts {
            Cuts::Fixed(n) => *n,
            Cuts::Random { max } => self.rng.between(1, *max),
            Cuts::Listed(sizes) => {
                let n = sizes
                    .get(self.next % sizes.len().max(1))
                    .copied()
                    .unwrap_or(1);
                self.next += 1;
                n
            }
        };
        n.max(1)
    }

    fn pause(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.rng.percent(self.pauses) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Chopped<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pause(cx));
        if buf.remaining() == 0 {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let n = self.cut().min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(n));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Chopped<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.pause(cx));
        let n = self.cut();
        Pin::new(&mut self.inner).poll_write(cx, buf.get(..n).unwrap_or(buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pause(cx));
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pause(cx));
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.pause(cx));
        let mut left = self.cut();
        let mut part = Vec::with_capacity(bufs.len());
        for buf in bufs {
            let n = buf.len().min(left);
            left -= n;
            part.push(IoSlice::new(buf.get(..n).unwrap_or(buf)));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, &part)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
