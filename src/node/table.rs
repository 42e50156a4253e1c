//! The sessions of a node, and which of several with one peer is used. No IO, no clock.
//!
//! Two nodes may dial each other at the same moment, and a direct way may come up beside a relayed one. Then
//! both ends have the same few sessions, and must choose the same one without asking each other:
//!
//! 1. a session that has a connection before one that waits for its peer,
//! 2. then a direct session before a relayed one,
//! 3. then the one whose dialler has the lesser peer id,
//! 4. then the newest: a peer that dials again has given its old one up.
//!
//! New substreams go through the chosen one. The others end once nothing uses them; whoever dialled one ends it.
//!
//! A peer that has replaced its key is found by the ids of its former keys as well, unless two peers claim the same one:
//! then one of them is a thief, and neither is found by it.

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
    /// Of keys that the peer held before.
    former: Vec<PeerId>,
    origin: Origin,
    /// Its connection is lost, and it waits for another one.
    parked: bool,
    session: S,
}

/// See the head of this file; `S` is a session.
#[derive(Debug)]
pub(super) struct Table<S> {
    own: PeerId,
    peers: HashMap<PeerId, Vec<Entry<S>>>,
    /// Those that are not used any more, and may not be over yet.
    forgotten: Vec<(u64, S)>,
    next: u64,
}

impl<S: Clone> Table<S> {
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own,
            peers: HashMap::new(),
            forgotten: Vec::new(),
            next: 0,
        }
    }

    /// One more session with a peer; the number is its name here.
    pub(super) fn add(
        &mut self,
        peer: PeerId,
        former: &[PeerId],
        origin: Origin,
        session: S,
    ) -> u64 {
        self.next += 1;
        self.peers.entry(peer).or_default().push(Entry {
            number: self.next,
            former: former.to_vec(),
            origin,
            parked: false,
            session,
        });
        self.next
    }

    /// A session goes on over another path.
    pub(super) fn moved(&mut self, peer: PeerId, number: u64, direct: bool) {
        let all = self.peers.get_mut(&peer).into_iter().flatten();
        for entry in all.filter(|entry| entry.number == number) {
            entry.origin.direct = direct;
        }
    }

    /// A session has lost its connection, or has one again.
    pub(super) fn parked(&mut self, peer: PeerId, number: u64, parked: bool) {
        let all = self.peers.get_mut(&peer).into_iter().flatten();
        for entry in all.filter(|entry| entry.number == number) {
            entry.parked = parked;
        }
    }

    /// A session is over.
    pub(super) fn remove(&mut self, peer: PeerId, number: u64) {
        self.forgotten.retain(|(forgotten, _)| *forgotten != number);
        if let Some(all) = self.peers.get_mut(&peer) {
            all.retain(|entry| entry.number != number);
            if all.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// Uses the sessions that are meant no more, and gives them. They are there until they are [removed](Self::remove).
    pub(super) fn forget(&mut self, is_meant: impl Fn(&S) -> bool) -> Vec<S> {
        let before = self.forgotten.len();
        let forgotten = &mut self.forgotten;
        self.peers.retain(|_, all| {
            let meant = all.extract_if(.., |entry| is_meant(&entry.session));
            forgotten.extend(meant.map(|entry| (entry.number, entry.session)));
            !all.is_empty()
        });
        let new = self.forgotten.iter().skip(before);
        new.map(|(_, session)| session.clone()).collect()
    }

    /// Whether another session with the peer is used in place of this one, or is to be.
    pub(super) fn is_superseded(&self, peer: PeerId, number: u64) -> bool {
        self.forgotten.iter().any(|(it, _)| *it == number)
            || self.chosen(peer).is_some_and(|(it, ..)| it != number)
    }

    /// All sessions that are not over, whether they are used or not.
    pub(super) fn standing(&self) -> Vec<S> {
        let used = self.peers.values().flatten().map(|entry| &entry.session);
        let forgotten = self.forgotten.iter().map(|(_, session)| session);
        used.chain(forgotten).cloned().collect()
    }

    /// The chosen session with a peer, its number and its origin.
    pub(super) fn chosen(&self, peer: PeerId) -> Option<(u64, Origin, S)> {
        self.best(peer, |_| true)
    }

    /// The best of those that this end dialled.
    pub(super) fn dialled(&self, peer: PeerId) -> Option<(u64, Origin, S)> {
        self.best(peer, |origin| origin.dialled)
    }

    fn best(&self, peer: PeerId, fits: impl Fn(Origin) -> bool) -> Option<(u64, Origin, S)> {
        let peer = self.present_id(peer)?;
        let all = self.peers.get(&peer)?.iter();
        let best = all.filter(|entry| fits(entry.origin)).max_by_key(|entry| {
            let dialler = if entry.origin.dialled { self.own } else { peer };
            let Origin { direct, .. } = entry.origin;
            (!entry.parked, direct, Reverse(dialler), entry.number)
        })?;
        Some((best.number, best.origin, best.session.clone()))
    }

    /// The id under which a peer is entered here.
    fn present_id(&self, peer: PeerId) -> Option<PeerId> {
        if self.peers.contains_key(&peer) {
            return Some(peer);
        }
        let had = |all: &Vec<Entry<S>>| all.iter().any(|entry| entry.former.contains(&peer));
        let mut heirs = self.peers.iter().filter(|(_, all)| had(all));
        match (heirs.next(), heirs.next()) {
            (Some((heir, _)), None) => Some(*heir),
            _ => None,
        }
    }

    /// The sessions with a peer that were not chosen.
    pub(super) fn others(&self, peer: PeerId) -> Vec<S> {
        let chosen = self.chosen(peer).map(|(number, ..)| number);
        let all = self.peers.get(&peer).into_iter().flatten();
        all.filter(|entry| Some(entry.number) != chosen)
            .map(|entry| entry.session.clone())
            .collect()
    }

    pub(super) fn all(&self) -> Vec<(PeerId, S)> {
        let entries = |(peer, all): (&PeerId, &Vec<Entry<S>>)| {
            let sessions = all.iter().map(|entry| entry.session.clone());
            sessions.map(|session| (*peer, session)).collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(entries).collect()
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
                low.add(HIGH, &[], origin(true, by_low), name);
            }
            for by_low in [!first, first] {
                let name = if by_low { "by low" } else { "by high" };
                high.add(LOW, &[], origin(true, !by_low), name);
            }
            assert_eq!(chosen(&low, HIGH), "by low");
            assert_eq!(chosen(&high, LOW), "by low");
            assert_eq!(low.others(HIGH), ["by high"]);
        }
    }

    #[test]
    fn a_direct_way_is_better_than_any_relayed_one() {
        let mut low = Table::new(LOW);
        low.add(HIGH, &[], origin(false, true), "relayed");
        low.add(HIGH, &[], origin(true, false), "direct");
        low.add(HIGH, &[], origin(false, true), "relayed again");
        assert_eq!(chosen(&low, HIGH), "direct");
    }

    #[test]
    fn a_peer_that_dials_again_has_given_the_old_one_up() {
        let mut low = Table::new(LOW);
        let old = low.add(HIGH, &[], origin(true, false), "old");
        let new = low.add(HIGH, &[], origin(true, false), "new");
        assert_eq!(chosen(&low, HIGH), "new");
        low.remove(HIGH, new);
        assert_eq!(chosen(&low, HIGH), "old");
        low.remove(HIGH, old);
        assert!(low.chosen(HIGH).is_none() && low.peers.is_empty());
    }

    #[test]
    fn a_session_that_has_moved_counts_for_what_it_runs_over_now() {
        let mut low = Table::new(LOW);
        let relayed = low.add(HIGH, &[], origin(false, true), "relayed");
        let direct = low.add(HIGH, &[], origin(true, true), "direct");
        low.moved(HIGH, direct, false);
        low.moved(HIGH, relayed, true);
        assert_eq!(chosen(&low, HIGH), "relayed");
    }

    #[test]
    fn a_session_that_has_a_connection_is_better_than_any_that_waits_for_its_peer() {
        let mut low = Table::new(LOW);
        let direct = low.add(HIGH, &[], origin(true, true), "direct");
        let relayed = low.add(HIGH, &[], origin(false, false), "relayed");
        assert_eq!(chosen(&low, HIGH), "direct");
        low.parked(HIGH, direct, true);
        assert_eq!(chosen(&low, HIGH), "relayed");
        assert!(low.is_superseded(HIGH, direct) && !low.is_superseded(HIGH, relayed));
        // All wait: the best of them is dialled again.
        low.parked(HIGH, relayed, true);
        assert_eq!(chosen(&low, HIGH), "direct");
        low.parked(HIGH, direct, false);
        low.parked(HIGH, relayed, false);
        assert_eq!(chosen(&low, HIGH), "direct");
    }

    #[test]
    fn all_are_listed() {
        let mut table = Table::new(LOW);
        table.add(HIGH, &[], origin(true, false), "a");
        table.add(HIGH, &[], origin(true, false), "b");
        table.add(PeerId::from_bytes([3; 32]), &[], origin(true, false), "c");
        assert_eq!(table.all().len(), 3);
        assert_eq!(table.others(HIGH), ["a"]);
    }
    #[test]
    fn a_peer_with_a_new_key_is_found_by_its_old_id_unless_two_claim_it() {
        let [old, new, thief] = [4, 5, 6].map(|n| PeerId::from_bytes([n; 32]));
        let mut table = Table::new(LOW);
        table.add(new, &[old], origin(true, false), "new");
        assert_eq!((chosen(&table, old), chosen(&table, new)), ("new", "new"));
        let stolen = table.add(thief, &[old], origin(true, false), "thief");
        assert!(table.chosen(old).is_none());
        table.remove(thief, stolen);
        assert_eq!(chosen(&table, old), "new");
        table.add(old, &[], origin(true, false), "old");
        assert_eq!(chosen(&table, old), "old", "its own id comes first");
    }

    #[test]
    fn those_that_were_dialled_here_are_distinguished() {
        let mut table = Table::new(LOW);
        table.add(HIGH, &[], origin(true, false), "in");
        assert!(table.dialled(HIGH).is_none());
        table.add(HIGH, &[], origin(false, true), "out");
        assert_eq!(table.dialled(HIGH).unwrap().2, "out");
    }

    #[test]
    fn what_is_forgotten_stands_until_it_is_removed() {
        let mut table = Table::new(LOW);
        let first = table.add(HIGH, &[], origin(true, false), "first");
        table.add(HIGH, &[], origin(true, false), "second");
        table.forget(|session| *session == "first");
        assert_eq!(table.all().len(), 1);
        let mut standing = table.standing();
        standing.sort_unstable();
        assert_eq!(standing, ["first", "second"]);
        table.remove(HIGH, first);
        assert_eq!(table.standing(), ["second"]);
    }
}
