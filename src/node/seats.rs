//! The sessions that came in, and which of them gives way when there is no room for a newcomer. No IO, no clock.
//!
//! Keys cost nothing, so a limit for each key bounds nobody: many keys, from several hosts, could take all that strangers have of
//! the sessions and then keep silent, and whoever came next would be turned away. So a peer that has no session gets the
//! place of another one:
//!
//! | a session with | has a connection, of use | has one, of no use | waits, of use | waits, of no use |
//! | --- | --- | --- | --- | --- |
//! | a stranger | goes on | gives way | gives way where no place is left in all | gives way |
//! | a peer known by name | goes on | goes on | to peers known by name | to peers known by name |
//!
//! 1. A session is of use while something is served in it, its peer has proven something ([`Seat::keep`]), or this end has opened
//!    something in it. One that waits for its peer, since its connection is lost, has no place for good by that: otherwise whoever opens
//!    something and leaves would hold places without even a connection. Within one host it has: its neighbours would take it. Peers known by
//!    name yield behind all strangers, and never to one, who would gain nothing by it: strangers have their part, and no more.
//! 2. Of strangers' it is one of the host that holds most, and of that one whose key holds most. A stranger gets one only
//!    of its own host, or of a host that has more than its own: two hosts do not take the same place from each other by turns.
//!    This comes before all else: otherwise a host that holds one place would take those of everybody who waits, one after the other.
//! 3. Then the one that has waited longest for its peer, and then the oldest.
//!
//! A session whose connection is lost waits for its peer, and the peer may have begun anew instead: killed and started again, it
//! knows nothing of that session. So where a peer is at a limit, the session of its own that has waited longest gives way first.
//!
//! Whoever fills the places again and again only takes those away that it holds itself, as long as it has fewer hosts than there
//! are places.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::gate::Source;
use crate::identity::PeerId;

use super::shares::{Exceeded, Holder, Resource, SESSION, Scope, Share, Shares};

/// Sessions that may take leave at once, each for as long as a goodbye takes; the next ones are cut. They count no more, so
/// this bounds what there is beyond the limit.
const LEAVING: usize = 32;

/// The places of a node. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// By number, so the oldest first.
    taken: BTreeMap<u64, Entry>,
    leaving: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    holder: Holder,
    /// None once it was given to somebody else.
    share: Option<Share>,
    seat: Arc<Seat>,
}

/// The place of one session.
#[derive(Default)]
pub(super) struct Seat {
    uses: AtomicUsize,
    /// Whether this end has opened something in it.
    used_here: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// Since when its session has had no connection, while it has none.
    parked: OnceLock<Box<dyn Fn() -> Option<Instant> + Send + Sync>>,
    given_away: CancellationToken,
    at_once: CancellationToken,
}

impl Seat {
    /// From now on the session is of use, until this is dropped.
    pub(super) fn keep(self: &Arc<Self>) -> Kept {
        self.uses.fetch_add(1, Ordering::Relaxed);
        Kept {
            seat: Arc::clone(self),
        }
    }

    pub(super) fn is_used_here_if(&self, used_here: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.used_here.set(Box::new(used_here));
    }

    /// The session outlives its connection.
    pub(super) fn is_parked_if(&self, since: impl Fn() -> Option<Instant> + Send + Sync + 'static) {
        let _ = self.parked.set(Box::new(since));
    }

    fn parked_since(&self) -> Option<Instant> {
        self.parked.get().and_then(|since| since())
    }

    fn is_of_use(&self) -> bool {
        self.uses.load(Ordering::Relaxed) > 0 || self.used_here.get().is_some_and(|used| used())
    }

    /// Waits until the place was given to somebody else; whether there is time for a goodbye.
    pub(super) async fn given_away(&self) -> bool {
        self.given_away.cancelled().await;
        !self.at_once.is_cancelled()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("uses", &self.uses)
            .finish_non_exhaustive()
    }
}

/// Keeps a session from giving way to a newcomer, until it is dropped:
/// [`CallContext::keep_session`](super::CallContext::keep_session).
#[derive(Debug)]
#[must_use = "the session may give way to another once this is dropped"]
pub struct Kept {
    seat: Arc<Seat>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.seat.uses.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place that is held, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    seats: Seats,
    number: u64,
    pub(super) seat: Arc<Seat>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        let entry = state.taken.remove(&self.number);
        if entry.is_some_and(|entry| entry.share.is_none()) {
            state.leaving -= 1;
        }
    }
}

impl Seats {
    /// One more session that comes in.
    pub(super) fn take(&self, shares: &Shares, holder: Holder) -> Result<Held, Exceeded> {
        let holder = shares.knowing(holder);
        let mut state = self.state();
        let share = match shares.take_now(holder.clone(), &SESSION) {
            Ok(share) => share,
            Err(exceeded) => {
                let has_one = |id| shares.held(Resource::Sessions, Some(id)) > 0;
                // Where its host is at its limit, only what came from there is of help.
                let from = (exceeded.scope == Scope::Host).then_some(&holder);
                let own = state.parked_of(&holder.ids, from);
                let found = if own.is_some() {
                    own
                } else if holder.ids.iter().copied().any(has_one) {
                    None
                } else {
                    state.to_spare(&holder, exceeded.scope)
                };
                let Some(number) = found else {
                    return Err(exceeded);
                };
                state.give_away(number);
                shares.take_now(holder.clone(), &SESSION)?
            }
        };
        state.next += 1;
        let (number, seat) = (state.next, Arc::<Seat>::default());
        let entry = Entry {
            holder,
            share: Some(share),
            seat: Arc::clone(&seat),
        };
        state.taken.insert(number, entry);
        drop(state);
        Ok(Held {
            seats: self.clone(),
            number,
            seat,
        })
    }

    /// What a peer is short of, it may hold in a session that waits for it: that one ends. For
    /// [`Shares::relieved_by`].
    pub(super) fn relief(&self) -> impl Fn(&[PeerId]) + Send + Sync + 'static {
        // The entries hold what they were taken from.
        let state = Arc::downgrade(&self.state);
        move |ids| {
            if let Some(state) = state.upgrade() {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(number) = state.parked_of(ids, None) {
                    state.give_away(number);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a session gives way to a peer that has none; the greater goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Yields {
    /// It has a connection, and is of no use.
    Unused,
    /// It has waited for its peer since then.
    Parked(Reverse<Instant>),
}

impl Entry {
    /// Whether and why it gives way where this is short; see the table at the head of this file.
    fn yields(&self, scope: Scope) -> Option<Yields> {
        let of_use = self.seat.is_of_use();
        match self.seat.parked_since() {
            Some(since) if scope == Scope::All || !of_use => Some(Yields::Parked(Reverse(since))),
            Some(_) => None,
            None => (!self.holder.named && !of_use).then_some(Yields::Unused),
        }
    }
}

impl State {
    /// The session of a peer that has had no connection for longest; of those from the host of this one, where it is
    /// given.
    fn parked_of(&self, ids: &[PeerId], from: Option<&Holder>) -> Option<u64> {
        let here = self.taken.iter().filter(|(_, it)| it.share.is_some());
        let here = here.filter(|(_, it)| from.is_none_or(|from| it.holder.host == from.host));
        let own = here.filter(|(_, it)| it.holder.ids.iter().any(|id| ids.contains(id)));
        let parked = own.filter_map(|(number, it)| Some((it.seat.parked_since()?, *number)));
        parked.min().map(|(_, number)| number)
    }

    /// Which one gives way to a peer that has none.
    fn to_spare(&self, holder: &Holder, scope: Scope) -> Option<u64> {
        let (mut hosts, mut keys) = (HashMap::new(), HashMap::new());
        let here = || self.taken.iter().filter(|(_, it)| it.share.is_some());
        for (_, entry) in here() {
            if !entry.holder.named {
                *hosts.entry(entry.holder.host).or_insert(0) += 1;
            }
            for id in entry.holder.ids.iter() {
                *keys.entry(*id).or_insert(0) += 1;
            }
        }
        let at = |host: Option<Source>| hosts.get(&host).copied().unwrap_or(0);
        let of = |id: &PeerId| keys.get(id).copied().unwrap_or(0);
        let may = |other: &Holder| match scope {
            Scope::Peer => false,
            Scope::Host => !other.named && other.host == holder.host,
            Scope::All if other.named => holder.named,
            Scope::All => {
                holder.named || other.host == holder.host || at(other.host) > at(holder.host)
            }
        };
        let spare = here().filter(|(_, it)| may(&it.holder));
        let ranked = spare.filter_map(|(number, entry)| {
            let why = entry.yields(scope)?;
            let stranger = !entry.holder.named;
            let at_host = if stranger { at(entry.holder.host) } else { 0 };
            let theirs = entry.holder.ids.iter().map(of).max();
            Some(((stranger, at_host, theirs, why), Reverse(*number)))
        });
        let first = ranked.max();
        first.map(|(_, Reverse(number))| number)
    }

    fn give_away(&mut self, number: u64) {
        let Some(entry) = self.taken.get_mut(&number) else {
            return;
        };
        drop(entry.share.take());
        if self.leaving >= LEAVING {
            entry.seat.at_once.cancel();
        }
        self.leaving += 1;
        entry.seat.given_away.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::shares::{Limits, ShareLimits};

    fn stranger(host: u8, n: u8) -> Holder {
        Holder {
            ids: Arc::new([PeerId::from_bytes([n; 32])]),
            host: Some(Source::from(std::net::IpAddr::from([192, 0, 2, host]))),
            named: false,
        }
    }

    /// Strangers have nine of twelve places, four of one host.
    fn few() -> (Seats, Shares) {
        let limits = ShareLimits::default().with_sessions(Limits {
            all: 12,
            peer: 4,
            host: 4,
        });
        (Seats::default(), Shares::new(limits))
    }

    fn is_gone(held: &Held) -> bool {
        held.seat.given_away.is_cancelled()
    }

    #[test]
    fn at_its_limit_a_peer_gets_the_place_of_its_own_session_that_waits_longest() {
        let (seats, shares) = few();
        let take = |n| seats.take(&shares, stranger(1, n));
        let now = Instant::now();
        let all: Vec<_> = (0..4).map(|_| take(1).unwrap()).collect();
        let _of_use: Vec<_> = all.iter().map(|it| it.seat.keep()).collect();
        // None of them is parked.
        assert_eq!(take(1).unwrap_err().scope, Scope::Peer);
        for (it, seconds) in all.iter().zip([5, 1, 9]) {
            let since = now + std::time::Duration::from_secs(seconds);
            it.seat.is_parked_if(move || Some(since));
        }
        all.last().unwrap().seat.is_parked_if(|| None);
        // Another peer takes nothing from it.
        assert_eq!(take(2).unwrap_err().scope, Scope::Host);
        let more: Vec<_> = [1, 0, 2]
            .map(|gone| {
                let new = take(1).unwrap();
                assert!(is_gone(&all[gone]), "{gone}");
                new
            })
            .into();
        assert_eq!(take(1).unwrap_err().scope, Scope::Peer);
        assert!(!is_gone(all.last().unwrap()) && !more.iter().any(is_gone));
    }

    #[test]
    fn a_session_from_elsewhere_is_not_given_away_for_a_place_at_a_full_host() {
        let (seats, shares) = few();
        let away = seats.take(&shares, stranger(1, 1)).unwrap();
        let _of_use = away.seat.keep();
        away.seat.is_parked_if(|| Some(Instant::now()));
        let others: Vec<_> = (2..6)
            .map(|n| seats.take(&shares, stranger(2, n)).unwrap())
            .collect();
        let _all_of_use: Vec<_> = others.iter().map(|it| it.seat.keep()).collect();
        let refused = seats.take(&shares, stranger(2, 1)).unwrap_err();
        assert_eq!(refused.scope, Scope::Host);
        assert!(!is_gone(&away));
    }

    #[test]
    fn who_yields_is_what_the_table_says() {
        let since = Instant::now();
        // Known by name, of use, without a connection; what it says.
        let table = [
            (false, true, None, None),
            (false, false, None, Some(Yields::Unused)),
            (
                false,
                true,
                Some(since),
                Some(Yields::Parked(Reverse(since))),
            ),
            (
                false,
                false,
                Some(since),
                Some(Yields::Parked(Reverse(since))),
            ),
            (true, true, None, None),
            (true, false, None, None),
            (
                true,
                true,
                Some(since),
                Some(Yields::Parked(Reverse(since))),
            ),
            (
                true,
                false,
                Some(since),
                Some(Yields::Parked(Reverse(since))),
            ),
        ];
        for (named, of_use, parked, yields) in table {
            let seat = Arc::<Seat>::default();
            let _kept = of_use.then(|| seat.keep());
            seat.is_parked_if(move || parked);
            let entry = Entry {
                holder: Holder {
                    named,
                    ..stranger(1, 1)
                },
                share: None,
                seat,
            };
            assert_eq!(
                entry.yields(Scope::All),
                yields,
                "{named} {of_use} {parked:?}"
            );
        }
        let seat = Arc::<Seat>::default();
        seat.is_parked_if(move || Some(since));
        let kept = seat.keep();
        let (holder, share) = (stranger(1, 1), None);
        let entry = Entry {
            holder,
            share,
            seat,
        };
        assert_eq!(entry.yields(Scope::Host), None, "not to its neighbours");
        drop(kept);
        assert_eq!(
            entry.yields(Scope::Host),
            Some(Yields::Parked(Reverse(since)))
        );
        let later = since + std::time::Duration::from_secs(1);
        let parked = |since| Yields::Parked(Reverse(since));
        assert!(parked(since) > parked(later) && parked(later) > Yields::Unused);
    }

    #[test]
    fn open_substreams_hold_no_place_for_strangers_that_have_left() {
        let (seats, shares) = few();
        let take = |host, n| seats.take(&shares, stranger(host, n));
        let now = Instant::now();
        // Four of one host, all of use, two of them parked; and one each of five others, the first of them parked for longest.
        let hosts = [1, 1, 1, 1, 2, 3, 4, 5, 6];
        let all: Vec<_> = (1..)
            .zip(hosts)
            .map(|(n, host)| take(host, n).unwrap())
            .collect();
        let _of_use: Vec<_> = all.iter().map(|it| it.seat.keep()).collect();
        assert_eq!(take(7, 20).unwrap_err().scope, Scope::All);
        for (at, seconds) in [(1, 5), (2, 3), (4, 1)] {
            let since = now + std::time::Duration::from_secs(seconds);
            all[at].seat.is_parked_if(move || Some(since));
        }
        // A newcomer, by turns from two hosts, takes from the host that has most, the longest parked first.
        let new = take(7, 20).unwrap();
        assert!(is_gone(&all[2]) && !is_gone(&all[4]));
        let next = take(8, 21).unwrap();
        let _of_use_too = [new.seat.keep(), next.seat.keep()];
        assert!(is_gone(&all[1]) && !is_gone(&all[4]));
        // And nothing of those who hold as little as itself, or work.
        assert_eq!(take(7, 22).unwrap_err().scope, Scope::All);
        assert!(![0, 3, 4, 5, 6, 7, 8].iter().any(|at| is_gone(&all[*at])));
    }

    #[test]
    fn who_is_known_by_name_yields_to_such_only_and_only_while_it_is_away() {
        let (seats, shares) = few();
        let now = Instant::now();
        let friend = |n| Holder {
            named: true,
            ..stranger(1, n)
        };
        let take = |holder| seats.take(&shares, holder);
        let strangers: Vec<_> = (1..=9).map(|n| take(stranger(n, n)).unwrap()).collect();
        let _of_use: Vec<_> = strangers.iter().map(|it| it.seat.keep()).collect();
        let friends: Vec<_> = (60..63).map(|n| take(friend(n)).unwrap()).collect();
        assert_eq!(take(friend(63)).unwrap_err().scope, Scope::All);
        for (it, seconds) in friends.iter().zip([5, 3]) {
            let since = now + std::time::Duration::from_secs(seconds);
            it.seat.is_parked_if(move || Some(since));
        }
        // A stranger takes nothing from them, and would gain nothing by it.
        assert_eq!(take(stranger(50, 50)).unwrap_err().scope, Scope::All);
        assert!(!friends.iter().any(is_gone));
        // A stranger that is away goes before any of them.
        strangers[3].seat.is_parked_if(move || Some(now));
        let _first = take(friend(63)).unwrap();
        assert!(is_gone(&strangers[3]) && !friends.iter().any(is_gone));
        let _second = take(friend(64)).unwrap();
        assert!(is_gone(&friends[1]) && !is_gone(&friends[0]));
    }

    #[test]
    fn what_a_peer_is_short_of_its_parked_session_gives_up() {
        let (seats, shares) = few();
        shares.relieved_by(seats.relief());
        let held = seats.take(&shares, stranger(1, 1)).unwrap();
        held.seat.is_parked_if(|| Some(Instant::now()));
        let children = |n| shares.take(stranger(1, 1), &[(Resource::Children, n)]);
        let _few = children(32).unwrap();
        assert!(!is_gone(&held));
        assert_eq!(children(1).unwrap_err().scope, Scope::Peer);
        assert!(is_gone(&held), "there is room for the next try, soon");
    }

    #[test]
    fn a_newcomer_gets_what_is_of_no_use_of_the_host_that_has_most() {
        let (seats, shares) = few();
        let take = |host, n| seats.take(&shares, stranger(host, n));
        let all = [1, 2, 2, 2, 2, 3, 3, 3, 4];
        let all: Vec<_> = (1..)
            .zip(all)
            .map(|(n, host)| take(host, n).unwrap())
            .collect();
        let used = all.first_chunk::<2>().unwrap()[1].seat.keep();
        let gone = |host, n| {
            let new = take(host, n)?;
            let at = all.iter().map(is_gone).collect::<Vec<_>>();
            Ok::<_, Exceeded>((new, at.iter().filter(|it| **it).count(), at))
        };
        // The oldest of the host with four that is of no use.
        let (first, n, at) = gone(5, 20).unwrap();
        assert_eq!((n, at[2]), (1, true));
        // Then there are two with three; the next newcomer's host has one by now.
        let (second, n, at) = gone(6, 21).unwrap();
        assert_eq!((n, at[3]), (2, true));
        drop(used);
        let (third, n, at) = gone(5, 22).unwrap();
        assert_eq!((n, at[5]), (3, true));
        // What is held is what was held before: who left counts no more.
        assert_eq!(shares.held(Resource::Sessions, None), 9);
        drop((first, second, third, all));
        let state = seats.state();
        assert_eq!((state.taken.len(), state.leaving), (0, 0));
        assert_eq!(shares.held(Resource::Sessions, None), 0);
    }

    #[test]
    fn what_works_goes_on_and_nobody_takes_a_second_one_from_another() {
        let (seats, shares) = few();
        let take = |host, n| seats.take(&shares, stranger(host, n));
        let all: Vec<_> = (1..=9).map(|n| take(n, n).unwrap()).collect();
        // Each host has one: a second one is its own, and the same key gets none.
        let again = take(1, 20).unwrap();
        assert!(is_gone(&all[0]) && !all[1..].iter().any(is_gone));
        assert_eq!(take(1, 20).unwrap_err().scope, Scope::All);
        let used: Vec<_> = all
            .iter()
            .chain([&again])
            .map(|it| it.seat.keep())
            .collect();
        assert_eq!(take(50, 50).unwrap_err().scope, Scope::All);
        // Who is known by name has the rest, and no stranger gets that.
        let friend = |n| Holder {
            named: true,
            ..stranger(1, n)
        };
        let _friends: Vec<_> = (60..63)
            .map(|n| seats.take(&shares, friend(n)).unwrap())
            .collect();
        drop(used);
        seats.take(&shares, friend(63)).map(drop).unwrap();
    }

    #[test]
    fn a_host_that_has_its_limit_gives_of_its_own() {
        let (seats, shares) = few();
        let take = |n| seats.take(&shares, stranger(1, n));
        let all: Vec<_> = (1..=4).map(|n| take(n).unwrap()).collect();
        let _used = all[0].seat.keep();
        let fifth = take(5).unwrap();
        assert!(is_gone(&all[1]) && !is_gone(&all[0]));
        let _used: Vec<_> = all
            .iter()
            .chain([&fifth])
            .map(|it| it.seat.keep())
            .collect();
        assert_eq!(take(6).unwrap_err().scope, Scope::Host);
    }

    #[test]
    fn no_more_than_so_many_take_leave_at_once() {
        let (seats, shares) = few();
        let all: Vec<_> = (0..100)
            .map(|n| seats.take(&shares, stranger(1, n)).unwrap())
            .collect();
        let cut = all.iter().filter(|it| it.seat.at_once.is_cancelled());
        assert_eq!(
            (all.iter().filter(|it| is_gone(it)).count(), cut.count()),
            (96, 64)
        );
        drop(all);
        assert_eq!(seats.state().leaving, 0);
    }
}
