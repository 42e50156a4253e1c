//! What passes in a second, session by session and substream by substream: what has come since the last look, and how long ago that was.

use std::collections::HashMap;

use cepa::session::Session;
use tokio::time::Instant;

/// A session by its number, or one of its substreams.
type Which = (u64, Option<u32>);

/// Bytes that came and went so far, ever; or in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Both<T> {
    pub(super) inward: T,
    pub(super) outward: T,
}

/// What had passed at the last look.
#[derive(Default)]
pub(super) struct Rates {
    before: Option<(Instant, HashMap<Which, Both<u64>>)>,
}

/// What has passed at this one, and is to be compared with the next.
pub(super) struct Counting<'a> {
    rates: &'a mut Rates,
    now: HashMap<Which, Both<u64>>,
    at: Instant,
}

impl Rates {
    pub(super) fn begin(&mut self) -> Counting<'_> {
        Counting {
            rates: self,
            now: HashMap::new(),
            at: Instant::now(),
        }
    }
}

impl Counting<'_> {
    /// On the wire.
    pub(super) fn session(&mut self, session: &Session) -> Option<Both<f64>> {
        let meter = session.meter();
        let bytes = (meter.bytes_in(), meter.bytes_out());
        self.passed((session.number(), None), bytes)
    }

    pub(super) fn stream(
        &mut self,
        session: &Session,
        id: u32,
        bytes: (u64, u64),
    ) -> Option<Both<f64>> {
        self.passed((session.number(), Some(id)), bytes)
    }

    /// What passes in a second; unknown at the first look. What was not there at the last one has begun since.
    fn passed(&mut self, which: Which, (inward, outward): (u64, u64)) -> Option<Both<f64>> {
        let bytes = Both { inward, outward };
        self.now.insert(which, bytes);
        let (then, all) = self.rates.before.as_ref()?;
        let before = all.get(&which).copied().unwrap_or_default();
        let seconds = self.at.duration_since(*then).as_secs_f64().max(0.001);
        // A count of bytes is far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round();
        Some(Both {
            inward: rate(inward, before.inward),
            outward: rate(outward, before.outward),
        })
    }

    /// The next look is compared with this one.
    pub(super) fn end(self) {
        self.rates.before = Some((self.at, self.now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_what_has_come_since_the_last_look() {
        let mut rates = Rates::default();
        let mut first = rates.begin();
        assert_eq!(first.passed((1, None), (100, 7)), None);
        first.end();
        tokio::time::advance(Duration::from_secs(2)).await;
        let mut second = rates.begin();
        let rate = second.passed((1, None), (300, 7)).unwrap();
        assert_eq!((rate.inward, rate.outward), (100.0, 0.0));
        // One that is new has begun since.
        let rate = second.passed((2, None), (10, 0)).unwrap();
        assert_eq!((rate.inward, rate.outward), (5.0, 0.0));
        second.end();
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut third = rates.begin();
        let rate = third.passed((1, None), (301, 7)).unwrap();
        assert_eq!((rate.inward, rate.outward), (1.0, 0.0));
        third.end();
        assert_eq!(rates.before.unwrap().1.len(), 1);
    }
}
