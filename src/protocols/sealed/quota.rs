//! How much a carrier carries, and for whom; a recipient counts those who bring by the same rules. No IO; the time is an argument, counted
//! from any beginning.
//!
//! How many requests there are at once is shared by `../pool.rs`; how many one peer brings in a minute, by all its keys, is counted here.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::identity::PeerId;
use crate::node::Access;
use crate::protocols::pool::Rules;

/// What a carrier does, and for whom: others are refused. Start from [`CarrierConfig::new`].
#[derive(Clone)]
#[non_exhaustive]
pub struct CarrierConfig {
    /// Who may send through it. Who is sent to is asked whether it wants that.
    pub access: Access,
    /// Requests that are on their way at once; default 64, a quarter of them for senders that are known by name, and of the others at
    /// most half for those of one host. Each takes up to 105 kB, itself and its answer.
    pub at_once: usize,
    /// Those of one sender, whatever its keys were; default 4, as circuits of a relay.
    pub at_once_a_peer: usize,
    /// Requests of one sender in a minute, a tenth of them in one go; default 600. Each costs its recipient
    /// some tenths of a millisecond before it knows who has sent it.
    pub a_minute: u32,
    /// Time for a recipient to answer; default 60 s.
    pub patience: Duration,
}

setters!(CarrierConfig {
    with_access => access: Access,
    with_at_once => at_once: usize,
    with_at_once_a_peer => at_once_a_peer: usize,
    with_a_minute => a_minute: u32,
    with_patience => patience: Duration,
});

impl CarrierConfig {
    /// The defaults, for these peers.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self {
            access,
            at_once: 64,
            at_once_a_peer: 4,
            a_minute: 600,
            patience: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for CarrierConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarrierConfig")
            .field("at_once", &self.at_once)
            .field("at_once_a_peer", &self.at_once_a_peer)
            .field("a_minute", &self.a_minute)
            .finish_non_exhaustive()
    }
}

/// Counters and a gauge of a carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CarrierStats {
    /// Requests on their way now.
    pub now: usize,
    /// Requests that were answered, and keys that were fetched.
    pub carried: u64,
    /// Those that were not.
    pub refused: u64,
}

/// Entries beyond which those are dropped that say nothing any more.
const MANY: usize = 256;

/// While places are short, one on which its peer lets us wait for so long goes to a peer that has none.
const SILENT: Duration = Duration::from_secs(10);

/// How requests at once are shared. What somebody here works on is over by itself, in time.
pub(super) fn rules(at_once: usize, at_once_a_peer: usize) -> Rules {
    Rules {
        all: at_once,
        peer: at_once_a_peer,
        host: at_once.div_ceil(2),
        silent: SILENT,
        min_life: Duration::MAX,
        takes_last: false,
    }
}

/// A rate for each peer (GCRA).
#[derive(Debug)]
pub(super) struct Rate {
    every: Duration,
    burst: Duration,
    /// When the peer of an id, present or former, will have made up for what it has sent: the theoretical arrival time.
    even: HashMap<PeerId, Duration>,
}

impl Rate {
    pub(super) fn new(a_minute: u32) -> Self {
        let a_minute = a_minute.max(1);
        let every = Duration::from_secs(60) / a_minute;
        Self {
            every,
            burst: every * (a_minute / 10).max(1),
            even: HashMap::new(),
        }
    }

    /// One more request of the peer that has these ids; whether it may.
    pub(super) fn take(&mut self, ids: &[PeerId], now: Duration) -> bool {
        if self.even.len() >= MANY {
            self.even.retain(|_, even| *even > now);
        }
        let known = ids.iter().filter_map(|id| self.even.get(id)).max();
        let even = known.copied().unwrap_or_default().max(now) + self.every;
        let may = even <= now + self.burst;
        if may {
            self.even.extend(ids.iter().map(|id| (*id, even)));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId::from_bytes([1; 32]);
    const B: PeerId = PeerId::from_bytes([2; 32]);
    const C: PeerId = PeerId::from_bytes([3; 32]);

    #[test]
    fn a_rate_holds_over_time() {
        let mut rate = Rate::new(60);
        let mut sent = |second: u64| {
            let mut sent = 0;
            while rate.take(&[A], Duration::from_secs(second)) {
                sent += 1;
            }
            sent
        };
        assert_eq!(sent(0), 6, "a tenth in one go");
        assert_eq!(sent(0), 0);
        assert_eq!((1..=60).map(&mut sent).sum::<u32>(), 60);
        assert_eq!(sent(600), 6, "what was not used is not saved up");
    }

    #[test]
    fn a_change_of_keys_is_no_way_to_more() {
        let mut rate = Rate::new(60);
        let mut as_many = |ids: &[PeerId]| {
            (0..20)
                .take_while(|_| rate.take(ids, Duration::ZERO))
                .count()
        };
        assert_eq!(as_many(&[B, A]), 6);
        assert_eq!(as_many(&[A]) + as_many(&[C, A]) + as_many(&[B]), 0);
        assert_eq!(as_many(&[C]), 6, "somebody else");
    }

    #[test]
    fn peers_that_are_even_are_forgotten() {
        let mut rate = Rate::new(600);
        for number in 0..2 * MANY {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let id = PeerId::from_bytes(id);
            assert!(rate.take(&[id], Duration::from_secs(number as u64)));
        }
        assert!(rate.even.len() <= MANY);
    }
}
