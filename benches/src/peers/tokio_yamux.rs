//! The `tokio-yamux` crate: each session is a task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::ByteStream;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_yamux::{Config, Control, Session, StreamHandle};

use super::io::{Io, QUEUE, Queue};
use crate::Outcome;

#[derive(Clone)]
pub(crate) struct Opener(Control);

impl Opener {
    pub(crate) async fn open(&self) -> Outcome<Io> {
        Ok(Box::new(Listening(self.0.clone().open_stream().await?)))
    }
}

pub(crate) fn join(near: impl ByteStream, far: impl ByteStream) -> (Opener, Queue) {
    let config = Config {
        // By default a write that takes 10 s ends the session; on a slow path it does take as long.
        connection_write_timeout: Duration::from_secs(600),
        ..Config::default()
    };
    let mut near = Session::new_client(near, config);
    let mut far = Session::new_server(far, config);
    let control = near.control();
    let (send, accepted) = mpsc::channel(QUEUE);
    tokio::spawn(async move { while let Some(Ok(_)) = near.next().await {} });
    tokio::spawn(async move {
        while let Some(Ok(stream)) = far.next().await {
            if send.try_send(Box::new(Listening(stream)) as Io).is_err() {
                return;
            }
        }
    });
    (Opener(control), accepted)
}

/// A stream of this crate learns of new credit only while somebody reads it, so a writer that has to wait for some
/// would wait for ever. This one listens while it waits.
struct Listening(StreamHandle);

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, bytes);
        if written.is_ready() {
            return written;
        }
        // What it peeks at stays where it is.
        let _ = self.0.poll_peek(cx, &mut ReadBuf::new(&mut [0]))?;
        if self.0.send_window() == 0 {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
