//! What passing time does: late acknowledgements, whether the path lives, and how long a session has none.

use std::time::{Duration, Instant};

use super::super::error::{PathLostWhy, SessionLost};
use super::super::path::Path;
use super::{Engine, Over};

/// The spare memory of bulk is given back after so long without a byte.
const REST: Duration = Duration::from_secs(1);

/// What came before a path broke is read by then.
const BROKEN: Duration = Duration::from_secs(1);

impl Engine {
    /// When to ask, and how long to wait then.
    fn patience(&self) -> (Duration, Duration) {
        let quick = self.waiting_since.is_some() && self.path.as_ref().is_some_and(Path::is_quick);
        if quick {
            self.limits.quick
        } else {
            self.limits.patient
        }
    }

    /// Since when nothing came although something was due.
    fn silent_since(&self, path: &Path) -> Instant {
        match self.waiting_since {
            Some(since) if path.is_quick() => path.heard.max(since),
            _ => path.heard,
        }
    }

    /// When the peer is to be asked whether it is there, or the path is lost if it was asked.
    fn liveness(&self) -> Option<Instant> {
        let path = self.path.as_ref()?;
        let (ask, wait) = self.patience();
        if let Some(since) = path.broken {
            return Some(since + BROKEN);
        }
        if let Some(since) = self.stopped {
            return Some(path.signed.unwrap_or(since).max(since) + self.limits.quick.0);
        }
        let silent_since = self.silent_since(path);
        let usual = match path.asked {
            Some(asked) => asked.max(silent_since) + wait,
            None => silent_since + ask,
        };
        let doubted = path.probed.map(|probed| probed + self.limits.quick.1);
        Some(doubted.map_or(usual, |doubted| doubted.min(usual)))
    }

    /// There is reason to doubt the path: the peer is asked now, and has no longer to answer than where it is near.
    pub(crate) fn probe(&mut self, now: Instant) {
        if let Some(path) = &mut self.path
            && path.probed.is_none()
        {
            path.ping = true;
            path.asked.get_or_insert(now);
            path.probed = Some(now);
            self.hurried = true;
        }
    }

    /// When what came is to be acknowledged at the latest; none once it is to be.
    fn ack_by(&self) -> Option<Instant> {
        self.path.as_ref().filter(|path| !path.ack)?;
        let since = self.unreported_since?;
        (self.ack_target() > self.reported).then(|| since + self.limits.ack_delay)
    }

    /// When the spare memory of bulk is given back.
    fn rest_at(&self) -> Option<Instant> {
        self.replay.may_rest().then(|| self.emptied + REST)
    }

    /// How long the session is kept without a path: the shorter time of the two ends.
    pub(crate) fn park_limit(&self) -> Duration {
        self.peer_park.map_or(self.park, |peer| peer.min(self.park))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.over.is_some() {
            return None;
        }
        if self.path.is_none() {
            let since = self.pathless_since?;
            return since.checked_add(self.park_limit());
        }
        let deadlines = [self.ack_by(), self.liveness(), self.rest_at()];
        deadlines.into_iter().flatten().min()
    }

    /// Time has passed. Says why the path is lost, where it is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<PathLostWhy> {
        self.hurried = true;
        if self.rest_at().is_some_and(|at| now >= at) {
            self.rest();
        }
        if self.path.is_none() {
            let limit = self.park_limit();
            let since = self.pathless_since?;
            let after = now.saturating_duration_since(since);
            if after >= limit && self.over.is_none() {
                self.finish(Over::Lost(SessionLost::Expired { after: limit }));
            }
            return None;
        }
        if self.ack_by().is_some_and(|by| now >= by)
            && let Some(path) = &mut self.path
        {
            path.ack = true;
        }
        if self.liveness().is_none_or(|at| now < at) {
            return None;
        }
        let stopped = self.stopped.is_some();
        let path = self.path.as_mut()?;
        if path.broken.is_some() {
            Some(PathLostWhy::Ended)
        } else if stopped {
            (path.sign, path.signed) = (true, Some(now));
            None
        } else if path.asked.is_some() {
            let after = now.saturating_duration_since(path.heard);
            Some(PathLostWhy::Silent { after })
        } else {
            (path.ping, path.asked) = (true, Some(now));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use cepa_transports::Side;

    use super::super::SLICES;
    use super::*;
    use crate::resume::Config;
    use crate::resume::frame::Frame;

    #[test]
    fn a_path_in_doubt_has_two_seconds_to_show_that_it_carries() {
        let start = Instant::now();
        let quiet = || {
            let mut engine = Engine::new(Side::Client, &Config::default(), start);
            while engine.stage(|| start) {
                engine.wrote(usize::MAX >> 1);
            }
            engine
        };
        let mut undoubted = quiet();
        let usual = Duration::from_secs(15);
        assert_eq!(undoubted.poll_timeout(), Some(start + usual));
        assert!(undoubted.handle_timeout(start + usual).is_none(), "asks");

        let mut engine = quiet();
        engine.probe(start);
        assert!(engine.is_urgent(), "the question does not wait");
        let due = start + Duration::from_secs(2);
        assert_eq!(engine.poll_timeout(), Some(due));
        assert!(matches!(
            engine.handle_timeout(due),
            Some(PathLostWhy::Silent { .. })
        ));

        // Whatever comes shows that it carries, and a doubt that goes on does not put it off.
        let mut engine = quiet();
        engine.probe(start);
        let later = start + Duration::from_secs(1);
        engine.probe(later);
        assert_eq!(engine.poll_timeout(), Some(due));
        engine.handle_heard(later);
        assert_eq!(engine.poll_timeout(), Some(later + usual));
    }

    #[test]
    fn memory_of_bulk_is_given_back_a_second_after_it() {
        let start = Instant::now();
        let mut engine = Engine::new(Side::Client, &Config::default(), start);
        let bulk = vec![7; 1 << 20];
        assert_eq!(engine.write(&[IoSlice::new(&bulk)]), bulk.len());
        while engine.stage(|| start) {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = engine.output(&mut slices);
            let n = slices[..used].iter().map(|slice| slice.len()).sum();
            engine.wrote(n);
        }
        engine.handle_frame(start, Frame::Ack(1 << 20)).unwrap();
        assert!(engine.replay.memory() > 0);

        let due = engine.poll_timeout().unwrap();
        assert_eq!(due, start + REST);
        assert!(engine.handle_timeout(due).is_none());
        assert_eq!(engine.replay.memory(), 0);
        assert!(engine.poll_timeout().unwrap() > due);
    }
}
