//! W6: memory of what is open and idle.
//!
//! Each stream has carried a byte there, so that it is open on both ends, and nothing since. Both ends are in this
//! process, so a figure is for both together. Some are opened before the measurement begins, so that what the first
//! one costs alone is not in it.

use std::time::Duration;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use super::{Values, on_workers, pair};
use crate::Outcome;
use crate::measure::{number, resident_bytes};
use crate::peers::{Between, Credentials, Io, Joined, Peer, connect, join};

/// Opened before the measurement.
const BEFORE: usize = 20;

/// From the last opening to the measurement: acknowledgements and timers of the opening are through by then.
const SETTLE: Duration = Duration::from_millis(500);

/// Descriptors that a process needs beside its connections.
const SPARE_DESCRIPTORS: usize = 100;

#[derive(Args, Debug, Serialize)]
pub(crate) struct Substreams {
    #[arg(long)]
    peer: Peer,
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
}

impl Substreams {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, streams) = (self.peer, self.streams);
        on_workers(1, async move {
            let most = streams + BEFORE;
            let mut joined = join(peer, Between::Loopback, most, &Credentials::new()?).await?;
            let mut pairs = Vec::with_capacity(most);
            open(&mut joined, &mut pairs, BEFORE).await?;
            let before = settled().await?;
            open(&mut joined, &mut pairs, streams).await?;
            Ok(each(before, settled().await?, streams))
        })
    }
}

async fn open(joined: &mut Joined, pairs: &mut Vec<(Io, Io)>, streams: usize) -> Outcome<()> {
    for _ in 0..streams {
        pairs.push(pair(joined).await?);
    }
    Ok(())
}

#[derive(Args, Debug, Serialize)]
pub(crate) struct Connections {
    #[arg(long)]
    peer: Peer,
    /// Connections, with one substream each
    #[arg(long, default_value_t = 1000)]
    connections: usize,
}

impl Connections {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, connections) = (self.peer, self.connections);
        allow_descriptors(2 * (connections + BEFORE) + SPARE_DESCRIPTORS)?;
        on_workers(1, async move {
            let credentials = Credentials::new()?;
            let mut open = Vec::with_capacity(connections + BEFORE);
            let mut before = f64::NAN;
            for i in 0..connections + BEFORE {
                if i == BEFORE {
                    before = settled().await?;
                }
                let mut joined = connect(peer, &credentials).await?;
                let pair = pair(&mut joined).await?;
                open.push((joined, pair));
            }
            Ok(each(before, settled().await?, connections))
        })
    }
}

async fn settled() -> Outcome<f64> {
    tokio::time::sleep(SETTLE).await;
    resident_bytes()
}

fn each(before: f64, after: f64, count: usize) -> Values {
    vec![
        ("bytes_each", (after - before) / number(count)),
        ("resident_bytes", after),
    ]
}

fn allow_descriptors(wanted: usize) -> Outcome<()> {
    let wanted = u64::try_from(wanted)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    Ok(())
}
