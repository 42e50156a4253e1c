//! The `h2` crate: a stream is a POST whose bodies, there and back, are the two directions.
//!
//! Windows are those of yamux: 256 KiB a stream, and for the connection what all of them need. A writer has 128 KiB
//! in the crate's own buffer, as in cepa's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use cepa::ByteStream;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::io::{Io, QUEUE, Queue};
use crate::Outcome;

const WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;
const SEND_BUFFER: usize = 128 << 10;

#[derive(Clone)]
pub(crate) struct Opener(SendRequest<Bytes>);

impl Opener {
    pub(crate) async fn open(&self) -> Outcome<Io> {
        let request = http::Request::post("https://127.0.0.1/").body(())?;
        let mut ready = self.0.clone().ready().await?;
        let (response, send) = ready.send_request(request, false)?;
        Ok(Box::new(Stream {
            send,
            receive: Receive::Headers(response),
            chunk: Bytes::new(),
        }))
    }
}

pub(crate) async fn join(
    near: impl ByteStream,
    far: impl ByteStream,
    streams: usize,
) -> Outcome<(Opener, Queue)> {
    let most = u32::try_from(streams.max(512))?;
    let client = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_max_send_streams(streams.max(512))
        .handshake::<_, Bytes>(near);
    let server = h2::server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(most)
        .handshake::<_, Bytes>(far);
    let ((open, near), mut far) = tokio::try_join!(client, server)?;
    tokio::spawn(near);
    let (send, accepted) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(Ok((request, mut respond))) = far.accept().await {
            let Ok(back) = respond.send_response(http::Response::new(()), false) else {
                continue; // the stream was reset meanwhile
            };
            let stream = Stream {
                send: back,
                receive: Receive::Body(request.into_body()),
                chunk: Bytes::new(),
            };
            if send.try_send(Box::new(stream) as Io).is_err() {
                return;
            }
        }
    });
    Ok((Opener(open), accepted))
}

struct Stream {
    send: SendStream<Bytes>,
    receive: Receive,
    chunk: Bytes,
}

enum Receive {
    Headers(ResponseFuture),
    Body(RecvStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.chunk.is_empty() {
                let n = into.remaining().min(this.chunk.len());
                into.put_slice(&this.chunk[..n]);
                this.chunk.advance(n);
                if let Receive::Body(body) = &mut this.receive {
                    let released = body.flow_control().release_capacity(n);
                    released.map_err(io::Error::other)?;
                }
                return Poll::Ready(Ok(()));
            }
            match &mut this.receive {
                Receive::Headers(response) => {
                    let response = ready!(Pin::new(response).poll(cx));
                    let body = response.map_err(io::Error::other)?.into_body();
                    this.receive = Receive::Body(body);
                }
                Receive::Body(body) => match ready!(body.poll_data(cx)) {
                    Some(chunk) => this.chunk = chunk.map_err(io::Error::other)?,
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(bytes.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(granted) => granted.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let n = bytes.len().min(self.send.capacity());
        let sent = self
            .send
            .send_data(Bytes::copy_from_slice(&bytes[..n]), false);
        Poll::Ready(sent.map(|()| n).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.send.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io::Error::other))
    }
}
