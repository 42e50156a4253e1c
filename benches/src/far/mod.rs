//! Bulk over far paths through the system's own TCP: cepa beside TLS alone, from the first byte on.
//!
//! ```text
//! cargo build --release -p cepa-bench
//! target/release/cepa-bench far [--mib 16,64,256] [--rounds 3] [--loss 0.001] [--congestion cubic]      # as root
//! ```
//!
//! The hosts are network namespaces without names, and this process is the path between them, since the kernel's module for delays is not
//! everywhere. It takes root, iproute2 and ethtool; where one of them is missing it says so, and measures nothing. How much of the path
//! TCP itself gets is the business of its congestion control, so a rate beside that of `tls`, measured in turn, says more than the share.
//!
//! | file | holds |
//! | --- | --- |
//! | `place` | a network namespace without a name |
//! | `wire` | what the path does to a frame |
//! | `world` | two hosts, and the path between them |

mod place;
mod wire;
mod world;

use std::time::Duration;

use clap::Args;

use crate::Outcome;
use crate::figure::FAR;
use crate::measure::median;
use crate::peers::{Credentials, Peer, over};
use crate::workloads::bulk::{carry, mib};
use crate::workloads::shared::{on_workers, pair};
use wire::Path;
use world::World;

/// Names, bytes a second, and milliseconds there and back.
const PATHS: [(&str, f64, u64); 2] = [("1g-50ms", 125e6, 50), ("100m-200ms", 12.5e6, 200)];

/// To TLS alone, where nothing is lost.
const GOAL: f64 = 0.92;

#[derive(Args)]
pub(crate) struct Options {
    /// MiB of the transfers
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 256])]
    mib: Vec<u64>,
    /// Transfers of each size and peer; the middle one counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Part of all frames that is lost, in the rows with loss; 0 leaves those out
    #[arg(long, default_value_t = 0.001)]
    loss: f64,
    /// Bytes that wait in the path, in what it carries in a round trip
    #[arg(long, default_value_t = 1.0)]
    buffer: f64,
    /// Only the path of this name: 1g-50ms, 100m-200ms
    #[arg(long)]
    only: Option<String>,
    /// TCP's congestion control; the system's, unless given
    #[arg(long)]
    congestion: Option<String>,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    for (name, rate, ms) in PATHS {
        if options.only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        for loss in [0.0, options.loss] {
            let round_trip = Duration::from_millis(ms);
            let path = Path {
                rate,
                round_trip,
                buffer: options.buffer * rate * round_trip.as_secs_f64(),
                loss,
            };
            let name = if loss > 0.0 {
                format!("{name}-loss")
            } else {
                name.to_owned()
            };
            let world = match World::new(path, options.congestion.as_deref(), 1) {
                Ok(world) => world,
                Err(why) => {
                    println!("far SKIPPED: it takes root, iproute2 and ethtool: {why}");
                    return Ok(());
                }
            };
            eprintln!(
                "{name}: TCP's congestion control is {}",
                world.congestion()?
            );
            for mib in &options.mib {
                sized(&world, path, &format!("{name}-{mib}-mib"), *mib, options)?;
            }
            if options.loss <= 0.0 {
                break;
            }
        }
    }
    Ok(())
}

fn sized(world: &World, path: Path, name: &str, size: u64, options: &Options) -> Outcome<()> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let [tls, cepa] = [Peer::Tls, Peer::Cepa].map(|peer| transfer(world, path, peer, size));
        let (tls, cepa) = (tls?, cepa?);
        ratios.push(cepa / tls);
        theirs.push(tls);
        ours.push(cepa);
    }
    FAR.figure(&format!("{name}-share"), median(&ours), "of the path")?;
    FAR.figure(&format!("{name}-tls"), median(&theirs), "of the path")?;
    let ratio = (format!("{name}-to-tls"), median(&ratios));
    if path.loss > 0.0 {
        FAR.figure(&ratio.0, ratio.1, "x")
    } else {
        FAR.at_least(&ratio.0, ratio.1, "x", GOAL)
    }
}

/// Share of the path, from the first byte written to the last one read.
fn transfer(world: &World, path: Path, peer: Peer, size: u64) -> Outcome<f64> {
    let (near, far) = world.connect()?;
    let bytes = size << 20;
    on_workers(2, async move {
        let mut joined = over(peer, near, far, &Credentials::new()?).await?;
        let pairs = vec![pair(&mut joined).await?];
        let seconds = carry(pairs, bytes).await?.run.seconds;
        Ok(mib(bytes) * f64::from(1 << 20) / (path.rate * seconds))
    })
}
