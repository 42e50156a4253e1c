//! W5: how long 64 bytes take there and back while a bulk substream fills the path.
//!
//! Probes go one at a time, with gaps that vary by half, or they would fall in step with the records. Bulk is a known
//! pattern, and a byte that is not the right one ends the run. All figures are of the time after a warm-up, in which
//! the queues of the path and of the peer fill.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::pingpong::{MESSAGE, echo};
use super::shared::{Values, on_workers, pair};
use crate::Outcome;
use crate::link::{Path, Pongs};
use crate::measure::{median, number, quantile};
use crate::peers::{Between, Credentials, Io, Joined, Peer, join};

/// One write of the application, and one read.
const WRITE: usize = 64 << 10;

/// Bulk repeats after so many bytes; a prime, so that no record or buffer is as long.
const PATTERN: usize = 251;

#[derive(Args, Debug, Serialize)]
pub(crate) struct Loopback {
    #[arg(long)]
    peer: Peer,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Mean time between an answer and the next probe, in milliseconds
    #[arg(long, default_value_t = 2.0)]
    gap_ms: f64,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

impl Loopback {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let peer = self.peer;
        let plan = Plan::new(self.warm_up, self.seconds, self.gap_ms);
        on_workers(self.workers, async move {
            let joined = join(peer, Between::Loopback, 3, &Credentials::new()?).await?;
            let seen = plan.run(joined).await?;
            let mut values = seen.trips();
            let mib = seen.bulk / f64::from(1 << 20);
            values.push(("mib_per_second", mib / plan.time.as_secs_f64()));
            Ok(values)
        })
    }
}

/// What happens to the answers of pings on the way back to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PongMode {
    /// Nothing
    Pass,
    /// They come 200 ms late (without TLS, since nobody can see them under it)
    Late,
    /// They never come (without TLS)
    Never,
}

#[derive(Args, Debug, Serialize)]
pub(crate) struct Slow {
    #[arg(long)]
    peer: Peer,
    /// Bytes a second that the path carries each way
    #[arg(long, default_value_t = 11_520.0)]
    rate: f64,
    /// Bytes of the path's buffer each way
    #[arg(long, default_value_t = 16 << 10)]
    buffer: usize,
    /// Round trip of the empty path, in milliseconds
    #[arg(long, default_value_t = 0)]
    rtt_ms: u64,
    /// Bulk goes both ways
    #[arg(long)]
    both: bool,
    /// The rate falls to a tenth after a third of the time, and is back after two thirds
    #[arg(long)]
    change: bool,
    #[arg(long, value_enum, default_value_t = PongMode::Pass)]
    pongs: PongMode,
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    #[arg(long, default_value_t = 10.0)]
    warm_up: f64,
    /// Mean time between an answer and the next probe, in milliseconds
    #[arg(long, default_value_t = 200.0)]
    gap_ms: f64,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

impl Slow {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, rate, change) = (self.peer, self.rate, self.change);
        let path = Path {
            rate,
            buffer: self.buffer,
            delay: Duration::from_millis(self.rtt_ms) / 2,
        };
        let between = match self.pongs {
            PongMode::Pass => Between::Link(path),
            PongMode::Late => Between::Plain(path, Pongs::Late(Duration::from_millis(200))),
            PongMode::Never => Between::Plain(path, Pongs::Never),
        };
        let rtt_ms = Duration::from_millis(self.rtt_ms).as_secs_f64() * 1e3;
        let mut plan = Plan::new(self.warm_up, self.seconds, self.gap_ms);
        plan.both = self.both;
        plan.rate = rate;
        plan.change = change;
        on_workers(self.workers, async move {
            let joined = join(peer, between, 3, &Credentials::new()?).await?;
            let seen = plan.run(joined).await?;
            let third = plan.time.as_secs_f64() / 3.0;
            let carried = if change { 2.1 * third } else { 3.0 * third } * rate;
            let mut values = seen.trips();
            values.push(("bulk_share", seen.bulk / carried));
            if plan.both {
                values.push(("back_share", seen.back / carried));
                values.push(("lesser_share", seen.bulk.min(seen.back) / carried));
            }
            values.push(("stall_ms", seen.stall * 1e3));
            if rtt_ms > 0.0 {
                values.push(("stall_rtt", seen.stall * 1e3 / rtt_ms));
            }
            Ok(values)
        })
    }
}

#[derive(Clone, Copy)]
struct Plan {
    warm_up: Duration,
    time: Duration,
    gap_ms: f64,
    both: bool,
    rate: f64,
    change: bool,
}

struct Seen {
    /// Round trips, in seconds.
    trips: Vec<f64>,
    /// Bytes of bulk that arrived, and of bulk the other way.
    bulk: f64,
    back: f64,
    /// Longest time without a byte of bulk, in seconds.
    stall: f64,
}

impl Seen {
    fn trips(&self) -> Values {
        vec![
            ("p50_ms", median(&self.trips) * 1e3),
            ("p99_ms", quantile(&self.trips, 0.99) * 1e3),
            ("max_ms", quantile(&self.trips, 1.0) * 1e3),
            ("probes", number(self.trips.len())),
        ]
    }
}

impl Plan {
    fn new(warm_up: f64, seconds: f64, gap_ms: f64) -> Self {
        Self {
            warm_up: Duration::from_secs_f64(warm_up),
            time: Duration::from_secs_f64(seconds),
            gap_ms,
            both: false,
            rate: f64::NAN,
            change: false,
        }
    }

    async fn run(self, mut joined: Joined) -> Outcome<Seen> {
        let (near, far) = pair(&mut joined).await?;
        let (there, probes) = (Arc::new(Meter::default()), Arc::new(Probes::default()));
        let back = Arc::new(Meter::default());
        let mut tasks = JoinSet::new();
        let other = if self.both {
            Some(pair(&mut joined).await?)
        } else {
            None
        };
        let (asker, answerer) = pair(&mut joined).await?;
        tasks.spawn(send(near));
        tasks.spawn(receive(far, Arc::clone(&there)));
        if let Some((near, far)) = other {
            tasks.spawn(send(far));
            tasks.spawn(receive(near, Arc::clone(&back)));
        }
        tasks.spawn(echo(answerer));
        tasks.spawn(probe(asker, self.gap_ms, Arc::clone(&probes)));

        let measured = async {
            tokio::time::sleep(self.warm_up).await;
            there.reset();
            back.reset();
            probes.reset();
            if self.change {
                let knob = joined
                    .knob
                    .as_ref()
                    .ok_or("only a link can change its rate")?;
                for rate in [self.rate, self.rate / 10.0, self.rate] {
                    knob.set_rate(rate);
                    tokio::time::sleep(self.time / 3).await;
                }
            } else {
                tokio::time::sleep(self.time).await;
            }
            let (bulk, stall) = there.read();
            Outcome::Ok(Seen {
                trips: probes.trips(),
                bulk,
                back: back.read().0,
                stall,
            })
        };
        tokio::select! {
            seen = measured => seen,
            // None of them ends unless something is wrong.
            Some(ended) = tasks.join_next() => Err(match ended? {
                Ok(()) => "a stream ended while it was in use".into(),
                Err(error) => error,
            }),
        }
    }
}

/// Bytes that arrived, and the longest time in which none did.
#[derive(Default)]
struct Meter(Mutex<Option<Arrivals>>);

struct Arrivals {
    bytes: usize,
    last: Instant,
    longest: Duration,
}

impl Meter {
    fn arrivals(&self) -> MutexGuard<'_, Option<Arrivals>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) {
        *self.arrivals() = Some(Arrivals {
            bytes: 0,
            last: Instant::now(),
            longest: Duration::ZERO,
        });
    }

    fn add(&self, bytes: usize) {
        if let Some(arrivals) = &mut *self.arrivals() {
            arrivals.bytes += bytes;
            let now = Instant::now();
            arrivals.longest = arrivals.longest.max(now - arrivals.last);
            arrivals.last = now;
        }
    }

    fn read(&self) -> (f64, f64) {
        self.add(0);
        let arrivals = self.arrivals();
        arrivals.as_ref().map_or((0.0, f64::NAN), |arrivals| {
            (number(arrivals.bytes), arrivals.longest.as_secs_f64())
        })
    }
}

/// The round trips that ended since the warm-up, and when the present one began.
#[derive(Default)]
struct Probes(Mutex<(Vec<f64>, Option<Instant>)>);

impl Probes {
    fn inner(&self) -> MutexGuard<'_, (Vec<f64>, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) {
        self.inner().0.clear();
    }

    fn begin(&self) {
        self.inner().1 = Some(Instant::now());
    }

    fn end(&self) {
        let (trips, begun) = &mut *self.inner();
        trips.extend(begun.take().map(|begun| begun.elapsed().as_secs_f64()));
    }

    /// A probe that still waits counts with its wait so far, where that is longer than most: else a peer that
    /// answers no more would look as good as it was before.
    fn trips(&self) -> Vec<f64> {
        let (mut trips, begun) = self.inner().clone();
        let waits = begun.map(|begun| begun.elapsed().as_secs_f64());
        let usual = median(&trips);
        trips.extend(waits.filter(|wait| usual.is_nan() || *wait > usual));
        trips
    }
}

async fn send(mut io: Io) -> Outcome<()> {
    let pattern = pattern();
    let mut at = 0;
    loop {
        io.write_all(&pattern[at..at + WRITE]).await?;
        at = (at + WRITE) % PATTERN;
    }
}

async fn receive(mut io: Io, meter: Arc<Meter>) -> Outcome<()> {
    let pattern = pattern();
    let mut buffer = vec![0; WRITE];
    let mut at = 0;
    loop {
        let n = io.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        meter.add(n);
        if buffer[..n] != pattern[at..at + n] {
            return Err("bulk did not arrive as it was sent".into());
        }
        at = (at + n) % PATTERN;
    }
}

fn pattern() -> Vec<u8> {
    (0..=u8::MAX)
        .take(PATTERN)
        .cycle()
        .take(WRITE + PATTERN)
        .collect()
}

async fn probe(mut io: Io, gap_ms: f64, probes: Arc<Probes>) -> Outcome<()> {
    let mut answer = [0; MESSAGE];
    for i in (0..=u8::MAX).cycle() {
        let gap = gap_ms * (0.5 + fastrand::f64());
        tokio::time::sleep(Duration::from_secs_f64(gap / 1e3)).await;
        let message = [i; MESSAGE];
        probes.begin();
        io.write_all(&message).await?;
        io.flush().await?;
        io.read_exact(&mut answer).await?;
        probes.end();
        if answer != message {
            return Err("a probe came back as something else".into());
        }
    }
    Ok(())
}
