//! Who sits at a kept console, as the list of them (`keeper.rs`) knows it, and why one is taken off that: what the console (`kept.rs`) and
//! the list tell each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::session::Session;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::seat::has_connection;

/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    /// Of who is attached.
    session: Option<Session>,
    /// Since when that is so, and since when it is there.
    since: Instant,
    began: Instant,
    why: Why,
    /// Dropped with it.
    gone: Vec<oneshot::Sender<()>>,
}

/// How long a console has been there, and how long nobody has been attached, if so.
pub(crate) struct State {
    pub(crate) there: Duration,
    pub(crate) alone: Option<Duration>,
}

impl Default for Inside {
    fn default() -> Self {
        Self {
            session: None,
            since: Instant::now(),
            began: Instant::now(),
            why: Why::Withdrawn,
            gone: Vec::new(),
        }
    }
}

/// Why nobody finds a console any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its service is gone, or is for others.
    Withdrawn,
    /// Its place was for a peer that is known by name.
    Displaced,
    /// Its peer wants that.
    Asked,
}

impl Why {
    /// What who is attached reads.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Withdrawn => "the service was withdrawn or changed: its command is hung up",
            Self::Displaced => "the server needed the place: the command is hung up",
            Self::Asked => "the console was ended by --end: its command is hung up",
        }
    }
}

impl Presence {
    /// Somebody is about to sit down.
    pub(crate) fn of(session: &Session) -> Self {
        let presence = Self::default();
        presence.is(Some(session));
        presence
    }

    pub(super) fn is(&self, session: Option<&Session>) {
        let mut inside = self.lock();
        inside.session = session.cloned();
        inside.since = Instant::now();
    }

    /// Since when nobody is attached who has a connection.
    pub(crate) fn alone_since(&self) -> Option<Instant> {
        let inside = self.lock();
        let there = inside.session.as_ref().is_some_and(has_connection);
        (!there).then_some(inside.since)
    }

    pub(crate) fn state(&self) -> State {
        let inside = self.lock();
        State {
            there: inside.began.elapsed(),
            alone: inside.session.is_none().then(|| inside.since.elapsed()),
        }
    }

    /// Ends when the console is no more.
    pub(crate) fn gone(&self) -> oneshot::Receiver<()> {
        let (sender, gone) = oneshot::channel();
        self.lock().gone.push(sender);
        gone
    }

    /// Says why before it is taken off the list.
    pub(crate) fn ends(&self, why: Why) {
        self.lock().why = why;
    }

    pub(super) fn why(&self) -> Why {
        self.lock().why
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Each change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
