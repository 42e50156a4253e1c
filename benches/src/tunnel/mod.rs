//! The whole tool, `cepa forward` and `cepa serve`, beside what others take for the same: `ssh -L`, socat with OpenSSL, stunnel.
//!
//! ```text
//! cargo build --release -p cepa-cli -p cepa-bench
//! target/release/cepa-bench tunnel [--mib 512] [--rounds 3] [--cepa PATH]
//!
//!   client ── TCP ── near process ── TLS or ssh ── far process ── TCP ── server
//! ```
//!
//! Client and server are this process. In each round every tunnel is measured in turn, and what is compared is the ratio of one round;
//! the middle of the rounds counts. Processor time is that of the tunnel's own processes, with whatever they start. One line of JSON, as
//! the workloads have it. A program that is not installed is said to be skipped, and its ratios are missing.
//!
//! | file | holds |
//! | --- | --- |
//! | `backend` | the server behind the tunnels, and its clients |
//! | `tools` | the tunnels |

mod backend;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::Outcome;
use crate::measure::{cpu_seconds_with_children, median};
use crate::peers::Peer;
use crate::workloads::Record;
use backend::Beside;
use tools::Tunnel;

/// How long small messages go there and back.
const TALK: Duration = Duration::from_secs(1);

#[derive(Args, Debug, Serialize)]
pub(crate) struct Options {
    /// For `ratios`: the tool is cepa's
    #[arg(long, default_value = "cepa")]
    peer: Peer,
    /// MiB of bulk in one round
    #[arg(long, default_value_t = 512)]
    mib: u32,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The tool; beside this program, unless given
    #[arg(long)]
    cepa: Option<PathBuf>,
}

/// What one tunnel did in one round.
#[derive(Clone, Copy)]
struct Figures {
    mib_per_second: f64,
    cpu_per_gib: f64,
    alone_us: f64,
    beside_us: f64,
}

/// One of the figures.
type Of = fn(&Figures) -> f64;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    if options.peer != Peer::Cepa {
        return Err("the tunnel is the tool's: take --peer cepa".into());
    }
    let cepa = match &options.cepa {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("cepa"),
    };
    let folder = tempfile::tempdir()?;
    let server = backend::serve()?;
    let tunnels = tools::all(&cepa, folder.path(), server)?;
    let mut found: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
    // The first round warms up.
    for round in 0..=options.rounds {
        for tunnel in &tunnels {
            let mib = if round == 0 { 16 } else { options.mib };
            let figures = measure(tunnel, mib)?;
            if round > 0 {
                found.entry(tunnel.name).or_default().push(figures);
            }
        }
    }
    let record = Record {
        workload: "tunnel".to_owned(),
        setup: serde_json::to_value(options)?,
        values: values(&found),
    };
    println!("{}", serde_json::to_string(&record)?);
    Ok(())
}

fn measure(tunnel: &Tunnel, mib: u32) -> Outcome<Figures> {
    let bytes = u64::from(mib) << 20;
    let cpu = || -> Outcome<f64> {
        let each = tunnel.processes.iter();
        each.map(|id| cpu_seconds_with_children(*id)).sum()
    };
    let before = cpu()?;
    let seconds = backend::bulk(tunnel.local, bytes)?;
    let used = cpu()? - before;
    let alone_us = backend::round_trip(tunnel.local, TALK)?;
    let bulk = Beside::start(tunnel.local)?;
    let beside_us = backend::round_trip(tunnel.local, TALK)?;
    drop(bulk);
    Ok(Figures {
        mib_per_second: f64::from(mib) / seconds,
        cpu_per_gib: used / (f64::from(mib) / 1024.0),
        alone_us,
        beside_us,
    })
}

/// The figures of each tunnel, and the ratios of the tool's to others'.
fn values(found: &BTreeMap<&str, Vec<Figures>>) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    let of = |name: &str, what: Of| -> Vec<f64> {
        found.get(name).into_iter().flatten().map(what).collect()
    };
    let all: [(&str, Of); 4] = [
        ("mib_per_second", |it| it.mib_per_second),
        ("cpu_s_per_gib", |it| it.cpu_per_gib),
        ("alone_us", |it| it.alone_us),
        ("beside_us", |it| it.beside_us),
    ];
    for name in found.keys() {
        for (what, value) in all {
            values.insert(format!("{name}_{what}"), median(&of(name, value)));
            if *name != "cepa" {
                let ratio = ratio(&of("cepa", value), &of(name, value));
                values.insert(format!("{what}_to_{name}"), ratio);
            }
        }
    }
    let rate = |it: &Figures| it.mib_per_second;
    let ours = of("cepa", rate);
    let best: Vec<f64> = (0..ours.len())
        .filter_map(|round| {
            let others = found.iter().filter(|(name, _)| **name != "cepa");
            let rates = others.filter_map(|(_, all)| all.get(round).map(rate));
            rates.max_by(f64::total_cmp)
        })
        .collect();
    if !best.is_empty() {
        values.insert("rate_to_best".to_owned(), ratio(&ours, &best));
    }
    values
}

/// The middle of the rounds.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)] // exact halves
    fn ratios_are_of_the_same_round_and_the_best_is_looked_for_in_each() {
        let figures = |mib_per_second| Figures {
            mib_per_second,
            cpu_per_gib: 1.0,
            alone_us: 1.0,
            beside_us: 1.0,
        };
        let found = BTreeMap::from([
            ("cepa", vec![figures(10.0), figures(20.0), figures(30.0)]),
            ("ssh", vec![figures(20.0), figures(10.0), figures(15.0)]),
            ("socat", vec![figures(5.0), figures(80.0), figures(5.0)]),
        ]);
        let values = values(&found);
        assert_eq!(values["rate_to_best"], 0.5);
        assert_eq!(values["mib_per_second_to_ssh"], 2.0);
        assert_eq!(values["mib_per_second_to_socat"], 2.0);
        assert!(!values.contains_key("mib_per_second_to_stunnel"));
        // Without any other there is nothing to compare, and all can be written down.
        let alone = BTreeMap::from([("cepa", vec![figures(1.0)])]);
        assert!(!super::values(&alone).contains_key("rate_to_best"));
    }
}
