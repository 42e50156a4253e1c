//! Who is registered and who has circuits, and whether one more is allowed. No IO, no clock.

use std::collections::HashMap;

use crate::identity::PeerId;

use crate::wire::Status;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quotas {
    pub(super) registrations: usize,
    pub(super) registrations_a_peer: usize,
    pub(super) circuits: usize,
    pub(super) circuits_a_peer: usize,
}

/// The count of everything; `S` is how a registered peer is reached.
#[derive(Debug)]
pub(super) struct Ledger<S> {
    quotas: Quotas,
    registered: HashMap<PeerId, Vec<(u64, S)>>,
    registrations: usize,
    dialling: HashMap<PeerId, usize>,
    circuits: usize,
    next: u64,
}

impl<S: Clone> Ledger<S> {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            registered: HashMap::new(),
            registrations: 0,
            dialling: HashMap::new(),
            circuits: 0,
            next: 0,
        }
    }

    /// One more registration; the number is for [`unregister`](Self::unregister).
    pub(super) fn register(&mut self, peer: PeerId, reached_by: S) -> Result<u64, Status> {
        if self.registrations >= self.quotas.registrations {
            return Err(Status::Full);
        }
        let here = self.registered.get(&peer).map_or(0, Vec::len);
        if here >= self.quotas.registrations_a_peer {
            return Err(Status::Quota);
        }
        self.next += 1;
        self.registrations += 1;
        let all = self.registered.entry(peer).or_default();
        all.push((self.next, reached_by));
        Ok(self.next)
    }

    /// Whether it was the peer's last one.
    pub(super) fn unregister(&mut self, peer: PeerId, number: u64) -> bool {
        let Some(all) = self.registered.get_mut(&peer) else {
            return false;
        };
        let before = all.len();
        all.retain(|(known, _)| *known != number);
        self.registrations -= before - all.len();
        let last = all.is_empty();
        if last {
            self.registered.remove(&peer);
        }
        last
    }

    /// The ways to a registered peer, the newest first.
    pub(super) fn find(&self, peer: PeerId) -> Vec<S> {
        let all = self.registered.get(&peer).into_iter().flatten().rev();
        all.map(|(_, reached_by)| reached_by.clone()).collect()
    }

    /// One more circuit, dialled by this peer.
    pub(super) fn open(&mut self, from: PeerId) -> Result<(), Status> {
        if self.circuits >= self.quotas.circuits {
            return Err(Status::Full);
        }
        let here = self.dialling.entry(from).or_default();
        if *here >= self.quotas.circuits_a_peer {
            return Err(Status::Quota);
        }
        *here += 1;
        self.circuits += 1;
        Ok(())
    }

    /// Whether it was the peer's last one.
    pub(super) fn close(&mut self, from: PeerId) -> bool {
        let Some(here) = self.dialling.get_mut(&from) else {
            return false;
        };
        *here -= 1;
        self.circuits -= 1;
        let last = *here == 0;
        if last {
            self.dialling.remove(&from);
        }
        last
    }

    pub(super) fn registrations(&self) -> usize {
        self.registrations
    }

    pub(super) fn circuits(&self) -> usize {
        self.circuits
    }

    /// Registered peers, and how often.
    pub(super) fn registered(&self) -> impl Iterator<Item = (PeerId, usize)> + '_ {
        self.registered.iter().map(|(peer, all)| (*peer, all.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn ledger() -> Ledger<&'static str> {
        Ledger::new(Quotas {
            registrations: 4,
            registrations_a_peer: 2,
            circuits: 4,
            circuits_a_peer: 2,
        })
    }

    #[test]
    fn registrations_are_bounded_for_a_peer_and_in_all() {
        let mut ledger = ledger();
        let first = ledger.register(peer(1), "a").unwrap();
        ledger.register(peer(1), "b").unwrap();
        assert_eq!(ledger.register(peer(1), "c"), Err(Status::Quota));
        assert_eq!(ledger.find(peer(1)), ["b", "a"], "the newest first");
        ledger.register(peer(2), "d").unwrap();
        ledger.register(peer(3), "e").unwrap();
        assert_eq!(ledger.register(peer(4), "f"), Err(Status::Full));
        assert!(!ledger.unregister(peer(1), first));
        assert!(!ledger.unregister(peer(1), first), "once is enough");
        assert_eq!(ledger.find(peer(1)), ["b"]);
        assert_eq!(ledger.registrations(), 3);
        ledger.register(peer(4), "f").unwrap();
    }

    #[test]
    fn circuits_are_bounded_for_a_peer_and_in_all() {
        let mut ledger = ledger();
        ledger.open(peer(1)).unwrap();
        ledger.open(peer(1)).unwrap();
        assert_eq!(ledger.open(peer(1)), Err(Status::Quota));
        ledger.open(peer(2)).unwrap();
        ledger.open(peer(3)).unwrap();
        assert_eq!(ledger.open(peer(4)), Err(Status::Full));
        assert!(!ledger.close(peer(1)));
        ledger.open(peer(4)).unwrap();
        assert!(ledger.close(peer(2)));
        assert_eq!(ledger.circuits(), 3);
    }

    #[test]
    fn nothing_is_kept_of_who_is_gone() {
        let mut ledger = ledger();
        let number = ledger.register(peer(1), "a").unwrap();
        ledger.open(peer(1)).unwrap();
        assert!(ledger.unregister(peer(1), number));
        assert!(ledger.close(peer(1)));
        assert!(ledger.registered.is_empty() && ledger.dialling.is_empty());
        assert_eq!((ledger.registrations(), ledger.circuits()), (0, 0));
    }
}
