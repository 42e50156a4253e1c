//! The sending half: what is not acknowledged yet, what is under way, and what was lost.
//!
//! ```text
//!   base                                next            end      (positions in the stream)
//!    | acknowledged or under way or lost | not sent yet  |
//! ```
//!
//! A line keeps the order. So when something is acknowledged that went later than another frame, that
//! other frame is lost, and goes again at once, before anything new. What is sent again is cut anew:
//! a frame that was fit for a clean line would never get through a noisy one.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use super::frame::Ack;
use super::line::Mark;
use super::ranges::Ranges;

/// A frame under way.
#[derive(Debug)]
struct Flight {
    order: u64,
    range: Range<u64>,
    mark: Mark,
    /// Nothing of it was sent before: that it has come tells that *this* transmission has.
    first: bool,
}

/// What an acknowledgement told of one frame.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Where it went twice, an earlier transmission may be the one that came.
    Arrived {
        mark: Mark,
        first: bool,
    },
    Lost(Mark),
}

/// A piece of the stream to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) range: Range<u64>,
    /// Its bytes; one less than the range has positions when the end of the stream is in it.
    pub(crate) payload: Vec<u8>,
    pub(crate) fin: bool,
}

#[derive(Debug)]
pub(crate) struct SendHalf {
    /// From `base` to `end`.
    buffer: VecDeque<u8>,
    /// The first position that is not acknowledged.
    base: u64,
    /// The first position that was never sent.
    next: u64,
    /// The first position that no flight ever had: `next`, but for a piece that is just being cut.
    tried: u64,
    /// Behind the last byte that was written.
    end: u64,
    /// The stream ends there; the end takes one position.
    fin: bool,
    /// How far the receiver lets us go.
    limit: u64,
    /// What the receiver takes beyond what was read there.
    window: u64,
    /// Of the next transmission.
    order: u64,
    flights: VecDeque<Flight>,
    /// Beyond `base`.
    acked: Ranges,
    lost: Ranges,
}

impl SendHalf {
    pub(crate) fn new() -> Self {
        Self {
            buffer: VecDeque::new(),
            base: 0,
            next: 0,
            tried: 0,
            end: 0,
            fin: false,
            limit: 0,
            window: 0,
            order: 0,
            flights: VecDeque::new(),
            acked: Ranges::default(),
            lost: Ranges::default(),
        }
    }

    /// The receiver's window, once it is known.
    pub(crate) fn set_window(&mut self, window: u64) {
        self.window = window;
        self.limit = window;
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Behind the last position.
    fn total(&self) -> u64 {
        self.end + u64::from(self.fin)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
        self.end += bytes.len() as u64;
    }

    pub(crate) fn finish(&mut self) {
        self.fin = true;
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.fin
    }

    /// The end of the stream was acknowledged, and so was all before it.
    pub(crate) fn is_finished(&self) -> bool {
        self.base > self.end
    }

    /// All bytes were acknowledged.
    pub(crate) fn is_delivered(&self) -> bool {
        self.base >= self.end
    }

    /// Bytes that wait to be sent, for the first time or again.
    pub(crate) fn waiting(&self) -> u64 {
        self.end.saturating_sub(self.next) + self.lost.total()
    }

    /// Something can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        !self.lost.is_empty() || self.next < self.total().min(self.limit)
    }

    /// What can be sent does not fill a frame, and none of it is late already.
    pub(crate) fn is_partial(&self, payload: usize) -> bool {
        self.lost.is_empty() && self.end.saturating_sub(self.next) < payload as u64
    }

    /// The receiver's window is all that stops us.
    pub(crate) fn is_held_back(&self) -> bool {
        !self.is_ready() && self.flights.is_empty() && self.next < self.total()
    }

    pub(crate) fn is_under_way(&self) -> bool {
        !self.flights.is_empty()
    }

    /// The mark of what went last and is not known to have come.
    pub(crate) fn newest(&self) -> Option<&Mark> {
        self.flights.back().map(|flight| &flight.mark)
    }

    /// The order that the next transmission will have.
    pub(crate) fn order(&self) -> u64 {
        self.order
    }

    /// Bytes that are kept.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn kept(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// The position of the next piece, and the bytes from there on that may be in it.
    pub(crate) fn peek(&self) -> (u64, impl Iterator<Item = u8>) {
        let lost = self.lost.first();
        let range = lost.unwrap_or(self.next..self.end.min(self.limit));
        let index = |position: u64| {
            let inside = position.min(self.end).saturating_sub(self.base);
            usize::try_from(inside).unwrap_or(usize::MAX)
        };
        let bytes = index(range.start)..index(range.end.max(range.start));
        (range.start, self.buffer.range(bytes).copied())
    }

    /// Cuts the next piece, of at most `most` bytes: what was lost first.
    pub(crate) fn cut(&mut self, most: usize) -> Option<Segment> {
        let range = if let Some(lost) = self.lost.first() {
            let mut range = lost.start..lost.end.min(lost.start + most as u64);
            if range.end == self.end {
                // The end of the stream fits in any frame.
                range.end = lost.end;
            }
            self.lost.remove(range.clone());
            range
        } else {
            let to = self.end.min(self.next + most as u64);
            let to = if to == self.end { self.total() } else { to };
            let range = self.next..to.min(self.limit);
            if range.is_empty() {
                return None;
            }
            self.next = range.end;
            range
        };
        let at = |position: u64| {
            let inside = position.min(self.end).saturating_sub(self.base);
            usize::try_from(inside).unwrap_or(usize::MAX)
        };
        let fin = range.end > self.end;
        let payload = self.buffer.range(at(range.start)..at(range.end));
        let payload = payload.copied().collect();
        Some(Segment {
            range,
            payload,
            fin,
        })
    }

    /// A piece has gone.
    pub(crate) fn sent(&mut self, range: Range<u64>, mark: Mark) {
        let order = self.order;
        self.order += 1;
        let first = range.start >= self.tried;
        self.tried = self.tried.max(range.end);
        self.flights.push_back(Flight {
            order,
            range,
            mark,
            first,
        });
    }

    /// Takes an acknowledgement, and tells of each frame that it decides, lost ones last. One that
    /// makes no sense is ignored.
    ///
    /// `after`: everything that went before this order would have come by now, and the ranges are the
    /// first of those that came. `full`: so many ranges may have left others out.
    pub(crate) fn acknowledge(
        &mut self,
        now: Instant,
        ack: &Ack,
        (after, full): (Option<u64>, usize),
        outcomes: &mut Vec<Fate>,
    ) {
        let beyond = ack.ranges.iter().any(|range| range.end > self.next);
        if ack.next < self.base || ack.next > self.next || beyond {
            return;
        }
        self.limit = self
            .limit
            .max(ack.next.saturating_sub(ack.held) + self.window);
        let done = ack.next.min(self.end).saturating_sub(self.base);
        self.buffer
            .drain(..usize::try_from(done).unwrap_or(0).min(self.buffer.len()));
        self.base = ack.next;
        for range in &ack.ranges {
            self.acked.insert(range.clone());
            self.lost.remove(range.clone());
        }
        self.acked.remove(0..self.base);
        self.lost.remove(0..self.base);

        // Nothing is known of what lies behind a list that may have been cut.
        let listed = match ack.ranges.last() {
            Some(last) if ack.ranges.len() >= full => last.end,
            _ => u64::MAX,
        };
        let mut latest = None;
        let (base, acked) = (self.base, &self.acked);
        self.flights.retain(|flight| {
            let rest = flight.range.start.max(base)..flight.range.end;
            let arrived = rest.is_empty() || acked.missing(rest).is_empty();
            if arrived {
                if flight.first || flight.mark.has_left(now) {
                    latest = latest.max(Some(flight.order));
                }
                outcomes.push(Fate::Arrived {
                    mark: flight.mark,
                    first: flight.first,
                });
            }
            !arrived
        });
        let (acked, lost) = (&self.acked, &mut self.lost);
        self.flights.retain(|flight| {
            let overtaken = latest > Some(flight.order);
            let asked = after > Some(flight.order) && flight.range.end <= listed;
            if overtaken || asked {
                let rest = flight.range.start.max(base)..flight.range.end;
                for gap in acked.missing(rest) {
                    lost.insert(gap);
                }
                outcomes.push(Fate::Lost(flight.mark));
            }
            !(overtaken || asked)
        });
    }
}

// A list of one range is what it says.
#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    fn sent(send: &mut SendHalf, most: usize) -> Segment {
        let segment = send.cut(most).unwrap();
        send.sent(segment.range.clone(), Mark::for_tests(Instant::now()));
        segment
    }

    fn acknowledge(send: &mut SendHalf, next: u64, ranges: &[Range<u64>]) -> (usize, usize) {
        let ack = Ack {
            next,
            held: 0,
            ranges: ranges.to_vec(),
        };
        let mut fates = Vec::new();
        send.acknowledge(Instant::now(), &ack, (None, 16), &mut fates);
        let lost = fates.iter().filter(|f| matches!(f, Fate::Lost(_))).count();
        (fates.len() - lost, lost)
    }

    #[test]
    fn what_is_lost_goes_first_and_is_cut_anew() {
        let mut send = SendHalf::new();
        send.set_window(1000);
        send.write(b"aaaabbbbcccc");
        send.finish();
        for _ in 0..3 {
            sent(&mut send, 4);
        }
        assert!(!send.is_ready());
        assert_eq!(acknowledge(&mut send, 0, &[4..8]), (1, 1));
        assert_eq!(send.waiting(), 4);
        assert_eq!(sent(&mut send, 3).payload, b"aaa");
        assert_eq!(sent(&mut send, 3).payload, b"a");
        assert_eq!(send.cut(9), None);
        // It came the second time; the first time may be what is acknowledged, so "a" need not be lost.
        assert_eq!(acknowledge(&mut send, 3, &[4..8]), (1, 0));
        // The last piece was sent before it.
        assert_eq!(acknowledge(&mut send, 3, &[4..13]), (1, 0));
        assert!(!send.is_ready() && send.is_under_way());
        assert_eq!(acknowledge(&mut send, 13, &[]), (1, 0));
        assert!(send.is_finished());
    }

    #[test]
    fn the_window_holds_back_and_nonsense_is_ignored() {
        let mut send = SendHalf::new();
        send.set_window(8);
        send.write(&[7; 20]);
        assert_eq!(sent(&mut send, 100).payload.len(), 8);
        assert!(!send.is_ready() && !send.is_held_back());
        assert_eq!(acknowledge(&mut send, 9, &[]), (0, 0));
        assert_eq!(acknowledge(&mut send, 0, &[4..9]), (0, 0));
        let full = Ack {
            next: 8,
            held: 8,
            ranges: Vec::new(),
        };
        send.acknowledge(Instant::now(), &full, (None, 16), &mut Vec::new());
        assert!(send.is_held_back());
        assert_eq!(acknowledge(&mut send, 8, &[]), (0, 0));
        assert!(send.is_ready());
    }

    #[test]
    fn an_order_that_has_come_reports_what_went_before() {
        let mut send = SendHalf::new();
        send.set_window(100);
        send.write(b"tail");
        sent(&mut send, 100);
        let mut fates = Vec::new();
        let after = send.order();
        send.acknowledge(
            Instant::now(),
            &Ack::default(),
            (Some(after), 16),
            &mut fates,
        );
        assert!(matches!(fates[..], [Fate::Lost(_)]));
        assert_eq!(sent(&mut send, 100).payload, b"tail");
    }
}
