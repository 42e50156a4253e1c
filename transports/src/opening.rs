//! An accepted stream before its handshake: reading and writing wait for that. It runs beside the stream, or as part of the first read
//! or write, where it is to cost nothing until somebody wants it.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(feature = "ws")]
use tokio::task::JoinHandle;

use crate::stream::Wire;

/// What a handshake comes to. Whoever closed before saying anything is an error, too.
pub(crate) type Opened = io::Result<Box<dyn Wire>>;

pub(crate) struct Opening {
    state: State,
    /// See [`Wire::cut_when_dropped`]; passed on once there is something to cut.
    cut: bool,
}

enum State {
    /// Dropped early, it is ended.
    #[cfg(feature = "ws")]
    Beside(JoinHandle<Opened>),
    #[cfg(feature = "quic")]
    Within(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Open(Box<dyn Wire>),
    /// Told once, as the failure of whatever was tried first.
    Failed,
}

impl Opening {
    /// With a handshake that begins at once.
    #[cfg(feature = "ws")]
    pub(crate) fn beside(handshake: impl Future<Output = Opened> + Send + 'static) -> Self {
        Self {
            state: State::Beside(tokio::spawn(handshake)),
            cut: false,
        }
    }

    /// With a handshake that begins when the stream is first read or written.
    #[cfg(feature = "quic")]
    pub(crate) fn within(handshake: impl Future<Output = Opened> + Send + 'static) -> Self {
        Self {
            state: State::Within(Box::pin(handshake)),
            cut: false,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Box<dyn Wire>>> {
        let opened = match &mut self.state {
            #[cfg(feature = "ws")]
            State::Beside(handshake) => {
                let opened = ready!(Pin::new(handshake).poll(cx));
                Some(opened.unwrap_or_else(|ended| Err(io::Error::other(ended))))
            }
            #[cfg(feature = "quic")]
            State::Within(handshake) => Some(ready!(handshake.as_mut().poll(cx))),
            _ => None,
        };
        if let Some(opened) = opened {
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
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        #[cfg(feature = "ws")]
        if let State::Beside(handshake) = &self.state {
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
