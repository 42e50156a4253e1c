//! What a node has heard of the fleets of its relays: which other relays lead where each one leads, and which one is nearer to a peer.
//!
//! All of it is a hint, as good as the relay that gave it: whoever answers at such an address has to prove the relay's key, and behind it the
//! peer its own. It is bounded, kept while the node lives, and tried when the relay that an address names does not lead there.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::identity::PeerId;
use crate::node::{Beside, Hint};

use super::message::{Answer, MAX_OTHERS};

/// Relays of whose fleets something is remembered. With more the one is forgotten that was heard longest ago.
const MOST_RELAYS: usize = 64;

/// Peers whose nearer relay is remembered.
const MOST_NEARER: usize = 256;

/// How long a nearer relay is tried first.
const NEARER_FOR: Duration = Duration::from_secs(600);

/// Other relays that one attempt tries.
const MOST_TRIED: usize = 3;

/// A relay, and where it is reached.
pub(super) type Place = (PeerId, Vec<Hint>);

#[derive(Debug, Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    others: HashMap<PeerId, (Instant, Vec<Place>)>,
    /// Of each peer; and which relay said so.
    nearer: HashMap<PeerId, (Instant, PeerId, Place)>,
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a relay says of others.
    pub(super) fn hear(&self, relay: PeerId, answer: &Answer) {
        let others = answer.others();
        if others.is_empty() {
            return;
        }
        let mut state = self.state();
        make_room(&mut state.others, &relay, MOST_RELAYS, |(at, _)| *at);
        state.others.insert(relay, (Instant::now(), others));
    }

    /// The same for a circuit to a peer, which came about.
    pub(super) fn hear_of(&self, relay: PeerId, target: PeerId, answer: &Answer) {
        self.hear(relay, answer);
        let nearer = answer.nearer().filter(|(nearer, _)| *nearer != relay);
        let mut state = self.state();
        let Some(nearer) = nearer else {
            // The peer may be here by now.
            if (state.nearer.get(&target)).is_some_and(|(_, by, _)| *by == relay) {
                state.nearer.remove(&target);
            }
            return;
        };
        make_room(&mut state.nearer, &target, MOST_NEARER, |(at, ..)| *at);
        state.nearer.insert(target, (Instant::now(), relay, nearer));
    }

    /// A relay does not lead to a peer, which it was nearer to.
    pub(super) fn forget_nearer(&self, relay: PeerId, target: PeerId) {
        let mut state = self.state();
        if (state.nearer.get(&target)).is_some_and(|(_, _, (nearer, _))| *nearer == relay) {
            state.nearer.remove(&target);
        }
    }

    /// The others of a relay's fleet, as that relay said, and behind them those that they know of. In no order.
    pub(super) fn others(&self, relay: PeerId) -> Vec<Place> {
        let state = self.state();
        let (mut found, mut at): (Vec<Place>, usize) = (Vec::new(), 0);
        let mut of = Some(relay);
        while let Some(next) = of {
            let heard = state.others.get(&next).map(|(_, heard)| &heard[..]);
            for place in heard.unwrap_or_default() {
                if place.0 != relay
                    && found.len() < MAX_OTHERS
                    && !found.iter().any(|(id, _)| *id == place.0)
                {
                    found.push(place.clone());
                }
            }
            of = found.get(at).map(|(id, _)| *id);
            at += 1;
        }
        found
    }

    /// What to try beside a relay for a peer.
    pub(super) fn beside(&self, relay: PeerId, target: PeerId) -> Beside {
        let mut others = self.others(relay);
        shuffle(&mut others);
        let nearer = self.state().nearer.get(&target).cloned();
        let first = nearer.filter(|(at, by, (nearer, _))| {
            let of_fleet = *by == relay || others.iter().any(|(id, _)| id == by);
            of_fleet && *nearer != relay && at.elapsed() < NEARER_FOR
        });
        let first = first.map(|(_, _, place)| place);
        if let Some((first, _)) = &first {
            others.retain(|(id, _)| id != first);
        }
        others.truncate(MOST_TRIED);
        Beside { first, others }
    }
}

/// Any order, so that not all go to the same one.
pub(super) fn shuffle<T>(all: &mut [T]) {
    for at in (1..all.len()).rev() {
        let most = u64::try_from(at + 1).unwrap_or(u64::MAX);
        let other = usize::try_from(chance() % most).unwrap_or(0);
        all.swap(at, other);
    }
}

/// A number that nobody has to be unable to guess.
pub(super) fn chance() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

fn make_room<V>(
    all: &mut HashMap<PeerId, V>,
    new: &PeerId,
    most: usize,
    heard: impl Fn(&V) -> Instant,
) {
    if all.len() >= most && !all.contains_key(new) {
        let oldest = all.iter().min_by_key(|(_, it)| heard(it));
        if let Some(oldest) = oldest.map(|(id, _)| *id) {
            all.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Elsewhere;
    use super::*;

    fn id(n: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn elsewhere(n: u16) -> Elsewhere {
        Elsewhere::new(id(n), &["tcp:h:1".parse().unwrap()])
    }

    fn others(known: &Known, relay: u16) -> Vec<PeerId> {
        let mut all: Vec<_> = known.others(id(relay)).into_iter().map(|it| it.0).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_others_of_a_relay_are_what_it_said_and_what_those_said() {
        let known = Known::default();
        let says = |relay, of: &[u16]| {
            let of = of.iter().map(|n| elsewhere(*n)).collect();
            known.hear(id(relay), &Answer::done(None).with_others(of));
        };
        assert_eq!(others(&known, 1), []);
        says(1, &[2, 3]);
        says(3, &[1, 4]);
        assert_eq!(others(&known, 1), [id(2), id(3), id(4)]);
        assert_eq!(others(&known, 2), []);
        // The last word counts; no word is none.
        says(1, &[5]);
        says(1, &[]);
        assert_eq!(others(&known, 1), [id(5)]);
        // However much is said.
        says(5, &[10, 11, 12, 13, 14, 15, 16, 17]);
        assert_eq!(others(&known, 1).len(), MAX_OTHERS);
        for relay in 100..1000 {
            says(relay, &[1]);
        }
        assert_eq!(known.state().others.len(), MOST_RELAYS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_relay_is_first_for_a_while_and_until_it_fails() {
        let known = Known::default();
        let said = |nearer: Option<u16>| {
            let of = vec![elsewhere(2), elsewhere(3)];
            let answer = Answer::done(None).with_others(of);
            answer.with_nearer(nearer.map(elsewhere))
        };
        let first = |target| known.beside(id(1), id(target)).first.map(|(id, _)| id);
        known.hear_of(id(1), id(9), &said(Some(3)));
        assert_eq!(first(9), Some(id(3)));
        assert_eq!(known.beside(id(1), id(9)).others.len(), 1);
        assert_eq!(first(8), None);
        // What a relay of another fleet says is nothing to this one.
        known.hear_of(id(50), id(8), &said(Some(3)));
        assert_eq!(first(8), None);
        known.forget_nearer(id(2), id(9));
        assert_eq!(first(9), Some(id(3)));
        known.forget_nearer(id(3), id(9));
        assert_eq!(first(9), None);
        known.hear_of(id(1), id(9), &said(Some(3)));
        known.hear_of(id(1), id(9), &said(None));
        assert_eq!(first(9), None);
        known.hear_of(id(1), id(9), &said(Some(3)));
        tokio::time::advance(NEARER_FOR).await;
        assert_eq!(first(9), None);
        for target in 0..1000 {
            known.hear_of(id(1), id(target), &said(Some(3)));
        }
        assert_eq!(known.state().nearer.len(), MOST_NEARER);
    }
}
