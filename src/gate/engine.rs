//! Who gets a place in the gate: counts and penalties, without a clock, randomness or locks.
//!
//! ```text
//!   inside      0 ─────── early ──────────────── all
//!   far source  enters    dropped by chance,      turned away
//!                         more often as it fills
//!   near source enters    enters                  turned away
//! ```
//!
//! The chance rises in a straight line from the first percentage to 100, so that a flood never gets
//! every place, and a friend who tries again gets in between. It is OpenSSH's `MaxStartups`.
//!
//! A penalty is a moment in the future. Each failure moves it away, time brings it near, and while it
//! is further off than `tolerated`, its source is turned away: a few failures are a typing error, many
//! in a row are not. It is OpenSSH's `PerSourcePenalties`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::rules::{Config, Failing, Turned};
use super::source::Source;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Engine {
    config: Config,
    all: usize,
    /// Those inside, for each far source that has any.
    inside: HashMap<Source, usize>,
    /// Until when a source is under a penalty. Bounded by `config.remembered`.
    penalties: HashMap<Source, Instant>,
}

impl Engine {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            all: 0,
            inside: HashMap::new(),
            penalties: HashMap::new(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Asks for a place; `draw` is a number at random, of which each value is as likely.
    pub(super) fn enter(&mut self, now: Instant, source: Source, draw: u32) -> Result<(), Turned> {
        if self.all >= self.config.all {
            return Err(Turned::Full);
        }
        if source.is_far() {
            let penalty = self.penalty(now, source);
            if penalty > self.config.tolerated {
                return Err(Turned::Penalty {
                    left: penalty.saturating_sub(self.config.tolerated),
                });
            }
            if self.inside.get(&source).copied().unwrap_or(0) >= self.config.one_source {
                return Err(Turned::Source);
            }
            if self.is_dropped(draw) {
                return Err(Turned::EarlyDrop);
            }
            *self.inside.entry(source).or_insert(0) += 1;
        }
        self.all += 1;
        Ok(())
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, source: Source) {
        self.all = self.all.saturating_sub(1);
        if let Some(here) = self.inside.get_mut(&source) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                self.inside.remove(&source);
            }
        }
    }

    /// What was inside has failed.
    pub(super) fn failed(&mut self, now: Instant, source: Source, failing: Failing) {
        if !source.is_far() {
            return;
        }
        let more = match failing {
            Failing::Refused => self.config.penalty_refused,
            Failing::TimedOut => self.config.penalty_timed_out,
        };
        let until = now + (self.penalty(now, source) + more).min(self.config.most);
        if !self.penalties.contains_key(&source) && !self.room(now, until) {
            return;
        }
        self.penalties.insert(source, until);
    }

    /// What was inside has proven who it is, and is welcome.
    pub(super) fn let_in(&mut self, source: Source) {
        self.penalties.remove(&source);
    }

    fn penalty(&self, now: Instant, source: Source) -> Duration {
        self.penalties
            .get(&source)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn is_dropped(&self, draw: u32) -> bool {
        let Some(over) = self.all.checked_sub(self.config.early) else {
            return false;
        };
        let span = self.config.all.saturating_sub(self.config.early).max(1);
        let first = u64::from(self.config.early_percent.min(100));
        let percent = first + (100 - first) * (over as u64) / (span as u64);
        // Of 2^32 draws as many as the percentage says.
        u64::from(draw) * 100 < percent << 32
    }

    /// Makes room for one more penalty. Where all that are remembered last longer than the new one,
    /// the new one is not: a crowd of sources can't wash away those of the worst.
    fn room(&mut self, now: Instant, until: Instant) -> bool {
        if self.penalties.len() < self.config.remembered {
            return true;
        }
        self.penalties.retain(|_, end| *end > now);
        if self.penalties.len() < self.config.remembered {
            return true;
        }
        let soonest = self.penalties.iter().min_by_key(|(_, end)| **end);
        match soonest.map(|(source, end)| (*source, *end)) {
            Some((source, end)) if end <= until => self.penalties.remove(&source).is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const NEVER_DROPS: u32 = u32::MAX;

    fn at(seconds: u64) -> Instant {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    fn far(n: u32) -> Source {
        let [_, a, b, c] = n.to_be_bytes();
        Source::from(IpAddr::from([10, a, b, c]))
    }

    fn near() -> Source {
        Source::from(IpAddr::from([127, 0, 0, 1]))
    }

    /// An engine with so many inside, each of a source of its own.
    fn filled(n: u32) -> Engine {
        let mut engine = Engine::new(Config::default());
        for i in 0..n {
            engine.enter(at(0), far(i), NEVER_DROPS).unwrap();
        }
        engine
    }

    #[test]
    fn one_source_cannot_take_every_place() {
        let mut engine = Engine::new(Config::default());
        for _ in 0..8 {
            engine.enter(at(0), far(1), NEVER_DROPS).unwrap();
        }
        assert_eq!(
            engine.enter(at(0), far(1), NEVER_DROPS),
            Err(Turned::Source)
        );
        engine.enter(at(0), far(2), NEVER_DROPS).unwrap();
        for _ in 0..20 {
            engine.enter(at(0), near(), 0).unwrap();
        }
        engine.leave(far(1));
        engine.enter(at(0), far(1), NEVER_DROPS).unwrap();
    }

    #[test]
    fn all_together_are_bounded_near_ones_too() {
        let mut engine = filled(100);
        assert_eq!(
            engine.enter(at(0), far(999), NEVER_DROPS),
            Err(Turned::Full)
        );
        assert_eq!(engine.enter(at(0), near(), NEVER_DROPS), Err(Turned::Full));
        engine.leave(far(5));
        engine.enter(at(0), near(), NEVER_DROPS).unwrap();
        engine.leave(near());
        for i in (0..100).filter(|i| *i != 5) {
            engine.leave(far(i));
        }
        assert!(
            engine.all == 0 && engine.inside.is_empty(),
            "nothing is left behind"
        );
    }

    /// How many of a thousand draws, spread evenly, are dropped.
    fn dropped(engine: &Engine) -> usize {
        let step = u32::MAX / 1000;
        (0..1000).filter(|i| engine.is_dropped(i * step)).count()
    }

    #[test]
    fn early_drop_begins_at_ten_with_thirty_percent_and_ends_at_a_hundred() {
        assert_eq!(dropped(&filled(0)), 0);
        assert_eq!(dropped(&filled(9)), 0);
        assert!(
            (299..=301).contains(&dropped(&filled(10))),
            "{}",
            dropped(&filled(10))
        );
        // Half way between 30 and 100.
        assert!(
            (640..=660).contains(&dropped(&filled(55))),
            "{}",
            dropped(&filled(55))
        );
        assert!(
            (985..1000).contains(&dropped(&filled(99))),
            "{}",
            dropped(&filled(99))
        );
        let mut engine = filled(10);
        assert_eq!(engine.enter(at(0), far(77), 0), Err(Turned::EarlyDrop));
        assert_eq!(engine.enter(at(0), near(), 0), Ok(()), "near ones are not");
    }

    #[test]
    fn failures_in_a_row_shut_a_source_out_for_a_while() {
        let mut engine = Engine::new(Config::default());
        let source = far(3);
        // Three refusals are tolerated.
        for _ in 0..3 {
            engine.enter(at(0), source, NEVER_DROPS).unwrap();
            engine.failed(at(0), source, Failing::Refused);
            engine.leave(source);
        }
        engine.enter(at(0), source, NEVER_DROPS).unwrap();
        engine.failed(at(0), source, Failing::Refused);
        engine.leave(source);
        let left = Duration::from_secs(5);
        assert_eq!(
            engine.enter(at(0), source, NEVER_DROPS),
            Err(Turned::Penalty { left })
        );
        engine.enter(at(0), far(4), NEVER_DROPS).unwrap();
        engine.enter(at(5), source, NEVER_DROPS).unwrap();
        // A silent one counts twice.
        engine.failed(at(5), source, Failing::TimedOut);
        let left = Duration::from_secs(10);
        assert_eq!(
            engine.enter(at(5), source, NEVER_DROPS),
            Err(Turned::Penalty { left })
        );
        // Who proves to be welcome is forgiven.
        engine.let_in(source);
        engine.enter(at(5), source, NEVER_DROPS).unwrap();
    }

    #[test]
    fn a_penalty_has_an_end_and_near_sources_have_none() {
        let mut engine = Engine::new(Config::default());
        for _ in 0..10_000 {
            engine.failed(at(0), far(1), Failing::TimedOut);
            engine.failed(at(0), near(), Failing::TimedOut);
        }
        assert_eq!(engine.penalty(at(0), far(1)), engine.config.most);
        assert!(engine.enter(at(600), far(1), NEVER_DROPS).is_ok());
        assert!(engine.enter(at(0), near(), NEVER_DROPS).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_keeps_the_worst() {
        let mut engine = Engine::new(Config::default());
        for _ in 0..50 {
            engine.failed(at(0), far(0), Failing::TimedOut);
        }
        for i in 1..5000 {
            engine.failed(at(0), far(i), Failing::Refused);
        }
        assert_eq!(engine.penalties.len(), engine.config.remembered);
        assert!(engine.enter(at(0), far(0), NEVER_DROPS).is_err());
        // Those that are over make room.
        engine.failed(at(400), far(9999), Failing::Refused);
        assert_eq!(engine.penalties.len(), 2);
    }
}
