//! What a probe found, for a person and for a program.

// Durations and rates are shown as floating point numbers.
#![allow(clippy::cast_precision_loss)]

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::engine::{Findings, ranges};
use super::meter::Meter;
use super::wire::Fate;

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Shortest, middle and longest.
fn round_trip(findings: &Findings) -> Option<[Duration; 3]> {
    let all = &findings.round_trips;
    Some([*all.first()?, *all.get(all.len() / 2)?, *all.last()?])
}

pub(super) fn table(findings: &Findings) -> String {
    let mut out = String::new();
    if let Some([least, middle, most]) = round_trip(findings).map(|all| all.map(milliseconds)) {
        let _ = writeln!(out, "round trip     {middle} ms ({least} to {most})");
    }
    let columns: Vec<(&str, &Meter)> = if findings.loopback {
        vec![("there and back", &findings.there)]
    } else {
        vec![("there", &findings.there), ("back", &findings.back)]
    };
    let mut row = |name: &str, cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:<28}")).collect();
        let line = format!("{name:<15}{}", cells.join("  "));
        let _ = writeln!(out, "{}", line.trim_end());
    };
    row(
        "",
        columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
    );
    let each = |cell: fn(&Meter) -> String| columns.iter().map(|(_, m)| cell(m)).collect();
    row(
        "rate",
        each(|m| m.rate().map_or("unknown".into(), |r| format!("{r:.0} B/s"))),
    );
    row(
        "bit errors",
        each(|m| match m.flips {
            0 if m.bits() == 0 => "unknown: nothing came".into(),
            0 => format!("none in {} bits", m.bits()),
            _ => format!("{:.1e} ({} in {} bits)", m.bit_errors(), m.flips, m.bits()),
        }),
    );
    row(
        "lost bytes",
        each(|m| {
            let lost = m.lost_bytes();
            if lost > 0.0 {
                format!("{lost:.1e}")
            } else {
                "none".into()
            }
        }),
    );
    row("8 bits", each(eight_bits));
    row("eaten", each(|m| or_none(&m.values(Fate::Eaten))));
    row("changed", each(|m| or_none(&m.values(Fate::Changed))));
    row("best frame", each(|m| format!("{} bytes", m.best_frame())));
    for line in advice(findings) {
        let _ = writeln!(out, "{line}");
    }
    out
}

fn or_none(values: &[u8]) -> String {
    if values.is_empty() {
        "none".into()
    } else {
        ranges(values)
    }
}

fn eight_bits(meter: &Meter) -> String {
    let upper = |fate| {
        meter
            .values(fate)
            .into_iter()
            .filter(|v| *v >= 0x80)
            .count()
    };
    match (upper(Fate::Clean), upper(Fate::Unknown)) {
        (128, _) => "clean".into(),
        (_, 128) => "unknown".into(),
        _ if upper(Fate::Stripped) > 64 => "no: 7 bits".into(),
        (_, 0) => "not all".into(),
        (clean, _) => format!("{clean} of 128 seen clean"),
    }
}

fn advice(findings: &Findings) -> Vec<&'static str> {
    let meters = [&findings.there, &findings.back];
    let any =
        |fate, what: fn(u8) -> bool| meters.iter().any(|m| m.values(fate).into_iter().any(what));
    let mut lines = Vec::new();
    if any(Fate::Stripped, |_| true) {
        lines.push("a link cannot run here; set both ends, and everything between them, to 8 bits and no parity");
    }
    let flow = |v: u8| matches!(v, 0x11 | 0x13);
    if any(Fate::Eaten, flow) {
        lines.push("something reacts to XON and XOFF; add flow=sw to the address, and the link escapes them");
    }
    if any(Fate::Eaten, |v| !matches!(v, 0x11 | 0x13)) || any(Fate::Changed, |_| true) {
        lines.push(
            "bytes are lost or changed; is a login or a console on the line? The line must be raw",
        );
    }
    lines
}

pub(super) fn json(findings: &Findings) -> Value {
    let direction = |m: &Meter| {
        json!({
            "bytes_per_second": m.rate().map(f64::round),
            "bits_compared": m.bits(),
            "bits_flipped": m.flips,
            "bit_error_rate": m.bit_errors(),
            "lost_bytes_rate": m.lost_bytes(),
            "clean": m.values(Fate::Clean).len(),
            "eaten": m.values(Fate::Eaten),
            "stripped": m.values(Fate::Stripped),
            "changed": m.values(Fate::Changed),
            "unknown": m.values(Fate::Unknown),
            "best_frame": m.best_frame(),
        })
    };
    let times = round_trip(findings).map(|all| {
        let [least, median, most] = all.map(milliseconds);
        json!({ "least": least, "median": median, "most": most })
    });
    json!({
        "kind": if findings.loopback { "loopback" } else { "answered" },
        "round_trip_ms": times,
        "there": direction(&findings.there),
        "back": direction(&findings.back),
    })
}
