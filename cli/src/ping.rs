//! `cepa ping`: how long a peer takes to answer inside a session, as ping(8) shows it.
//!
//! The mux of any yamux peer answers a ping, so this needs nothing of the other end. One is sent when the one before has
//! been answered and its interval is over: a slow line has no queue of them.

use std::fmt::Write as _;
use std::time::Duration;

use cepa::identity::KnownPeer;
use cepa::session::Session;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::args;
use crate::connection::Connected;
use crate::exit::{self, Code, Failure, say};
use crate::signal::Signals;
use crate::{folder, id};

pub(crate) async fn run(args: args::Ping) -> Result<(), Failure> {
    let identity = id::load(&args.looking.identity)?;
    let mut signals = Signals::watch();
    let connection = tokio::select! {
        connection = Connected::to_look(&args.address, &args.looking, &identity) => connection?,
        signal = signals.ended_by() => return Err(Failure::by_signal(signal)),
    };
    let session = &connection.session;
    if args.looking.trust.trust.is_some() {
        say(format_args!("peer {} (not verified)", session.peer().id()));
    }
    let name = name(session);
    if !args.json {
        exit::print(&format!("cepa ping {name}\n"))?;
    }
    let mut times = Times::default();
    let started = Instant::now();
    let ended = tokio::select! {
        ended = measure(session, &args, &mut times) => Some(ended),
        _ = signals.ended_by() => None,
    };
    let passed = started.elapsed();
    exit::print(&if args.json {
        times.json(passed)
    } else {
        times.text(&name, passed)
    })?;
    match ended {
        Some(Err(Some(failure))) => Err(failure),
        Some(Err(None)) => {
            let lost = connection.lost().await;
            Err(lost.unwrap_or_else(|| Failure::new(Code::Lost, "the session has ended")))
        }
        _ => {
            connection.close().await;
            if times.all.is_empty() {
                let why = "the peer did not answer; is the line alive? See `cepa explain ADDR`";
                return Err(Failure::new(Code::Lost, why));
            }
            Ok(())
        }
    }
}

/// The peer, by the first name that it has here.
fn name(session: &Session) -> String {
    let peer = session.peer().id();
    let known = folder::known_as(peer);
    match known.first().map(KnownPeer::name) {
        Some(name) => format!("{name} ({peer})"),
        None => peer.to_string(),
    }
}

/// Until there are as many as were asked for. Without a failure in its error, the session has ended.
async fn measure(
    session: &Session,
    args: &args::Ping,
    times: &mut Times,
) -> Result<(), Option<Failure>> {
    let mut pace = interval(args.interval);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while args.count.is_none_or(|count| times.sent < count) {
        pace.tick().await;
        times.sent += 1;
        let Ok(time) = session.ping().await else {
            return Err(None);
        };
        times.all.push(time);
        let (seq, time) = (times.sent, milliseconds(time));
        let is_read = exit::print_on(&if args.json {
            format!("{}\n", json!({ "seq": seq, "ms": time }))
        } else {
            format!("seq={seq} time={time} ms\n")
        });
        if !is_read.map_err(Some)? {
            break;
        }
    }
    Ok(())
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// What was measured.
#[derive(Debug, Default)]
struct Times {
    sent: u64,
    all: Samples,
}

/// The sums of all, so that a ping that runs for weeks takes no more memory.
#[derive(Debug, Default)]
struct Samples {
    count: u64,
    least: Duration,
    most: Duration,
    sum: f64,
    squares: f64,
}

impl Samples {
    fn push(&mut self, time: Duration) {
        self.least = if self.count == 0 {
            time
        } else {
            self.least.min(time)
        };
        self.most = self.most.max(time);
        self.count += 1;
        let ms = time.as_secs_f64() * 1000.0;
        self.sum += ms;
        self.squares += ms * ms;
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Mean and standard deviation, in milliseconds to the microsecond.
    // A count of pings is far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    fn mean(&self) -> (f64, f64) {
        let n = self.count.max(1) as f64;
        let mean = self.sum / n;
        let deviation = (self.squares / n - mean * mean).max(0.0).sqrt();
        let round = |ms: f64| (ms * 1000.0).round() / 1000.0;
        (round(mean), round(deviation))
    }
}

impl Times {
    fn text(&self, name: &str, passed: Duration) -> String {
        let mut out = format!(
            "\n--- {name} ---\n{} sent, {} answered, time {} ms\n",
            self.sent,
            self.all.count,
            passed.as_millis()
        );
        if !self.all.is_empty() {
            let (mean, deviation) = self.all.mean();
            let _ = writeln!(
                out,
                "round trip min/avg/max/mdev = {}/{mean}/{}/{deviation} ms",
                milliseconds(self.all.least),
                milliseconds(self.all.most),
            );
        }
        out
    }

    fn json(&self, passed: Duration) -> String {
        let mut summary = json!({
            "sent": self.sent,
            "answered": self.all.count,
            "seconds": passed.as_secs_f64(),
        });
        if let (Some(object), false) = (summary.as_object_mut(), self.all.is_empty()) {
            let (mean, deviation) = self.all.mean();
            for (name, value) in [
                ("min_ms", milliseconds(self.all.least)),
                ("avg_ms", mean),
                ("max_ms", milliseconds(self.all.most)),
                ("mdev_ms", deviation),
            ] {
                object.insert(name.to_owned(), value.into());
            }
        }
        format!("{summary}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_shortest_mean_and_longest_and_what_was_not_answered() {
        let mut times = Times::default();
        assert_eq!(
            times.text("p", Duration::ZERO),
            "\n--- p ---\n0 sent, 0 answered, time 0 ms\n"
        );
        for ms in [3, 1, 2] {
            times.all.push(Duration::from_millis(ms));
        }
        times.sent = 4;
        assert_eq!(
            times.text("p", Duration::from_millis(3007)),
            "\n--- p ---\n4 sent, 3 answered, time 3007 ms\n\
             round trip min/avg/max/mdev = 1/2/3/0.816 ms\n"
        );
        let summary: serde_json::Value =
            serde_json::from_str(&times.json(Duration::from_millis(1500))).unwrap();
        assert_eq!(
            summary,
            json!({
                "sent": 4, "answered": 3, "seconds": 1.5,
                "min_ms": 1.0, "avg_ms": 2.0, "max_ms": 3.0, "mdev_ms": 0.816,
            })
        );
    }
}
