//! A session that is up: with whom, and how it came to be.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::gate::Source;
use crate::identity::PeerId;
use crate::session::Session;

use super::access::Who;
use super::seats::{Kept, Seat};
use super::shares::{Holder, PeerMemory, Share};

/// How a session came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The relays on the way, the one next to this node first; none where it is direct.
    pub via: Vec<PeerId>,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Where the stream goes or came from, for messages.
    pub label: String,
}

impl Path {
    /// Whether there is no relay on the way.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.via.is_empty()
    }

    /// As the end of a sentence: `over tcp …`, or `via relay …`.
    pub(super) fn phrase(&self) -> String {
        if self.is_direct() {
            format!("over {self}")
        } else {
            self.to_string()
        }
    }
}

impl std::fmt::Display for Path {
    /// `tcp 127.0.0.1:7000`, or `via relay ID, ID`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((first, rest)) = self.via.split_first() else {
            return f.write_str(&self.label);
        };
        write!(f, "via relay {first}")?;
        rest.iter().try_for_each(|relay| write!(f, ", {relay}"))
    }
}

/// A session that is up. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Live(Arc<Up>);

impl From<Up> for Live {
    fn from(up: Up) -> Self {
        Self(Arc::new(up))
    }
}

impl Deref for Live {
    type Target = Up;

    fn deref(&self) -> &Up {
        &self.0
    }
}

/// What is known of a session that is up.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) session: Session,
    /// How it came to be.
    pub(super) path: Path,
    /// Over what it runs now, or ran last.
    pub(super) now: Mutex<Path>,
    pub(super) who: Who,
    /// Where it comes from, if it came in.
    pub(super) host: Option<Source>,
    /// Its place among those that came in.
    pub(super) seat: Option<Arc<Seat>>,
    /// The memory of all sessions of the peer.
    pub(super) memory: PeerMemory,
    /// Of a session that was dialled because another peer wanted it: that peer's part in the pools.
    pub(super) paid_by: Option<Share>,
    /// Tells that another session with this peer was chosen.
    pub(super) superseded: Notify,
    /// The substreams that are served in it.
    pub(super) serving: TaskTracker,
}

impl Live {
    pub(super) fn holder(&self) -> Holder {
        Holder::new(&self.who, self.host)
    }

    /// Over what it runs now, or ran last.
    pub(super) fn current(&self) -> Path {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_current(&self, path: Path) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }

    /// It does not give way to a newcomer, until this is dropped.
    pub(super) fn keep(&self) -> Option<Kept> {
        self.seat.as_ref().map(Seat::keep)
    }
}
