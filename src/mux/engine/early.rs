//! How much is sent on streams that the peer has not answered.
//!
//! The protocol lets a stream use its whole window before it was accepted. A peer that lets openings wait has to keep what comes
//! on them, and can not go on with those that it serves when that fills its memory, for theirs comes on the same
//! wire. So all unanswered streams together send half of their windows at most, whichever of them it is. Not less: there are
//! peers that answer a stream only when they have read half of its window.

use super::super::store::Key;
use super::Engine;

/// What each stream may send all the same: a request, and the beginning of what follows.
const FIRST: u64 = 16 << 10;

impl Engine {
    /// Whether a stream has to wait for an answer before it sends more data. It is in no lane until then.
    pub(super) fn is_too_early(&mut self, key: Key) -> bool {
        let half = u64::from(self.config.first_window) / 2;
        let most = half.saturating_mul(self.config.accept_backlog as u64);
        let Some(entry) = self.store.get_mut(key) else {
            return false;
        };
        let early = entry.unanswered && entry.data_out >= FIRST && self.early >= most;
        if early {
            // So that nobody puts it into a lane meanwhile.
            entry.in_data = true;
            self.early_held.push_back(key);
        }
        early
    }

    /// A stream was answered, or is over: it goes on, and so do those that waited for that.
    pub(super) fn send_early(&mut self, answered: Key) {
        for key in std::mem::take(&mut self.early_held) {
            if let Some(entry) = self.store.get_mut(key) {
                entry.in_data = false;
                self.schedule(key);
            }
        }
        self.schedule(answered);
    }
}
