//! The two byte queues of a stream: what has arrived and is not read, what is written and not sent.
//!
//! Both hold [`Bytes`], so that bulk moves by reference, and both gather small pieces in a tail
//! buffer, so that a million one-byte pieces cost a megabyte and not a hundred. A queue holds no
//! bytes when it is empty, and most are a single piece long at most.
//!
//! Of what has arrived each piece is counted as the memory that it keeps: a copy as what was allocated for it, a part
//! of a read chunk as the whole chunk, for nobody knows when the other parts go. So the sum over all
//! queues is never less than what is held. Where that is much more than the data, copies take the place of the parts
//! ([`RecvQueue::compact`]).

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::batch::{Batch, COPY_MAX};
use super::chunk::SHARE_MIN;

/// What one queued piece is charged at least: an allocation and its bookkeeping cost about this.
pub(crate) const LEAST_CHARGE: usize = 256;

/// The tail is sealed into a piece of its own at this size.
const TAIL_MAX: usize = 16 << 10;

/// The tail doubles up to this size, and then grows by it: one byte must not cost kilobytes in each of many queues.
const TAIL_STEP: usize = 4 << 10;

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

/// A piece, and the memory that it keeps.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    held: usize,
}

/// A list of pieces and a tail that gathers small ones.
#[derive(Debug, Default)]
struct List {
    sealed: VecDeque<Piece>,
    tail: Vec<u8>,
    /// Bytes in both.
    len: usize,
    /// Memory of both.
    held: usize,
}

impl Default for Pieces {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

/// The memory of a piece that was allocated for its `capacity`.
fn charge(capacity: usize) -> usize {
    capacity.max(LEAST_CHARGE)
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::One(piece) => piece.len(),
            Self::Many(list) => list.len,
        }
    }

    /// Does something with the list, which is made where there is none; `held` is the memory of the one piece.
    fn with_list(&mut self, held: usize, f: impl FnOnce(&mut List)) {
        match self {
            Self::Many(list) => f(list),
            Self::One(one) => {
                let mut list = Box::<List>::default();
                if !one.is_empty() {
                    list.push(std::mem::take(one), held);
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

    #[cfg(test)]
    fn pieces(&self) -> usize {
        match self {
            Self::One(one) => usize::from(!one.is_empty()),
            Self::Many(list) => list.sealed.len() + usize::from(!list.tail.is_empty()),
        }
    }
}

impl List {
    fn push(&mut self, bytes: Bytes, held: usize) {
        self.seal();
        self.len += bytes.len();
        self.held += held;
        self.sealed.push_back(Piece { bytes, held });
    }

    fn copy(&mut self, mut data: &[u8]) {
        if self.len == 0 && data.len() <= TAIL_MAX {
            self.push(Bytes::copy_from_slice(data), charge(data.len()));
            return;
        }
        self.len += data.len();
        while !data.is_empty() {
            if self.tail.len() >= TAIL_MAX {
                self.seal();
            }
            let (now, later) = data.split_at(data.len().min(TAIL_MAX - self.tail.len()));
            self.held -= self.tail_held();
            self.make_room(now.len());
            self.tail.extend_from_slice(now);
            self.held += self.tail_held();
            data = later;
        }
    }

    /// Makes room in the tail, and hardly more than that.
    fn make_room(&mut self, more: usize) {
        let needed = self.tail.len() + more;
        let capacity = self.tail.capacity();
        if needed > capacity {
            let grown = capacity + capacity.clamp(LEAST_CHARGE, TAIL_STEP);
            self.tail
                .reserve_exact(needed.max(grown.min(TAIL_MAX)) - self.tail.len());
        }
    }

    fn tail_held(&self) -> usize {
        if self.tail.is_empty() {
            0
        } else {
            charge(self.tail.capacity())
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let held = self.tail_held();
            let bytes = std::mem::take(&mut self.tail).into();
            self.sealed.push_back(Piece { bytes, held });
        }
    }

    fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.sealed.is_empty() {
            self.seal();
        }
        let front = self.sealed.front_mut()?;
        let bytes = if front.bytes.len() > max {
            front.bytes.split_to(max)
        } else {
            let piece = self.sealed.pop_front()?;
            self.held -= piece.held;
            piece.bytes
        };
        self.len -= bytes.len();
        Some(bytes)
    }

    /// Copies the pieces of which it is not known what they keep.
    fn own(&mut self) {
        for piece in self.sealed.iter_mut().filter(|piece| piece.held == 0) {
            piece.held = charge(piece.bytes.len());
            piece.bytes = Bytes::copy_from_slice(&piece.bytes);
            self.held += piece.held;
        }
        self.give_back();
    }

    /// Keeps no more room than it needs.
    fn give_back(&mut self) {
        self.held -= self.tail_held();
        self.tail.shrink_to_fit();
        self.held += self.tail_held();
        self.sealed.shrink_to_fit();
    }

    fn compact(&mut self) {
        for piece in &mut self.sealed {
            let held = charge(piece.bytes.len());
            if held < piece.held {
                piece.bytes = Bytes::copy_from_slice(&piece.bytes);
                self.held -= piece.held - held;
                piece.held = held;
            }
        }
        self.give_back();
    }
}

/// Bytes that have arrived and that the application has not taken.
#[derive(Debug, Default)]
pub(crate) struct RecvQueue {
    pieces: Pieces,
    /// Memory of the one piece, where there is no list.
    one: u32,
    /// Memory of the piece that the application took last and is not done with.
    lent: u32,
}

fn small(held: usize) -> u32 {
    // Windows are shorter, and so are read chunks.
    u32::try_from(held).unwrap_or(u32::MAX)
}

impl RecvQueue {
    /// Appends a piece of a read chunk, which takes `chunk` bytes of memory. With `copied` it is not kept as it is.
    pub(crate) fn push(&mut self, piece: Bytes, chunk: usize, copied: bool) {
        if piece.is_empty() {
            return;
        }
        let len = self.pieces.len();
        let shared = piece.len() >= SHARE_MIN && len < SLICE_QUEUE_MAX && !copied;
        match &mut self.pieces {
            Pieces::One(one) if len == 0 && shared => {
                self.one = small(chunk.max(piece.len()));
                *one = piece;
            }
            // A small message that came by itself.
            Pieces::One(one) if len == 0 && chunk <= LEAST_CHARGE && !copied => {
                self.one = small(LEAST_CHARGE);
                *one = piece;
            }
            // The usual small message: one exact allocation.
            Pieces::One(one) if len == 0 && piece.len() <= TAIL_MAX => {
                self.one = small(charge(piece.len()));
                *one = Bytes::copy_from_slice(&piece);
            }
            pieces => {
                let held = std::mem::take(&mut self.one) as usize;
                pieces.with_list(held, |list| {
                    if shared {
                        let held = chunk.max(piece.len());
                        list.push(piece, held);
                    } else {
                        list.copy(&piece);
                    }
                });
            }
        }
    }

    /// Takes the first piece, or `most` bytes of it. With `lend` it counts until the next call, or [`RecvQueue::take_back`].
    pub(crate) fn pop(&mut self, most: usize, lend: bool) -> Option<Bytes> {
        let before = self.charge();
        let piece = self.pieces.pop(most);
        // What is left of a piece keeps what the whole of it did.
        if self.is_empty() && matches!(self.pieces, Pieces::One(_)) {
            self.one = 0;
        }
        let popped = before - self.charge();
        self.lent = if lend { small(popped) } else { 0 };
        piece
    }

    /// The application is done with the piece that was lent.
    pub(crate) fn take_back(&mut self) {
        self.lent = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.len() == 0
    }

    /// The memory that the queued pieces keep, in bytes: at least [`LEAST_CHARGE`] each.
    fn charge(&self) -> usize {
        match &self.pieces {
            Pieces::One(_) => self.one as usize,
            Pieces::Many(list) => list.held,
        }
    }

    /// The same, with the piece that was lent.
    pub(crate) fn held(&self) -> usize {
        self.charge() + self.lent as usize
    }

    /// Copies what keeps more memory than it needs.
    pub(crate) fn compact(&mut self) {
        match &mut self.pieces {
            Pieces::One(one) => {
                let held = charge(one.len());
                if held < self.one as usize {
                    *one = Bytes::copy_from_slice(one);
                    self.one = small(held);
                }
            }
            Pieces::Many(list) if list.len == 0 => self.clear(),
            Pieces::Many(list) => list.compact(),
        }
    }

    /// Drops what is queued; what was lent is not here.
    pub(crate) fn clear(&mut self) {
        self.pieces = Pieces::default();
        self.one = 0;
    }
}

/// Bytes that the application has written and that no frame has taken.
#[derive(Debug, Default)]
pub(crate) struct SendQueue(Pieces);

impl SendQueue {
    /// Appends a piece by reference.
    pub(crate) fn push(&mut self, piece: Bytes) {
        match &mut self.0 {
            _ if piece.len() < LEAST_CHARGE => self.copy(&piece),
            Pieces::One(one) if one.is_empty() => *one = piece,
            pieces => pieces.with_list(0, |list| list.push(piece, 0)),
        }
    }

    /// The first piece, whose memory is its own.
    pub(crate) fn begin(&mut self, first: Vec<u8>) {
        match &mut self.0 {
            Pieces::One(one) if one.is_empty() => *one = first.into(),
            _ => self.copy(&first),
        }
    }

    /// Appends a copy.
    pub(crate) fn copy(&mut self, data: &[u8]) {
        match &mut self.0 {
            Pieces::One(one) if one.is_empty() && data.len() <= TAIL_MAX => {
                *one = Bytes::copy_from_slice(data);
            }
            // A request and what it is about: a list for the two would cost more than to copy the first one again.
            Pieces::One(one) if one.len() + data.len() <= COPY_MAX => {
                let mut joined = Vec::with_capacity(one.len() + data.len());
                joined.extend_from_slice(one);
                joined.extend_from_slice(data);
                *one = joined.into();
            }
            pieces => pieces.with_list(0, |list| list.copy(data)),
        }
    }

    /// Copies what may keep more memory than it needs.
    pub(crate) fn compact(&mut self) {
        match &mut self.0 {
            Pieces::One(one) if one.len() >= SHARE_MIN => *one = Bytes::copy_from_slice(one),
            Pieces::One(_) => {}
            Pieces::Many(list) if list.len == 0 => self.clear(),
            Pieces::Many(list) => list.own(),
        }
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
        self.0 = Pieces::default();
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
            queue.push(Bytes::from_static(b"x"), 1, false);
        }
        assert_eq!(queue.len(), 256 << 10);
        // 16 sealed tails, and the first byte, which came into an empty queue.
        let pieces = queue.pieces.pieces();
        assert!(pieces <= 18, "{pieces} pieces");
        assert!(queue.held() <= (256 << 10) + 2 * LEAST_CHARGE);
    }

    #[test]
    fn bulk_is_kept_by_reference_while_it_is_read() {
        let chunk = Bytes::from(vec![7u8; 32 << 10]);
        let mut queue = RecvQueue::default();
        queue.push(chunk.slice(12..16 << 10), chunk.len(), false);
        assert_eq!(queue.held(), chunk.len(), "a part keeps the whole");
        let got = queue.pop(usize::MAX, false).unwrap();
        assert_eq!(got.as_ptr(), chunk[12..].as_ptr(), "not copied");
        assert_eq!(queue.held(), 0);
        // Somebody who does not read must not pin chunks.
        for _ in 0..20 {
            queue.push(chunk.slice(..8 << 10), chunk.len(), false);
        }
        let last = std::iter::from_fn(|| queue.pop(usize::MAX, false))
            .last()
            .unwrap();
        assert!(!chunk.as_ptr_range().contains(&last.as_ptr()), "copied");
        queue.push(chunk.clone(), chunk.len(), true);
        let last = queue.pop(usize::MAX, false).unwrap();
        assert!(!chunk.as_ptr_range().contains(&last.as_ptr()), "as asked");
    }

    #[test]
    fn what_keeps_too_much_is_copied_when_memory_is_short() {
        let chunk = Bytes::from((0..32u32 << 10).map(|i| i as u8).collect::<Vec<_>>());
        let part = |i: usize| chunk.slice(i * 100..i * 100 + (8 << 10));
        for parts in [1, 3, 20] {
            let mut queue = RecvQueue::default();
            for i in 0..parts {
                queue.push(part(i), chunk.len(), false);
                queue.push(Bytes::from_static(b"tail"), 4, false);
            }
            let before = queue.held();
            assert!(before > queue.len() + (16 << 10), "{before}");
            queue.compact();
            let held = queue.held();
            assert!(held <= queue.len() + parts * LEAST_CHARGE, "{held}");
            let mut got = Vec::new();
            while let Some(piece) = queue.pop(usize::MAX, false) {
                assert!(!chunk.as_ptr_range().contains(&piece.as_ptr()));
                got.extend_from_slice(&piece);
            }
            let want: Vec<u8> = (0..parts)
                .flat_map(|i| [&part(i)[..], b"tail"].concat())
                .collect();
            assert!(got == want);
            assert_eq!(queue.held(), 0);
        }
    }

    #[test]
    fn what_waits_to_be_sent_keeps_no_more_than_it_needs_once_it_was_compacted() {
        let chunk = Bytes::from((0..32u32 << 10).map(|i| i as u8).collect::<Vec<_>>());
        for parts in [1, 3] {
            let mut queue = SendQueue::default();
            for i in 0..parts {
                queue.push(chunk.slice(i * 100..i * 100 + (8 << 10)));
            }
            queue.copy(b"tail");
            queue.compact();
            queue.compact();
            queue.push(chunk.slice(..1000));
            let mut got = Vec::new();
            let mut kept = 0;
            while let Some(piece) = queue.0.pop(6000) {
                kept += usize::from(chunk.as_ptr_range().contains(&piece.as_ptr()));
                got.extend_from_slice(&piece);
            }
            assert_eq!(kept, 1, "what came behind is not copied");
            let want: Vec<u8> = (0..parts)
                .flat_map(|i| chunk[i * 100..i * 100 + (8 << 10)].to_vec())
                .chain(b"tail".iter().chain(&chunk[..1000]).copied())
                .collect();
            assert!(got == want);
            let Pieces::Many(list) = &queue.0 else {
                panic!("a list")
            };
            assert_eq!((list.len, list.held), (0, 0));
            queue.compact();
            assert!(
                matches!(&queue.0, Pieces::One(one) if one.is_empty()),
                "nothing is kept"
            );
        }
    }

    #[test]
    fn what_is_lent_counts_until_it_is_done_with() {
        let mut queue = RecvQueue::default();
        for _ in 0..3 {
            queue.push(Bytes::from(vec![7u8; 10_000]), 10_000, false);
        }
        queue.pop(usize::MAX, true).unwrap();
        assert_eq!(queue.held(), 30_000);
        queue.pop(usize::MAX, true).unwrap();
        assert_eq!(queue.held(), 20_000, "the first is done with");
        queue.clear();
        assert_eq!(queue.held(), 10_000, "what is lent is not in the queue");
        queue.take_back();
        assert_eq!(queue.held(), 0);
        queue.push(Bytes::from_static(b"x"), 1, false);
        assert_eq!(queue.held(), LEAST_CHARGE);
        queue.pop(usize::MAX, false).unwrap();
        assert_eq!(queue.held(), 0);
    }

    #[test]
    fn a_request_and_what_it_is_about_are_one_piece() {
        let mut queue = SendQueue::default();
        queue.begin(b"request".to_vec());
        queue.copy(b"what");
        queue.copy(&[7; COPY_MAX - 11]);
        assert!(matches!(queue.0, Pieces::One(_)));
        assert_eq!(queue.len(), COPY_MAX);
        queue.copy(b"more");
        assert_eq!(queue.0.pieces(), 2);
        let mut all = Vec::new();
        while let Some(piece) = queue.0.pop(100) {
            all.extend_from_slice(&piece);
        }
        assert!(all == [&b"requestwhat"[..], &[7; COPY_MAX - 11], b"more"].concat());
    }

    /// The tail takes no more than a step beyond what is in it, whatever the sizes.
    #[test]
    fn the_tail_hardly_grows_ahead() {
        for step in [1, 7, 300, 5000] {
            let mut queue = RecvQueue::default();
            while queue.len() < 200_000 {
                queue.push(Bytes::from(vec![1; step]), step, true);
                let pieces = queue.pieces.pieces();
                assert!(queue.held() <= queue.len() + TAIL_STEP + pieces * LEAST_CHARGE);
            }
        }
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
                queue.with_list(0, |list| {
                    if i % 2 == 0 { list.copy(&data) } else if *n > 0 { list.push(data.into(), *n) }
                });
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
