//! How much may be in flight, so that a small message never waits behind a long queue in the path.
//!
//! A path accepts more than it delivers: sockets, drivers and modems have buffers, and what is in
//! them delays all that follows. Every yamux peer answers pings in order with the data, so a ping
//! behind a record (a *probe*) tells when that record has arrived. From probes come the delivery rate
//! `R` and the least round trip `D` (BBR's BtlBw and RTprop), and from those a bound on what is in flight:
//!
//! ```text
//!   S       bytes of one record: what the path takes 2 ms for, within bounds
//!   V       how much has been delivered by now, extrapolated from the last answers with rate R
//!   gate    a bulk record may go when  sent - V + S <= max(R * (D + slack), S + R * (prop + slack))
//!   prop    the part of D that is not the record's own length;  slack = max(2 ms, prop / 8)
//! ```
//!
//! So one record is on its way in the path while the next is prepared, and little more. Small
//! messages are counted and not held back (up to a bound, or many of them would be bulk).
//!
//! - *Startup*: the flight grows with every answer, eight times a round trip, until a queue shows. On a far path that may be one that the
//!   transport below makes, which starts slowly itself: if the rate has grown a round trip later, startup goes on.
//! - *Limited*: as above; in one round trip of eight `V` runs a quarter faster, to see whether
//!   the path has become faster. `R` is at least what one record and its round trip say: over many
//!   answers, a hop that holds back the end of each burst (Nagle) looks as slow as its first stall.
//!   Now and then the path is left to drain, to measure `D` anew.
//! - *Late*: it is not the path that takes the time, but a machine that has more to do than it can: see `late`.
//! - *Unlimited*: a path that is near and fast has no queue worth a timer's tick, so nothing is held
//!   back; probes go on, and if a queue shows after all, the bound is back.
//! - Where a layer below knows its rate and keeps its own queue short, there is nothing to measure: a
//!   record goes when the one before it was flushed. It is short while small messages come, and longer behind a while without.
//! - Peers that do not answer pings are unbounded (`no_pong`): nothing is held back until they answer one.
//!
//! This file is what the engine asks; `learn` is what the answers teach, `late` what they do of a busy machine, `below` what a line's rate says.
//!
//! No IO, no clock: time is an argument. Positions are bytes since the beginning of the session.

// Bytes and seconds are estimates here: what a double can not hold does not matter.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod below;
mod late;
mod learn;
mod sizes;
mod trial;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cepa_transports::Rate;

use crate::windowed::WindowedMax;

use below::Below;
use trial::{Backoff, Late};

/// Least record: shorter ones would spend more than 4 % on headers.
const RECORD_MIN: f64 = 1000.0;

/// Record before anything is known of the path.
const RECORD_FIRST: usize = 1400;

/// Seconds that the path takes for one record, and the least slack: about a timer's tick.
const TICK: f64 = 0.002;

/// Flight before the first answer: a third of a second on the slowest usual serial line.
const FIRST_FLIGHT: f64 = 4.0 * 1024.0;

/// Most flight after the first answers, where those tell that the path is far and not slow: with the first, one window.
const SECOND_FLIGHT: f64 = 248.0 * 1024.0;

/// Bytes of a flight whose answers tell how fast the path lets it through, and how many times as much may follow at once.
const TRAIN: f64 = 32.0 * 1024.0;
const TRAIN_GROWTH: f64 = 32.0;

/// Seconds that two round trips may differ by chance.
const NOISE: f64 = 0.0005;

/// Small messages in flight beyond the bound before they wait like bulk.
const SMALL_FLIGHT: f64 = 16.0 * 1024.0;

/// Probes without an answer. Our own mux keeps 32 answers for a peer that can not be written to, and
/// takes more for a flood.
const PROBES_MAX: usize = 24;

/// Probes that are usually out: enough to see a change within a round trip.
const PROBES_IN_FLIGHT: f64 = 16.0;

/// Least bytes between probes: each one costs 12, and as many in the answer.
const PROBE_BYTES: u64 = 1200;

/// A rate is measured over so many answers …
const SPAN_PROBES: usize = 8;
/// … and over so many seconds: answers are often held back and come in bunches.
const SPAN: f64 = 0.05;

/// Seconds without a first answer after which more is sent, and between probes to a peer that answers none.
const NO_PONG: f64 = 0.5;

/// Records sent into silence, each after its time, after which no pong is expected.
const NO_PONG_TRIES: u32 = 4;

/// A path that is faster than this, and nearer than a timer's tick, needs no bound.
const UNLIMITED_RATE: f64 = 16e6;
const UNLIMITED_PROP: f64 = 0.001;
/// Seconds of queue that end that.
const UNLIMITED_QUEUE: f64 = 0.004;

/// Seconds of round trip that make a path far.
const FAR: f64 = 0.02;

/// Round trips for which a far path may hold up what has come, because something before it was lost and is sent again.
const HELD_UP: f64 = 1.5;

/// Answers that come so many times faster than the path is were held up together.
const BUNCH: f64 = 4.0;

/// Seconds between drains, and round trips between them.
const DRAIN: f64 = 10.0;
const DRAIN_ROUNDS: f64 = 50.0;
/// Drains that `D` is the least of: one alone may have met a queue on the way back.
const DRAINS: usize = 3;

/// A ping behind a record.
#[derive(Debug)]
struct Probe {
    value: u32,
    position: u64,
    at: Instant,
    /// Bytes of the record.
    size: f64,
    /// The path was empty when the record went.
    fresh: bool,
    /// It went by itself.
    lead: bool,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    position: u64,
    sent_at: Instant,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// `base`: the flight at its beginning; `from`: the position acknowledged then; `gain`: by how
    /// much the flight grows for each byte that is acknowledged.
    Startup {
        base: f64,
        from: u64,
        gain: f64,
    },
    /// A queue has shown: the flight stays as it is until what was sent by then (`until`) has
    /// arrived, so that the rate is measured on a full path.
    Full {
        flight: f64,
        until: u64,
        /// The rate at its beginning.
        before: f64,
    },
    Limited,
    /// The machine is late, and the path is not slow.
    Late(Late),
    Unlimited,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// The layer below holds back what is too much.
    below: Option<Below>,
    /// When a small message last waited, and whether that is long ago; where a line is below.
    small_at: Option<Instant>,
    alone: bool,
    /// Measured and held back here.
    on: bool,
    phase: Phase,
    no_pong: bool,

    sent: u64,
    acked: u64,
    probes: VecDeque<Probe>,
    probed: u64,
    probed_at: Option<Instant>,
    /// When an answer last came.
    heard_at: Option<Instant>,
    /// Records sent into silence.
    unanswered: u32,
    unanswered_at: Option<Instant>,

    answers: VecDeque<Answer>,
    /// Bytes a second; 0: not known.
    rate: f64,
    /// The rate as the last answers had it.
    latest: f64,
    /// What it is the greatest of.
    rates: WindowedMax,
    /// What was sent before this position was not held back by anything here.
    idle: u64,

    /// Round trip and size of something small that went before all bulk, until bulk has come back.
    handshake: Option<(f64, f64)>,
    /// Where bulk began, and ended before its first answer came.
    first_flight: Option<(u64, u64)>,
    /// Where a flight begins whose answers come now, and when the first of them came.
    train: Option<(u64, Instant)>,
    /// Bulk waits for that, until this time at most.
    small_until: Option<Instant>,
    /// `D` and the size of the record that it was measured with.
    min_rtt: Option<(f64, f64)>,
    drains: VecDeque<(f64, f64)>,
    drain_at: Option<Instant>,
    /// Nothing may follow until this position is acknowledged.
    draining: Option<u64>,
    /// The next record is the first on an empty path.
    fresh: bool,

    /// `V`, and when it was that.
    delivered: f64,
    delivered_at: Instant,
    /// By how much `V` was ahead of the last answers.
    ahead: Vec<f64>,
    /// Where and when the first of those was.
    ahead_since: Option<(u64, Instant)>,
    /// Queues that the last answers saw, in seconds.
    queues: VecDeque<f64>,

    round: u32,
    round_ends: u64,
    /// Least queue in this round, and rounds in a row without one.
    round_queue: f64,
    calm: u32,
    was_held: bool,

    /// A ping by itself is due; it has gone, and the record that it is for has not.
    lead_due: bool,
    led: bool,
    /// The answer to the last, and whether the records behind them were faster on the path than the rate has it.
    lead: Option<Answer>,
    pairs: VecDeque<bool>,

    /// How often startup went on behind a queue that was none of the path's.
    went_on: u32,

    /// Greatest rate in startup, how often in a row it was hardly exceeded, and since when.
    best: f64,
    plateau: u32,
    judged_at: Option<Instant>,

    unlimited_after: Option<Instant>,
    unlimited_penalty: f64,
    late_again: Backoff,

    /// Bulk waits, until this time or the next answer.
    held: bool,
    /// So do small messages. Then bulk waits, too.
    small_held: bool,
    wake: Option<Instant>,
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

fn after(at: Instant, seconds: f64) -> Instant {
    // A rate near 0 must not become a wait for ever.
    at + Duration::from_secs_f64(seconds.clamp(0.0, 60.0))
}

impl Pacer {
    /// `line_rate`: that of a layer below that keeps its own queue short.
    pub(crate) fn new(on: bool, line_rate: Option<Rate>, now: Instant) -> Self {
        Self {
            below: line_rate.map(Below::new),
            small_at: None,
            alone: false,
            on: on && line_rate.is_none(),
            phase: Phase::Startup {
                base: FIRST_FLIGHT,
                from: 0,
                gain: 7.0,
            },
            no_pong: false,
            sent: 0,
            acked: 0,
            probes: VecDeque::new(),
            probed: 0,
            probed_at: None,
            heard_at: None,
            unanswered: 0,
            unanswered_at: None,
            answers: VecDeque::new(),
            rate: 0.0,
            latest: 0.0,
            rates: WindowedMax::since(now),
            idle: 0,
            handshake: None,
            first_flight: None,
            train: None,
            small_until: None,
            min_rtt: None,
            drains: VecDeque::new(),
            drain_at: None,
            draining: None,
            fresh: false,
            delivered: 0.0,
            delivered_at: now,
            ahead: Vec::new(),
            ahead_since: None,
            queues: VecDeque::new(),
            round: 0,
            round_ends: 0,
            round_queue: f64::MAX,
            calm: 0,
            was_held: false,
            lead_due: false,
            led: false,
            lead: None,
            pairs: VecDeque::new(),
            went_on: 0,
            best: 0.0,
            plateau: 0,
            judged_at: None,
            unlimited_after: None,
            unlimited_penalty: DRAIN,
            late_again: Backoff::default(),
            held: false,
            small_held: false,
            wake: None,
        }
    }

    // ---- what the engine asks -----------------------------------------------------------------

    /// Whether nothing is held back now.
    fn is_open(&self) -> bool {
        !self.on || self.no_pong || self.phase == Phase::Unlimited
    }

    /// Something is to be sent: `small`, whether a small message is among it.
    pub(crate) fn notice(&mut self, small: bool, now: Instant) {
        if let Some(below) = self.below {
            // A session begins with messages.
            let since = self.small_at.filter(|_| !small).unwrap_or(now);
            self.small_at = Some(since);
            self.alone = now.saturating_duration_since(since) >= below.alone_after;
        }
    }

    /// Whether a bulk record may go now, `pending` bytes behind what was sent.
    pub(crate) fn may_send(&mut self, now: Instant, pending: usize) -> bool {
        if self.is_open() {
            return true;
        }
        if self.waits_for_small(now) {
            return false;
        }
        if pending == 0 && std::mem::take(&mut self.led) {
            return true;
        }
        self.advance(now);
        let until = self.closed_until(now, pending as f64);
        if until.is_none() && self.draining.is_some() {
            self.drained();
        }
        self.held = until.is_some();
        self.wake = until;
        if let Some(until) = until {
            self.was_held = true;
            if self.silent_too_long(now) {
                // One record with a probe, in case the last ones were lost.
                self.unanswered += 1;
                self.unanswered_at = Some(now);
                self.draining = None;
                self.probed = 0;
                self.let_go();
                if self.unanswered > NO_PONG_TRIES {
                    self.no_pong = true;
                }
                return true;
            }
            let silence = self.silence_ends();
            self.wake = Some(silence.map_or(until, |silence| silence.min(until)));
        }
        !self.held
    }

    /// Whether small messages may go: they need not wait, but many of them are bulk.
    pub(crate) fn may_send_small(&mut self, now: Instant) -> bool {
        if self.is_open() {
            return true;
        }
        self.advance(now);
        let over = self.over(0);
        // Where no answer is to come, nothing would ever let go: more is sent, and a probe with it.
        self.small_held = over > 0.0 && !self.probes.is_empty();
        if !self.small_held {
            return true;
        }
        self.held = true;
        let pause = if self.rate > 0.0 {
            over / self.rate
        } else {
            SPAN
        };
        self.wake = Some(after(now, pause.max(TICK / 2.0)));
        if self.silent_too_long(now) {
            self.no_pong = true;
            self.let_go();
        }
        self.no_pong
    }

    /// By how much small messages are more than may be in flight, `pending` bytes behind what was sent.
    fn over(&self, pending: usize) -> f64 {
        self.sent as f64 + pending as f64 - self.delivered - self.limit() - SMALL_FLIGHT
    }

    /// Whether bulk waits, and nothing has happened since that could let it go.
    pub(crate) fn held(&self) -> bool {
        self.held
    }

    /// The same of small messages.
    pub(crate) fn small_held(&self) -> bool {
        self.small_held
    }

    /// Something happened that could let go what waits: it is to be asked for again.
    fn let_go(&mut self) {
        self.held = false;
        self.small_held = false;
    }

    /// When [`Pacer::on_timeout`] is to be called.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.wake.filter(|_| self.held)
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.held && self.wake.is_some_and(|at| at <= now) {
            self.let_go();
        }
    }

    /// Whether a probe is to follow a write of `bytes`, which is being put together.
    pub(crate) fn wants_probe(&self, now: Instant, bytes: usize, bulk: bool) -> bool {
        if !self.on {
            return false;
        }
        // The first of all, small as it may be, tells how much longer a full record takes.
        let behind_lead = bulk && self.probes.back().is_some_and(|probe| probe.lead);
        if self.fresh || behind_lead || self.probed == 0 && (bulk || self.probed_at.is_none()) {
            return true;
        }
        let since = self.sent + bytes as u64 - self.probed;
        let passed = self.probed_at.map_or(f64::MAX, |at| seconds(at, now));
        if self.no_pong {
            return passed >= NO_PONG;
        }
        // Its answer is to come before small messages have to wait for it.
        if self.probes.is_empty() && self.over(bytes) > -SMALL_FLIGHT / 2.0 {
            return true;
        }
        if self.probes.len() >= PROBES_MAX || since < PROBE_BYTES {
            return false;
        }
        if !bulk {
            return since >= 16 << 10 && passed >= SPAN;
        }
        match self.phase {
            Phase::Startup { .. } | Phase::Full { .. } | Phase::Limited => {
                since as f64 >= self.limit() / PROBES_IN_FLIGHT
            }
            Phase::Late(late) => since as f64 >= late.flight / 2.0,
            Phase::Unlimited => passed >= 4.0 * TICK,
        }
    }

    /// A probe ends the write that is being put together; `position` bytes are in it.
    pub(crate) fn on_probe_sent(&mut self, now: Instant, value: u32, bytes: usize) {
        while self.probes.len() >= PROBES_MAX {
            self.probes.pop_front();
        }
        let position = self.sent + bytes as u64;
        self.probes.reserve_exact(1);
        self.probes.push_back(Probe {
            value,
            position,
            at: now,
            size: bytes as f64,
            fresh: std::mem::take(&mut self.fresh),
            lead: false,
        });
        self.probed = position;
        self.probed_at = Some(now);
        let due = self.drain_at.is_some_and(|at| at <= now);
        if due && self.phase == Phase::Limited && self.draining.is_none() {
            self.drain_at = None;
            self.draining = Some(position);
        }
    }

    /// `bytes` were handed to the stream below. `more`: bulk waits behind them.
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: usize, more: bool) {
        if !self.on {
            return;
        }
        self.advance(now);
        self.sent += bytes as u64;
        if !more {
            self.idle = self.sent;
        }
    }

    /// The least round trip, in seconds.
    fn round_trip(&self) -> f64 {
        self.min_rtt.map_or(0.0, |(min_rtt, _)| min_rtt)
    }

    /// Round trip of a record without length.
    fn prop(&self) -> f64 {
        match self.min_rtt {
            Some((min_rtt, size)) if self.rate > 0.0 => (min_rtt - size / self.rate).max(0.0),
            Some((min_rtt, _)) => min_rtt,
            None => 0.0,
        }
    }

    fn slack(&self) -> f64 {
        (self.prop() / 8.0).max(TICK)
    }

    /// The most that may be in flight.
    fn limit(&self) -> f64 {
        match self.phase {
            Phase::Startup { base, from, gain } => {
                // One answer alone can not show a queue.
                let gain = if self.answers.len() < 2 { 1.0 } else { gain };
                return base + gain * (self.acked - from) as f64;
            }
            Phase::Full { flight, .. } | Phase::Late(Late { flight, .. }) => return flight,
            Phase::Limited | Phase::Unlimited => {}
        }
        let slack = self.slack();
        (self.rate * (self.round_trip() + slack))
            .max(self.write_size() as f64 + self.rate * (self.prop() + slack))
    }

    /// Until when the gate is closed; `None`: it is open.
    fn closed_until(&self, now: Instant, pending: f64) -> Option<Instant> {
        let sent = self.sent as f64 + pending;
        let unacked = sent - self.acked as f64;
        let record = self.write_size() as f64;
        let limit = self.limit();
        let long = after(now, 60.0);
        if self.draining.is_some() {
            let excess = sent - self.delivered - self.rate * self.round_trip() / 2.0;
            if self.prop() < FAR {
                return Some(long);
            } else if excess > 0.5 {
                return Some(after(now, excess / self.rate));
            }
            // On a far path the queue has gone long before the last byte has arrived.
        }
        if let Phase::Startup { .. } | Phase::Full { .. } | Phase::Late(_) = self.phase {
            return (unacked + record > limit && !self.probes.is_empty()).then_some(long);
        }
        let held_up = if self.may_hold_up() {
            HELD_UP * self.round_trip()
        } else {
            0.0
        };
        let cap = self.rate * (self.round_trip() + 2.0 * self.slack() + held_up) + 4.0 * record;
        if unacked > cap && !self.probes.is_empty() {
            return Some(long);
        }
        let excess = sent - self.delivered + record - limit;
        (excess > 0.5).then(|| after(now, excess / (self.rate * self.gain())))
    }

    fn gain(&self) -> f64 {
        if self.phase == Phase::Limited && self.round % 8 == 7 {
            1.25
        } else {
            1.0
        }
    }
}
