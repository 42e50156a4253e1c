//! Each part of the bench.

use std::time::{Duration, Instant};

use cepa::identity::PeerId;
use cepa::protocols::relay;
use cepa::session::Session;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::options::Options;
use super::peers::{Taker, Talks, carry, session};
use super::rig::{Rig, count};
use crate::figure::FLEET;
use crate::measure::{median, number, quantile};
use crate::{Failure, Outcome};

/// Streams that share the bulk.
const STREAMS: u64 = 4;
/// Seconds of `churn` that are not measured, at least.
const WARM_UP: u64 = 120;
/// Circuits that watch that none is cut.
const TALKS: usize = 50;
/// Circuits on their way at once, where they are only to come about.
const AT_ONCE: usize = 16;

/// A circuit to somebody; how long it took, in milliseconds.
async fn circuit(session: &Session, to: PeerId) -> Outcome<f64> {
    let begun = Instant::now();
    relay::dial(session, to).await?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

pub(super) async fn lookup(rig: &mut Rig, options: &Options) -> Outcome<()> {
    let (here, elsewhere) = (
        Taker::at(&rig.relays[1]).await?,
        Taker::at(&rig.relays[0]).await?,
    );
    let (_, dialler) = session(&rig.relays[1]).await?;
    known(&dialler, elsewhere.id).await?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for n in 0..options.samples {
        // One of this process, and nodes of others, in turn: what is asked for is not always the same.
        near.push(circuit(&dialler, here.id).await?);
        far.push(circuit(&dialler, elsewhere.id).await?);
        if n % 10 == 0 {
            let node = rig.nodes[0][n % rig.nodes[0].len()];
            circuit(&dialler, node).await?;
        }
    }
    FLEET.figure("one-hop-p99", quantile(&near, 0.99), "ms")?;
    FLEET.figure("two-hops-p99", quantile(&far, 0.99), "ms")?;
    let more = quantile(&far, 0.99) - quantile(&near, 0.99);
    FLEET.figure(
        "lookup-median-above-one-hop",
        median(&far) - median(&near),
        "ms",
    )?;
    FLEET.at_most("lookup-p99-above-one-hop", more, "ms", 5.0)
}

/// Until a relay leads to somebody who has just come.
async fn known(dialler: &Session, to: PeerId) -> Outcome<()> {
    let mut last = None;
    for _ in 0..50 {
        match relay::dial(dialler, to).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
        sleep(Duration::from_millis(200)).await;
    }
    Err(format!("not reached: {last:?}").into())
}

pub(super) async fn copy(rig: &mut Rig, options: &Options) -> Outcome<()> {
    let taker = Taker::at(&rig.relays[0]).await?;
    let ((_, one), (_, two)) = (
        session(&rig.relays[0]).await?,
        session(&rig.relays[1]).await?,
    );
    known(&two, taker.id).await?;
    let bytes = options.mib << 20;
    bulk(&one, taker.id, bytes / 4).await?;
    bulk(&two, taker.id, bytes / 4).await?;
    let (mut singles, mut doubles, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let cpu = |rig: &Rig| Ok::<_, Failure>(rig.relays[0].cpu()? + rig.relays[1].cpu()?);
        let begun = cpu(rig)?;
        bulk(&one, taker.id, bytes).await?;
        let between = cpu(rig)?;
        bulk(&two, taker.id, bytes).await?;
        let over = cpu(rig)?;
        let gib = number(usize::try_from(options.mib)?) / 1024.0;
        singles.push((between - begun) / gib);
        doubles.push((over - between) / gib);
        ratios.push((between - begun) / (over - between));
    }
    FLEET.figure("copy-cpu-one-relay", median(&singles), "s/GiB")?;
    FLEET.figure("copy-cpu-two-relays", median(&doubles), "s/GiB")?;
    FLEET.at_least("copy-rate-per-cpu", median(&ratios), "times", 0.45)
}

async fn bulk(session: &Session, to: PeerId, bytes: u64) -> Outcome<()> {
    let all = (0..STREAMS).map(|_| carry(session, to, bytes / STREAMS));
    futures::future::try_join_all(all).await.map(drop)
}

/// All of them, through one relay, each once; how many were not reached.
async fn reached(dialler: &Session, nodes: &[PeerId]) -> usize {
    let all = nodes
        .iter()
        .map(|node| async { circuit(dialler, *node).await.is_err() });
    let all = futures::stream::iter(all).buffer_unordered(AT_ONCE);
    all.filter(|failed| std::future::ready(*failed))
        .count()
        .await
}

pub(super) async fn etcd(rig: &mut Rig, options: &Options) -> Outcome<()> {
    let taker = Taker::at(&rig.relays[0]).await?;
    let (_, dialler) = session(&rig.relays[1]).await?;
    known(&dialler, taker.id).await?;
    let talks = Talks::begin(&dialler, taker.id, TALKS).await?;
    let wanted = options.nodes / 3 * 3;
    let all_there = move |all: &[serde_json::Value]| {
        all.iter().all(|it| {
            let there = count(it, "registrations") + count(it, "registrations_elsewhere");
            it["reachable"] == true && count(it, "waiting") == 0 && there >= wanted
        })
    };
    if options.etcd >= 3 {
        let leader = leader(rig)?;
        rig.etcd.kill(leader)?;
        sleep(Duration::from_secs(15)).await;
        let waited = rig.until("all is there again", all_there).await?;
        FLEET.figure(
            "leader-lost-all-there-after",
            15.0 + waited.as_secs_f64(),
            "s",
        )?;
        let lost = rig.look()?.iter().map(|it| count(it, "leases_lost")).sum();
        FLEET.figure("leader-lost-leases", number(lost), "leases")?;
        rig.etcd.start_again(leader)?;
    }
    for n in 0..options.etcd {
        rig.etcd.kill(n)?;
    }
    // Longer than the leases last.
    sleep(Duration::from_secs(15)).await;
    let without = reached(&dialler, &rig.nodes[0][..rig.nodes[0].len().min(100)]).await;
    FLEET.at_most(
        "unreached-while-etcd-is-away",
        number(without),
        "of 100",
        0.0,
    )?;
    let begun = Instant::now();
    for n in 0..options.etcd {
        rig.etcd.spawn_again(n)?;
    }
    rig.until("all is there again", all_there).await?;
    FLEET.figure("etcd-back-all-there", begun.elapsed().as_secs_f64(), "s")?;
    let unreached = reached(&dialler, &rig.nodes[0]).await;
    FLEET.at_most(
        "registrations-lost-by-etcd",
        number(unreached),
        "registrations",
        0.0,
    )?;
    FLEET.at_most(
        "circuits-cut-by-etcd",
        number(talks.cut().await?),
        "circuits",
        0.0,
    )
}

fn leader(rig: &Rig) -> Outcome<usize> {
    let shown = rig
        .etcd
        .ctl(["endpoint", "status", "--cluster", "-w", "json"])?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&shown)?;
    let leads =
        |it: &&serde_json::Value| it["Status"]["leader"] == it["Status"]["header"]["member_id"];
    let place = all
        .iter()
        .find(leads)
        .and_then(|it| it["Endpoint"].as_str());
    let place = place.ok_or("no leader")?.trim_start_matches("http://");
    let found = (0..all.len()).find(|n| rig.etcd.endpoint(*n) == place);
    found.ok_or_else(|| "no such member".into())
}

pub(super) async fn churn(rig: &mut Rig, options: &Options) -> Outcome<()> {
    let coming = (0..200).map(|n| Taker::at(&rig.relays[n % 3]));
    let coming = futures::stream::iter(coming).buffer_unordered(8);
    let mut takers: Vec<Taker> = coming.try_collect().await?;
    let members = options.etcd;
    let store_cpu = |rig: &Rig| {
        let all = (0..members).filter_map(|n| rig.etcd.pid(n));
        all.map(crate::measure::cpu_seconds_of)
            .sum::<Outcome<f64>>()
    };
    let pace = Duration::from_secs(60) / u32::try_from(options.a_minute.max(1))?;
    // Buffers, tables and the allocator have their sizes after as much of it as is measured, and the nodes have sent their first signs of life.
    turn(&mut takers, pace, options.seconds.max(WARM_UP)).await?;
    let memory = |rig: &Rig| {
        let all = rig.relays.iter().map(super::rig::Relay::memory);
        all.sum::<Outcome<f64>>()
    };
    let cpu = |rig: &Rig| {
        rig.relays
            .iter()
            .map(super::rig::Relay::cpu)
            .sum::<Outcome<f64>>()
    };
    let seen =
        |all: &[serde_json::Value], what| all.iter().map(|it| count(it, what)).sum::<usize>();
    // A look takes memory itself, 17 KiB for each session that it lists.
    let shown = rig.look()?;
    let (before, relays, store) = (memory(rig)?, cpu(rig)?, store_cpu(rig)?);
    let (writes, changes) = (seen(&shown, "writes"), seen(&shown, "changes"));
    let done = turn(&mut takers, pace, options.seconds).await?;
    let grown = (memory(rig)? - before) / 3.0 / 1024.0;
    let shown = rig.look()?;
    let writes = seen(&shown, "writes").saturating_sub(writes).max(1);
    let changes = seen(&shown, "changes").saturating_sub(changes).max(1);
    let seconds = number(usize::try_from(options.seconds)?);
    FLEET.at_least(
        "churn-rate",
        number(done) / seconds * 60.0,
        "a minute",
        0.95 * number(usize::try_from(options.a_minute)?),
    )?;
    FLEET.figure("churn-keys-written", number(writes) / seconds, "a second")?;
    let micros = |before: f64, after: f64, count: usize| (after - before) / number(count) * 1e6;
    FLEET.figure("relay-cpu-change", micros(relays, cpu(rig)?, changes), "µs")?;
    FLEET.figure(
        "etcd-cpu-write",
        micros(store, store_cpu(rig)?, writes),
        "µs",
    )?;
    let data = number(usize::try_from(size_of(rig.folder())?)?) / 1024.0 / 1024.0;
    FLEET.figure("etcd-on-disk", data, "MiB")?;
    FLEET.figure("relay-memory", memory(rig)? / 3.0 / 1024.0 / 1024.0, "MiB")?;
    // What an allocator moves; 10,000 registrations with 600 bytes each left behind would be more.
    FLEET.at_most("churn-growth", grown / 1024.0, "MiB a relay", 2.0)
}

/// Registrations that leave and come at this pace, for so long; how many.
async fn turn(takers: &mut [Taker], pace: Duration, seconds: u64) -> Outcome<usize> {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut done, all) = (Instant::now(), 0, takers.len());
    while begun.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        takers[done % all].again().await?;
        done += 1;
    }
    Ok(done)
}

fn size_of(folder: &std::path::Path) -> std::io::Result<u64> {
    let mut all = 0;
    for entry in std::fs::read_dir(folder)? {
        let (path, about) = {
            let entry = entry?;
            (entry.path(), entry.metadata()?)
        };
        all += if about.is_dir() {
            size_of(&path)?
        } else {
            about.len()
        };
    }
    Ok(all)
}

pub(super) async fn kill(rig: &mut Rig, options: &Options) -> Outcome<()> {
    let taker = Taker::at(&rig.relays[1]).await?;
    let (_, dialler) = session(&rig.relays[2]).await?;
    known(&dialler, taker.id).await?;
    let talks = Talks::begin(&dialler, taker.id, TALKS).await?;
    let mut left = rig.nodes[0].clone();
    let begun = Instant::now();
    rig.kill(0)?;
    let wanted = options.nodes / 3 * 3;
    rig.until("its nodes are registered elsewhere", |all| {
        all.iter()
            .map(|it| count(it, "registrations"))
            .sum::<usize>()
            >= wanted
    })
    .await?;
    FLEET.figure(
        "killed-registered-elsewhere",
        begun.elapsed().as_secs_f64(),
        "s",
    )?;
    while !left.is_empty() && begun.elapsed() < Duration::from_secs(120) {
        let all = left.iter().map(|node| async {
            let failed = circuit(&dialler, *node).await.is_err();
            (*node, failed)
        });
        let all = futures::stream::iter(all).buffer_unordered(AT_ONCE);
        let all: Vec<_> = all.collect().await;
        left = all
            .into_iter()
            .filter(|(_, failed)| *failed)
            .map(|(node, _)| node)
            .collect();
    }
    FLEET.at_most(
        "killed-all-reached-after",
        begun.elapsed().as_secs_f64(),
        "s",
        20.0,
    )?;
    FLEET.at_most("killed-not-reached", number(left.len()), "nodes", 0.0)?;
    FLEET.at_most(
        "circuits-cut-by-kill",
        number(talks.cut().await?),
        "circuits",
        0.0,
    )
}
