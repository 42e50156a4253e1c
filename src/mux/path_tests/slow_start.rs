//! A transport that starts slowly, as TCP does: ten segments at first, and for each that is acknowledged one more (RFC 5681, RFC 6928). What
//! it takes from the mux is twice of that, as Linux has it.

use super::{Instant, VecDeque};

const FIRST: usize = 14_600;

pub(super) struct SlowStart {
    window: usize,
    /// In the path.
    out: usize,
    acknowledgements: VecDeque<(Instant, usize)>,
}

impl SlowStart {
    pub(super) fn new() -> Self {
        Self {
            window: FIRST,
            out: 0,
            acknowledgements: VecDeque::new(),
        }
    }

    pub(super) fn takes(&self, waiting: usize) -> bool {
        waiting + self.out < 2 * self.window
    }

    /// Takes what has been acknowledged by now.
    pub(super) fn grow(&mut self, now: Instant) {
        while self.next().is_some_and(|at| at <= now)
            && let Some((_, len)) = self.acknowledgements.pop_front()
        {
            self.out = self.out.saturating_sub(len);
            self.window += len;
        }
    }

    /// Whether so much may go into the path, which it does then.
    pub(super) fn sends(&mut self, len: usize) -> bool {
        let sends = self.out == 0 || self.out + len <= self.window;
        self.out += if sends { len } else { 0 };
        sends
    }

    /// It has left the path, and its acknowledgement is there then.
    pub(super) fn passed(&mut self, at: Instant, len: usize) {
        self.acknowledgements.push_back((at, len));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.acknowledgements.front().map(|(at, _)| *at)
    }
}
