//! What a probe found, for a person and for a program.

// Durations and rates are shown as floating point numbers.
#![allow(clippy::cast_precision_loss)]

use std::fmt::Write as _;
use std::time::Duration;

use cepa::transports::LineNotices;
use serde_json::{Value, json};

use super::engine::{Findings, ranges};
use super::meter::Meter;
use super::wire::Fate;
use crate::columns::count;

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Shortest, middle and longest.
fn round_trip(findings: &Findings) -> Option<[Duration; 3]> {
    let all = &findings.round_trips;
    Some([*all.first()?, *all.get(all.len() / 2)?, *all.last()?])
}

pub(super) fn table(findings: &Findings, line: Option<&LineNotices>) -> String {
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
        each(|m| m.rate().map_or("unknown".into(), per_second)),
    );
    row(
        "bit errors",
        each(|m| match m.flips {
            0 if m.bits() == 0 => "unknown: nothing came".into(),
            0 => format!("none in {} bits", in_groups(m.bits())),
            flips => format!("1 in {} bits", in_groups(m.bits() / flips.max(1))),
        }),
    );
    row(
        "lost bytes",
        each(|m| {
            let lost = m.lost_bytes();
            if lost > 0.0 {
                one_in(lost)
            } else {
                "none".into()
            }
        }),
    );
    row("8 bits", each(eight_bits));
    row("eaten", each(|m| or_none(&m.values(Fate::Eaten))));
    row("changed", each(|m| or_none(&m.values(Fate::Changed))));
    row("best frame", each(|m| format!("{} bytes", m.best_frame())));
    if let Some(line) = line {
        let _ = writeln!(out, "serial server  {}", told(line));
    }
    for line in advice(findings) {
        let _ = writeln!(out, "{line}");
    }
    out
}

/// What a serial server has told of its port.
fn told(line: &LineNotices) -> String {
    let mut all = Vec::new();
    if let Some(it) = line.modem {
        let on = |name: &str, is: bool| format!("{name} {}", if is { "on" } else { "off" });
        all.extend([
            on("CTS", it.cts),
            on("DSR", it.dsr),
            on("RI", it.ring),
            on("DCD", it.carrier),
        ]);
    }
    let mut errors = Vec::new();
    for (n, what) in [
        (line.framing_errors, "framing error"),
        (line.parity_errors, "parity error"),
        (line.overruns, "overrun"),
        (line.breaks, "break"),
    ] {
        if n > 0 {
            errors.push(count(n, what));
        }
    }
    if errors.is_empty() {
        errors.push("no errors".to_owned());
    }
    all.extend(errors);
    all.join(", ")
}

/// A number with commas between its groups of three digits.
fn in_groups(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Positive and far below what fits, by what they are.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

fn per_second(rate: f64) -> String {
    if rate < 1e6 {
        format!("{} B/s", in_groups(whole(rate)))
    } else {
        format!("{:.1} MB/s", rate / 1e6)
    }
}

/// A share of all bytes.
fn one_in(share: f64) -> String {
    if share >= 0.01 {
        format!("{:.1} %", share * 100.0)
    } else {
        format!("1 in {}", in_groups(whole(1.0 / share)))
    }
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

pub(super) fn json(findings: &Findings, line: Option<&LineNotices>) -> Value {
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
    let line = line.map(|it| {
        let modem = it.modem.map(
            |it| json!({ "cts": it.cts, "dsr": it.dsr, "ring": it.ring, "carrier": it.carrier }),
        );
        json!({
            "modem": modem,
            "framing_errors": it.framing_errors,
            "parity_errors": it.parity_errors,
            "overruns": it.overruns,
            "breaks": it.breaks,
        })
    });
    json!({
        "serial_server": line,
        "kind": if findings.loopback { "loopback" } else { "answered" },
        "round_trip_ms": times,
        "there": direction(&findings.there),
        "back": direction(&findings.back),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_that_a_person_says() {
        assert_eq!(in_groups(7), "7");
        assert_eq!(in_groups(240_000), "240,000");
        assert_eq!(in_groups(1_000_001), "1,000,001");
        assert_eq!(per_second(11_520.4), "11,520 B/s");
        assert_eq!(per_second(1_234_567.0), "1.2 MB/s");
        assert_eq!(one_in(0.25), "25.0 %");
        assert_eq!(one_in(0.000_5), "1 in 2,000");
    }
}
