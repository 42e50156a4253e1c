//! The end of a command's output, held back until it is known whether that was all: it looks the same whether the command worked
//! or failed.
//!
//! ```text
//!   output ends --> held --+-- it exits -------------------------------> passed on, with how it exited
//!                          +-- HELD, and the other end may still send --> passed on: it takes input, perhaps for long
//!   it exits ----> DRAIN ----> what can be read then is all, whoever else holds the pipe
//! ```
//!
//! A service (`upstream.rs`) and `cepa pipe` have the same rule, and what a command's status is to the other end each says itself.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

use crate::child;
use crate::limits::{DRAIN, HELD};

/// A command at one end of a join.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// How it exited, once it has.
    exit: Option<child::End>,
    /// When what it wrote must have come, once it has exited.
    drained_by: Option<Instant>,
    /// When the end of its output was seen, while that is held back.
    since: Option<Instant>,
}

/// What becomes of a held end.
pub(crate) enum Passes<'a> {
    /// Nothing, for now.
    No,
    /// It is passed on, though nobody knows how the command will exit.
    Early,
    /// It is passed on, or cut: the command has exited so.
    Exited(&'a child::End),
}

impl Held {
    /// The command has exited.
    pub(crate) fn exited(&mut self, end: child::End) {
        self.exit = Some(end);
        self.drained_by = Some(Instant::now() + DRAIN);
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exit.is_some()
    }

    /// The end of its output was seen, and is not passed on yet.
    pub(crate) fn ended(&mut self) {
        self.since = Some(Instant::now());
    }

    pub(crate) fn is_held(&self) -> bool {
        self.since.is_some()
    }

    /// Waits until one of its times is up; for ever where none runs.
    pub(crate) async fn due(&self) {
        let overdue = self.since.filter(|_| self.exit.is_none());
        let overdue = overdue.map(|since| since + HELD);
        // Told of once: whether the end is passed then is not for the clock alone.
        let overdue = overdue.filter(|at| *at > Instant::now());
        match self.drained_by.into_iter().chain(overdue).min() {
            Some(at) => sleep_until(at).await,
            None => pending().await,
        }
    }

    /// Whether all that it wrote must have come by now. True once.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.drained_by
            .take_if(|at| *at <= Instant::now())
            .is_some()
    }

    /// Whether the end of its output is to be passed on now. `early`: its status has no other way to go, and the other end may still
    /// send.
    pub(crate) fn passes(&mut self, early: bool) -> Passes<'_> {
        let Some(since) = self.since else {
            return Passes::No;
        };
        if self.exit.is_none() && !(early && since.elapsed() >= HELD) {
            return Passes::No;
        }
        self.since = None;
        self.exit.as_ref().map_or(Passes::Early, Passes::Exited)
    }

    /// The end is passed on, of what is no command.
    pub(crate) fn pass(&mut self) {
        self.since = None;
    }
}
