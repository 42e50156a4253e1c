//! The counters of a link, and who reads them from outside: a link inside a stack is not to be had any more.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cepa_transports::meter::Meter;

/// Counters of a link since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames of data that were sent, repetitions included.
    pub sent: u64,
    /// Frames of data that were lost.
    pub lost: u64,
    /// Valid frames that came from the other end.
    pub received: u64,
    /// What stood between two flags and was no valid frame: damage, chatter, older epochs.
    pub invalid: u64,
    /// Turns that were taken to be lost since nothing was heard; only where ends take turns.
    pub silences: u64,
}

/// Gives the counters; none once the link is over.
type Reader = Box<dyn Fn() -> Option<Stats> + Send + Sync>;

/// Reads the counters of a link that lies inside a stack: the last one that was made with it ([`Config::stats`](super::Config)). Clones
/// read the same.
#[derive(Clone, Default)]
pub struct StatsHandle(Arc<Mutex<Option<Reader>>>);

impl StatsHandle {
    /// Counters since the start of that link; none where there is no link, or it is over.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        let reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reader.as_ref().and_then(|read| read())
    }

    pub(crate) fn set(&self, reader: Reader) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }
}

impl fmt::Debug for StatsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsHandle").finish_non_exhaustive()
    }
}

/// What has passed a link that lies inside a stack.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    stats: StatsHandle,
    above: Meter,
    below: Meter,
}

impl LinkInfo {
    pub(crate) fn new(stats: StatsHandle, above: Meter, below: Meter) -> Self {
        Self {
            stats,
            above,
            below,
        }
    }

    /// Bytes that it has given to the layer above.
    #[must_use]
    pub fn data_in(&self) -> u64 {
        self.above.bytes_in()
    }

    /// Bytes that it has taken from the layer above.
    #[must_use]
    pub fn data_out(&self) -> u64 {
        self.above.bytes_out()
    }

    /// Bytes that came from the line: frames, damaged ones, and what is not of the link.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.below.bytes_in()
    }

    /// Bytes that went onto the line, repetitions included.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.below.bytes_out()
    }

    /// Its counters; none once it is over.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        self.stats.stats()
    }
}
