//! A substream whose preface is still to come: who reads takes it off first, and who writes has a look whether it came.

use std::io;
use std::task::{Context, Poll, Waker};

use super::engine::Engine;
use super::moment::Moment;
use super::preface::{Preface, Step};
use super::store::Key;
use super::stream::Substream;

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
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Something that a writer does, unless it is known by now that nobody will read that: that is the error.
    pub(super) fn for_writer<R>(
        &mut self,
        mut what: impl FnMut(&mut Engine, Key) -> R,
    ) -> io::Result<R> {
        loop {
            let (key, looks) = (self.key, self.preface.is_some());
            let done = self.shared.with(|engine| {
                let first = looks && engine.has_news(key);
                (!first).then(|| what(engine, key))
            });
            if let Some(done) = done {
                return Ok(done);
            }
            while self.preface.is_some() && self.step(None)? {}
        }
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
        if !self.piece.is_empty() {
            self.take(None);
            return Ok(true);
        }
        let borrow = |engine: &mut Engine| engine.borrow_answer(self.key, waker);
        let cut = match self.shared.with(borrow) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Some((piece, by)))) => {
                self.piece = piece;
                self.take(by);
                return Ok(true);
            }
            Poll::Ready(Ok(None)) => None,
            Poll::Ready(Err(error)) => Some(error.into()),
        };
        preface.cut(cut.as_ref());
        self.give_up();
        Ok(true)
    }

    /// Gives the preface what has come, which was to come until `by`.
    fn take(&mut self, by: Option<Moment>) {
        let step = self.preface.as_mut().map(|it| it.take(&self.piece));
        match step {
            Some(Step::More) => {
                self.consume(self.piece.len());
                // A part of an answer is none.
                if by.is_some() {
                    self.shared.with(|engine| engine.answer_by(self.key, by));
                }
            }
            Some(Step::Done(n)) => {
                self.preface = None;
                self.consume(n);
            }
            Some(Step::Failed) => self.give_up(),
            None => {}
        }
    }

    /// Nothing that is queued here or there is of use to anybody.
    fn give_up(&mut self) {
        self.reset(0);
    }
}
