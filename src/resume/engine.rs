//! All rules of a durable stream, without IO and without a clock.
//!
//! ```text
//!   application --write()--> replay --stage(), output(), wrote()--> path
//!                              ^ acknowledge                          |
//!   application <-- data -- handle_bytes() <--------------------------+
//!                              handle_timeout()
//! ```
//!
//! Calls: `handle_*` is told what happened, `stage`, `output` and `wrote` give what is to be written next; `propose`, `claim`
//! and `attach_*` change the path. Bytes of each direction are numbered from 0, and the end counts as one. A path carries no
//! numbers: both ends have told at its start what they had received, and the bytes of a direction start there.
//!
//! `engine_table.txt` has what every event does in every state, and `beliefs_table.txt` every pair of what the two ends may believe.
//!
//! # Invariants
//! - `replay` holds `acked..given`, and never more than its limit, or than what is paid: `write` takes nothing then.
//! - `acked <= out_at <= sent`, so what a peer may acknowledge has been written on *this* path: no byte that is still to be
//!   written is ever let go of, whatever it says. A peer that says anything else ends the session.
//! - What we acknowledge came on this path or was told at its start. While a proposal is under way, nothing beyond what it
//!   tells is acknowledged anywhere: the peer must still hold what the new path starts with.

mod clock;
mod incoming;
mod paths;

use std::io::IoSlice;
use std::time::{Duration, Instant};

use cepa_transports::{Rate, Side};

use super::config::{Config, Limits};
use super::error::{OverReason, Refusal, SessionLost, Violation};
use super::frame::Frame;
use super::hello::{At, seconds};
use super::paid::{Memory, Paid};
use super::path::{Path, Rank};
use super::replay::Replay;

/// Pieces of one write: what is no data, and the chunks of one data frame.
pub(crate) const SLICES: usize = 8;

/// Bytes of data in one frame: two batches of the mux, so that pongs and acknowledgements come between.
const FRAME_MAX: usize = 128 << 10;

/// Data up to this size is copied beside its header, so that a small message is one piece.
const COPY_MAX: usize = 256;

/// How the stream ended.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    /// Both ends said that they had no more to say.
    InOrder,
    Lost(SessionLost),
}

pub(crate) use incoming::Came;
#[cfg(test)]
pub(crate) use incoming::Data;

/// Counters of a durable stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Paths that it had.
    pub(crate) paths: u64,
    /// Bytes that were written again.
    pub(crate) replayed: u64,
    /// Bytes that came again.
    pub(crate) doubled: u64,
    /// Acknowledgements that came.
    pub(crate) acks: u64,
    /// Time without a path, up to the last one.
    pub(crate) pathless: Duration,
}

pub(crate) struct Engine {
    config: Config,
    limits: Limits,
    park: Duration,
    /// Our role in the TLS of the first connection.
    side: Side,
    replay: Replay,
    paid: Paid,
    /// The application has no more to say; the end takes the offset behind the last byte.
    ended: bool,
    /// All below has arrived, as the peer said.
    acked: u64,
    /// The peer said on a new path that the session had ended in order.
    heard_all: bool,
    /// All below was written on some path.
    sent: u64,
    /// All below was read, the peer's end included.
    received: u64,
    peer_ended: bool,
    /// What of it the peer was told of.
    reported: u64,
    /// When the first byte that it was not told of came.
    unreported_since: Option<Instant>,
    /// What proposals under way have told; see the head of this file.
    proposals: Vec<(u64, At)>,
    /// The greatest generation that was proposed here.
    proposed: u32,
    /// Which path this is, or who claimed it.
    rank: Rank,
    path: Option<Path>,
    pathless_since: Option<Instant>,
    /// When bytes were first under way that are not acknowledged. Set where they are staged and not where they are given, so
    /// that a write does not ask the clock.
    waiting_since: Option<Instant>,
    /// Nobody reads, and so nothing is heard.
    stopped: Option<Instant>,
    /// What the peer said for how long it keeps the session.
    peer_park: Option<Duration>,
    /// When all that was kept was last acknowledged.
    emptied: Instant,
    /// A writer may find room again.
    pub(crate) freed: bool,
    /// [`poll_timeout`](Self::poll_timeout) may be sooner than when this was last cleared.
    pub(crate) hurried: bool,
    over: Option<Over>,
    counters: Counters,
}

impl Engine {
    /// A stream with its first path, on which `side` is our role in TLS.
    pub(crate) fn new(side: Side, config: &Config, now: Instant) -> Self {
        let mut path = Path::new(now, 0, 0);
        path.park = side == Side::Server;
        Self {
            config: config.clone(),
            limits: Limits::of(config),
            park: config.park,
            side,
            replay: Replay::default(),
            paid: Paid::default(),
            ended: false,
            acked: 0,
            heard_all: false,
            sent: 0,
            received: 0,
            peer_ended: false,
            reported: 0,
            unreported_since: None,
            proposals: Vec::new(),
            proposed: 0,
            rank: Rank::FIRST,
            path: Some(path),
            pathless_since: None,
            waiting_since: None,
            stopped: None,
            peer_park: None,
            emptied: now,
            freed: false,
            hurried: true,
            over: None,
            counters: Counters {
                paths: 1,
                ..Counters::default()
            },
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn generation(&self) -> u32 {
        self.rank.generation
    }

    pub(crate) fn held(&self) -> usize {
        self.replay.len()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn peer_park(&self) -> Option<Duration> {
        self.peer_park
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.path.as_ref().and_then(|path| path.round_trip)
    }

    pub(crate) fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    pub(crate) fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// Behind the last byte that the application gave, or behind its end.
    pub(crate) fn given(&self) -> u64 {
        self.replay.end() + u64::from(self.ended)
    }

    /// The application has said that it has no more to say.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Our end has arrived: all that this end ever had to say.
    pub(crate) fn all_arrived(&self) -> bool {
        self.ended && (self.acked == self.given() || self.heard_all)
    }

    /// And all that the peer had to say is here: nobody needs the other any more.
    pub(crate) fn is_complete(&self) -> bool {
        self.peer_ended && self.all_arrived()
    }

    /// Both have said that they have no more to say, and all of the peer's is here.
    pub(crate) fn both_ended(&self) -> bool {
        self.peer_ended && self.ended && self.sent == self.given()
    }

    /// Reading is at its end: the peer's has come, and ours, if there is one, has arrived, so that it needs no new path.
    pub(crate) fn read_ended(&self) -> bool {
        self.peer_ended && (!self.ended || self.all_arrived())
    }

    /// Only frames that are no data can come.
    pub(crate) fn peer_ended(&self) -> bool {
        self.peer_ended
    }

    // What the application does.

    /// What is kept is taken from there. To be said before anything is.
    pub(crate) fn pay_from(&mut self, memory: Box<dyn Memory>) {
        self.paid.pay_from(memory);
    }

    /// Bytes that can be taken, were they paid.
    fn unpaid_room(&self) -> usize {
        if self.ended {
            return 0;
        }
        self.limits.replay.saturating_sub(self.replay.len())
    }

    /// Takes what fits from the front of `parts`, and says how many bytes.
    pub(crate) fn write(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let wanted: usize = parts.iter().map(|part| part.len()).sum();
        let wanted = wanted.min(self.unpaid_room());
        let before = self.replay.in_chunks();
        self.paid.want(before + wanted);
        let room = self.paid.allowed().saturating_sub(before).min(wanted);
        self.replay.push(parts, room)
    }

    /// The application has no more to say.
    pub(crate) fn end(&mut self, now: Instant) {
        if !self.ended {
            (self.ended, self.hurried) = (true, true);
            self.waiting_since.get_or_insert(now);
        }
    }

    /// Bytes that were given and not written on this path.
    pub(crate) fn unwritten(&self) -> u64 {
        let at = self.path.as_ref().map_or(self.acked, |path| path.out_at);
        self.given().saturating_sub(at)
    }

    /// Nobody reads for now, so that the peer's frames say nothing of whether it is there.
    pub(crate) fn handle_stopped(&mut self, now: Instant) {
        self.stopped.get_or_insert(now);
        self.hurried = true;
    }

    /// Somebody reads.
    pub(crate) fn handle_reading(&mut self, now: impl FnOnce() -> Instant) {
        if self.stopped.take().is_some() {
            self.hurried = true;
            if let Some(path) = &mut self.path {
                path.hear(now());
            }
        }
    }

    // What is to be written.

    /// Prepares the next write, unless one is under way, and says whether there is any. The time is asked for when it matters, which
    /// it does not for most small messages; it must be the same for one call.
    pub(crate) fn stage(&mut self, mut now: impl FnMut() -> Instant) -> bool {
        let (target, ended, given) = (self.ack_target(), self.ended, self.given());
        let (reported, unreported_since) = (self.reported, self.unreported_since);
        let data_end = self.replay.end();
        let Some(path) = &mut self.path else {
            return false;
        };
        if path.is_writing() {
            return true;
        }
        // On a slow line a frame is no longer than what is kept for it, or nothing would come between for minutes.
        let most = FRAME_MAX.min(self.limits.replay);
        let data = data_end.saturating_sub(path.out_at).min(most as u64);
        let leaving = path.out_at < given;
        path.stage_small(&mut now, seconds(self.park));
        if self.over.is_some() {
            return path.is_writing();
        }
        let unreported = target.saturating_sub(reported);
        // Company makes it cheap; alone it waits for some.
        let (enough, long) = if leaving {
            (self.limits.ack_share / 4, self.limits.ack_delay / 2)
        } else {
            (self.limits.ack_share, self.limits.ack_delay)
        };
        let asked = std::mem::take(&mut path.ack);
        // By when something came last: where it is longer ago, the timer says so.
        let heard = path.heard;
        let waited = || unreported_since.is_some_and(|since| heard >= since + long);
        let due = unreported > 0 && (self.peer_ended || unreported >= enough || asked || waited());
        self.hurried |= asked || (data > 0 && self.waiting_since.is_none());
        if due || path.sign {
            self.hurried = true;
            path.sign = false;
            Frame::Ack(target.max(reported)).emit(&mut path.head);
            self.reported = target.max(reported);
            self.unreported_since = (self.received > self.reported).then(&mut now);
        }
        if data > 0 {
            self.waiting_since.get_or_insert_with(&mut now);
            let length = usize::try_from(data).unwrap_or(FRAME_MAX);
            Frame::Data(u32::try_from(length).unwrap_or(1)).emit(&mut path.head);
            if length <= COPY_MAX {
                self.replay.copy_to(path.out_at, length, &mut path.head);
                path.data_in_head = length;
            } else {
                path.body = length;
            }
        } else if ended && path.out_at == data_end {
            Frame::End.emit(&mut path.head);
            path.end_in_head = true;
        }
        path.is_writing()
    }

    /// Fills `slices` with what was prepared, and says how many are used.
    pub(crate) fn output<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let Some(path) = &self.path else {
            return 0;
        };
        let head = path.head.get(path.head_done..).unwrap_or_default();
        if head.is_empty() {
            return self.replay.slices(path.out_at, path.body, slices);
        }
        let [first, rest @ ..] = slices;
        *first = IoSlice::new(head);
        if path.body == 0 {
            return 1;
        }
        1 + self.replay.slices(path.out_at, path.body, rest)
    }

    /// Whether [`stage`](Self::stage) finds something that waits for no time to pass.
    pub(crate) fn has_output(&self) -> bool {
        self.unwritten() > 0 || self.is_urgent()
    }

    /// So many bytes of that were written.
    pub(crate) fn wrote(&mut self, n: usize) {
        let Some(path) = &mut self.path else {
            return;
        };
        path.wrote(n);
        self.sent = self.sent.max(path.out_at);
    }

    /// The most that may be acknowledged now.
    fn ack_target(&self) -> u64 {
        let on_path = self.path.as_ref().map_or(0, |path| path.in_at);
        let reported = self.proposals.iter().map(|(_, at)| at.received);
        reported
            .min()
            .unwrap_or(u64::MAX)
            .min(on_path)
            .min(self.received)
    }

    /// Something is to be written that waits for nothing.
    pub(crate) fn is_urgent(&self) -> bool {
        let Some(path) = &self.path else {
            return false;
        };
        if path.is_writing() || path.has_small() {
            return true;
        }
        let unreported = self.ack_target().saturating_sub(self.reported);
        unreported > 0 && (self.peer_ended || unreported >= self.limits.ack_share)
    }

    fn acknowledge(&mut self, now: Instant, reported: u64) {
        if reported == self.acked {
            return;
        }
        self.acked = reported;
        let reported = reported.min(self.replay.end());
        self.replay.acknowledge(reported, self.paid.allowed());
        self.paid.settle(self.replay.taken(), false);
        if self.replay.len() == 0 {
            self.emptied = now;
        }
        (self.freed, self.hurried) = (true, true);
        self.waiting_since = (self.acked < self.given()).then_some(now);
    }

    /// Nothing is sent for now: holds no memory beyond what it must.
    fn rest(&mut self) {
        self.replay.rest();
        self.paid.settle(self.replay.taken(), true);
    }

    // Ends.

    /// The peer broke the protocol: the session is over, and it is told so.
    pub(crate) fn violated(&mut self, violation: Violation) {
        self.give_up(SessionLost::Violation(violation));
    }

    /// This end gives the session up.
    pub(crate) fn give_up(&mut self, why: SessionLost) {
        if self.over.is_some() {
            return;
        }
        if self.both_ended() && matches!(why, SessionLost::Refused(Refusal::Over)) {
            // All of the peer's is here, and it says that it had all of ours: its word on that was lost. A peer that does not
            // know the session says nothing of that.
            self.heard_all = true;
            self.finish(Over::InOrder);
            return;
        }
        if let Some(path) = &mut self.path {
            let reason = match &why {
                SessionLost::Violation(_) => OverReason::Violation,
                SessionLost::NoRoom => OverReason::NoRoom,
                _ => OverReason::GivenUp,
            };
            path.over = Some(reason.code());
        }
        self.finish(Over::Lost(why));
    }

    /// Both ends have all that there was.
    pub(crate) fn finish_in_order(&mut self) {
        self.finish(Over::InOrder);
    }

    /// This end keeps the session for another time than it said.
    pub(crate) fn set_park(&mut self, park: Duration) {
        (self.park, self.hurried) = (park, true);
        if let Some(path) = &mut self.path {
            path.park = true;
        }
    }

    /// The peer keeps it for so long.
    pub(crate) fn set_peer_park(&mut self, park: Duration) {
        (self.peer_park, self.hurried) = (Some(park), true);
    }

    /// The path carries so many bytes a second, as far as that is known. What was configured counts for all of them.
    pub(crate) fn set_line_rate(&mut self, rate: Option<Rate>) {
        let config = self.config.clone();
        let rate = config.line_rate.or(rate);
        self.limits = Limits::of(&config.with_line_rate(rate));
        (self.freed, self.hurried) = (true, true);
    }

    fn finish(&mut self, over: Over) {
        self.over.get_or_insert(over);
        self.pathless_since = None;
        (self.freed, self.hurried) = (true, true);
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Engine {
    /// What holds whatever the peer does.
    pub(crate) fn assert_invariants(&self) {
        // Of a path before, which was faster, more may be left.
        let most = Limits::of(&self.config).replay;
        assert!(self.replay.len() <= most, "held beyond its limit");
        assert!(
            self.replay.in_chunks() <= self.paid.allowed(),
            "held, and not paid"
        );
        assert_eq!(self.replay.base(), self.acked.min(self.replay.end()));
        assert!(self.acked <= self.sent && self.sent <= self.given());
        assert!(self.reported <= self.received);
        if let Some(path) = &self.path {
            assert!(self.acked <= path.out_at && path.out_at <= self.sent);
            assert!(path.out_at + path.body as u64 <= self.given());
            let others = path.head.len() - path.data_in_head;
            assert!(others <= 64, "what is no data grows");
            assert!(path.data_in_head <= COPY_MAX, "more than a little data");
        }
    }
}
