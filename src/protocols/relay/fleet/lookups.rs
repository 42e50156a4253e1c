//! How often somebody may ask for peers that there are not: who tries ids one after the other learns who is registered, and is slowed down.
//!
//! A lookup that finds somebody costs nothing: that peer is asked, and its circuit counts. One that finds nobody costs a try; tries come back one a
//! second. Strangers of one host have them together, since keys cost nothing. Who makes this relay ask other members is counted in the same
//! way. No IO, no clock.

use std::collections::HashMap;
use std::time::Duration;

use crate::protocols::pool::Who;

/// Tries that are there at first.
const TRIES: u32 = 60;

/// One comes back in this time.
const EACH: Duration = Duration::from_secs(1);

/// Hosts and peers that are counted. With more, all whose tries are nearly back are forgotten, and then the one that asked longest ago.
const MOST_COUNTED: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// When all of its tries will be back.
    whole_at: HashMap<Who, Duration>,
}

impl Lookups {
    /// Whether it has a try left.
    pub(super) fn may(&self, who: Who, now: Duration) -> bool {
        let missing = self.whole_at.get(&who).map(|at| at.saturating_sub(now));
        missing.unwrap_or_default() + EACH <= EACH * TRIES
    }

    /// It has asked for somebody who is not there.
    pub(super) fn missed(&mut self, who: Who, now: Duration) {
        if self.whole_at.len() >= MOST_COUNTED && !self.whole_at.contains_key(&who) {
            self.whole_at.retain(|_, at| *at > now + EACH);
            if self.whole_at.len() >= MOST_COUNTED {
                let least = self.whole_at.iter().min_by_key(|(_, at)| **at);
                if let Some(least) = least.map(|(who, _)| *who) {
                    self.whole_at.remove(&least);
                }
            }
        }
        let at = self.whole_at.entry(who).or_insert(now);
        *at = (*at).max(now) + EACH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PeerId;

    fn who(n: u16) -> Who {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        Who::Peer(PeerId::from_bytes(bytes))
    }

    #[test]
    fn who_finds_nobody_often_waits_for_each_further_try() {
        let mut lookups = Lookups::default();
        let mut now = Duration::from_secs(1000);
        let tries = |lookups: &mut Lookups, now| {
            let mut had = 0;
            while lookups.may(who(1), now) {
                lookups.missed(who(1), now);
                had += 1;
            }
            had
        };
        assert_eq!(tries(&mut lookups, now), 60);
        assert!(lookups.may(who(2), now), "others have their own");
        now += Duration::from_secs(5);
        assert_eq!(tries(&mut lookups, now), 5);
        now += Duration::from_secs(3600);
        assert_eq!(tries(&mut lookups, now), 60);
    }

    #[test]
    fn there_is_an_end_to_who_is_counted() {
        let mut lookups = Lookups::default();
        let now = Duration::from_secs(1);
        for _ in 0..60 {
            lookups.missed(who(0), now);
        }
        for n in 1..10_000 {
            lookups.missed(who(n), now);
        }
        assert!(lookups.whole_at.len() <= MOST_COUNTED);
        assert!(!lookups.may(who(0), now), "not forgotten for that");
    }
}
