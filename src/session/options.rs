//! How a substream is opened: what of it is not the usual.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::mux::{Priority, StreamTimeouts, Substream};

/// How a substream is opened, for [`Session::open_with`](super::Session::open_with). The default is that of
/// [`Session::open`](super::Session::open).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    priority: Option<Priority>,
    timeouts: Option<StreamTimeouts>,
    pub(super) patience: Option<Duration>,
}

impl OpenOptions {
    /// The usual.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The place among the other substreams of the session in what this end sends; default [`Priority::NORMAL`]. The
    /// peer is not told.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Its time limits; default those of [`mux::Config::stream_timeouts`](crate::mux::Config::stream_timeouts).
    #[must_use]
    pub fn timeouts(mut self, timeouts: StreamTimeouts) -> Self {
        self.timeouts = Some(timeouts);
        self
    }

    /// How long the peer may take to accept or refuse; default
    /// [`StackConfig::open_timeout`](crate::stack::StackConfig::open_timeout).
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    pub(super) fn apply(&self, substream: &mut Substream) {
        if let Some(priority) = self.priority {
            substream.set_priority(priority);
        }
        if let Some(timeouts) = self.timeouts {
            substream.set_timeouts(timeouts);
        }
    }
}

/// How far an opening has come: what is waited for tells who is slow.
#[derive(Default)]
pub(super) struct Stage {
    opened: AtomicBool,
    early: bool,
}

impl Stage {
    #[cfg(feature = "mesh")]
    pub(super) fn opened() -> Self {
        Self {
            opened: true.into(),
            early: false,
        }
    }

    /// Of an opening that does not wait for the answer.
    pub(super) fn early() -> Self {
        Self {
            opened: false.into(),
            early: true,
        }
    }

    pub(super) fn is_early(&self) -> bool {
        self.early
    }

    pub(super) fn set_opened(&self) {
        self.opened.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }
}
