//! What idle nodes and circuits take at the relay, and how long a registration takes among them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cepa::transports::Stream;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;

use super::crowd::{Crowd, ECHO_ONCE, Node, STUFF, circuit, diallers, nodes};
use super::options::Options;
use super::relay::Running;
use crate::Outcome;
use crate::figure::MESH;
use crate::measure::{allow_descriptors, number, quantile};

/// Nodes before the measurement, so that what the first one costs alone is in none.
const BEFORE: usize = 20;

/// Circuits of one dialler: what a relay gives one by default.
const CIRCUITS_EACH: usize = 4;

/// Between two registrations that are timed.
const PAUSE: Duration = Duration::from_millis(2);

/// Circuits that are stuffed.
const FULL: usize = 64;

/// How long a relay has nothing to do when all circuits are full.
const STILL: Duration = Duration::from_secs(2);

/// When it is no longer waited for that they are.
const LONGEST: Duration = Duration::from_secs(90);

pub(super) async fn run(options: &Options) -> Outcome<()> {
    allow_descriptors(2 * (options.nodes + options.circuits + options.samples) + 200)?;
    let relay = Running::start(CIRCUITS_EACH, u64::from(u32::MAX), options.unpaced)?;
    let crowd = Crowd::new();
    let mut all = first_of(nodes(&relay, &crowd, BEFORE).await?);
    let before = relay.memory().await?;
    let more = options.nodes.saturating_sub(BEFORE);
    all.extend(first_of(nodes(&relay, &crowd, more).await?));
    let idle = relay.memory().await?;
    MESH.figure("registered-nodes", number(all.len()), "nodes")?;
    MESH.at_most("node-memory", kib(before, idle, more), "KiB", 64.0)?;

    let dialling = diallers(&relay, options.circuits.div_ceil(CIRCUITS_EACH)).await?;
    let before = relay.memory().await?;
    let wanted = (0..options.circuits).map(|i| {
        let (_, session) = &dialling[i % dialling.len()];
        circuit(session, all[i % all.len()].id, ECHO_ONCE)
    });
    let circuits: Vec<_> = futures::stream::iter(wanted)
        .buffer_unordered(32)
        .try_collect()
        .await?;
    let idle = relay.memory().await?;
    MESH.figure("circuits", number(circuits.len()), "circuits")?;
    MESH.at_most(
        "circuit-memory-idle",
        kib(before, idle, circuits.len()),
        "KiB",
        128.0,
    )?;

    registrations(&relay, &crowd, &mut all, options.samples).await?;

    // As many more as are full within seconds.
    let more = diallers(&relay, FULL.div_ceil(CIRCUITS_EACH)).await?;
    let before = relay.memory().await?;
    let wanted = (0..FULL).map(|i| {
        let (_, session) = &more[i % more.len()];
        circuit(session, all[i % all.len()].id, STUFF)
    });
    let stuffed = futures::future::try_join_all(wanted).await?;
    for stream in stuffed {
        tokio::spawn(stuff(stream));
    }
    // Until it has nothing to do any more.
    let (begun, mut used) = (Instant::now(), relay.cpu()?);
    loop {
        tokio::time::sleep(STILL).await;
        let now = relay.cpu()?;
        if now - used < STILL.as_secs_f64() / 50.0 {
            break;
        }
        if begun.elapsed() > LONGEST {
            return Err("the circuits do not become full".into());
        }
        used = now;
    }
    let full = relay.memory().await?;
    MESH.at_most("circuit-memory-full", kib(before, full, FULL), "KiB", 128.0)?;
    drop(circuits);
    Ok(())
}

/// Writes for as long as something is taken, and longer.
async fn stuff(mut stream: Stream) {
    let chunk = vec![1; 16 << 10];
    while stream.write_all(&chunk).await.is_ok() {}
}

/// With everything there: over a session, and from nothing.
async fn registrations(
    relay: &Running,
    crowd: &Arc<Crowd>,
    all: &mut [Node],
    samples: usize,
) -> Outcome<()> {
    let mut again = Vec::with_capacity(samples);
    let count = all.len();
    for i in 0..samples {
        again.push(all[i % count].again().await?.as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    MESH.figure("registration-p50", quantile(&again, 0.5), "ms")?;
    MESH.at_most("registration-p99", quantile(&again, 0.99), "ms", 10.0)?;
    let mut new = Vec::with_capacity(samples);
    for _ in 0..samples {
        let (node, took) = Node::come(relay, crowd).await?;
        new.push(took.as_secs_f64() * 1000.0);
        node.session.close().await;
        tokio::time::sleep(PAUSE).await;
    }
    MESH.figure("arrival-p50", quantile(&new, 0.5), "ms")?;
    MESH.at_most("arrival-p99", quantile(&new, 0.99), "ms", 10.0)
}

fn first_of(all: Vec<(Node, Duration)>) -> Vec<Node> {
    all.into_iter().map(|(node, _)| node).collect()
}

fn kib(before: f64, after: f64, count: usize) -> f64 {
    (after - before) / number(count) / 1024.0
}
