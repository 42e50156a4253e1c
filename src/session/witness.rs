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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;
    use crate::tls::TlsError;

    /// A stream that can't be written any more; what is still to be read stands in it.
    struct Broken(VecDeque<Read>);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.0.pop_front() {
                Some(Poll::Ready(Ok(bytes))) => buf.put_slice(&bytes),
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                Some(Poll::Pending) => return Poll::Pending,
                None => {}
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What a read gives.
    type Read = Poll<io::Result<Vec<u8>>>;

    fn alert() -> Read {
        Poll::Ready(Err(TlsError::from_alert(46).into()))
    }

    fn bytes() -> Read {
        Poll::Ready(Ok(vec![1, 2, 3]))
    }

    fn later() -> Read {
        Poll::Pending
    }

    /// The errors of a write and of a flush, each with this still to be read.
    fn errors(waiting: &[fn() -> Read], announced: bool) -> [io::Error; 2] {
        let state = Announced::default();
        if announced {
            state.set();
        }
        let fresh = || Witness::new(Broken(waiting.iter().map(|f| f()).collect()), state.clone());
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Err(write)) = Pin::new(&mut fresh()).poll_write(cx, b"x") else {
            panic!("written")
        };
        let Poll::Ready(Err(flush)) = Pin::new(&mut fresh()).poll_flush(cx) else {
            panic!("flushed")
        };
        [write, flush]
    }

    #[test]
    fn the_alert_behind_a_broken_pipe_is_found() {
        for waiting in [&[alert as fn() -> _][..], &[bytes, bytes, alert]] {
            for error in errors(waiting, false) {
                let tls = tls_inside(&error).expect("the alert");
                assert!(matches!(tls, TlsError::RefusedByPeer { alert: 46 }));
            }
        }
    }

    #[test]
    fn where_there_is_none_the_error_stays() {
        let endless = [bytes as fn() -> _; 100];
        let none: &[fn() -> _] = &[];
        for waiting in [none, &[later], &[bytes, later], &endless] {
            for error in errors(waiting, false) {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            }
        }
    }

    #[test]
    fn an_announced_session_is_left_alone() {
        for error in errors(&[alert], true) {
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
