//! What comes over the wire: frames, openings, and what acknowledgements tell.

use std::time::{Duration, Instant};

use super::super::codec::{FrameCheck, escapes_of};
use super::super::error::LinkError;
use super::super::frame::{Ack, Frame, Hello, VERSION, ranges_max};
use super::super::half_duplex::HalfDuplex;
use super::super::line::{Mark, OPEN};
use super::super::opening::Verdict;
use super::super::send::Fate;
use super::{Engine, PONGS, mtu_of};

impl Engine {
    /// A candidate without its escapes. Says whether it was a valid frame.
    pub(super) fn handle_body(&mut self, now: Instant, body: &[u8], wire_len: usize) -> bool {
        if let Some(body) = FrameCheck::opening().check(body)
            && Hello::is_one(body)
        {
            return self.handle_opening(now, body, wire_len);
        }
        let Some(body) = self
            .seals
            .as_ref()
            .and_then(|(_, theirs)| theirs.check(body))
        else {
            // What the line reflects of ours is nobody's.
            let ours = self.seals.as_ref().map(|(ours, _)| ours);
            return ours.is_some_and(|ours| ours.check(body).is_some());
        };
        self.stats.received += 1;
        if !self.opening.is_established() {
            self.opening.confirm();
            self.establish(now, wire_len, false);
        }
        // Sealed right, but not understood: ignored, as a later version may have more kinds.
        let Some(frame) = Frame::parse(body, self.place()) else {
            return true;
        };
        self.heard_at = now;
        let took = self.line.time_of(wire_len);
        if let Some(turn) = &mut self.turn {
            turn.hears(now, took, matches!(frame, Frame::Data { .. }));
        }
        match frame {
            Frame::Hello(_) => {}
            Frame::Turn(handed) => self.handle_turn(now, &handed),
            Frame::Data {
                offset,
                payload,
                fin,
                ack,
            } => {
                if let Some(ack) = ack {
                    self.acknowledge(now, &ack, None);
                }
                self.peer_frame = wire_len.max(self.peer_frame / 2);
                self.receive.data(offset, payload, fin);
            }
            Frame::Ack(ack) => self.acknowledge(now, &ack, None),
            Frame::Ping(id) => {
                if self.pongs.len() < PONGS {
                    self.pongs.push_back(id);
                }
            }
            Frame::Pong(id, ack) => {
                let ping = self.answered(id);
                let order = ping.as_ref().map(|ping| ping.order);
                self.acknowledge(now, &ack, order);
                if let Some(ping) = ping {
                    self.line.passed_by(now, &ping.mark);
                }
            }
            Frame::Reset => self.fail(LinkError::Reset),
        }
        true
    }

    fn handle_opening(&mut self, now: Instant, body: &[u8], wire_len: usize) -> bool {
        let place = self.place();
        let Some(Frame::Hello(open)) = Frame::parse(body, place) else {
            self.stats.received += 1;
            if let Some(theirs) = Hello::version(body).filter(|theirs| *theirs != VERSION)
                && !self.opening.is_established()
            {
                self.fail(LinkError::Version {
                    theirs,
                    ours: VERSION,
                });
            }
            return true;
        };
        // What the line reflects is not from the other end.
        self.stats.received += u64::from(!self.opening.is_ours(&open));
        let was = self.opening.is_established();
        match self.opening.handle(now, open) {
            Verdict::Restarted => self.fail(LinkError::Restarted),
            Verdict::Established => self.establish(now, wire_len, true),
            Verdict::Nothing => {}
        }
        if was {
            if self
                .opening
                .nonces()
                .is_some_and(|(_, theirs)| theirs == open.nonce)
            {
                self.heard_at = now;
                if let Some(turn) = &mut self.turn {
                    turn.is_answered();
                }
            }
        } else {
            self.heard_at = now;
            // Frames of the other end may come before it is sure that we know it.
            self.seals = self.opening.nonces().map(|(ours, theirs)| {
                (
                    FrameCheck::epoch(ours, theirs),
                    FrameCheck::epoch(theirs, ours),
                )
            });
        }
        true
    }

    /// Both nonces are known to both: what the other end said of itself holds from now on. `first`: by its
    /// opening, so it waits to hear us.
    fn establish(&mut self, now: Instant, wire_len: usize, first: bool) {
        if let Some(theirs) = self.opening.theirs() {
            self.escapes = self.escapes.max(escapes_of(theirs.escapes));
            self.send.set_window(1 << theirs.window);
            self.line.bound_payload(usize::from(theirs.payload));
            let mtu = Some(theirs.mtu).filter(|mtu| *mtu > 0);
            self.mtu = self.mtu.into_iter().chain(mtu.map(mtu_of)).min();
            if let Some(mtu) = self.mtu {
                // Flags, control, offset and checksum.
                self.line.bound_payload(mtu - 9);
            }
        }
        if self.opening.take_proof_due() {
            self.receive.say_something();
        }
        let mut reply = Duration::ZERO;
        if let Some(sent) = self.opening.sent_at() {
            let took = now.saturating_duration_since(sent);
            self.line.opened(took, wire_len);
            reply = took.saturating_sub(self.line.time_of(OPEN + wire_len));
        }
        let half = |open: &Hello| open.half;
        if self.opening.is_half() || self.opening.theirs().as_ref().is_some_and(half) {
            let seed = self.opening.nonces().map_or(0, |(ours, _)| ours);
            self.turn = Some(HalfDuplex::new(now, first, self.client, reply, seed));
            self.line.take_turns();
        }
    }

    pub(super) fn acknowledge(&mut self, now: Instant, ack: &Ack, after: Option<u64>) {
        let mut fates = Vec::new();
        let theirs = self
            .opening
            .theirs()
            .map_or(self.window, |open| open.window);
        let full = ranges_max(self.mtu, theirs);
        self.send.acknowledge(now, ack, (after, full), &mut fates);
        let mut newest: Option<Mark> = None;
        for fate in fates {
            match fate {
                Fate::Arrived { mark, first } => {
                    self.line.decided(&mark, false);
                    newest = first.then_some(mark).or(newest);
                }
                Fate::Lost(mark) => {
                    self.line.decided(&mark, true);
                    self.stats.lost += 1;
                }
            }
        }
        if let Some(mark) = newest {
            self.line.passed_by(now, &mark);
            // What went before it would have been answered by now.
            self.pings.retain(|ping| ping.mark.is_behind(&mark));
        }
    }
}
