//! The stream below a session's mux: not a byte comes through before the peer's binding was checked.
//!
//! Our own binding is written by who makes the session, and leaves with the mux's first frames; so
//! the exchange costs no round trip.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::binding::Binding;

/// A stream whose first bytes must be the peer's binding; see the head of this file.
pub(crate) struct Bound<T> {
    inner: T,
    /// What to check, and what of it has come; none once it was checked.
    waits: Option<Waits>,
}

struct Waits {
    binding: Binding,
    said: [u8; Binding::LENGTH],
    got: usize,
}

impl<T: AsyncRead + Unpin> Bound<T> {
    pub(crate) fn new(inner: T, binding: Binding) -> Self {
        Self {
            inner,
            waits: Some(Waits {
                binding,
                said: [0; Binding::LENGTH],
                got: 0,
            }),
        }
    }

    /// Reads the binding and checks it. The stream's end comes as a read of nothing does.
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Checked>> {
        let Some(waits) = &mut self.waits else {
            return Poll::Ready(Ok(Checked::Passed));
        };
        while let room @ [_, ..] = waits.said.get_mut(waits.got..).unwrap_or_default() {
            let mut part = ReadBuf::new(room);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
            match part.filled().len() {
                0 => return Poll::Ready(Ok(Checked::Ended)),
                n => waits.got += n,
            }
        }
        // It stays when the check fails: reading fails for good then.
        waits
            .binding
            .check(&waits.said)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.waits = None;
        Poll::Ready(Ok(Checked::Passed))
    }
}

enum Checked {
    Passed,
    Ended,
}

impl<T: AsyncRead + Unpin> AsyncRead for Bound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.poll_check(cx))? {
            Checked::Passed => Pin::new(&mut self.inner).poll_read(cx, buf),
            Checked::Ended => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Bound<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
