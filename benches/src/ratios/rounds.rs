//! Runs measurements, each in a process of its own, and keeps what they say.
//!
//! Those that take the whole machine run alone, peers in turn in each round, so that whatever changes on the machine
//! meanwhile meets all of them. Those that mostly wait for a slow path run side by side.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::runs::{Load, Spec};
use crate::Outcome;
use crate::measure::median;
use crate::peers::Peer;
use crate::workloads::Record;

/// All measurements of one run.
#[derive(Default)]
pub(crate) struct Results(Vec<Measured>);

/// One measurement, and for which run it was made.
#[derive(Serialize, Deserialize)]
pub(crate) struct Measured {
    run: String,
    peer: Peer,
    #[serde(flatten)]
    record: Record,
}

impl Results {
    pub(crate) fn add(&mut self, run: &str, peer: Peer, record: Record) {
        self.0.push(Measured {
            run: run.to_owned(),
            peer,
            record,
        });
    }

    /// The lines that [`Results::lines`] wrote, without those of the runs that are measured anew.
    pub(crate) fn from_lines(lines: &str, anew: &[&'static Spec]) -> Outcome<Self> {
        let mut results = Self::default();
        for line in lines.lines() {
            let measured: Measured = serde_json::from_str(line)?;
            if anew.iter().all(|spec| spec.id != measured.run) {
                results.0.push(measured);
            }
        }
        Ok(results)
    }

    /// All measurements, each as one line of JSON.
    pub(crate) fn lines(&self) -> Outcome<String> {
        let mut lines = String::new();
        for measured in &self.0 {
            lines.push_str(&serde_json::to_string(measured)?);
            lines.push('\n');
        }
        Ok(lines)
    }

    pub(crate) fn has(&self, run: &str) -> bool {
        self.0.iter().any(|measured| measured.run == run)
    }

    /// The middle of what the rounds gave; NaN where there is nothing.
    pub(crate) fn median(&self, spec: &str, peer: Peer, value: &str) -> f64 {
        let of = self.0.iter().filter(|m| m.run == spec && m.peer == peer);
        let values: Vec<f64> = of
            .filter_map(|measured| measured.record.values.get(value))
            .copied()
            .collect();
        median(&values)
    }

    /// Who was measured, each once, in a fixed order.
    pub(crate) fn peers(&self, spec: &str) -> impl Iterator<Item = Peer> + use<> {
        let of = self.0.iter().filter(|measured| measured.run == spec);
        let peers: BTreeSet<Peer> = of.map(|measured| measured.peer).collect();
        peers.into_iter()
    }
}

/// One measurement that runs.
struct Running {
    spec: &'static str,
    peer: Peer,
    child: Child,
}

impl Running {
    fn start(spec: &'static Spec, peer: Peer, quick: bool) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(spec.command.split(' '))
            .args(spec.size.option(quick))
            .args(["--peer", peer.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            spec: spec.id,
            peer,
            child,
        })
    }

    /// Waits for it. One that fails has said why on standard error, and is a gap in the table.
    fn finish(self, results: &mut Results) -> Outcome<()> {
        let output = self.child.wait_with_output()?;
        if !output.status.success() {
            eprintln!("cepa-bench: {} of {} failed", self.spec, self.peer.name());
            return Ok(());
        }
        let record: Record = serde_json::from_slice(&output.stdout)?;
        println!("{}", serde_json::to_string(&record)?);
        results.add(self.spec, self.peer, record);
        Ok(())
    }
}

/// Runs all of `specs`, and adds what they say to `results`.
pub(crate) fn run(specs: &[&'static Spec], quick: bool, results: &mut Results) -> Outcome<()> {
    for spec in specs.iter().filter(|spec| spec.load == Load::Full) {
        for round in 0..rounds(spec, quick) {
            for peer in of_round(spec, round, quick) {
                Running::start(spec, peer, quick)?.finish(results)?;
            }
        }
    }
    for load in [Load::Light, Load::Idle] {
        let mut running = Vec::new();
        for spec in specs.iter().filter(|spec| spec.load == load) {
            for peer in of_round(spec, 0, quick) {
                running.push(Running::start(spec, peer, quick)?);
            }
        }
        for one in running {
            one.finish(results)?;
        }
    }
    Ok(())
}

fn rounds(spec: &Spec, quick: bool) -> usize {
    let most = spec.peers.iter().map(|(_, rounds)| *rounds).max();
    most.map_or(0, |most| if quick { 1 } else { most })
}

/// Who takes part in a round.
fn of_round(spec: &Spec, round: usize, quick: bool) -> impl Iterator<Item = Peer> + use<'_> {
    let takes_part = move |rounds: usize| if quick { round == 0 } else { round < rounds };
    spec.peers
        .iter()
        .filter(move |(_, rounds)| takes_part(*rounds))
        .map(|(peer, _)| *peer)
}
