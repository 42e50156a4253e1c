//! All rules of the link, without any IO: bytes of the wire in, bytes of the wire out, time as an
//! argument.
//!
//! - `handle_*` tell what happened: input, the end of the wire, its failure, a timer.
//! - [`poll_transmit`](Engine::poll_transmit) gives what is to be written now, one frame of data at
//!   most; it is asked again when all of that was taken. [`poll_timeout`](Engine::poll_timeout) says when
//!   to ask at the latest.
//! - Plain verbs are the application's: read, write, finish, abandon.
//!
//! What goes first: openings, answers to pings, acknowledgements, then what was lost, then what is new.
//! A frame that is lost is noticed by what comes behind it; when nothing does, a *ping* is sent, whose
//! answer tells what has arrived. A silent line is pinged four times a second, so that it is noticed
//! soon when a cut ends, and after a while asked by an opening, which a new instance can answer too.
//!
//! Where the line carries one way at a time, all of that is said in turns: see `engine/half`.
//!
//! The opening is in `opening`, the two directions in `send` and `receive`, what is known of the line in
//! `line`.

mod half;
mod inbound;
mod outbound;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cepa_transports::Side;
use cepa_transports::endpoint::{Duplex, MTU};

use super::codec::{Decoder, Escapes, FLAG, FrameCheck, Piece, code_of, unescape};
use super::config::Config;
use super::error::LinkError;
use super::frame::{Hello, WINDOW_BITS};
use super::half_duplex::{HalfDuplex, Random};
use super::line::{Line, Mark, PAYLOAD_MAX, PAYLOAD_MIN};
use super::opening::Opening;
use super::receive::RecvHalf;
use super::send::SendHalf;
use super::stats::Stats;

/// Between pings on an idle link: a new instance at the other end is to be noticed within 3 s.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// Silence after which a ping is not enough, and an opening asks whether the other end is still the same.
const DOUBT: Duration = Duration::from_millis(1600);

/// Between pings that get no answer: a cut that ends is noticed that soon. The first ones are faster.
const RETRY: Duration = Duration::from_millis(250);
const EAGER: usize = 2;

/// Between pings while the other end's window is closed.
const CLOSED: Duration = Duration::from_millis(500);

/// A frame that stops in its middle for so long is shown as chatter, unless the line is known to be slow.
const STALLED: Duration = Duration::from_millis(250);

/// Within a frame bytes come one after the other, but for what adapters and timers hold back: bytes of a
/// UART's buffer, and the time that a USB adapter waits for more.
const FIFO: usize = 64;
const PAUSE: Duration = Duration::from_millis(20);

/// How long an end that is done answers repetitions.
const LINGER: Duration = Duration::from_secs(1);

/// Unanswered pings that are remembered, and answers that wait.
const PINGS: usize = 16;
const PONGS: usize = 4;

/// Chatter that is kept until it is taken; more is dropped.
const CHATTER: usize = 16 << 10;

/// Payload up to which an acknowledgement travels with data; with longer ones it would come late.
const SHORT: u64 = 256;

#[derive(Debug)]
struct Ping {
    id: u8,
    /// What was sent before has come or is lost when the answer comes.
    order: u64,
    mark: Mark,
    sent_at: Instant,
}

/// What the application waits for, beside bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// To write more.
    pub(crate) room: bool,
    /// For all to have gone.
    pub(crate) flush: bool,
}

/// How a link ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// Both directions had.
    Closed,
    Failed(LinkError),
}

pub(crate) struct Engine {
    opening: Opening,
    /// Ours and theirs, once both nonces are known.
    seals: Option<(FrameCheck, FrameCheck)>,
    escapes: Escapes,
    /// Most bytes of a frame on the wire.
    mtu: Option<usize>,
    window: u8,
    send: SendHalf,
    receive: RecvHalf,
    line: Line,
    decoder: Decoder,
    /// When input came last.
    input_at: Instant,
    /// When a valid frame came last.
    heard_at: Instant,
    /// Since when something is to be acknowledged.
    ack_since: Option<Instant>,
    /// Wire bytes of the largest recent data frame of the peer.
    peer_frame: usize,
    pings: VecDeque<Ping>,
    next_ping: u8,
    /// Added between pings without an answer, at random: what disturbs a line may come as regularly as they.
    spread: Duration,
    random: Random,
    pongs: VecDeque<u8>,
    /// The next question is an opening.
    probe_next: bool,
    chatter: Vec<u8>,
    /// The last piece of input was a frame.
    heard_frame: bool,
    give_up: Duration,
    linger_until: Option<Instant>,
    /// Whose turn it is, in an epoch whose line carries one way at a time.
    turn: Option<HalfDuplex>,
    client: bool,
    /// The application is gone; the other end is told in our turn, or not.
    leave_by: Option<Instant>,
    reset_due: bool,
    end: Option<End>,
    stats: Stats,
    body: Vec<u8>,
}

impl Engine {
    /// One end of a link. `nonce` is to be random, and is not 0.
    pub(crate) fn new(side: Side, config: &Config, nonce: u64, now: Instant) -> Self {
        let window = config
            .window
            .clamp(*WINDOW_BITS.start(), *WINDOW_BITS.end());
        let payload = usize::from(config.payload_max).clamp(PAYLOAD_MIN, PAYLOAD_MAX);
        let ours = Hello {
            busy: false,
            unsure: true,
            half: config.duplex == Duplex::Half,
            escapes: code_of(config.escapes),
            window,
            payload: u16::try_from(payload).unwrap_or(u16::MAX),
            nonce: nonce.max(1),
            echo: 0,
            mtu: config.mtu.map_or(0, |mtu| mtu.max(*MTU.start())),
        };
        Self {
            opening: Opening::new(now, ours, side == Side::Client),
            seals: None,
            escapes: config.escapes,
            mtu: config.mtu.map(mtu_of),
            window,
            send: SendHalf::new(),
            receive: RecvHalf::new(1 << window),
            line: Line::new(now, config.line_rate, payload),
            decoder: Decoder::default(),
            input_at: now,
            heard_at: now,
            ack_since: None,
            peer_frame: 0,
            pings: VecDeque::new(),
            next_ping: 0,
            spread: Duration::ZERO,
            random: Random::new(nonce),
            pongs: VecDeque::new(),
            probe_next: false,
            chatter: Vec::new(),
            heard_frame: false,
            give_up: config.give_up,
            linger_until: None,
            turn: None,
            client: side == Side::Client,
            leave_by: None,
            reset_due: false,
            end: None,
            stats: Stats::default(),
            body: Vec::new(),
        }
    }

    // What the application does.

    /// Bytes that [`write`](Self::write) would take now.
    pub(crate) fn room(&self, now: Instant) -> usize {
        if self.end.is_some() || !self.opening.is_established() || self.send.is_finishing() {
            return 0;
        }
        self.line.room(now, self.send.waiting())
    }

    /// Takes some of the bytes.
    pub(crate) fn write(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let taken = bytes.get(..self.room(now)).unwrap_or(bytes);
        self.send.write(taken);
        taken.len()
    }

    /// Whether there is room for what is worth a call of the application, or will not be any more.
    pub(crate) fn is_writable(&self, now: Instant) -> bool {
        self.end.is_some() || self.room(now) >= self.worth()
    }

    /// All that was written has gone to the line, and the line is about to be free.
    pub(crate) fn is_flushed(&self, now: Instant) -> bool {
        self.end.is_some() || (self.send.waiting() == 0 && self.line.drained_at() <= now)
    }

    /// Bytes that are worth waking a writer for.
    fn worth(&self) -> usize {
        self.line.payload() / Line::WORTH
    }

    /// Ends our direction behind what was written.
    pub(crate) fn finish(&mut self) {
        self.send.finish();
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.send.is_finishing()
    }

    /// Something has become worth telling the other end.
    pub(crate) fn wants_ack(&self) -> bool {
        self.receive.ack_due()
    }

    /// Our end, and all before it, has arrived.
    pub(crate) fn is_finished(&self) -> bool {
        self.send.is_finished()
    }

    /// Takes what can be read.
    pub(crate) fn read(&mut self, room: usize, put: impl FnMut(&[u8])) -> usize {
        self.receive.read(room, put)
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.receive.is_readable()
    }

    /// The peer's stream has ended, and all of it was read.
    pub(crate) fn is_read_out(&self) -> bool {
        self.receive.is_ended() && !self.receive.is_readable()
    }

    /// Gives the link up, at once or in our turn; the peer is told, as far as one frame can.
    pub(crate) fn abandon(&mut self, now: Instant) {
        if self.turn.is_some() && self.end.is_none() {
            self.abandon_in_turn(now);
        } else {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if self.end.is_none() {
            self.reset_due = self.opening.is_established();
            self.end = Some(End::Failed(LinkError::DriverGone));
        }
    }

    /// How the link ended, if it has.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// What has come that is not of the link.
    pub(crate) fn take_chatter(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.chatter)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }

    // What happened.

    /// Bytes came from the wire.
    pub(crate) fn handle_input(&mut self, now: Instant, mut bytes: &[u8]) {
        self.input_at = now;
        while self.end.is_none()
            && let Some(piece) = self.decoder.next(&mut bytes)
        {
            let raw = match piece {
                Piece::Chatter(raw) => raw,
                Piece::Candidate {
                    mut raw,
                    handed_out,
                } => {
                    let body = unescape(&raw, self.escapes);
                    if body.is_some_and(|body| self.handle_body(now, &body, raw.len())) {
                        self.hears_frame();
                        continue;
                    }
                    self.stats.invalid += 1;
                    if self.hears_itself(now) {
                        self.hears_frame();
                        continue;
                    }
                    raw.split_off(handed_out)
                }
            };
            self.chat(&raw);
        }
        self.conclude(now);
    }

    /// The wire has ended.
    pub(crate) fn handle_eof(&mut self) {
        let done = self.receive.is_ended() && self.send.is_delivered();
        self.finished(if done {
            End::Closed
        } else {
            End::Failed(LinkError::Truncated)
        });
    }

    /// The wire has failed, or nobody drives the link any more.
    pub(crate) fn handle_failure(&mut self, error: LinkError) {
        self.fail(error);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.stalled_at().is_some_and(|at| now >= at) {
            let raw = self.decoder.chatter_so_far();
            self.chat(&raw);
        }
        if self.leave_by.is_some_and(|at| now >= at) {
            self.leave();
        }
        if self.opening.is_established() && now >= self.heard_at + self.give_up {
            self.fail(LinkError::Silent {
                seconds: self.give_up.as_secs(),
            });
        }
        self.conclude(now);
    }

    /// When to ask for something to transmit, and to call `handle_timeout`, at the latest.
    ///
    /// `waits`: what the application waits for. `blocked`: the wire does not take what it was given, so
    /// there is nothing to ask for.
    pub(crate) fn poll_timeout(
        &self,
        now: Instant,
        waits: Waits,
        blocked: bool,
    ) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let stalled = self.stalled_at();
        let give_up = self.heard_at + self.give_up;
        if blocked {
            let established = self.opening.is_established();
            let give_up = established.then_some(give_up);
            return earliest([stalled, give_up, self.linger_until, self.leave_by]);
        }
        if !self.opening.is_established() {
            let next = self.opening.next();
            return earliest([stalled, next.map(|at| at.max(self.amid_until()))]);
        }
        // Room comes by itself only while the line drains.
        let drains = waits.room && !self.line.is_idle(now) && !self.is_writable(now);
        let room = drains.then(|| {
            let lacks = self.worth().saturating_sub(self.room(now));
            now + self.line.time_of(lacks).max(Duration::from_millis(1))
        });
        let flushed = waits.flush && self.send.waiting() == 0 && !self.is_flushed(now);
        let (ask, data, ack) = if let Some(at) = self.turn_at() {
            (at, None, None)
        } else {
            let data = self.data_at(now).err().flatten();
            (self.ask_at(), data, self.ack_at())
        };
        earliest([
            stalled,
            Some(ask),
            data,
            ack,
            room,
            flushed.then(|| self.line.drained_at()),
            self.linger_until,
            self.leave_by,
            Some(give_up),
        ])
    }

    /// When what has begun and does not go on is shown as chatter.
    fn stalled_at(&self) -> Option<Instant> {
        let pause = STALLED.max(self.line.time_of(2 * FIFO));
        self.decoder.is_amid().then(|| self.input_at + pause)
    }

    /// Looks whether all is done.
    fn conclude(&mut self, now: Instant) {
        if self.end.is_some() || !self.receive.is_ended() {
            return;
        }
        let silent =
            self.send.is_finishing() && self.send.is_delivered() && now >= self.heard_at + DOUBT;
        if self.send.is_finished() {
            let until = *self.linger_until.get_or_insert(now + LINGER);
            if now >= until {
                self.finished(End::Closed);
            }
        } else if silent {
            // Only the answer to our end is missing, and who would have sent it is done.
            self.finished(End::Closed);
        }
    }

    fn fail(&mut self, error: LinkError) {
        self.finished(End::Failed(error));
    }

    fn finished(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The last piece was a frame. Of the flags between it and chatter one is its own, where it begins.
    fn hears_frame(&mut self) {
        if !std::mem::replace(&mut self.heard_frame, true) {
            let flags = self.decoder.flags_before().saturating_sub(1);
            self.keep_chatter(&vec![FLAG; flags.min(CHATTER)]);
        }
    }

    /// The last piece was chatter, and so are the flags before it, but for the one that ended a frame.
    fn chat(&mut self, raw: &[u8]) {
        let ended = usize::from(std::mem::take(&mut self.heard_frame));
        let flags = self.decoder.flags_before().saturating_sub(ended);
        self.keep_chatter(&vec![FLAG; flags.min(CHATTER)]);
        self.keep_chatter(raw);
    }

    fn keep_chatter(&mut self, raw: &[u8]) {
        let room = CHATTER.saturating_sub(self.chatter.len());
        self.chatter.extend(raw.get(..room).unwrap_or(raw));
    }

    /// Bytes that are kept for the application and for the wire.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn kept(&self) -> (usize, u64) {
        (self.receive.kept(), self.send.kept())
    }
}

/// Any less would not hold an opening.
fn mtu_of(announced: u16) -> usize {
    usize::from(announced.max(*MTU.start()))
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
