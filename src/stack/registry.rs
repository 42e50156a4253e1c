//! The sessions of this process that a peer may take up again on another connection.
//!
//! Each end has one, for either may dial. What is kept is bounded: so many of one peer, and so many in all. A peer that has as
//! many as it may loses the one that has been without a connection for longest; where all of its own run, or all places are
//! taken by others, the new one is a session like any other, and its peer is told that it is not kept.
//!
//! Who comes back to a session that had to make room is told so, as long as not many others had to since.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::PeerId;
use crate::resume::{Id, Refusal, SessionLost};

use super::lasting::Lasting;

/// Sessions of one peer.
const OF_PEER: usize = 64;

/// Sessions in all.
const IN_ALL: usize = 1024;

/// Sessions that had to make room, and are remembered for that.
const REMEMBERED: usize = 256;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<Id, Arc<Lasting>>>,
    /// What had to make room, and whose it was; the latest last.
    gone: Mutex<VecDeque<(Id, PeerId)>>,
}

/// Why a session is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// There are too many.
    Full,
    /// Another one has this name, which no honest peer gives.
    Taken,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    session: Arc<Lasting>,
}

impl Registered {
    /// It has to make room, and its peer may hear of that only when it comes back.
    pub(crate) fn makes_room(&self) {
        self.registry.remember(&self.session);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let id = &self.session.ticket.id;
        let mut sessions = self.registry.sessions();
        // One that gave way may have left its name to another.
        let ours = sessions
            .get(id)
            .is_some_and(|it| Arc::ptr_eq(it, &self.session));
        let gone = if ours { sessions.remove(id) } else { None };
        drop(sessions);
        drop(gone);
    }
}

impl Registry {
    /// One more session, which can be found from now on.
    pub(crate) fn enter(self: &Arc<Self>, lasting: &Arc<Lasting>) -> Result<Registered, NoPlace> {
        let mut gives_way = None;
        {
            let mut sessions = self.sessions();
            if sessions.contains_key(&lasting.ticket.id) {
                return Err(NoPlace::Taken);
            }
            let of_peer = || sessions.values().filter(|it| it.peer == lasting.peer);
            if of_peer().count() >= OF_PEER || sessions.len() >= IN_ALL {
                let since = |it: &&Arc<Lasting>| it.handle.pathless_since();
                let parked = of_peer().filter(|it| since(it).is_some());
                let longest = parked.min_by_key(since).map(|it| it.ticket.id);
                gives_way = longest.and_then(|id| sessions.remove(&id));
                if gives_way.is_none() {
                    return Err(NoPlace::Full);
                }
            }
            sessions.insert(lasting.ticket.id, Arc::clone(lasting));
        }
        if let Some(it) = gives_way {
            self.remember(&it);
            it.handle.give_up(SessionLost::NoRoom);
        }
        Ok(Registered {
            registry: Arc::clone(self),
            session: Arc::clone(lasting),
        })
    }

    /// The session of this name.
    pub(crate) fn find(&self, id: &Id) -> Option<Arc<Lasting>> {
        self.sessions().get(id).map(Arc::clone)
    }

    /// What to tell a peer that comes back to a session which is not there.
    pub(crate) fn refusal(&self, id: &Id, is_peer: impl Fn(&PeerId) -> bool) -> Refusal {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = gone.iter();
        if known.any(|(it, peer)| it == id && is_peer(peer)) {
            Refusal::NoRoom
        } else {
            Refusal::Unknown
        }
    }

    fn remember(&self, session: &Lasting) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() >= REMEMBERED {
            gone.pop_front();
        }
        gone.push_back((session.ticket.id, session.peer));
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Id, Arc<Lasting>>> {
        // Each change is whole before anything can panic.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("sessions", &self.sessions().len())
            .finish()
    }
}
