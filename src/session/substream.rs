//! What an open substream can be told and asked, whatever TLS layers are on it.

use crate::mux::{Priority, StreamStats, StreamTimeouts, Substream};
use crate::onion::Onion;

impl Onion<Substream> {
    /// The number of the substream in its session: odd when the session's client opened it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.wire().id()
    }

    /// Puts it before or behind the others of its session, in what this end sends. See [`Substream::set_priority`].
    pub fn set_priority(&mut self, priority: Priority) {
        self.wire_mut().set_priority(priority);
    }

    /// The priority that was set last; [`Priority::NORMAL`] at first.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.wire().priority()
    }

    /// Replaces its time limits. See [`Substream::set_timeouts`].
    pub fn set_timeouts(&mut self, timeouts: StreamTimeouts) {
        self.wire_mut().set_timeouts(timeouts);
    }

    /// Counters and gauges of the substream, its TLS layers included.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.wire().stats()
    }

    /// Ends both directions at once and drops what is queued; the peer reads an error with this code. See
    /// [`Substream::reset`].
    pub fn reset(&mut self, code: u32) {
        self.wire_mut().reset(code);
    }
}
