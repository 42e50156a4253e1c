//! W4: substreams that live for one message: open, 64 bytes there and back, close.
//!
//! The one end writes the message and ends its direction, the other answers and ends its own; a stream is done when
//! the first end has read the answer and the end behind it. A connection of `tcp` or `tls` goes through its
//! handshakes each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::pingpong::MESSAGE;
use super::shared::{Values, on_workers};
use crate::Outcome;
use crate::measure::{Stopwatch, number};
use crate::peers::{Between, Credentials, Io, Opener, Peer, join};

const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Args, Debug, Serialize)]
pub(crate) struct Churn {
    #[arg(long)]
    peer: Peer,
    /// Substreams that are open at once
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Threads of the runtime that both ends share
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

impl Churn {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, in_flight) = (self.peer, self.in_flight);
        let time = Duration::from_secs_f64(self.seconds);
        on_workers(self.workers, async move {
            let joined = join(peer, Between::Loopback, in_flight, &Credentials::new()?).await?;
            let mut accepter = joined.accepter;
            tokio::spawn(async move {
                while let Ok(io) = accepter.accept().await {
                    tokio::spawn(answer(io));
                }
            });
            let done = Arc::new(AtomicU64::new(0));
            let over = Arc::new(AtomicBool::new(false));
            let mut askers = JoinSet::new();
            for _ in 0..in_flight {
                let opener = joined.opener.clone();
                askers.spawn(ask(opener, Arc::clone(&done), Arc::clone(&over)));
            }
            tokio::time::sleep(WARM_UP).await;
            let (watch, before) = (Stopwatch::start()?, done.load(Ordering::Relaxed));
            tokio::time::sleep(time).await;
            let (run, after) = (watch.stop()?, done.load(Ordering::Relaxed));
            over.store(true, Ordering::Relaxed);
            while let Some(asker) = askers.join_next().await {
                asker??;
            }
            let streams = number(usize::try_from(after - before)?);
            Ok(vec![
                ("streams_per_second", streams / run.seconds),
                ("cpu_us_per_stream", run.cpu_seconds / streams * 1e6),
            ])
        })
    }
}

async fn ask(opener: Opener, done: Arc<AtomicU64>, over: Arc<AtomicBool>) -> Outcome<()> {
    let mut answer = Vec::with_capacity(MESSAGE + 1);
    while !over.load(Ordering::Relaxed) {
        exchange(opener.open().await?, &mut answer).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The first end's part of one.
pub(super) async fn exchange(mut io: Io, answer: &mut Vec<u8>) -> Outcome<()> {
    io.write_all(&[7; MESSAGE]).await?;
    io.shutdown().await?;
    answer.clear();
    io.read_to_end(answer).await?;
    if *answer != [7; MESSAGE] {
        return Err("the answer is not what was asked".into());
    }
    Ok(())
}

/// The other end's.
pub(super) async fn answer(mut io: Io) -> Outcome<()> {
    let mut message = [0; MESSAGE];
    io.read_exact(&mut message).await?;
    io.write_all(&message).await?;
    io.shutdown().await?;
    // The other end's direction has to be over too, or dropping the stream would reset it.
    io.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
