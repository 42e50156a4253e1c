//! What is known of the line: its rate, its delay, how noisy it is; and what follows from that.
//!
//! A line sends one byte after the other, so positions in what was written to it (*wire positions*) say
//! all: what is acknowledged has passed, and with it everything that was written before.
//!
//! ```text
//!   R        rate: what the caller knows (the baud rate), or the best delivery measured lately
//!   free_at  when all that was written will have left the line, by R
//!   P        delay: the least of  (acknowledgement's arrival) - (free_at as it was after the frame)
//!   W        most in flight: R (P + slack) + two frames
//!   n        payload of a frame: sqrt(h / q), q = chance that a byte is damaged, h = bytes that a
//!            frame costs; no longer than 50 ms of the line, where that is not less than 512 bytes
//! ```
//!
//! *Late commit*: where R is known, a frame is cut only when the line will be free within 20 ms, so what
//! is still to be decided is decided above.

// Bytes and seconds are estimates here: what a double can not hold does not matter.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::time::{Duration, Instant};

use cepa_transports::Rate;

use crate::windowed::WindowedMax;

/// Least and most payload of a frame.
pub(crate) const PAYLOAD_MIN: usize = 24;
pub(crate) const PAYLOAD_MAX: usize = 1024;

/// Bytes of a frame beside its payload: flag, control, offset, checksum.
const OVERHEAD: f64 = 8.0;

/// Bytes of an acknowledgement that another one may have to wait for.
const ACK: f64 = 32.0;

/// Seconds of line that a frame may take; more, where shorter frames would waste too much ...
const FRAME_TIME: f64 = 0.05;
/// ... that is below this payload ...
const FRAME_LEAST: f64 = 512.0;
/// ... but never more than this.
const FRAME_TIME_MAX: f64 = 0.6;

/// Seconds before the line is free at which the next frame is cut: timers and schedulers are late.
const AHEAD: f64 = 0.02;

/// The same for an acknowledgement: what comes until then is told by it too.
const ACK_AHEAD: f64 = 0.003;

/// Seconds that an application has to answer what has come, before it is acknowledged apart.
const ANSWER: f64 = 0.002;

/// Seconds of queue that a line of unknown rate is filled with, so that its rate can be seen.
const FILL: f64 = 0.05;

/// Bytes of a turn that tell of the rate.
const TURN_LEAST: usize = 256;

/// Bytes in flight before anything is known.
const FIRST_FLIGHT: f64 = 2048.0;

/// The same for a turn.
const FIRST_TALK: f64 = 512.0;

/// By how much faster a turn is said than a measured rate has it, where much of a turn is delay: else that would be all that is ever
/// seen.
const HASTE: u32 = 4;

/// Seconds of delay before anything is known.
const FIRST_DELAY: f64 = 0.1;

/// Least guess of it from the opening, and wire bytes of that.
const LEAST_DELAY: f64 = 0.005;
pub(crate) const OPEN: usize = 36;

/// How long a best rate and a least delay are believed: between one and two of these seconds.
const RATE_SPAN: f64 = 2.0;
const DELAY_SPAN: f64 = 10.0;

/// Samples of a full line before a known rate is doubted.
const DOUBT: u32 = 8;

/// Frames that the loss estimate remembers.
const MEMORY: f64 = 400.0;
/// Losses after which it forgets faster: so many tell enough.
const LOSSES: f64 = 40.0;

/// Remembered with each frame that goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Wire bytes of the frame, and the wire position behind it.
    len: u64,
    end: u64,
    sent_at: Instant,
    /// When it should have left the line.
    due: Instant,
    /// The wire position known to have passed when it went, and since when.
    passed: u64,
    passed_at: Instant,
    /// When what was acknowledged last had been sent.
    before_at: Instant,
    /// The line was full when it went.
    full: bool,
}

impl Mark {
    /// When it should have left the line.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Whether it has left the line by now; no, where the rate is not known.
    pub(crate) fn has_left(&self, now: Instant) -> bool {
        self.due > self.sent_at && self.due <= now
    }

    /// Whether it went after the other.
    pub(crate) fn is_behind(&self, other: &Self) -> bool {
        self.end > other.end
    }
}

/// `a` - `b`; 0 where `b` is later.
fn seconds(a: Instant, b: Instant) -> f64 {
    a.saturating_duration_since(b).as_secs_f64()
}

#[derive(Debug)]
pub(crate) struct Line {
    known: Option<f64>,
    payload_max: usize,
    /// It carries one way at a time: answers tell of turns, not of the line.
    turns: bool,
    /// And an answer takes long.
    hasty: bool,
    sent: u64,
    free_at: Instant,
    passed: u64,
    passed_at: Instant,
    before_at: Instant,
    rates: WindowedMax,
    /// Negative, so that the largest is the least delay.
    delays: WindowedMax,
    /// Until there is one.
    first_delay: f64,
    jitter: f64,
    /// Frames that were decided, their wire bytes, and how many of them were lost; all fading.
    frames: f64,
    bytes: f64,
    lost: f64,
}

impl Line {
    /// Part of a frame that is worth waking a writer for.
    pub(crate) const WORTH: usize = 8;

    pub(crate) fn new(now: Instant, known: Option<Rate>, payload_max: usize) -> Self {
        Self {
            known: known.map(Rate::as_bytes_per_second),
            payload_max: payload_max.clamp(PAYLOAD_MIN, PAYLOAD_MAX),
            turns: false,
            hasty: false,
            sent: 0,
            free_at: now,
            passed: 0,
            passed_at: now,
            before_at: now,
            rates: WindowedMax::default(),
            delays: WindowedMax::default(),
            first_delay: FIRST_DELAY,
            jitter: 0.0,
            frames: 0.0,
            bytes: 0.0,
            lost: 0.0,
        }
    }

    /// The peer takes no more in one frame.
    pub(crate) fn bound_payload(&mut self, most: usize) {
        self.payload_max = most.clamp(PAYLOAD_MIN, self.payload_max);
    }

    /// It carries one way at a time.
    pub(crate) fn take_turns(&mut self) {
        self.turns = true;
    }

    /// Wire bytes that an end may say in a turn of so long.
    pub(crate) fn talk(&self, time: Duration) -> usize {
        let bytes = self.rate().map(|rate| rate * time.as_secs_f64());
        bytes.unwrap_or(FIRST_TALK) as usize
    }

    /// So many bytes of a turn took so long.
    pub(crate) fn turned(&mut self, now: Instant, bytes: usize, took: Duration, is_far: bool) {
        self.hasty = is_far;
        if bytes >= TURN_LEAST && took > Duration::ZERO {
            self.rates
                .add(now, bytes as f64 / took.as_secs_f64(), RATE_SPAN);
        }
    }

    /// When all that was written will have left.
    pub(crate) fn free_at(&self) -> Instant {
        self.free_at
    }

    /// A moment before that: what is written then comes without a gap.
    pub(crate) fn free_soon(&self) -> Instant {
        let soon = Duration::from_secs_f64(ACK_AHEAD);
        self.free_at.checked_sub(soon).unwrap_or(self.free_at)
    }

    /// An opening and so many bytes of an answer took so long, there and back.
    pub(crate) fn opened(&mut self, took: Duration, answer: usize) {
        let took = took.saturating_sub(self.time_of(OPEN + answer));
        // The answer may have been one to an earlier opening.
        self.first_delay = (2.0 * took.as_secs_f64() + LEAST_DELAY).min(FIRST_DELAY);
    }

    /// Bytes a second, as far as known.
    pub(crate) fn rate(&self) -> Option<f64> {
        match (self.known, self.rates.get()) {
            // Some adapters and most pseudo terminals take any rate and have their own.
            (Some(known), Some((best, count)))
                if !self.turns && count >= DOUBT && best < 0.8 * known =>
            {
                Some(best * 1.1)
            }
            (Some(known), _) => Some(known),
            (None, best) => best.map(|(rate, _)| rate),
        }
    }

    fn delay(&self) -> f64 {
        self.delays
            .get()
            .map_or(self.first_delay, |(least, _)| -least)
    }

    /// Seconds that so many bytes take.
    pub(crate) fn time_of(&self, bytes: usize) -> Duration {
        let rate = self.rate().unwrap_or(f64::INFINITY);
        Duration::from_secs_f64((bytes as f64 / rate).min(3600.0))
    }

    /// So many bytes go to the line now; what is to be remembered of a frame among them. `alone`: nothing
    /// else is in flight.
    pub(crate) fn write(&mut self, now: Instant, len: usize, alone: bool, full: bool) -> Mark {
        if alone {
            // Nothing to wait for: what went before counts as gone.
            self.passed = self.sent;
            self.passed_at = now;
            self.before_at = now;
        }
        self.sent += len as u64;
        let haste = self.hasty && self.known.is_none();
        let takes = self.time_of(len) / if haste { HASTE } else { 1 };
        self.free_at = self.free_at.max(now) + takes;
        Mark {
            len: len as u64,
            end: self.sent,
            sent_at: now,
            due: self.free_at,
            passed: self.passed,
            passed_at: self.passed_at,
            before_at: self.before_at,
            full,
        }
    }

    /// Whether a frame has arrived or was lost.
    pub(crate) fn decided(&mut self, mark: &Mark, lost: bool) {
        self.frames += 1.0;
        self.bytes += mark.len as f64;
        self.lost += f64::from(u8::from(lost));
        if self.frames > MEMORY || self.lost > LOSSES {
            for sum in [&mut self.frames, &mut self.bytes, &mut self.lost] {
                *sum /= 2.0;
            }
        }
    }

    /// Everything up to a mark has left the line, lost or not.
    pub(crate) fn passed_by(&mut self, now: Instant, mark: &Mark) {
        if self.turns {
            self.passed = self.passed.max(mark.end);
            return;
        }
        let sample = seconds(now, mark.due);
        let off = (sample - self.delay()).abs();
        self.jitter += (off - self.jitter) / 8.0;
        self.delays.add(now, -sample, DELAY_SPAN);
        if mark.end <= self.passed {
            return;
        }
        let took = seconds(now, mark.passed_at).max(seconds(mark.sent_at, mark.before_at));
        if took > 0.0 && (mark.full || self.known.is_none()) {
            let rate = (mark.end - mark.passed) as f64 / took;
            self.rates.add(now, rate, RATE_SPAN);
        }
        self.passed = mark.end;
        self.passed_at = now;
        self.before_at = mark.sent_at;
        // It may be through earlier than thought.
        let through = now.checked_sub(Duration::from_secs_f64(self.delay()));
        if let Some(through) = through.filter(|_| self.rate().is_some()) {
            let left = usize::try_from(self.sent - mark.end).unwrap_or(usize::MAX);
            self.free_at = self.free_at.min(through + self.time_of(left));
        }
    }

    /// When the line has so little left to do that more should be written to it.
    pub(crate) fn drained_at(&self) -> Instant {
        self.commit_at()
    }

    /// Nothing is on the line, by all that is known.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.free_at <= now
    }

    /// Payload of the next frame.
    pub(crate) fn payload(&self) -> usize {
        let longest = match self.rate() {
            Some(rate) => (rate * FRAME_TIME)
                .max(FRAME_LEAST)
                .min(rate * FRAME_TIME_MAX),
            None => FRAME_LEAST,
        };
        // Two thirds of a loss ahead of the first one: an unknown line is taken for a fair one.
        let mean = (self.bytes + 512.0) / (self.frames + 1.0);
        let p = ((self.lost + 0.02) / (self.frames + 1.0)).min(0.95);
        // A long frame hides how many of its bytes were damaged.
        let q = -(-p).ln_1p() / mean;
        let best = (OVERHEAD / q).sqrt();
        (best.min(longest) as usize).clamp(PAYLOAD_MIN, self.payload_max)
    }

    /// Most wire bytes in flight.
    fn flight(&self, payload: usize) -> f64 {
        let frames = 2.0 * (payload as f64 * 1.01 + OVERHEAD);
        match self.rate() {
            None => FIRST_FLIGHT,
            Some(rate) => {
                let slack = if self.known.is_some() { AHEAD } else { FILL };
                rate * (self.delay() + 2.0 * self.jitter + slack) + frames + ACK
            }
        }
    }

    /// Whether a frame of so much payload may go, with this one the newest in flight; if not, when to
    /// ask again unless something is acknowledged before.
    pub(crate) fn may_send(
        &self,
        now: Instant,
        payload: usize,
        partial: bool,
        newest: Option<&Mark>,
    ) -> Result<(), Option<Instant>> {
        let out = newest.map_or(0, |mark| mark.end.saturating_sub(self.passed)) as f64;
        if newest.is_some() && out + payload as f64 + OVERHEAD > self.flight(payload) {
            return Err(None);
        }
        // Where the rate is measured, full frames have to run ahead of it, or it would never grow.
        if self.known.is_some() || partial {
            let at = self.commit_at();
            if at > now {
                return Err(Some(at));
            }
        }
        Ok(())
    }

    /// When an acknowledgement may go that nothing else goes with, and that is due since then: a queue of
    /// them would only be late, and what the application answers may carry it; unless something is missing.
    pub(crate) fn ack_at(&self, since: Instant, gaps: bool) -> Instant {
        let queue = self.known.map(|_| Duration::from_secs_f64(ACK_AHEAD));
        let free = queue.and_then(|queue| self.free_at.checked_sub(queue));
        let answer = if gaps { 0.0 } else { ANSWER };
        let answered = since + Duration::from_secs_f64(answer);
        free.map_or(since, |free| free.max(answered))
    }

    /// When the next frame is to be cut.
    pub(crate) fn commit_at(&self) -> Instant {
        let ahead = Duration::from_secs_f64(AHEAD);
        self.free_at.checked_sub(ahead).unwrap_or(self.free_at)
    }

    /// How many bytes may wait here to be cut into frames, of which so many wait already.
    ///
    /// What is on the line and what waits are together one frame and what the line takes 20 ms for, and the
    /// part of a frame that a writer is woken for: so when a frame is cut, there is a full one.
    pub(crate) fn room(&self, now: Instant, waiting: u64) -> usize {
        let (most, below) = match self.rate() {
            Some(rate) => {
                let frame = self.payload() as f64 + OVERHEAD;
                let queue = rate * seconds(self.free_at, now);
                let most = frame + frame / Self::WORTH as f64;
                (most + rate * AHEAD.max(2.0 * self.jitter), queue)
            }
            None => (FIRST_FLIGHT, 0.0),
        };
        (most - below - waiting as f64).max(0.0) as usize
    }

    /// When the acknowledgement of what went with this mark is overdue. `other`: bytes that the peer
    /// may be sending before it.
    pub(crate) fn overdue(&self, mark: &Mark, other: usize) -> Instant {
        let patience = self.delay() + (4.0 * self.jitter).max(AHEAD);
        mark.due + Duration::from_secs_f64(patience) + self.time_of(other)
    }
}

#[cfg(test)]
impl Mark {
    pub(crate) fn for_tests(now: Instant) -> Self {
        Line::new(now, None, PAYLOAD_MAX).write(now, 1, true, false)
    }
}
