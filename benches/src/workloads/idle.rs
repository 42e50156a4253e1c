//! W6: memory of what is open and idle.
//!
//! Each stream has carried a byte there and one back, so that it is open on both ends, and nothing since. Both ends are in this
//! process, so a figure is for both together. Some are opened before the measurement begins, so that what the first
//! one costs alone is not in it.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::shared::{Values, on_workers, pair};
use crate::Outcome;
use crate::measure::{allow_descriptors, number, resident_bytes};
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
        pairs.push(used(joined).await?);
    }
    Ok(())
}

async fn used(joined: &mut Joined) -> Outcome<(Io, Io)> {
    let (mut near, mut far) = pair(joined).await?;
    // The yamux crate acknowledges a stream with the first byte that it sends there, and opens no more than 256
    // that are not acknowledged.
    far.write_u8(0).await?;
    far.flush().await?;
    near.read_u8().await?;
    Ok((near, far))
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
                let pair = used(&mut joined).await?;
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
