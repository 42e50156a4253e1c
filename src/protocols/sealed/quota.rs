//! How much a carrier carries, and for whom; a recipient counts those who bring by the same rules. No IO; the time is an argument, counted
//! from any beginning.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::identity::PeerId;
use crate::node::Access;
use crate::wire::Status;

/// What a carrier does, and for whom: others are refused. Start from [`CarrierConfig::new`].
#[derive(Clone)]
#[non_exhaustive]
pub struct CarrierConfig {
    /// Who may send through it. Who is sent to is asked whether it wants that.
    pub access: Access,
    /// Requests that are on their way at once; default 64. Each takes up to 105 kB, itself and its answer.
    pub at_once: usize,
    /// Those of one sender; default 4, as circuits of a relay.
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

#[derive(Debug, Default)]
struct Share {
    now: usize,
    /// When the peer will have made up for what it has sent (GCRA's theoretical arrival time).
    even: Duration,
}

/// Who has how much.
#[derive(Debug)]
pub(super) struct Quota {
    at_once: usize,
    at_once_a_peer: usize,
    every: Duration,
    burst: Duration,
    now: usize,
    shares: HashMap<PeerId, Share>,
}

impl Quota {
    pub(super) fn new(at_once: usize, at_once_a_peer: usize, a_minute: u32) -> Self {
        let a_minute = a_minute.max(1);
        let every = Duration::from_secs(60) / a_minute;
        Self {
            at_once,
            at_once_a_peer,
            every,
            burst: every * (a_minute / 10).max(1),
            now: 0,
            shares: HashMap::new(),
        }
    }

    /// One more request of a peer, or why not. [`leave`](Self::leave) ends it.
    pub(super) fn enter(&mut self, peer: PeerId, now: Duration) -> Result<(), Status> {
        if self.now >= self.at_once {
            return Err(Status::Full);
        }
        if self.shares.len() >= MANY {
            self.shares
                .retain(|_, share| share.now > 0 || share.even > now);
        }
        let share = self.shares.entry(peer).or_default();
        let even = share.even.max(now) + self.every;
        if share.now >= self.at_once_a_peer || even > now + self.burst {
            return Err(Status::Quota);
        }
        share.even = even;
        share.now += 1;
        self.now += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self, peer: PeerId) {
        if let Some(share) = self.shares.get_mut(&peer) {
            share.now = share.now.saturating_sub(1);
            self.now = self.now.saturating_sub(1);
        }
    }

    pub(super) fn now(&self) -> usize {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId::from_bytes([1; 32]);
    const B: PeerId = PeerId::from_bytes([2; 32]);

    #[test]
    fn one_peer_has_its_share_and_all_have_a_bound() {
        let mut quota = Quota::new(3, 2, 600);
        let now = Duration::ZERO;
        assert_eq!(quota.enter(A, now), Ok(()));
        assert_eq!(quota.enter(A, now), Ok(()));
        assert_eq!(quota.enter(A, now), Err(Status::Quota));
        assert_eq!(quota.enter(B, now), Ok(()));
        assert_eq!(quota.enter(B, now), Err(Status::Full));
        quota.leave(A);
        assert_eq!(quota.enter(B, now), Ok(()));
        assert_eq!(quota.now(), 3);
    }

    #[test]
    fn a_rate_holds_over_time() {
        let mut quota = Quota::new(10, 10, 60);
        let mut sent = |second: u64| {
            let mut sent = 0;
            while quota.enter(A, Duration::from_secs(second)).is_ok() {
                quota.leave(A);
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
    fn peers_that_are_even_are_forgotten() {
        let mut quota = Quota::new(10, 10, 600);
        for number in 0..2 * MANY {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let id = PeerId::from_bytes(id);
            quota.enter(id, Duration::from_secs(number as u64)).unwrap();
            quota.leave(id);
        }
        assert!(quota.shares.len() <= MANY);
    }
}
