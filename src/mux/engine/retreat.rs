//! Openings for nothing, of the peer and of this end.
//!
//! A stream that is opened and taken back before anybody saw it costs the other end work and its opener nothing: rapid reset. What
//! was accepted is not counted, for to leave early is ordinary use. Neither end can know what the other has accepted before
//! it is answered, so each asks of itself what it asks of its peer, and a quarter less, since what leaves in time may arrive in
//! a bunch: a RST for an opening that was not answered waits when there were too many, its stream still counts as unanswered
//! until it has left, and so whoever opens has to wait.
//!
//! Where a peer does it too often all the same, first its openings are accepted late, which holds back whoever
//! minds the limit on unanswered ones, and when as many more have come, the session ends.

use std::time::Instant;

use super::super::error::Violation;
use super::super::event::{Event, Limit};
use super::super::stream_entry::Rst;
use super::Engine;

impl Engine {
    /// The peer opened a stream for nothing: it was refused, or taken back before anybody saw it. When there are too many
    /// of those, openings are accepted late, and when it goes on like that, the session ends.
    pub(super) fn on_wasted(&mut self, now: Instant) -> Result<(), Violation> {
        self.resets.overdraw(now).ok_or(Violation::ResetFlood)?;
        if !self.resets.has(now, 0) {
            if self.slowed_until.is_none() {
                self.emit(|| Event::LimitReached {
                    limit: Limit::Resets,
                });
            }
            self.slowed_until = self.resets.ready_at(0);
            self.retime = true;
        }
        Ok(())
    }

    /// When the next stream that is to be taken back may be.
    pub(super) fn next_retreat(&self) -> Option<Instant> {
        if self.retreating.is_empty() {
            return None;
        }
        self.retreats.ready_at(1)
    }

    /// Lets those go that may now.
    pub(super) fn retreat(&mut self, now: Instant) {
        let mut count = 0;
        while self.retreats.has(now, count + 1)
            && let Some(key) = self.retreating.pop_front()
        {
            // It may have been answered since, or refused.
            if let Some(entry) = self.store.get_mut(key)
                && entry.rst == Rst::Held
            {
                entry.rst = Rst::Owed;
                count += 1;
                self.schedule(key);
            }
        }
    }
}
