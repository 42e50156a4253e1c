//! A session whose byte stream goes on over another path: the layer below keeps every byte, and what the path was like is
//! all that changes.
//!
//! While there is no path nothing of what the peer does not take is its fault, so streams that nobody holds any more, whose only
//! way to end is to be sent, keep their time. The limits that an application has set run on. On a new path the pacing starts
//! anew, and a ping that waited for it tells nothing of a round trip.

use std::time::Instant;

use super::super::pacing::Pacer;
use super::Engine;

impl Engine {
    /// There is no path at the moment.
    pub(crate) fn path_lost(&mut self, now: Instant) {
        self.start_clocks(now);
        self.away = true;
    }

    /// The byte stream goes on over another path, of which the rate is known where the layer below tells it.
    pub(crate) fn path_changed(&mut self, now: Instant, line_rate: Option<f64>) {
        self.start_clocks(now);
        self.spare_abandoned(now);
        self.away = false;
        self.config.line_rate = line_rate;
        self.pacer = Pacer::new(self.config.pacing, line_rate, now);
        self.pacer.begin_small(now);
        self.forget_pings();
        (self.round_trip, self.round_trip_at) = (None, None);
        self.heard_at = now;
        self.keepalive_asked = None;
        self.retime = true;
        self.ping_for_ourselves(now);
        // What the old path held back may go.
        self.notices.driver = true;
    }

    /// The time of streams that nobody holds begins anew, since nothing could move.
    pub(super) fn spare_abandoned(&mut self, now: Instant) {
        if !self.away {
            return;
        }
        let moment = self.moment(now);
        let abandoned = self.store.iter_mut().filter(|(_, entry)| !entry.held);
        for (_, entry) in abandoned {
            entry.active_at = moment;
        }
    }
}
