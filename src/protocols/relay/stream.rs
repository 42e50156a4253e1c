//! A node's end of a circuit: the byte stream, with errors that say in words what the relay meant by the code of a reset.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::identity::PeerId;
use crate::mux::{StreamError, StreamTimeouts, Substream};
use crate::onion::Onion;
use crate::protocols::copy::{GOING, LOST};

use super::error::CircuitEnd;
use super::message::{IDLE, TAKEN_BACK, UNREAD};

/// See the head of this file.
pub(super) struct CircuitStream {
    inner: Onion<Substream>,
    relay: PeerId,
}

impl CircuitStream {
    pub(super) fn new(mut inner: Onion<Substream>, relay: PeerId) -> Self {
        // It carries a session, which has its own way to find out that nobody is there.
        inner.wire_mut().set_timeouts(StreamTimeouts::NONE);
        Self { inner, relay }
    }

    /// In words, where the relay has ended the circuit by itself.
    fn named<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        polled.map_err(|error| {
            let relay = self.relay;
            let end = match reset_code(&error) {
                Some(LOST) => CircuitEnd::Lost { relay },
                Some(GOING) => CircuitEnd::Going { relay },
                Some(IDLE) => CircuitEnd::Idle { relay },
                Some(TAKEN_BACK) => CircuitEnd::TakenBack { relay },
                Some(UNREAD) => CircuitEnd::Unread { relay },
                _ => return error,
            };
            io::Error::new(error.kind(), end)
        })
    }
}

/// The code with which the other end has reset a stream.
pub(super) fn reset_code(error: &io::Error) -> Option<u32> {
    match error.get_ref()?.downcast_ref()? {
        StreamError::ResetByPeer { code } => Some(*code),
        _ => None,
    }
}

impl AsyncRead for CircuitStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.named(polled)
    }
}

impl AsyncWrite for CircuitStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.named(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.named(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.named(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.named(polled)
    }
}
