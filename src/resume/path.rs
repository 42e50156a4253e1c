//! What is known of one path: where the bytes of both directions stand on it, what is being written, and whether it lives.

use std::time::{Duration, Instant};

use super::config::QUICK_ROUND_TRIP;
use super::frame::{Frame, Input};

/// Which path counts: the later generation, and of one generation that which the client of the first connection has dialled. Both
/// ends judge by it, so that they agree when each has dialled the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) generation: u32,
    pub(crate) by_client: bool,
}

impl Rank {
    pub(crate) const FIRST: Self = Self {
        generation: 0,
        by_client: true,
    };
}

#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) input: Input,
    /// The last data that came was in a long frame.
    pub(crate) bulk: bool,
    /// The offset of the next byte that comes.
    pub(crate) in_at: u64,
    /// The offset of the next byte to be written.
    pub(crate) out_at: u64,
    /// What is being written: frames that are no data, the header of one that is, and a little data; how much of that is done;
    /// how many bytes at its end are data; and then so many bytes from `out_at` on.
    pub(crate) head: Vec<u8>,
    pub(crate) head_done: usize,
    pub(crate) data_in_head: usize,
    pub(crate) body: usize,
    /// The end of our direction stands in `head`.
    pub(crate) end_in_head: bool,
    /// What is to be written: an answer, a question, an acknowledgement that waited long enough, one as a sign of life, for
    /// how long we keep the session, that it is over.
    pub(crate) pong: Option<u32>,
    pub(crate) ping: bool,
    pub(crate) ack: bool,
    pub(crate) sign: bool,
    pub(crate) park: bool,
    pub(crate) over: Option<u8>,
    /// When something came last, when it was asked for, and when we last gave a sign.
    pub(crate) heard: Instant,
    pub(crate) asked: Option<Instant>,
    pub(crate) signed: Option<Instant>,
    /// When somebody had reason to doubt it.
    pub(crate) probed: Option<Instant>,
    /// Since when it takes nothing any more.
    pub(crate) broken: Option<Instant>,
    /// The ping under way, and the shortest round trip so far.
    pinged: Option<(u32, Instant)>,
    next_ping: u32,
    pub(crate) round_trip: Option<Duration>,
}

impl Path {
    /// A path that both ends start at these offsets.
    pub(crate) fn new(now: Instant, in_at: u64, out_at: u64) -> Self {
        Self {
            input: Input::default(),
            bulk: false,
            in_at,
            out_at,
            head: Vec::new(),
            head_done: 0,
            data_in_head: 0,
            body: 0,
            end_in_head: false,
            pong: None,
            // Its round trip tells how long silence may be.
            ping: true,
            ack: false,
            sign: false,
            park: false,
            over: None,
            heard: now,
            asked: None,
            signed: None,
            probed: None,
            broken: None,
            pinged: None,
            next_ping: 0,
            round_trip: None,
        }
    }

    /// A write is under way.
    pub(crate) fn is_writing(&self) -> bool {
        self.head_done < self.head.len() || self.body > 0
    }

    /// Frames wait that need no company.
    pub(crate) fn has_small(&self) -> bool {
        self.ping
            || self.ack
            || self.park
            || self.sign
            || self.pong.is_some()
            || self.over.is_some()
    }

    /// Puts those into `head`.
    pub(crate) fn stage_small(&mut self, now: impl FnOnce() -> Instant, park: u32) {
        self.head.clear();
        (self.head_done, self.data_in_head) = (0, 0);
        if std::mem::take(&mut self.park) {
            Frame::Park(park).emit(&mut self.head);
        }
        if let Some(value) = self.pong.take() {
            Frame::Pong(value).emit(&mut self.head);
        }
        if std::mem::take(&mut self.ping) {
            self.next_ping = self.next_ping.wrapping_add(1);
            self.pinged = Some((self.next_ping, now()));
            Frame::Ping(self.next_ping).emit(&mut self.head);
        }
        if let Some(reason) = self.over.take() {
            Frame::Over(reason).emit(&mut self.head);
        }
    }

    /// So many bytes of `head` and then of the body were written.
    pub(crate) fn wrote(&mut self, n: usize) {
        let of_head = n.min(self.head.len() - self.head_done);
        let before = self.head_done.max(self.head.len() - self.data_in_head);
        self.head_done += of_head;
        self.out_at += self.head_done.saturating_sub(before) as u64;
        let of_body = (n - of_head).min(self.body);
        self.body -= of_body;
        self.out_at += of_body as u64;
        if self.head_done == self.head.len() && std::mem::take(&mut self.end_in_head) {
            self.out_at += 1;
        }
    }

    /// Bytes came.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard = now;
        (self.asked, self.probed) = (None, None);
    }

    pub(crate) fn handle_pong(&mut self, now: Instant, value: u32) {
        if let Some((_, at)) = self.pinged.take_if(|(pinged, _)| *pinged == value) {
            let took = now.saturating_duration_since(at);
            self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
        }
    }

    /// Its round trip is known to be short.
    pub(crate) fn is_quick(&self) -> bool {
        self.round_trip.is_some_and(|took| took < QUICK_ROUND_TRIP)
    }
}
