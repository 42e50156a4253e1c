//! Bytes that have arrived and wait to be used: filled at the end, consumed at the front.
//!
//! It starts without memory, grows only when it was found full, up to a bound that its owner
//! names, and gives its memory back when it runs empty after little has come, so that an idle layer
//! costs nothing, and a busy one does not begin anew whenever it has caught up.

/// The first allocation.
const SMALL: usize = 1024;

/// By how much a full one grows: bulk is read in full after two short reads.
const GROWTH: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that came since [`Buffer::shrink`] was last asked for.
    came: usize,
    /// It was filled to its end.
    full: bool,
}

impl Buffer {
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `n` bytes.
    pub(super) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.end - self.start, "only what is there is consumed");
        self.start = self.end.min(self.start + n);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room behind the filled bytes, at least one byte unless `most` bytes are waiting.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        // Move the rest to the front when less than half of the memory is left behind it, and grow
        // when that was not enough, or when it had been filled to its end: many small reads cost more
        // than one move, and whoever filled it has more.
        let full = std::mem::take(&mut self.full);
        if self.start > 0 && self.bytes.len() - self.end < self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if full || self.bytes.len() - self.end <= self.bytes.len() / 4 {
            let grown = (self.bytes.len() * GROWTH).clamp(SMALL, most.max(SMALL));
            if grown > self.bytes.len() {
                self.bytes.resize(grown, 0);
            }
        }
        let end = self.end;
        self.bytes.get_mut(end..).unwrap_or_default()
    }

    /// Counts `n` bytes of the room as filled.
    pub(super) fn fill(&mut self, n: usize) {
        debug_assert!(self.end + n <= self.bytes.len(), "filled within the room");
        self.end = self.bytes.len().min(self.end + n);
        self.came += n;
        self.full = self.end == self.bytes.len();
    }

    /// Appends a copy of `bytes`.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(bytes);
        self.end = self.bytes.len();
    }

    /// Nothing more is there to fill it with. Gives back what an empty buffer does not need, if it was
    /// hardly used since this was last asked for.
    pub(super) fn shrink(&mut self) {
        let came = std::mem::take(&mut self.came);
        if self.is_empty() && came < self.bytes.len() / 4 {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut buffer = Buffer::default();
        let (mut sent, mut seen) = (0u8, 0u8);
        for round in 0..1000usize {
            let room = buffer.room(65_536);
            let n = room.len().min(round % 97);
            for byte in &mut room[..n] {
                *byte = sent;
                sent = sent.wrapping_add(1);
            }
            buffer.fill(n);
            buffer.extend(&[sent]);
            sent = sent.wrapping_add(1);
            let take = buffer.filled().len().min(round % 61);
            for byte in &buffer.filled()[..take] {
                assert_eq!(*byte, seen);
                seen = seen.wrapping_add(1);
            }
            buffer.consume(take);
        }
        for byte in buffer.filled() {
            assert_eq!(*byte, seen);
            seen = seen.wrapping_add(1);
        }
        assert_eq!(sent, seen);
    }

    #[test]
    fn there_is_room_behind_any_number_of_bytes_below_the_bound() {
        for n in 0..10_000 {
            let mut buffer = Buffer::default();
            buffer.extend(&vec![0; n]);
            assert!(!buffer.room(10_000).is_empty(), "{n} bytes");
        }
    }

    #[test]
    fn it_grows_to_its_bound_and_gives_back_what_it_took() {
        let mut buffer = Buffer::default();
        loop {
            let n = buffer.room(20_000).len();
            if n == 0 {
                break;
            }
            buffer.fill(n);
        }
        assert_eq!(buffer.filled().len(), 20_000);
        buffer.consume(20_000);
        buffer.shrink();
        assert_eq!(buffer.bytes.len(), 20_000, "it was used");
        buffer.room(20_000);
        buffer.fill(100);
        buffer.consume(100);
        buffer.shrink();
        assert_eq!(buffer.bytes.capacity(), 0, "hardly used");
    }
}
