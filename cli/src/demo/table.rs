//! The demo's table: one column a transport, bytes of both directions together.

use std::fmt::Write as _;

use cepa::onion::LayerInfo;
use cepa::session::{PathChange, PathChanges, Session};
use futures::FutureExt as _;

use super::work::Done;
use crate::args::Transport;

const MIB: f64 = 1024.0 * 1024.0;

/// What one transport came to.
#[derive(Debug)]
pub(super) struct Row {
    transport: &'static str,
    layers: String,
    application: u64,
    mux: u64,
    tls: u64,
    wire: u64,
    handshake_ms: f64,
    mib_per_s: f64,
    /// Connections that were cut, and the time without one.
    cuts: u64,
    without_ms: f64,
    pub(super) equal: bool,
}

impl Row {
    /// What came of the work over this session; `changes` is what has happened to its connections since it was made.
    pub(super) fn new(
        kind: Transport,
        session: &Session,
        changes: &mut PathChanges,
        done: &Done,
    ) -> Self {
        let scheme = match kind {
            Transport::Tcp => "tcp",
            #[cfg(feature = "ws")]
            Transport::Ws => "ws",
            #[cfg(feature = "quic")]
            Transport::Quic => "quic",
            Transport::Unix => "unix",
            Transport::Exec => "exec",
            Transport::Serial => "link+serial",
            #[cfg(feature = "rfc2217")]
            Transport::Rfc2217 => "link+rfc2217",
        };
        let tls_layers = session.layers();
        let sealed = |layers: &[LayerInfo]| {
            let outermost = layers.first().map(LayerInfo::bytes);
            outermost.map_or(0, |bytes| bytes.sealed_in + bytes.sealed_out)
        };
        // A session that was cut has been on several connections, and may be on none at the moment.
        let mut tls = sealed(tls_layers);
        while let Some(Some(change)) = changes.next().now_or_never() {
            if let PathChange::Resumed { path, .. } | PathChange::Migrated { path, .. } = change {
                tls += sealed(&path.layers);
            }
        }
        let stats = session.mux_stats();
        let paths = session.path_stats().unwrap_or_default();
        let wire = session.meter().bytes_in() + session.meter().bytes_out();
        Self {
            transport: kind.name(),
            layers: format!("mux+{}{scheme}", "tls+".repeat(tls_layers.len())),
            application: done.bytes,
            mux: stats.bytes_in + stats.bytes_out,
            // What was sealed and had not left when the connection was cut went nowhere.
            tls: tls.min(wire),
            wire,
            handshake_ms: session.handshake_time().as_secs_f64() * 1000.0,
            mib_per_s: mib(done.bytes) / done.took.as_secs_f64().max(1e-6),
            cuts: paths.paths.saturating_sub(1),
            without_ms: paths.without.as_secs_f64() * 1000.0,
            equal: done.equal,
        }
    }

    /// What was added below the application, in percent of its bytes.
    fn overhead(&self) -> f64 {
        (mib(self.wire) / mib(self.application) - 1.0) * 100.0
    }

    fn cells(&self) -> [String; HEAD.len()] {
        [
            self.transport.to_owned(),
            self.layers.clone(),
            grouped(self.application),
            grouped(self.mux),
            grouped(self.tls),
            grouped(self.wire),
            format!("{:.2} %", self.overhead()),
            format!("{:.1} ms", self.handshake_ms),
            format!("{:.0} MiB/s", self.mib_per_s),
            match self.cuts {
                0 => "-".to_owned(),
                n => format!("{n}, {:.1} ms", self.without_ms),
            },
            if self.equal { "equal" } else { "DIFFERS" }.to_owned(),
        ]
    }
}

/// Digits in groups of three, for people.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[allow(clippy::cast_precision_loss)] // shown with three digits
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

const HEAD: [&str; 11] = [
    "transport",
    "layers",
    "application",
    "mux",
    "TLS",
    "wire",
    "overhead",
    "handshake",
    "throughput",
    "cut",
    "SHA-256",
];
/// As wide as a table may be.
const WIDTH: usize = 80;

/// A column a transport, as wide as it needs; its rows would not fit a terminal. Columns that do not fit beside the others stand below
/// them.
pub(super) fn render(rows: &[Row]) -> String {
    let head = HEAD.iter().map(|word| word.len()).max().unwrap_or(0);
    let mut parts: Vec<(usize, Vec<Column>)> = Vec::new();
    for column in rows.iter().map(Column::of) {
        let own = column.width + GAP.len();
        match parts.last_mut() {
            Some((width, columns)) if *width + own <= WIDTH => {
                *width += own;
                columns.push(column);
            }
            _ => parts.push((head + own, vec![column])),
        }
    }
    let parts = parts.iter().map(|(_, columns)| part(columns, head));
    parts.collect::<Vec<_>>().join("\n")
}

const GAP: &str = "  ";

struct Column {
    cells: [String; HEAD.len()],
    width: usize,
}

impl Column {
    fn of(row: &Row) -> Self {
        let cells = row.cells();
        let width = cells.iter().map(String::len).max().unwrap_or(0);
        Self { cells, width }
    }
}

fn part(columns: &[Column], head: usize) -> String {
    let mut text = String::new();
    for (line, word) in HEAD.iter().enumerate() {
        let _ = write!(text, "{word:head$}");
        for Column { cells, width } in columns {
            let cell = cells.get(line).map_or("", String::as_str);
            let _ = write!(text, "{GAP}{cell:>width$}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |transport, layers: &str, times: u64| Row {
            transport,
            layers: layers.to_owned(),
            application: 1_048_576 * times,
            mux: 1_050_000 * times,
            tls: 1_055_000 * times,
            wire: 1_055_000 * times,
            handshake_ms: 1.25,
            mib_per_s: 100.0,
            cuts: 1,
            without_ms: 1234.5,
            equal: true,
        };
        // The longest that there are, at the largest size that there is.
        let text = render(&[
            row("TCP", "mux+tls+tcp", 12 * 1024),
            row("WebSocket", "mux+tls+ws", 12 * 1024),
            row("Unix socket", "mux+tls+unix", 12 * 1024),
            row("subprocess", "mux+tls+exec", 12 * 1024),
            row("serial line", "mux+tls+link+serial", 12 * 1024),
        ]);
        let parts: Vec<_> = text.split("\n\n").collect();
        assert_eq!(parts.len(), 2, "{text}");
        for part in parts {
            let ends: Vec<_> = part.lines().map(str::len).collect();
            let first = ends[0];
            assert!(ends.iter().all(|end| *end == first), "{text}");
            assert!(first <= WIDTH, "{text}");
        }
        assert!(text.contains("0.61 %"), "{text}");
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
