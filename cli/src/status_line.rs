//! The last line of a terminal while `cepa forward` runs: bytes each way, their rate, and how many connections are open.
//!
//! `stderr.rs` has the line cleared before it writes another one, and shows it again behind it. Here is what stands in it; it is made twice
//! a second, and written only where it has changed. Nobody but a person at a terminal gets one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::columns::{count, size};
use crate::connection::Connected;
use crate::say;
use crate::stack;
use crate::standing::Current;
use crate::stderr::{self, columns};

/// How often it is drawn.
const PACE: Duration = Duration::from_millis(500);

/// How much of a rate is what it was before the last piece of time: about two seconds count.
const KEPT: f64 = 0.7;

/// A status line; gone when this is dropped.
pub(crate) struct StatusLine(Option<JoinHandle<()>>);

impl StatusLine {
    /// Shows one, where somebody sits at a terminal: of the sessions that stand, one after the other, and of the connections that have
    /// a place in `room`.
    pub(crate) fn show(standing: Current, room: Arc<Semaphore>) -> Self {
        Self(say::has_status_line().then(|| tokio::spawn(draw(standing, room))))
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            stderr::status(String::new());
        }
    }
}

async fn draw(mut standing: Current, room: Arc<Semaphore>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sums = Sums::default();
    let (mut rates, mut before) = (Rates::default(), (Instant::now(), (0, 0)));
    let mut shown = String::new();
    loop {
        pace.tick().await;
        let now = standing.borrow_and_update().clone();
        let bytes = sums.of(now.as_ref());
        let passed = before.0.elapsed();
        rates.count(bytes.0 - before.1.0, bytes.1 - before.1.1, passed);
        before = (Instant::now(), bytes);
        let open = stack::connections().saturating_sub(room.available_permits());
        let is_connected = now.is_some_and(|it| it.session.path().is_some());
        let line = line(bytes, is_connected.then_some(rates), open, columns());
        if line != shown {
            stderr::status(line.clone());
            shown = line;
        }
    }
}

/// What has passed in all sessions: one that takes nothing more may go on beside the next.
#[derive(Default)]
struct Sums {
    all: Vec<(Weak<Connected>, (u64, u64))>,
    /// In those that are over.
    over: (u64, u64),
}

impl Sums {
    fn of(&mut self, now: Option<&Arc<Connected>>) -> (u64, u64) {
        if let Some(now) = now {
            let now = Arc::downgrade(now);
            if !self.all.iter().any(|(it, _)| it.ptr_eq(&now)) {
                self.all.push((now, (0, 0)));
            }
        }
        let mut sum = self.over;
        for (session, bytes) in &mut self.all {
            if let Some(it) = session.upgrade() {
                let stats = it.session.mux_stats();
                *bytes = (stats.data_out, stats.data_in);
            }
            sum = (sum.0 + bytes.0, sum.1 + bytes.1);
        }
        let over = &mut self.over;
        self.all.retain(|(session, bytes)| {
            let stands = session.strong_count() > 0;
            if !stands {
                *over = (over.0 + bytes.0, over.1 + bytes.1);
            }
            stands
        });
        sum
    }
}

/// Bytes a second, out and in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates(f64, f64);

impl Rates {
    // A count of bytes is far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    fn count(&mut self, out: u64, inward: u64, passed: Duration) {
        let seconds = passed.as_secs_f64().max(0.001);
        for (rate, bytes) in [(&mut self.0, out), (&mut self.1, inward)] {
            *rate = *rate * KEPT + bytes as f64 / seconds * (1.0 - KEPT);
            if *rate < 1.0 {
                *rate = 0.0;
            }
        }
    }
}

fn line(bytes: (u64, u64), rates: Option<Rates>, open: usize, columns: usize) -> String {
    let open = count(open as u64, "connection");
    #[allow(clippy::cast_precision_loss)]
    let (out, inward) = (size(bytes.0 as f64), size(bytes.1 as f64));
    let line = match rates {
        Some(Rates(to, from)) => format!(
            "out {out}, {}/s; in {inward}, {}/s; {open}",
            size(to),
            size(from)
        ),
        None => format!("out {out}; in {inward}; {open}; reconnecting"),
    };
    line.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_line_fits_and_a_narrow_terminal_gets_its_beginning() {
        let most = (999 << 40, 999 << 40);
        let rates = Some(Rates(999e9, 999e9));
        let longest = line(most, rates, 99_999, 79);
        assert!(
            longest.ends_with("connections") && longest.len() <= 79,
            "{longest}"
        );
        assert_eq!(line((1, 2048), None, 1, 14), "out 1 B; in 2.");
        assert_eq!(
            line((1, 2048), None, 1, 79),
            "out 1 B; in 2.0 KiB; 1 connection; reconnecting"
        );
    }

    #[test]
    fn a_rate_follows_what_passes_and_ends_at_nothing() {
        let mut rates = Rates::default();
        for _ in 0..20 {
            rates.count(500, 0, Duration::from_millis(500));
        }
        assert!((990.0..=1000.0).contains(&rates.0), "{rates:?}");
        for _ in 0..40 {
            rates.count(0, 0, Duration::from_millis(500));
        }
        assert_eq!(rates, Rates(0.0, 0.0));
    }
}
