//! A stream that breaks after an exact number of bytes.
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pattern::Rng;

/// How a direction breaks. It stays broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reads see the end of the stream; writes fail with `BrokenPipe`, as on a connection that the
    /// peer has closed.
    Cut,
    /// Every call fails with this kind.
    Error(io::ErrorKind),
    /// Nothing ever happens again: no call returns, nobody is woken (an unplugged cable).
    Stall,
    /// Writes are accepted and lost; reads stall.
    Swallow,
}

/// Passes everything on until a direction has moved its number of bytes; then that direction breaks.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    read: Option<(u64, Fault)>,
    write: Option<(u64, Fault)>,
}

impl<T> Faulty<T> {
    /// No fault yet.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            read: None,
            write: None,
        }
    }

    /// Breaks both directions, each after up to `within` bytes, in a way that the seed decides.
    pub fn random(inner: T, seed: u64, within: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut fault = || {
            let after = rng.next_u64() % within.saturating_add(1).max(1);
            let fault = match rng.between(0, 3) {
                0 => Fault::Cut,
                1 => Fault::Error(io::ErrorKind::ConnectionReset),
                2 => Fault::Error(io::ErrorKind::TimedOut),
                _ => Fault::Stall,
            };
            Some((after, fault))
        };
        let (read, write) = (fault(), fault());
        Self { inner, read, write }
    }

    /// Breaks reading after exactly so many bytes.
    #[must_use]
    pub fn with_read(mut self, after: u64, fault: Fault) -> Self {
        self.read = Some((after, fault));
        self
    }

    /// Breaks writing after exactly so many bytes.
    #[must_use]
    pub fn with_write(mut self, after: u64, fault: Fault) -> Self {
        self.write = Some((after, fault));
        self
    }

    /// The stream inside.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

/// How many of `want` bytes may still pass.
fn left(side: Option<(u64, Fault)>, want: usize) -> usize {
    match side {
        Some((left, _)) => usize::try_from(left).unwrap_or(usize::MAX).min(want),
        None => want,
    }
}

fn used(side: &mut Option<(u64, Fault)>, bytes: usize) {
    if let Some((left, _)) = side {
        *left = left.saturating_sub(bytes as u64);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Faulty<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.read {
            Some((0, Fault::Cut)) => return Poll::Ready(Ok(())),
            Some((0, Fault::Error(kind))) => return Poll::Ready(Err(kind.into())),
            Some((0, Fault::Stall | Fault::Swallow)) => return Poll::Pending,
            _ => {}
        }
        let n = left(self.read, buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(n));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        buf.advance(n);
        used(&mut self.read, n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Faulty<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.write {
            Some((0, Fault::Cut)) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some((0, Fault::Error(kind))) => return Poll::Ready(Err(kind.into())),
            Some((0, Fault::Stall)) => return Poll::Pending,
            Some((0, Fault::Swallow)) => return Poll::Ready(Ok(buf.len())),
            _ => {}
        }
        let n = left(self.write, buf.len());
        let part = buf.get(..n).unwrap_or(buf);
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, part))?;
        used(&mut self.write, n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.write {
            Some((0, Fault::Error(kind))) => Poll::Ready(Err(kind.into())),
            Some((0, Fault::Stall)) => Poll::Pending,
            _ => Pin::new(&mut self.inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.write {
            Some((0, Fault::Error(kind))) => Poll::Ready(Err(kind.into())),
            Some((0, Fault::Stall)) => Poll::Pending,
            // The peer must not see a clean end behind bytes that were swallowed.
            Some((0, Fault::Swallow)) => Poll::Ready(Ok(())),
            _ => Pin::new(&mut self.inner).poll_shutdown(cx),
        }
    }
}
