//! A bounded number of things, given out fairly: the registrations and circuits of a relay, what is forwarded, the sealed messages
//! that are carried or taken. No IO, no clock: time is an argument, counted from when the pool was made.
//!
//! 1. A peer holds no more than its limit (`peer`), and all strangers of one host together no more than `host`; there, rule 4 is for
//!    that host alone. A peer is whatever it proves to have been: with its former selves, and with every other successor of a key of its own, it
//!    shares one limit, or a change of keys would be a way to more.
//! 2. Whoever holds something holds no more than a third of what is still free, so that some stays free for the next
//!    (as `node/shares.rs` has it). The first one is given as long as there is any.
//! 3. A quarter is for peers that are known by name; strangers can't take it, however many keys they make.
//! 4. When nothing is free, a peer that holds none gets what is taken back from another one: of a stranger for one that is
//!    known by name; and among equals what has been of no use for long (`silent`), or what is of a certain age (`min_life`), of
//!    whoever holds most. So nobody who holds something keeps out who has nothing. Of registrations nobody loses the last
//!    one to an equal: it stands for being reachable, and for hours.
//! 5. Keys cost nothing and hosts little, so among strangers hosts are equals as well: one whose host holds less than another gets
//!    what was of no use for a third of that time, and a twelfth where the other host holds several. A host that holds more
//!    than two of what nobody loses otherwise gives of those to a host that would still hold less.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::gate::Source;
use crate::identity::PeerId;
use crate::node::CallContext;
use crate::tls::Peer;
#[cfg(any(test, feature = "mesh", feature = "sealed"))]
use crate::wire::Status;

/// Of this much what is free, one peer that has some already gets one part at most.
const PART: usize = 3;

/// One of so many parts of a pool is for peers that are known by name.
const RESERVED: usize = 4;

/// Of the time after which a thing is taken for of no use, this part is enough between strangers of different hosts.
const OF_OTHER_HOST: u32 = 3;

/// The same where a host holds several.
const OF_SEVERAL: u32 = 12;

/// So many stay to a host of those that no peer loses the last of.
const LEFT_TO_HOST: usize = 2;

/// The rules of one pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) all: usize,
    pub(super) peer: usize,
    /// Of strangers from one host.
    pub(super) host: usize,
    /// What was of no use for so long is taken back first.
    pub(super) silent: Duration,
    /// What is younger is not taken back by an equal.
    pub(super) min_life: Duration,
    /// Whether a peer may lose its last one to an equal.
    pub(super) takes_last: bool,
}

/// Where a session comes from, as far as it helps to tell strangers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Host(Source),
    /// Through another relay.
    Relay(PeerId),
    /// Whatever host another relay of the same fleet tells from others by this.
    #[cfg(feature = "mesh")]
    Told([u8; 16]),
}

/// By whom tries are counted: keys cost nothing, so strangers are counted by where they come from.
#[cfg(feature = "mesh")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Place(Place),
    Peer(PeerId),
}

#[cfg(feature = "mesh")]
impl Who {
    pub(super) fn of(holder: &Holder) -> Self {
        match holder.place {
            Some(place) if !holder.named => Self::Place(place),
            _ => Self::Peer(holder.id),
        }
    }
}

/// Who holds something.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) id: PeerId,
    /// Of keys that it held before, each verified.
    pub(super) former: Vec<PeerId>,
    pub(super) place: Option<Place>,
    /// Known by name, and no stranger.
    pub(super) named: bool,
}

impl Holder {
    /// Who asks in a call. It is known by name if the trust policy or what it may open says so: [`CallContext::is_named`].
    pub(super) fn of(peer: &Peer, context: &CallContext) -> Self {
        let place = match context.path().via.first() {
            Some(relay) => Some(Place::Relay(*relay)),
            None => context.source().map(Place::Host),
        };
        Self {
            id: peer.id(),
            former: peer.former_ids().to_vec(),
            place,
            named: context.is_named(),
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PeerId> + '_ {
        std::iter::once(self.id).chain(self.former.iter().copied())
    }

    /// Where it is counted by.
    fn counted_at(&self) -> Option<Place> {
        self.place.filter(|_| !self.named)
    }
}

/// What is held.
pub(super) trait Held: Clone {
    /// When it was last of use; now, if it always is.
    fn used(&self, now: Duration) -> Duration;

    /// Whether it can't be taken back now, since what it stands for would go on.
    fn is_fixed(&self) -> bool {
        false
    }
}

/// Why nothing is given. The limit is told to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The peer has as much as one peer may have.
    Peer(usize),
    /// As much as one host may have is held from where it comes from.
    Host(usize),
    /// What is free is for peers that have less.
    Scarce,
    /// Nothing is free, and nothing can be taken back.
    Full,
}

impl Denied {
    #[cfg(any(test, feature = "mesh", feature = "sealed"))]
    pub(super) fn status(self) -> Status {
        match self {
            Self::Peer(_) | Self::Host(_) => Status::Quota,
            Self::Scarce | Self::Full => Status::Full,
        }
    }

    #[cfg(feature = "mesh")]
    pub(super) fn reason(self) -> String {
        match self {
            Self::Peer(limit) => format!("at most {limit} of one peer, whatever its keys were"),
            Self::Host(limit) => format!("at most {limit} from one host"),
            Self::Scarce => "little is left, and it is for peers that have none".into(),
            Self::Full => String::new(),
        }
    }
}

/// The registered peer of an id.
#[cfg(any(test, feature = "mesh"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    Nobody,
    /// What it holds, the newest first.
    Peer(Vec<T>),
    /// Several claim to be its successors: one of them is a thief, and it can't be known here which.
    Contested,
}

#[derive(Debug)]
struct Entry<T> {
    holder: Holder,
    since: Duration,
    item: T,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Pool<T> {
    rules: Rules,
    /// By number, so the oldest first.
    entries: BTreeMap<u64, Entry<T>>,
    /// What each id has a part in, present ids and former ones.
    by_id: HashMap<PeerId, Vec<u64>>,
    strangers: usize,
    places: HashMap<Place, usize>,
    next: u64,
}

impl<T: Held> Pool<T> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: BTreeMap::new(),
            by_id: HashMap::new(),
            strangers: 0,
            places: HashMap::new(),
            next: 0,
        }
    }

    /// One more for this holder; its number, and what was taken back for it. `make` makes it, and sees one that the
    /// same peer holds already.
    pub(super) fn take(
        &mut self,
        holder: Holder,
        now: Duration,
        make: impl FnOnce(Option<&T>) -> T,
    ) -> Result<(u64, Option<T>), Denied> {
        let own = self.of_kin(&holder);
        let taken_back = match self.check(&holder, own.len(), now)? {
            Some(number) => self.give_back(number),
            None => None,
        };
        let sibling = own.first().and_then(|number| self.entries.get(number));
        let item = make(sibling.map(|entry| &entry.item));
        self.next += 1;
        for id in holder.ids() {
            self.by_id.entry(id).or_default().push(self.next);
        }
        self.strangers += usize::from(!holder.named);
        if let Some(place) = holder.counted_at() {
            *self.places.entry(place).or_default() += 1;
        }
        let since = now;
        self.entries.insert(
            self.next,
            Entry {
                holder,
                since,
                item,
            },
        );
        Ok((self.next, taken_back))
    }

    /// What has to be taken back for one more, if anything.
    fn check(&self, holder: &Holder, held: usize, now: Duration) -> Result<Option<u64>, Denied> {
        let rules = &self.rules;
        if held >= rules.peer {
            return Err(Denied::Peer(rules.peer));
        }
        let here = holder.counted_at().and_then(|at| self.places.get(&at));
        if here.is_some_and(|here| *here >= rules.host) {
            let own = if held == 0 {
                self.to_spare(holder, now, holder.place)
            } else {
                None
            };
            return own.map(Some).ok_or(Denied::Host(rules.host));
        }
        let free = rules.all.saturating_sub(self.entries.len());
        let free = if holder.named {
            free
        } else {
            let theirs = rules.all - rules.all / RESERVED;
            free.min(theirs.saturating_sub(self.strangers))
        };
        if held > 0 && held + 1 > free.div_ceil(PART) {
            return Err(Denied::Scarce);
        }
        if free > 0 {
            return Ok(None);
        }
        self.to_spare(holder, now, None)
            .map(Some)
            .ok_or(Denied::Full)
    }

    /// What is taken back first for a peer that has none; of one place alone, if that has its limit.
    fn to_spare(&self, newcomer: &Holder, now: Duration, of: Option<Place>) -> Option<u64> {
        let (rules, named) = (&self.rules, newcomer.named);
        let at = |place: Option<Place>| place.and_then(|at| self.places.get(&at)).copied();
        let theirs = at(newcomer.counted_at()).unwrap_or(0);
        let rank = |(number, entry): (&u64, &Entry<T>)| {
            let held = self.of_kin(&entry.holder).len();
            let unused = now.saturating_sub(entry.item.used(now));
            let here = at(entry.holder.counted_at());
            let more = newcomer.place.is_some() && here.is_some_and(|here| here > theirs);
            let enough = match here {
                Some(2..) if more && !named => rules.silent / OF_SEVERAL,
                Some(_) if more && !named => rules.silent / OF_OTHER_HOST,
                _ => rules.silent,
            };
            let silent = Some(unused).filter(|unused| *unused >= enough);
            let crowd = more && !rules.takes_last && here > Some(theirs + LEFT_TO_HOST);
            let age = now.saturating_sub(entry.since);
            let may = if entry.holder.named == named {
                let to_spare = held > 1 || rules.takes_last || crowd;
                silent.is_some() || (age >= rules.min_life && to_spare)
            } else {
                named
            };
            let rank = (!entry.holder.named, silent, held, here, Reverse(*number));
            let may = may && (of.is_none() || entry.holder.counted_at() == of);
            (may && !entry.item.is_fixed()).then_some((rank, *number))
        };
        let best = self.entries.iter().filter_map(rank).max();
        best.map(|(_, number)| number)
    }

    /// Takes one out, if it is there.
    pub(super) fn give_back(&mut self, number: u64) -> Option<T> {
        let entry = self.entries.remove(&number)?;
        for id in entry.holder.ids() {
            let Some(all) = self.by_id.get_mut(&id) else {
                continue;
            };
            all.retain(|known| *known != number);
            if all.is_empty() {
                self.by_id.remove(&id);
            }
        }
        self.strangers -= usize::from(!entry.holder.named);
        if let Some(place) = entry.holder.counted_at()
            && let Some(here) = self.places.get_mut(&place)
        {
            *here -= 1;
            if *here == 0 {
                self.places.remove(&place);
            }
        }
        Some(entry.item)
    }

    /// What the peer of an id holds: under its present id, else under one that it had before.
    #[cfg(any(test, feature = "mesh"))]
    pub(super) fn find(&self, id: PeerId) -> Found<T> {
        let all = self.by_id.get(&id).into_iter().flatten().rev();
        let all: Vec<_> = all.filter_map(|number| self.entries.get(number)).collect();
        let items = |all: &[&Entry<T>]| all.iter().map(|entry| entry.item.clone()).collect();
        let own: Vec<_> = all
            .iter()
            .copied()
            .filter(|it| it.holder.id == id)
            .collect();
        let Some(heir) = all.first().map(|entry| entry.holder.id) else {
            return Found::Nobody;
        };
        if !own.is_empty() {
            Found::Peer(items(&own))
        } else if all.iter().all(|entry| entry.holder.id == heir) {
            Found::Peer(items(&all))
        } else {
            Found::Contested
        }
    }

    /// How much is held under this id, present or former.
    #[cfg(feature = "mesh")]
    pub(super) fn count(&self, id: PeerId) -> usize {
        self.by_id.get(&id).map_or(0, Vec::len)
    }

    /// Whether anything is held under this id, present or former.
    #[cfg(any(test, feature = "mesh"))]
    pub(super) fn has(&self, id: PeerId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// What a peer holds under all of its ids, the oldest first.
    #[cfg(any(test, feature = "mesh"))]
    pub(super) fn held_by(&self, holder: &Holder) -> Vec<(u64, T)> {
        let all = self.of_kin(holder).into_iter();
        all.filter_map(|number| Some((number, self.entries.get(&number)?.item.clone())))
            .collect()
    }

    fn of_kin(&self, holder: &Holder) -> Vec<u64> {
        let of_one = |id| self.by_id.get(&id).into_iter().flatten().copied();
        let mut all: Vec<u64> = holder.ids().flat_map(of_one).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[cfg(any(test, feature = "mesh", feature = "sealed"))]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Peers by their present ids, and how much each holds.
    #[cfg(feature = "mesh")]
    pub(super) fn holders(&self) -> HashMap<PeerId, usize> {
        let mut all = HashMap::new();
        for entry in self.entries.values() {
            *all.entry(entry.holder.id).or_default() += 1;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    /// When it was last of use; always, if none.
    type Item = Option<Duration>;

    impl Held for Item {
        fn used(&self, now: Duration) -> Duration {
            self.unwrap_or(now)
        }
    }

    fn peer(n: u16) -> PeerId {
        let [a, b] = n.to_be_bytes();
        let mut bytes = [0; 32];
        (bytes[0], bytes[1]) = (a, b);
        PeerId::from_bytes(bytes)
    }

    fn stranger(n: u16) -> Holder {
        Holder {
            id: peer(n),
            former: Vec::new(),
            place: None,
            named: false,
        }
    }

    fn named(n: u16) -> Holder {
        Holder {
            named: true,
            ..stranger(n)
        }
    }

    fn from(place: u8, n: u16) -> Holder {
        let ip = std::net::IpAddr::from([192, 0, 2, place]);
        Holder {
            place: Some(Place::Host(Source::from(ip))),
            ..stranger(n)
        }
    }

    fn heir(n: u16, former: &[u16]) -> Holder {
        Holder {
            former: former.iter().map(|n| peer(*n)).collect(),
            ..stranger(n)
        }
    }

    /// As circuits have them by default.
    fn circuits() -> Pool<Item> {
        Pool::new(Rules {
            all: 16,
            peer: 4,
            host: 8,
            silent: MINUTE,
            min_life: 5 * MINUTE,
            takes_last: true,
        })
    }

    /// As registrations have them by default.
    fn registrations() -> Pool<Item> {
        Pool::new(Rules {
            all: 128,
            peer: 4,
            host: 32,
            silent: Duration::MAX,
            min_life: Duration::ZERO,
            takes_last: false,
        })
    }

    fn take(pool: &mut Pool<Item>, holder: Holder, now: Duration) -> Result<u64, Denied> {
        pool.take(holder, now, |_| None).map(|(number, _)| number)
    }

    /// As many as it gets.
    fn greedy(pool: &mut Pool<Item>, holder: &Holder, now: Duration) -> (usize, Denied) {
        let mut got = 0;
        loop {
            match take(pool, holder.clone(), now) {
                Ok(_) => got += 1,
                Err(denied) => return (got, denied),
            }
        }
    }

    #[test]
    fn four_greedy_peers_leave_some_for_the_fifth() {
        let mut pool = circuits();
        let got: Vec<_> = (0..4)
            .map(|n| greedy(&mut pool, &stranger(n), MINUTE).0)
            .collect();
        assert_eq!(got, [3, 3, 2, 1]);
        take(&mut pool, stranger(5), MINUTE).unwrap();
        // And one that is known by name gets what one may have.
        assert_eq!(greedy(&mut pool, &named(6), MINUTE), (2, Denied::Scarce));
        let mut pool = circuits();
        assert_eq!(greedy(&mut pool, &named(6), MINUTE), (4, Denied::Peer(4)));
    }

    #[test]
    fn a_pool_that_is_full_has_one_for_who_has_none_once_one_is_old_enough() {
        let mut pool = circuits();
        for n in 0..12 {
            take(&mut pool, stranger(n), n.into_duration()).unwrap();
        }
        let newcomer = stranger(100);
        assert_eq!(take(&mut pool, newcomer.clone(), MINUTE), Err(Denied::Full));
        // The oldest one, when it is of that age.
        let now = 5 * MINUTE;
        pool.take(newcomer, now, |_| None).unwrap();
        assert_eq!(pool.find(peer(0)), Found::Nobody);
        assert_eq!(pool.len(), 12);
        // Whoever has some gets no second one by that.
        assert_eq!(take(&mut pool, stranger(1), HOUR), Err(Denied::Scarce));
        // Neither does a stranger get one of those who are known by name.
        let mut pool = circuits();
        for n in 0..16 {
            take(&mut pool, named(n), Duration::ZERO).unwrap();
        }
        assert_eq!(take(&mut pool, stranger(100), HOUR), Err(Denied::Full));
        take(&mut pool, named(100), HOUR).unwrap();
    }

    #[test]
    fn what_is_of_no_use_goes_first_and_then_what_the_greediest_has() {
        let mut pool = circuits();
        // The first of them has two; the others one.
        for n in [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
            take(&mut pool, stranger(n), Duration::ZERO).unwrap();
        }
        let (silent, _) = pool
            .take(stranger(10), Duration::ZERO, |_| Some(Duration::ZERO))
            .unwrap();
        let taken = |pool: &mut Pool<Item>, n, now| {
            let before: Vec<u64> = pool.entries.keys().copied().collect();
            take(pool, stranger(n), now).unwrap();
            let mut gone = before.into_iter();
            gone.find(|number| !pool.entries.contains_key(number))
        };
        assert_eq!(taken(&mut pool, 20, 2 * MINUTE), Some(silent));
        assert_eq!(take(&mut pool, stranger(21), 2 * MINUTE), Err(Denied::Full));
        assert_eq!(taken(&mut pool, 21, 6 * MINUTE), Some(1), "of who has two");
        assert_eq!(taken(&mut pool, 22, 6 * MINUTE), Some(2), "then the oldest");
    }

    #[test]
    fn strangers_with_any_number_of_keys_do_not_keep_a_named_peer_out() {
        for mut pool in [circuits(), registrations()] {
            let all = pool.rules.all;
            let got = (0..1000)
                .filter(|n| take(&mut pool, stranger(*n), Duration::ZERO).is_ok())
                .count();
            assert_eq!(got, all - all / 4);
            // As many as there are, of those who are known by name, and then each other's.
            for n in 2000..2000 + u16::try_from(all).unwrap() {
                let one = take(&mut pool, named(n), Duration::ZERO);
                one.unwrap_or_else(|denied| panic!("{n}: {denied:?}"));
            }
            assert_eq!((pool.len(), pool.strangers), (all, 0));
        }
    }

    #[test]
    fn nobody_loses_its_only_registration_to_an_equal() {
        let mut pool = registrations();
        for n in 0..95 {
            take(&mut pool, stranger(n), Duration::ZERO).unwrap();
        }
        take(&mut pool, stranger(94), Duration::ZERO).unwrap_err();
        let mut pool = registrations();
        for n in 0..90 {
            take(&mut pool, stranger(n), Duration::ZERO).unwrap();
        }
        // One has two of them, and the newest stays.
        take(&mut pool, stranger(7), Duration::ZERO).unwrap();
        for n in 100..105 {
            take(&mut pool, stranger(n), Duration::ZERO).unwrap();
        }
        assert_eq!(pool.held_by(&stranger(7)).len(), 2);
        take(&mut pool, stranger(200), Duration::ZERO).unwrap();
        assert_eq!(pool.held_by(&stranger(7)), [(91, None)]);
        assert_eq!(take(&mut pool, stranger(201), HOUR), Err(Denied::Full));
    }

    #[test]
    fn one_host_has_a_limit_for_all_its_strangers() {
        let mut pool = circuits();
        let got = (0..100)
            .filter(|n| take(&mut pool, from(1, *n), Duration::ZERO).is_ok())
            .count();
        assert_eq!(got, 8);
        let denied = take(&mut pool, from(1, 200), MINUTE).unwrap_err();
        assert_eq!((denied, denied.status()), (Denied::Host(8), Status::Quota));
        take(&mut pool, from(2, 200), Duration::ZERO).unwrap();
        // What is old enough goes to another peer of the same host.
        take(&mut pool, from(1, 250), HOUR).unwrap();
        assert_eq!(pool.find(peer(0)), Found::Nobody);
        let friend = Holder {
            named: true,
            ..from(1, 201)
        };
        let friend = take(&mut pool, friend, Duration::ZERO).unwrap();
        pool.give_back(friend).unwrap();
        // Among equals the host that holds most gives first.
        for n in 300..303 {
            take(&mut pool, stranger(n), Duration::ZERO).unwrap();
        }
        take(&mut pool, stranger(303), HOUR).unwrap();
        assert_eq!(pool.find(peer(1)), Found::Nobody);
    }

    /// Fresh keys of many hosts, which hold all that strangers may have.
    #[test]
    fn a_newcomer_of_another_host_waits_for_seconds_where_nothing_moves() {
        let second = Duration::from_secs(1);
        let silent = |pool: &mut Pool<Item>, holder, now| {
            pool.take(holder, now, |_| Some(now))
                .map(|(number, _)| number)
        };
        // Several of a host: those go at once, nearly.
        let mut pool = circuits();
        for n in 0..12_u8 {
            silent(&mut pool, from(n / 2, n.into()), Duration::ZERO).unwrap();
        }
        assert_eq!(take(&mut pool, from(20, 50), 4 * second), Err(Denied::Full));
        take(&mut pool, from(20, 50), 5 * second).unwrap();
        assert_eq!(pool.find(peer(0)), Found::Nobody);
        // One of a host stays longer than a session in it is ever silent.
        let mut pool = circuits();
        for n in 0..12_u8 {
            silent(&mut pool, from(n, n.into()), Duration::ZERO).unwrap();
        }
        assert_eq!(
            take(&mut pool, from(20, 50), 19 * second),
            Err(Denied::Full)
        );
        assert_eq!(take(&mut pool, from(1, 50), 20 * second), Err(Denied::Full));
        take(&mut pool, from(20, 50), 20 * second).unwrap();
        // What works is no newcomer's before its time.
        let mut pool = circuits();
        for n in 0..12_u8 {
            take(&mut pool, from(n / 2, n.into()), Duration::ZERO).unwrap();
        }
        assert_eq!(take(&mut pool, from(20, 50), 4 * MINUTE), Err(Denied::Full));
    }

    #[test]
    fn a_few_hosts_with_many_keys_leave_registrations_to_others() {
        let mut pool = registrations();
        let got = (0..1000_u16)
            .filter(|n| take(&mut pool, from((n % 5) as u8, *n), Duration::ZERO).is_ok())
            .count();
        assert_eq!(got, 96, "all that strangers may have");
        for n in 0..30 {
            let newcomer = from(100 + n, 2000 + u16::from(n));
            take(&mut pool, newcomer, Duration::ZERO).unwrap_or_else(|e| panic!("{n}: {e:?}"));
        }
        // A host that has two keeps them.
        let mut pool = registrations();
        for n in 0..96_u8 {
            take(&mut pool, from(n / 2, n.into()), Duration::ZERO).unwrap();
        }
        assert_eq!(take(&mut pool, from(200, 500), HOUR), Err(Denied::Full));
    }

    #[test]
    fn a_change_of_keys_is_no_way_to_more() {
        let mut pool = registrations();
        let first = take(&mut pool, stranger(1), Duration::ZERO).unwrap();
        take(&mut pool, heir(2, &[1]), Duration::ZERO).unwrap();
        take(&mut pool, heir(3, &[1]), Duration::ZERO).unwrap();
        take(&mut pool, heir(4, &[1, 2]), Duration::ZERO).unwrap();
        for one_more in [
            stranger(1),
            heir(2, &[1]),
            heir(5, &[1]),
            heir(6, &[1, 2, 4]),
        ] {
            assert_eq!(
                take(&mut pool, one_more, Duration::ZERO),
                Err(Denied::Peer(4))
            );
        }
        take(&mut pool, stranger(7), Duration::ZERO).unwrap();
        pool.give_back(first).unwrap();
        let mut sibling = false;
        pool.take(heir(5, &[1]), Duration::ZERO, |it| {
            sibling = it.is_some();
            None
        })
        .unwrap();
        assert!(sibling, "it shares a rate with what its kin has");
    }

    #[test]
    fn a_peer_is_found_by_every_id_that_is_its_own() {
        let mut pool = registrations();
        let at = |now| Some(Duration::from_secs(now));
        let put = |pool: &mut Pool<Item>, holder, now| {
            pool.take(holder, Duration::ZERO, |_| at(now)).unwrap().0
        };
        assert_eq!(pool.find(peer(1)), Found::Nobody);
        put(&mut pool, heir(2, &[1]), 10);
        put(&mut pool, heir(2, &[1]), 11);
        for id in [1, 2] {
            assert_eq!(pool.find(peer(id)), Found::Peer(vec![at(11), at(10)]));
        }
        let thief = put(&mut pool, heir(3, &[1]), 20);
        assert_eq!(pool.find(peer(1)), Found::Contested);
        assert_eq!(pool.find(peer(3)), Found::Peer(vec![at(20)]));
        put(&mut pool, stranger(1), 30);
        assert_eq!(pool.find(peer(1)), Found::Peer(vec![at(30)]));
        pool.give_back(thief).unwrap();
        assert!(pool.has(peer(1)) && !pool.has(peer(3)));
    }

    #[test]
    fn nothing_is_kept_of_who_is_gone() {
        let mut pool = circuits();
        let holder = Holder {
            former: vec![peer(1)],
            ..from(1, 2)
        };
        let number = take(&mut pool, holder, Duration::ZERO).unwrap();
        assert!(pool.has(peer(1)) && pool.has(peer(2)));
        pool.give_back(number).unwrap();
        assert!(pool.give_back(number).is_none(), "once is enough");
        assert!(pool.entries.is_empty() && pool.by_id.is_empty() && pool.places.is_empty());
        assert_eq!((pool.len(), pool.strangers), (0, 0));
    }

    trait IntoDuration {
        fn into_duration(self) -> Duration;
    }

    impl IntoDuration for u16 {
        fn into_duration(self) -> Duration {
            Duration::from_secs(self.into())
        }
    }
}
