//! What the answers to marks teach: the round trip, the rate, where `V` really is, and when another
//! phase begins.

use std::time::Instant;

use super::{
    Answer, DEAF, DRAIN, DRAIN_ROUNDS, DRAINS, FAR, FIRST_FLIGHT, FREE_PROP, FREE_QUEUE, FREE_RATE,
    Mark, NOISE, Pacer, Phase, RECORD_MIN, SECOND_FLIGHT, SPAN, SPAN_MARKS, TICK, after, seconds,
};

impl Pacer {
    /// Bulk waits until something small has come back, as it does at the beginning of a session: what came before it on the path
    /// (bytes that are sent again) is no queue of the path's own, and how much longer a full record takes tells how fast it is.
    pub(crate) fn begin_small(&mut self, now: Instant) {
        self.small_until = self.on.then(|| after(now, DEAF));
    }

    pub(super) fn waits_for_small(&mut self, now: Instant) -> bool {
        self.small_until = self.small_until.filter(|until| now < *until);
        if self.small_until.is_some() {
            (self.held, self.wake) = (true, self.small_until);
        }
        self.small_until.is_some()
    }

    /// Brings `V` up to the present.
    pub(super) fn advance(&mut self, now: Instant) {
        let passed = seconds(self.delivered_at, now);
        self.delivered_at = now;
        self.delivered = (self.delivered + self.gain() * self.rate * passed).min(self.sent as f64);
    }

    /// The peer answered a ping. Says whether it was a mark.
    pub(crate) fn on_pong(&mut self, now: Instant, value: u32) -> bool {
        let Some(at) = self.marks.iter().position(|mark| mark.value == value) else {
            return false;
        };
        // Those before it are lost, or their answers were overtaken.
        let Some(mark) = self.marks.drain(..=at).next_back() else {
            return false;
        };
        self.advance(now);
        let (limit, flight) = (self.limit(), (self.sent - self.acked) as f64);
        self.acked = mark.position;
        self.grow_in_use(limit, flight);
        self.let_go();
        self.small_until = None;
        let round_trip = seconds(mark.at, now);
        if self.least.is_none() && mark.size < RECORD_MIN / 2.0 {
            self.handshake = Some((round_trip, mark.size));
            self.delivered = self.delivered.max(self.acked as f64);
            return true;
        }
        self.heard_at = Some(now);
        self.probes = 0;
        let was_deaf = std::mem::take(&mut self.deaf);
        self.leap(&mark, round_trip);
        self.learn_round_trip(&mark, round_trip, now);
        self.learn_rate(&mark, now);
        let own = self.least.map_or(0.0, |(_, size)| {
            if self.rate > 0.0 {
                (mark.size - size) / self.rate
            } else {
                0.0
            }
        });
        let queue = (round_trip - self.round_trip() - own).max(0.0);
        if self.queues.len() >= 4 {
            self.queues.pop_front();
        }
        self.queues.push_back(queue);
        if was_deaf && self.rate <= 0.0 {
            self.start_again(FIRST_FLIGHT, 7.0);
        }
        self.correct(mark.position);
        if self.draining.is_some_and(|position| self.acked >= position) {
            self.drained();
        }
        self.change_phase(now, queue);
        true
    }

    /// While starting, the flight grows only as far as it is used: where something else holds bulk
    /// back (the writer, or the buffer below), nothing is learnt from a greater bound.
    fn grow_in_use(&mut self, limit: f64, flight: f64) {
        let most = limit.max(4.0 * flight);
        let grown = self.limit();
        if let Phase::Starting { base, from, .. } = &mut self.phase
            && grown > most
        {
            *base = most;
            *from = self.acked;
        }
    }

    /// The first full record is back. If it took hardly longer than something small before it, the path is
    /// fast, and if it is far as well, much more fits into it than was dared at first.
    fn leap(&mut self, mark: &Mark, round_trip: f64) {
        let Some((small, size)) = self.handshake.take() else {
            return;
        };
        let (longer, more) = (round_trip - small, mark.size - size);
        // Shorter by much: something else was in the way before, so nothing can be said.
        if longer < -NOISE.max(small / 8.0) {
            return;
        }
        let fits = more / longer.max(NOISE) * small;
        if fits > self.limit() {
            self.phase = Phase::Starting {
                base: fits.min(SECOND_FLIGHT),
                from: self.acked,
                gain: 7.0,
            };
        }
    }

    /// The path is empty, as far as can be told.
    pub(super) fn drained(&mut self) {
        self.draining = None;
        self.fresh = true;
    }

    fn learn_round_trip(&mut self, mark: &Mark, round_trip: f64, now: Instant) {
        let sample = (round_trip, mark.size);
        if mark.fresh {
            if self.drains.len() >= DRAINS {
                self.drains.pop_front();
            }
            self.drains.push_back(sample);
            self.least = self
                .drains
                .iter()
                .copied()
                .min_by(|a, b| a.0.total_cmp(&b.0));
        } else if self.least.is_none_or(|(least, _)| round_trip < least) {
            self.least = Some(sample);
            self.drains.clear();
            self.drains.push_back(sample);
        }
        if self.drain_at.is_none() && self.draining.is_none() {
            let pause = DRAIN.max(DRAIN_ROUNDS * self.round_trip());
            self.drain_at = Some(after(now, pause));
        }
    }

    fn learn_rate(&mut self, mark: &Mark, now: Instant) {
        let answer = Answer {
            position: mark.position,
            sent_at: mark.at,
            at: now,
        };
        let starting = matches!(self.phase, Phase::Starting { .. });
        let apart = if self.rate > 0.0 { SPAN_MARKS } else { 2 };
        let span = self.round_trip().max(SPAN);
        let old_enough = |at: usize, old: &Answer, count: usize| {
            count - at >= apart && seconds(old.at, now) >= span
        };
        let count = self.answers.len();
        let from = self
            .answers
            .iter()
            .enumerate()
            .rev()
            .find(|(at, old)| old_enough(*at, old, count))
            .map(|(at, old)| (at, *old));
        let rate_since = |old: &Answer| {
            let span = seconds(old.at, now).max(seconds(old.sent_at, answer.sent_at));
            (answer.position - old.position) as f64 / span.max(1e-6)
        };
        if let Some((at, old)) = from {
            let sample = rate_since(&old);
            self.latest = sample;
            self.answers.drain(..at);
            let limited = old.position < self.idle;
            if sample > self.rate || !limited {
                self.take_rate(sample, seconds(old.at, now), now);
            }
            if starting && !limited && self.judged_at.is_none_or(|at| old.at >= at) {
                let grew = sample > 1.25 * self.best;
                self.plateau = if grew { 0 } else { self.plateau + 1 };
                self.best = self.best.max(sample);
                self.judged_at = Some(now);
            }
        } else if starting
            && self.rate <= 0.0
            && let Some(first) = self.answers.front()
        {
            self.latest = rate_since(first);
        }
        self.answers.push_back(answer);
    }

    fn take_rate(&mut self, sample: f64, span: f64, now: Instant) {
        if seconds(self.window_since, now) >= (4.0 * self.round_trip()).max(2.0).max(3.0 * span) {
            self.windows = [self.windows[1], 0.0];
            self.window_since = now;
        }
        self.windows[1] = self.windows[1].max(sample);
        self.rate = self.windows[0].max(self.windows[1]);
    }

    /// Takes back what `V` was ahead of the truth.
    fn correct(&mut self, position: u64) {
        let ahead = self.delivered - position as f64;
        if ahead < 0.0 {
            self.delivered = position as f64;
            self.ahead.clear();
            return;
        }
        self.ahead.push(ahead);
        if self.ahead.len() < 4 {
            return;
        }
        let least = self.ahead.drain(..).fold(f64::MAX, f64::min);
        self.delivered -= least;
        let tolerated = self.rate * self.slack() + 4.0 * self.write_size() as f64;
        if least > tolerated && self.latest > 0.0 && self.latest < self.rate {
            // By half at most: late answers look the same.
            self.rate = self.latest.max(self.rate / 2.0);
            self.windows = [0.0, self.rate];
        }
    }

    fn start_again(&mut self, base: f64, gain: f64) {
        self.phase = Phase::Starting {
            base,
            from: self.acked,
            gain,
        };
        self.calm = 0;
        self.plateau = 0;
        self.best = self.rate;
        self.judged_at = None;
    }

    /// The path is near and fast, and was not found wanting lately.
    fn may_be_free(&self, now: Instant) -> bool {
        let may = self.free_after.is_none_or(|at| at <= now);
        may && self.rate >= FREE_RATE && self.prop() < FREE_PROP
    }

    pub(super) fn change_phase(&mut self, now: Instant, queue: f64) {
        let slack = self.slack();
        let prop = self.prop();
        match self.phase {
            // However little of it is used: on a path like that, a queue would have to show first.
            Phase::Starting { .. } if self.may_be_free(now) && queue < FREE_PROP => {
                self.phase = Phase::Free;
            }
            Phase::Starting { .. } => {
                if queue > (prop / 4.0).max(4.0 * TICK) || self.plateau >= 2 {
                    let mut flight = (self.sent - self.acked) as f64;
                    if queue < prop {
                        // On a far path a burst may queue before the whole path is full.
                        flight *= 1.25;
                    }
                    self.phase = Phase::Full {
                        flight: flight.max(4.0 * RECORD_MIN),
                        until: self.sent,
                    };
                }
            }
            Phase::Full { until, .. } => {
                if self.rate > 0.0 && self.acked >= until {
                    self.phase = Phase::Bounded;
                    self.delivered = self.acked as f64;
                    self.ahead.clear();
                    self.round_ends = self.sent;
                    self.round_queue = f64::MAX;
                    if FIRST_FLIGHT / self.rate > self.round_trip() / 8.0 {
                        // The first answers may have met what the peer sent when it began.
                        let soon = after(now, 1.0 + 4.0 * self.round_trip());
                        self.drain_at = self.drain_at.map(|at| at.min(soon));
                    }
                }
            }
            Phase::Bounded => {
                self.round_queue = self.round_queue.min(queue);
                if self.acked >= self.round_ends {
                    if self.gain() > 1.0 {
                        // What the round tried in vain is not to stand in the queue.
                        self.delivered = self.acked as f64;
                        self.ahead.clear();
                    }
                    let calm = self.was_held && self.round_queue < slack / 4.0;
                    self.calm = if calm { self.calm + 1 } else { 0 };
                    self.round = self.round.wrapping_add(1);
                    self.round_ends = self.sent;
                    self.round_queue = f64::MAX;
                    self.was_held = false;
                    if self.calm >= 3 && prop > FAR {
                        self.start_again(self.limit(), 1.0);
                        return;
                    }
                }
                if self.may_be_free(now) {
                    self.phase = Phase::Free;
                }
            }
            Phase::Free => {
                let standing = self.queues.iter().copied().fold(f64::MAX, f64::min);
                if standing > FREE_QUEUE {
                    self.phase = Phase::Bounded;
                    self.delivered = self.acked as f64;
                    self.free_after = Some(after(now, self.free_penalty));
                    self.free_penalty = (2.0 * self.free_penalty).min(320.0);
                }
            }
        }
    }
}
