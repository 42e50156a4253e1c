//! cepa beside its rivals: one process, both ends in it, peers in turn.
//!
//! ```text
//! cargo run --release -p cepa-bench -- bulk [--mib 512] [--rounds 5] [--workers 1]
//! ```
//!
//! Each measurement is one line of JSON; the medians and their ratios to `tls` (tokio-rustls alone)
//! come last. Machines are shared and noisy: only ratios inside one run mean anything.
//!
//! | peer | what carries the bytes over loopback TCP |
//! | --- | --- |
//! | `tls` | one tokio-rustls stream: the mark |
//! | `onion` | one layer of an onion |
//! | `cepa` | one substream of a mux over one layer of an onion |
//! | `nested2` | tokio-rustls inside tokio-rustls |
//! | `onion2` | two layers of an onion |

mod measure;
mod peers;

use std::process::ExitCode;

use measure::{Run, median};
use peers::Peer;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Options {
    mib: usize,
    rounds: usize,
    workers: usize,
}

fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Options> {
    let usage = "usage: cepa-bench bulk [--mib N] [--rounds N] [--workers N]";
    if words.next().as_deref() != Some("bulk") {
        return Err(usage.into());
    }
    let mut options = Options {
        mib: 512,
        rounds: 5,
        workers: 1,
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(usage)?.parse()?;
        match word.as_str() {
            "--mib" => options.mib = value,
            "--rounds" => options.rounds = value,
            "--workers" => options.workers = value,
            _ => return Err(usage.into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|options| bulk(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Bulk one way in writes of 64 KiB, every peer once a round.
fn bulk(options: &Options) -> Outcome<()> {
    let mut runs: Vec<(Peer, Vec<Run>)> = Peer::ALL.iter().map(|p| (*p, Vec::new())).collect();
    for round in 0..=options.rounds {
        for (peer, of_peer) in &mut runs {
            let run = measure::bulk(*peer, options.mib << 20, options.workers)?;
            // The first round warms up.
            if round > 0 {
                println!(
                    "{{\"workload\":\"bulk\",\"peer\":\"{}\",\"workers\":{},\"mib\":{},\
                     \"seconds\":{:.4},\"cpu_seconds\":{:.4}}}",
                    peer.name(),
                    options.workers,
                    options.mib,
                    run.seconds,
                    run.cpu
                );
                of_peer.push(run);
            }
        }
    }
    let seconds = |of: &[Run]| median(of.iter().map(|run| run.seconds));
    let cpu = |of: &[Run]| median(of.iter().map(|run| run.cpu));
    let mark = runs.iter().find(|(peer, _)| *peer == Peer::Tls);
    let mark = mark.map_or(&[][..], |(_, of)| of);
    for (peer, of) in &runs {
        println!(
            "{:8} {:6.0} MiB/s  rate / tls {:.2}  cpu / tls {:.2}",
            peer.name(),
            mib(options.mib) / seconds(of),
            seconds(mark) / seconds(of),
            cpu(of) / cpu(mark)
        );
    }
    Ok(())
}

fn mib(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}
