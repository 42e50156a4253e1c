//! An [`Instant`] in half the room: nanoseconds since a session began, which last for 584 years.
//!
//! Every stream keeps some, and a session keeps thousands of streams.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// A time of one session. Only to be read back with the beginning that it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU64);

impl Moment {
    /// `now`, in a session that began at `start`.
    pub(crate) fn new(start: Instant, now: Instant) -> Self {
        let passed = now.saturating_duration_since(start).as_nanos();
        Self(NonZeroU64::MIN.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    pub(crate) fn instant(self, start: Instant) -> Instant {
        start + Duration::from_nanos(self.0.get() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_were() {
        let start = Instant::now();
        for passed in [0, 1, 999_999_999, 86_400_000_000_001] {
            let now = start + Duration::from_nanos(passed);
            assert_eq!(Moment::new(start, now).instant(start), now);
        }
        let before = start.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(Moment::new(start, before).instant(start), start);
        assert_eq!(size_of::<Option<Moment>>(), 8);
    }
}
