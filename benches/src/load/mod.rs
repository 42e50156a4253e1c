//! Crowds of local clients on one `cepa forward`, all over one session, beside a witness that must not suffer.
//!
//! ```text
//! cargo build --release -p cepa-cli -p cepa-bench
//! target/release/cepa-bench load [--clients 5000] [--resets 12000] [--refusals 1000] [--cepa PATH] [--only NAME]
//! ```
//!
//! The tool's own processes, `cepa serve` and `cepa forward`; clients, backends and the witness are in this process. A table
//! row a load: what the clients saw, what the witness saw beside it, the most memory of both processes, and the lines that
//! they wrote. `idle` is the witness alone: wall time on whatever else the machine does, to compare with.
//!
//! | file | holds |
//! | --- | --- |
//! | `rig` | the processes, the backends, the witness |
//! | `scenarios` | the loads |

mod rig;
mod scenarios;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::Outcome;
use crate::measure::{allow_descriptors, number, quantile};
use rig::{Rig, Witness};
use scenarios::Came;

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The tool; beside this program, unless given
    #[arg(long)]
    cepa: Option<PathBuf>,
    /// Connections that are open at once
    #[arg(long, default_value_t = 5000)]
    clients: usize,
    /// Connections that are reset after a byte
    #[arg(long, default_value_t = 12_000)]
    resets: usize,
    /// So many of those a second
    #[arg(long, default_value_t = 400)]
    a_second: u32,
    /// Connections to a backend that is down, and to one that closes at once
    #[arg(long, default_value_t = 1000)]
    refusals: usize,
    /// How long a client of the crowd waits, in seconds
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Descriptors that the server may have; as many as this program, unless given
    #[arg(long)]
    descriptors: Option<usize>,
    /// Only loads whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Shows what both processes said
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    // A client, and the backend's end of it.
    allow_descriptors(2 * options.clients + 1000)?;
    let cepa = match &options.cepa {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("cepa"),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(options, &cepa))
}

async fn measure(options: &Options, cepa: &std::path::Path) -> Outcome<()> {
    let mut rig = Rig::start(cepa, options.descriptors, &[])?;
    let mut witness = Witness::start(&rig).await?;
    println!(
        "| load | its clients | p50, p99 ms | echo p50, p99, max ms | download MB/s, longest wait ms | serve, forward MiB | lines |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut lines = [0; 2];
    let mut failures = Vec::new();
    for load in ["idle", "crowd", "turns", "resets", "down", "shut", "after"] {
        let only = options.only.as_deref().unwrap_or_default();
        if !load.contains(only) && load != "idle" {
            continue;
        }
        let _ = witness.take();
        let came = put(load, options, &rig).await?;
        let (seen, time) = witness.take();
        if seen.echoes.is_empty() || seen.bytes == 0 {
            failures.push(format!("{load}: the witness stood still"));
        }
        failures.extend(seen.failures.iter().map(|e| format!("{load}: {e}")));
        let said = rig.said().map(<[String]>::len);
        println!(
            "| {load} | {} | {:.0}, {:.0} | {:.1}, {:.1}, {:.1} | {:.1}, {:.0} | {:.1}, {:.1} | {}, {} |",
            reported(&came),
            quantile(&came.took, 0.5),
            quantile(&came.took, 0.99),
            quantile(&seen.echoes, 0.5),
            quantile(&seen.echoes, 0.99),
            quantile(&seen.echoes, 1.0),
            number(seen.bytes) / 1e6 / time.as_secs_f64(),
            seen.longest_wait,
            seen.memory[0] / MIB,
            seen.memory[1] / MIB,
            said[0] - lines[0],
            said[1] - lines[1],
        );
        lines = said;
        if !rig.is_running() {
            failures.push(format!("{load}: a process has ended"));
            break;
        }
    }
    if options.verbose || !failures.is_empty() {
        for (name, said) in ["serve", "forward"].iter().zip(rig.said()) {
            for line in said {
                eprintln!("{name}: {line}");
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("; ").into())
}

async fn put(load: &str, options: &Options, rig: &Rig) -> Outcome<Came> {
    let patience = Duration::from_secs(options.patience);
    match load {
        "crowd" => scenarios::crowd(rig.local("echo")?, options.clients, patience).await,
        "turns" => {
            let stay = Duration::from_millis(100);
            scenarios::turns(rig.local("echo")?, options.clients, stay, patience).await
        }
        "resets" => scenarios::leave(rig.local("echo")?, options.resets, options.a_second).await,
        "down" => scenarios::knock(rig.local("down")?, options.refusals, options.a_second).await,
        "shut" => scenarios::knock(rig.local("shut")?, options.refusals, options.a_second).await,
        _ => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(Came::default())
        }
    }
}

fn reported(came: &Came) -> String {
    let all = came.counts.iter().map(|(what, n)| format!("{n} {what}"));
    all.collect::<Vec<_>>().join("; ")
}
