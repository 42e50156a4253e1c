//! A peer that nobody knows yet, and a person who can be asked about it: the session is there meanwhile, and nothing has been said in it.
//!
//! So a command that leads to the peer runs once, and the peer reads no refusal while the person compares ids. The stranger proves its
//! key as anybody does, and is remembered only if the person says yes; if not, the session is closed.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cepa::identity::{PeerId, Presented, Refusal, TrustPolicy};
use cepa::transports::Endpoint;

use crate::args::Trust;
use crate::{ask, trust};

/// Takes whom another policy knows, and one stranger to be asked about.
#[derive(Debug)]
pub(crate) struct Meeting {
    known: Arc<dyn TrustPolicy>,
    stranger: Mutex<Stranger>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// It may come.
    Awaited,
    Came(PeerId),
    /// The person was asked: what counts now is whom the other policy knows.
    Asked,
}

/// Who is asked, and for which place a peer is remembered.
pub(crate) struct Person {
    pub(crate) place: String,
    pub(crate) terminal: File,
}

impl Person {
    /// Nothing was said about whom to trust, and the address is one that somebody can be remembered for.
    pub(crate) fn at_terminal(trust: &Trust, address: &Endpoint) -> Option<Self> {
        if trust.expect.is_some() || trust.trust.is_some() {
            return None;
        }
        Some(Self {
            place: trust::place(address)?,
            terminal: ask::terminal()?,
        })
    }
}

impl Meeting {
    pub(crate) fn new(known: Arc<dyn TrustPolicy>) -> Arc<Self> {
        Arc::new(Self {
            known,
            stranger: Mutex::new(Stranger::Awaited),
        })
    }

    /// The stranger that came, if it was one. From now on none is taken.
    pub(crate) fn met(&self) -> Option<PeerId> {
        match std::mem::replace(&mut *self.lock(), Stranger::Asked) {
            Stranger::Came(id) => Some(id),
            Stranger::Awaited | Stranger::Asked => None,
        }
    }

    fn of(&self, peer: &Presented<'_>, judged: Result<(), Refusal>) -> Result<(), Refusal> {
        let mut stranger = self.lock();
        match (judged, *stranger) {
            (Err(Refusal::Unknown { .. }), Stranger::Awaited) => {
                *stranger = Stranger::Came(peer.id);
                Ok(())
            }
            (Err(Refusal::Unknown { .. }), Stranger::Came(id)) if id == peer.id => Ok(()),
            (judged, _) => judged,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stranger> {
        // It is whole at all times.
        self.stranger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TrustPolicy for Meeting {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.of(peer, self.known.decide(peer))
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.of(peer, self.known.proven(peer))
    }

    // Whoever is trusted from now on is so by its key.
    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        *self.lock() == Stranger::Came(peer.id) || self.known.overlooks_dates(peer)
    }

    fn names(&self, peer: &Presented<'_>) -> bool {
        self.known.names(peer)
    }

    fn may_block(&self) -> bool {
        self.known.may_block()
    }
}

#[cfg(test)]
mod tests {
    use cepa::Side;
    use cepa::identity::{Pinned, UnixTime};

    use super::*;

    #[test]
    fn one_stranger_comes_before_the_person_is_asked_and_none_after() {
        let meeting = Meeting::new(Arc::new(Pinned::one(PeerId::from_bytes([1; 32]))));
        let time = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
        let comes = |n| {
            let id = PeerId::from_bytes([n; 32]);
            let it = Presented::new(id, None, &[], (time, time), time, Side::Server);
            meeting.decide(&it).and_then(|()| meeting.proven(&it))
        };
        assert_eq!(comes(1), Ok(()));
        assert_eq!(meeting.met(), None);
        let meeting = Meeting::new(Arc::new(Pinned::default()));
        let comes = |n| {
            let id = PeerId::from_bytes([n; 32]);
            let it = Presented::new(id, None, &[], (time, time), time, Side::Server);
            meeting.decide(&it).and_then(|()| meeting.proven(&it))
        };
        assert_eq!(comes(2), Ok(()));
        assert!(comes(3).is_err());
        assert_eq!(meeting.met(), Some(PeerId::from_bytes([2; 32])));
        assert!(comes(2).is_err());
        assert_eq!(meeting.met(), None);
    }
}
