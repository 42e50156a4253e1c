//! A serial line that a seed repeats, one direction of it, in virtual time.
//!
//! It has a driver's buffer that bytes wait in, a rate at which they leave it one after the other, and a
//! delay; on the way they are damaged, lost or joined by others. Time is an argument of every call, so
//! that seconds of line take milliseconds of test, and every run is the same.
//!
//! ```text
//!   write --> [ buffer ] --rate--> bit errors, drops, insertions, bursts, cuts --delay--> read
//! ```
//!
//! Bytes come out in pieces of a few, as from a UART's own buffer, or what there is when the line falls
//! silent.

// Times are kept in seconds, and chances drawn from floating point numbers.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pattern::Rng;

/// What a line does to bytes. The default does nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Noise {
    /// Chance that a bit flips.
    pub bit_errors: f64,
    /// Chance that a byte vanishes.
    pub drops: f64,
    /// Chance that a random byte comes in before a byte.
    pub insertions: f64,
    /// Every so often, for so long, all bytes are random ones.
    pub burst: Option<(Duration, Duration)>,
    /// From a time after the start, for so long, nothing arrives.
    pub cuts: Vec<(Duration, Duration)>,
    /// Bytes that something on the way keeps for itself, as XON and XOFF.
    pub eaten: Vec<u8>,
}

/// A line without noise.
#[derive(Clone, Debug, PartialEq)]
pub struct LineSettings {
    /// Bytes a second.
    pub rate: f64,
    /// From the last bit of a byte to its arrival.
    pub delay: Duration,
    /// Bytes that the driver holds.
    pub buffer: usize,
    /// Bytes that the receiver's UART holds before it tells.
    pub fifo: usize,
    /// What happens to them.
    pub noise: Noise,
}

impl LineSettings {
    /// A clean line of so many bytes a second, without delay, with the buffers that are usual.
    pub fn new(rate: f64) -> Self {
        Self {
            rate,
            delay: Duration::ZERO,
            buffer: 4096,
            fifo: 16,
            noise: Noise::default(),
        }
    }
}

/// One direction of a line.
#[derive(Debug)]
pub struct Line {
    settings: LineSettings,
    start: Instant,
    /// Written, and not on the line yet.
    queue: VecDeque<u8>,
    /// Seconds after the start until which the line was used.
    used: f64,
    arriving: VecDeque<(Instant, Vec<u8>)>,
    rng: Rng,
    /// Bits, bytes and bytes until the next of each kind.
    next_flip: u64,
    next_drop: u64,
    next_insertion: u64,
    carried: u64,
    /// When it was used, in seconds after the start.
    busy: Busy,
    /// What its own sender hears, where lines echo.
    echo: VecDeque<(Instant, Vec<u8>)>,
    collided: u64,
}

/// The times at which a line was, or will be, used: from and to, in seconds after the start.
#[derive(Debug, Default)]
pub(super) struct Busy(VecDeque<(f64, f64)>);

/// Seconds after which nobody asks any more.
const FORGET: f64 = 60.0;

impl Busy {
    /// So many seconds more, from then on.
    fn add(&mut self, from: f64, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        match self.0.back_mut().filter(|(_, to)| from <= *to) {
            Some((_, to)) => *to += seconds,
            None => self.0.push_back((from, from + seconds)),
        }
        while self.0.front().is_some_and(|(_, to)| *to < from - FORGET) {
            self.0.pop_front();
        }
    }

    fn meets(&self, from: f64, to: f64) -> bool {
        // In order, and those that are asked for are among the last.
        let late = self.0.iter().rev().take_while(|(_, end)| from < *end);
        late.into_iter().any(|(begin, _)| *begin < to)
    }
}

impl Line {
    /// A line that begins to exist at `start`.
    pub fn new(settings: LineSettings, seed: u64, start: Instant) -> Self {
        let mut line = Self {
            settings,
            start,
            queue: VecDeque::new(),
            used: 0.0,
            arriving: VecDeque::new(),
            rng: Rng::new(seed),
            next_flip: 0,
            next_drop: 0,
            next_insertion: 0,
            carried: 0,
            busy: Busy::default(),
            echo: VecDeque::new(),
            collided: 0,
        };
        line.next_flip = line.gap(line.settings.noise.bit_errors);
        line.next_drop = line.gap(line.settings.noise.drops);
        line.next_insertion = line.gap(line.settings.noise.insertions);
        line
    }

    /// Gives bytes to the driver; says how many it took.
    pub fn write(&mut self, now: Instant, bytes: &[u8]) -> usize {
        self.advance(now);
        if self.queue.is_empty() {
            self.used = self.used.max(self.seconds(now));
        }
        let room = self.settings.buffer.saturating_sub(self.queue.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.queue.extend(taken);
        let queued = self.queue.len() as f64 / self.settings.rate;
        let more = taken.len() as f64 / self.settings.rate;
        self.busy.add(self.used + queued - more, more);
        taken.len()
    }

    /// Bytes that wait in the driver.
    pub fn queued(&mut self, now: Instant) -> usize {
        self.advance(now);
        self.queue.len()
    }

    /// Bytes that the driver would take now.
    pub fn room(&mut self, now: Instant) -> usize {
        let queued = self.queued(now);
        self.settings.buffer.saturating_sub(queued)
    }

    /// Throws away what is in the driver and on the way, as closing and opening a port does.
    pub fn flush(&mut self) {
        self.queue.clear();
        self.arriving.clear();
        self.echo.clear();
        if let Some((from, to)) = self.busy.0.back_mut() {
            *to = to.min(self.used).max(*from);
        }
    }

    /// What has arrived by now.
    pub fn read(&mut self, now: Instant) -> Vec<u8> {
        self.advance(now);
        let pieces = self.take(now);
        pieces.into_iter().flat_map(|(_, piece)| piece).collect()
    }

    /// The same in pieces, with the time of each.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(Instant, Vec<u8>)> {
        let by_now = self.arriving.partition_point(|(at, _)| *at <= now);
        self.arriving.drain(..by_now).collect()
    }

    /// What its sender has heard of itself by now.
    pub(super) fn take_echo(&mut self, now: Instant) -> Vec<(Instant, Vec<u8>)> {
        let by_now = self.echo.partition_point(|(at, _)| *at <= now);
        self.echo.drain(..by_now).collect()
    }

    pub(super) fn busy(&self) -> &Busy {
        &self.busy
    }

    /// Bytes that went while the other end of shared wires sent.
    pub(super) fn collided(&self) -> u64 {
        self.collided
    }

    /// When the next bytes arrive, or room comes in a full buffer.
    pub fn next(&self) -> Option<Instant> {
        [self.through(), self.next_taken(), self.next_echo()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When what can be taken arrives.
    pub(super) fn next_taken(&self) -> Option<Instant> {
        self.arriving.front().map(|(at, _)| *at)
    }

    /// When the sender hears of itself.
    pub(super) fn next_echo(&self) -> Option<Instant> {
        self.echo.front().map(|(at, _)| *at)
    }

    /// When the next piece has left the driver.
    pub(super) fn through(&self) -> Option<Instant> {
        let piece = self.settings.fifo.min(self.queue.len());
        // A little later than exactly, so that rounding never leaves a byte behind.
        (piece > 0).then(|| {
            self.start
                + Duration::from_secs_f64(self.used + piece as f64 / self.settings.rate + 1e-8)
        })
    }

    /// Bytes that have left the driver so far.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    /// Sends what has had the time to leave.
    fn advance(&mut self, now: Instant) {
        self.advance_beside(now, None, false);
    }

    /// The same where the other end may be using the wires, and where the sender hears itself.
    pub(super) fn advance_beside(&mut self, now: Instant, other: Option<&Busy>, echo: bool) {
        let rate = self.settings.rate;
        loop {
            let piece = self.settings.fifo.min(self.queue.len()).max(1);
            let passed = ((self.seconds(now) - self.used) * rate) as usize;
            if self.queue.is_empty() || passed < piece {
                return;
            }
            let sent: Vec<u8> = self.queue.drain(..piece).collect();
            let from = self.used;
            self.used += piece as f64 / rate;
            self.carried += piece as u64;
            let at = self.start + Duration::from_secs_f64(self.used) + self.settings.delay;
            let mut arrived = Vec::with_capacity(piece + 1);
            for (index, byte) in sent.into_iter().enumerate() {
                let from = from + index as f64 / rate;
                let collides = other.is_some_and(|other| other.meets(from, from + 1.0 / rate));
                self.collided += u64::from(collides);
                self.pass(byte, collides, &mut arrived);
            }
            if echo && !arrived.is_empty() {
                self.echo.push_back((at, arrived.clone()));
            }
            if !arrived.is_empty() {
                self.arriving.push_back((at, arrived));
            }
        }
    }

    /// What becomes of a byte on the line.
    fn pass(&mut self, byte: u8, collides: bool, arrived: &mut Vec<u8>) {
        let at = Duration::from_secs_f64(self.used);
        let before = arrived.len();
        let Noise {
            bit_errors,
            drops,
            insertions,
            ..
        } = self.settings.noise;
        if self.next_insertion == 0 {
            arrived.push(self.rng.next_u64() as u8);
            self.next_insertion = self.gap(insertions).saturating_add(1);
        }
        self.next_insertion -= 1;
        let mut byte = byte;
        while self.next_flip < 8 {
            byte ^= 1 << self.next_flip;
            self.next_flip += 1 + self.gap(bit_errors);
        }
        self.next_flip -= 8;
        if collides || self.in_burst(at) {
            byte = self.rng.next_u64() as u8;
        }
        if self.next_drop == 0 {
            self.next_drop = self.gap(drops).saturating_add(1);
        } else if !self.settings.noise.eaten.contains(&byte) {
            arrived.push(byte);
        }
        self.next_drop -= 1;
        if self.is_cut(at) {
            arrived.truncate(before);
        }
    }

    fn in_burst(&self, at: Duration) -> bool {
        self.settings.noise.burst.is_some_and(|(every, long)| {
            let (at, every) = (at.as_secs_f64(), every.as_secs_f64());
            // Not at the very start: the first one ends the first period.
            at % every >= every - long.as_secs_f64()
        })
    }

    fn is_cut(&self, at: Duration) -> bool {
        let cuts = &self.settings.noise.cuts;
        cuts.iter()
            .any(|(from, long)| at >= *from && at < *from + *long)
    }

    /// How many pass before the next one to which something happens with this chance.
    fn gap(&mut self, chance: f64) -> u64 {
        if chance <= 0.0 {
            return u64::MAX / 2;
        }
        // In (0, 1].
        let drawn = 1.0 - (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (drawn.ln() / (-chance.min(1.0)).ln_1p()) as u64
    }
}
