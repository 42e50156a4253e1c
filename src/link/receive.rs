//! The receiving half: puts the stream together again, and says what has arrived.
//!
//! ```text
//!   read by the application | ready, waits to be read | missing | later | ...
//!                           ^ taken                   ^ next             ^ taken + window
//! ```
//!
//! A byte is kept once, where it came first; nothing beyond the window is kept at all.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::frame::{Ack, RANGES_MAX};
use super::ranges::Ranges;

/// How often a range is told because it is new, and how many are remembered for that.
const REPORTS: u8 = 2;
const FRESH: usize = 2 * RANGES_MAX;

#[derive(Debug)]
pub(crate) struct RecvHalf {
    window: u64,
    ready: VecDeque<u8>,
    /// The next byte that is missing. The end of the stream takes one position.
    next: u64,
    /// Out of order, by their position.
    later: BTreeMap<u64, Vec<u8>>,
    /// What is in `later`, and the end if it came early.
    seen: Ranges,
    /// Where the latest of those begin, and how often the sender was told.
    fresh: VecDeque<(u64, u8)>,
    end: Option<u64>,
    /// Something has come that the sender is to be told of.
    ack_due: bool,
    /// How far the sender may go, by what it was told.
    advertised: u64,
}

impl RecvHalf {
    pub(crate) fn new(window: u64) -> Self {
        Self {
            window,
            ready: VecDeque::new(),
            next: 0,
            later: BTreeMap::new(),
            seen: Ranges::default(),
            fresh: VecDeque::new(),
            end: None,
            ack_due: false,
            advertised: window,
        }
    }

    /// The next byte that is missing.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The sender is to hear from us, even if there is no news.
    pub(crate) fn say_something(&mut self) {
        self.ack_due = true;
    }

    /// Something has come out of order.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.later.is_empty()
    }

    pub(crate) fn ack_due(&self) -> bool {
        self.ack_due
    }

    /// What has arrived, to be sent now, in so many ranges: what came lately, twice, because an
    /// acknowledgement can be lost; and as much as fits of the rest.
    pub(crate) fn take_ack(&mut self, most: usize) -> Ack {
        let mut picked = Ranges::default();
        let mut count = 0;
        let fresh = &self.fresh;
        let is_fresh = |range: &Range<u64>| fresh.iter().any(|(at, _)| range.contains(at));
        let news = self.seen.iter().filter(is_fresh);
        for range in news.chain(self.seen.iter()).take(2 * RANGES_MAX) {
            if count < most && !picked.missing(range.clone()).is_empty() {
                picked.insert(range);
                count += 1;
            }
        }
        for (_, times) in &mut self.fresh {
            *times += 1;
        }
        self.fresh.retain(|(_, times)| *times < REPORTS);
        self.ack(&picked, most)
    }

    /// What has arrived, the first of it where not all fits: what is not in there before the end of its
    /// last range is missing.
    pub(crate) fn take_ack_from_start(&mut self, most: usize) -> Ack {
        let ranges = self.seen.clone();
        self.ack(&ranges, most)
    }

    fn ack(&mut self, ranges: &Ranges, most: usize) -> Ack {
        self.ack_due = false;
        self.advertised = self.limit();
        Ack {
            next: self.next,
            held: self.ready.len() as u64,
            ranges: ranges.iter().take(most).collect(),
        }
    }

    /// A data frame. Says whether the application can read on.
    pub(crate) fn data(&mut self, offset: u64, payload: &[u8], fin: bool) -> bool {
        self.ack_due = true;
        let last = offset.saturating_add(payload.len() as u64);
        let all = offset..last.saturating_add(u64::from(fin));
        if all.end > self.limit() {
            return false;
        }
        if fin {
            // A second one elsewhere would be the sender's fault; the first one counts.
            self.end.get_or_insert(last);
        }
        let news = all.start.max(self.next)..all.end;
        for gap in self.seen.missing(news) {
            let from = usize::try_from(gap.start - offset).unwrap_or(usize::MAX);
            let to = usize::try_from(gap.end - offset).unwrap_or(usize::MAX);
            let bytes = payload.get(from..to.min(payload.len())).unwrap_or_default();
            if gap.start == self.next {
                self.ready.extend(bytes);
                self.next = gap.end;
            } else {
                self.later.insert(gap.start, bytes.to_vec());
                if self.fresh.len() == FRESH {
                    self.fresh.pop_front();
                }
                self.fresh.push_back((gap.start, 0));
                self.seen.insert(gap);
            }
        }
        self.join();
        !self.ready.is_empty() || self.is_ended()
    }

    /// Moves what is not out of order any more.
    fn join(&mut self) {
        while let Some(range) = self.seen.first().filter(|r| r.start <= self.next) {
            while let Some(entry) = self.later.first_entry().filter(|e| *e.key() < range.end) {
                self.ready.extend(entry.remove());
            }
            self.next = range.end;
            self.seen.remove(range);
        }
    }

    /// Takes what can be read.
    pub(crate) fn read(&mut self, room: usize, mut put: impl FnMut(&[u8])) -> usize {
        let count = room.min(self.ready.len());
        let (front, back) = self.ready.as_slices();
        let front = front.get(..count.min(front.len())).unwrap_or_default();
        let back = back.get(..count - front.len()).unwrap_or_default();
        put(front);
        put(back);
        self.ready.drain(..count);
        // Half a window more than was told is worth a frame.
        if self.limit() - self.advertised >= self.window / 2 {
            self.ack_due = true;
        }
        count
    }

    pub(crate) fn is_readable(&self) -> bool {
        !self.ready.is_empty()
    }

    /// All has arrived; what is ready can still be read.
    pub(crate) fn is_ended(&self) -> bool {
        self.end.is_some_and(|end| self.next > end)
    }

    /// Bytes that are kept.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn kept(&self) -> usize {
        self.ready.len() + self.later.values().map(Vec::len).sum::<usize>()
    }

    /// How far the sender may go.
    fn limit(&self) -> u64 {
        self.next - self.ready.len() as u64 + self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(receive: &mut RecvHalf) -> Vec<u8> {
        let mut got = Vec::new();
        receive.read(usize::MAX, |bytes| got.extend(bytes));
        got
    }

    #[test]
    fn out_of_order_overlapping_and_twice() {
        let mut receive = RecvHalf::new(1024);
        assert!(!receive.data(4, b"ef", false));
        assert!(!receive.data(8, b"ij", true));
        let ack = receive.take_ack(RANGES_MAX);
        assert_eq!((ack.next, ack.held), (0, 0));
        assert_eq!(ack.ranges, [4..6, 8..11]);
        assert!(!receive.data(3, b"dEFg", false));
        assert!(receive.data(0, b"abc", false));
        assert_eq!(read(&mut receive), b"abcdefg");
        assert!(!receive.is_ended());
        assert!(receive.data(7, b"h", false));
        assert!(receive.is_ended());
        assert_eq!(read(&mut receive), b"hij");
        assert_eq!(receive.take_ack(RANGES_MAX).next, 11);
        assert!(!receive.ack_due());
        receive.data(0, b"abc", false);
        assert!(
            receive.ack_due(),
            "a repetition asks for an acknowledgement"
        );
        assert_eq!(read(&mut receive), b"");
    }

    #[test]
    fn nothing_beyond_the_window_is_kept() {
        let mut receive = RecvHalf::new(1024);
        assert!(!receive.data(1000, &[1; 25], false));
        assert_eq!(receive.kept(), 0);
        assert!(receive.data(0, &[1; 1024], false));
        assert_eq!(receive.take_ack(RANGES_MAX).held, 1024);
        receive.data(1024, &[2], false);
        assert_eq!(receive.kept(), 1024);
        receive.take_ack(RANGES_MAX);
        receive.read(100, |_| {});
        assert!(!receive.ack_due(), "too little to tell");
        receive.read(500, |_| {});
        assert!(receive.ack_due());
        assert_eq!(receive.take_ack(RANGES_MAX).held, 424);
    }
}
