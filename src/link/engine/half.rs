//! What an end does that takes turns with the other one: it talks in its turn, hands over with an
//! acknowledgement of all that has come, and asks when it hears nothing. `turn` says whose turn it is.
//!
//! The turn that is handed over is question and answer in one: what we have sent before a turn of ours that the
//! other end names, and that it does not acknowledge, is lost.

use std::time::Instant;

use super::super::frame::{Frame, Handed};
use super::super::half_duplex::{GAP_BYTES, HalfDuplex, Handing};
use super::{DOUBT, Engine, FIFO, KEEPALIVE, LINGER, PAUSE};

impl Engine {
    /// What is to be written now, one frame at most.
    pub(super) fn transmit_turn(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.turn_at().is_none_or(|at| at > now) {
            return;
        }
        if !self.has_turn() {
            self.ask_for_turn(now, out);
        } else if self.leave_by.is_some() {
            self.leave();
            self.emit(now, &Frame::Reset, out);
            self.reset_due = false;
        } else if self.may_talk() {
            let before = out.len();
            self.transmit_data(now, out);
            let len = out.len() - before;
            if let Some(turn) = &mut self.turn {
                turn.said(now, len);
            }
        } else if let Some(handing) = self.turn.as_mut().map(HalfDuplex::hand_over) {
            self.hand_over(now, handing, out);
        }
    }

    /// When there is something to do about turns.
    pub(super) fn turn_at(&self) -> Option<Instant> {
        let turn = self.turn.as_ref()?;
        if !turn.is_ours() {
            let quiet = self.quiet_since();
            return Some(turn.lost_at(quiet, self.line.time_of(FIFO)));
        }
        let mut talk = turn.talk_at(self.line.time_of(GAP_BYTES));
        if turn.is_fresh() {
            // Somebody talks where it is our turn: it may take it.
            talk = talk.max(self.amid_until());
        }
        if self.leave_by.is_some() {
            return Some(talk);
        }
        if self.may_talk() {
            return Some(talk.max(self.line.commit_at()));
        }
        // All was said, or enough.
        let until = if turn.is_fresh() {
            turn.held_until()
        } else if self.send.is_ready() {
            talk
        } else {
            self.line.free_soon()
        };
        Some(talk.max(until))
    }

    fn has_turn(&self) -> bool {
        self.turn.as_ref().is_some_and(HalfDuplex::is_ours)
    }

    /// There is data, and it fits in our turn.
    fn may_talk(&self) -> bool {
        let Some(turn) = &self.turn else {
            return false;
        };
        let waiting = usize::try_from(self.send.waiting()).unwrap_or(usize::MAX);
        let next = self.line.payload().min(waiting);
        self.send.is_ready()
            && (turn.is_fresh() || turn.sent() + next <= self.line.talk(turn.talk()))
    }

    /// Since when nothing was on the line. What is no frame counts for a while: it may become one.
    fn quiet_since(&self) -> Instant {
        let patience = KEEPALIVE + self.line.time_of(self.peer_frame);
        let heard = self.input_at.min(self.heard_at + patience);
        self.line.free_at().max(heard)
    }

    /// Nothing was heard for too long: hands the turn over again, or asks by an opening whether the other end
    /// is still the same.
    fn ask_for_turn(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.stats.silences += 1;
        self.probe_next = !self.probe_next && now >= self.heard_at + DOUBT;
        if self.probe_next {
            if let Some(turn) = &mut self.turn {
                turn.missed();
            }
            self.opening.probe();
            if let Some(open) = self.opening.poll(now, self.line.time_of(0), false) {
                self.emit(now, &Frame::Hello(open), out);
            }
        } else if let Some(handing) = self.turn.as_mut().map(|turn| turn.take(now)) {
            self.hand_over(now, handing, out);
        }
    }

    fn hand_over(&mut self, now: Instant, handing: Handing, out: &mut Vec<u8>) {
        let order = self.send.order();
        let start = out.len();
        let ack = self.receive.take_ack_from_start(self.ranges_max());
        let frame = Frame::Turn(Handed {
            number: handing.number,
            answer: handing.answer,
            more: self.send.is_ready(),
            ack,
        });
        self.put(now, &frame, out);
        let mark = self.line.write(now, out.len() - start, false, false);
        self.remember(handing.number, order, mark, now);
    }

    /// The other end hands over.
    pub(super) fn handle_turn(&mut self, now: Instant, handed: &Handed) {
        let ping = self.answered(handed.answer);
        let order = ping.as_ref().map(|ping| ping.order);
        self.acknowledge(now, &handed.ack, order);
        let left = ping.map(|ping| ping.mark.due());
        let handing = Handing {
            number: handed.number,
            answer: handed.answer,
        };
        if let Some(turn) = &mut self.turn
            && let Some((bytes, took)) = turn.receive(now, handing, handed.more, left)
        {
            let is_far = turn.is_far();
            self.line.turned(now, bytes, took, is_far);
        }
    }

    /// What comes now may be our own echo, damaged.
    pub(super) fn hears_itself(&self, now: Instant) -> bool {
        let late = PAUSE + self.line.time_of(2 * FIFO);
        self.turn.is_some() && now < self.line.free_at() + late
    }

    /// As if it had been handed to us.
    #[cfg(test)]
    pub(crate) fn take_the_turn(&mut self, now: Instant) {
        if let Some(turn) = &mut self.turn {
            let handing = Handing {
                number: 0,
                answer: 0,
            };
            let _ = turn.receive(now, handing, false, None);
        }
    }

    /// Gives the link up in our turn, or when that does not come.
    pub(super) fn abandon_in_turn(&mut self, now: Instant) {
        self.leave_by.get_or_insert(now + LINGER);
    }
}
