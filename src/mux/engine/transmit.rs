//! Bytes out: which frames make up the next write.
//!
//! Order: frames of the session (answers to pings first), then the scheduler's lanes. A batch is
//! filled while it has room, and the engine is asked for the next one only when this one is
//! written, so that what is urgent then is known as late as possible.

use std::time::Instant;

use super::super::batch::{Batch, TLS_RECORD};
use super::super::code::GoAwayCode;
use super::super::error::StreamError;
use super::super::frame::{Flags, Frame, HEADER_LEN};
use super::super::scheduler::{Lane, Turn, URGENT_MAX};
use super::super::state::{Event, Handshake};
use super::super::store::Key;
use super::super::stream_entry::Rst;
use super::Engine;

/// Usual largest body: with its header it fills a TLS record.
const FRAME_BODY: usize = TLS_RECORD - HEADER_LEN;

/// Largest body when the peer seems not to read. tokio-yamux keeps no more than eight unread frames
/// a stream and then stops its whole session; no peer minds a frame of 64 KiB.
const UNREAD_FRAME_BODY: usize = 4 * TLS_RECORD - HEADER_LEN;

/// No body is longer: rust-yamux refuses frames of more than 1 MiB, and 64 KiB is enough.
const FRAME_BODY_MAX: usize = 4 * TLS_RECORD;

/// What is on the way without new credit when larger frames begin.
const UNREAD: u32 = 64 << 10;

/// A frame is not cut shorter than this for the sake of a full record.
const CUT_MIN: usize = 1 << 10;

impl Engine {
    /// Whether there is something to send, as far as can be told without the time.
    pub(crate) fn wants_transmit(&self) -> bool {
        self.go_away_owed
            || self.retime
            || (self.end.is_none()
                && (!self.control.is_empty()
                    || !self.pongs.is_empty()
                    || self.scheduler.has_control()
                    || (self.scheduler.has_urgent() && !self.pacer.small_held())
                    || (self.scheduler.has_bulk() && !self.pacer.held())
                    || self.pings.iter().any(|ping| ping.sent.is_none())
                    || self.may_end()))
    }

    /// Whether [`Engine::end_if_done`] has something to do. Not whether the session is ending at all:
    /// the driver, woken for nothing, would ask again at once for as long as the peer takes.
    fn may_end(&self) -> bool {
        if self.scheduler.has_control() {
            false
        } else if self.closing {
            !self.store.iter().any(|(_, entry)| entry.has_output())
        } else {
            self.ending && self.live_streams() == 0
        }
    }

    /// Fills `batch`, which is empty, with what is to be written next.
    pub(crate) fn poll_transmit(&mut self, now: Instant, batch: &mut Batch) {
        if self.end.is_none() {
            self.start_clocks(now);
            self.start_closing(now);
            self.transmit_session(now, batch);
            if !self.transmit_lead(now, batch) {
                let bulk = self.transmit_streams(now, batch);
                self.transmit_mark(now, bulk, batch);
            }
            self.end_if_done(batch);
        }
        self.transmit_go_away(batch);
        self.bytes_out += batch.filled() as u64;
        let more = self.scheduler.has_bulk();
        self.pacer.on_sent(now, batch.filled(), more);
        // Whoever calls this asks for the next deadline, too.
        self.retime = false;
    }

    fn transmit_session(&mut self, now: Instant, batch: &mut Batch) {
        while batch.has_room() {
            let Some(value) = self.pongs.pop_front() else {
                break;
            };
            batch.push_frame(Frame::Pong { value });
        }
        self.transmit_go_away(batch);
        while batch.has_room() {
            let Some(frame) = self.control.pop_front() else {
                break;
            };
            batch.push_frame(frame);
        }
        for ping in self.pings.iter_mut().filter(|ping| ping.sent.is_none()) {
            ping.sent = Some(now);
            batch.push_frame(Frame::Ping { value: ping.value });
        }
    }

    fn transmit_go_away(&mut self, batch: &mut Batch) {
        if std::mem::take(&mut self.go_away_owed) {
            let code = self.local_go_away.unwrap_or(GoAwayCode::Normal);
            batch.push_frame(Frame::GoAway { code: code.into() });
            self.go_away_sent = true;
        }
    }

    /// Fills the batch from the lanes, as far as pacing lets it. Says whether bulk is in it.
    fn transmit_streams(&mut self, now: Instant, batch: &mut Batch) -> bool {
        let mut bulk = false;
        self.pacer.notice(self.scheduler.has_urgent(), now);
        let record = self.pacer.write_size();
        self.scheduler.set_frame(record);
        let most = self.pacer.batch();
        while batch.has_room() && batch.filled() < most {
            // On a slow path what is small goes alone: it has arrived when its record has.
            let alone = self.pacer.is_slow_path() && !batch.is_empty();
            let last = if self.scheduler.has_urgent() && !self.pacer.may_send_small(now) {
                Lane::Control
            } else if self.scheduler.has_bulk()
                && !alone
                && self.pacer.may_send(now, batch.filled())
            {
                Lane::Bulk
            } else {
                Lane::Urgent
            };
            let Some(turn) = self.scheduler.next(last) else {
                break;
            };
            bulk |= turn.lane == Lane::Bulk;
            match turn.lane {
                Lane::Control => self.transmit_control(now, turn.key, batch),
                Lane::Urgent | Lane::Bulk => self.transmit_data(now, turn, batch),
            }
        }
        bulk
    }

    /// A ping by itself, in front of a record.
    fn transmit_lead(&mut self, now: Instant, batch: &mut Batch) -> bool {
        let goes = self.scheduler.has_bulk() && batch.has_room() && self.pacer.wants_lead(now);
        if goes {
            let value = self.ping_value();
            batch.push_frame(Frame::Ping { value });
            self.pacer.on_lead_sent(now, value, batch.filled());
        }
        goes
    }

    /// A ping behind the batch, whose answer tells when it has arrived.
    fn transmit_mark(&mut self, now: Instant, bulk: bool, batch: &mut Batch) {
        if !batch.is_empty() && self.pacer.wants_probe(now, batch.filled(), bulk) {
            let value = self.ping_value();
            batch.push_frame(Frame::Ping { value });
            self.pacer.on_probe_sent(now, value, batch.filled());
        }
    }

    /// What a stream has to send besides data.
    fn transmit_control(&mut self, now: Instant, key: Key, batch: &mut Batch) {
        let moment = self.moment(now);
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        entry.in_control = false;
        entry.active_at = moment;
        let id = entry.id;
        if entry.rst == Rst::Owed {
            let unanswered = entry.state.handshake == Handshake::AckAwaited;
            if unanswered && self.retreats.take(now).is_none() {
                entry.rst = Rst::Held;
                self.retreating.push_back(key);
                return;
            }
            entry.rst = Rst::None;
            batch.push_frame(Frame::Window {
                id,
                flags: Flags::RST,
                value: entry.rst_code,
            });
            self.settle(key);
            return;
        }
        if entry.greeting_due() {
            self.transmit_greeting(now, key, batch);
        }
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if entry.credit_due() {
            self.budget.set_room(self.memory.room());
            let (largest, read) = (self.config.max_receive_window, entry.data_read());
            let delta =
                entry
                    .recv_window
                    .grant(now, self.round_trip, largest, read, &mut self.budget);
            if delta > 0 {
                batch.push_frame(Frame::Window {
                    id,
                    flags: Flags::NONE,
                    value: delta,
                });
            }
            if self
                .round_trip_at
                .is_none_or(|at| now > at + super::ROUND_TRIP_STALE)
            {
                self.ping_for_ourselves(now);
            }
        }
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if entry.fin_due() {
            // Not on the last data frame: hashicorp/yamux acts on a FIN before it stores the body
            // that came with it, and a reader in between sees the end too early.
            if let Ok(state) = entry.state.on(Event::FinSent) {
                entry.state = state;
                batch.push_frame(Frame::Window {
                    id,
                    flags: Flags::FIN,
                    value: 0,
                });
                // Somebody may wait for just that.
                self.wakes.extend(entry.writer.take());
            }
            let unwanted = entry.unwanted && entry.state.can_receive();
            self.watch(key);
            if unwanted {
                self.reset_stream(key, 0, StreamError::ResetHere);
            }
        }
        self.schedule(key);
        self.settle(key);
    }

    /// SYN or ACK, together with the first data or with a larger window. It is sent from the
    /// control lane, so streams appear at the peer in the order of their numbers.
    fn transmit_greeting(&mut self, now: Instant, key: Key, batch: &mut Batch) {
        let moment = self.moment(now);
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        let (flags, event) = if entry.state.handshake == Handshake::SynOwed {
            (Flags::SYN, Event::SynSent)
        } else {
            (Flags::ACK, Event::AckSent)
        };
        let Ok(state) = entry.state.on(event) else {
            return;
        };
        entry.state = state;
        entry.opened_at = moment;
        self.budget.set_room(self.memory.room());
        let extra = self
            .budget
            .take(self.config.receive_window - self.config.first_window);
        entry.recv_window.enlarge(extra);
        let id = entry.id;
        let fits = self.pacer.write_size() >= TLS_RECORD || entry.send.len() <= URGENT_MAX;
        if extra == 0 && fits && entry.can_send_data() {
            self.push_data(key, flags, FRAME_BODY, batch);
        } else {
            batch.push_frame(Frame::Window {
                id,
                flags,
                value: extra,
            });
        }
        self.watch(key);
    }

    fn transmit_data(&mut self, now: Instant, turn: Turn, batch: &mut Batch) {
        let moment = self.moment(now);
        let key = turn.key;
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        entry.in_data = false;
        if turn.lane == Lane::Urgent && entry.send.len() > URGENT_MAX {
            // More was written since: it is bulk now, and takes its turn there.
            self.schedule(key);
            return;
        }
        if entry.can_send_data() {
            if self.is_too_early(key) {
                return;
            }
            let Some(entry) = self.store.get_mut(key) else {
                return;
            };
            entry.active_at = moment;
            let unread = entry.send_window.since_credit() >= UNREAD;
            let record = self.pacer.write_size();
            let most = if record < TLS_RECORD {
                record - HEADER_LEN
            } else {
                room_for_body(batch, unread)
            };
            let sent = self.push_data(key, Flags::NONE, most, batch);
            self.scheduler.sent(turn, sent + HEADER_LEN);
        }
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if entry.stall_unnoticed() {
            entry.stalled_since = Some(moment);
            self.watch(key);
        }
        self.schedule(key);
        if let Some(debt) = self.scheduler.take_debt(key)
            && let Some(entry) = self.store.get_mut(key)
        {
            entry.debt = u16::try_from(debt / 16).unwrap_or(u16::MAX);
        }
    }

    /// Appends one data frame of at most `most` bytes, and says how long it is.
    fn push_data(&mut self, key: Key, flags: Flags, most: usize, batch: &mut Batch) -> usize {
        let Some(entry) = self.store.get_mut(key) else {
            return 0;
        };
        let Ok(state) = entry.state.on(Event::DataSent) else {
            return 0;
        };
        entry.state = state;
        let mut n = entry.send.len().min(most);
        if most >= CUT_MIN
            && entry.send.len() - n < most.min(CUT_MIN * 4) / 4
            && entry.send.len() <= FRAME_BODY_MAX
        {
            // No tiny frame for the rest.
            n = entry.send.len();
        }
        let len = u32::try_from(n)
            .unwrap_or(u32::MAX)
            .min(entry.send_window.credit());
        let n = len as usize;
        batch.push_frame(Frame::Data {
            id: entry.id,
            flags,
            len,
        });
        let before = entry.send.len();
        entry.send.move_to(n, batch);
        let most = entry.send_queue(self.config.send_queue, self.config.first_window);
        if entry.send.len() <= most / 2 {
            self.wakes.extend(entry.writer.take());
        }
        self.unsent
            .change(before, entry.send.len(), &mut self.wakes);
        entry.send_window.spend(len);
        entry.data_out += u64::from(len);
        if entry.unanswered {
            self.early += u64::from(len);
        }
        self.data_out += u64::from(len);
        n
    }

    /// Ends the session when it was asked to end and the time has come.
    fn end_if_done(&mut self, batch: &mut Batch) {
        // The data lanes may hold streams that have nothing to send any more, for as long as pacing says.
        if !batch.has_room() || self.scheduler.has_control() {
            return;
        }
        // What the peer has not ended and not read is no reason to wait: it reads what came, session or not.
        let over = if self.closing {
            self.control.is_empty() && !self.store.iter().any(|(_, entry)| entry.has_output())
        } else {
            self.ending && self.live_streams() == 0
        };
        if over {
            self.end_here();
        }
    }
}

/// How long the body of the next frame may be: so that it ends with a TLS record and the batch.
fn room_for_body(batch: &Batch, unread: bool) -> usize {
    let whole_records = if unread { 3 * TLS_RECORD } else { 0 };
    let mut record_left = batch.record_left() + whole_records;
    if record_left < HEADER_LEN + CUT_MIN {
        record_left += TLS_RECORD;
    }
    let most = if unread {
        UNREAD_FRAME_BODY
    } else {
        FRAME_BODY
    };
    let batch_left = batch.left().saturating_sub(HEADER_LEN).max(CUT_MIN);
    (record_left - HEADER_LEN).min(most).min(batch_left)
}
