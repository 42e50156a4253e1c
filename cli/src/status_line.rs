//! The last line of a terminal while `cepa forward` runs: bytes each way, their rate, and how many connections are open.
//!
//! `stderr.rs` has the line cleared before it writes another one, and shows it again behind it. Here is what stands in it; it is made twice
//! a second, and written only where it has changed. Nobody but a person at a terminal gets one.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::columns::{count, size};
use crate::connection::Connected;
use crate::rate::Rate;
use crate::say;
use crate::stack;
use crate::standing::Current;
use crate::stderr::{self, columns};

/// How often it is drawn.
const PACE: Duration = Duration::from_millis(500);

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
    let (mut to, mut from) = (Rate::default(), Rate::default());
    let mut shown = String::new();
    loop {
        pace.tick().await;
        let now = standing.borrow_and_update().clone();
        let bytes = sums.of(now.as_ref());
        let moment = Instant::now();
        to.count(moment, bytes.0);
        from.count(moment, bytes.1);
        let open = stack::connections().saturating_sub(room.available_permits());
        let is_connected = now.is_some_and(|it| it.session.path().is_some());
        let rates = is_connected.then(|| (to.a_second(), from.a_second()));
        // Behind a shell's prompt (`&`) the terminal is somebody else's.
        let line = if stderr::is_in_front() {
            line(bytes, rates, open, columns())
        } else {
            String::new()
        };
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

/// Bytes out and in, with their rates if they are known, while there is a connection.
fn line(
    bytes: (u64, u64),
    rates: Option<(Option<f64>, Option<f64>)>,
    open: usize,
    columns: usize,
) -> String {
    let open = count(open as u64, "connection");
    #[allow(clippy::cast_precision_loss)]
    let (out, inward) = (size(bytes.0 as f64), size(bytes.1 as f64));
    let line = match rates {
        Some((to, from)) => {
            let a_second = |rate: Option<f64>| {
                rate.map_or_else(String::new, |rate| format!(", {}/s", size(rate)))
            };
            format!(
                "out {out}{}; in {inward}{}; {open}",
                a_second(to),
                a_second(from)
            )
        }
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
        let rates = Some((Some(999e9), Some(999e9)));
        let longest = line(most, rates, 99_999, 79);
        assert!(
            longest.ends_with("connections") && longest.len() <= 79,
            "{longest}"
        );
        assert_eq!(
            line((1, 2048), Some((None, Some(5.0))), 1, 79),
            "out 1 B; in 2.0 KiB, 5 B/s; 1 connection"
        );
        assert_eq!(line((1, 2048), None, 1, 14), "out 1 B; in 2.");
        assert_eq!(
            line((1, 2048), None, 1, 79),
            "out 1 B; in 2.0 KiB; 1 connection; reconnecting"
        );
    }
}
