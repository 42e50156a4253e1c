//! What passing time does: keepalive, the time limits of streams, and the deadline of the next of all these.

use std::time::{Duration, Instant};

use super::super::code;
use super::super::error::{MuxError, StreamError};
use super::super::store::Key;
use super::Engine;

/// Time limits of streams are looked at no more often than this.
const SCAN_GAP: Duration = Duration::from_millis(100);

/// A deadline that is looked at so much later: this end did not run. No busy machine is as late.
const LATE: Duration = Duration::from_secs(5);

impl Engine {
    /// The time is now `now`; to be called when [`Engine::poll_timeout`] says, and harmless earlier.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.end.is_some() {
            return;
        }
        self.start_clocks(now);
        self.start_closing(now);
        self.look_at_pause(now);
        if let Some(interval) = self.config.keepalive_interval {
            let silent = now.saturating_duration_since(self.heard_at);
            if self.memory.is_stopped() {
                // It is this end that does not read. The peer is to hear something, for it gets no answers.
                if silent >= interval.min(self.config.keepalive_timeout) {
                    self.heard_at = now;
                    self.ping_for_ourselves(now);
                }
            } else if self.paused_until().is_none() && now >= self.keepalive_due(interval) {
                let late = now > self.keepalive_due(interval) + LATE;
                // Where it was not this end that slept (a process that was stopped), the peer has not answered. Where it was, the
                // answer may lie there unread, and what came to be due meanwhile was never asked.
                if !late
                    && (self.keepalive_asked.is_some() || interval >= self.config.keepalive_timeout)
                {
                    self.finish(MuxError::KeepaliveTimeout { silent });
                    return;
                }
                self.keepalive_asked = Some(now);
                self.ping_for_ourselves(now);
            }
        }
        self.look_for_a_standstill(now);
        self.look_for_quiet(now);
        if self.slowed_until.is_some_and(|at| at <= now) {
            self.slowed_until = None;
            self.notices.accept = true;
        }
        self.retreat(now);
        self.pacer.on_timeout(now);
        if self.next_scan.is_some_and(|at| at <= now) {
            self.scan(now);
        }
        if self.drained_by().is_some_and(|at| at <= now) {
            self.end_here();
        }
    }

    /// When the peer is to be asked, or is to have answered.
    fn keepalive_due(&self, interval: Duration) -> Instant {
        let limit = self.config.keepalive_timeout;
        match self.keepalive_asked {
            // As long as it takes from the question to the limit; once more, where that is asked late.
            Some(asked) => asked + limit.checked_sub(interval).unwrap_or(limit),
            None => self.heard_at + interval.min(limit),
        }
    }

    /// When [`Engine::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let pause = self.paused_until();
        let keepalive = self.config.keepalive_interval.and_then(|interval| {
            if self.memory.is_stopped() {
                Some(self.heard_at + interval.min(self.config.keepalive_timeout))
            } else if pause.is_none() {
                Some(self.keepalive_due(interval))
            } else {
                None
            }
        });
        let pacing = self.pacer.timeout();
        let standstill = self.standstill_ends();
        let retreat = self.next_retreat();
        let quiet = self.quiet_at();
        [
            keepalive,
            pause,
            self.next_scan,
            self.drained_by(),
            pacing,
            standstill,
            self.slowed_until,
            retreat,
            quiet,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Starts the time that a close has. A line that tells its rate gets twice what it needs for what is queued,
    /// where that is more; no other path is believed to be slow.
    pub(super) fn start_closing(&mut self, now: Instant) {
        if !self.close_bounded || self.closed_by.is_some() || self.end.is_some() {
            return;
        }
        let unsent: usize = self.store.iter().map(|(_, entry)| entry.send.len()).sum();
        let unsent = u32::try_from(unsent).unwrap_or(u32::MAX);
        let needed = self.config.line_rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(2.0 * f64::from(unsent) / rate.as_bytes_per_second())
        });
        self.closed_by = Some(now + self.config.close_timeout.max(needed));
    }

    /// By when what is queued has to be out, so that the driver has a quarter of the time for the rest.
    fn drained_by(&self) -> Option<Instant> {
        let rest = self.config.close_timeout / 4;
        self.closed_by.map(|at| at.checked_sub(rest).unwrap_or(at))
    }

    /// By when a close has to be over.
    pub(crate) fn closed_by(&self) -> Option<Instant> {
        self.closed_by
    }

    /// Starts the clock of streams that nobody holds since the last call.
    pub(super) fn start_clocks(&mut self, now: Instant) {
        let moment = self.moment(now);
        while let Some(key) = self.dropped.pop() {
            if let Some(entry) = self.store.get_mut(key) {
                entry.active_at = moment;
                self.watch(key);
            }
        }
    }

    /// Looks for streams that reached a time limit.
    fn scan(&mut self, now: Instant) {
        self.spare_abandoned(now);
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        let moment = self.moment(now);
        for (key, entry) in self.store.iter_mut() {
            if std::mem::take(&mut entry.caught_up) {
                entry.active_at = moment;
            }
            match entry.deadline(&self.config.stream_timeouts, self.started_at) {
                Some((at, which)) if at <= now => late.push((key, which)),
                Some((at, _)) => next = Some(next.map_or(at, |other| other.min(at))),
                None => {}
            }
        }
        self.next_scan = next.map(|at| at.max(now + SCAN_GAP));
        for (key, which) in late {
            self.reset_stream(key, code::TIMED_OUT, StreamError::TimedOut(which));
        }
    }

    /// Sees to it that the stream's time limits are looked at in time. Whether that is earlier than it was to be.
    pub(super) fn watch(&mut self, key: Key) -> bool {
        let usual = &self.config.stream_timeouts;
        if let Some((at, _)) = self
            .store
            .get(key)
            .and_then(|entry| entry.deadline(usual, self.started_at))
            && self.next_scan.is_none_or(|next| at < next)
        {
            self.next_scan = Some(at);
            self.retime = true;
            return true;
        }
        false
    }
}
