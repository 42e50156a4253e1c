//! The two byte queues of a stream: what has arrived and is not read, what is written and not sent.
//!
//! Both hold [`Bytes`], so that bulk moves by reference, and both gather small pieces in a tail
//! buffer, so that a million one-byte pieces cost a megabyte and not a hundred. A queue holds no
//! bytes when it is empty, and most are a single piece long at most.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::batch::Batch;
use super::chunk::SHARE_MIN;

/// What one queued piece is charged at least: an allocation and its bookkeeping cost about this.
pub(crate) const LEAST_CHARGE: usize = 256;

/// The tail is sealed into a piece of its own at this size.
const TAIL_MAX: usize = 16 << 10;

/// An empty list with room for more pieces than this is given back.
const KEPT_PIECES: usize = 64;

/// Received pieces are copied when the queue is longer than this: who reads slowly pays with a copy,
/// and can not pin more than four times this many bytes a stream.
const SLICE_QUEUE_MAX: usize = 64 << 10;

/// What is queued. Most queues hold one piece or none at a time, and a session may have thousands of
/// them, so that costs nothing beyond the piece; a queue that has held more keeps its list.
#[derive(Debug)]
enum Pieces {
    /// One piece; none, if it is empty.
    One(Bytes),
    Many(Box<List>),
}

/// A list of pieces and a tail that gathers small ones.
#[derive(Debug, Default)]
struct List {
    sealed: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes in both.
    len: usize,
}

impl Default for Pieces {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::One(piece) => piece.len(),
            Self::Many(list) => list.len,
        }
    }

    fn push(&mut self, piece: Bytes) {
        match self {
            Self::One(one) if one.is_empty() => *one = piece,
            _ => self.with_list(|list| list.push(piece)),
        }
    }

    fn copy(&mut self, data: &[u8]) {
        match self {
            // The usual small message: one exact allocation.
            Self::One(one) if one.is_empty() && data.len() <= TAIL_MAX => {
                *one = Bytes::copy_from_slice(data);
            }
            _ => self.with_list(|list| list.copy(data)),
        }
    }

    /// Does something with the list, which is made where there is none.
    fn with_list(&mut self, f: impl FnOnce(&mut List)) {
        match self {
            Self::Many(list) => f(list),
            Self::One(one) => {
                let mut list = Box::<List>::default();
                if !one.is_empty() {
                    list.push(std::mem::take(one));
                }
                f(&mut list);
                *self = Self::Many(list);
            }
        }
    }

    fn pop(&mut self, max: usize) -> Option<Bytes> {
        match self {
            Self::One(one) if one.is_empty() => None,
            Self::One(one) if one.len() > max => Some(one.split_to(max)),
            Self::One(one) => Some(std::mem::take(one)),
            Self::Many(list) => {
                let piece = list.pop(max);
                if list.len == 0 && list.sealed.capacity() > KEPT_PIECES {
                    *self = Self::default();
                }
                piece
            }
        }
    }

    fn pieces(&self) -> usize {
        match self {
            Self::One(one) => usize::from(!one.is_empty()),
            Self::Many(list) => list.sealed.len() + usize::from(!list.tail.is_empty()),
        }
    }

    fn charge(&self) -> usize {
        self.len().max(self.pieces() * LEAST_CHARGE)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl List {
    fn push(&mut self, piece: Bytes) {
        self.seal();
        self.len += piece.len();
        self.sealed.push_back(piece);
    }

    fn copy(&mut self, mut data: &[u8]) {
        self.len += data.len();
        if self.len == data.len() && data.len() <= TAIL_MAX {
            self.sealed.push_back(Bytes::copy_from_slice(data));
            return;
        }
        while !data.is_empty() {
            if self.tail.len() >= TAIL_MAX {
                self.seal();
            }
            let (now, later) = data.split_at(data.len().min(TAIL_MAX - self.tail.len()));
            if self.tail.capacity() - self.tail.len() < now.len() {
                self.tail.reserve(now.len().max(LEAST_CHARGE));
            }
            self.tail.put_slice(now);
            data = later;
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed
                .push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.sealed.is_empty() {
            self.seal();
        }
        let front = self.sealed.front_mut()?;
        let piece = if front.len() > max {
            front.split_to(max)
        } else {
            self.sealed.pop_front()?
        };
        self.len -= piece.len();
        Some(piece)
    }
}

/// Bytes that have arrived and that the application has not taken.
#[derive(Debug, Default)]
pub(crate) struct RecvQueue(Pieces);

impl RecvQueue {
    /// Appends a piece of a read chunk.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if piece.len() >= SHARE_MIN && self.0.len() < SLICE_QUEUE_MAX {
            self.0.push(piece);
        } else {
            self.0.copy(&piece);
        }
    }

    /// Takes the first piece.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.0.pop(usize::MAX)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// About what the queue costs in memory: at least [`LEAST_CHARGE`] a piece.
    pub(crate) fn charge(&self) -> usize {
        self.0.charge()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Bytes that the application has written and that no frame has taken.
#[derive(Debug, Default)]
pub(crate) struct SendQueue(Pieces);

impl SendQueue {
    /// Appends a piece by reference.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.len() < LEAST_CHARGE {
            self.0.copy(&piece);
        } else {
            self.0.push(piece);
        }
    }

    /// Appends a copy.
    pub(crate) fn copy(&mut self, data: &[u8]) {
        self.0.copy(data);
    }

    /// Moves the first `n` bytes into `batch`; `n` is at most [`SendQueue::len`].
    pub(crate) fn move_to(&mut self, mut n: usize, batch: &mut Batch) {
        while n > 0 {
            let Some(piece) = self.0.pop(n) else {
                debug_assert!(false, "a frame is never longer than what is queued");
                return;
            };
            n -= piece.remaining();
            batch.push_body(piece);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // patterns of bytes
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_byte_pieces_cost_about_their_size() {
        let mut queue = RecvQueue::default();
        for _ in 0..256 << 10 {
            queue.push(Bytes::from_static(b"x"));
        }
        assert_eq!(queue.len(), 256 << 10);
        // 16 sealed tails, and the first byte, which came into an empty queue.
        assert!(queue.0.pieces() <= 18, "{} pieces", queue.0.pieces());
        assert!(queue.charge() <= (256 << 10) + 18 * LEAST_CHARGE);
    }

    #[test]
    fn bulk_is_kept_by_reference_while_it_is_read() {
        let chunk = Bytes::from(vec![7u8; 32 << 10]);
        let mut queue = RecvQueue::default();
        queue.push(chunk.slice(12..16 << 10));
        let got = queue.pop().unwrap();
        assert_eq!(got.as_ptr(), chunk[12..].as_ptr(), "not copied");
        // Somebody who does not read must not pin chunks.
        for _ in 0..20 {
            queue.push(chunk.slice(..8 << 10));
        }
        let last = std::iter::from_fn(|| queue.pop()).last().unwrap();
        assert!(!chunk.as_ptr_range().contains(&last.as_ptr()), "copied");
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(pieces in prop::collection::vec(0..40_000usize, 0..30),
                                          takes in prop::collection::vec(1..30_000usize, 1..20)) {
            let mut queue = Pieces::default();
            let mut want = Vec::new();
            for (i, n) in pieces.iter().enumerate() {
                let data: Vec<u8> = (0..*n).map(|j| (i + j) as u8).collect();
                want.extend_from_slice(&data);
                if i % 2 == 0 { queue.copy(&data) } else if *n > 0 { queue.push(data.into()) }
            }
            prop_assert_eq!(queue.len(), want.len());
            let mut got = Vec::new();
            let mut takes = takes.iter().cycle();
            while let Some(piece) = queue.pop(*takes.next().unwrap()) {
                got.extend_from_slice(&piece);
            }
            prop_assert_eq!(queue.len(), 0);
            prop_assert!(got == want);
        }
    }
}
