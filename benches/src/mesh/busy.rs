//! Circuits that all write on a machine that has more to do than it can: with pacing beside without it, and how long the frames are.

use std::sync::Arc;
use std::time::Duration;

use cepa::mux::Stats;
use cepa::session::Session;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::crowd::{Crowd, SINK, circuit, diallers, nodes};
use super::options::Options;
use super::relay::Running;
use crate::Outcome;
use crate::figure::MESH;
use crate::measure::{allow_descriptors, median, number};

/// Circuits of one dialler.
const CIRCUITS_EACH: usize = 4;

/// Whoever is held back by mistake has come out of it by then.
const WARM: Duration = Duration::from_secs(20);

/// Of what is carried without pacing.
const GOAL: f64 = 0.6;

/// Bytes of a frame's header, and of a ping.
const HEADER: f64 = 12.0;

pub(super) async fn run(options: &Options) -> Outcome<()> {
    allow_descriptors(2 * (options.nodes + options.circuits) + 200)?;
    let (mut paced, mut unpaced) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        unpaced.push(carried(options, true).await?);
        paced.push(carried(options, false).await?);
    }
    let ratios: Vec<f64> = paced.iter().zip(&unpaced).map(|(a, b)| a.0 / b.0).collect();
    let of = |all: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
        median(&all.iter().map(which).collect::<Vec<_>>())
    };
    MESH.figure("busy-unpaced", of(&unpaced, |it| it.0) / 1e6, "MB/s")?;
    MESH.figure("busy-paced", of(&paced, |it| it.0) / 1e6, "MB/s")?;
    MESH.figure(
        "busy-frame",
        of(&paced, |it| it.1),
        "bytes a header or ping",
    )?;
    MESH.at_least("busy-paced-to-unpaced", median(&ratios), "times", GOAL)
}

/// Bytes a second that come out at the nodes, and bytes of data for each header and ping of the middle dialler.
async fn carried(options: &Options, unpaced: bool) -> Outcome<(f64, f64)> {
    let relay = Running::start(CIRCUITS_EACH, u64::from(u32::MAX), unpaced)?;
    let crowd = Crowd::new();
    let all = nodes(&relay, &crowd, options.nodes).await?;
    let dialling = diallers(&relay, options.circuits.div_ceil(CIRCUITS_EACH)).await?;
    let wanted = (0..options.circuits).map(|i| {
        let (_, session) = &dialling[i % dialling.len()];
        circuit(session, all[i % all.len()].0.id, SINK)
    });
    let circuits: Vec<_> = futures::stream::iter(wanted)
        .buffer_unordered(32)
        .try_collect()
        .await?;
    let mut writing = JoinSet::new();
    for mut stream in circuits {
        writing.spawn(async move {
            let chunk = vec![9; 16 << 10];
            while stream.write_all(&chunk).await.is_ok() {}
        });
    }
    tokio::time::sleep(WARM).await;
    let before = (total(&crowd), stats(&dialling));
    let begun = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let seconds = begun.elapsed().as_secs_f64();
    let after = (total(&crowd), stats(&dialling));
    let frames = before.1.iter().zip(&after.1).map(|(before, after)| {
        let data = after.data_out - before.data_out;
        let more = after.bytes_out - before.bytes_out - data;
        counted(data) / (counted(more) / HEADER).max(1.0)
    });
    let frames: Vec<f64> = frames.collect();
    Ok((counted(after.0 - before.0) / seconds, median(&frames)))
}

fn total(crowd: &Arc<Crowd>) -> u64 {
    crowd.counted().iter().map(|(_, count)| count).sum()
}

fn stats<T>(dialling: &[(T, Session)]) -> Vec<Stats> {
    let sessions = dialling.iter();
    sessions.map(|(_, session)| session.mux_stats()).collect()
}

fn counted(bytes: u64) -> f64 {
    number(usize::try_from(bytes).unwrap_or(usize::MAX))
}
