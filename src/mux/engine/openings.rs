//! Openings: of this end, as far as there is room and a number, and of the peer, as far as they may be accepted.

use std::time::Instant;

use super::super::error::{MuxError, OpenError};
use super::super::event::{Event, Limit};
use super::super::store::Key;
use super::super::stream_entry::Entry;
use super::Engine;

impl Engine {
    /// Opens a stream. `None`: too many are open or unanswered; try again after the notice `open`.
    pub(crate) fn open(&mut self, now: Instant) -> Result<Option<Key>, OpenError> {
        let id = self.may_open()?;
        if self.open_room() == 0 {
            self.open_waits();
            return Ok(None);
        }
        self.next_id = id.checked_add(2);
        self.notices.open |= self.next_id.is_none();
        self.budget.admit_outbound();
        self.outbound += 1;
        self.set_budget();
        self.unanswered += 1;
        let (moment, window) = (self.moment(now), self.config.first_window);
        let key = self.store.insert(Entry::opened_here(id, moment, window));
        self.schedule(key);
        self.emit(|| Event::Opened { id, by_peer: false });
        Ok(Some(key))
    }

    /// The number for the next stream, or why there will be no more.
    fn may_open(&self) -> Result<u32, OpenError> {
        if let Some(end) = &self.end {
            return Err(end.clone().into());
        }
        if let Some(code) = self.remote_go_away {
            return Err(OpenError::PeerGoneAway { code });
        }
        if self.refusing {
            return Err(OpenError::Closing);
        }
        self.next_id.ok_or(OpenError::Exhausted)
    }

    /// How many streams may be opened now; where there will be no more, everybody is to hear why.
    pub(crate) fn open_room(&self) -> usize {
        if self.may_open().is_err() {
            return usize::MAX;
        }
        let open = self.config.max_outbound_streams;
        let unanswered = self.config.accept_backlog;
        (open.saturating_sub(self.outbound)).min(unanswered.saturating_sub(self.unanswered))
    }

    /// Whether there will be no more streams of this end.
    pub(crate) fn is_spent(&self) -> bool {
        self.may_open().is_err()
    }

    /// Somebody who opens has to wait.
    pub(crate) fn open_waits(&mut self) {
        let limit = if self.outbound >= self.config.max_outbound_streams {
            Limit::OutboundStreams
        } else {
            Limit::Unanswered
        };
        self.emit(|| Event::LimitReached { limit });
    }

    /// Streams that this end may still open.
    pub(super) fn ids_left(&self) -> u32 {
        self.next_id.map_or(0, |next| (u32::MAX - next) / 2 + 1)
    }

    /// Numbers of this end's streams begin here.
    #[cfg(test)]
    pub(crate) fn begin_at(&mut self, id: u32) {
        self.next_id = Some(id);
    }

    /// Takes the oldest stream that the peer opened, and acknowledges it; `None` if there is none, or not to be had
    /// now: try again after the notice `accept`.
    pub(crate) fn accept(&mut self) -> Option<Key> {
        if self.acceptable() == 0 {
            return None;
        }
        while let Some(key) = self.backlog.pop_front() {
            if let Some(entry) = self.store.get_mut(key) {
                entry.accepted = true;
                self.schedule(key);
                self.emit(|| Event::Accepted { id: key.id });
                return Some(key);
            }
        }
        None
    }

    /// How many streams may be accepted now; where no more will come, everybody is to hear why.
    pub(crate) fn accept_room(&self) -> usize {
        if self.end.is_some() {
            usize::MAX
        } else {
            self.acceptable()
        }
    }

    /// Streams that can be accepted now.
    fn acceptable(&self) -> usize {
        let room = self.most_inbound().saturating_sub(self.open_inbound());
        room.min(self.backlog.len())
    }

    /// Streams of the peer that were accepted and are not over.
    fn open_inbound(&self) -> usize {
        self.inbound - self.backlog.len()
    }

    /// How many there may be.
    fn most_inbound(&self) -> usize {
        let usual = self.config.max_inbound_streams;
        match &self.end {
            None if self.slowed_until.is_some() => 0,
            // What waits while memory is short has perhaps used it up, and nobody else can go on before it
            // is read; so as many as may wait at once are let in then.
            None if self.is_stopped() => usual.saturating_add(self.config.accept_backlog),
            // Who broke the rules gets no more than usual.
            None | Some(MuxError::Protocol(_)) => usual,
            // No more will come, and this came whole.
            Some(_) => usize::MAX,
        }
    }

    /// Whether a stream that the peer opens has to wait for another to be over.
    pub(super) fn is_full(&self) -> bool {
        self.open_inbound() >= self.config.max_inbound_streams
    }
}
