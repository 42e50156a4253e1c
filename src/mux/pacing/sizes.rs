//! How long records and writes are, and what is shown of the pacer.

// As in the file above.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::time::Duration;

use super::super::batch::{BATCH_MAX, TLS_RECORD};
use super::{Late, Pacer, Phase, RECORD_FIRST, RECORD_MIN, TICK};

impl Pacer {
    /// Bytes of one bulk record, header included.
    pub(crate) fn write_size(&self) -> usize {
        if let Some(below) = self.below {
            return if self.alone { below.alone } else { below.mixed };
        }
        if self.is_open() {
            return TLS_RECORD;
        }
        if let Phase::Late(Late { flight, .. }) = self.phase {
            return ((flight / 2.0).max(RECORD_MIN) as usize).min(TLS_RECORD);
        }
        let rate = if self.rate > 0.0 {
            self.rate
        } else {
            self.latest
        };
        if rate > 0.0 {
            ((rate * TICK).max(RECORD_MIN) as usize).min(TLS_RECORD)
        } else {
            RECORD_FIRST
        }
    }

    /// Whether a record takes long on the path, so that what is small is not to wait for one that it is in.
    pub(crate) fn is_slow_path(&self) -> bool {
        self.write_size() < TLS_RECORD && !matches!(self.phase, Phase::Late(_))
    }

    /// Bytes after which no further frame is started in a write.
    pub(crate) fn batch(&self) -> usize {
        let record = self.write_size();
        if self.below.is_some() {
            record
        } else if self.is_open() {
            BATCH_MAX
        } else if record < TLS_RECORD {
            record
        } else if let Phase::Late(Late { flight, .. }) = self.phase {
            (flight as usize / 2).clamp(TLS_RECORD, BATCH_MAX)
        } else {
            ((self.rate * TICK) as usize / TLS_RECORD * TLS_RECORD).clamp(TLS_RECORD, BATCH_MAX)
        }
    }

    // ---- for display ---------------------------------------------------------------------------

    pub(crate) fn least_round_trip(&self) -> Option<Duration> {
        self.min_rtt
            .map(|(min_rtt, _)| Duration::from_secs_f64(min_rtt))
    }

    pub(crate) fn delivery_rate(&self) -> Option<u64> {
        (self.rate > 0.0).then_some(self.rate as u64)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.sent - self.acked
    }

    pub(crate) fn flight_limit(&self) -> Option<u64> {
        (!self.is_open()).then(|| self.limit() as u64)
    }
}
