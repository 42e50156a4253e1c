//! Places that calls hold while they are served: a [`Pool`] with a clock, whose places go back when they are dropped.
//!
//! A place is of use while something moves, and while somebody here is at work for it. One that is held for nothing is taken back
//! when places are short: whoever holds it is told by [`Place::taken_back`], and has to end what it stands for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pool::{Denied, Held, Holder, Pool, Rules};

/// Stands for a moment that is always now.
#[cfg(any(test, feature = "sealed"))]
const AT_WORK: u64 = u64::MAX;

/// Places of one kind. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pool: Arc<Mutex<Pool<Line>>>,
    began: Instant,
}

impl Places {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            pool: Arc::new(Mutex::new(Pool::new(rules))),
            began: Instant::now(),
        }
    }

    /// A place, given back when dropped.
    pub(super) fn take(&self, holder: Holder) -> Result<Place, Denied> {
        let now = self.began.elapsed();
        let line = Line {
            taken_back: CancellationToken::new(),
            used: Arc::new(AtomicU64::new(millis(now))),
        };
        let made = line.clone();
        let (number, lost) = self.pool().take(holder, now, |_| made)?;
        if let Some(lost) = lost {
            lost.taken_back.cancel();
        }
        let places = self.clone();
        Ok(Place {
            places,
            number,
            line,
        })
    }

    /// How many are held.
    #[cfg(any(test, feature = "sealed"))]
    pub(super) fn held(&self) -> usize {
        self.pool().len()
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Line>> {
        // Each change is whole before anything can panic.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug)]
struct Line {
    taken_back: CancellationToken,
    /// When it was last of use, in milliseconds since the pool began.
    used: Arc<AtomicU64>,
}

impl Held for Line {
    fn used(&self, now: Duration) -> Duration {
        now.min(Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }

    #[cfg(any(test, feature = "sealed"))]
    fn is_fixed(&self) -> bool {
        self.used.load(Ordering::Relaxed) == AT_WORK
    }
}

/// One place.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    number: u64,
    line: Line,
}

impl Place {
    /// Something has moved just now. Ends what [`at_work`](Self::at_work) began.
    pub(super) fn used(&self) {
        let now = millis(self.places.began.elapsed());
        self.line.used.store(now, Ordering::Relaxed);
    }

    /// From now on somebody here is at work for it, who would go on: it is not taken back before [`used`](Self::used).
    #[cfg(any(test, feature = "sealed"))]
    pub(super) fn at_work(&self) {
        self.line.used.store(AT_WORK, Ordering::Relaxed);
    }

    /// Waits until it is wanted for another peer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn taken_back(&self) {
        self.line.taken_back.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.pool().give_back(self.number);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::identity::PeerId;

    const MINUTE: Duration = Duration::from_secs(60);

    fn peer(n: u8, named: bool) -> Holder {
        Holder {
            id: PeerId::from_bytes([n; 32]),
            former: Vec::new(),
            place: None,
            named,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_held_for_nothing_goes_to_who_has_none() {
        let places = Places::new(Rules {
            all: 4,
            peer: 4,
            host: 4,
            silent: MINUTE,
            min_life: Duration::MAX,
            takes_last: false,
        });
        let [silent, moving, works] = [1, 2, 3].map(|n| places.take(peer(n, false)).unwrap());
        works.at_work();
        assert_eq!(places.take(peer(4, false)).unwrap_err(), Denied::Full);
        tokio::time::advance(MINUTE).await;
        moving.used();
        let next = places.take(peer(4, false)).unwrap();
        assert!(silent.taken_back().now_or_never().is_some());
        assert!(moving.taken_back().now_or_never().is_none());
        assert_eq!(places.take(peer(5, false)).unwrap_err(), Denied::Full);
        // Who is known by name has a part, and then what strangers have; but not what somebody works on.
        let named: Vec<_> = (10..13)
            .map(|n| places.take(peer(n, true)).unwrap())
            .collect();
        assert!(next.taken_back().now_or_never().is_some());
        assert!(moving.taken_back().now_or_never().is_some());
        assert!(works.taken_back().now_or_never().is_none());
        assert_eq!(places.take(peer(13, true)).unwrap_err(), Denied::Full);
        works.used();
        places.take(peer(13, true)).unwrap();
        drop((named, silent, next, moving, works));
        assert_eq!(places.held(), 0);
    }
}
