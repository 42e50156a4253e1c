//! The watcher's end of a session's events.

use std::sync::Arc;

use super::event::Event;
use super::shared::Shared;

/// The events of a session, from [`Mux::events`](super::Mux::events). It is no handle on the session: the
/// session ends without regard to it.
pub struct Events {
    shared: Arc<Shared>,
}

impl Events {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Waits for the next event; `None` when the session is over, no substream is held any more, and
    /// everything was told. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let mut changed = std::pin::pin!(self.shared.events.notified());
            changed.as_mut().enable();
            let (event, over) = self
                .shared
                .with(|engine| (engine.take_event(), engine.is_over()));
            if event.is_some() || over {
                return event;
            }
            changed.await;
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
