//! A peer that has said that it will be silent for a while, since its process or its machine is about to be stopped.
//!
//! Its silence is no sign of its death then, so it is not asked and not given up until the time is over, which this end bounds
//! ([`Config::pause_limit`](super::super::config::Config::pause_limit)). Then all is as usual: it is asked, and has to answer. What
//! the peer asks for lengthens its own session's silence only; all that bounds what it may hold stays as it is, and so do the
//! time limits of streams.

use std::time::{Duration, Instant};

use super::{Engine, PeerPause};

impl Engine {
    /// The peer will be silent for `wanted`. Gives the number of this pause, and how long it may be. It takes the
    /// place of one that was granted before.
    pub(crate) fn peer_pauses(&mut self, now: Instant, wanted: Duration) -> (u64, Duration) {
        let granted = wanted.min(self.config.pause_limit);
        self.pause_count += 1;
        self.peer_pause = now.checked_add(granted).map(|until| PeerPause {
            number: self.pause_count,
            until,
        });
        // It was heard, or could not have said so.
        self.keepalive_asked = None;
        self.retime = true;
        (self.pause_count, granted)
    }

    /// The pause of this number is over, unless another one took its place.
    pub(crate) fn peer_resumes(&mut self, number: u64) {
        if self
            .peer_pause
            .as_ref()
            .is_some_and(|it| it.number == number)
        {
            self.peer_pause = None;
            self.retime = true;
            self.notices.driver = true;
        }
    }

    /// Until when the peer may be silent, if it has said that it will be.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.peer_pause.as_ref().map(|pause| pause.until)
    }

    /// A pause that has lasted as long as it was granted is over, whatever the peer says.
    pub(super) fn look_at_pause(&mut self, now: Instant) {
        if self.paused_until().is_some_and(|until| until <= now) {
            self.peer_pause = None;
        }
    }
}
