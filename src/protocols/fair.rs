//! Dividing a bounded memory among those who fill it, so that nobody is refused for what others do. No IO, no clock.
//!
//! Each place that is taken is charged along a path: to an account, to one below it, and so on. So what somebody does with
//! what was given to him is charged to him, below whoever gave it. Four rules decide whether there is a place:
//!
//! 1. An account never holds more than its limit: `one` at the beginning of a path, and a quarter of the limit above it further on.
//! 2. An account never holds more than a third of what would still be free above it, so one alone reaches a quarter, and
//!    however many are greedy, whoever comes next finds room (the dynamic threshold of Choudhury and Hahne, 1998, as in
//!    `node/shares.rs`).
//! 3. Its first place an account always gets, as long as there is one; below another account, as long as an eighth is free.
//! 4. Strangers have a quarter, those who are named a half, the owner a quarter, each a part of its own: no number of keys that
//!    somebody makes takes what is for those who are known. The owner's account goes by neither 1 nor 2 in its part.

use std::collections::HashMap;
use std::hash::Hash;

use crate::identity::{Lineage, PeerId};
use crate::node::Access;

/// In whose name a place is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Whoever may.
    Stranger,
    /// Somebody who is allowed by name.
    Named,
    /// The node itself.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code))]
    Owner,
}

/// In whose name a place is taken, and whose account it is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payer {
    pub(super) rank: Rank,
    pub(super) account: PeerId,
}

impl Payer {
    /// Who is allowed by its present key or by one that it held before, which is the one that pays then: all heirs of a key have
    /// the share of that one together.
    pub(super) fn among(access: &Access, who: &Lineage) -> Option<Self> {
        let id = who.id();
        let (rank, account) = match access {
            Access::Nobody => return None,
            Access::Anyone => (Rank::Stranger, id),
            Access::Peers(peers) if peers.contains(&id) => (Rank::Named, id),
            Access::Peers(peers) => {
                let mut former = who.former().iter();
                (Rank::Named, *former.find(|id| peers.contains(*id))?)
            }
        };
        Some(Self { rank, account })
    }
}

/// A pool of places. See the head of this file.
#[derive(Debug)]
pub(super) struct Pool<K> {
    one: usize,
    strangers: Part<K>,
    named: Part<K>,
    owner: Part<K>,
}

#[derive(Debug)]
struct Part<K> {
    limit: usize,
    held: usize,
    accounts: HashMap<K, usize>,
}

impl<K: Copy + Eq + Hash> Pool<K> {
    /// So many places, and so many for one account at the beginning of a path.
    pub(super) fn new(limit: usize, one: usize) -> Self {
        Self {
            one,
            strangers: Part::new(limit / 4),
            named: Part::new(limit / 2),
            owner: Part::new(limit / 4),
        }
    }

    fn part(&mut self, rank: Rank) -> &mut Part<K> {
        match rank {
            Rank::Stranger => &mut self.strangers,
            Rank::Named => &mut self.named,
            Rank::Owner => &mut self.owner,
        }
    }

    /// Takes a place, if there is one; the path has at least one account.
    pub(super) fn take(&mut self, rank: Rank, path: &[K]) -> bool {
        let (one, is_own) = (self.one, rank == Rank::Owner);
        let part = self.part(rank);
        let has_room = part.has_room(path, one, is_own);
        if has_room {
            part.held += 1;
            for account in path {
                *part.accounts.entry(*account).or_default() += 1;
            }
        }
        has_room
    }

    /// Gives a place back that was taken with these.
    pub(super) fn give_back(&mut self, rank: Rank, path: &[K]) {
        let part = self.part(rank);
        debug_assert!(part.held > 0, "more was given back than taken");
        part.held = part.held.saturating_sub(1);
        for account in path {
            if let Some(held) = part.accounts.get_mut(account) {
                *held = held.saturating_sub(1);
                if *held == 0 {
                    part.accounts.remove(account);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.strangers.held + self.named.held + self.owner.held
    }
}

impl<K: Copy + Eq + Hash> Part<K> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            held: 0,
            accounts: HashMap::new(),
        }
    }

    fn has_room(&self, path: &[K], one: usize, is_own: bool) -> bool {
        let mut free = self.limit.saturating_sub(self.held);
        if free == 0 {
            return false;
        }
        let held = |account: &K| self.accounts.get(account).copied().unwrap_or(0);
        let is_first = path.last().is_some_and(|last| held(last) == 0);
        let is_first = is_first && (path.len() == 1 || free > self.limit / 8);
        let mut limit = if is_own { self.limit } else { one };
        for (depth, account) in path.iter().enumerate() {
            let held = held(account);
            let share = if is_own && depth == 0 {
                limit
            } else {
                limit.min(free.div_ceil(3))
            };
            if held >= limit || held >= share && !is_first {
                return false;
            }
            free = share.saturating_sub(held);
            limit = (limit.min(one) / 4).max(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 4096;
    const ONE: usize = 256;

    fn pool() -> Pool<u32> {
        Pool::new(LIMIT, ONE)
    }

    /// As many as it gets.
    fn greedy(pool: &mut Pool<u32>, rank: Rank, path: &[u32]) -> usize {
        (0..1_000_000).take_while(|_| pool.take(rank, path)).count()
    }

    #[test]
    fn one_has_its_limit_and_a_quarter_of_it_further_on() {
        let mut pool = pool();
        assert_eq!(greedy(&mut pool, Rank::Stranger, &[1]), ONE);
        assert_eq!(greedy(&mut pool, Rank::Named, &[2, 20]), ONE / 4);
        assert_eq!(greedy(&mut pool, Rank::Named, &[2, 20, 200]), 0);
        let last = greedy(&mut pool, Rank::Named, &[2, 21, 210]);
        assert!((ONE / 32..=ONE / 16).contains(&last), "{last}");
        for _ in 0..ONE {
            pool.give_back(Rank::Stranger, &[1]);
        }
        assert!(!pool.strangers.accounts.contains_key(&1));
        assert_eq!(greedy(&mut pool, Rank::Stranger, &[1]), ONE);
    }

    #[test]
    fn whoever_comes_next_finds_room_at_each_step() {
        let mut pool = pool();
        // Until none of them gets more.
        while (0..32)
            .map(|n| usize::from(pool.take(Rank::Stranger, &[n])))
            .sum::<usize>()
            > 0
        {}
        assert!(greedy(&mut pool, Rank::Stranger, &[100]) >= 8);
        while (0..16)
            .map(|n| usize::from(pool.take(Rank::Named, &[200, 300 + n])))
            .sum::<usize>()
            > 0
        {}
        assert!(greedy(&mut pool, Rank::Named, &[200, 400]) >= 8);
        assert!(greedy(&mut pool, Rank::Named, &[201]) >= 64);
    }

    #[test]
    fn no_number_of_keys_takes_what_is_for_those_who_are_known() {
        let mut pool = pool();
        let mut key = 0..;
        let mut fresh = || key.next().unwrap();
        while pool.take(Rank::Stranger, &[fresh()]) {}
        assert_eq!(pool.held(), LIMIT / 4);
        assert_eq!(greedy(&mut pool, Rank::Named, &[fresh()]), ONE);
        while pool.take(Rank::Named, &[fresh()]) {}
        assert_eq!(pool.held(), LIMIT - LIMIT / 4);
        assert_eq!(greedy(&mut pool, Rank::Owner, &[fresh()]), LIMIT / 4);
    }

    proptest! {
        /// What was taken and given back is as it was, and no limit is passed.
        #[test]
        fn the_books_balance(steps in prop::collection::vec((0..3_usize, 0..4_u32, 0..3_u32, any::<bool>()), 0..400)) {
            let mut pool = Pool::new(64, 16);
            let mut held: Vec<(Rank, Vec<u32>)> = Vec::new();
            for (rank, one, two, back) in steps {
                if back && !held.is_empty() {
                    let (rank, path) = held.swap_remove(held.len() / 2);
                    pool.give_back(rank, &path);
                    continue;
                }
                let rank = [Rank::Stranger, Rank::Named, Rank::Owner][rank];
                let path = if two == 0 { vec![one] } else { vec![one, 10 * one + 10 + two] };
                if pool.take(rank, &path) {
                    held.push((rank, path));
                }
                prop_assert_eq!(pool.held(), held.len());
                prop_assert!(held.len() <= 64);
                let strangers = held.iter().filter(|(s, _)| *s == Rank::Stranger).count();
                prop_assert!(strangers <= 16);
            }
            for (rank, path) in held {
                pool.give_back(rank, &path);
            }
            prop_assert!(pool.named.accounts.is_empty());
            prop_assert_eq!(pool.held(), 0);
        }
    }
}
