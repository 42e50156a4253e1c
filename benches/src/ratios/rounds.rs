//! Runs measurements, each in a process of its own, and keeps what they say.
//!
//! Those that take the whole machine run alone, peers in turn in each round, so that whatever changes on the machine
//! meanwhile meets all of them. Those that mostly wait for a slow path run side by side.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use super::runs::{Load, Spec};
use crate::Outcome;
use crate::measure::median;
use crate::peers::Peer;
use crate::workloads::Record;

/// All measurements of one run.
#[derive(Default)]
pub(crate) struct Results(Vec<(&'static str, Peer, Record)>);

impl Results {
    pub(crate) fn add(&mut self, spec: &'static str, peer: Peer, record: Record) {
        self.0.push((spec, peer, record));
    }

    /// The middle of what the rounds gave; NaN where there is nothing.
    pub(crate) fn median(&self, spec: &str, peer: Peer, value: &str) -> f64 {
        let of = self.0.iter().filter(|(s, p, _)| *s == spec && *p == peer);
        let values: Vec<f64> = of
            .filter_map(|(_, _, r)| r.values.get(value))
            .copied()
            .collect();
        median(&values)
    }

    /// Who was measured, each once, in a fixed order.
    pub(crate) fn peers(&self, spec: &str) -> impl Iterator<Item = Peer> + use<> {
        let of = self.0.iter().filter(|(s, _, _)| *s == spec);
        let peers: BTreeSet<Peer> = of.map(|(_, peer, _)| *peer).collect();
        peers.into_iter()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.0.iter().map(|(_, _, record)| record)
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

/// Runs all of `specs`.
pub(crate) fn run(specs: &[&'static Spec], quick: bool) -> Outcome<Results> {
    let mut results = Results::default();
    for spec in specs.iter().filter(|spec| spec.load == Load::Full) {
        for round in 0..rounds(spec, quick) {
            for peer in of_round(spec, round, quick) {
                Running::start(spec, peer, quick)?.finish(&mut results)?;
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
            one.finish(&mut results)?;
        }
    }
    Ok(results)
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
