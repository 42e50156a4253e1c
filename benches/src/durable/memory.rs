//! What an idle session takes.

use std::time::Duration;

use cepa::session::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ends::{Kind, Peers, over_tcp, pair};
use super::{Options, at_most, figure};
use crate::Outcome;
use crate::measure::{allow_descriptors, number, resident_bytes};

/// Sessions of one pair of peers: no more of one peer are kept.
const OF_PEER: usize = 50;

/// Bytes that each carried both ways before it was idle.
const CARRIED: usize = 64 << 10;

/// By then the last acknowledgement is through.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn run(options: &Options) -> Outcome<()> {
    let count = options.sessions.clamp(1, 1000);
    allow_descriptors(4 * count + 500)?;
    let mut kept = Vec::new();
    // What the first ones cost alone is in neither.
    for kind in [Kind::Plain, Kind::Durable] {
        open(kind, OF_PEER, &mut kept).await?;
    }
    let before = settled().await?;
    open(Kind::Plain, count, &mut kept).await?;
    let with_plain = settled().await?;
    open(Kind::Durable, count, &mut kept).await?;
    let with_durable = settled().await?;
    let each = |from: f64, to: f64| (to - from) / number(count) / 1024.0;
    let (plain, durable) = (each(before, with_plain), each(with_plain, with_durable));
    figure("idle-plain-both-ends", plain, "KiB")?;
    figure("idle-durable-both-ends", durable, "KiB")?;
    figure("idle-more-both-ends", durable - plain, "KiB")?;
    at_most("idle-more-an-end", (durable - plain) / 2.0, "KiB", 16.0)?;
    for (near, _) in kept {
        near.close().await;
    }
    Ok(())
}

async fn open(kind: Kind, count: usize, kept: &mut Vec<(Session, Session)>) -> Outcome<()> {
    let mut peers = Peers::new()?.of(kind);
    for i in 0..count {
        if i % OF_PEER == 0 {
            peers = Peers::new()?.of(kind);
        }
        let (near, far) = over_tcp(&peers).await?;
        used(&near, &far).await?;
        kept.push((near, far));
    }
    Ok(())
}

/// A substream that was there, and is not any more.
async fn used(near: &Session, far: &Session) -> Outcome<()> {
    let (a, b) = pair(near, far).await?;
    let end = |mut stream: cepa::session::ServiceStream| async move {
        let mut back = vec![0; CARRIED];
        stream.write_all(&vec![7; CARRIED]).await?;
        stream.shutdown().await?;
        stream.read_exact(&mut back).await?;
        Outcome::Ok(stream.read(&mut [0]).await?)
    };
    let (a, b) = tokio::join!(end(a), end(b));
    (a?, b?);
    Ok(())
}

async fn settled() -> Outcome<f64> {
    tokio::time::sleep(SETTLE).await;
    resident_bytes()
}
