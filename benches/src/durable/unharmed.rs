//! Bulk and small messages over sessions of both kinds, in turn.

use std::time::Duration;

use super::ends::{Kind, Peers, over_tcp};
use super::options::Options;
use crate::Outcome;
use crate::figure::DURABLE;
use crate::measure::{Run, median};
use crate::one_way::{bulk, pair};
use crate::workloads::pingpong;

pub(super) async fn run(options: &Options) -> Outcome<()> {
    let peers = Peers::new()?;
    let kinds = |round: usize| match round % 2 {
        0 => [Kind::Plain, Kind::Durable],
        _ => [Kind::Durable, Kind::Plain],
    };
    let bytes = options.mib << 20;
    let (mut rates, mut cpu, mut durable_rates) = (Vec::new(), Vec::new(), Vec::new());
    // One more, which warms up.
    for round in 0..=options.rounds {
        let (mut plain, mut durable) = (None, None);
        for kind in kinds(round) {
            let run = transfer(&peers.of(kind), bytes).await?;
            *match kind {
                Kind::Plain => &mut plain,
                Kind::Durable => &mut durable,
            } = Some(run);
        }
        let (Some(plain), Some(durable), 1..) = (plain, durable, round) else {
            continue;
        };
        rates.push(plain.seconds / durable.seconds);
        cpu.push(durable.cpu_seconds / plain.cpu_seconds);
        #[allow(clippy::cast_precision_loss)] // some GB
        durable_rates.push(bytes as f64 / durable.seconds / 1e6);
    }
    DURABLE.figure("throughput", median(&durable_rates), "MB/s")?;
    DURABLE.figure("cpu-ratio", median(&cpu), "of plain")?;
    DURABLE.at_least("throughput-ratio", median(&rates), "of plain", 0.97)?;

    let time = Duration::from_secs_f64(options.seconds);
    let (mut trips, mut durable_trips) = (Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        let (mut plain, mut durable) = (f64::NAN, f64::NAN);
        for kind in kinds(round) {
            let trip = trip(&peers.of(kind), time).await?;
            match kind {
                Kind::Plain => plain = trip,
                Kind::Durable => durable = trip,
            }
        }
        if round > 0 {
            trips.push(durable / plain);
            durable_trips.push(durable);
        }
    }
    DURABLE.figure("round-trip-p50", median(&durable_trips), "us")?;
    DURABLE.at_most("round-trip-p50-ratio", median(&trips), "of plain", 1.05)
}

/// A transfer over a connection of its own.
async fn transfer(peers: &Peers, bytes: u64) -> Outcome<Run> {
    let (near, far) = over_tcp(peers).await?;
    let run = bulk(pair(&near, &far).await?, bytes).await?;
    near.close().await;
    Ok(run)
}

/// The middle of round trips, in microseconds.
async fn trip(peers: &Peers, time: Duration) -> Outcome<f64> {
    let (near, far) = over_tcp(peers).await?;
    let (a, b) = pair(&near, &far).await?;
    let values = pingpong::play(vec![(Box::new(a), Box::new(b))], time).await?;
    near.close().await;
    let p50 = values.iter().find(|(name, _)| *name == "p50_us");
    Ok(p50.ok_or("no p50")?.1)
}
