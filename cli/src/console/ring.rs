//! The last of a command's output, with its place in all of it.
//!
//! ```text
//!   0 ........ start ============ total      = is kept
//! ```
//!
//! Who reads it has a place of its own, and may fall behind: what is not kept any more it does not get.

use std::collections::VecDeque;

/// Most that is kept: some hundred lines, and every screen of a full-screen program.
pub(crate) const RING: usize = 64 * 1024;

/// What is looked through for the end of a line that was cut off at its beginning.
const LINE: usize = 4 * 1024;

#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    start: u64,
}

impl Ring {
    pub(crate) fn push(&mut self, more: &[u8]) {
        let more = match more.len().checked_sub(RING) {
            Some(lost @ 1..) => {
                self.start += lost as u64;
                more.get(lost..).unwrap_or_default()
            }
            _ => more,
        };
        let over = (self.bytes.len() + more.len()).saturating_sub(RING);
        self.bytes.drain(..over);
        self.start += over as u64;
        // It never grows beyond what it is counted as.
        let wanted = self.bytes.len() + more.len();
        if wanted > self.bytes.capacity() {
            let room = wanted.next_power_of_two().min(RING);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend(more);
    }

    /// How much output there was.
    pub(crate) fn total(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// From where it is kept.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The same, at the beginning of a line where there is one near.
    pub(crate) fn first_line(&self) -> u64 {
        if self.start == 0 {
            return 0;
        }
        let end = self.bytes.iter().take(LINE).position(|b| *b == b'\n');
        self.start + end.map_or(0, |end| end as u64 + 1)
    }

    /// What is kept from a place on, or some of it; nothing at the end.
    pub(crate) fn from(&self, at: u64) -> &[u8] {
        let at = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let (first, second) = self.bytes.as_slices();
        match first.get(at..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => second
                .get(at.saturating_sub(first.len())..)
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ring: &Ring, mut at: u64) -> Vec<u8> {
        let mut all = Vec::new();
        while at < ring.total() {
            let some = ring.from(at);
            assert!(!some.is_empty());
            all.extend(some);
            at += some.len() as u64;
        }
        all
    }

    #[test]
    fn the_last_is_kept_in_bounded_memory() {
        let mut ring = Ring::default();
        assert!(ring.from(0).is_empty());
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        for (n, piece) in data.chunks(777).enumerate() {
            ring.push(piece);
            let so_far = (n * 777 + piece.len()) as u64;
            assert_eq!(ring.total(), so_far);
            assert!(ring.bytes.capacity() <= RING);
        }
        assert_eq!(ring.start(), data.len() as u64 - RING as u64);
        assert!(all(&ring, ring.start()) == data[data.len() - RING..]);
        assert!(all(&ring, 299_000) == data[299_000..]);
        assert!(ring.from(ring.total()).is_empty());
        ring.push(&data);
        assert_eq!(ring.total(), 2 * data.len() as u64);
        assert!(all(&ring, ring.start()) == data[data.len() - RING..]);
    }

    #[test]
    fn it_is_shown_from_the_beginning_of_a_line() {
        let mut ring = Ring::default();
        ring.push(b"one\ntwo\n");
        assert_eq!(ring.first_line(), 0);
        ring.push(&vec![b'x'; RING - 5]);
        assert_eq!(ring.start(), 3);
        assert_eq!(ring.first_line(), 4);
        ring.push(&vec![b'x'; RING]);
        assert_eq!(ring.first_line(), ring.start());
    }
}
