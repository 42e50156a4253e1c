//! A machine that is late, here or there: it has more to do than it can, and answers when it gets round to that. To one record at a time it
//! looks like a slow path, since each takes as long as a turn of the machine, and a bound that follows from that never lets more go.
//!
//! ```text
//!            slow path                            late machine
//!   sent     p rrrrrrrr                           p rrrrrrrr
//!   answers  p        r    the record's length    .          pr    both in one turn, however long the record is
//! ```
//!
//! So now and then a ping goes by itself in front of a record (a *lead*). What lies between the two answers is how long the record took on the
//! path, whatever both have waited for. Where that is far less than the rate has it, several times in a row, the path is not what is slow: the
//! flight doubles, and the records with it, for as long as that stays true and more arrives for it, up to what one turn moves.
//!
//! Answers come together as well where what the peer sends holds them up. Then twice of what was in flight has no more arrive than before: the
//! path is what is slow, and it is tried again later, and later still each time.

use std::time::Instant;

use super::trial::{Backoff, Late};
use super::{Answer, FAR, NOISE, Pacer, Phase, Probe, RECORD_MIN, TICK, seconds};

/// How many of those pairs are remembered, and how many are needed.
const PAIRS: usize = 8;
const PAIRS_LEAST: usize = 4;

/// How much faster than the rate a record has to be. What is paced at all has records of 2 ms of the path, which are
/// this much faster by chance at most where they are as short as records get.
const FASTER: f64 = 8.0;

/// Bytes between two pings that tell something.
const APART: u64 = 500;

/// Rounds that a flight is tried for, and by how much the rate has to be greater than with half of it. Else it is tried again behind so many.
const ROUNDS: u32 = 4;
const GAIN: f64 = 1.15;
const REST: u32 = 20;

/// Greatest flight: two writes, which the driver makes in one turn behind a lead, so a small message waits for no more than one.
const LATE_MOST: f64 = 128.0 * 1024.0;

impl Pacer {
    /// Whether a ping is to go by itself now, in front of the next record.
    pub(crate) fn wants_lead(&mut self, now: Instant) -> bool {
        self.on && self.lead_due && self.may_send(now, 0)
    }

    /// It has gone; the record follows at once.
    pub(crate) fn on_lead_sent(&mut self, now: Instant, value: u32, bytes: usize) {
        self.lead_due = false;
        self.led = true;
        self.probes.push_back(Probe {
            value,
            position: self.sent + bytes as u64,
            at: now,
            size: bytes as f64,
            fresh: false,
            lead: true,
        });
    }

    /// A far path that carries much. A machine that is late holds up answers as well, but never so much at a time.
    pub(super) fn may_hold_up(&self) -> bool {
        self.prop() > FAR && self.rate * self.round_trip() > LATE_MOST
    }

    /// An answer has come: where the one before it was a lead's, what the two tell of the path.
    pub(super) fn learn_pair(&mut self, probe: &Probe, now: Instant) {
        let answer = Answer {
            position: probe.position,
            sent_at: probe.at,
            at: now,
        };
        let before = std::mem::replace(&mut self.lead, probe.lead.then_some(answer));
        let Some(before) = before.filter(|_| !probe.lead) else {
            return;
        };
        let apart = seconds(before.sent_at, answer.sent_at);
        let bytes = answer.position.saturating_sub(before.position);
        let is_held = matches!(self.phase, Phase::Limited | Phase::Late(_));
        if !is_held || apart > 4.0 * TICK || bytes < APART || self.rate <= 0.0 {
            return;
        }
        let took = seconds(before.at, now) - apart;
        let wire = bytes as f64 / took.max(NOISE);
        if self.pairs.len() >= PAIRS {
            self.pairs.pop_front();
        }
        self.pairs.push_back(wire >= FASTER * self.rate);
        if let Phase::Limited = self.phase {
            // The next one soon, or when it is tried whether the path has become faster.
            self.lead_due = self.lead_due || self.pairs.back() == Some(&true);
        }
    }

    /// Whether what holds bulk back is no path.
    fn is_late(&self) -> bool {
        let fast = self.pairs.iter().filter(|fast| **fast).count();
        self.pairs.len() >= PAIRS_LEAST && 4 * fast >= 3 * self.pairs.len()
    }

    /// A round of [`Phase::Limited`] is over, in which bulk was held back; whether another phase begins.
    pub(super) fn begin_late(&mut self, now: Instant) -> bool {
        if !self.is_late() || !self.late_again.may(now) {
            return false;
        }
        // What was in flight, by how long it took: the bound is on what `V` has not, and that may be less.
        let queue = self.queues.iter().sum::<f64>() / self.queues.len().max(1) as f64;
        let flight = self.limit().max(self.latest * (self.round_trip() + queue));
        self.phase = Phase::Late(Late {
            flight: (2.0 * flight).clamp(2.0 * RECORD_MIN, LATE_MOST),
            before: self.latest,
            first: true,
            ..self.trial(now)
        });
        self.lead_due = true;
        true
    }

    fn trial(&self, now: Instant) -> Late {
        Late {
            flight: 0.0,
            until: self.sent,
            rounds: 0,
            since: now,
            from: self.acked,
            before: 0.0,
            first: false,
        }
    }

    /// What was sent at the beginning of a round of [`Phase::Late`] has arrived.
    pub(super) fn stay_late(&mut self, mut late: Late, now: Instant) {
        if !self.is_late() {
            self.leave_late(late, now);
            return;
        }
        self.lead_due = true;
        late.until = self.sent;
        late.rounds += 1;
        if late.rounds == ROUNDS || late.rounds == REST {
            let rate = (self.acked - late.from) as f64 / seconds(late.since, now).max(1e-6);
            let grows = late.rounds == REST || rate > GAIN * late.before;
            let fresh = self.trial(now);
            if late.first && !grows {
                // Answers that wait for each other on the way back, behind what the peer sends, look the same.
                self.leave_late(late, now);
                return;
            }
            if late.first {
                self.late_again = Backoff::default();
            }
            late = if grows && self.was_held {
                Late {
                    flight: (2.0 * late.flight).min(LATE_MOST),
                    before: rate,
                    ..fresh
                }
            } else {
                // It was no use, or nobody needs more.
                let part = if grows || late.flight >= LATE_MOST {
                    1.0
                } else {
                    0.5
                };
                Late {
                    flight: (part * late.flight).max(2.0 * RECORD_MIN),
                    rounds: ROUNDS,
                    ..fresh
                }
            };
            self.was_held = false;
        }
        self.phase = Phase::Late(late);
    }

    /// It is the path, after all.
    fn leave_late(&mut self, late: Late, now: Instant) {
        if late.first {
            self.late_again.later(now);
        }
        self.phase = Phase::Limited;
        self.delivered = self.acked as f64;
        self.ahead.clear();
        self.round_ends = self.sent;
        self.round_queue = f64::MAX;
        self.pairs.clear();
    }
}
