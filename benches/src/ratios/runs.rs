//! What `ratios` runs: workloads with their options, and which peers how often.

use crate::peers::Peer::{self, Cepa, H2, Quinn, Tcp, Tls, TokioYamux, Yamux};

/// One workload with its options, measured for several peers.
pub(crate) struct Spec {
    pub(crate) id: &'static str,
    /// The command line of one measurement, without the peer and the size.
    pub(crate) command: &'static str,
    pub(crate) size: Size,
    /// Peers, and in how many rounds each takes part.
    pub(crate) peers: &'static [(Peer, usize)],
    pub(crate) load: Load,
}

/// How much of it.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    Mib(u32),
    Seconds(f64),
    Fixed,
}

impl Size {
    /// The option that sets it. A quick run does a quarter; that is enough to see whether everything works.
    pub(crate) fn option(self, quick: bool) -> Vec<String> {
        match self {
            Self::Mib(mib) => vec![
                "--mib".into(),
                if quick { mib / 4 } else { mib }.to_string(),
            ],
            Self::Seconds(seconds) => {
                let seconds = if quick { seconds / 4.0 } else { seconds };
                vec!["--seconds".into(), seconds.to_string()]
            }
            Self::Fixed => Vec::new(),
        }
    }
}

/// What a measurement takes of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// All of it: runs alone.
    Full,
    /// Some: runs beside others that take as little.
    Light,
    /// Next to nothing, since it waits for a slow path: runs beside any number of others.
    Idle,
}

const fn spec(
    id: &'static str,
    command: &'static str,
    size: Size,
    load: Load,
    peers: &'static [(Peer, usize)],
) -> Spec {
    Spec {
        id,
        command,
        size,
        peers,
        load,
    }
}

use Load::{Full, Idle, Light};
use Size::{Fixed, Mib, Seconds};

/// In the order in which they run. Ids begin with the number of the workload.
#[rustfmt::skip]
pub(crate) static SPECS: &[Spec] = &[
    spec("w1-cpu", "w1-bulk --workers 1", Mib(2048), Full,
        &[(Cepa, 5), (Tls, 5), (Tcp, 1), (Yamux, 2), (TokioYamux, 2), (H2, 2), (Quinn, 1)]),
    // Whether the two ends land on one core or on two is a matter of luck, so more rounds.
    spec("w1-rate", "w1-bulk --workers 2", Mib(2048), Full,
        &[(Cepa, 9), (Tls, 9), (Tcp, 1), (Yamux, 3), (TokioYamux, 3), (H2, 3), (Quinn, 1)]),
    spec("w2", "w2-share --streams 100 --workers 1", Mib(2048), Full,
        &[(Cepa, 3), (Tls, 3), (Yamux, 1), (TokioYamux, 1), (H2, 1), (Quinn, 1)]),
    spec("w3-one", "w3-pingpong --workers 1", Seconds(1.0), Full,
        &[(Cepa, 5), (Tls, 5), (Tcp, 1), (Yamux, 2), (TokioYamux, 2), (H2, 2), (Quinn, 2)]),
    spec("w3-many", "w3-pingpong --streams 256 --workers 1", Seconds(1.0), Full,
        &[(Cepa, 5), (Tls, 5), (Tcp, 1), (Yamux, 2), (TokioYamux, 2), (H2, 2), (Quinn, 2)]),
    spec("w4-one", "w4-churn --workers 1", Seconds(1.0), Full,
        &[(Cepa, 5), (Yamux, 5), (TokioYamux, 2), (H2, 2), (Quinn, 2)]),
    spec("w4-many", "w4-churn --in-flight 64 --workers 1", Seconds(1.0), Full,
        &[(Cepa, 5), (Yamux, 5), (TokioYamux, 2), (H2, 2), (Quinn, 2)]),
    spec("w4-session-one", "w4-sessions --workers 1", Seconds(6.0), Full, &[(Cepa, 3)]),
    spec("w4-session-many", "w4-sessions --in-flight 64 --workers 1", Seconds(6.0), Full, &[(Cepa, 3)]),
    spec("w5-loopback", "w5-loopback", Seconds(3.0), Full,
        &[(Cepa, 5), (Yamux, 5), (TokioYamux, 1), (H2, 1), (Quinn, 1)]),
    spec("w5-1mb", "w5-slow --rate 1e6 --buffer 16384 --warm-up 2 --gap-ms 20", Seconds(12.0), Light,
        &[(Cepa, 1), (Yamux, 1), (TokioYamux, 1), (H2, 1)]),
    spec("w5-change", "w5-slow --rate 1e6 --buffer 65536 --rtt-ms 50 --change --warm-up 3 --gap-ms 50", Seconds(15.0), Light,
        &[(Cepa, 1), (Yamux, 1)]),
    spec("w5-4k", "w5-slow --rate 11520 --buffer 4096", Seconds(90.0), Idle,
        &[(Cepa, 1), (Yamux, 1)]),
    spec("w5-16k", "w5-slow --rate 11520 --buffer 16384", Seconds(90.0), Idle,
        &[(Cepa, 1), (Yamux, 1), (TokioYamux, 1), (H2, 1)]),
    spec("w5-64k", "w5-slow --rate 11520 --buffer 65536", Seconds(90.0), Idle,
        &[(Cepa, 1), (Yamux, 1)]),
    spec("w5-both-4k", "w5-slow --rate 11520 --buffer 4096 --both", Seconds(90.0), Idle,
        &[(Cepa, 1), (Yamux, 1)]),
    spec("w5-both-16k", "w5-slow --rate 11520 --buffer 16384 --both", Seconds(90.0), Idle,
        &[(Cepa, 1), (Yamux, 1)]),
    spec("w5-both-64k", "w5-slow --rate 11520 --buffer 65536 --both", Seconds(90.0), Idle,
        &[(Cepa, 1), (Yamux, 1)]),
    spec("w5-late-pongs", "w5-slow --rate 11520 --buffer 16384 --pongs late", Seconds(90.0), Idle,
        &[(Cepa, 1), (Yamux, 1)]),
    spec("w5-no-pongs", "w5-slow --rate 11520 --buffer 16384 --pongs never", Seconds(90.0), Idle,
        &[(Cepa, 1)]),
    spec("w6-substreams", "w6-substreams --streams 10000", Fixed, Full,
        &[(Cepa, 1), (Yamux, 1), (H2, 1)]),
    spec("w6-connections", "w6-connections --connections 1000", Fixed, Full,
        &[(Cepa, 1), (Tls, 1), (Yamux, 1), (H2, 1)]),
    spec("w7-layer", "w7-layer", Mib(256), Full,
        &[(Cepa, 3), (Tls, 1)]),
    spec("w7-bulk-1", "w7-bulk --depth 1", Mib(1024), Full,
        &[(Cepa, 3), (Tls, 3)]),
    spec("w7-bulk-2", "w7-bulk --depth 2", Mib(1024), Full,
        &[(Cepa, 3), (Tls, 3)]),
    spec("w7-bulk-3", "w7-bulk --depth 3", Mib(1024), Full,
        &[(Cepa, 3), (Tls, 3)]),
    spec("w7-pingpong", "w7-pingpong --depth 1", Seconds(1.0), Full,
        &[(Cepa, 5), (Tls, 5)]),
    spec("w8-256k", "w8-far --buffer 262144", Mib(512), Full,
        &[(Cepa, 3), (Tls, 1), (Yamux, 1)]),
    spec("w8-1m", "w8-far --buffer 1048576", Mib(512), Full,
        &[(Cepa, 3), (Tls, 1), (Yamux, 1)]),
    spec("w8-4m", "w8-far --buffer 4194304", Mib(512), Full,
        &[(Cepa, 3), (Tls, 1), (Yamux, 1)]),
    // Beside programs, which it starts itself.
    spec("tunnel", "tunnel --rounds 5", Mib(512), Full, &[(Cepa, 1)]),
];
