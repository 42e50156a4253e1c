//! A line behind a serial server as a byte stream: the IO around `engine`.
//!
//! For a client, as on a line of this machine, a shutdown sends all there is and tells the other end nothing, and the end of the connection is
//! an error: nothing on a line says that the peer meant to end. A server's client opens and closes its port, so there both are ends.
//!
//! Up to [`PIECE`] bytes of data wait here for a flush, or for the next call. What the server asks for is answered by whoever
//! reads, so the write side below is polled with a waker for both tasks.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::end::{End, Refusal};
use super::engine::Client;
use crate::joint_waker::JointWaker;
use crate::line_notices::OutLine;
use crate::stream::{Stream, Wire};
use crate::terminal::LineDoor;

/// What tcsendbreak takes at least: long enough for every baud rate.
const BREAK: Duration = Duration::from_millis(250);

/// Bytes of one write, before they are escaped; twice as many wait at most.
const PIECE: usize = 16 << 10;

/// Bytes that are read at once.
const READ: usize = 4096;

/// A server that asks without end and takes no answers is not read any more, once so many bytes of answers wait.
const ANSWERS: usize = 4 * PIECE;

pub(super) struct Line<E> {
    below: Stream,
    engine: E,
    /// Of the line, not read yet.
    incoming: BytesMut,
    door: Arc<LineDoor>,
    breaking: Option<Pin<Box<Sleep>>>,
    shut: bool,
    /// The connection has ended.
    gone: bool,
    /// Within a command: what was before it is no whole.
    cut: bool,
    wakers: JointWaker,
}

/// Why a line did not open.
pub(super) enum NotOpen {
    Refused(Refusal),
    Closed,
    Io(io::Error),
}

impl<E: End> Line<E> {
    pub(super) fn new(below: Stream, engine: E) -> Self {
        Self {
            below,
            engine,
            incoming: BytesMut::new(),
            door: Arc::default(),
            breaking: None,
            shut: false,
            gone: false,
            cut: false,
            wakers: JointWaker::new(),
        }
    }

    pub(super) fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    pub(super) fn door(&self) -> Arc<LineDoor> {
        Arc::clone(&self.door)
    }

    /// Sends what waits.
    fn poll_out(&mut self) -> Poll<io::Result<()>> {
        let joint = self.wakers.joint().clone();
        let cx = &mut Context::from_waker(&joint);
        let out = self.engine.out();
        while !out.is_empty() {
            match ready!(Pin::new(&mut self.below).poll_write(cx, out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => out.advance(n),
            }
        }
        // A line that rests has no memory for it.
        *out = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Says what was asked for by the side; a break is ended in time.
    fn poll_side(&mut self, cx: &mut Context<'_>) {
        let wanted = self.door.poll_wanted(cx);
        for (line, state) in [(OutLine::Dtr, wanted.dtr), (OutLine::Rts, wanted.rts)] {
            if let Some(on) = state {
                self.engine.set_line(line, on);
            }
        }
        if wanted.sends_break && self.breaking.is_none() {
            self.engine.set_break(true);
            self.breaking = Some(Box::pin(sleep(BREAK)));
        }
        if let Some(sleep) = &mut self.breaking
            && sleep.as_mut().poll(cx).is_ready()
        {
            self.engine.set_break(false);
            self.breaking = None;
        }
    }
}

impl Line<Client> {
    /// Until the line carries bytes. Not cancel safe, but that the line can be asked what it waits for.
    pub(super) async fn open(&mut self) -> Result<(), NotOpen> {
        let mut sent = Ok(());
        loop {
            // Who closes at once has perhaps said why, and that can be read all the same.
            if sent.is_ok() {
                sent = self.below.write_all_buf(self.engine.out()).await;
            }
            if self.engine.is_open() {
                self.door.notice(self.engine.notices());
                return sent.map_err(NotOpen::Io);
            }
            let mut bytes = [0; READ];
            let n = match self.below.read(&mut bytes).await {
                Ok(0) => return Err(NotOpen::Closed),
                Ok(n) => n,
                // It took no more notice of what we had said.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(NotOpen::Closed);
                }
                Err(error) => return Err(NotOpen::Io(error)),
            };
            let bytes = bytes.get(..n).unwrap_or_default();
            let received = self.engine.receive(bytes, &mut self.incoming);
            received.map_err(NotOpen::Refused)?;
        }
    }
}

fn hang_up() -> io::Error {
    let text = "the serial server closed the connection";
    io::Error::new(io::ErrorKind::ConnectionReset, text)
}

fn refused(why: Refusal) -> io::Error {
    let what = match why {
        Refusal::Binary => "lets bytes pass as they are no longer",
        Refusal::ComPort => "gave up control of the port",
    };
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the serial server {what}"),
    )
}

impl<E: End> Wire for Line<E> {
    fn below(&mut self) -> Option<&mut dyn Wire> {
        Some(&mut self.below)
    }
}

impl<E: End> AsyncRead for Line<E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.poll_side(cx);
            if !this.engine.out().is_empty() {
                this.wakers.reader(cx);
                // Its error comes with the next write; a read tells of the other direction.
                let sent = this.poll_out();
                if sent.is_pending() && this.engine.out().len() > ANSWERS {
                    return Poll::Pending;
                }
            }
            if !this.incoming.is_empty() || buf.remaining() == 0 {
                let n = this.incoming.len().min(buf.remaining());
                buf.put_slice(this.incoming.get(..n).unwrap_or_default());
                this.incoming.advance(n);
                return Poll::Ready(Ok(()));
            }
            if this.gone {
                return Poll::Ready(if this.cut {
                    let text = "the client closed the connection within a telnet command";
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
                } else if this.engine.closes() {
                    Ok(())
                } else {
                    Err(hang_up())
                });
            }
            // What was refused once is refused from then on.
            let held = this.engine.is_suspended();
            this.engine
                .receive(&[], &mut this.incoming)
                .map_err(refused)?;
            let mut bytes = [0; READ];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.below).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                this.gone = true;
                this.cut = !this.engine.ended() && this.engine.closes();
            }
            // Its error comes once what was there before it has been read.
            let before = this.engine.notices();
            let _ = this.engine.receive(read.filled(), &mut this.incoming);
            if this.engine.notices() != before {
                this.door.notice(this.engine.notices());
            }
            if held && !this.engine.is_suspended() {
                this.wakers.joint().wake_by_ref();
            }
        }
    }
}

impl<E: End> AsyncWrite for Line<E> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.shut {
            let text = "write after shutdown";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, text)));
        }
        this.wakers.writer(cx);
        ready!(this.poll_out())?;
        if this.engine.is_suspended() {
            return Poll::Pending;
        }
        let mut taken = 0;
        for buf in bufs {
            let piece = buf.get(..PIECE - taken).unwrap_or(buf);
            this.engine.send(piece);
            taken += piece.len();
        }
        // As much as goes now; what does not waits for the next call.
        match this.poll_out() {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.wakers.writer(cx);
        ready!(this.poll_out())?;
        let joint = this.wakers.joint().clone();
        Pin::new(&mut this.below).poll_flush(&mut Context::from_waker(&joint))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        ready!(self.as_mut().poll_flush(cx))?;
        if !self.engine.closes() {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let joint = this.wakers.joint().clone();
        Pin::new(&mut this.below).poll_shutdown(&mut Context::from_waker(&joint))
    }
}
