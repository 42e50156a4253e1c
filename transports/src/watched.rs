//! A connection of a socket, and the watch over its other end while it is not read (`hang_up.rs`): what `tcp:` and `unix:` have in
//! common. What they do not is their [`Kind`].
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::hang_up::HangUp;
use crate::stream::Wire;

/// What a kind of socket does otherwise than others.
pub(crate) trait Kind<S>: Send + Unpin + 'static {
    /// See [`Stream::cut_when_dropped`](crate::Stream::cut_when_dropped).
    fn cut_when_dropped(&mut self, _: &S, _yes: bool) {}

    /// See [`Stream::peer_user`](crate::Stream::peer_user).
    fn peer_user(&self, _: &S) -> Option<u32> {
        None
    }

    /// It is not read, so no read tells that the other end is gone.
    fn unread(&mut self, _: &S) {}

    /// See [`Stream::poll_drained`](crate::Stream::poll_drained).
    fn poll_drained(&mut self, _: &mut Context<'_>, _: &S) -> Poll<()> {
        Poll::Ready(())
    }
}

pub(crate) struct Watched<S, K> {
    stream: S,
    kind: K,
    hang_up: HangUp,
}

impl<S, K> Watched<S, K> {
    pub(crate) fn new(stream: S, kind: K) -> Self {
        Self {
            stream,
            kind,
            hang_up: HangUp::default(),
        }
    }
}

impl<S, K> Wire for Watched<S, K>
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
    K: Kind<S>,
{
    fn cut_when_dropped(&mut self, yes: bool) {
        self.kind.cut_when_dropped(&self.stream, yes);
    }

    fn peer_user(&self) -> Option<u32> {
        self.kind.peer_user(&self.stream)
    }

    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        if reading {
            self.hang_up.rest();
            return Poll::Pending;
        }
        self.kind.unread(&self.stream);
        self.hang_up.poll(cx, &self.stream)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.kind.poll_drained(cx, &self.stream)
    }
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for Watched<S, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for Watched<S, K> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
