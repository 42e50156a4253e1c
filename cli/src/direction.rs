//! One direction of a join: what one stream gives, the other takes, in pieces, and the end behind it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::has_budget_remaining;

use crate::chunk::{Chunk, Pieces};
use crate::splice_end::is_end;

/// Turns before the task lets others run; both ends may always be ready.
const TURNS: u32 = 16;

/// More than a pipe holds (Linux: 64 KiB, up to 1 MiB for who asks): what comes behind that was written later.
const PIPE: usize = 1 << 20;

/// One direction.
#[derive(Debug)]
pub(crate) struct Direction {
    pub(crate) piece: Chunk,
    /// Written bytes may wait in the writer.
    pub(crate) unflushed: bool,
    pub(crate) carried: u64,
    /// Bytes that were read for nobody.
    unheard: usize,
    /// The reader's end is not passed on by itself.
    pub(crate) hold: bool,
    /// The reader is read after its end.
    pub(crate) read_on: bool,
    /// Where nothing can be read for now, nothing more comes, nor more than so many bytes.
    last: Option<usize>,
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

/// What a read came to.
enum Filled {
    Some,
    /// It was interrupted.
    Nothing,
    End,
}

impl Direction {
    pub(crate) fn new() -> Self {
        Self {
            piece: Chunk::default(),
            unflushed: false,
            carried: 0,
            unheard: 0,
            hold: false,
            read_on: false,
            last: None,
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

    /// Who wrote what is read here is gone: what is on its way is all, though others may hold it open and write on.
    pub(crate) fn ends_when_empty(&mut self) {
        self.last.get_or_insert(PIPE);
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
            State::Copying => self.is_waiting(),
            State::Closing => true,
            _ => false,
        }
    }

    /// Something was read that the writer does not take at the moment.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Copying) && !self.piece.waiting().is_empty()
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

    pub(crate) fn has_left(&self) -> bool {
        matches!(self.state, State::Left(_))
    }

    /// Once the writer has left: reads on for nobody, so that the reader does not wait with what it takes until that is taken. Ready
    /// once it has said more than so many bytes since.
    pub(crate) fn poll_unheard(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Pieces + Unpin),
        most: usize,
    ) -> Poll<()> {
        for _ in 0..TURNS {
            self.piece.clear();
            if self.unheard > most {
                return Poll::Ready(());
            }
            let read = ready!(self.piece.poll_fill(cx, from, false));
            if read.is_err() || self.piece.len() == 0 {
                // What it takes does not depend on this any more.
                return Poll::Pending;
            }
            self.unheard = self.unheard.saturating_add(self.piece.len());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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
        from: &mut (impl AsyncRead + Pieces + Unpin),
        to: &mut (impl AsyncWrite + Pieces + Unpin),
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
                State::ReadingOn => match ready!(self.poll_fill(cx, from, false))? {
                    // What comes is for nobody.
                    Filled::Some => {
                        self.piece.clear();
                        continue;
                    }
                    Filled::Nothing => continue,
                    Filled::End => {
                        self.state = State::Done;
                        continue;
                    }
                },
                State::Copying if !self.piece.waiting().is_empty() => self.poll_drain(cx, to),
                State::Copying => match self.poll_fill(cx, from, to.keeps()) {
                    Poll::Ready(Ok(Filled::End)) => {
                        self.ended();
                        continue;
                    }
                    Poll::Ready(result) => {
                        result?;
                        continue;
                    }
                    // Nothing to read for now: what was written must not wait for more.
                    Poll::Pending if self.unflushed => match Pin::new(&mut *to).poll_flush(cx) {
                        Poll::Ready(Ok(())) => {
                            self.unflushed = false;
                            if self.last.is_some() {
                                continue;
                            }
                            return Poll::Pending;
                        }
                        other => other,
                    },
                    Poll::Pending if self.last.is_some() => {
                        if has_budget_remaining() {
                            self.ended();
                            continue;
                        }
                        // It was not asked: this task has had its turn.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
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
        from: &mut (impl AsyncRead + Pieces + Unpin),
        kept: bool,
    ) -> Poll<io::Result<Filled>> {
        if self.last == Some(0) {
            return Poll::Ready(Ok(Filled::End));
        }
        match ready!(self.piece.poll_fill(cx, from, kept)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                return Poll::Ready(Ok(Filled::Nothing));
            }
            other => other?,
        }
        let n = self.piece.len();
        if let Some(last) = &mut self.last {
            *last = last.saturating_sub(n);
        }
        Poll::Ready(match n {
            0 if self.cut => Err(io::ErrorKind::ConnectionReset.into()),
            0 => Ok(Filled::End),
            _ => Ok(Filled::Some),
        })
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
        to: &mut (impl AsyncWrite + Pieces + Unpin),
    ) -> Poll<io::Result<()>> {
        let n = ready!(self.piece.poll_drain(cx, to))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.carried += n as u64;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, duplex};
    use tokio::task::coop::consume_budget;

    use super::*;

    /// Carries what is left of a reader who is gone to its end, at first with a task that has nothing left of its turn where `spent`.
    async fn carry(
        mut from: impl AsyncRead + Pieces + Send + Unpin + 'static,
        mut spent: bool,
    ) -> Vec<u8> {
        let (mut to, mut taker) = duplex(4 << 20);
        let mut way = Direction::new();
        way.ends_when_empty();
        // A task of its own: the guard is not what wakes it.
        let carried = tokio::spawn(poll_fn(move |cx| {
            if std::mem::take(&mut spent) {
                while pin!(consume_budget()).poll(cx).is_ready() {}
            }
            way.poll(cx, &mut from, &mut to)
        }));
        let carried = tokio::time::timeout(std::time::Duration::from_secs(60), carried).await;
        carried.expect("it ends").unwrap().unwrap();
        let mut got = Vec::new();
        taker.read_to_end(&mut got).await.unwrap();
        got
    }

    #[tokio::test]
    async fn what_has_come_is_read_whosever_turn_it_is() {
        let (from, mut writer) = duplex(1 << 16);
        writer.write_all(b"the rest").await.unwrap();
        assert_eq!(carry(from, true).await, b"the rest");
    }

    #[tokio::test]
    async fn an_interrupted_read_is_no_end() {
        let (from, mut writer) = duplex(1 << 16);
        writer.write_all(b"the rest").await.unwrap();
        assert_eq!(carry(Interrupted(from, true), false).await, b"the rest");
    }

    /// All that a pipe may hold is read of who is gone, and not what others go on writing.
    #[tokio::test]
    async fn what_is_left_behind_is_read_up_to_what_a_pipe_holds() {
        let got = carry(tokio::io::repeat(b'y'), false).await;
        assert!((PIPE..2 * PIPE).contains(&got.len()), "{}", got.len());
    }

    /// The first read is interrupted.
    struct Interrupted<S>(S, bool);

    impl<S> Pieces for Interrupted<S> {}

    impl Pieces for tokio::io::Repeat {}

    impl<S: AsyncRead + Unpin> AsyncRead for Interrupted<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if std::mem::take(&mut self.1) {
                return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
            }
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }
}
