//! Keeps the reason for which the peer refused us, while a session is being made.
//!
//! A TLS 1.3 client has finished its handshake before the server looks at its certificate. When the
//! server refuses, its alert is on the way while the client already writes its first ping; and where
//! that write fails first (the other end is closed), the mux hears of a broken pipe and would never
//! read the alert. So, until the session is announced, a failed write makes this stream look once
//! for what the peer had said before it left.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::tls_inside;

/// Reads that are thrown away, at most, to come to the alert behind them.
const LOOKS: usize = 16;

/// The stream between the TLS layers and the mux.
pub(super) struct Witness<T> {
    inner: T,
    announced: Announced,
}

/// Set when the session stands: from then on what was received belongs to its substreams.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced(Arc<AtomicBool>);

impl Announced {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T: AsyncRead + Unpin> Witness<T> {
    pub(super) fn new(inner: T, announced: Announced) -> Self {
        Self { inner, announced }
    }

    /// The error of a write, or the better one that waits to be read.
    fn better(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        if self.announced.0.load(Ordering::Relaxed) || tls_inside(&error).is_some() {
            return error;
        }
        let mut scratch = [0; 4096];
        for _ in 0..LOOKS {
            let mut room = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {}
                Poll::Ready(Err(said)) if tls_inside(&said).is_some() => return said,
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        error
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Witness<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Witness<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        polled.map_err(|error| self.better(cx, error))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        polled.map_err(|error| self.better(cx, error))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        polled.map_err(|error| self.better(cx, error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
