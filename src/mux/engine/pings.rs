//! Pings of ours: for the application, for keepalive and for the round trip.

use std::hash::{Hash, Hasher};
use std::time::Instant;

use super::super::error::MuxError;
use super::{Engine, PingOut, ROUND_TRIP_STALE};

/// Pings of ours that wait for an answer; the oldest is forgotten for a new one.
const PINGS_OUT_MAX: usize = 64;

/// Weight of the past in the smoothed round trip, out of 8.
const PAST: u32 = 7;

impl Engine {
    /// Sends a ping; its answer comes as a notice with the token that this returns.
    pub(crate) fn ping(&mut self) -> Result<u64, MuxError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let token = self.ping_count;
        self.queue_ping(Some(token));
        Ok(token)
    }

    /// "Type Field", 0x2 Ping, with ACK.
    pub(super) fn on_pong(&mut self, now: Instant, value: u32) {
        if self.pacer.on_pong(now, value) {
            return;
        }
        // An answer to nothing is ignored: it may be late.
        let Some(at) = self.pings.iter().position(|ping| ping.value == value) else {
            return;
        };
        let Some(ping) = self.pings.get(at) else {
            return;
        };
        let Some(sent) = ping.sent else { return };
        let sample = now.saturating_duration_since(sent);
        if let Some(token) = ping.token {
            self.notices.pongs.push((token, sample));
        }
        let held_up = ping.held_up;
        self.pings.remove(at);
        if held_up {
            return;
        }
        // Down at once, up slowly: what a queue adds is not the path's.
        self.round_trip = Some(match self.round_trip {
            Some(known) if known < sample => (known * PAST + sample) / (PAST + 1),
            _ => sample,
        });
        self.round_trip_at = Some(now);
    }

    /// Nothing was read for a while: what is on its way says nothing about the path.
    pub(super) fn forget_pings(&mut self) {
        self.pings
            .retain(|ping| ping.token.is_some() || ping.sent.is_none());
        for ping in &mut self.pings {
            ping.held_up |= ping.sent.is_some();
        }
    }

    /// A ping for keepalive or for the round trip; one at a time.
    pub(super) fn ping_for_ourselves(&mut self, now: Instant) {
        self.pings.retain(|ping| {
            ping.token.is_some() || ping.sent.is_none_or(|sent| now < sent + ROUND_TRIP_STALE)
        });
        if !self.pings.iter().any(|ping| ping.token.is_none()) {
            self.queue_ping(None);
        }
    }

    fn queue_ping(&mut self, token: Option<u64>) {
        let value = self.ping_value();
        if self.pings.len() >= PINGS_OUT_MAX {
            self.pings.pop_front();
        }
        self.pings.push_back(PingOut {
            value,
            token,
            sent: None,
            held_up: false,
        });
    }

    /// A value for the next ping, which a peer can not know before.
    pub(super) fn ping_value(&mut self) -> u32 {
        // A keyed hash of a counter: what one ping's value was says nothing about the next.
        let mut hasher = std::hash::DefaultHasher::new();
        (self.ping_seed, self.ping_count).hash(&mut hasher);
        self.ping_count += 1;
        u32::try_from(hasher.finish() >> 32).unwrap_or_default()
    }
}
