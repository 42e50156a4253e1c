//! The same session over each carrier of a network, in turn: what a WebSocket costs, and what the second encryption of QUIC.
//! A ratio is to TCP in the same round, and its middle is shown.

use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, dial, listen};
use clap::Args;

use crate::Outcome;
use crate::figure::CARRIERS;
use crate::measure::{Run, median};
use crate::one_way::{bulk, pair};
use crate::workloads::pingpong;

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// MiB of a transfer.
    #[arg(long, default_value_t = 128)]
    mib: u64,
    /// Seconds of messages, for each carrier in each round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// Where a session is listened for, and the names of its figures.
struct Carrier {
    at: &'static str,
    names: [&'static str; 4],
}

const CARRIERS_OF_A_NETWORK: [Carrier; 3] = [
    Carrier {
        at: "tcp:127.0.0.1:0",
        names: ["tcp-throughput", "", "", "tcp-round-trip-p50"],
    },
    Carrier {
        at: "ws:127.0.0.1:0",
        names: [
            "ws-throughput",
            "ws-throughput-ratio",
            "ws-cpu-ratio",
            "ws-round-trip-p50",
        ],
    },
    Carrier {
        at: "quic:127.0.0.1:0",
        names: [
            "quic-throughput",
            "quic-throughput-ratio",
            "quic-cpu-ratio",
            "quic-round-trip-p50",
        ],
    },
];

/// What one carrier did in one round: a transfer, and the middle of its round trips in microseconds.
type Done = (Run, f64);

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Outcome<()> {
    let one = || Identity::generate(KeyKind::Ed25519);
    let (a, b) = (one()?, one()?);
    let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
    let client = StackConfig::new(a, Arc::new(for_a));
    let server = StackConfig::new(b, Arc::new(for_b));
    let bytes = options.mib << 20;
    let mut rounds = Vec::new();
    // One more, which warms up.
    for round in 0..=options.rounds {
        let mut all = Vec::new();
        for carrier in &CARRIERS_OF_A_NETWORK {
            let (near, far) = over(carrier.at, &client, &server).await?;
            let run = bulk(pair(&near, &far).await?, bytes).await?;
            let (a, b) = pair(&near, &far).await?;
            let time = Duration::from_secs_f64(options.seconds);
            let values = pingpong::play(vec![(Box::new(a), Box::new(b))], time).await?;
            let p50 = values.iter().find(|(name, _)| *name == "p50_us");
            all.push((run, p50.ok_or("no p50")?.1));
            near.close().await;
        }
        if round > 0 {
            rounds.push(all);
        }
    }
    for (n, carrier) in CARRIERS_OF_A_NETWORK.iter().enumerate() {
        let middle = |value: &dyn Fn(&Done, &Done) -> f64| {
            let of = rounds
                .iter()
                .filter_map(|all| Some(value(all.get(n)?, all.first()?)));
            median(&of.collect::<Vec<_>>())
        };
        let [throughput, ratio, cpu, trip] = carrier.names;
        #[allow(clippy::cast_precision_loss)] // some GB
        let rate = middle(&|it, _| bytes as f64 / it.0.seconds / 1e6);
        CARRIERS.figure(throughput, rate, "MB/s")?;
        if n > 0 {
            let value = middle(&|it, tcp| tcp.0.seconds / it.0.seconds);
            CARRIERS.figure(ratio, value, "of tcp")?;
            let value = middle(&|it, tcp| it.0.cpu_seconds / tcp.0.cpu_seconds);
            CARRIERS.figure(cpu, value, "of tcp")?;
        }
        CARRIERS.figure(trip, middle(&|it, _| it.1), "us")?;
    }
    Ok(())
}

async fn over(at: &str, client: &StackConfig, server: &StackConfig) -> Outcome<(Session, Session)> {
    let at: Endpoint = at.parse()?;
    let mut listener = listen(&at).await?;
    let at = listener.endpoint().clone();
    let dialled = async {
        let stream = dial(&at).await?;
        Outcome::Ok(Session::handshake(stream, &[], Side::Client, client).await?)
    };
    let accepted = async {
        let stream = listener.accept().await?.ok_or("nobody came")?;
        Outcome::Ok(Session::handshake(stream, &[], Side::Server, server).await?)
    };
    let (near, far) = tokio::join!(dialled, accepted);
    Ok((near?, far?))
}
