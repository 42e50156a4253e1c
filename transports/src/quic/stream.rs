//! The stream of a QUIC connection as a byte stream.
//!
//! | what this end does | what the other end reads | and writes |
//! |---|---|---|
//! | shuts it down | all, then the end (FIN) | on |
//! | drops it, having shut it down and read the end | all, then the end | has ended |
//! | drops it, having shut it down | all, then the end | `BrokenPipe` |
//! | drops it | all, then `ConnectionReset` | an error |
//! | drops it, told to cut it | what has arrived, then `ConnectionReset` | an error |
//! | is killed, or the way is gone | what has arrived, then `TimedOut`, after three times `keepalive` | an error |
//!
//! A cut is a close of the connection and no reset of the stream: a reset takes back what has arrived and was not read yet (RFC 9000,
//! section 3.2), a close leaves it.
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError};
use quinn::{Endpoint as QuinnEndpoint, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::config::{FIRST_WINDOW, WINDOW};
use super::leaving::{self, Leaving, Live};
use super::wire::{CUT, END, FORGOTTEN, UNREAD};
use crate::stream::Wire;
use crate::text::clean;

/// Bytes that one vectored write takes: a batch of the mux.
const BATCH: usize = 64 << 10;

/// How long nothing more of what was written may be acknowledged once the stream is shut down, or dropped. A program may end behind a
/// shutdown, and what has not arrived by then is lost, so that a shutdown fails then. A slow way has longer, as long as it gets on.
const LINGER: Duration = Duration::from_secs(30);

/// How often it may get on: 10 min in all are what the other end can make this one keep, in time.
const LINGERS: u32 = 20;

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) struct QuicStream {
    /// Taken when it is dropped.
    parts: Option<Parts>,
    /// This end has said all.
    shut: bool,
    /// The other end has, and it was read.
    ended: bool,
    /// See [`Wire::cut_when_dropped`].
    cut: bool,
    /// Bytes read, up to where the window grows.
    read: u32,
    /// The window for sending is narrowed, see `poll_acknowledged`.
    narrow: bool,
    /// The end of the connection, whatever it is.
    closed: Option<Waiting<ConnectionError>>,
    /// All up to the end was acknowledged; or nobody reads it.
    finished: Option<Waiting<Result<Option<VarInt>, StoppedError>>>,
    patience: Option<Waiting<()>>,
}

struct Parts {
    send: SendStream,
    recv: RecvStream,
    connection: Connection,
    /// Its driver ends with the last of these and of the connections.
    _endpoint: QuinnEndpoint,
    _live: Live,
    /// Whoever drops the stream may be outside of it.
    runtime: Handle,
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl QuicStream {
    pub(super) fn new(
        endpoint: QuinnEndpoint,
        connection: Connection,
        send: SendStream,
        recv: RecvStream,
    ) -> Self {
        Self {
            parts: Some(Parts {
                send,
                recv,
                _live: Live::new(&connection),
                connection,
                _endpoint: endpoint,
                runtime: Handle::current(),
            }),
            shut: false,
            ended: false,
            cut: false,
            read: 0,
            narrow: false,
            closed: None,
            finished: None,
            patience: None,
        }
    }

    fn parts(&mut self) -> io::Result<&mut Parts> {
        self.parts.as_mut().ok_or_else(gone)
    }

    /// For writing.
    fn writable(&mut self) -> io::Result<&mut Parts> {
        if self.shut {
            return Err(gone());
        }
        let narrow = std::mem::take(&mut self.narrow);
        let parts = self.parts()?;
        if narrow {
            parts.connection.set_send_window(WINDOW.into());
        }
        Ok(parts)
    }

    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = match &mut self.finished {
            Some(finished) => finished,
            none => match &self.parts {
                Some(parts) => none.insert(Box::pin(parts.send.stopped())),
                None => return Poll::Ready(Ok(())),
            },
        };
        let result = ready!(finished.as_mut().poll(cx));
        // Whoever asks again has an answer again.
        self.finished = None;
        Poll::Ready(acknowledged(result))
    }
}

fn acknowledged(finished: Result<Option<VarInt>, StoppedError>) -> io::Result<()> {
    match finished {
        Ok(None) => Ok(()),
        // The other end has read it all, and was quicker to leave than its acknowledgement.
        Err(StoppedError::ConnectionLost(ConnectionError::ApplicationClosed(close)))
            if close.error_code == END =>
        {
            Ok(())
        }
        Ok(Some(_)) | Err(StoppedError::ZeroRttRejected) => Err(gone()),
        Err(StoppedError::ConnectionLost(error)) => {
            Err(of_write(WriteError::ConnectionLost(error)))
        }
    }
}

/// Ready once all that was written is acknowledged, where it has not ended. quinn tells when the end is, and of all else only whether there is room
/// to write: where as good as none is left, there is some again once nothing waits.
fn poll_acknowledged(parts: &mut Parts, cx: &mut Context<'_>) -> Poll<()> {
    parts.connection.set_send_window(1);
    Pin::new(&mut parts.send).poll_write(cx, &[]).map(|_| ())
}

/// Ready once nothing more of what waits gets through, or it has taken far too long.
async fn stalled(connection: Connection) {
    // quinn does not tell how much is acknowledged. Where bytes are sent and nobody is there, no acknowledgement comes; where somebody is and
    // does not read, he acknowledges that he is asked whether he is there, and no bytes are sent.
    stand_still(|| {
        let stats = connection.stats();
        [stats.frame_tx.stream, stats.frame_rx.acks]
    })
    .await;
}

/// Waits until one of two counts has not grown for [`LINGER`].
async fn stand_still(counts: impl Fn() -> [u64; 2]) {
    for _ in 0..LINGERS {
        let before = counts();
        sleep(LINGER).await;
        let mut both = before.into_iter().zip(counts());
        if both.any(|(before, now)| before == now) {
            return;
        }
    }
}

/// What the end of a connection is to who uses its stream.
pub(super) fn of_connection(error: &ConnectionError) -> io::Error {
    let say = |kind, what: &str| io::Error::new(kind, what.to_owned());
    match error {
        ConnectionError::ApplicationClosed(close)
            if [CUT, FORGOTTEN].contains(&close.error_code) =>
        {
            say(
                io::ErrorKind::ConnectionReset,
                "the other end cut the QUIC connection",
            )
        }
        ConnectionError::ApplicationClosed(_) => say(
            io::ErrorKind::ConnectionAborted,
            "the other end closed the QUIC connection",
        ),
        ConnectionError::TimedOut => say(
            io::ErrorKind::TimedOut,
            "nothing was heard from the other end of the QUIC connection for too long",
        ),
        ConnectionError::Reset => say(
            io::ErrorKind::ConnectionReset,
            "the other end knows nothing of the QUIC connection any more",
        ),
        ConnectionError::LocallyClosed => say(
            io::ErrorKind::ConnectionAborted,
            "the QUIC connection was closed here",
        ),
        other => {
            let why = clean(&other.to_string(), 200).into_owned();
            say(
                io::ErrorKind::ConnectionAborted,
                &format!("the QUIC connection failed: {why}"),
            )
        }
    }
}

pub(super) fn of_read(error: ReadError) -> io::Error {
    match error {
        ReadError::ConnectionLost(error) => of_connection(&error),
        ReadError::Reset(_) => io::ErrorKind::ConnectionReset.into(),
        other => io::Error::other(other),
    }
}

fn of_write(error: WriteError) -> io::Error {
    match error {
        WriteError::ConnectionLost(ConnectionError::ApplicationClosed(close))
            if [END, UNREAD].contains(&close.error_code) =>
        {
            gone()
        }
        WriteError::ConnectionLost(error) => of_connection(&error),
        _ => gone(),
    }
}

impl Wire for QuicStream {
    fn cut_when_dropped(&mut self, yes: bool) {
        self.cut = yes;
    }

    fn poll_left(&mut self, cx: &mut Context<'_>, _: bool) -> Poll<io::Error> {
        let closed = match &mut self.closed {
            Some(closed) => closed,
            none => {
                let Some(parts) = &self.parts else {
                    return Poll::Ready(gone());
                };
                let connection = parts.connection.clone();
                none.insert(Box::pin(async move { connection.closed().await }))
            }
        };
        let error = ready!(closed.as_mut().poll(cx));
        self.closed = None;
        Poll::Ready(of_write(WriteError::ConnectionLost(error)))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shut {
            return self.poll_finished(cx).map(|_| ());
        }
        self.narrow = true;
        match &mut self.parts {
            Some(parts) => poll_acknowledged(parts, cx),
            None => Poll::Ready(()),
        }
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 || this.ended {
            return Poll::Ready(Ok(()));
        }
        let parts = this.parts.as_mut().ok_or_else(gone)?;
        let before = buf.filled().len();
        ready!(parts.recv.poll_read_buf(cx, buf)).map_err(of_read)?;
        let n = buf.filled().len() - before;
        this.ended = n == 0;
        if this.read < FIRST_WINDOW {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            this.read = this.read.saturating_add(n);
            if this.read >= FIRST_WINDOW {
                parts
                    .connection
                    .set_receive_window(VarInt::from_u32(WINDOW));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = self.writable()?;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = Pin::new(&mut parts.send).poll_write(cx, buf);
        written.map_err(of_write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let parts = self.writable()?;
        let all = bufs
            .iter()
            .fold(0_usize, |all, buf| all.saturating_add(buf.len()));
        let mut batch = BytesMut::with_capacity(all.min(BATCH));
        for buf in bufs {
            let room = BATCH - batch.len();
            batch.extend_from_slice(buf.get(..room).unwrap_or(buf));
        }
        if batch.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // Cancel safe, so that each poll can begin anew.
        let mut batch: [Bytes; 1] = [batch.freeze()];
        let written = pin!(parts.send.write_chunks(&mut batch)).poll(cx);
        written.map_ok(|it| it.bytes).map_err(of_write)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            let parts = this.writable()?;
            // Fails where nobody reads, which is told below.
            let _ = parts.send.finish();
            this.shut = true;
        }
        if let Poll::Ready(finished) = this.poll_finished(cx) {
            return Poll::Ready(finished);
        }
        let patience = match (&mut this.patience, &this.parts) {
            (Some(patience), _) => patience,
            (none, Some(parts)) => none.insert(Box::pin(stalled(parts.connection.clone()))),
            (_, None) => return Poll::Ready(Err(gone())),
        };
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other end of the QUIC connection has acknowledged nothing more for 30 s",
        )))
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else {
            return;
        };
        if parts.connection.close_reason().is_some() {
            return;
        }
        let before = parts.connection.stats().udp_tx.datagrams;
        let (cut, shut, ended, leaving) = (self.cut, self.shut, self.ended, Leaving::new());
        if cut {
            // Before the stream is dropped, which would end it.
            parts.connection.close(CUT, b"");
        }
        let runtime = parts.runtime.clone();
        runtime.spawn(async move {
            let _leaving = leaving;
            if cut {
                leaving::sent_more(&parts.connection, before).await;
                return;
            }
            if !ended {
                // Nobody reads it any more.
                let _ = parts.recv.stop(UNREAD);
            }
            let with = if shut {
                let stalled = stalled(parts.connection.clone());
                tokio::select! {
                    _ = parts.send.stopped() => {}
                    () = stalled => {}
                }
                if ended { END } else { UNREAD }
            } else {
                let stalled = stalled(parts.connection.clone());
                let all = poll_fn(|cx| poll_acknowledged(&mut parts, cx));
                tokio::select! {
                    () = all => {}
                    () = stalled => {}
                }
                CUT
            };
            leaving::close(&parts.connection, with).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// In virtual time.
    #[tokio::test(start_paused = true)]
    async fn who_gets_on_has_longer_and_nobody_has_for_ever() {
        let start = Instant::now();
        let lingers = move || u64::from(LINGERS).min(start.elapsed().as_secs() / LINGER.as_secs());
        let since = |it: Instant| it.elapsed().as_secs() / LINGER.as_secs();
        // Packets without answers, answers without packets, and both for a while.
        for counts in [[true, false], [false, true]] {
            let begun = Instant::now();
            stand_still(|| counts.map(|grows| if grows { lingers() } else { 7 })).await;
            assert_eq!(since(begun), 1);
        }
        let begun = Instant::now();
        let until = lingers() + 3;
        stand_still(|| [lingers(), lingers().min(until)]).await;
        assert_eq!(since(begun), 4);
        let begun = Instant::now();
        stand_still(|| [since(begun); 2]).await;
        assert_eq!(since(begun), u64::from(LINGERS));
    }
}
