//! What goes over the wire, and when.

use std::time::{Duration, Instant};

use super::super::codec::{Escapes, FrameCheck, SUM_LEN, cost, encode};
use super::super::frame::{Ack, Frame, Place, Width, ranges_max};
use super::super::line::{Mark, OPEN};
use super::{CLOSED, DOUBT, EAGER, Engine, FIFO, KEEPALIVE, PAUSE, PINGS, Ping, RETRY, SHORT};

impl Engine {
    /// Appends to `out` what is to be written now, and says whether that is anything.
    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        if self.end.is_some() {
            if std::mem::take(&mut self.reset_due) {
                self.emit(now, &Frame::Reset, out);
            }
            return out.len() > before;
        }
        if let Some(open) = self
            .opening
            .poll(now, self.line.time_of(OPEN), self.amid_until() > now)
        {
            self.emit(now, &Frame::Hello(open), out);
        }
        // Where frames have a limit, each is written by itself: a modem makes packets of writes.
        let apart = self.mtu.is_some();
        let is_full = |out: &Vec<u8>| apart && out.len() > before;
        if !self.opening.is_established() || is_full(out) {
            return out.len() > before;
        }
        if self.turn.is_some() {
            self.transmit_turn(now, out);
            return out.len() > before;
        }
        while !is_full(out)
            && let Some(id) = self.pongs.pop_front()
        {
            self.ack_since = None;
            let ack = self.receive.take_ack_from_start(self.ranges_max());
            self.emit(now, &Frame::Pong(id, ack), out);
        }
        if !is_full(out) && now >= self.ask_at() {
            self.ask(now, out);
        }
        if is_full(out) {
            return true;
        }
        let data = self.data_at(now);
        if self.receive.ack_due() {
            self.ack_since.get_or_insert(now);
            // Right before the data that goes now, or inside; else when the line is about to be free.
            let apart = if data.is_ok() {
                let crowded = self.mtu.is_some() && self.receive.has_gaps();
                crowded || self.send.waiting().min(self.line.payload() as u64) > SHORT
            } else {
                self.ack_at().is_some_and(|at| at <= now)
            };
            if apart {
                let ack = self.take_ack();
                self.emit(now, &Frame::Ack(ack), out);
                if is_full(out) {
                    return true;
                }
            }
        }
        if data.is_ok() {
            self.transmit_data(now, out);
        }
        out.len() > before
    }

    /// One frame of what was lost or is new.
    pub(super) fn transmit_data(&mut self, now: Instant, out: &mut Vec<u8>) {
        // A turn that is handed over tells all.
        let ack_alone = self.turn.is_none() && self.receive.ack_due();
        let ack = ack_alone.then(|| self.take_ack());
        let most = self.fitting(ack.as_ref());
        if let Some(segment) = self.send.cut(most) {
            let alone = !self.send.is_under_way();
            // One that went to an empty line tells its delay as well, which is no rate.
            let full = self.send.is_ready() && !alone;
            let frame = Frame::Data {
                offset: segment.range.start,
                payload: &segment.payload,
                fin: segment.fin,
                ack,
            };
            let start = out.len();
            self.put(now, &frame, out);
            let mark = self.line.write(now, out.len() - start, alone, full);
            self.send.sent(segment.range, mark);
            self.stats.sent += 1;
        }
    }

    pub(super) fn take_ack(&mut self) -> Ack {
        self.ack_since = None;
        self.receive.take_ack(self.ranges_max())
    }

    /// Most ranges in an acknowledgement of ours.
    pub(super) fn ranges_max(&self) -> usize {
        ranges_max(self.mtu, self.window)
    }

    /// Most payload of the next frame of data, with this acknowledgement in it.
    fn fitting(&mut self, ack: Option<&Ack>) -> usize {
        let most = self.line.payload();
        let Some(mtu) = self.mtu else {
            return most;
        };
        let (offset, bytes) = self.send.peek();
        let head = Frame::Data {
            offset,
            payload: &[],
            fin: false,
            ack: ack.cloned(),
        };
        let mut body = Vec::new();
        head.emit(self.place(), &mut body);
        // Two flags; and the checksum may have to be escaped.
        let mut room = mtu.saturating_sub(2 + 2 * SUM_LEN);
        for byte in body {
            room = room.saturating_sub(cost(byte, self.escapes));
        }
        let fits = bytes.take(most).take_while(|byte| {
            let rest = room.checked_sub(cost(*byte, self.escapes));
            room = rest.unwrap_or(room);
            rest.is_some()
        });
        fits.count().max(1)
    }

    /// When an acknowledgement goes by itself, if one is due.
    pub(super) fn ack_at(&self) -> Option<Instant> {
        let since = self.ack_since.filter(|_| self.receive.ack_due())?;
        Some(self.line.ack_at(since, self.receive.has_gaps()))
    }

    /// Whether a frame of data is to go now; if not, when, unless something comes before.
    pub(super) fn data_at(&self, now: Instant) -> Result<(), Option<Instant>> {
        if !self.send.is_ready() {
            return Err(None);
        }
        let payload = self.line.payload();
        let partial = self.send.is_partial(payload);
        self.line
            .may_send(now, payload, partial, self.send.newest())
    }

    /// Until when the rest of a frame that has begun is to be waited for: it may be the answer.
    pub(super) fn amid_until(&self) -> Instant {
        let opens_half = self.opening.is_half() && !self.opening.is_established();
        if self.decoder.is_amid() || opens_half {
            self.input_at + PAUSE.max(self.line.time_of(2 * FIFO))
        } else {
            self.input_at
        }
    }

    /// When to ask the other end what has arrived, or whether it is there.
    pub(super) fn ask_at(&self) -> Instant {
        let other = if self.input_at <= self.heard_at + KEEPALIVE {
            self.peer_frame
        } else {
            0
        };
        let idle = self.heard_at + KEEPALIVE.max(self.line.time_of(80));
        let ping = self.pings.back().map(|ping| {
            let overdue = self.line.overdue(&ping.mark, other);
            if self.pings.len() > EAGER {
                let retry = RETRY.max(self.line.time_of(OPEN));
                overdue.max(ping.sent_at + retry) + self.spread
            } else {
                overdue
            }
        });
        let data = self
            .send
            .newest()
            .map(|mark| self.line.overdue(mark, other));
        match ping.max(data) {
            // Once something has come, it is known how long the other end's frames are.
            Some(at) if self.peer_frame == 0 => at.max(self.amid_until()),
            Some(at) => at,
            None if self.send.is_held_back() => idle.min(self.heard_at + CLOSED),
            None => idle,
        }
    }

    /// Sends a ping; or, after some silence, every other time an opening.
    pub(super) fn ask(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.probe_next = !self.probe_next && now >= self.heard_at + DOUBT;
        if self.probe_next {
            self.opening.probe();
            if self.mtu.is_none()
                && let Some(open) = self.opening.poll(now, Duration::ZERO, false)
            {
                self.emit(now, &Frame::Hello(open), out);
            }
        }
        self.spread = RETRY / 2 * self.random.next() / 256;
        let (id, order) = (self.next_ping, self.send.order());
        self.next_ping = id.wrapping_add(1);
        let start = out.len();
        self.put(now, &Frame::Ping(id), out);
        let alone = !self.send.is_under_way();
        let mark = self.line.write(now, out.len() - start, alone, false);
        self.remember(id, order, mark, now);
    }

    /// A question has gone.
    pub(super) fn remember(&mut self, id: u8, order: u64, mark: Mark, sent_at: Instant) {
        if self.pings.len() == PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping {
            id,
            order,
            mark,
            sent_at,
        });
    }

    /// The question that was answered; those before it will not be.
    pub(super) fn answered(&mut self, id: u8) -> Option<Ping> {
        let answered = self.pings.iter().position(|ping| ping.id == id);
        answered.and_then(|at| self.pings.drain(..=at).next_back())
    }

    /// A frame that nobody waits for.
    pub(super) fn emit(&mut self, now: Instant, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.put(now, frame, out);
        self.line.write(now, out.len() - start, false, false);
    }

    pub(super) fn put(&mut self, now: Instant, frame: &Frame<'_>, out: &mut Vec<u8>) {
        // Behind a pause there may be anything on the line; behind a frame there is its flag.
        // A packet of a modem is to be whole by itself.
        let lead = out.is_empty() && (self.mtu.is_some() || self.line.is_idle(now));
        self.body.clear();
        frame.emit(self.place(), &mut self.body);
        let opening = FrameCheck::opening();
        let (seal, escapes) = match (frame, &self.seals) {
            (Frame::Hello(_), _) | (_, None) => (&opening, Escapes::Control),
            (_, Some((ours, _))) => (ours, self.escapes),
        };
        encode(&self.body, seal, escapes, lead, out);
    }

    pub(super) fn place(&self) -> Place {
        let theirs = self
            .opening
            .theirs()
            .map_or(self.window, |open| open.window);
        Place {
            receive_next: self.receive.next(),
            receive_width: Width::of_window(self.window),
            send_base: self.send.base(),
            send_width: Width::of_window(theirs),
        }
    }
}
