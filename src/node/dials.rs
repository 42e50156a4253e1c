//! Dials that are under way, and who waits for which.
//!
//! However many want a session with a peer, there is one dial. Who comes while it is under way adds the hints that
//! it knows and waits for the same outcome, good or bad. The dial is a task of its own, which ends when nobody waits for it
//! any more. A dial may need another one: the way to a peer leads through a relay, which has to be dialled first.
//!
//! ```text
//! dial X  needs  dial A  needs  dial B        cepa://X@relay:A@relay:B@tcp:b
//! dial Y  needs  dial B  needs  dial A        cepa://Y@relay:B@relay:A@tcp:a
//! ```
//!
//! The two would wait for each other for ever, each for the dial that the other is. So whoever would close such a
//! ring joins no dial: it dials beside the other one, and of two sessions that come of it one is retired
//! (`table.rs`).

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::identity::PeerId;
use crate::session::Session;

use super::addr::{Hint, MAX_HINTS};
use super::error::DialError;

/// Hints that one dial follows at most. Who brings more begins another one.
const MOST: usize = 4 * MAX_HINTS;

/// The dials of a node, each a `T`.
#[derive(Debug)]
pub(super) struct Dials<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// By whom they lead to. Those who wait keep them.
    under_way: HashMap<PeerId, Weak<T>>,
    /// The dial of the first needs that of the second. As often as there are such dials.
    needs: Vec<(PeerId, PeerId)>,
}

impl<T> Default for Dials<T> {
    fn default() -> Self {
        let state = State {
            under_way: HashMap::new(),
            needs: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }
}

impl<T> State<T> {
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

/// A place in a dial, until it is dropped; or the leave to dial beside it.
#[derive(Debug)]
pub(super) struct Place<'a, T> {
    dials: &'a Dials<T>,
    peer: PeerId,
    needed_by: Option<PeerId>,
    dial: Option<Arc<T>>,
}

impl<T> Place<'_, T> {
    /// What to wait for; none for who would close a ring and dials by itself.
    pub(super) fn dial(&self) -> Option<&T> {
        self.dial.as_deref()
    }
}

impl<T> Dials<T> {
    /// Joins the dial to `peer`, or starts one where there is none that `join` has room in. The dial of `needed_by` needs it.
    pub(super) fn board(
        &self,
        peer: PeerId,
        needed_by: Option<PeerId>,
        join: impl FnOnce(&T) -> bool,
        start: impl FnOnce() -> T,
    ) -> Place<'_, T> {
        let mut state = self.state();
        let ring = needed_by.is_some_and(|needing| state.leads(peer, needing));
        // One that dials by itself makes nobody wait.
        let needed_by = needed_by.filter(|_| !ring);
        state.needs.extend(needed_by.map(|needing| (needing, peer)));
        let dial = (!ring).then(|| {
            let there = state.under_way.get(&peer).and_then(Weak::upgrade);
            there.filter(|dial| join(dial)).unwrap_or_else(|| {
                let dial = Arc::new(start());
                state.under_way.insert(peer, Arc::downgrade(&dial));
                dial
            })
        });
        Place {
            dials: self,
            peer,
            needed_by,
            dial,
        }
    }

    /// The dial to a peer, if there is one that somebody waits for.
    pub(super) fn under_way(&self, peer: PeerId) -> Option<Arc<T>> {
        self.state().under_way.get(&peer)?.upgrade()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut state = self.dials.state();
        drop(self.dial.take());
        if let Some(needing) = self.needed_by {
            let mut needs = state.needs.iter();
            if let Some(at) = needs.position(|need| *need == (needing, self.peer)) {
                state.needs.swap_remove(at);
            }
        }
        if state.under_way.get(&self.peer).map(Weak::strong_count) == Some(0) {
            state.under_way.remove(&self.peer);
        }
    }
}

/// Which session with a peer will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Any,
    /// One that this end has dialled.
    Dialled,
}

/// A dial that is under way, in a task of its own. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Dial {
    want: Want,
    hints: Arc<Hints>,
    /// Told when a session with the peer comes up, however that came.
    came: Notify,
    outcome: watch::Receiver<Option<Result<Session, DialError>>>,
    task: AbortHandle,
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dial {
    pub(super) fn new(
        want: Want,
        hints: Arc<Hints>,
        outcome: watch::Receiver<Option<Result<Session, DialError>>>,
        task: AbortHandle,
    ) -> Self {
        Self {
            want,
            hints,
            came: Notify::new(),
            outcome,
            task,
        }
    }

    /// Whether its outcome is such a session. Where any will do, it may find one that has come in meanwhile.
    pub(super) fn serves(&self, want: Want) -> bool {
        want == Want::Any || self.want == want
    }

    pub(super) fn hints(&self) -> &Hints {
        &self.hints
    }

    /// A session with the peer has come up.
    pub(super) fn came(&self) {
        self.came.notify_waiters();
    }

    /// Waits for the outcome, or for a session that is `there` meanwhile.
    pub(super) async fn arrive(
        &self,
        peer: PeerId,
        there: impl Fn() -> Option<Session>,
    ) -> Result<Session, DialError> {
        let mut outcome = self.outcome.clone();
        loop {
            let mut came = pin!(self.came.notified());
            came.as_mut().enable();
            if let Some(session) = there() {
                return Ok(session);
            }
            tokio::select! {
                // Without a word its task has panicked, or its runtime has ended.
                done = outcome.wait_for(Option::is_some) => {
                    let done = done.ok().and_then(|outcome| outcome.clone());
                    return done.unwrap_or(Err(DialError::Gone { peer }));
                }
                () = came => {}
            }
        }
    }
}

/// The hints of a dial: those that wait to be tried, and those that were.
#[derive(Debug, Default)]
pub(super) struct Hints {
    state: Mutex<Waiting>,
    /// Told when there are more.
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Relays last.
    queue: VecDeque<Hint>,
    /// All that there were.
    seen: Vec<Hint>,
    /// The resolver is to be asked, and was not yet.
    ask: bool,
    asked: bool,
    /// No more are taken: the dial has failed.
    closed: bool,
}

impl Hints {
    /// Relays have to be last among them. None means that the resolver is to be asked.
    pub(super) fn new(hints: &[Hint]) -> Self {
        let this = Self::default();
        this.join(hints);
        this
    }

    /// Takes what somebody else brings; false where it is too late for that, or too much.
    pub(super) fn join(&self, hints: &[Hint]) -> bool {
        let mut state = self.state();
        if hints.is_empty() && !state.closed && !state.asked {
            (state.ask, state.asked) = (true, true);
        }
        let joined = state.add(hints);
        self.more.notify_one();
        joined
    }

    /// What the resolver has found; as much of it as there is room for.
    pub(super) fn resolved(&self, hints: &[Hint]) {
        let mut state = self.state();
        let room = MOST.saturating_sub(state.seen.len());
        state.add(hints.get(..room).unwrap_or(hints));
    }

    /// The next to try.
    pub(super) fn next(&self) -> Option<Hint> {
        self.state().queue.pop_front()
    }

    /// Something of the one that is to be tried next, if one waits.
    pub(super) fn look<T>(&self, of: impl FnOnce(&Hint) -> T) -> Option<T> {
        self.state().queue.front().map(of)
    }

    /// Whether to ask the resolver; once.
    pub(super) fn take_question(&self) -> bool {
        std::mem::take(&mut self.state().ask)
    }

    /// Takes no more, unless there is one to try.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state();
        state.closed = state.queue.is_empty() && !state.ask;
        state.closed
    }

    /// All that there were.
    pub(super) fn all(&self) -> Vec<Hint> {
        self.state().seen.clone()
    }

    /// All that there were and that lead to the peer itself.
    pub(super) fn direct(&self) -> Vec<Hint> {
        let state = self.state();
        let direct = state.seen.iter().filter(|hint| !hint.is_relay());
        direct.cloned().collect()
    }

    /// Waits for more.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, hints: &[Hint]) -> bool {
        let new = hints.iter().filter(|hint| !self.seen.contains(hint));
        let new: Vec<Hint> = new.cloned().collect();
        if self.closed || self.seen.len() + new.len() > MOST {
            return false;
        }
        self.seen.extend(new.iter().cloned());
        // In front of what waits, behind which the last who came might wait for long; relays are last all the same.
        let (relays, direct): (Vec<_>, Vec<_>) = new.into_iter().partition(Hint::is_relay);
        direct
            .into_iter()
            .rev()
            .for_each(|hint| self.queue.push_front(hint));
        self.queue.extend(relays);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: PeerId = PeerId::from_bytes([1; 32]);
    const Y: PeerId = PeerId::from_bytes([2; 32]);
    const A: PeerId = PeerId::from_bytes([3; 32]);
    const B: PeerId = PeerId::from_bytes([4; 32]);

    /// Joins or starts one; its number is how many others were started before it.
    fn board<'a>(
        dials: &'a Dials<usize>,
        started: &mut usize,
        peer: PeerId,
        needed_by: Option<PeerId>,
    ) -> Place<'a, usize> {
        let start = || {
            *started += 1;
            *started - 1
        };
        dials.board(peer, needed_by, |_| true, start)
    }

    fn nothing_is_left(dials: &Dials<usize>) {
        let state = dials.state();
        assert!(
            state.under_way.is_empty() && state.needs.is_empty(),
            "{state:?}"
        );
    }

    #[test]
    fn one_flight_for_all_who_want_a_peer_and_each_peer_for_itself() {
        let (dials, mut n) = (Dials::default(), 0);
        let first = board(&dials, &mut n, X, None);
        let second = board(&dials, &mut n, X, None);
        let other = board(&dials, &mut n, Y, None);
        assert_eq!(
            [&first, &second, &other].map(|place| place.dial().copied()),
            [Some(0), Some(0), Some(1)]
        );
        drop(first);
        assert_eq!(dials.under_way(X).as_deref(), Some(&0), "one waits still");
        drop(second);
        assert!(dials.under_way(X).is_none());
        // One that takes nobody any more is replaced, and goes on for those who are in it.
        let late = dials.board(Y, None, |_| false, || 7);
        assert_eq!((other.dial(), late.dial()), (Some(&1), Some(&7)));
        drop(other);
        assert_eq!(dials.under_way(Y).as_deref(), Some(&7));
        drop(late);
        nothing_is_left(&dials);
    }

    #[test]
    fn who_would_close_a_ring_dials_by_itself() {
        let (dials, mut n) = (Dials::default(), 0);
        let x = board(&dials, &mut n, X, None);
        let x_a = board(&dials, &mut n, A, Some(X));
        let y = board(&dials, &mut n, Y, None);
        let y_b = board(&dials, &mut n, B, Some(Y));
        // The first of the two waits, the second must not.
        let x_b = board(&dials, &mut n, B, Some(A));
        assert_eq!(x_b.dial(), y_b.dial());
        let y_a = board(&dials, &mut n, A, Some(B));
        assert_eq!(y_a.dial(), None, "it waits in a ring");
        // Somebody whom no dial waits for waits as ever.
        let plain = board(&dials, &mut n, A, None);
        assert_eq!(plain.dial(), x_a.dial());
        drop((plain, y_a, y_b, y, x_b, x_a, x));
        nothing_is_left(&dials);
    }

    #[test]
    fn a_ring_may_have_any_length() {
        let (dials, mut n) = (Dials::default(), 0);
        let all: Vec<PeerId> = (0..20).map(|n| PeerId::from_bytes([n; 32])).collect();
        let mut waiting = Vec::new();
        for pair in all.windows(2) {
            waiting.push(board(&dials, &mut n, pair[1], Some(pair[0])));
        }
        let closes = board(&dials, &mut n, all[0], Some(all[19]));
        assert_eq!(closes.dial(), None, "it waits in a ring");
        drop((closes, waiting.remove(10)));
        let no_ring = board(&dials, &mut n, all[0], Some(all[19]));
        assert!(no_ring.dial().is_some());
        drop((waiting, no_ring));
        nothing_is_left(&dials);
    }

    fn hint(text: &str) -> Hint {
        text.parse().unwrap()
    }

    #[test]
    fn who_comes_later_is_tried_first_and_relays_last_and_nothing_twice() {
        let relay = hint(&format!("relay:{X}@tcp:r:1"));
        let hints = Hints::new(&[hint("tcp:a:1"), hint("tcp:b:1"), relay.clone()]);
        assert_eq!(hints.next(), Some(hint("tcp:a:1")));
        assert!(hints.join(&[hint("tcp:c:1"), hint("tcp:a:1"), hint("tcp:d:1")]));
        let order: Vec<_> = std::iter::from_fn(|| hints.next()).collect();
        let direct = ["tcp:c:1", "tcp:d:1", "tcp:b:1"].map(hint);
        assert_eq!(order, [direct.as_slice(), &[relay]].concat());
        assert!(!hints.take_question());
        assert!(hints.close() && !hints.join(&[hint("tcp:e:1")]));
    }

    #[test]
    fn the_resolver_is_asked_once_and_before_the_flight_fails() {
        let hints = Hints::new(&[hint("tcp:a:1")]);
        assert!(hints.next().is_some());
        assert!(hints.join(&[]) && hints.join(&[]));
        assert!(!hints.close(), "the resolver was not asked");
        assert!(hints.take_question() && !hints.take_question());
        assert!(hints.join(&[]) && !hints.take_question());
        assert!(hints.close());
    }

    #[test]
    fn a_flight_has_room_for_so_many() {
        let many = |from: usize, n| -> Vec<Hint> {
            let all = from..from + n;
            all.map(|n| hint(&format!("tcp:h{n}:1"))).collect()
        };
        let hints = Hints::new(&many(0, MOST - 1));
        assert!(!hints.join(&many(1000, 2)));
        assert!(hints.join(&many(1000, 1)) && hints.join(&many(0, MOST - 1)));
        hints.resolved(&many(2000, 9));
        assert_eq!(std::iter::from_fn(|| hints.next()).count(), MOST);
    }
}
