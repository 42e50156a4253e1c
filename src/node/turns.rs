//! Whose turn it is to dial a peer. No IO, no clock.
//!
//! However many want a session with a peer, one of them dials and the others wait, and find the session. A dial may
//! need another one: the way to a peer leads through a relay, which has to be dialled first.
//!
//! ```text
//! dial X  needs  dial A  needs  dial B        cepa://X@relay:A@relay:B@tcp:b
//! dial Y  needs  dial B  needs  dial A        cepa://Y@relay:B@relay:A@tcp:a
//! ```
//!
//! The two would wait for each other for ever, each with the turn that the other needs. So whoever would close such a
//! ring waits for no turn: it dials beside the other one, and of two sessions that come of it one is retired
//! (`table.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::identity::PeerId;

type Lock = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of peers that are being dialled.
    locks: HashMap<PeerId, Lock>,
    /// The dial of the first needs that of the second. As often as there are such dials.
    needs: Vec<(PeerId, PeerId)>,
}

impl State {
    /// Whether the dial of `one` waits for that of `other`, over however many others.
    fn leads(&self, one: PeerId, other: PeerId) -> bool {
        let (mut found, mut at) = (vec![one], 0);
        while let Some(from) = found.get(at).copied() {
            if from == other {
                return true;
            }
            let next = self.needs.iter().filter(|(needing, _)| *needing == from);
            for (_, needed) in next {
                if !found.contains(needed) {
                    found.push(*needed);
                }
            }
            at += 1;
        }
        false
    }
}

/// A turn, until it is dropped; or the leave to go out of turn.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    peer: PeerId,
    needed_by: Option<PeerId>,
    lock: Option<Lock>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn to dial `peer`, which the dial of `needed_by` needs.
    ///
    /// # Cancel safety
    /// Dropping the future gives the turn up.
    pub(super) async fn wait(&self, peer: PeerId, needed_by: Option<PeerId>) -> Turn<'_> {
        let mut turn = self.ask(peer, needed_by);
        if let Some(lock) = turn.lock.clone() {
            turn.held = Some(lock.lock_owned().await);
        }
        turn
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, peer: PeerId, needed_by: Option<PeerId>) -> Turn<'_> {
        let mut state = self.state();
        let ring = needed_by.is_some_and(|needing| state.leads(peer, needing));
        // One that goes out of turn makes nobody wait.
        let needed_by = needed_by.filter(|_| !ring);
        state.needs.extend(needed_by.map(|needing| (needing, peer)));
        let lock = (!ring).then(|| Arc::clone(state.locks.entry(peer).or_default()));
        Turn {
            turns: self,
            peer,
            needed_by,
            lock,
            held: None,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        self.held = None;
        if let Some(needing) = self.needed_by {
            let mut needs = state.needs.iter();
            if let Some(at) = needs.position(|need| *need == (needing, self.peer)) {
                state.needs.swap_remove(at);
            }
        }
        // Whoever waits for it has one of its own.
        if self.lock.take().is_some()
            && state.locks.get(&self.peer).map(Arc::strong_count) == Some(1)
        {
            state.locks.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const X: PeerId = PeerId::from_bytes([1; 32]);
    const Y: PeerId = PeerId::from_bytes([2; 32]);
    const A: PeerId = PeerId::from_bytes([3; 32]);
    const B: PeerId = PeerId::from_bytes([4; 32]);

    fn now(turns: &Turns, peer: PeerId, needed_by: Option<PeerId>) -> Option<Turn<'_>> {
        turns.wait(peer, needed_by).now_or_never()
    }

    fn nothing_is_left(turns: &Turns) {
        let state = turns.state();
        assert!(
            state.locks.is_empty() && state.needs.is_empty(),
            "{state:?}"
        );
    }

    #[test]
    fn one_after_the_other_and_each_peer_for_itself() {
        let turns = Turns::default();
        let first = now(&turns, X, None).unwrap();
        let mut second = Box::pin(turns.wait(X, None));
        assert!(second.as_mut().now_or_never().is_none());
        drop(now(&turns, Y, None).unwrap());
        assert!(now(&turns, X, None).is_none(), "given up");
        drop(first);
        let second = second.now_or_never().expect("it is its turn");
        assert!(now(&turns, X, None).is_none());
        drop(second);
        nothing_is_left(&turns);
    }

    #[test]
    fn who_would_close_a_ring_goes_out_of_turn() {
        let turns = Turns::default();
        let x = now(&turns, X, None).unwrap();
        let x_a = now(&turns, A, Some(X)).unwrap();
        let y = now(&turns, Y, None).unwrap();
        let y_b = now(&turns, B, Some(Y)).unwrap();
        // The first of the two waits, the second must not.
        let mut x_b = Box::pin(turns.wait(B, Some(A)));
        assert!(x_b.as_mut().now_or_never().is_none());
        let y_a = now(&turns, A, Some(B)).expect("it waits in a ring");
        // Somebody without a turn of its own waits as ever.
        assert!(now(&turns, A, None).is_none());
        drop((y_a, y_b, y));
        let x_b = x_b.now_or_never().expect("nobody has it any more");
        drop((x_b, x_a, x));
        nothing_is_left(&turns);
    }

    #[test]
    fn a_ring_may_have_any_length() {
        let turns = Turns::default();
        let all: Vec<PeerId> = (0..20).map(|n| PeerId::from_bytes([n; 32])).collect();
        let held: Vec<_> = all
            .iter()
            .map(|peer| now(&turns, *peer, None).unwrap())
            .collect();
        let mut waiting = Vec::new();
        for pair in all.windows(2) {
            let mut next = Box::pin(turns.wait(pair[1], Some(pair[0])));
            assert!(next.as_mut().now_or_never().is_none());
            waiting.push(next);
        }
        drop(now(&turns, all[0], Some(all[19])).expect("it waits in a ring"));
        drop(waiting.remove(10));
        assert!(
            now(&turns, all[0], Some(all[19])).is_none(),
            "no ring any more"
        );
        drop((waiting, held));
        nothing_is_left(&turns);
    }
}
