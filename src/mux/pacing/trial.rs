//! What is kept of a trial whether a machine is late, and when the next one may be.

use std::time::{Duration, Instant};

/// Seconds without a trial behind a first one that was no use: twice as many each time, up to so many.
const PENALTY: f64 = 1.0;
const PENALTY_MOST: f64 = 16.0;

/// A phase in which a machine is taken for late, as `late` has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Late {
    pub(super) flight: f64,
    /// End of the round.
    pub(super) until: u64,
    /// Rounds of this flight, since when, from where; and the rate with half of it.
    pub(super) rounds: u32,
    pub(super) since: Instant,
    pub(super) from: u64,
    pub(super) before: f64,
    /// It is the first, and `before` is what arrived without it.
    pub(super) first: bool,
}

/// When it may be tried again whether a machine is late.
#[derive(Debug)]
pub(super) struct Backoff {
    after: Option<Instant>,
    penalty: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            after: None,
            penalty: PENALTY,
        }
    }
}

impl Backoff {
    pub(super) fn may(&self, now: Instant) -> bool {
        self.after.is_none_or(|at| at <= now)
    }

    /// A first trial was no use.
    pub(super) fn later(&mut self, now: Instant) {
        self.after = Some(now + Duration::from_secs_f64(self.penalty));
        self.penalty = (2.0 * self.penalty).min(PENALTY_MOST);
    }
}
