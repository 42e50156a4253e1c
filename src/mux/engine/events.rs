//! What those who watch the session are told; the queue itself is in `event.rs`.

use super::super::event::Event;
use super::Engine;

impl Engine {
    /// Records an event, if anybody wants to know.
    pub(super) fn emit(&mut self, make: impl FnOnce() -> Event) {
        self.notices.event |= self.event_log.push(make);
    }

    /// The oldest event that was recorded and not taken.
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        self.event_log.pop()
    }

    /// Whether the session has ended and nobody holds a stream of it: nothing will happen any more.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some() && self.store.len() == 0
    }
}
