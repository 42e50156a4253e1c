//! How long to wait before trying again, for everything that dials again by itself: sessions that are to
//! come back, registrations at relays, and the tool's `--reconnect` and re-plugged serial lines.
//!
//! Each failure doubles the pause, from the first to the longest. A random part of it, up to a quarter, is
//! left out, so that all who lost the same peer at the same moment do not come back at the same moment. And
//! success alone does not begin anew: a peer that lets us in and drops us at once would otherwise be
//! dialled as fast as it can do that. What stood for as long as the longest pause does.
//!
//! A change of the network cuts a pause short, and the next ones are short again; but no more than one attempt a second comes of that.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use cepa_transports::{Endpoint, Target};
use tokio::time::sleep;

use crate::network::{NetworkChanges, NetworkWatch};

/// The largest part of a pause that chance may leave out: one of so many.
const LEFT_OUT: u32 = 4;

/// The first pause after a change of the network: one second, whatever chance leaves out.
const AFTER_CHANGE: Duration = Duration::from_millis(1334);

/// Pauses between attempts, each longer than the one before, up to a bound.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    network: NetworkWatch,
}

impl Default for Backoff {
    /// From 250 ms, which nobody notices who has just lost a session, to 30 s, which costs a peer that
    /// is away for days nothing.
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(30))
    }
}

impl Backoff {
    /// Pauses that double from `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first: first.min(longest),
            longest,
            next: first.min(longest),
            network: NetworkChanges::never().watch(),
        }
    }

    /// The same pauses, which a change of the network cuts short; default never.
    #[must_use]
    pub fn with_network(mut self, network: &NetworkChanges) -> Self {
        self.network = network.watch();
        self
    }

    /// The pauses that suit an address: of a line that is this machine's own (`serial:`, `pty:`, `unix:`)
    /// up to 2 s, since nobody else pays for an attempt and somebody may just have put the plug back in;
    /// of all others the [default](Self::default).
    #[must_use]
    pub fn for_endpoint(endpoint: &Endpoint) -> Self {
        let usual = Self::default();
        match endpoint.target() {
            Target::Serial { .. } | Target::Pty { .. } | Target::Unix { .. } => {
                Self::new(usual.first, Duration::from_secs(2))
            }
            _ => usual,
        }
    }

    /// From now on the pauses that suit an address, however many were made; none: of one that is not known.
    pub(super) fn suit(&mut self, endpoint: Option<&Endpoint>) {
        let usual = endpoint.map_or_else(Self::default, Self::for_endpoint);
        (self.first, self.longest) = (usual.first, usual.longest);
        self.next = self.next.clamp(self.first, self.longest);
    }

    /// How long to wait before the next attempt. Asked once an attempt.
    #[must_use = "the pauses only work when they are made"]
    pub fn pause(&mut self) -> Duration {
        // Chance is no secret here; what the standard library seeds its hash tables with will do.
        let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_be_bytes();
        self.pause_by(u32::from_be_bytes([a, b, c, d]))
    }

    fn pause_by(&mut self, chance: u32) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.longest);
        let left_out = (whole / LEFT_OUT).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        whole.saturating_sub(left_out)
    }

    /// What had been reached is lost after having stood for so long. The next pause is the first one
    /// again, if that was at least the longest pause.
    pub fn reset_after(&mut self, time: Duration) {
        if time >= self.longest {
            self.next = self.first;
        }
    }

    /// Makes the pause before the next attempt: until its time is up, or the network has changed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the pause out; the next one is longer all the same.
    pub async fn wait(&mut self) {
        let pause = self.pause();
        tokio::select! {
            biased;
            () = sleep(pause) => self.network.spaced(),
            () = self.network.changed() => self.begin_after_change(),
        }
    }

    /// The next pause is the first one again.
    pub(super) fn begin_anew(&mut self) {
        self.next = self.first;
    }

    fn begin_after_change(&mut self) {
        self.next = AFTER_CHANGE.max(self.first).min(self.longest);
    }

    /// An attempt is made without a pause before it.
    pub(super) fn tries_now(&mut self) {
        self.network.spaced();
    }

    /// Waits until the network changes.
    pub(super) async fn network_changed(&mut self) {
        self.network.changed().await;
    }

    /// Waits until the network has changed and an attempt has had `time` since. One that fails before that is followed by the next at once.
    pub(super) async fn overtaken(&mut self, time: Duration) {
        self.network.stirred().await;
        sleep(time).await;
        self.network.forget();
        self.begin_after_change();
    }

    /// Tries again until an attempt succeeds, or fails in a way that no other attempt would mend, as
    /// `is_transient` judges; it sees every error, so that it can tell of it too. A pause comes before each
    /// attempt, the first one included.
    ///
    /// # Errors
    /// The error that no other attempt would mend.
    ///
    /// # Cancel safety
    /// Dropping the future gives up; the pauses go on where they were when it is called again.
    pub async fn again<T, E, F>(
        &mut self,
        mut attempt: impl FnMut() -> F,
        mut is_transient: impl FnMut(&E) -> bool,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.network.forget();
        loop {
            self.wait().await;
            match attempt().await {
                Ok(reached) => return Ok(reached),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_double_to_a_bound_and_chance_shortens_them_by_a_quarter_at_most() {
        for (chance, share) in [(0, 1.0), (u32::MAX, 0.75)] {
            let mut backoff = Backoff::new(MS(100), MS(1000));
            let pauses: Vec<_> = (0..7).map(|_| backoff.pause_by(chance)).collect();
            let wanted = [100, 200, 400, 800, 1000, 1000, 1000].map(|ms| MS(ms).mul_f64(share));
            assert_eq!(pauses, wanted);
        }
        // And it is chance: two of a hundred differ.
        let pause = |_| Backoff::new(MS(100), MS(1000)).pause();
        let all: std::collections::HashSet<_> = (0..100).map(pause).collect();
        assert!(all.len() > 1);
        assert!(all.iter().all(|pause| (MS(75)..=MS(100)).contains(pause)));
    }

    #[test]
    fn only_what_stood_for_long_begins_anew() {
        let mut backoff = Backoff::new(MS(100), MS(1000));
        for _ in 0..3 {
            let _ = backoff.pause_by(0);
        }
        backoff.reset_after(MS(999));
        assert_eq!(backoff.pause_by(0), MS(800));
        backoff.reset_after(MS(1000));
        assert_eq!(backoff.pause_by(0), MS(100));
    }

    #[test]
    fn extremes_are_no_trouble() {
        let mut backoff = Backoff::new(Duration::MAX, MS(5));
        assert_eq!(backoff.pause_by(0), MS(5));
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(backoff.pause_by(0), Duration::MAX);
        assert!(backoff.pause_by(u32::MAX) > MS(1));
        assert_eq!(Backoff::new(MS(0), MS(0)).pause_by(7), MS(0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_tries_until_it_works_or_nothing_would_help() {
        let tries = Cell::new(0);
        let attempt = |until: u32| {
            let tries = &tries;
            move || {
                tries.set(tries.get() + 1);
                let now = tries.get();
                async move { if now < until { Err(now) } else { Ok(now) } }
            }
        };
        let mut backoff = Backoff::new(MS(100), MS(1000));
        let began = tokio::time::Instant::now();
        assert_eq!(backoff.again(attempt(4), |_| true).await, Ok(4));
        let took = began.elapsed();
        // 100 + 200 + 400 + 800 ms, less what chance leaves out.
        assert!(took >= MS(1125) && took <= MS(1510), "{took:?}");
        tries.set(0);
        assert_eq!(backoff.again(attempt(9), |e| *e < 3).await, Err(3));
    }
}
