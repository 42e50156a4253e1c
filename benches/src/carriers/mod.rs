//! The same session over each carrier of a network, in turn: what a WebSocket costs, and what the second encryption of QUIC.
//! A ratio is to TCP in the same round, and its middle is shown. Behind that, `ws:` through nginx, and `ws:` without a session: alone, and
//! with a TCP connection in it that `cepa pipe` brings, or websocat does. What is not installed is said.

mod front;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Listener, dial, listen};
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
    /// The tool; by default the one beside this program.
    #[arg(long)]
    cepa: Option<PathBuf>,
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
    shown(&rounds, bytes)?;
    through_nginx(options, &client, &server).await?;
    without_a_session(options).await
}

/// What a session over each carrier has done.
fn shown(rounds: &[Vec<Done>], bytes: u64) -> Outcome<()> {
    for (n, carrier) in CARRIERS_OF_A_NETWORK.iter().enumerate() {
        let middle = |value: &dyn Fn(&Done, &Done) -> f64| {
            let of = rounds
                .iter()
                .filter_map(|all| Some(value(all.get(n)?, all.first()?)));
            median(&of.collect::<Vec<_>>())
        };
        let [throughput, ratio, cpu, trip] = carrier.names;
        let value = middle(&|it, _| rate(bytes, it.0.seconds));
        CARRIERS.figure(throughput, value, "MB/s")?;
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

/// A session by `ws:`, with nginx between its ends and without, in turn.
async fn through_nginx(
    options: &Options,
    client: &StackConfig,
    server: &StackConfig,
) -> Outcome<()> {
    let Some(program) = front::have("nginx", "ws: through it") else {
        return Ok(());
    };
    let bytes = options.mib << 20;
    let folder = tempfile::tempdir()?;
    let (mut listener, behind) = front::listener("ws:127.0.0.1:0").await?;
    let nginx = front::nginx(&program, folder.path(), behind)?;
    let (mut rates, mut ratios, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        let mut seconds = Vec::new();
        for port in [behind, nginx.port] {
            let at = format!("ws:127.0.0.1:{port}/").parse()?;
            let (near, far) = between(&mut listener, &at, client, server).await?;
            let run = bulk(pair(&near, &far).await?, bytes).await?;
            let (a, b) = pair(&near, &far).await?;
            let time = Duration::from_secs_f64(options.seconds);
            let values = pingpong::play(vec![(Box::new(a), Box::new(b))], time).await?;
            let p50 = values.iter().find(|(name, _)| *name == "p50_us");
            seconds.push((run.seconds, p50.ok_or("no p50")?.1));
            near.close().await;
        }
        if let ([alone, through], true) = (&seconds[..], round > 0) {
            rates.push(rate(bytes, through.0));
            ratios.push(alone.0 / through.0);
            trips.push(through.1);
        }
    }
    CARRIERS.figure("ws-nginx-throughput", median(&rates), "MB/s")?;
    CARRIERS.figure("ws-nginx-throughput-ratio", median(&ratios), "of ws")?;
    CARRIERS.figure("ws-nginx-round-trip-p50", median(&trips), "us")
}

/// Bytes over a WebSocket as they are.
async fn without_a_session(options: &Options) -> Outcome<()> {
    let bytes = options.mib << 20;
    let cepa = match &options.cepa {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("cepa"),
    };
    let (mut tcp, tcp_port) = front::listener("tcp:127.0.0.1:0").await?;
    let (mut ws, ws_port) = front::listener("ws:127.0.0.1:0").await?;
    let pipe = front::tunnel(&cepa, true, ws_port)?;
    let websocat = front::have("websocat", "other program than cepa pipe");
    let websocat = websocat.map(|it| front::tunnel(&it, false, ws_port));
    let websocat = websocat.transpose()?;
    let mut all: [Vec<f64>; 4] = Default::default();
    for round in 0..=options.rounds {
        let to_tcp = format!("tcp:127.0.0.1:{tcp_port}");
        let mut runs = vec![front::bare(&mut tcp, &to_tcp, bytes).await?];
        let to_ws = format!("ws:127.0.0.1:{ws_port}/");
        runs.push(front::bare(&mut ws, &to_ws, bytes).await?);
        for program in [Some(&pipe), websocat.as_ref()].into_iter().flatten() {
            let to = format!("tcp:127.0.0.1:{}", program.port);
            runs.push(front::bare(&mut ws, &to, bytes).await?);
        }
        if round > 0 {
            for (all, run) in all.iter_mut().zip(runs) {
                all.push(run.seconds);
            }
        }
    }
    let [tcp, ws, piped, others] = all;
    let ratio = |of: &[f64], it: &[f64]| {
        let each = of.iter().zip(it).map(|(of, it)| of / it);
        median(&each.collect::<Vec<_>>())
    };
    CARRIERS.figure("ws-bare-throughput", rate(bytes, median(&ws)), "MB/s")?;
    CARRIERS.figure("ws-bare-throughput-ratio", ratio(&tcp, &ws), "of tcp")?;
    CARRIERS.figure("ws-pipe-throughput", rate(bytes, median(&piped)), "MB/s")?;
    if !others.is_empty() {
        CARRIERS.figure("websocat-throughput", rate(bytes, median(&others)), "MB/s")?;
        let value = ratio(&others, &piped);
        CARRIERS.figure("ws-pipe-to-websocat", value, "of websocat")?;
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // some GB
fn rate(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds / 1e6
}

async fn over(at: &str, client: &StackConfig, server: &StackConfig) -> Outcome<(Session, Session)> {
    let at: Endpoint = at.parse()?;
    let mut listener = listen(&at).await?;
    let at = listener.endpoint().clone();
    between(&mut listener, &at, client, server).await
}

/// A session that is dialled there, and comes out at a listener.
async fn between(
    listener: &mut Listener,
    at: &Endpoint,
    client: &StackConfig,
    server: &StackConfig,
) -> Outcome<(Session, Session)> {
    let dialled = async {
        let stream = dial(at).await?;
        Outcome::Ok(Session::handshake(stream, &[], Side::Client, client).await?)
    };
    let accepted = async {
        let stream = listener.accept().await?.ok_or("nobody came")?;
        Outcome::Ok(Session::handshake(stream, &[], Side::Server, server).await?)
    };
    let (near, far) = tokio::join!(dialled, accepted);
    Ok((near?, far?))
}
