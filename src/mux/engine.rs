//! The protocol, whole, without IO, runtime or clock: bytes and the time go in, bytes and the time
//! of the next deadline come out.
//!
//! The calls come in three classes:
//! - `handle_*`: what happened outside. Bytes came, the byte stream ended or failed, a deadline
//!   passed. They never block and never fail; a peer's misdeed ends the session, which is then
//!   seen in [`Engine::end`].
//! - `poll_*` and `take_*`: what is to happen outside. Bytes to write, when to call
//!   [`Engine::handle_timeout`], tasks to wake, news for those who wait. To be called after every
//!   call of the other classes, until they have nothing.
//! - plain verbs (`open`, `accept`, `read`, `write`, `shutdown`, …): what the application wants.
//!
//! The file tree follows this:
//! - `receive`: bytes in, and `transmit`: bytes out
//! - `verbs`: what the application does with streams; `openings`: how it gets them
//! - `clock`: what passing time does; `pings`; `pause`: a peer that will be silent for a while; `path`: another path below
//! - `room`: memory of unread data; `quiet`: what is given back when nothing moves; `early`, `retreat`: what the other end is spared
//! - `end`: how a session ends; `told`: what those who watch it are told
//!
//! Here stands what belongs to the session as a whole. Two engines that are wired together by hand, with a time that
//! a test makes up, are a complete session: see `tests/`.

mod clock;
mod early;
mod end;
mod events;
mod openings;
mod path;
mod pause;
mod pings;
mod quiet;
mod receive;
mod retreat;
mod room;
mod transmit;
mod verbs;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cepa_transports::Side;

use super::code::GoAwayCode;
use super::config::Config;
use super::credit::{Budget, RateLimit};
use super::error::{MuxError, StreamError};
use super::event::EventLog;
use super::frame::{Decoder, Frame};
use super::memory::Memory;
use super::moment::Moment;
use super::pacing::Pacer;
use super::queue::RecvQueue;
use super::scheduler::{Lane, Scheduler};
use super::state::{Event, Handshake};
use super::stats::Stats;
use super::store::{Key, Store};
use super::stray::Strays;
use super::stream_entry::Rst;
use super::unsent::Unsent;
use super::wakes::Wakes;

/// A round trip measured longer ago than this is measured again before windows grow by it.
const ROUND_TRIP_STALE: Duration = Duration::from_secs(10);

/// What those who wait for the session as a whole are to be told.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// There may be more room for those who accept: [`Engine::accept_room`].
    pub(crate) accept: bool,
    /// There may be more room for those who open: [`Engine::open_room`].
    pub(crate) open: bool,
    /// Something was recorded for those who watch.
    pub(crate) event: bool,
    /// The session's end, or a go-away, is known.
    pub(crate) ended: bool,
    /// The driver is to look at the deadlines anew, even while it waits for the byte stream.
    pub(crate) driver: bool,
    /// Pings that were answered: the token of [`Engine::ping`], and the round trip.
    pub(crate) pongs: Vec<(u64, Duration)>,
}

/// One end of a session. See the head of this file.
#[derive(Debug)]
pub(crate) struct Engine {
    side: Side,
    config: Config,
    store: Store,
    scheduler: Scheduler,
    budget: Budget,
    memory: Memory,
    unsent: Unsent,

    // Inbound.
    decoder: Decoder,
    /// Memory of the chunk that is being taken apart.
    chunk_held: usize,
    /// Whose body is arriving, and whether a FIN stands behind it.
    body: Option<(Key, bool)>,
    /// Streams of the peer that wait for `accept`, oldest first.
    backlog: VecDeque<Key>,
    inbound: usize,
    /// Openings of the peer that were refused, or reset before anybody saw them.
    resets: RateLimit,
    /// There were too many of those: streams are accepted again at this time.
    slowed_until: Option<Instant>,
    excess_pings: RateLimit,
    /// What may still come for streams that do not exist.
    strays: Strays,

    // Outbound.
    next_id: Option<u32>,
    outbound: usize,
    /// Openings of ours that the peer has not answered, or not been told that they are over.
    unanswered: usize,
    /// Bytes sent on those, and streams that wait until it is less.
    early: u64,
    early_held: VecDeque<Key>,
    /// Openings that this end may take back before they were answered, and those that wait for it.
    retreats: RateLimit,
    retreating: VecDeque<Key>,
    /// Frames of the session itself, and RSTs for streams that were refused.
    control: VecDeque<Frame>,
    /// Values of pings to answer.
    pongs: VecDeque<u32>,

    /// How much may be in flight.
    pacer: Pacer,

    // Pings of ours, in the order of sending.
    pings: VecDeque<PingOut>,
    ping_seed: u64,
    ping_count: u64,
    round_trip: Option<Duration>,
    round_trip_at: Option<Instant>,

    /// What streams were for lately, of which the next ones may be.
    labels: VecDeque<Arc<String>>,

    // Deadlines.
    started_at: Instant,
    received_at: Instant,
    /// Bytes that came since memory was last given back; see `quiet`.
    came: u64,
    quiet: bool,
    /// When the peer was last heard of, or could have been: while this end does not read, its silence is none.
    heard_at: Instant,
    /// When a ping was sent for that, and nothing has come since.
    keepalive_asked: Option<Instant>,
    /// The layer below has no path at the moment.
    away: bool,
    /// The peer has said that it will be silent.
    peer_pause: Option<PeerPause>,
    pause_count: u64,
    /// Since when nothing is read from the wire and nothing that came before was read by anybody.
    still_since: Option<Instant>,
    next_scan: Option<Instant>,
    /// Streams that were dropped since the engine was last told the time; their clock starts then.
    dropped: Vec<Key>,
    /// The next deadline is earlier than when the driver last asked.
    retime: bool,

    // The end.
    /// No stream of the peer is taken any more, and none is opened.
    refusing: bool,
    /// The application has no handle to open or accept with.
    abandoned: bool,
    /// End when the last stream is over.
    ending: bool,
    /// End when everything that was asked for has gone out.
    closing: bool,
    /// What the peer is told then.
    close_code: GoAwayCode,
    /// By when the close has to be over, once its time has begun: that of [`Engine::close`] is bounded.
    close_bounded: bool,
    closed_by: Option<Instant>,
    local_go_away: Option<GoAwayCode>,
    go_away_owed: bool,
    go_away_sent: bool,
    remote_go_away: Option<GoAwayCode>,
    end: Option<MuxError>,

    wakes: Wakes,
    notices: Notices,
    event_log: EventLog,
    data_in: u64,
    data_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// A ping of ours that waits to leave, or for its answer.
#[derive(Debug)]
struct PingOut {
    value: u32,
    /// Who asked; `None`: the engine itself.
    token: Option<u64>,
    /// `None` until it was put on the wire.
    sent: Option<Instant>,
    /// This end did not read for a while since.
    held_up: bool,
}

/// A pause that the peer was granted.
#[derive(Debug)]
struct PeerPause {
    number: u64,
    until: Instant,
}

impl Engine {
    /// One end of a new session. `seed` makes ping values unpredictable and is to be random.
    pub(crate) fn new(side: Side, mut config: Config, seed: u64, now: Instant) -> Self {
        config.first_window = config.first_window.max(1);
        config.receive_window = config.receive_window.max(config.first_window);
        config.max_receive_window = config.max_receive_window.max(config.receive_window);
        Self {
            side,
            store: Store::default(),
            scheduler: Scheduler::default(),
            budget: Budget::new(config.receive_budget, config.first_window),
            memory: Memory::new(config.receive_budget, config.receive_pool.clone()),
            unsent: Unsent::new(config.receive_pool.clone()),
            decoder: Decoder::default(),
            chunk_held: 0,
            body: None,
            backlog: VecDeque::new(),
            inbound: 0,
            resets: RateLimit::new(config.reset_burst, config.reset_rate, now),
            slowed_until: None,
            excess_pings: RateLimit::new(config.reset_burst, config.reset_rate, now),
            strays: Strays::new(
                config.stray_bytes,
                // All streams at once, and all refusals that may be under way.
                config
                    .max_inbound_streams
                    .saturating_add(config.max_outbound_streams)
                    .saturating_add(config.reset_burst as usize),
            ),
            next_id: Some(match side {
                Side::Client => 1,
                Side::Server => 2,
            }),
            outbound: 0,
            unanswered: 0,
            early: 0,
            early_held: VecDeque::new(),
            retreats: RateLimit::new(
                config.reset_burst - config.reset_burst / 4,
                config.reset_rate,
                now,
            ),
            retreating: VecDeque::new(),
            control: VecDeque::new(),
            pongs: VecDeque::new(),
            pacer: Pacer::new(config.pacing, config.line_rate, now),
            pings: VecDeque::new(),
            ping_seed: seed,
            ping_count: 0,
            round_trip: None,
            round_trip_at: None,
            labels: VecDeque::new(),
            started_at: now,
            received_at: now,
            came: 0,
            quiet: false,
            heard_at: now,
            keepalive_asked: None,
            away: false,
            peer_pause: None,
            pause_count: 0,
            still_since: None,
            next_scan: None,
            dropped: Vec::new(),
            retime: false,
            refusing: false,
            abandoned: false,
            ending: false,
            closing: false,
            close_code: GoAwayCode::Normal,
            close_bounded: false,
            closed_by: None,
            local_go_away: None,
            go_away_owed: false,
            go_away_sent: false,
            remote_go_away: None,
            end: None,
            wakes: Wakes::default(),
            notices: Notices::default(),
            event_log: EventLog::new(config.events),
            data_in: 0,
            data_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            config,
        }
    }

    // ---- handle_*: what happened outside ----------------------------------------------------

    /// The byte stream ended.
    pub(crate) fn handle_eof(&mut self) {
        let clean = self.decoder.at_boundary();
        let error = match self.remote_go_away {
            Some(code) if clean => MuxError::GoAway { code },
            _ if clean && self.local_go_away.is_some() && self.live_streams() == 0 => {
                MuxError::Closed
            }
            _ => MuxError::Eof,
        };
        self.finish(error);
    }

    /// The byte stream failed.
    pub(crate) fn handle_io_error(&mut self, error: io::Error) {
        self.finish(MuxError::Io(error.into()));
    }

    // ---- poll_* and take_*: what is to happen outside ----------------------------------------

    /// Tasks that wait for a stream that is ready now. To be woken without the engine's lock.
    pub(crate) fn take_wakes(&mut self) -> Wakes {
        std::mem::take(&mut self.wakes)
    }

    /// News for those who wait for the session.
    pub(crate) fn take_notices(&mut self) -> Notices {
        std::mem::take(&mut self.notices)
    }

    /// Why the session is over, once it is. A go-away may still have to be sent.
    pub(crate) fn end(&self) -> Option<&MuxError> {
        self.end.as_ref()
    }

    /// Whether the peer was told that the session ends.
    pub(crate) fn go_away_sent(&self) -> bool {
        self.go_away_sent
    }

    /// Counters and gauges.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            streams: self.store.len(),
            inbound: self.inbound,
            waiting: self.backlog.len(),
            data_in: self.data_in,
            data_out: self.data_out,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            unread: self.memory.held(),
            stopped: self.memory.is_stopped(),
            unsent: self.unsent.held(),
            windows: self.budget.used(),
            peer_pauses: self.peer_pause.is_some(),
            ids_left: self.ids_left(),
            round_trip: self.round_trip,
            least_round_trip: self.pacer.least_round_trip(),
            delivery_rate: self.pacer.delivery_rate(),
            in_flight: self.pacer.in_flight(),
            flight_limit: self.pacer.flight_limit(),
        }
    }

    /// As streams keep times.
    fn moment(&self, now: Instant) -> Moment {
        Moment::new(self.started_at, now)
    }

    // ---- helpers ------------------------------------------------------------------------------

    /// Streams that are not over on the wire.
    fn live_streams(&self) -> usize {
        self.store
            .iter()
            .filter(|(_, entry)| !entry.settled)
            .count()
    }

    /// Puts a stream into the lane that fits what it has to send.
    fn schedule(&mut self, key: Key) {
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if self.end.is_some() {
            return;
        }
        if entry.rst == Rst::Held && entry.state.handshake == Handshake::Done {
            entry.rst = Rst::Owed;
        }
        let control =
            entry.rst == Rst::Owed || entry.credit_due() || entry.fin_due() || entry.greeting_due();
        if control && !entry.in_control {
            entry.in_control = true;
            self.scheduler.push(key, Lane::Control, entry.priority);
        }
        if (entry.can_send_data() || entry.stall_unnoticed()) && !entry.in_data {
            entry.in_data = true;
            let lane = if entry.send.len() <= super::scheduler::URGENT_MAX {
                Lane::Urgent
            } else {
                Lane::Bulk
            };
            let owes = lane == Lane::Bulk && entry.debt > 0;
            if owes {
                let debt = std::mem::take(&mut entry.debt);
                self.scheduler
                    .push_owing(key, entry.priority, 16 * usize::from(debt));
            } else {
                self.scheduler.push(key, lane, entry.priority);
            }
        }
    }

    /// Resets a stream: the peer is told with `code`, the application reads `failure`.
    fn reset_stream(&mut self, key: Key, code: u32, failure: StreamError) {
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if entry.state.is_over() {
            return;
        }
        let known = entry.state.handshake != Handshake::SynOwed;
        if let Ok(state) = entry.state.on(Event::RstSent) {
            entry.state = state;
        }
        self.unsent.change(entry.send.len(), 0, &mut self.wakes);
        entry.send.clear();
        entry.fin_wanted = false;
        entry.stalled_since = None;
        entry.failure = Some(Box::new(failure));
        self.wakes.extend(entry.reader.take());
        self.wakes.extend(entry.writer.take());
        if known && self.end.is_none() {
            entry.rst = Rst::Owed;
            entry.rst_code = code;
            // What the peer sends before it sees the RST is no offence.
            self.strays.allow(entry.id, entry.recv_window.left());
            self.schedule(key);
        }
        self.change_recv(key, RecvQueue::clear);
        self.settle(key);
    }

    /// To be called when the state of a stream has changed: keeps the counts, and removes the
    /// stream when neither the wire nor the application has a use for it.
    fn settle(&mut self, key: Key) {
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        let answered = !matches!(
            entry.state.handshake,
            Handshake::SynOwed | Handshake::AckAwaited
        );
        if entry.unanswered && (answered || (entry.state.is_over() && entry.rst == Rst::None)) {
            entry.unanswered = false;
            self.early -= entry.data_out;
            self.unanswered -= 1;
            self.notices.open = true;
            self.send_early(key);
        }
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if entry.state.is_over() && entry.rst == Rst::None {
            entry.settled = true;
            if !entry.held {
                self.remove(key);
            }
        }
    }

    /// Frees the slot of a stream.
    fn remove(&mut self, key: Key) {
        let Some(entry) = self.store.remove(key) else {
            return;
        };
        self.budget.release(entry.inbound, entry.recv_window.max());
        self.memory.change(entry.recv.held(), 0);
        self.memory.freed(&mut self.wakes);
        let end = self.end.as_ref();
        let reported = self.event_log.push(|| entry.closed(end));
        // With the last stream, whoever watches a session that is over is done.
        self.notices.event |= reported || end.is_some();
        if entry.unanswered {
            self.unanswered -= 1;
            self.early -= entry.data_out;
        }
        if entry.inbound {
            self.inbound -= 1;
            self.notices.accept |= !self.backlog.is_empty();
        } else {
            self.outbound -= 1;
            self.set_budget();
            self.notices.open = true;
        }
    }
}
