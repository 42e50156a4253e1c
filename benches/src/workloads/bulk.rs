//! W1, W2 and W8: bulk one way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::shared::{Values, on_workers, pair};
use crate::Outcome;
use crate::link::Path;
use crate::measure::{Run, Stopwatch};
use crate::peers::{Between, Credentials, Io, Peer, Streams, join};

/// One write of the application, and one read.
const WRITE: usize = 64 << 10;

/// Sent before anything is measured, so that windows have grown and memory is warm.
pub(super) const WARM_UP: u64 = 32 << 20;

#[derive(Args, Debug, Serialize)]
pub(crate) struct Bulk {
    #[arg(long)]
    peer: Peer,
    /// MiB to carry
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

impl Bulk {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, bytes) = (self.peer, self.mib << 20);
        on_workers(self.workers, async move {
            let mut joined = join(peer, Between::Loopback, 1, &Credentials::new()?).await?;
            let pairs = vec![pair(&mut joined).await?];
            let pairs = carry(pairs, WARM_UP).await?.pairs;
            Ok(rates(bytes, &carry(pairs, bytes).await?.run))
        })
    }
}

#[derive(Args, Debug, Serialize)]
pub(crate) struct Share {
    #[arg(long)]
    peer: Peer,
    /// MiB to carry, all substreams together
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// Bytes that cepa queues for one substream; its default, unless given
    #[arg(long)]
    queue: Option<usize>,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

impl Share {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, streams, queue) = (self.peer, self.streams, self.queue);
        let share = (self.mib << 20) / streams as u64;
        on_workers(self.workers, async move {
            let many = Streams {
                count: streams,
                queue,
            };
            let mut joined = join(peer, Between::Loopback, many, &Credentials::new()?).await?;
            let mut pairs = Vec::new();
            for _ in 0..streams {
                pairs.push(pair(&mut joined).await?);
            }
            let pairs = carry(pairs, WARM_UP / streams as u64).await?.pairs;
            let carried = carry(pairs, share).await?;
            let mut values = rates(share * streams as u64, &carried.run);
            values.push(("least_to_most", carried.least_to_most));
            Ok(values)
        })
    }
}

#[derive(Args, Debug, Serialize)]
pub(crate) struct Far {
    #[arg(long)]
    peer: Peer,
    /// MiB to carry
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Bytes a second that the path carries
    #[arg(long, default_value_t = 125e6)]
    rate: f64,
    /// Bytes of the path's buffer
    #[arg(long, default_value_t = 1 << 20)]
    buffer: usize,
    /// Round trip of the empty path, in milliseconds
    #[arg(long, default_value_t = 50)]
    rtt_ms: u64,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

impl Far {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, bytes, rate) = (self.peer, self.mib << 20, self.rate);
        let path = Path {
            rate,
            buffer: self.buffer,
            delay: Duration::from_millis(self.rtt_ms) / 2,
        };
        on_workers(self.workers, async move {
            let mut joined = join(peer, Between::Link(path), 1, &Credentials::new()?).await?;
            // No warm-up: how fast a peer comes to use the path is part of what is measured.
            let pairs = vec![pair(&mut joined).await?];
            let run = carry(pairs, bytes).await?.run;
            let mut values = rates(bytes, &run);
            let share = mib(bytes) / (mib(1 << 20) * rate / f64::from(1 << 20) * run.seconds);
            values.push(("share", share));
            Ok(values)
        })
    }
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53 bytes
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(super) fn rates(bytes: u64, run: &Run) -> Values {
    vec![
        ("seconds", run.seconds),
        ("cpu_seconds", run.cpu_seconds),
        ("mib_per_second", mib(bytes) / run.seconds),
        (
            "cpu_ns_per_kib",
            run.cpu_seconds * 1e9 / (mib(bytes) * 1024.0),
        ),
    ]
}

pub(crate) struct Carried {
    pub(crate) run: Run,
    /// Of the bytes that streams had received when the first had all of them.
    least_to_most: f64,
    pub(super) pairs: Vec<(Io, Io)>,
}

/// Carries `share` bytes on each of `pairs` at once.
pub(crate) async fn carry(pairs: Vec<(Io, Io)>, share: u64) -> Outcome<Carried> {
    let counters: Arc<Vec<AtomicU64>> = Arc::new(pairs.iter().map(|_| AtomicU64::new(0)).collect());
    let watch = Stopwatch::start()?;
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    for (i, (near, far)) in pairs.into_iter().enumerate() {
        writers.spawn(async move { Outcome::Ok((i, write(near, share).await?)) });
        let counters = Arc::clone(&counters);
        readers.spawn(async move { Outcome::Ok((i, read(far, share, &counters[i]).await?)) });
    }
    let mut least_to_most = None;
    let mut far = Vec::new();
    while let Some(reader) = readers.join_next().await {
        far.push(reader??);
        if least_to_most.is_none() {
            let got = counters
                .iter()
                .map(|counter| counter.load(Ordering::Relaxed));
            let (least, most) = got.fold((u64::MAX, 0), |(least, most), n| {
                (least.min(n), most.max(n))
            });
            least_to_most = Some(mib(least) / mib(most));
        }
    }
    let run = watch.stop()?;
    let mut near = Vec::new();
    while let Some(writer) = writers.join_next().await {
        near.push(writer??);
    }
    near.sort_by_key(|(i, _)| *i);
    far.sort_by_key(|(i, _)| *i);
    Ok(Carried {
        run,
        least_to_most: least_to_most.unwrap_or(f64::NAN),
        pairs: near
            .into_iter()
            .zip(far)
            .map(|((_, near), (_, far))| (near, far))
            .collect(),
    })
}

async fn write(mut io: Io, bytes: u64) -> Outcome<Io> {
    let data = vec![0x5A; WRITE];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).map_or(WRITE, |left| left.min(WRITE));
        io.write_all(&data[..n]).await?;
        left -= n as u64;
    }
    io.flush().await?;
    Ok(io)
}

async fn read(mut io: Io, bytes: u64, counter: &AtomicU64) -> Outcome<Io> {
    let mut buffer = vec![0; WRITE];
    let mut got = 0;
    while got < bytes {
        let n = io.read(&mut buffer).await?;
        if n == 0 {
            return Err("the stream ended before all bytes had come".into());
        }
        got += n as u64;
        counter.store(got, Ordering::Relaxed);
    }
    Ok(io)
}
