//! The library's numbers while a command runs that others look at, for `cepa status --json` and `--metrics`: the latest value of each counter
//! and gauge, and of a histogram how many values there were and their sum.
//!
//! The library's labels come from short lists, so there are some dozens of numbers at most, and a peer makes none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder,
    SharedString, Unit,
};
use serde_json::{Map, Value, json};

/// A number that lives as long as the process.
enum Number {
    Counter(Arc<AtomicU64>),
    /// The bits of a float.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Summary>),
}

#[derive(Default)]
struct Summary {
    count: AtomicU64,
    /// The bits of a float.
    sum: AtomicU64,
}

impl HistogramFn for Summary {
    fn record(&self, value: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum.increment(value);
    }
}

/// By name and labels, as they are shown.
static NUMBERS: Mutex<BTreeMap<String, Number>> = Mutex::new(BTreeMap::new());

fn numbers() -> MutexGuard<'static, BTreeMap<String, Number>> {
    // The map is whole after every statement.
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `name{label="value"}`, as Prometheus writes it.
fn shown(key: &Key) -> String {
    let labels = key.labels();
    let labels: Vec<String> = labels
        .map(|label| format!("{}=\"{}\"", label.key(), label.value()))
        .collect();
    if labels.is_empty() {
        key.name().to_owned()
    } else {
        format!("{}{{{}}}", key.name(), labels.join(","))
    }
}

struct Numbers;

impl Recorder for Numbers {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        describe(&name, &text);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        describe(&name, &text);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        describe(&name, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let new = || Number::Counter(Arc::default());
        match numbers().entry(shown(key)).or_insert_with(new) {
            Number::Counter(it) => Counter::from_arc(Arc::clone(it)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let new = || Number::Gauge(Arc::default());
        match numbers().entry(shown(key)).or_insert_with(new) {
            Number::Gauge(it) => Gauge::from_arc(Arc::clone(it)),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let new = || Number::Histogram(Arc::default());
        match numbers().entry(shown(key)).or_insert_with(new) {
            Number::Histogram(it) => Histogram::from_arc(Arc::clone(it)),
            _ => Histogram::noop(),
        }
    }
}

/// Counts from now on.
pub(crate) fn start() {
    // Only a second recorder in this process would fail.
    let _ = metrics::set_global_recorder(Numbers);
    cepa::describe_metrics();
    // What has not happened yet is zero, and not unknown: a rate can be made of it from the first time on.
    for (name, labels) in FROM_THE_FIRST {
        let labels: Vec<_> = labels
            .iter()
            .map(|&(key, value)| Label::new(key, value))
            .collect();
        metrics::counter!(*name, labels).increment(0);
    }
    for name in ["cepa_sessions", "cepa_substreams"] {
        metrics::gauge!(name).increment(0.0);
    }
}

/// Counters that stand on the page before they move.
const FROM_THE_FIRST: &[(&str, &[(&str, &str)])] = &[
    ("cepa_dials_total", &[("outcome", "failed")]),
    (
        "cepa_handshakes_total",
        &[("side", "server"), ("outcome", "ok")],
    ),
    (
        "cepa_handshakes_total",
        &[("side", "server"), ("outcome", "failed")],
    ),
    ("cepa_opens_total", &[("outcome", "failed")]),
    ("cepa_opens_total", &[("outcome", "dropped")]),
    ("cepa_requests_total", &[("outcome", "accepted")]),
    ("cepa_requests_total", &[("outcome", "refused")]),
    ("cepa_path_changes_total", &[("change", "lost")]),
    ("cepa_path_changes_total", &[("change", "resumed")]),
    ("cepa_path_changes_total", &[("change", "migrated")]),
    ("cepa_sent_bytes_total", &[]),
    ("cepa_received_bytes_total", &[]),
    ("cepa_handler_failures_total", &[]),
];

/// What each number means, by its name.
static DESCRIBED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

fn described() -> MutexGuard<'static, BTreeMap<String, String>> {
    DESCRIBED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(name: &KeyName, text: &SharedString) {
    let (name, text) = (name.as_str().to_owned(), text.to_string());
    described().insert(name, text);
}

/// A kind of number, as Prometheus has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    /// How many values there were, and their sum.
    Summary,
}

/// What stands above the values of a number, in Prometheus's text.
pub(crate) fn put_head(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Summary => "summary",
    };
    // A backslash and a line end are the only two characters that would have to be escaped, and none of our texts has one.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// All of them now, in Prometheus's text.
pub(crate) fn put(out: &mut String) {
    let float = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
    let (all, described) = (numbers(), described());
    // The same name with other labels may not stand beside it: `a_b` comes between `a` and `a{`.
    let mut families: BTreeMap<&str, Vec<(&str, &Number)>> = BTreeMap::new();
    for (shown, number) in all.iter() {
        let at = shown.find('{').unwrap_or(shown.len());
        let (name, labels) = shown.split_at(at);
        families.entry(name).or_default().push((labels, number));
    }
    for (name, samples) in families {
        let kind = match samples.first() {
            Some((_, Number::Counter(_))) => Kind::Counter,
            Some((_, Number::Histogram(_))) => Kind::Summary,
            _ => Kind::Gauge,
        };
        let help = described.get(name).map_or("", String::as_str);
        put_head(out, name, kind, help);
        for (labels, number) in samples {
            let _ = match number {
                Number::Counter(it) => {
                    writeln!(out, "{name}{labels} {}", it.load(Ordering::Relaxed))
                }
                Number::Gauge(it) => writeln!(out, "{name}{labels} {}", float(it)),
                Number::Histogram(it) => writeln!(
                    out,
                    "{name}_sum{labels} {}\n{name}_count{labels} {}",
                    float(&it.sum),
                    it.count.load(Ordering::Relaxed)
                ),
            };
        }
    }
}

/// All of them now.
pub(crate) fn values() -> Value {
    let float = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
    let all = numbers();
    let all = all.iter().map(|(name, number)| {
        let value = match number {
            Number::Counter(it) => it.load(Ordering::Relaxed).into(),
            Number::Gauge(it) => float(it).into(),
            Number::Histogram(it) => {
                json!({ "count": it.count.load(Ordering::Relaxed), "sum": float(&it.sum) })
            }
        };
        (name.clone(), value)
    });
    Value::Object(all.collect::<Map<_, _>>())
}
