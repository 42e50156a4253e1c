//! The sessions of a node, and which of several with one peer is used. No IO, no clock.
//!
//! Two nodes may dial each other at the same moment, and a direct way may come up beside a relayed one. Then
//! both ends have the same few sessions, and must choose the same one without asking each other:
//!
//! 1. a direct session before a relayed one,
//! 2. then the one whose dialler has the lesser peer id,
//! 3. then the newest: a peer that dials again has given its old one up.
//!
//! New substreams go through the chosen one. The others end once nothing uses them; whoever dialled one ends it.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::identity::PeerId;

/// What the choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// No relay is on the way.
    pub(super) direct: bool,
    /// This end dialled it.
    pub(super) dialled: bool,
}

#[derive(Debug)]
struct Entry<S> {
    number: u64,
    origin: Origin,
    session: S,
}

/// See the head of this file; `S` is a session.
#[derive(Debug)]
pub(super) struct Table<S> {
    own: PeerId,
    peers: HashMap<PeerId, Vec<Entry<S>>>,
    next: u64,
}

impl<S: Clone> Table<S> {
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own,
            peers: HashMap::new(),
            next: 0,
        }
    }

    /// One more session with a peer; the number is its name here.
    pub(super) fn add(&mut self, peer: PeerId, origin: Origin, session: S) -> u64 {
        self.next += 1;
        self.peers.entry(peer).or_default().push(Entry {
            number: self.next,
            origin,
            session,
        });
        self.next
    }

    pub(super) fn remove(&mut self, peer: PeerId, number: u64) {
        if let Some(all) = self.peers.get_mut(&peer) {
            all.retain(|entry| entry.number != number);
            if all.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// The chosen session with a peer, its number and its origin.
    pub(super) fn chosen(&self, peer: PeerId) -> Option<(u64, Origin, S)> {
        let all = self.peers.get(&peer)?;
        let best = all.iter().max_by_key(|entry| {
            let dialler = if entry.origin.dialled { self.own } else { peer };
            (entry.origin.direct, Reverse(dialler), entry.number)
        })?;
        Some((best.number, best.origin, best.session.clone()))
    }

    /// The sessions with a peer that were not chosen: their numbers, and what they are.
    pub(super) fn others(&self, peer: PeerId) -> Vec<(u64, Origin, S)> {
        let chosen = self.chosen(peer).map(|(number, ..)| number);
        let all = self.peers.get(&peer).into_iter().flatten();
        all.filter(|entry| Some(entry.number) != chosen)
            .map(|entry| (entry.number, entry.origin, entry.session.clone()))
            .collect()
    }

    pub(super) fn all(&self) -> Vec<(PeerId, S)> {
        let entries = |(peer, all): (&PeerId, &Vec<Entry<S>>)| {
            let sessions = all.iter().map(|entry| entry.session.clone());
            sessions.map(|session| (*peer, session)).collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(entries).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.peers.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: PeerId = PeerId::from_bytes([1; 32]);
    const HIGH: PeerId = PeerId::from_bytes([2; 32]);

    fn origin(direct: bool, dialled: bool) -> Origin {
        Origin { direct, dialled }
    }

    fn chosen(table: &Table<&'static str>, peer: PeerId) -> &'static str {
        table.chosen(peer).unwrap().2
    }

    #[test]
    fn both_ends_choose_the_same_in_whatever_order_they_see_them() {
        // The sessions that LOW and HIGH dialled at once.
        for first in [true, false] {
            let (mut low, mut high) = (Table::new(LOW), Table::new(HIGH));
            for by_low in [first, !first] {
                let name = if by_low { "by low" } else { "by high" };
                low.add(HIGH, origin(true, by_low), name);
            }
            for by_low in [!first, first] {
                let name = if by_low { "by low" } else { "by high" };
                high.add(LOW, origin(true, !by_low), name);
            }
            assert_eq!(chosen(&low, HIGH), "by low");
            assert_eq!(chosen(&high, LOW), "by low");
            assert_eq!(low.others(HIGH)[0].2, "by high");
        }
    }

    #[test]
    fn a_direct_way_is_better_than_any_relayed_one() {
        let mut low = Table::new(LOW);
        low.add(HIGH, origin(false, true), "relayed");
        low.add(HIGH, origin(true, false), "direct");
        low.add(HIGH, origin(false, true), "relayed again");
        assert_eq!(chosen(&low, HIGH), "direct");
    }

    #[test]
    fn a_peer_that_dials_again_has_given_the_old_one_up() {
        let mut low = Table::new(LOW);
        let old = low.add(HIGH, origin(true, false), "old");
        let new = low.add(HIGH, origin(true, false), "new");
        assert_eq!(chosen(&low, HIGH), "new");
        low.remove(HIGH, new);
        assert_eq!(chosen(&low, HIGH), "old");
        low.remove(HIGH, old);
        assert!(low.chosen(HIGH).is_none() && low.peers.is_empty());
    }

    #[test]
    fn all_are_listed() {
        let mut table = Table::new(LOW);
        table.add(HIGH, origin(true, false), "a");
        table.add(HIGH, origin(true, false), "b");
        table.add(PeerId::from_bytes([3; 32]), origin(true, false), "c");
        assert_eq!((table.len(), table.all().len()), (3, 3));
        assert_eq!(table.others(HIGH).len(), 1);
    }
}
