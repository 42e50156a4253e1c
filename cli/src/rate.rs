//! How fast bytes pass, for who looks at a line that shows it: what passed lately counts most, and nothing is said before there is enough
//! to tell by.

use std::time::{Duration, Instant};

/// About two seconds count: of a rate so much is left after [`PIECE`].
const KEPT: f64 = 0.7;
const PIECE: Duration = Duration::from_millis(500);

/// How long something has to pass before a rate is more than chance.
const ENOUGH: Duration = Duration::from_secs(1);

/// Bytes a second, of a count that only grows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    last: Option<(Instant, u64)>,
    /// Since the first byte.
    seen: Duration,
    mean: f64,
    /// How much of the rate is from pieces of time at all: all before the first counts as nothing.
    weight: f64,
}

impl Rate {
    /// So many have passed by now, in all.
    // A count of bytes is far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn count(&mut self, now: Instant, bytes: u64) {
        let Some((last, before)) = self.last else {
            self.last = Some((now, bytes));
            return;
        };
        let (passed, new) = (
            now.saturating_duration_since(last),
            bytes.saturating_sub(before),
        );
        if passed.is_zero() {
            return;
        }
        self.last = Some((now, bytes));
        if self.seen.is_zero() && new == 0 {
            return;
        }
        self.seen += passed;
        let kept = KEPT.powf(passed.as_secs_f64() / PIECE.as_secs_f64());
        let piece = new as f64 / passed.as_secs_f64();
        self.mean = self.mean * kept + piece * (1.0 - kept);
        self.weight = self.weight * kept + (1.0 - kept);
    }

    /// Bytes a second, if enough is known.
    pub(crate) fn a_second(&self) -> Option<f64> {
        let rate = self.mean / self.weight;
        (self.seen >= ENOUGH).then_some(if rate < 1.0 { 0.0 } else { rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_what_passes_and_ends_at_nothing() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |n: u32| start + PIECE * n;
        for n in 0..20 {
            rate.count(at(n), u64::from(n) * 500);
        }
        let now = rate.a_second().unwrap();
        assert!((999.0..=1001.0).contains(&now), "{rate:?}");
        for n in 20..60 {
            rate.count(at(n), 19 * 500);
        }
        assert_eq!(rate.a_second(), Some(0.0));
    }

    /// What had passed before somebody looked is no rate, and the first moment is none either.
    #[test]
    fn nothing_is_said_before_a_second_of_bytes() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        rate.count(at(0), 1 << 40);
        for ms in [1, 5000] {
            rate.count(at(ms), 1 << 40);
            assert_eq!(rate.a_second(), None);
        }
        rate.count(at(5500), (1 << 40) + 500);
        assert_eq!(rate.a_second(), None);
        rate.count(at(6000), (1 << 40) + 1000);
        let now = rate.a_second().unwrap();
        assert!((999.0..=1001.0).contains(&now), "{rate:?}");
    }
}
