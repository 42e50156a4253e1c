//! The sessions of this process that a peer may take up again on another connection.
//!
//! Each end has one, for either may dial. What is kept is bounded: so many of one peer, and so many in all. A peer that has as
//! many as it may loses the one that has been without a connection for longest; where all of its own run, or all places are
//! taken by others, the new one is a session like any other, and its peer is told that it is not kept.
//!
//! A session that ended in order, or had to make room, leaves its name for a while: a peer that comes back to it is told which
//! of the two it was. One that did not hear that its own end had arrived knows by that.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::resume::{Id, Refusal, SessionLost, Ticket};

use super::ends::Ends;
use super::lasting::Lasting;

/// Sessions of one peer.
const OF_PEER: usize = 64;

/// Sessions in all.
const IN_ALL: usize = 1024;

/// Sessions that have ended, of one peer and in all: its later ones take the place of its own first.
const ENDED_OF_PEER: usize = 64;
const ENDED_IN_ALL: usize = 1024;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<Id, Arc<Lasting>>>,
    /// The oldest first. Locked inside of the sessions' lock, or alone.
    ended: Mutex<VecDeque<Arc<Ended>>>,
}

/// What is left of a session that is gone.
pub(crate) struct Ended {
    pub(crate) ticket: Ticket,
    pub(crate) ends: Ends,
    /// It is over, or there was no room.
    pub(crate) why: Refusal,
}

/// What is known under a name.
pub(crate) enum Found {
    /// A session.
    Here(Arc<Lasting>),
    /// One that is gone.
    Ended(Arc<Ended>),
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
    /// It is over, for it has to make room; its peer may hear of that only when it comes back.
    pub(crate) fn makes_room(&self) {
        self.registry.bury(&self.session, Refusal::NoRoom);
        self.session.handle.give_up(SessionLost::NoRoom);
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
        // The name is never unknown in between.
        if ours && self.session.handle.is_complete() {
            self.registry.bury(&self.session, Refusal::Over);
        }
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
            let of_peer = || {
                sessions
                    .values()
                    .filter(|it| it.ends.peer() == lasting.ends.peer())
            };
            if of_peer().count() >= OF_PEER || sessions.len() >= IN_ALL {
                // Asked once: one whose peer comes back meanwhile is none of them.
                let since = |it: &Arc<Lasting>| Some((it.handle.pathless_since()?, it.ticket.id));
                let longest = of_peer().filter_map(since).min();
                let Some(it) = longest.and_then(|(_, id)| sessions.remove(&id)) else {
                    return Err(NoPlace::Full);
                };
                // The name is never unknown in between.
                self.bury(&it, Refusal::NoRoom);
                gives_way = Some(it);
            }
            sessions.insert(lasting.ticket.id, Arc::clone(lasting));
        }
        if let Some(it) = gives_way {
            it.handle.give_up(SessionLost::NoRoom);
        }
        Ok(Registered {
            registry: Arc::clone(self),
            session: Arc::clone(lasting),
        })
    }

    /// The session of this name.
    pub(crate) fn find(&self, id: &Id) -> Option<Found> {
        let here = self.sessions().get(id).map(Arc::clone);
        here.map(Found::Here).or_else(|| {
            let ended = self.ended();
            let mut all = ended.iter();
            let found = all.find(|it| it.ticket.id == *id);
            found.map(|it| Found::Ended(Arc::clone(it)))
        })
    }

    fn bury(&self, lasting: &Lasting, why: Refusal) {
        let mut ended = self.ended();
        ended.retain(|it| it.ticket.id != lasting.ticket.id);
        let peer = lasting.ends.peer();
        let of_peer = |it: &Arc<Ended>| it.ends.peer() == peer;
        if ended.iter().filter(|it| of_peer(it)).count() >= ENDED_OF_PEER {
            let oldest = ended.iter().position(of_peer);
            oldest.and_then(|at| ended.remove(at));
        } else if ended.len() >= ENDED_IN_ALL {
            ended.pop_front();
        }
        ended.push_back(Arc::new(Ended {
            ticket: lasting.ticket.clone(),
            ends: lasting.ends.clone(),
            why,
        }));
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<Arc<Ended>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
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
