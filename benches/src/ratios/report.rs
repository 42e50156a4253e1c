//! What a run leaves in its folder: the table as Markdown, its plot, and all measurements a line each.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use super::goals::Row;
use super::plot;
use super::rounds::Results;
use crate::Outcome;
use crate::peers::Peer;

const PLOT: &str = "ratios.svg";

pub(crate) fn write(
    folder: &Path,
    rows: &[&Row],
    results: &Results,
    took: Duration,
) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    fs::write(
        folder.join("ratios.md"),
        markdown(rows, results, &about(took)?)?,
    )?;
    fs::write(folder.join(PLOT), plot::svg(rows, results)?)?;
    let mut lines = String::new();
    for record in results.records() {
        lines.push_str(&serde_json::to_string(record)?);
        lines.push('\n');
    }
    fs::write(folder.join("measurements.jsonl"), lines)?;
    Ok(())
}

/// Where, when, and for how long.
fn about(took: Duration) -> Outcome<String> {
    let day = OffsetDateTime::now_utc().format(format_description!("[year]-[month]-[day]"))?;
    let workers = std::thread::available_parallelism()?;
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let os = std::env::consts::OS;
    let seconds = took.as_secs();
    Ok(format!(
        "Measured on {day}, on {workers} cores of {model}, {os} {}, in {} min {} s.",
        kernel.trim(),
        seconds / 60,
        seconds % 60
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

/// Three digits; what was not measured is a dash.
pub(crate) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude.is_nan() => return "-".into(),
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        magnitude if magnitude >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::super::goals::ROWS;
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
    fn figures_have_three_digits() {
        let shown = [123.4, 12.34, 1.234, 0.1234, 0.012_34, f64::NAN].map(figure);
        assert_eq!(shown, ["123", "12.3", "1.23", "0.123", "0.0123", "-"]);
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
