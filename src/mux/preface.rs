//! What has to come first on a stream before its bytes are the reader's: the answer to a request that its opener did not wait for.
//!
//! ```text
//!   what arrives:   [ preface ][ the reader's bytes ...
//!                    ^ eaten by who has set it, as soon as anybody reads; a writer looks as well, and never waits for it
//! ```
//!
//! The mux does not know what it is, only where it ends. If it says no, the stream is reset, which drops what is queued at either
//! end, and every call from then on gets the same error.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use super::stream::Substream;

/// What comes first, and what became of it.
pub(crate) trait Preface: Send + Sync {
    /// Looks at what has arrived, as far as it was not taken before, and takes of it what is its own.
    fn take(&mut self, bytes: &[u8]) -> Step;

    /// The stream has ended before it was whole: by an error, or by the peer's FIN.
    fn cut(&mut self, error: Option<&io::Error>);

    /// Nothing is there: ready when it is too late, and [`Preface::error`] says so.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Why the stream is of no use; once there is one, the same at each call.
    fn error(&self) -> Option<io::Error>;
}

/// How far a preface has come.
pub(crate) enum Step {
    /// All of the bytes are its own, and there is more to come.
    More,
    /// So many of the bytes were its last ones; what follows is the reader's.
    Done(usize),
    /// It says no, or makes no sense.
    Failed,
}

impl Substream {
    /// Has a preface taken from the front of what arrives. Set before anything is read.
    pub(crate) fn set_preface(&mut self, preface: Box<dyn Preface>) {
        debug_assert!(
            self.preface.is_none(),
            "a stream has one thing that comes first"
        );
        self.preface = Some(preface);
    }

    /// Waits until the preface has come. An error is the preface's own.
    pub(crate) fn poll_preface(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.preface.is_some() {
            if !self.step(Some(cx.waker()))? {
                let late = self.preface.as_mut().map(|it| it.poll_late(cx));
                ready!(late.unwrap_or(Poll::Ready(())));
                self.give_up();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The same for who writes: an error if it is known by now that nobody will read that.
    pub(super) fn look_for_preface(&mut self) -> io::Result<()> {
        while self.preface.is_some() && self.step(None)? {}
        Ok(())
    }

    /// Why the preface was none, once that is known.
    pub(crate) fn preface_error(&self) -> Option<io::Error> {
        self.preface.as_ref().and_then(|it| it.error())
    }

    /// Takes what has arrived; whether anything has. Who gives a waker is woken when there is more.
    fn step(&mut self, waker: Option<&Waker>) -> io::Result<bool> {
        let Some(preface) = &mut self.preface else {
            return Ok(true);
        };
        if let Some(error) = preface.error() {
            return Err(error);
        }
        let arrived = match waker {
            _ if !self.piece.is_empty() => return self.take(),
            Some(waker) => self.shared.with(|engine| engine.borrow(self.key, waker)),
            None => self.shared.with(|engine| engine.borrow_now(self.key)),
        };
        let cut = match arrived {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Some(piece))) => {
                self.piece = piece;
                return self.take();
            }
            Poll::Ready(Ok(None)) => None,
            Poll::Ready(Err(error)) => Some(error.into()),
        };
        preface.cut(cut.as_ref());
        self.give_up();
        Ok(true)
    }

    fn take(&mut self) -> io::Result<bool> {
        let step = self.preface.as_mut().map(|it| it.take(&self.piece));
        match step {
            Some(Step::More) => self.consume(self.piece.len()),
            Some(Step::Done(n)) => {
                self.preface = None;
                self.consume(n);
            }
            Some(Step::Failed) => self.give_up(),
            None => {}
        }
        Ok(true)
    }

    /// Nothing that is queued here or there is of use to anybody.
    fn give_up(&mut self) {
        self.reset(0);
    }
}
