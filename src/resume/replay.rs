//! The bytes that were given and not acknowledged, so that they can be sent again.
//!
//! ```text
//!   chunks   [########][########][#####   ]     32 KiB each, filled one after the other
//!               ^                     ^
//!              base                  end        offsets in the stream
//! ```
//!
//! All chunks but the last are full, so the chunk of an offset is found by a division. What was acknowledged is
//! used again for the next bytes, the last one first: the caches still hold it, and no page has to be faulted in.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Bytes in a chunk.
pub(crate) const CHUNK: usize = 32 << 10;

/// Bytes of the first chunk of a stream that says little.
const FIRST: usize = 2 << 10;

/// Empty chunks that are kept for the next bytes: 1 MiB while bulk is sent, see [`Replay::rest`].
const SPARE: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Replay {
    chunks: VecDeque<Vec<u8>>,
    spares: Vec<Vec<u8>>,
    /// The offset of the first byte in `chunks`, acknowledged or not.
    start: u64,
    /// All below is acknowledged; in the first chunk, or behind the last byte.
    base: u64,
    /// Behind the last byte.
    end: u64,
}

impl Replay {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are held.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.end - self.base).unwrap_or(usize::MAX)
    }

    /// Bytes of the chunks that are in use, those in front that are acknowledged included.
    pub(crate) fn in_chunks(&self) -> usize {
        usize::try_from(self.end - self.start).unwrap_or(usize::MAX)
    }

    /// Memory that is taken, whole chunks and the empty ones included.
    pub(crate) fn taken(&self) -> usize {
        (self.chunks.len() + self.spares.len()) * CHUNK
    }

    /// Takes `room` bytes at most from the front of `parts`, and says how many.
    pub(crate) fn push(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let mut left = room;
        for part in parts {
            let mut data = part.get(..left.min(part.len())).unwrap_or_default();
            left -= data.len();
            while !data.is_empty() {
                data = self.fill(data);
            }
            if left == 0 {
                break;
            }
        }
        let taken = room - left;
        self.end += taken as u64;
        taken
    }

    /// Appends to the last chunk, or to a fresh one, and returns what did not fit.
    fn fill<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        if self.chunks.back().is_none_or(|last| last.len() == CHUNK) {
            let fresh = self.spares.pop().unwrap_or_else(|| {
                let first = self.chunks.is_empty() && data.len() <= FIRST;
                Vec::with_capacity(if first { FIRST } else { CHUNK })
            });
            self.chunks.push_back(fresh);
        }
        let Some(last) = self.chunks.back_mut() else {
            return &[];
        };
        let (now, later) = data.split_at(data.len().min(CHUNK - last.len()));
        let length = last.len() + now.len();
        if last.capacity() < length {
            // It was a small one, and becomes a full one.
            last.reserve_exact(CHUNK - last.len());
        }
        last.extend_from_slice(now);
        later
    }

    /// Fills `slices` with what is held from `at` on, `length` bytes at most, and says how many are used.
    pub(crate) fn slices<'a>(
        &'a self,
        at: u64,
        length: usize,
        slices: &mut [IoSlice<'a>],
    ) -> usize {
        debug_assert!(
            (self.base..=self.end).contains(&at),
            "bytes that are not held"
        );
        let skip = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let (first, mut from) = (skip / CHUNK, skip % CHUNK);
        let (mut used, mut left) = (0, length);
        for (slice, chunk) in slices
            .iter_mut()
            .zip(self.chunks.range(first.min(self.chunks.len())..))
        {
            let bytes = chunk.get(from..).unwrap_or_default();
            let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            *slice = IoSlice::new(bytes);
            (from, left, used) = (0, left - bytes.len(), used + 1);
        }
        used
    }

    /// Appends `length` bytes from `at` on, which are held, to `to`.
    pub(crate) fn copy_to(&self, at: u64, length: usize, to: &mut Vec<u8>) {
        let mut slices = [IoSlice::new(&[]); 2];
        let used = self.slices(at, length, &mut slices);
        for slice in slices.iter().take(used) {
            to.extend_from_slice(slice);
        }
    }

    /// Lets go of all below `offset`; keeps empty chunks for the next bytes, up to `most` bytes with those in use.
    pub(crate) fn acknowledge(&mut self, offset: u64, most: usize) {
        self.base = offset.clamp(self.base, self.end);
        while let Some(first) = self.chunks.front() {
            let behind = self.start + first.len() as u64;
            let full = first.len() == CHUNK;
            if behind > self.base {
                break;
            }
            if !full && self.chunks.len() == 1 {
                // The last one, and used up: it is filled anew.
                if let Some(last) = self.chunks.front_mut() {
                    last.clear();
                }
                self.start = self.base;
                break;
            }
            self.start = behind;
            if let Some(mut chunk) = self.chunks.pop_front()
                && self.spares.len() < SPARE
                && self.taken() + CHUNK <= most
            {
                chunk.clear();
                self.spares.push(chunk);
            }
        }
    }

    /// Memory is held that nothing needs.
    pub(crate) fn may_rest(&self) -> bool {
        self.len() == 0 && !(self.spares.is_empty() && self.chunks.is_empty())
    }

    /// Nothing was sent for a while: holds no memory beyond what it must.
    pub(crate) fn rest(&mut self) {
        self.spares = Vec::new();
        if self.len() == 0 {
            self.chunks = VecDeque::new();
            self.start = self.end;
        }
    }

    /// Memory that is taken.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let chunks = self.chunks.iter().chain(&self.spares);
        chunks.map(Vec::capacity).sum()
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // patterns of bytes
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(at: u64) -> u8 {
        (at ^ (at >> 8) ^ (at >> 16)) as u8
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Acknowledge(u16),
        Look(u16, usize),
        Rest,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3 * CHUNK).prop_map(Step::Push),
            (0..300_usize).prop_map(Step::Push),
            any::<u16>().prop_map(Step::Acknowledge),
            Just(Step::Acknowledge(u16::MAX)),
            (any::<u16>(), 0..3 * CHUNK).prop_map(|(at, length)| Step::Look(at, length)),
            Just(Step::Rest),
        ]
    }

    proptest! {
        #[test]
        fn it_gives_back_what_was_pushed(steps in prop::collection::vec(step(), 1..60)) {
            const ROOM: usize = 5 * CHUNK;
            let mut replay = Replay::default();
            for step in steps {
                match step {
                    Step::Push(n) => {
                        let data: Vec<u8> = (0..n as u64).map(|i| pattern(replay.end() + i)).collect();
                        let (one, two) = data.split_at(n / 3);
                        let room = ROOM - replay.len();
                        let taken = replay.push(&[IoSlice::new(one), IoSlice::new(two)], room);
                        prop_assert_eq!(taken, n.min(room));
                    }
                    Step::Acknowledge(share) => {
                        let held = replay.len() as u64;
                        let to = replay.base() + held * u64::from(share) / u64::from(u16::MAX);
                        replay.acknowledge(to, usize::MAX);
                        prop_assert_eq!(replay.base(), to);
                    }
                    Step::Look(share, length) => {
                        let held = replay.len() as u64;
                        let at = replay.base() + held * u64::from(share) / u64::from(u16::MAX);
                        let mut slices = [IoSlice::new(&[]); 16];
                        let used = replay.slices(at, length, &mut slices);
                        let found: Vec<u8> = slices[..used].iter().flat_map(|part| part.to_vec()).collect();
                        let there = (replay.end() - at).min(length as u64);
                        prop_assert_eq!(found.len() as u64, there);
                        prop_assert!((0..there).all(|i| found[i as usize] == pattern(at + i)));
                        let short = there.min(CHUNK as u64);
                        let mut copied = vec![1, 2];
                        replay.copy_to(at, short as usize, &mut copied);
                        prop_assert_eq!(&copied[..2], &[1, 2]);
                        prop_assert!(copied[2..] == found[..short as usize]);
                    }
                    Step::Rest => {
                        replay.rest();
                        prop_assert!(replay.memory() <= replay.len() + 2 * CHUNK);
                    }
                }
                prop_assert!(replay.memory() <= ROOM + (SPARE + 2) * CHUNK);
            }
        }
    }

    #[test]
    fn a_chunk_that_was_acknowledged_is_used_again() {
        let mut replay = Replay::default();
        for _ in 0..1000 {
            replay.push(&[IoSlice::new(&vec![7; CHUNK])], usize::MAX);
            replay.push(&[IoSlice::new(&[7; 100])], usize::MAX);
            replay.acknowledge(replay.end(), usize::MAX);
        }
        assert!(replay.memory() <= 3 * CHUNK, "{}", replay.memory());
    }
}
