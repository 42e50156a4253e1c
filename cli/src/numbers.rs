//! The library's numbers while a node runs, for `cepa mesh status --json`: the latest value of each counter and gauge, and of a
//! histogram how many values there were and their sum.
//!
//! The library's labels come from short lists, so there are some dozens of numbers at most, and a peer makes none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
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
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

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
