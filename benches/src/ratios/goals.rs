//! The table: what each row compares, and what it has to reach.

use super::rounds::Results;
use crate::peers::Peer::{self, Tls, Yamux};

/// Which side of a goal is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

use Goal::{AtLeast, AtMost};

impl Goal {
    /// False for what could not be measured.
    pub(crate) fn held(self, value: f64) -> bool {
        match self {
            AtMost(goal) => value <= goal,
            AtLeast(goal) => value >= goal,
        }
    }

    pub(crate) fn number(self) -> f64 {
        match self {
            AtMost(goal) | AtLeast(goal) => goal,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AtMost(goal) => write!(f, "≤ {goal}"),
            AtLeast(goal) => write!(f, "≥ {goal}"),
        }
    }
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The run, and which of its values.
    pub(crate) spec: &'static str,
    pub(crate) value: &'static str,
    /// Whose value it is divided by, if any.
    pub(crate) mark: Option<Peer>,
    pub(crate) goal: Goal,
    pub(crate) aim: Goal,
}

impl Row {
    /// The peer's figure; NaN where it was not measured.
    pub(crate) fn of(&self, peer: Peer, results: &Results) -> f64 {
        let value = results.median(self.spec, peer, self.value);
        match self.mark {
            Some(mark) => value / results.median(self.spec, mark, self.value),
            None => value,
        }
    }

    /// Whether the peer's figure says something: not cepa, whose figure it is, and not the mark, which is 1.
    pub(crate) fn compares(&self, peer: Peer) -> bool {
        peer != Peer::Cepa && self.mark != Some(peer)
    }

    pub(crate) fn verdict(&self, value: f64) -> &'static str {
        if self.goal.held(value) {
            "held"
        } else {
            "missed"
        }
    }
}

const fn row(
    name: &'static str,
    what: &'static str,
    spec: &'static str,
    value: &'static str,
    mark: Option<Peer>,
    goal: Goal,
    aim: Goal,
) -> Row {
    Row {
        name,
        what,
        spec,
        value,
        mark,
        goal,
        aim,
    }
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    row("w1-bulk-cpu", "one substream, 64 KiB writes, loopback: CPU a byte with one worker, to tls",
        "w1-cpu", "cpu_ns_per_kib", Some(Tls), AtMost(0.95), AtMost(0.75)),
    row("w1-bulk-rate", "the same: rate with two workers, to tls",
        "w1-rate", "mib_per_second", Some(Tls), AtLeast(1.0), AtLeast(1.25)),
    row("w2-share-cpu", "100 substreams: CPU a byte with one worker, to 100 connections of tls",
        "w2", "cpu_ns_per_kib", Some(Tls), AtMost(0.85), AtMost(0.70)),
    row("w2-share-fairness", "the same: least to most bytes when the first substream has all of its own",
        "w2", "least_to_most", None, AtLeast(0.97), AtLeast(0.99)),
    row("w3-pingpong-p50", "64 B there and back: p50, to tls",
        "w3-one", "p50_us", Some(Tls), AtMost(1.2), AtMost(1.05)),
    row("w3-many-rate", "256 substreams do that at once: round trips a second, to tls",
        "w3-many", "requests_per_second", Some(Tls), AtLeast(2.0), AtLeast(2.4)),
    row("w4-churn-one", "open, 64 B there and back, close: per second, to yamux",
        "w4-one", "streams_per_second", Some(Yamux), AtLeast(2.2), AtLeast(3.0)),
    row("w4-churn-64", "the same with 64 at once: per second, to yamux",
        "w4-many", "streams_per_second", Some(Yamux), AtLeast(2.5), AtLeast(3.0)),
    row("w4-session-one", "open, 64 B there and back, close, in turn: a session's substream, opened early, to one of the mux alone",
        "w4-session-one", "early_to_mux", None, AtLeast(0.95), AtLeast(1.0)),
    row("w4-session-64", "the same with 64 at once",
        "w4-session-many", "early_to_mux", None, AtLeast(0.9), AtLeast(1.0)),
    row("w5-loopback-p99", "64 B round trip beside bulk, loopback: p99, to yamux",
        "w5-loopback", "p99_ms", Some(Yamux), AtMost(0.05), AtMost(0.03)),
    row("w5-1mb-p50", "the same at 1 MB/s: p50, to yamux",
        "w5-1mb", "p50_ms", Some(Yamux), AtMost(0.06), AtMost(0.04)),
    row("w5-1mb-bulk", "the same: bulk's share of the rate",
        "w5-1mb", "bulk_share", None, AtLeast(0.96), AtLeast(0.96)),
    row("w5-slow-4k-p50", "the same at 11,520 B/s, path buffer 4 KiB: p50, to yamux",
        "w5-4k", "p50_ms", Some(Yamux), AtMost(0.009), AtMost(0.006)),
    row("w5-slow-4k-bulk", "the same: bulk's share of the rate",
        "w5-4k", "bulk_share", None, AtLeast(0.92), AtLeast(0.92)),
    row("w5-slow-16k-p50", "path buffer 16 KiB: p50, to yamux",
        "w5-16k", "p50_ms", Some(Yamux), AtMost(0.009), AtMost(0.006)),
    row("w5-slow-16k-bulk", "the same: bulk's share of the rate",
        "w5-16k", "bulk_share", None, AtLeast(0.92), AtLeast(0.92)),
    row("w5-slow-64k-p50", "path buffer 64 KiB: p50, to yamux",
        "w5-64k", "p50_ms", Some(Yamux), AtMost(0.009), AtMost(0.006)),
    row("w5-slow-64k-bulk", "the same: bulk's share of the rate",
        "w5-64k", "bulk_share", None, AtLeast(0.92), AtLeast(0.92)),
    row("w5-both-4k-p50", "bulk both ways at 11,520 B/s, path buffer 4 KiB: p50, to yamux",
        "w5-both-4k", "p50_ms", Some(Yamux), AtMost(0.025), AtMost(0.012)),
    row("w5-both-4k-bulk", "the same: the lesser direction's share of the rate",
        "w5-both-4k", "lesser_share", None, AtLeast(0.7), AtLeast(0.9)),
    row("w5-both-16k-p50", "path buffer 16 KiB: p50, to yamux",
        "w5-both-16k", "p50_ms", Some(Yamux), AtMost(0.025), AtMost(0.012)),
    row("w5-both-16k-bulk", "the same: the lesser direction's share of the rate",
        "w5-both-16k", "lesser_share", None, AtLeast(0.7), AtLeast(0.9)),
    row("w5-both-64k-p50", "path buffer 64 KiB: p50, to yamux",
        "w5-both-64k", "p50_ms", Some(Yamux), AtMost(0.025), AtMost(0.012)),
    row("w5-both-64k-bulk", "the same: the lesser direction's share of the rate",
        "w5-both-64k", "lesser_share", None, AtLeast(0.7), AtLeast(0.9)),
    row("w5-change-stall", "1 MB/s, 100 kB/s, 1 MB/s, 50 ms there and back: longest time without bulk, in round trips",
        "w5-change", "stall_rtt", None, AtMost(2.0), AtMost(1.0)),
    row("w5-late-pongs-bulk", "pongs 200 ms late, 11,520 B/s, plain frames: works, with bulk at this share of the rate",
        "w5-late-pongs", "bulk_share", None, AtLeast(0.9), AtLeast(0.92)),
    row("w5-no-pongs-bulk", "no pongs at all: works, with bulk at this share of the rate",
        "w5-no-pongs", "bulk_share", None, AtLeast(0.9), AtLeast(0.92)),
    row("w6-substream-memory", "10,000 idle substreams: memory of one, both ends, to yamux",
        "w6-substreams", "bytes_each", Some(Yamux), AtMost(0.35), AtMost(0.25)),
    row("w6-connection-memory", "1,000 idle connections with a substream each: memory of one, both ends, to tls",
        "w6-connections", "bytes_each", Some(Tls), AtMost(1.3), AtMost(1.1)),
    row("w7-layer-cpu", "one more layer: CPU a byte, to that of its AEAD alone",
        "w7-layer", "layer_to_aead", None, AtMost(1.75), AtMost(1.55)),
    row("w7-bulk-1-cpu", "bulk through one layer, no mux: CPU a byte, to tokio-rustls",
        "w7-bulk-1", "cpu_ns_per_kib", Some(Tls), AtMost(1.1), AtMost(1.0)),
    row("w7-bulk-2-cpu", "through two layers: CPU a byte, to tokio-rustls over tokio-rustls",
        "w7-bulk-2", "cpu_ns_per_kib", Some(Tls), AtMost(1.1), AtMost(1.0)),
    row("w7-bulk-3-cpu", "through three layers",
        "w7-bulk-3", "cpu_ns_per_kib", Some(Tls), AtMost(1.1), AtMost(1.0)),
    row("w7-pingpong-p50", "64 B there and back through one layer, no mux: p50, to tokio-rustls",
        "w7-pingpong", "p50_us", Some(Tls), AtMost(1.1), AtMost(1.0)),
    row("w8-far-256k-share", "512 MiB at 1 Gbit/s and 50 ms, path buffer 256 KiB: share of the path, ramp included",
        "w8-256k", "share", None, AtLeast(0.93), AtLeast(0.96)),
    row("w8-far-1m-share", "path buffer 1 MiB",
        "w8-1m", "share", None, AtLeast(0.93), AtLeast(0.96)),
    row("w8-far-4m-share", "path buffer 4 MiB",
        "w8-4m", "share", None, AtLeast(0.93), AtLeast(0.96)),
    row("tunnel-rate", "`forward` and `serve`, three TCP hops: rate, to the best of ssh -L, socat with OpenSSL and stunnel",
        "tunnel", "rate_to_best", None, AtLeast(1.2), AtLeast(1.5)),
    row("tunnel-cpu", "the same: CPU a byte of the two processes, to socat's",
        "tunnel", "cpu_s_per_gib_to_socat", None, AtMost(0.85), AtMost(0.75)),
    row("tunnel-p50", "64 B there and back: p50, to ssh -L",
        "tunnel", "alone_us_to_ssh", None, AtMost(1.0), AtMost(0.8)),
    row("tunnel-beside-p50", "the same beside one bulk connection: p50, to stunnel, which has a connection for each",
        "tunnel", "beside_us_to_stunnel", None, AtMost(1.2), AtMost(1.0)),
];

/// Three digits; what was not measured is a dash.
pub(crate) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude.is_nan() => return "-".into(),
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        magnitude if magnitude >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_have_three_digits() {
        let shown = [123.4, 12.34, 1.234, 0.1234, 0.012_34, f64::NAN].map(figure);
        assert_eq!(shown, ["123", "12.3", "1.23", "0.123", "0.0123", "-"]);
    }
}
