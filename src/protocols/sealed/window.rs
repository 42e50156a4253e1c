//! Which requests a recipient has let in, so that each is let in once. No IO; the time is an argument.
//!
//! A request is remembered from when it is let in until it expires, and then refused for that. To forget one before
//! would be to let it in again, so where there is no more room, no more are let in. How the room is divided is said in
//! `../fair.rs`: a sender is not refused for what others send.
//!
//! The clock may be set back behind the expiry of what was forgotten for that: so what expires before the latest time at which
//! something was forgotten is refused, whatever the clock shows. What was let in by an earlier process nobody opens
//! any more, since its keys are gone with it.

use std::collections::HashMap;
use std::time::Duration;

use crate::identity::{PeerId, UnixTime};
use crate::protocols::fair::{Payer, Pool};

use super::flaw::SealFlaw;

/// Requests that are remembered, and those of one sender: at about 100 bytes each.
const MOST: usize = 65_536;
const MOST_OF_ONE: usize = 4096;

/// How far a sender's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(60);

type Id = [u8; 16];

#[derive(Debug)]
struct Seen {
    expires: UnixTime,
    payer: Payer,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Window {
    seen: HashMap<PeerId, HashMap<Id, Seen>>,
    pool: Pool<PeerId>,
    /// Nothing that expires before may be let in: it may have been forgotten.
    forgotten: UnixTime,
}

impl Default for Window {
    fn default() -> Self {
        Self::with_limits(MOST, MOST_OF_ONE)
    }
}

impl Window {
    fn with_limits(all: usize, one: usize) -> Self {
        Self {
            seen: HashMap::new(),
            pool: Pool::new(all, one),
            forgotten: UnixTime::since_unix_epoch(Duration::ZERO),
        }
    }

    /// Lets a request in, or says why not.
    pub(super) fn admit(
        &mut self,
        (sender, payer): (PeerId, Payer),
        id: Id,
        issued: UnixTime,
        expires: UnixTime,
        now: UnixTime,
    ) -> Result<(), SealFlaw> {
        if now > expires || expires < self.forgotten {
            return Err(SealFlaw::Expired);
        }
        if issued.as_secs() > now.as_secs().saturating_add(SKEW.as_secs()) {
            return Err(SealFlaw::NotYet);
        }
        let ids = self.seen.get(&sender);
        if ids.is_some_and(|ids| ids.contains_key(&id)) {
            return Err(SealFlaw::Replayed);
        }
        if !self.pool.take(payer.rank, &[payer.account]) {
            self.forget(now);
            if !self.pool.take(payer.rank, &[payer.account]) {
                return Err(SealFlaw::Full);
            }
        }
        let seen = Seen { expires, payer };
        self.seen.entry(sender).or_default().insert(id, seen);
        Ok(())
    }

    /// Once a second at most, since it looks at all of them.
    fn forget(&mut self, now: UnixTime) {
        if self.forgotten >= now {
            return;
        }
        self.forgotten = now;
        let pool = &mut self.pool;
        self.seen.retain(|_, ids| {
            ids.retain(|_, seen| {
                let keep = seen.expires >= now;
                if !keep {
                    pool.give_back(seen.payer.rank, &[seen.payer.account]);
                }
                keep
            });
            !ids.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::fair::Rank;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn id(number: usize) -> Id {
        u128::try_from(number).unwrap().to_be_bytes()
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn sender(number: u8, rank: Rank) -> (PeerId, Payer) {
        let account = peer(number);
        (account, Payer { rank, account })
    }

    fn stranger(number: u8) -> (PeerId, Payer) {
        sender(number, Rank::Stranger)
    }

    fn named(number: u8) -> (PeerId, Payer) {
        sender(number, Rank::Named)
    }

    /// As many as it gets, good until 100.
    fn greedy(window: &mut Window, sender: (PeerId, Payer), now: u64) -> usize {
        let one = |n: &usize| {
            window
                .admit(sender, id(*n), at(0), at(100), at(now))
                .is_ok()
        };
        (0..1_000_000).take_while(one).count()
    }

    #[test]
    fn each_is_let_in_once_and_in_time() {
        let mut window = Window::default();
        let mut admit =
            |from, number, now| window.admit(stranger(from), id(number), at(100), at(200), at(now));
        assert_eq!(admit(1, 1, 39), Err(SealFlaw::NotYet));
        assert_eq!(admit(1, 1, 40), Ok(()));
        assert_eq!(admit(1, 1, 200), Err(SealFlaw::Replayed));
        assert_eq!(admit(2, 1, 200), Ok(()), "ids are each sender's own");
        assert_eq!(admit(1, 1, 201), Err(SealFlaw::Expired));
        assert_eq!(admit(1, 2, 201), Err(SealFlaw::Expired));
    }

    #[test]
    fn one_sender_cannot_fill_it_and_none_is_forgotten_early() {
        let mut window = Window::default();
        assert_eq!(greedy(&mut window, stranger(1), 0), MOST_OF_ONE);
        let mut admit = |from, number, expires, now| {
            window.admit(stranger(from), id(number), at(0), at(expires), at(now))
        };
        assert_eq!(admit(1, MOST_OF_ONE, 300, 100), Err(SealFlaw::Full));
        assert_eq!(admit(1, 0, 100, 100), Err(SealFlaw::Replayed));
        assert_eq!(admit(2, 0, 300, 100), Ok(()));
        assert_eq!(admit(1, MOST_OF_ONE, 300, 101), Ok(()));
        assert_eq!(window.pool.held(), 2);
    }

    #[test]
    fn the_heirs_of_one_key_have_its_share_together() {
        let mut window = Window::with_limits(4096, 256);
        let let_in: usize = (1..20)
            .map(|n| greedy(&mut window, (peer(n), named(0).1), 0))
            .sum();
        assert_eq!(let_in, 256);
        assert_eq!(greedy(&mut window, named(0), 0), 0);
        assert_eq!(greedy(&mut window, named(100), 0), 256);
    }

    /// However many fill it, whoever comes next is let in, and more so who is named.
    #[test]
    fn no_sender_is_refused_for_what_others_send() {
        let mut window = Window::with_limits(4096, 256);
        for n in 0..16 {
            assert!(greedy(&mut window, stranger(n), 0) > 0);
        }
        for round in 0..20 {
            for n in 0..16 {
                let _ = window.admit(stranger(n), id(10_000 + round), at(0), at(100), at(0));
            }
        }
        assert!(greedy(&mut window, stranger(100), 0) >= 2);
        assert_eq!(greedy(&mut window, named(101), 0), 256);
        // An end there is all the same.
        for n in 0..=255 {
            greedy(&mut window, stranger(n), 0);
            greedy(&mut window, named(n), 0);
        }
        assert!(window.pool.held() <= 4096);
    }

    #[test]
    fn a_clock_that_is_set_back_brings_nothing_back() {
        let mut window = Window::with_limits(64, 4);
        let mut admit =
            |number, expires, now| window.admit(named(1), id(number), at(0), at(expires), at(now));
        assert_eq!(admit(1, 100, 50), Ok(()));
        // The clock jumps ahead; there is need for room, and the first is forgotten.
        for number in 2..6 {
            assert_eq!(admit(number, 300, 200), Ok(()), "{number}");
        }
        assert_eq!(admit(1, 100, 50), Err(SealFlaw::Expired));
        assert_eq!(admit(2, 300, 50), Err(SealFlaw::Replayed));
        assert_eq!(
            admit(7, 199, 50),
            Err(SealFlaw::Expired),
            "it may have been"
        );
        assert_eq!(
            window.admit(named(2), id(7), at(0), at(200), at(50)),
            Ok(())
        );
    }
}
