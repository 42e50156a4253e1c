//! Paths that come and go: what to tell the peer on a new one, which of two counts, and where both directions start on it.

use std::time::Instant;

use cepa_transports::{Rate, Side};

use super::super::error::{AttachError, Refusal, SessionLost, Violation};
use super::super::hello::At;
use super::super::path::{Path, Rank};
use super::{Engine, Over};

impl Engine {
    /// The path takes nothing any more, and something may still come of it.
    pub(crate) fn handle_broken(&mut self, now: Instant) {
        if let Some(path) = &mut self.path {
            path.broken.get_or_insert(now);
            self.hurried = true;
        }
    }

    /// The path carries nothing any more.
    pub(crate) fn handle_path_lost(&mut self, now: Instant) {
        if self.path.take().is_none() {
            return;
        }
        self.hurried = true;
        if self.over.is_none() {
            self.pathless_since = Some(now);
        }
        self.rest();
    }

    /// What to tell the peer on a new path that this end has dialled. Until the number, which was not used before, is
    /// attached or withdrawn, nothing beyond is acknowledged.
    pub(crate) fn propose(&mut self, number: u64) -> Option<At> {
        let generation = self.rank.generation.max(self.proposed).checked_add(1)?;
        if self.over.is_some() {
            return None;
        }
        let at = At {
            generation,
            received: self.received,
        };
        self.proposed = generation;
        self.proposals.push((number, at));
        Some(at)
    }

    /// A proposal came to nothing.
    pub(crate) fn withdraw(&mut self, proposal: u64) {
        self.proposals.retain(|(number, _)| *number != proposal);
        self.hurried = true;
    }

    /// The peer takes the session up on a path that it has dialled, and has proven that it may. The path that is
    /// there is lost; the answer is what to tell the peer.
    pub(crate) fn claim(&mut self, now: Instant, theirs: At) -> Result<At, Refusal> {
        match self.over() {
            None => {}
            // It has all that there was, which the other end may not know yet.
            Some(Over::InOrder) if self.is_complete() => return Err(Refusal::Over),
            Some(Over::Lost(SessionLost::NoRoom)) => return Err(Refusal::NoRoom),
            Some(_) => return Err(Refusal::Unknown),
        }
        let rank = Rank {
            generation: theirs.generation,
            by_client: self.side == Side::Server,
        };
        // What is older than what it has acknowledged was overtaken by another path.
        if rank <= self.rank || theirs.received < self.acked {
            return Err(Refusal::Stale);
        }
        if theirs.received > self.sent {
            self.violated(Violation::Acknowledged {
                reported: theirs.received,
                least: self.acked,
                most: self.sent,
            });
            return Err(Refusal::Unknown);
        }
        self.rank = rank;
        self.hurried = true;
        if self.path.take().is_some() {
            self.pathless_since = Some(now);
        }
        Ok(At {
            generation: theirs.generation,
            received: self.received,
        })
    }

    /// The path of a claim is there, with this rate where it is known. `theirs` and `ours` are what the ends have told on it.
    /// Gives the number of the path: unlike a generation, no other one has it.
    pub(crate) fn attach_claimed(
        &mut self,
        now: Instant,
        theirs: At,
        ours: At,
        line_rate: Option<Rate>,
    ) -> Result<u64, AttachError> {
        if self.over.is_some() {
            return Err(AttachError::Over);
        }
        let rank = Rank {
            generation: theirs.generation,
            by_client: self.side == Side::Server,
        };
        if rank != self.rank || self.path.is_some() {
            return Err(AttachError::Stale);
        }
        self.attach(now, ours.received, theirs.received, line_rate)
    }

    /// The peer has taken up a proposal. Gives the number of the path.
    pub(crate) fn attach_proposed(
        &mut self,
        now: Instant,
        proposal: u64,
        theirs: At,
        line_rate: Option<Rate>,
    ) -> Result<u64, AttachError> {
        let ours = self
            .proposals
            .iter()
            .find(|(number, _)| *number == proposal);
        let ours = ours.map(|(_, at)| *at);
        self.withdraw(proposal);
        if self.over.is_some() {
            return Err(AttachError::Over);
        }
        let rank = Rank {
            generation: theirs.generation,
            by_client: self.side == Side::Client,
        };
        let Some(ours) = ours.filter(|ours| ours.generation == rank.generation) else {
            return Err(AttachError::Stale);
        };
        if rank <= self.rank {
            return Err(AttachError::Stale);
        }
        self.rank = rank;
        self.attach(now, ours.received, theirs.received, line_rate)
    }

    fn attach(
        &mut self,
        now: Instant,
        ours: u64,
        theirs: u64,
        line_rate: Option<Rate>,
    ) -> Result<u64, AttachError> {
        let (least, most) = (self.acked, self.sent);
        if !(least..=most).contains(&theirs) {
            let reported = theirs;
            let violation = Violation::Acknowledged {
                reported,
                least,
                most,
            };
            self.violated(violation);
            return Err(AttachError::Violation(violation));
        }
        self.acknowledge(now, theirs);
        self.set_line_rate(line_rate);
        self.counters.paths += 1;
        self.counters.replayed += self.sent - theirs;
        if let Some(since) = self.pathless_since.take() {
            self.counters.pathless += now.saturating_duration_since(since);
        }
        self.reported = ours;
        self.unreported_since = (self.received > ours).then_some(now);
        // Silence of the old path says nothing of the new one.
        self.waiting_since = self.waiting_since.map(|_| now);
        let mut path = Path::new(now, ours, theirs);
        // What was said on the old path may have been lost with it.
        path.park = true;
        self.path = Some(path);
        (self.freed, self.hurried) = (true, true);
        Ok(self.counters.paths)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::time::Duration;

    use super::super::SLICES;
    use super::*;
    use crate::resume::Config;
    use crate::resume::frame::Frame;

    /// All that is written now.
    fn written(engine: &mut Engine, now: Instant) -> Vec<u8> {
        let mut wire = Vec::new();
        while engine.stage(|| now) {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = engine.output(&mut slices);
            let before = wire.len();
            for slice in slices.iter().take(used) {
                wire.extend_from_slice(slice);
            }
            engine.wrote(wire.len() - before);
        }
        wire
    }

    #[test]
    fn how_long_an_end_keeps_the_session_is_said_again_on_the_next_path() {
        let now = Instant::now();
        let mut park = Vec::new();
        Frame::Park(1200).emit(&mut park);
        // Cut in front of the frame, and behind it: nobody says that it arrived.
        for leaves in [false, true] {
            for side in [Side::Client, Side::Server] {
                let mut engine = Engine::new(side, &Config::default(), now);
                written(&mut engine, now);
                engine.set_park(Duration::from_secs(1200));
                if leaves {
                    assert!(written(&mut engine, now).starts_with(&park));
                }
                engine.handle_path_lost(now);
                let at = engine.propose(7).unwrap();
                engine.attach_proposed(now, 7, at, None).unwrap();
                let wire = written(&mut engine, now);
                assert!(wire.starts_with(&park), "{side:?}: {wire:?}");
            }
        }
    }

    #[test]
    fn who_asks_for_a_session_that_made_room_is_told_so() {
        let now = Instant::now();
        let mut engine = Engine::new(Side::Server, &Config::default(), now);
        engine.give_up(SessionLost::NoRoom);
        let at = At {
            generation: 1,
            received: 0,
        };
        assert_eq!(engine.claim(now, at), Err(Refusal::NoRoom));
    }
}
