//! What a session tells about itself.

use std::time::Duration;

/// Counters and gauges of a session, for display and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that exist now, opened by either end.
    pub streams: usize,
    /// Those of them that the peer opened.
    pub inbound: usize,
    /// Bytes of stream data that arrived, without headers.
    pub data_in: u64,
    /// Bytes of stream data that were sent, without headers.
    pub data_out: u64,
    /// Bytes that arrived, headers included.
    pub bytes_in: u64,
    /// Bytes that were sent, headers included.
    pub bytes_out: u64,
    /// About how much memory unread data takes.
    pub unread: usize,
    /// Bytes written by the application that no frame has taken.
    pub unsent: usize,
    /// All receive windows together, in bytes.
    pub windows: u64,
    /// The round-trip time as measured by pings.
    pub round_trip: Option<Duration>,
}
