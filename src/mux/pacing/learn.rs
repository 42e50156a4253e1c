//! What the answers to probes teach: the round trip, the rate, where `V` really is, and when another
//! phase begins.

use std::time::Instant;

use super::{
    Answer, BUNCH, DRAIN, DRAIN_ROUNDS, DRAINS, FAR, FIRST_FLIGHT, NO_PONG, NOISE, Pacer, Phase,
    Probe, RECORD_MIN, SECOND_FLIGHT, SPAN, SPAN_PROBES, TICK, TRAIN, TRAIN_GROWTH, UNLIMITED_PROP,
    UNLIMITED_QUEUE, UNLIMITED_RATE, after, seconds,
};

/// By how much the rate grows in a round trip of a transport that starts slowly, at least (TCP's slow start doubles it).
const GROWN: f64 = 1.25;

/// Times that this is believed: ten doublings of ten segments fill 1 Gbit/s at 100 ms. The rate that a machine shows that is late goes up and
/// down, and to tell that from a path takes the phase behind this one.
const SLOW_ROUNDS: u32 = 10;

/// By how much the flight grows then for each byte that is acknowledged: ahead of TCP, which would not grow with nothing to send.
const SLOW_START: f64 = 3.0;

impl Pacer {
    /// Bulk waits until something small has come back, as it does at the beginning of a session: what came before it on the path
    /// (bytes that are sent again) is no queue of the path's own, and how much longer a full record takes tells how fast it is.
    pub(crate) fn begin_small(&mut self, now: Instant) {
        self.small_until = self.on.then(|| after(now, NO_PONG));
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

    /// The peer answered a ping. Says whether it was a probe.
    pub(crate) fn on_pong(&mut self, now: Instant, value: u32) -> bool {
        let Some(at) = self.probes.iter().position(|probe| probe.value == value) else {
            return false;
        };
        // Those before it are lost, or their answers were overtaken.
        let Some(probe) = self.probes.drain(..=at).next_back() else {
            return false;
        };
        self.advance(now);
        let (limit, flight) = (self.limit(), (self.sent - self.acked) as f64);
        self.acked = probe.position;
        self.grow_in_use(limit, flight);
        self.let_go();
        self.small_until = None;
        self.learn_pair(&probe, now);
        if probe.lead {
            (self.heard_at, self.unanswered) = (Some(now), 0);
            self.delivered = self.delivered.max(self.acked as f64);
            return true;
        }
        let round_trip = seconds(probe.at, now);
        if self.min_rtt.is_none() && probe.size < RECORD_MIN / 2.0 {
            self.handshake = Some((round_trip, probe.size));
            self.delivered = self.delivered.max(self.acked as f64);
            return true;
        }
        let before = self.heard_at.replace(now);
        self.unanswered = 0;
        let was_silent = std::mem::take(&mut self.no_pong);
        self.leap(&probe, round_trip);
        self.learn_min_rtt(&probe, round_trip, now);
        self.learn_rate(&probe, now);
        self.learn_least_rate(&probe, round_trip, now);
        self.learn_train(&probe, before, now);
        let own = self.min_rtt.map_or(0.0, |(_, size)| {
            if self.rate > 0.0 {
                (probe.size - size) / self.rate
            } else {
                0.0
            }
        });
        let queue = (round_trip - self.round_trip() - own).max(0.0);
        if self.queues.len() >= 4 {
            self.queues.pop_front();
        }
        self.queues.push_back(queue);
        if was_silent && self.rate <= 0.0 {
            self.start_again(FIRST_FLIGHT, 7.0);
        }
        self.correct(probe.position, now);
        if self.draining.is_some_and(|position| self.acked >= position) {
            self.drained();
        }
        self.change_phase(now, queue);
        true
    }

    /// In startup, the flight grows only as far as it is used: where something else holds bulk
    /// back (the writer, or the buffer below), nothing is learnt from a greater bound.
    fn grow_in_use(&mut self, limit: f64, flight: f64) {
        let most = limit.max(4.0 * flight);
        let grown = self.limit();
        if let Phase::Startup { base, from, .. } = &mut self.phase
            && grown > most
        {
            *base = most;
            *from = self.acked;
        }
    }

    /// What bulk began with comes back. If it took hardly longer than something small before it, the path is
    /// fast, and if it is far as well, much more fits into it than was dared at first.
    fn leap(&mut self, probe: &Probe, round_trip: f64) {
        let Some((small, size)) = self.handshake else {
            return;
        };
        let begun = probe.position - (probe.size as u64).min(probe.position);
        let (from, to) = *self.first_flight.get_or_insert((begun, self.sent));
        if probe.position > to {
            self.handshake = None;
            return;
        }
        let longer = round_trip - small;
        let more = (probe.position - from) as f64 - size;
        // Shorter by much: something else was in the way before, so nothing can be said.
        if longer < -NOISE.max(small / 8.0) {
            self.handshake = None;
            return;
        }
        let fits = more / longer.max(NOISE) * small;
        if fits > self.limit() {
            self.phase = Phase::Startup {
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

    fn learn_min_rtt(&mut self, probe: &Probe, round_trip: f64, now: Instant) {
        let sample = (round_trip, probe.size);
        if probe.fresh {
            if self.drains.len() >= DRAINS {
                self.drains.pop_front();
            }
            self.drains.push_back(sample);
            self.min_rtt = self
                .drains
                .iter()
                .copied()
                .min_by(|a, b| a.0.total_cmp(&b.0));
        } else if self.min_rtt.is_none_or(|(min_rtt, _)| round_trip < min_rtt) {
            self.min_rtt = Some(sample);
            self.drains.clear();
            self.drains.push_back(sample);
        }
        if self.drain_at.is_none() && self.draining.is_none() {
            let pause = DRAIN.max(DRAIN_ROUNDS * self.round_trip());
            self.drain_at = Some(after(now, pause));
        }
    }

    fn learn_rate(&mut self, probe: &Probe, now: Instant) {
        let answer = Answer {
            position: probe.position,
            sent_at: probe.at,
            at: now,
        };
        let startup = matches!(self.phase, Phase::Startup { .. });
        let apart = if self.rate > 0.0 { SPAN_PROBES } else { 2 };
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
            let app_limited = old.position < self.idle;
            if sample > self.rate || !app_limited {
                self.take_rate(sample, seconds(old.at, now), now);
            }
            if startup && !app_limited && self.judged_at.is_none_or(|at| old.at >= at) {
                let grew = sample > 1.25 * self.best;
                self.plateau = if grew { 0 } else { self.plateau + 1 };
                self.best = self.best.max(sample);
                self.judged_at = Some(now);
            }
        } else if startup
            && self.rate <= 0.0
            && let Some(first) = self.answers.front()
        {
            self.latest = rate_since(first);
        }
        self.answers.push_back(answer);
    }

    /// A record that was there and answered within `round_trip` tells how fast the path is at least. Rates over answers know only what
    /// was sent: where a hop holds back the end of a burst (Nagle's algorithm, 40 ms), they stay as low as the first such stall was.
    /// What came back sooner than by chance tells no more: a bucket that has saved something up lets a record through at once.
    fn learn_least_rate(&mut self, probe: &Probe, round_trip: f64, now: Instant) {
        let least = probe.size / round_trip.max(NOISE);
        if self.rate > 0.0 && least > self.rate {
            self.take_rate(least, round_trip, now);
        }
    }

    /// A flight goes at once while a far path is not full, so its answers come one after the other as fast as the path let it through, and
    /// tell how much fits into the path; as far as enough of it has come.
    fn learn_train(&mut self, probe: &Probe, before: Option<Instant>, now: Instant) {
        let round_trip = self.round_trip();
        let is_startup = matches!(self.phase, Phase::Startup { .. });
        if !is_startup || round_trip < FAR {
            self.train = None;
            return;
        }
        let follows = before.is_some_and(|at| seconds(at, now) <= round_trip / 8.0);
        let Some((from, since)) = self.train.filter(|_| follows) else {
            self.train = Some((probe.position, now));
            return;
        };
        let bytes = (probe.position - from) as f64;
        let fits = bytes / seconds(since, now).max(NOISE) * round_trip;
        let most = TRAIN_GROWTH * bytes;
        if bytes >= TRAIN && fits.min(most) > self.limit() {
            self.phase = Phase::Startup {
                base: fits.min(most),
                from: self.acked,
                gain: 1.0,
            };
        }
    }

    fn take_rate(&mut self, sample: f64, span: f64, now: Instant) {
        let window = (4.0 * self.round_trip()).max(2.0).max(3.0 * span);
        self.rates.add(now, sample, window);
        self.rate = self.rates.get().map_or(0.0, |(best, _)| best);
    }

    /// Takes back what `V` was ahead of the truth. Answers that were held up together tell nothing of that: on a far path TCP keeps all that
    /// is behind a loss for a round trip, and then gives it at once, where a queue would have let it through one by one.
    fn correct(&mut self, position: u64, now: Instant) {
        let ahead = self.delivered - position as f64;
        if ahead < 0.0 {
            self.delivered = position as f64;
            self.ahead.clear();
            return;
        }
        if self.ahead.is_empty() {
            self.ahead_since = Some((position, now));
        }
        self.ahead.push(ahead);
        if self.ahead.len() < 4 {
            return;
        }
        let bunch = self.ahead_since.is_some_and(|(from, since)| {
            let bytes = position.saturating_sub(from) as f64;
            bytes > BUNCH * self.rate * seconds(since, now)
        });
        if bunch && self.may_hold_up() {
            self.ahead.clear();
            return;
        }
        let least = self.ahead.drain(..).fold(f64::MAX, f64::min);
        self.delivered -= least;
        let tolerated = self.rate * self.slack() + 4.0 * self.write_size() as f64;
        if least > tolerated && self.latest > 0.0 && self.latest < self.rate {
            // By half at most: late answers look the same.
            self.rate = self.latest.max(self.rate / 2.0);
            self.rates.replace(self.rate);
        }
    }

    fn start_again(&mut self, base: f64, gain: f64) {
        self.phase = Phase::Startup {
            base,
            from: self.acked,
            gain,
        };
        self.calm = 0;
        self.plateau = 0;
        self.best = self.rate;
        self.judged_at = None;
    }

    /// Behind a queue that was none of the path's: as above where the rate was known before; else it is compared once more.
    fn go_on_growing(&mut self, flight: f64, before: f64) {
        self.went_on += 1;
        if before > 0.0 {
            self.start_again(flight, SLOW_START);
        } else {
            self.phase = Phase::Full {
                flight,
                until: self.sent,
                before: self.rate,
            };
        }
    }

    /// The path is near and fast, and was not found wanting lately.
    fn may_be_unlimited(&self, now: Instant) -> bool {
        let may = self.unlimited_after.is_none_or(|at| at <= now);
        may && self.rate >= UNLIMITED_RATE && self.prop() < UNLIMITED_PROP
    }

    fn change_phase(&mut self, now: Instant, queue: f64) {
        let slack = self.slack();
        let prop = self.prop();
        match self.phase {
            // However little of it is used: on a path like that, a queue would have to show first.
            Phase::Startup { .. } if self.may_be_unlimited(now) && queue < UNLIMITED_PROP => {
                self.phase = Phase::Unlimited;
            }
            Phase::Startup { .. } => {
                if queue > (prop / 4.0).max(4.0 * TICK) || self.plateau >= 2 {
                    let mut flight = (self.sent - self.acked) as f64;
                    if queue < prop {
                        // On a far path a burst may queue before the whole path is full.
                        flight *= 1.25;
                    }
                    self.phase = Phase::Full {
                        flight: flight.max(4.0 * RECORD_MIN),
                        until: self.sent,
                        before: self.rate,
                    };
                }
            }
            Phase::Full {
                flight,
                until,
                before,
            } => {
                if self.rate > 0.0 && self.acked >= until {
                    if prop > FAR && self.rate > GROWN * before && self.went_on < SLOW_ROUNDS {
                        // What showed was the queue of a transport that starts slowly, and has not come to its end.
                        self.go_on_growing(flight, before);
                        return;
                    }
                    self.phase = Phase::Limited;
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
            Phase::Limited => {
                self.round_queue = self.round_queue.min(queue);
                if self.acked >= self.round_ends {
                    if self.gain() > 1.0 {
                        // What the round tried in vain is not to stand in the queue.
                        self.delivered = self.acked as f64;
                        self.ahead.clear();
                    }
                    if self.was_held && self.begin_late(now) {
                        return;
                    }
                    let calm = self.was_held && self.round_queue < slack / 4.0;
                    self.calm = if calm { self.calm + 1 } else { 0 };
                    self.round = self.round.wrapping_add(1);
                    self.round_ends = self.sent;
                    self.round_queue = f64::MAX;
                    self.was_held = false;
                    self.lead_due |= self.gain() > 1.0;
                    if self.calm >= 3 && prop > FAR {
                        self.start_again(self.limit(), 1.0);
                        return;
                    }
                }
                if self.may_be_unlimited(now) {
                    self.phase = Phase::Unlimited;
                }
            }
            Phase::Late(late) => {
                if self.acked >= late.until {
                    self.stay_late(late, now);
                }
                if self.may_be_unlimited(now) {
                    self.phase = Phase::Unlimited;
                }
            }
            Phase::Unlimited => {
                let standing = self.queues.iter().copied().fold(f64::MAX, f64::min);
                if standing > UNLIMITED_QUEUE {
                    self.phase = Phase::Limited;
                    self.delivered = self.acked as f64;
                    self.unlimited_after = Some(after(now, self.unlimited_penalty));
                    self.unlimited_penalty = (2.0 * self.unlimited_penalty).min(320.0);
                }
            }
        }
    }

    /// Since when an answer is due, and how long one may take.
    pub(super) fn silence_ends(&self) -> Option<Instant> {
        let oldest = self.probes.front()?.at;
        let since = [self.heard_at, self.unanswered_at]
            .into_iter()
            .flatten()
            .fold(oldest, Instant::max);
        let patience = if self.rate > 0.0 {
            let unacked = (self.sent - self.acked) as f64;
            2.0 * self.round_trip() + 2.0 * unacked / self.rate + SPAN
        } else if self.heard_at.is_none() {
            NO_PONG
        } else {
            4.0 * NO_PONG
        };
        Some(after(since, patience))
    }

    pub(super) fn silent_too_long(&mut self, now: Instant) -> bool {
        let late = self.silence_ends().is_some_and(|at| at <= now);
        if late
            && self.rate <= 0.0
            && let Phase::Startup { base, .. } = &mut self.phase
        {
            *base *= 4.0;
        }
        late
    }
}
