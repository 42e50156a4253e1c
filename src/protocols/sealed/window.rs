//! Which requests a recipient has let in, so that each is let in once. No IO; the time is an argument.
//!
//! A request is remembered from when it is let in until it expires, and then refused for that. To forget one before
//! would be to let it in again, so where there is no more room, no more are let in.

use std::collections::HashMap;
use std::time::Duration;

use crate::identity::{PeerId, UnixTime};

use super::flaw::SealFlaw;

/// Most requests that are remembered, and most of one sender: at about 100 bytes each.
const MOST: usize = 65_536;
const MOST_OF_ONE: usize = 4096;

/// How far a sender's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(60);

type Id = [u8; 16];

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Window {
    seen: HashMap<PeerId, HashMap<Id, UnixTime>>,
    all: usize,
}

impl Window {
    /// Lets a request in, or says why not.
    pub(super) fn admit(
        &mut self,
        sender: PeerId,
        id: Id,
        issued: UnixTime,
        expires: UnixTime,
        now: UnixTime,
    ) -> Result<(), SealFlaw> {
        if now > expires {
            return Err(SealFlaw::Expired);
        }
        if issued.as_secs() > now.as_secs().saturating_add(SKEW.as_secs()) {
            return Err(SealFlaw::NotYet);
        }
        let of_one = |window: &Self| window.seen.get(&sender).map_or(0, HashMap::len);
        let ids = self.seen.get(&sender);
        if ids.is_some_and(|ids| ids.contains_key(&id)) {
            return Err(SealFlaw::Replayed);
        }
        let full = |window: &Self| window.all >= MOST || of_one(window) >= MOST_OF_ONE;
        if full(self) {
            self.forget(now);
        }
        if full(self) {
            return Err(SealFlaw::Full);
        }
        self.seen.entry(sender).or_default().insert(id, expires);
        self.all += 1;
        Ok(())
    }

    fn forget(&mut self, now: UnixTime) {
        self.seen.retain(|_, ids| {
            ids.retain(|_, expires| *expires >= now);
            !ids.is_empty()
        });
        self.all = self.seen.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn id(number: usize) -> Id {
        u128::try_from(number).unwrap().to_be_bytes()
    }

    const A: PeerId = PeerId::from_bytes([1; 32]);
    const B: PeerId = PeerId::from_bytes([2; 32]);

    #[test]
    fn each_is_let_in_once_and_in_time() {
        let mut window = Window::default();
        let mut admit =
            |from, number, now| window.admit(from, id(number), at(100), at(200), at(now));
        assert_eq!(admit(A, 1, 39), Err(SealFlaw::NotYet));
        assert_eq!(admit(A, 1, 40), Ok(()));
        assert_eq!(admit(A, 1, 200), Err(SealFlaw::Replayed));
        assert_eq!(admit(B, 1, 200), Ok(()), "ids are each sender's own");
        assert_eq!(admit(A, 1, 201), Err(SealFlaw::Expired));
        assert_eq!(admit(A, 2, 201), Err(SealFlaw::Expired));
    }

    #[test]
    fn one_sender_cannot_fill_it_and_none_is_forgotten_early() {
        let mut window = Window::default();
        for number in 0..MOST_OF_ONE {
            window.admit(A, id(number), at(0), at(100), at(0)).unwrap();
        }
        let full = window.admit(A, id(MOST_OF_ONE), at(0), at(300), at(100));
        assert_eq!(full, Err(SealFlaw::Full));
        assert_eq!(
            window.admit(A, id(0), at(0), at(100), at(100)),
            Err(SealFlaw::Replayed)
        );
        window.admit(B, id(0), at(0), at(300), at(100)).unwrap();
        window
            .admit(A, id(MOST_OF_ONE), at(0), at(300), at(101))
            .unwrap();
        assert_eq!(window.all, 2);
    }

    #[test]
    fn all_together_have_a_bound() {
        let mut window = Window::default();
        for sender in 0..MOST / MOST_OF_ONE {
            let sender = PeerId::from_bytes([u8::try_from(sender).unwrap(); 32]);
            for number in 0..MOST_OF_ONE {
                window
                    .admit(sender, id(number), at(0), at(100), at(0))
                    .unwrap();
            }
        }
        let other = PeerId::from_bytes([99; 32]);
        assert_eq!(
            window.admit(other, id(0), at(0), at(100), at(0)),
            Err(SealFlaw::Full)
        );
    }
}
