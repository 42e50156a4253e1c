//! One direction of a path, without IO: a buffer, a wire of some bytes a second, and a delay.
//!
//! ```text
//!   push -> [ buffer, bounded ] -> wire: rate bytes a second -> [ flight: delay ] -> pop
//! ```
//!
//! When a byte arrives follows from when the wire began to be busy, the rate, and how many bytes went before; not
//! from when anybody looked. So late wake-ups never add up, and a path that is kept busy carries exactly its rate.
//! Time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A reader is woken for so many seconds' worth of bytes at a time, so that a fast wire does not wake it for each.
const PIECE: f64 = 0.000_25;
/// … and for no less than what a UART's queue holds.
const PIECE_LEAST: f64 = 16.0;
/// … and for no more than that.
const PIECE_MOST: f64 = 64.0 * 1024.0;

/// What a path is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Bytes a second.
    pub(crate) rate: f64,
    /// Bytes that wait for the wire before the writer has to.
    pub(crate) buffer: usize,
    /// From the wire to the other end, on top of the time on the wire.
    pub(crate) delay: Duration,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Direction {
    path: Path,
    /// All bytes under way: the first `flying` have left the wire, the rest wait for it.
    bytes: VecDeque<u8>,
    flight: VecDeque<Segment>,
    flying: usize,
    /// Since when the wire has been busy at this rate, and how many bytes have left it since.
    busy_since: Instant,
    served: u64,
    closed: bool,
}

/// Bytes that followed each other on the wire without a gap.
#[derive(Debug)]
struct Segment {
    busy_since: Instant,
    rate: f64,
    /// How many bytes left the wire since `busy_since` before the first of these.
    first: u64,
    len: usize,
}

impl Direction {
    pub(crate) fn new(path: Path, now: Instant) -> Self {
        Self {
            path,
            bytes: VecDeque::new(),
            flight: VecDeque::new(),
            flying: 0,
            busy_since: now,
            served: 0,
            closed: false,
        }
    }

    /// Takes what the buffer has room for, and says how much that was.
    pub(crate) fn push(&mut self, now: Instant, bytes: &[u8]) -> usize {
        self.advance(now);
        let waiting = self.waiting();
        if waiting == 0 {
            self.busy_since = now;
            self.served = 0;
        }
        let n = bytes.len().min(self.path.buffer.saturating_sub(waiting));
        self.bytes.extend(&bytes[..n]);
        n
    }

    /// Moves what has arrived into `into`, and says how much that was.
    pub(crate) fn pop(&mut self, now: Instant, into: &mut [u8]) -> usize {
        self.advance(now);
        let mut n = 0;
        while let Some(segment) = self.flight.front_mut() {
            let out = now
                .checked_sub(self.path.delay)
                .map_or(0, |left| bytes_by(segment.busy_since, segment.rate, left));
            let there = out.saturating_sub(segment.first);
            let take = segment
                .len
                .min(usize::try_from(there).unwrap_or(usize::MAX))
                .min(into.len() - n);
            segment.first += take as u64;
            segment.len -= take;
            n += take;
            if segment.len > 0 {
                break;
            }
            self.flight.pop_front();
        }
        self.flying -= n;
        let (head, tail) = self.bytes.as_slices();
        let split = n.min(head.len());
        into[..split].copy_from_slice(&head[..split]);
        into[split..n].copy_from_slice(&tail[..n - split]);
        self.bytes.drain(..n);
        n
    }

    /// No more bytes are pushed.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Closed, and everything has been popped.
    pub(crate) fn at_end(&self) -> bool {
        self.closed && self.bytes.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The wire carries another rate from now on; what has left it arrives as it would have.
    pub(crate) fn set_rate(&mut self, now: Instant, rate: f64) {
        self.advance(now);
        self.busy_since = now;
        self.served = 0;
        self.path.rate = rate;
    }

    /// When the next bytes have arrived; `None` with nothing under way.
    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        let piece = |len: usize, rate: f64| -> u64 {
            let piece = whole((rate * PIECE).clamp(PIECE_LEAST, PIECE_MOST));
            piece.min(len as u64)
        };
        let left = if let Some(segment) = self.flight.front() {
            let last = segment.first + piece(segment.len, segment.rate);
            time_of(segment.busy_since, segment.rate, last)
        } else if self.waiting() > 0 {
            let last = self.served + piece(self.waiting(), self.path.rate);
            time_of(self.busy_since, self.path.rate, last)
        } else {
            return None;
        };
        Some(left + self.path.delay)
    }

    /// When a quarter of the buffer is free, which is when a writer is worth waking.
    pub(crate) fn next_room(&self) -> Instant {
        let keep = self.path.buffer - (self.path.buffer / 4).max(1);
        let over = self.waiting().saturating_sub(keep) as u64;
        time_of(self.busy_since, self.path.rate, self.served + over)
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.flying
    }

    /// Moves from the buffer into flight what has left the wire by now.
    fn advance(&mut self, now: Instant) {
        let done = bytes_by(self.busy_since, self.path.rate, now).saturating_sub(self.served);
        let n = usize::try_from(done)
            .unwrap_or(usize::MAX)
            .min(self.waiting());
        if n == 0 {
            return;
        }
        match self.flight.back_mut() {
            Some(last)
                if last.busy_since == self.busy_since
                    && last.first + last.len as u64 == self.served =>
            {
                last.len += n;
            }
            _ => self.flight.push_back(Segment {
                busy_since: self.busy_since,
                rate: self.path.rate,
                first: self.served,
                len: n,
            }),
        }
        self.flying += n;
        self.served += n as u64;
    }
}

/// How many whole bytes have left the wire by `now`. A millionth of a byte is forgiven, so that the time that
/// [`time_of`] gives for a byte is one at which it has left.
fn bytes_by(busy_since: Instant, rate: f64, now: Instant) -> u64 {
    whole(
        now.saturating_duration_since(busy_since)
            .as_secs_f64()
            .mul_add(rate, 1e-6),
    )
}

/// When so many bytes have left the wire.
#[allow(clippy::cast_precision_loss)] // exact up to 2^53 bytes
fn time_of(busy_since: Instant, rate: f64, bytes: u64) -> Instant {
    // One nanosecond more, for what the conversion rounds off.
    busy_since + Duration::from_secs_f64(bytes as f64 / rate) + Duration::from_nanos(1)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts of bytes
fn whole(bytes: f64) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(rate: f64, buffer: usize, delay: Duration) -> Path {
        Path {
            rate,
            buffer,
            delay,
        }
    }

    fn drain(direction: &mut Direction, now: Instant) -> Vec<u8> {
        let mut into = vec![0; 1 << 20];
        let n = direction.pop(now, &mut into);
        into.truncate(n);
        into
    }

    #[test]
    fn bytes_take_their_time_on_the_wire_and_then_the_delay() {
        let start = Instant::now();
        let mut wire = Direction::new(path(1000.0, 100, 50 * MS), start);
        assert_eq!(wire.push(start, b"abc"), 3);
        assert_eq!(drain(&mut wire, start + 50 * MS), b"");
        assert_eq!(drain(&mut wire, start + 52 * MS), b"ab");
        assert_eq!(drain(&mut wire, start + 53 * MS), b"c");
        assert_eq!(wire.next_arrival(), None);
    }

    #[test]
    fn a_full_buffer_takes_no_more_until_the_wire_has() {
        let start = Instant::now();
        let mut wire = Direction::new(path(1000.0, 8, Duration::ZERO), start);
        assert_eq!(wire.push(start, &[1; 20]), 8);
        assert_eq!(wire.push(start, &[1; 20]), 0);
        let room = wire.next_room();
        assert!(room > start + 2 * MS && room < start + 3 * MS);
        assert_eq!(wire.push(room, &[1; 20]), 2);
    }

    /// A thousand late looks at a wire that is kept busy cost it nothing.
    #[test]
    fn late_looks_do_not_add_up() {
        let start = Instant::now();
        let mut wire = Direction::new(path(11_520.0, 4096, Duration::ZERO), start);
        let (mut now, mut out, mut sent) = (start, 0_usize, 0_usize);
        for i in 0..1000_u32 {
            let data: Vec<u8> = (0..251).cycle().skip(sent % 251).take(4096).collect();
            sent += wire.push(now, &data);
            // Between 3 and 103 ms late, with a microsecond here and there.
            now += Duration::from_micros(u64::from(3000 + i * 7919 % 100_000));
            for byte in drain(&mut wire, now) {
                assert_eq!(usize::from(byte), out % 251);
                out += 1;
            }
        }
        let due = (now - start).as_secs_f64() * 11_520.0;
        assert!(
            (crate::measure::number(out) - due).abs() < 2.0,
            "{out} of {due}"
        );
    }

    #[test]
    fn what_has_left_the_wire_keeps_its_time_when_the_rate_falls() {
        let start = Instant::now();
        let mut wire = Direction::new(path(1000.0, 100, 20 * MS), start);
        wire.push(start, &[7; 20]);
        wire.set_rate(start + 10 * MS, 100.0);
        assert_eq!(drain(&mut wire, start + 30 * MS).len(), 10);
        // The other ten at a tenth of the rate.
        assert_eq!(drain(&mut wire, start + 79 * MS).len(), 4);
        assert_eq!(drain(&mut wire, start + 131 * MS).len(), 6);
    }

    #[test]
    fn the_times_that_are_named_are_times_when_there_is_something() {
        let start = Instant::now();
        let mut wire = Direction::new(path(11_520.0, 1000, 3 * MS), start);
        wire.push(start, &[0; 100]);
        let mut got = 0;
        while let Some(at) = wire.next_arrival() {
            let n = drain(&mut wire, at).len();
            assert!(n > 0);
            got += n;
        }
        assert_eq!(got, 100);
        assert!(!wire.at_end());
        wire.close();
        assert!(wire.at_end());
    }
}
