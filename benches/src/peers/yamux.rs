//! The `yamux` crate: its connection is polled in a task of its own, and asked for streams through a channel.

use std::future::poll_fn;
use std::task::Poll;

use cepa::ByteStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

use super::io::{Io, QUEUE, Queue};
use crate::Outcome;

type Answer = oneshot::Sender<Result<Stream, ConnectionError>>;

#[derive(Clone)]
pub(crate) struct Opener {
    ask: mpsc::Sender<Answer>,
}

impl Opener {
    pub(crate) async fn open(&self) -> Outcome<Io> {
        let (answer, opened) = oneshot::channel();
        self.ask.send(answer).await?;
        Ok(Box::new(opened.await??.compat()))
    }
}

pub(crate) fn join(near: impl ByteStream, far: impl ByteStream, streams: usize) -> (Opener, Queue) {
    let mut config = Config::default();
    if streams > 512 {
        config.set_max_connection_receive_window(None);
        config.set_max_num_streams(streams);
    }
    let (ask, asked) = mpsc::channel(64);
    let (send, accepted) = mpsc::channel(QUEUE);
    tokio::spawn(open(near, config.clone(), asked));
    tokio::spawn(accept(far, config, send));
    (Opener { ask }, accepted)
}

async fn open(io: impl ByteStream, config: Config, mut asked: mpsc::Receiver<Answer>) {
    let mut connection = Connection::new(io.compat(), config, Mode::Client);
    let mut waiting: Option<Answer> = None;
    poll_fn(|cx| {
        loop {
            if waiting.is_none()
                && let Poll::Ready(Some(answer)) = asked.poll_recv(cx)
            {
                waiting = Some(answer);
            }
            if waiting.is_some()
                && let Poll::Ready(opened) = connection.poll_new_outbound(cx)
            {
                if let Some(answer) = waiting.take() {
                    // Who asked may have gone.
                    let _ = answer.send(opened);
                }
                continue;
            }
            // Nothing is opened from there; the connection moves its bytes in this call.
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

async fn accept(io: impl ByteStream, config: Config, send: mpsc::Sender<Io>) {
    let mut connection = Connection::new(io.compat(), config, Mode::Server);
    while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        // The connection must not stand still for whoever accepts; the queue has room for all streams.
        if send.try_send(Box::new(stream.compat())).is_err() {
            return;
        }
    }
}
