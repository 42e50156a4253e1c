//! What goes to the wire in one write: frame headers and small bodies side by side in one buffer,
//! large bodies by reference between them.
//!
//! A batch is at most about 64 KiB, so that an urgent frame never stands behind more than that in
//! this layer, and so that one write fills several TLS records.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, Bytes};

use super::frame::{Frame, HEADER_LEN};

/// No frame is started in a batch that has reached this size.
pub(crate) const BATCH_MAX: usize = 64 << 10;

/// The plaintext of a full TLS record. Frames are cut so that they end where a record ends.
pub(crate) const TLS_RECORD: usize = 16 << 10;

/// Pieces that one vectored write takes.
pub(crate) const MAX_SLICES: usize = 64;

/// Bodies up to this size are copied beside their header, so that small frames share a slice.
pub(crate) const COPY_MAX: usize = 512;

#[derive(Debug)]
enum Part {
    /// A range of `arena`.
    Arena(Range<usize>),
    Body(Bytes),
}

/// One write in the making, or partly done.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    arena: Vec<u8>,
    parts: VecDeque<Part>,
    /// Bytes not yet written.
    len: usize,
    /// Bytes put in since the batch was last empty.
    filled: usize,
    /// Bytes that the layer below puts in front of each batch.
    lead: usize,
}

impl Batch {
    /// For a layer below that puts so many bytes in front of each batch, at most: frames are cut so that they fill TLS
    /// records together with those.
    pub(crate) fn behind(lead: usize) -> Self {
        Self {
            lead,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes put in since the batch was last empty.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether another frame may be started.
    pub(crate) fn has_room(&self) -> bool {
        // A data frame takes at most a handful of parts more than it should: its header, and the
        // pieces of its body.
        self.left() > 0 && self.parts.len() < MAX_SLICES
    }

    /// Bytes that still fit into the TLS record that the next frame begins in, header included.
    pub(crate) fn record_left(&self) -> usize {
        TLS_RECORD - (self.lead + self.filled) % TLS_RECORD
    }

    /// Bytes that still fit into the batch.
    pub(crate) fn left(&self) -> usize {
        BATCH_MAX.saturating_sub(self.lead + self.filled)
    }

    /// Appends a header.
    pub(crate) fn push_frame(&mut self, frame: Frame) {
        self.copy(&frame.emit());
    }

    /// Appends a piece of the body of the last frame.
    pub(crate) fn push_body(&mut self, body: Bytes) {
        if body.len() <= COPY_MAX {
            self.copy(&body);
        } else {
            self.len += body.len();
            self.filled += body.len();
            self.parts.push_back(Part::Body(body));
        }
    }

    fn copy(&mut self, data: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(data);
        let end = self.arena.len();
        match self.parts.back_mut() {
            Some(Part::Arena(range)) if range.end == start => range.end = end,
            _ => {
                if self.parts.capacity() == 0 {
                    // An idle session never has more.
                    self.parts.reserve_exact(1);
                }
                self.parts.push_back(Part::Arena(start..end));
            }
        }
        self.len += data.len();
        self.filled += data.len();
    }

    fn bytes_of<'a>(arena: &'a [u8], part: &'a Part) -> &'a [u8] {
        match part {
            Part::Arena(range) => arena.get(range.clone()).unwrap_or_default(),
            Part::Body(body) => body,
        }
    }

    /// Fills `slices` with what is to be written next, and says how many of them are used.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(Self::bytes_of(&self.arena, part));
            used += 1;
        }
        used
    }

    /// Puts everything into one slice, for a stream below that takes no vectored write.
    pub(crate) fn join(&mut self) {
        if self.parts.len() > 1 {
            let mut joined = Vec::with_capacity(self.len);
            for part in &self.parts {
                joined.extend_from_slice(Self::bytes_of(&self.arena, part));
            }
            self.parts.clear();
            self.parts.push_back(Part::Arena(0..joined.len()));
            self.arena = joined;
        }
    }

    /// Keeps no memory, where it is empty.
    pub(crate) fn give_back(&mut self) {
        if self.is_empty() {
            (self.arena, self.parts) = (Vec::new(), VecDeque::new());
        }
    }

    /// Removes `n` bytes from the front: they are written.
    pub(crate) fn advance(&mut self, n: usize) {
        let mut n = n.min(self.len);
        self.len -= n;
        while n > 0 {
            let (left, part_len) = match self.parts.front_mut() {
                Some(Part::Arena(range)) => {
                    let part_len = range.len();
                    range.start += n.min(part_len);
                    (range.len(), part_len)
                }
                Some(Part::Body(body)) => {
                    let part_len = body.len();
                    body.advance(n.min(part_len));
                    (body.len(), part_len)
                }
                None => break,
            };
            if left == 0 {
                self.parts.pop_front();
            }
            n -= n.min(part_len);
        }
        if self.len == 0 {
            self.parts.clear();
            self.arena.clear();
            self.filled = 0;
            // A batch of only small frames can fill the arena; do not keep it on an idle session.
            self.arena.shrink_to(4 << 10);
        }
    }
}

const _: () = assert!(COPY_MAX > HEADER_LEN);

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // patterns of bytes
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_partial_writes_give_the_same_bytes(bodies in prop::collection::vec(0..3000usize, 1..40),
                                                  writes in prop::collection::vec(1..5000usize, 1..30),
                                                  join in any::<bool>()) {
            let mut batch = Batch::default();
            let mut want = Vec::new();
            for (i, n) in bodies.iter().enumerate() {
                if !batch.has_room() { break }
                let frame = Frame::Pong { value: i as u32 };
                batch.push_frame(frame);
                want.extend_from_slice(&frame.emit());
                let body = vec![i as u8; *n];
                want.extend_from_slice(&body);
                batch.push_body(body.into());
            }
            if join { batch.join() }
            prop_assert_eq!(batch.len(), want.len());
            let mut got = Vec::new();
            let mut writes = writes.iter().cycle();
            while !batch.is_empty() {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let used = batch.slices(&mut slices);
                let all: Vec<u8> = slices[..used].iter().flat_map(|s| s.iter().copied()).collect();
                let n = (*writes.next().unwrap()).min(all.len());
                got.extend_from_slice(&all[..n]);
                batch.advance(n);
            }
            prop_assert!(got == want);
        }
    }
}
