//! The largest of what was measured lately, by two windows of time that take turns: what it gives is of the last one to
//! two of them, at the cost of two numbers. As BBR's max filter, and with a minus the least.

use std::time::Instant;

/// See the head of this file. The window is an argument, since who measures learns how long it should be.
#[derive(Debug, Default)]
pub(crate) struct WindowedMax {
    now: Option<(f64, u32)>,
    before: Option<(f64, u32)>,
    turn: Option<Instant>,
}

impl WindowedMax {
    /// As the default, but the first window begins now, and not with the first sample.
    pub(crate) fn since(now: Instant) -> Self {
        Self {
            turn: Some(now),
            ..Self::default()
        }
    }

    /// Takes a sample; `window`: seconds.
    pub(crate) fn add(&mut self, now: Instant, sample: f64, window: f64) {
        let turn = *self.turn.get_or_insert(now);
        if now.saturating_duration_since(turn).as_secs_f64() > window {
            self.before = self.now.take();
            self.turn = Some(now);
        }
        let (best, count) = self.now.unwrap_or((sample, 0));
        self.now = Some((best.max(sample), count + 1));
    }

    /// The largest, and of how many samples.
    pub(crate) fn get(&self) -> Option<(f64, u32)> {
        match (self.now, self.before) {
            (Some((a, n)), Some((b, m))) => Some((a.max(b), n + m)),
            (now, before) => now.or(before),
        }
    }

    /// Nothing counts but this, in the window that has begun.
    pub(crate) fn replace(&mut self, sample: f64) {
        (self.now, self.before) = (Some((sample, 1)), None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_old_counts_for_one_to_two_windows() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut best = WindowedMax::default();
        assert_eq!(best.get(), None);
        best.add(at(0), 9.0, 10.0);
        best.add(at(10), 3.0, 10.0);
        assert_eq!(best.get(), Some((9.0, 2)));
        best.add(at(11), 4.0, 10.0);
        assert_eq!(best.get(), Some((9.0, 3)), "of the window before");
        best.add(at(22), 2.0, 10.0);
        assert_eq!(best.get(), Some((4.0, 2)), "two windows are over");
        best.replace(1.0);
        assert_eq!(best.get(), Some((1.0, 1)));
    }
}
