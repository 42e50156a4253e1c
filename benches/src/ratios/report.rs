//! What a run leaves in its folder: the table as Markdown, its plot, and all measurements a line each.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use super::goals::{Row, figure};
use super::plot;
use super::rounds::Results;
use super::runs::Spec;
use crate::Outcome;
use crate::peers::Peer;

const PLOT: &str = "ratios.svg";
const MEASUREMENTS: &str = "measurements.jsonl";

pub(crate) fn write(
    folder: &Path,
    rows: &[&Row],
    results: &Results,
    took: Option<Duration>,
) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    fs::write(
        folder.join("ratios.md"),
        markdown(rows, results, &about(took)?)?,
    )?;
    fs::write(folder.join(PLOT), plot::svg(rows, results)?)?;
    fs::write(folder.join(MEASUREMENTS), results.lines()?)?;
    Ok(())
}

/// What the folder has of other runs than these; nothing where there is no folder yet.
pub(crate) fn read(folder: &Path, anew: &[&'static Spec]) -> Outcome<Results> {
    match fs::read_to_string(folder.join(MEASUREMENTS)) {
        Ok(lines) => Results::from_lines(&lines, anew),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Results::default()),
        Err(error) => Err(error.into()),
    }
}

/// Where, when, and for how long if it was one run.
fn about(took: Option<Duration>) -> Outcome<String> {
    let day = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"))?;
    let workers = std::thread::available_parallelism()?;
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let os = std::env::consts::OS;
    let took = took.map(|took| (took.as_secs() / 60, took.as_secs() % 60));
    let took = took.map_or_else(
        || "in several runs".to_owned(),
        |(minutes, seconds)| format!("in {minutes} min {seconds} s"),
    );
    Ok(format!(
        "Measured on {day}, on {workers} cores of {model}, {os} {}, {took}.",
        kernel.trim(),
    ))
}

fn markdown(rows: &[&Row], results: &Results, about: &str) -> Outcome<String> {
    let mut text = format!("{about}\n\n![How far from its goal each figure is]({PLOT})\n\n");
    text.push_str("| row | what | cepa | goal | | aim | rivals |\n|---|---|---|---|---|---|---|\n");
    for row in rows {
        let value = row.of(Peer::Cepa, results);
        let mut rivals = String::new();
        for peer in results.peers(row.spec).filter(|peer| row.compares(*peer)) {
            let gap = if rivals.is_empty() { "" } else { ", " };
            write!(
                rivals,
                "{gap}{} {}",
                peer.name(),
                figure(row.of(peer, results))
            )?;
        }
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {rivals} |",
            row.name,
            row.what,
            figure(value),
            row.goal,
            row.verdict(value),
            row.aim,
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::goals::ROWS;
    use super::super::runs::SPECS;
    use super::*;
    use crate::workloads::Record;

    fn record(value: &str, number: f64) -> Record {
        Record {
            workload: "w".into(),
            setup: serde_json::Value::Null,
            values: [(value.to_owned(), number)].into(),
        }
    }

    #[test]
    fn what_is_written_down_is_read_again_but_for_what_is_measured_anew() {
        let mut results = Results::default();
        results.add("w1-cpu", Peer::Cepa, record("v", 1.0));
        results.add("w2", Peer::Tls, record("v", 2.0));
        let anew: Vec<_> = SPECS.iter().filter(|spec| spec.id == "w1-cpu").collect();
        let kept = Results::from_lines(&results.lines().unwrap(), &anew).unwrap();
        assert!(kept.has("w2") && !kept.has("w1-cpu"));
        assert!((kept.median("w2", Peer::Tls, "v") - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_table_divides_by_the_mark_and_names_rivals() {
        let row = ROWS.iter().find(|row| row.name == "w1-bulk-cpu").unwrap();
        let mut results = Results::default();
        for (peer, value) in [(Peer::Cepa, 6.0), (Peer::Tls, 8.0), (Peer::Yamux, 16.0)] {
            results.add(row.spec, peer, record(row.value, value));
        }
        let text = markdown(&[row], &results, "Here.").unwrap();
        let line = text.lines().last().unwrap();
        assert!(text.starts_with("Here.\n"));
        assert!(
            line.contains("| 0.750 | ≤ 0.95 | held | ≤ 0.75 | yamux 2.00 |"),
            "{line}"
        );
    }
}
