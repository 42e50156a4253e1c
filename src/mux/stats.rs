//! What a session and its streams tell about themselves.

use std::time::Duration;

use super::priority::Priority;

/// Counters and gauges of a session, for display and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that exist now, opened by either end.
    pub streams: usize,
    /// Those of them that the peer opened.
    pub inbound: usize,
    /// Those of them that nobody has accepted.
    pub waiting: usize,
    /// Bytes of stream data that arrived, without headers.
    pub data_in: u64,
    /// Bytes of stream data that were sent, without headers.
    pub data_out: u64,
    /// Bytes that arrived, headers included.
    pub bytes_in: u64,
    /// Bytes that were sent, headers included.
    pub bytes_out: u64,
    /// How much memory unread data takes, in bytes.
    pub unread: usize,
    /// Nothing is read from the peer, because there is no room for unread data.
    pub stopped: bool,
    /// The peer has said that it will be silent for a while, and may be: see [`Config::pause_limit`](super::Config::pause_limit).
    pub peer_pauses: bool,
    /// Bytes written by the application that no frame has taken.
    pub unsent: usize,
    /// All receive windows together, in bytes.
    pub windows: u64,
    /// Streams that this end may still open in this session: about 2^31 at first. At 0 an `open` fails, for good.
    pub ids_left: u32,
    /// The round-trip time as measured by pings.
    pub round_trip: Option<Duration>,
    /// The least round-trip time that a ping behind bulk took lately; known while pacing is on and
    /// bulk was sent.
    pub least_round_trip: Option<Duration>,
    /// What the path delivers, in bytes a second; known as `least_round_trip` is.
    pub delivery_rate: Option<u64>,
    /// Bytes sent that no ping behind them was answered for. Only counted while pacing is on.
    pub in_flight: u64,
    /// The most that pacing lets be in flight before bulk waits; `None` while nothing is held back.
    pub flight_limit: Option<u64>,
}

/// Counters and gauges of one substream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Bytes that arrived, without headers.
    pub data_in: u64,
    /// Bytes that were sent, without headers.
    pub data_out: u64,
    /// Bytes written by the application that no frame has taken.
    pub unsent: usize,
    /// Bytes that arrived and were not read.
    pub unread: usize,
    /// Bytes that the peer still allows to be sent.
    pub send_window: u32,
    /// The whole receive window.
    pub receive_window: u32,
    /// What this end puts it before and behind.
    pub priority: Priority,
}

/// One of the substreams of a session, for who looks at all of them: [`Mux::streams`](super::Mux::streams).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Its number on the wire.
    pub id: u32,
    /// The peer has opened it.
    pub by_peer: bool,
    /// What it is for, where that was [said](super::Substream::set_label).
    pub label: Option<String>,
    /// How long ago it was opened.
    pub age: Duration,
    /// How long ago a frame last came or went.
    pub quiet: Duration,
    /// Its counters and gauges.
    pub stats: StreamStats,
}
