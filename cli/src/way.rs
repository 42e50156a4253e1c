//! One direction of a join: what one stream gives, the other takes, in pieces, and the end behind it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::piece::Piece;
use crate::splice::is_end;

/// Turns before the task lets others run; both ends may always be ready.
const TURNS: u32 = 16;

/// One direction.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) piece: Piece,
    /// Written bytes may wait in the writer.
    pub(crate) unflushed: bool,
    pub(crate) carried: u64,
    /// The reader's end is not passed on by itself.
    pub(crate) hold: bool,
    /// The reader is read after its end.
    pub(crate) read_on: bool,
    /// Where nothing can be read for now, nothing more comes.
    pub(crate) last: bool,
    /// Writing to where this way reads has failed by a cut, so an end is none.
    pub(crate) cut: bool,
    pub(crate) state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    Copying,
    /// The reader ended; the writer is not told yet.
    Held,
    /// The reader ended; the writer is being told.
    Closing,
    /// The writer was told; the reader may go on about other things.
    ReadingOn,
    Done,
    /// The writer takes no more.
    Left(io::Error),
}

impl Way {
    pub(crate) fn new() -> Self {
        Self {
            piece: Piece::default(),
            unflushed: false,
            carried: 0,
            hold: false,
            read_on: false,
            last: false,
            cut: false,
            state: State::Copying,
        }
    }

    pub(crate) fn pass_on(&mut self) {
        self.hold = false;
        if matches!(self.state, State::Held) {
            self.state = State::Closing;
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Left(_))
    }

    /// The next thing is to read.
    pub(crate) fn is_reading(&self) -> bool {
        match self.state {
            State::Copying => self.piece.waiting().is_empty(),
            State::ReadingOn => true,
            _ => false,
        }
    }

    /// Something was read, or its end, and the writer does not take it.
    pub(crate) fn is_stuck(&self) -> bool {
        match self.state {
            State::Copying => !self.piece.waiting().is_empty(),
            State::Closing => true,
            _ => false,
        }
    }

    /// Nothing waits to be written.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_done() || (!self.is_stuck() && !self.unflushed)
    }

    /// The writer takes nothing any more. Where it left in order and nothing waits for it, nothing is missing.
    pub(crate) fn taker_is_gone(&mut self, why: io::Error) {
        if self.is_done() {
            return;
        }
        // Where the system says so itself, it is a pipe whose reader left.
        let closed = why.kind() == io::ErrorKind::BrokenPipe && why.raw_os_error().is_none();
        let in_order = closed && self.piece.waiting().is_empty();
        self.state = if in_order {
            State::Done
        } else {
            State::Left(why)
        };
    }

    /// Whether an end of what is written to would be none; see [`is_end`].
    pub(crate) fn writer_was_cut(&self) -> bool {
        match &self.state {
            State::Left(e) => !is_end(Some(e)),
            _ => false,
        }
    }

    /// Takes out why the writer left.
    pub(crate) fn left(&mut self) -> Option<io::Error> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Left(e) => Some(e),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// `Ready(Ok)` when this way has come to an end; `Err` only for the reader's errors.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            let step = match self.state {
                State::Done | State::Left(_) => return Poll::Ready(Ok(())),
                State::Held if !self.unflushed => return Poll::Ready(Ok(())),
                State::Held => Pin::new(&mut *to).poll_flush(cx).map_ok(|()| {
                    self.unflushed = false;
                }),
                State::Closing => Pin::new(&mut *to).poll_shutdown(cx).map_ok(|()| {
                    self.state = if self.read_on {
                        State::ReadingOn
                    } else {
                        State::Done
                    };
                }),
                State::ReadingOn => match self.poll_fill(cx, from) {
                    Poll::Ready(result) => {
                        result?;
                        // What comes is for nobody.
                        match self.piece.waiting().len() {
                            0 => self.state = State::Done,
                            n => self.piece.advance(n),
                        }
                        continue;
                    }
                    Poll::Pending => return Poll::Pending,
                },
                State::Copying if !self.piece.waiting().is_empty() => self.poll_drain(cx, to),
                State::Copying => match self.poll_fill(cx, from) {
                    Poll::Ready(result) => {
                        result?;
                        continue;
                    }
                    // Nothing to read for now: what was written must not wait for more.
                    Poll::Pending if self.unflushed => match Pin::new(&mut *to).poll_flush(cx) {
                        Poll::Ready(Ok(())) => {
                            self.unflushed = false;
                            return Poll::Pending;
                        }
                        other => other,
                    },
                    Poll::Pending if self.last => {
                        self.ended();
                        continue;
                    }
                    Poll::Pending => return Poll::Pending,
                },
            };
            if let Err(e) = ready!(step) {
                self.state = State::Left(e);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        match self.piece.poll_fill(cx, from) {
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            other => ready!(other)?,
        }
        if self.piece.waiting().is_empty() {
            if self.cut {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.ended();
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing more comes from the reader.
    fn ended(&mut self) {
        self.state = if self.hold {
            State::Held
        } else {
            State::Closing
        };
    }

    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let n = ready!(Pin::new(to).poll_write(cx, self.piece.waiting()))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.piece.advance(n);
        self.carried += n as u64;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }
}
