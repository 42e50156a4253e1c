//! When the next of a peer's hints is tried, while others are on their way: ways to the peer itself before those through relays.
//!
//! Each is tried a little later than the one before it, and at once when one has failed (RFC 8305, section 5). A relay waits longer, as long
//! as a way without one is under way: a relay that there is a session with answers within one round trip, where a direct way
//! takes three, and would win of what is better for both ends and for the relay.
use std::time::Duration;

use tokio::time::Instant;

use super::addr::Hint;

pub(super) struct Pace {
    stagger: Duration,
    head_start: Duration,
    next_at: Instant,
    /// While a direct way is under way, no relay is tried before.
    relay_at: Instant,
    /// Direct ways that are under way.
    direct: usize,
}

impl Pace {
    /// The first is tried at once.
    pub(super) fn new(stagger: Duration, head_start: Duration) -> Self {
        let now = Instant::now();
        Self {
            stagger,
            head_start,
            next_at: now,
            relay_at: now,
            direct: 0,
        }
    }

    /// When that hint is to be tried, as things are.
    pub(super) fn due(&self, next: &Hint) -> Instant {
        if next.is_relay() && self.direct > 0 {
            self.next_at.max(self.relay_at)
        } else {
            self.next_at
        }
    }

    pub(super) fn begins(&mut self, hint: &Hint) {
        let now = Instant::now();
        self.next_at = now + self.stagger;
        if !hint.is_relay() {
            self.direct += 1;
            self.relay_at = now + self.head_start;
        }
    }

    pub(super) fn failed(&mut self, hint: &Hint) {
        self.next_at = Instant::now();
        if !hint.is_relay() {
            self.direct = self.direct.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    fn hints() -> [Hint; 3] {
        let relay = crate::identity::PeerId::from_spki(b"relay");
        [
            "tcp:a:1".to_owned(),
            "tcp:b:1".to_owned(),
            format!("relay:{relay}@tcp:r:1"),
        ]
        .map(|it| it.parse().unwrap())
    }

    /// What is left of each pause, in virtual time, until all three are begun; `fails` at the moment when the one after it is asked for.
    async fn pauses(fails: [bool; 2]) -> Vec<u128> {
        let [one, two, relay] = hints();
        let (stagger, head_start) = (Duration::from_millis(250), Duration::from_secs(1));
        let mut pace = Pace::new(stagger, head_start);
        let mut all = Vec::new();
        let mut begin = async |pace: &mut Pace, hint: &Hint| {
            let start = Instant::now();
            sleep_until(pace.due(hint)).await;
            pace.begins(hint);
            all.push(start.elapsed().as_millis());
        };
        for (hint, fails) in [(&one, fails[0]), (&two, fails[1])] {
            begin(&mut pace, hint).await;
            if fails {
                pace.failed(hint);
            }
        }
        begin(&mut pace, &relay).await;
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_waits_for_ways_without_one_as_long_as_there_are_any() {
        assert_eq!(pauses([false, false]).await, [0, 250, 1000]);
        // One has failed, and another is still on its way.
        assert_eq!(pauses([true, false]).await, [0, 0, 1000]);
        assert_eq!(pauses([false, true]).await, [0, 250, 1000]);
        // Nothing is to be waited for.
        assert_eq!(pauses([true, true]).await, [0, 0, 0]);
        let [_, two, relay] = hints();
        let mut pace = Pace::new(Duration::from_millis(250), Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(pace.due(&relay), start);
        // A relay that goes first, since it led there last, holds up others as usual.
        pace.begins(&relay);
        assert_eq!(pace.due(&two), start + Duration::from_millis(250));
    }
}
