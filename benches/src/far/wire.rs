//! One direction of the path, and what it does to frames; without IO, time is an argument.
//!
//! ```text
//!   a frame --> lost by chance? --> [ buffer, drops what is too much ] --> rate --> delay --> due
//! ```
//!
//! The rate counts what TCP carries, and no headers: so a share of it says the same as on a path inside the process, whatever the size
//! of a frame.

use std::time::{Duration, Instant};

/// Ethernet, IPv4, and TCP with timestamps.
const HEADERS: usize = 14 + 20 + 32;

/// What the path is like, each way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Bytes a second.
    pub(super) rate: f64,
    pub(super) round_trip: Duration,
    /// Bytes that wait for their turn at most.
    pub(super) buffer: f64,
    /// Of all frames.
    pub(super) loss: f64,
}

#[derive(Debug)]
pub(super) struct Wire {
    path: Path,
    free_at: Instant,
    random: fastrand::Rng,
}

impl Wire {
    pub(super) fn new(path: Path, seed: u64, now: Instant) -> Self {
        Self {
            path,
            free_at: now,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// When a frame of so many bytes is there; `None`: it is lost.
    #[expect(clippy::cast_precision_loss, reason = "a frame is not that long")]
    pub(super) fn take(&mut self, now: Instant, frame: usize) -> Option<Instant> {
        if self.random.f64() < self.path.loss {
            return None;
        }
        let bytes = frame.saturating_sub(HEADERS) as f64;
        let waiting = self.free_at.saturating_duration_since(now).as_secs_f64() * self.path.rate;
        if waiting + bytes > self.path.buffer {
            return None;
        }
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes / self.path.rate);
        Some(self.free_at + self.path.round_trip / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(loss: f64) -> Path {
        Path {
            rate: 1e6,
            round_trip: 20 * MS,
            buffer: 5000.0,
            loss,
        }
    }

    #[test]
    fn frames_take_their_turn_and_then_the_delay() {
        let start = Instant::now();
        let mut wire = Wire::new(path(0.0), 1, start);
        let frame = 1000 + HEADERS;
        assert_eq!(wire.take(start, frame), Some(start + 11 * MS));
        assert_eq!(wire.take(start, frame), Some(start + 12 * MS));
        // One without bytes waits behind them, and takes no time itself.
        assert_eq!(wire.take(start, HEADERS), Some(start + 12 * MS));
        let later = start + 10 * MS;
        assert_eq!(wire.take(later, frame), Some(later + 11 * MS));
    }

    #[test]
    fn a_full_buffer_drops() {
        let start = Instant::now();
        let mut wire = Wire::new(path(0.0), 1, start);
        let taken = (0..9).filter(|_| wire.take(start, 1000 + HEADERS).is_some());
        assert_eq!(taken.count(), 5);
        assert!(wire.take(start + MS, 1000 + HEADERS).is_some());
    }

    #[test]
    fn one_in_a_thousand_is_lost() {
        let start = Instant::now();
        let mut wire = Wire::new(path(0.001), 1, start);
        let lost = (0..1_000_000).filter(|_| wire.take(start, HEADERS).is_none());
        let lost = lost.count();
        assert!((900..1100).contains(&lost), "{lost}");
    }
}
