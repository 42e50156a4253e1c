//! The whole table in one run: `runs` says what is measured, `rounds` measures it, `goals` says what it is held
//! against, `report` writes it down, with the picture that `plot` draws.

mod goals;
mod plot;
mod report;
mod rounds;
mod runs;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::Outcome;
use crate::peers::Peer;
use goals::{ROWS, Row};
use runs::{SPECS, Spec};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder for the table as Markdown, its plot and all measurements; made if it is not there
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only these workloads, as W1,W5; or runs by name, as w5-16k
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// One round, and a quarter of the work: shows whether everything runs, not how fast
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let specs = chosen(&options.only)?;
    let begun = Instant::now();
    let results = rounds::run(&specs, options.quick)?;
    let took = begun.elapsed();
    let rows: Vec<&Row> = rows(&specs).collect();
    for row in &rows {
        let value = row.of(Peer::Cepa, &results);
        let goal = row.goal.to_string().replace(' ', "");
        println!("{} {value:.4} {goal} {}", row.name, row.verdict(value));
    }
    if let Some(folder) = &options.out {
        report::write(folder, &rows, &results, took)?;
        eprintln!("cepa-bench: the table is in {}", folder.display());
    }
    Ok(())
}

/// The runs that `only` names: a workload, or one run.
fn chosen(only: &[String]) -> Outcome<Vec<&'static Spec>> {
    let names = |spec: &Spec, name: &str| {
        let name = name.to_lowercase();
        spec.id == name || spec.id.split('-').next() == Some(name.as_str())
    };
    for name in only {
        if !SPECS.iter().any(|spec| names(spec, name)) {
            let ids: Vec<&str> = SPECS.iter().map(|spec| spec.id).collect();
            return Err(
                format!("--only {name}: take W1 to W8, or one of {}", ids.join(" ")).into(),
            );
        }
    }
    let wanted = |spec: &&Spec| only.is_empty() || only.iter().any(|name| names(spec, name));
    Ok(SPECS.iter().filter(wanted).collect())
}

/// The rows of the table that these runs fill.
fn rows(specs: &[&'static Spec]) -> impl Iterator<Item = &'static Row> {
    ROWS.iter()
        .filter(|row| specs.iter().any(|spec| spec.id == row.spec))
}
