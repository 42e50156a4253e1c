//! W3: 64 bytes there and back, again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::shared::{Values, on_workers, pair};
use crate::Outcome;
use crate::measure::{Stopwatch, median, number, quantile};
use crate::peers::{Between, Credentials, Io, Peer, join};

/// One message.
pub(crate) const MESSAGE: usize = 64;

const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Args, Debug, Serialize)]
pub(crate) struct Pingpong {
    #[arg(long)]
    peer: Peer,
    /// Substreams that play at once
    #[arg(long, default_value_t = 1)]
    streams: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

impl Pingpong {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, streams) = (self.peer, self.streams);
        let time = Duration::from_secs_f64(self.seconds);
        on_workers(self.workers, async move {
            let mut joined = join(peer, Between::Loopback, streams, &Credentials::new()?).await?;
            let mut pairs = Vec::new();
            for _ in 0..streams {
                pairs.push(pair(&mut joined).await?);
            }
            play(pairs, time).await
        })
    }
}

/// Plays on all pairs for so long.
pub(crate) async fn play(pairs: Vec<(Io, Io)>, time: Duration) -> Outcome<Values> {
    let counting = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let mut players = JoinSet::new();
    for (near, far) in pairs {
        tokio::spawn(echo(far));
        players.spawn(ask(near, Arc::clone(&counting), Arc::clone(&over)));
    }
    tokio::time::sleep(WARM_UP).await;
    let watch = Stopwatch::start()?;
    counting.store(true, Ordering::Relaxed);
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let run = watch.stop()?;
    let mut trips = Vec::new();
    while let Some(player) = players.join_next().await {
        trips.extend(player??);
    }
    Ok(vec![
        ("p50_us", median(&trips) * 1e6),
        ("p99_us", quantile(&trips, 0.99) * 1e6),
        ("requests_per_second", number(trips.len()) / run.seconds),
        (
            "cpu_us_per_request",
            run.cpu_seconds / number(trips.len()) * 1e6,
        ),
    ])
}

async fn ask(mut io: Io, counting: Arc<AtomicBool>, over: Arc<AtomicBool>) -> Outcome<Vec<f64>> {
    let mut trips = Vec::new();
    let mut answer = [0; MESSAGE];
    loop {
        let begun = Instant::now();
        io.write_all(&[7; MESSAGE]).await?;
        io.flush().await?;
        io.read_exact(&mut answer).await?;
        if over.load(Ordering::Relaxed) {
            return Ok(trips);
        }
        if counting.load(Ordering::Relaxed) {
            trips.push(begun.elapsed().as_secs_f64());
        }
    }
}

/// Answers each message with itself, until the stream ends.
pub(crate) async fn echo(mut io: Io) -> Outcome<()> {
    let mut message = [0; MESSAGE];
    loop {
        io.read_exact(&mut message).await?;
        io.write_all(&message).await?;
        io.flush().await?;
    }
}
