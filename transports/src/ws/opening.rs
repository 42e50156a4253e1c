//! An accepted stream whose handshake runs beside it: reading and writing wait for that.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use crate::stream::Wire;

/// What a handshake comes to; see `Shared::open`.
type Opened = io::Result<Box<dyn Wire>>;

pub(super) struct Opening {
    state: State,
    /// See [`Wire::cut_when_dropped`]; passed on once there is something to cut.
    cut: bool,
}

enum State {
    /// Dropped early, it is ended.
    Waiting(JoinHandle<Opened>),
    Open(Box<dyn Wire>),
    /// Told once, as the failure of whatever was tried first.
    Failed,
}

impl Opening {
    pub(super) fn new(handshake: impl Future<Output = Opened> + Send + 'static) -> Self {
        Self {
            state: State::Waiting(tokio::spawn(handshake)),
            cut: false,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Box<dyn Wire>>> {
        if let State::Waiting(handshake) = &mut self.state {
            let opened = ready!(Pin::new(handshake).poll(cx));
            let opened = opened.unwrap_or_else(|ended| Err(io::Error::other(ended)));
            self.state = match opened {
                Ok(mut wire) => {
                    wire.cut_when_dropped(self.cut);
                    State::Open(wire)
                }
                Err(error) => {
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(match &mut self.state {
            State::Open(wire) => Ok(wire),
            State::Failed | State::Waiting(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let State::Waiting(handshake) = &self.state {
            handshake.abort();
        }
    }
}

impl Wire for Opening {
    fn below(&mut self) -> Option<&mut dyn Wire> {
        match &mut self.state {
            State::Open(wire) => Some(wire),
            _ => None,
        }
    }

    fn cut_when_dropped(&mut self, yes: bool) {
        self.cut = yes;
        if let Some(wire) = self.below() {
            wire.cut_when_dropped(yes);
        }
    }
}

impl AsyncRead for Opening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = ready!(self.poll_open(cx))?;
        Pin::new(wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Opening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = ready!(self.poll_open(cx))?;
        Pin::new(wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = ready!(self.poll_open(cx))?;
        Pin::new(wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = ready!(self.poll_open(cx))?;
        Pin::new(wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = ready!(self.poll_open(cx))?;
        Pin::new(wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
