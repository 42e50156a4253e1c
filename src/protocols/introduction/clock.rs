//! The time as a service's owner goes by it: it never goes back while the process lives. No IO; what the clocks show is
//! an argument.
//!
//! The wall clock of a small board may begin in the past, and may be set at any moment, in either direction. Set
//! back, it is ignored, and time goes on from where it was; set forward, it is followed. When the process began is what
//! the wall clock shows, less what has passed: so a clock that is put right moves the beginning to where it belongs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the clocks of the machine show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The wall clock, since 1970.
    pub(super) wall: Duration,
    /// A clock that nobody sets, since the process began to remember.
    pub(super) passed: Duration,
}

/// Reads the clocks of the machine.
#[derive(Debug)]
pub(super) struct Clocks {
    began: Instant,
}

impl Clocks {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    pub(super) fn read(&self) -> Reading {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Reading {
            wall: wall.unwrap_or_default(),
            passed: self.began.elapsed(),
        }
    }
}

/// The time that is gone by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    /// When the process began, as far as is known now.
    began: Duration,
}

impl Time {
    pub(super) fn new(reading: Reading) -> Self {
        Self {
            began: reading.wall.saturating_sub(reading.passed),
        }
    }

    /// When it is, and when the process began; neither is ever less than it was before.
    pub(super) fn at(&mut self, reading: Reading) -> Moment {
        let began = reading.wall.saturating_sub(reading.passed);
        self.began = self.began.max(began);
        Moment {
            now: self.began.saturating_add(reading.passed),
            began: self.began,
        }
    }
}

/// A moment, in time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) now: Duration,
    pub(super) began: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: u64, passed: u64) -> Reading {
        let (wall, passed) = (Duration::from_secs(wall), Duration::from_secs(passed));
        Reading { wall, passed }
    }

    #[test]
    fn a_clock_that_is_set_back_is_not_followed_and_one_that_is_put_right_moves_the_beginning() {
        let mut time = Time::new(reading(100, 0));
        let mut at = |wall, passed| {
            let moment = time.at(reading(wall, passed));
            (moment.now.as_secs(), moment.began.as_secs())
        };
        assert_eq!(at(105, 5), (105, 100));
        assert_eq!(at(50, 6), (106, 100), "set back");
        assert_eq!(at(1007, 7), (1007, 1000), "put right");
        assert_eq!(at(108, 8), (1008, 1000));
        assert_eq!(at(1009, 9), (1009, 1000));
    }
}
