//! A layer below that knows its rate, and takes no more than its line is about to need.
//!
//! A small message waits for the rest of the record before it, and that is all it waits for: what is sealed can not be overtaken. So
//! the record bounds the wait, and its headers, 34 bytes of the mux and of TLS and 8 of the link, bound how short it may be.
//!
//! ```text
//!   baud        beside small messages   alone
//!   9,600       451 B   0.51 s          900 B   0.98 s
//!   115,200     900 B   0.08 s        3,456 B   0.31 s
//!   3,000,000 1,500 B   5 ms         16 KiB    56 ms
//! ```

// As in the file above.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::time::Duration;

use cepa_transports::Rate;

use super::super::batch::TLS_RECORD;

/// Seconds of the line that a record takes beside small messages, and the least record: 4.5 % of headers.
const TICK: f64 = 0.005;
const RECORD_MIN: usize = 900;

/// Seconds that a small message may wait for that, where the line is so slow that the least record would take longer: the record is
/// shorter then. Any less than this would be mostly headers, which are 8 % here; with what TLS adds it goes in one frame of the link.
const WAIT: f64 = 0.47;
const RECORD_LEAST: f64 = 450.0;

/// The same while bulk is all there is: the first small message waits that much longer, and there is 1 % of headers at 115,200 baud.
const ALONE: f64 = 0.3;

/// How long there was no small message then; or so many short records, where those take longer: who uses such a line waits for each
/// answer, and so asks less often.
const ALONE_AFTER: Duration = Duration::from_secs(1);
const ALONE_RECORDS: f64 = 12.0;

/// What follows from the rate of such a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Below {
    /// What a record should be beside small messages, and without.
    pub(super) mixed: usize,
    pub(super) alone: usize,
    /// How long there was no small message then.
    pub(super) alone_after: Duration,
}

impl Below {
    pub(super) fn new(rate: Rate) -> Self {
        let rate = rate.as_bytes_per_second();
        let record =
            |seconds: f64, least: usize| ((rate * seconds) as usize).clamp(least, TLS_RECORD);
        let least = (rate * WAIT).clamp(RECORD_LEAST, RECORD_MIN as f64) as usize;
        let mixed = record(TICK, least);
        // A rate near 0 must not become a wait for ever.
        let records = (ALONE_RECORDS * mixed as f64 / rate).clamp(0.0, 60.0);
        Self {
            mixed,
            alone: record(ALONE, RECORD_MIN),
            alone_after: ALONE_AFTER.max(Duration::from_secs_f64(records)),
        }
    }
}
