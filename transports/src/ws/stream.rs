//! Bytes in binary messages. How they are cut into messages says nothing, but for one: an empty message ends a direction.
//!
//! A WebSocket has no half of it to close: Close ends both directions (RFC 6455, section 5.5.1), and a front end that sees one side of
//! TCP closed closes the other. So whoever has written all sends an empty message, and may read on; whoever does so second sends
//! Close behind it. A Close of status 1000, or none, from somebody who knows nothing of this ends both directions in order, too. An end of
//! the connection without any of these is a cut, and an error.
//!
//! Pings of the other end are answered by tungstenite while this end is read. This end sends one where nothing has come or gone for
//! a while, so that no front end takes the connection for dead; no second before the first is answered, and nothing follows from one
//! that is not: it may wait behind what the other end does not read.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::stream::{ByteStream, Stream, Wire};
use crate::text::quoted;

/// Bytes of a message, in and out. tungstenite makes room for a message when its header has come, so this is what a header can cost;
/// the mux writes batches of about as much.
const MESSAGE: usize = 64 << 10;

/// What a WebSocket runs over: a connection, perhaps in TLS.
pub(super) trait Below: ByteStream {
    /// The connection.
    fn connection(&mut self) -> &mut Stream;
}

impl Below for Stream {
    fn connection(&mut self) -> &mut Stream {
        self
    }
}

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        // Everything is written at once, as on any other stream; who wants fewer packets writes more.
        .write_buffer_size(0)
        // One message that did not go out yet, and what tungstenite itself has to say.
        .max_write_buffer_size(MESSAGE + 1024)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE))
}

pub(super) struct Messages<S> {
    socket: WebSocketStream<S>,
    /// The rest of a message.
    incoming: Bytes,
    /// The other end has written all.
    ended: bool,
    /// The other end has sent Close, and takes nothing any more.
    closed: bool,
    /// This end has written all.
    shut: bool,
    /// Close is on its way behind that.
    closing: bool,
    /// Something waits to be written.
    blocked: bool,
    ping: Option<Ping>,
}

struct Ping {
    every: Duration,
    timer: Pin<Box<Sleep>>,
    /// Nothing has come or gone since the timer was set.
    quiet: bool,
    /// One is on its way.
    asked: bool,
}

impl<S: Below> Messages<S> {
    /// Once its handshake is done.
    pub(super) fn new(socket: WebSocketStream<S>, ping: Option<u16>) -> Self {
        Self {
            socket,
            incoming: Bytes::new(),
            ended: false,
            closed: false,
            shut: false,
            closing: false,
            blocked: false,
            ping: ping.map(|seconds| {
                let every = Duration::from_secs(seconds.into());
                Ping {
                    every,
                    timer: Box::pin(sleep(every)),
                    quiet: true,
                    asked: false,
                }
            }),
        }
    }

    /// The server's end, whose handshake we have made.
    pub(super) async fn accepted(below: S, ping: Option<u16>) -> Self {
        let socket = WebSocketStream::from_raw_socket(below, Role::Server, Some(config())).await;
        Self::new(socket, ping)
    }

    fn busy(&mut self) {
        if let Some(ping) = &mut self.ping {
            ping.quiet = false;
        }
    }

    /// Sends one where it is time.
    fn poll_ping(&mut self, cx: &mut Context<'_>) {
        let Some(ping) = &mut self.ping else {
            return;
        };
        while ping.timer.as_mut().poll(cx).is_ready() {
            // Not by the sink's poll functions, which would take the place of a writer's waker.
            if ping.quiet && !ping.asked && !self.blocked {
                ping.asked = true;
                let sent = Pin::new(&mut self.socket).start_send(Message::Ping(Bytes::new()));
                // The next read or write tells.
                drop(sent);
            }
            ping.quiet = true;
            ping.timer.as_mut().reset(Instant::now() + ping.every);
        }
    }

    fn take(&mut self, message: Message) -> io::Result<()> {
        self.busy();
        match message {
            Message::Binary(bytes) if bytes.is_empty() => self.ended = true,
            Message::Binary(bytes) => self.incoming = bytes,
            Message::Pong(_) => {
                if let Some(ping) = &mut self.ping {
                    ping.asked = false;
                }
            }
            Message::Ping(_) | Message::Frame(_) => {}
            Message::Text(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a WebSocket message of text, where binary ones belong",
                ));
            }
            Message::Close(why) => {
                self.closed = true;
                match why {
                    None => self.ended = true,
                    Some(why) if why.code == CloseCode::Normal => self.ended = true,
                    Some(why) => return Err(aborted(&why)),
                }
            }
        }
        Ok(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut || self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let ready = Pin::new(&mut self.socket).poll_ready(cx);
        self.blocked = ready.is_pending();
        ready.map_err(of_ws)
    }

    fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.busy();
        let message = Message::Binary(bytes);
        Pin::new(&mut self.socket)
            .start_send(message)
            .map_err(of_ws)
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.blocked = flushed.is_pending();
        flushed.map_err(of_ws)
    }
}

fn aborted(why: &CloseFrame) -> io::Error {
    let code = u16::from(why.code);
    let words = match why.reason.as_str() {
        "" => String::new(),
        reason => format!(" {}", quoted(reason)),
    };
    let text = format!("the WebSocket was closed with status {code}{words}");
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

fn of_ws(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::Protocol(ProtocolError::SendAfterClosing) => io::ErrorKind::BrokenPipe.into(),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection of the WebSocket was cut",
        ),
        WsError::Capacity(_) => io::Error::new(
            io::ErrorKind::InvalidData,
            "a WebSocket message of more than 65536 bytes",
        ),
        other => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no WebSocket message: {other}"),
        ),
    }
}

impl<S: Below> Wire for Messages<S> {
    fn below(&mut self) -> Option<&mut dyn Wire> {
        Some(self.socket.get_mut().connection())
    }
}

impl<S: Below> AsyncRead for Messages<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.incoming.is_empty() || buf.remaining() == 0 {
                let n = this.incoming.len().min(buf.remaining());
                buf.put_slice(this.incoming.get(..n).unwrap_or_default());
                this.incoming.advance(n);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut this.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => this.take(message)?,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(of_ws(error))),
                // An error was told before.
                Poll::Ready(None) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Pending => {
                    this.poll_ping(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: Below> AsyncWrite for Messages<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        let piece = buf.get(..MESSAGE).unwrap_or(buf);
        // An empty message would be the end.
        if !piece.is_empty() {
            self.send(Bytes::copy_from_slice(piece))?;
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        let all = bufs
            .iter()
            .fold(0_usize, |all, buf| all.saturating_add(buf.len()));
        let mut message = BytesMut::with_capacity(all.min(MESSAGE));
        for buf in bufs {
            let room = MESSAGE - message.len();
            message.extend_from_slice(buf.get(..room).unwrap_or(buf));
        }
        let n = message.len();
        if n > 0 {
            self.send(message.freeze())?;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closed {
            this.shut = true;
            return this.poll_flushed(cx);
        }
        if !this.shut {
            ready!(this.poll_room(cx))?;
            this.send(Bytes::new())?;
            this.shut = true;
        }
        ready!(this.poll_flushed(cx))?;
        if this.ended && !this.closing {
            this.closing = true;
            let close = CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            };
            let sent = Pin::new(&mut this.socket).start_send(Message::Close(Some(close)));
            sent.map_err(of_ws)?;
        }
        if this.closing {
            ready!(this.poll_flushed(cx))?;
            return Pin::new(this.socket.get_mut()).poll_shutdown(cx);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
