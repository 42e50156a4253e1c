//! What an idle session takes.

use std::time::Duration;

use cepa::session::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ends::{Kind, Peers, over_tcp};
use super::options::Options;
use crate::Outcome;
use crate::figure::DURABLE;
use crate::measure::{allow_descriptors, number, resident_bytes};
use crate::one_way::pair;

/// Sessions of one pair of peers: no more of one peer are kept.
const OF_PEER: usize = 50;

/// Bytes that each carried both ways before it was idle: that it is in use, and a small file.
const LITTLE: usize = 1;
const MORE: usize = 64 << 10;

/// Behind the first question whether the peer is there, of either kind; by then what was of use for bulk is given back.
const SETTLE: Duration = Duration::from_secs(18);

const OF_LITTLE: [&str; 3] = [
    "idle-plain-both-ends",
    "idle-durable-both-ends",
    "idle-more-an-end",
];
const OF_MORE: [&str; 3] = [
    "idle-after-64k-plain-both-ends",
    "idle-after-64k-durable-both-ends",
    "idle-after-64k-more-an-end",
];

pub(super) async fn run(options: &Options) -> Outcome<()> {
    let count = options.sessions.clamp(1, 1000);
    allow_descriptors(8 * count + 1000)?;
    let mut kept = Vec::new();
    let each = |from: f64, to: f64| (to - from) / number(count) / 1024.0;
    for (carried, names) in [(LITTLE, OF_LITTLE), (MORE, OF_MORE)] {
        // What the first ones cost alone is in neither.
        for kind in [Kind::Plain, Kind::Durable] {
            open(kind, OF_PEER, carried, &mut kept).await?;
        }
        let before = settled().await?;
        open(Kind::Plain, count, carried, &mut kept).await?;
        let with_plain = settled().await?;
        open(Kind::Durable, count, carried, &mut kept).await?;
        let with_durable = settled().await?;
        let plain = each(before, with_plain);
        let durable = each(with_plain, with_durable);
        let [of_plain, of_durable, more] = names;
        DURABLE.figure(of_plain, plain, "KiB")?;
        DURABLE.figure(of_durable, durable, "KiB")?;
        DURABLE.at_most(more, (durable - plain) / 2.0, "KiB", 16.0)?;
    }
    for (near, _) in kept {
        near.close().await;
    }
    Ok(())
}

async fn open(
    kind: Kind,
    count: usize,
    carried: usize,
    kept: &mut Vec<(Session, Session)>,
) -> Outcome<()> {
    let mut peers = Peers::new()?.of(kind);
    for i in 0..count {
        if i % OF_PEER == 0 {
            peers = Peers::new()?.of(kind);
        }
        let (near, far) = over_tcp(&peers).await?;
        used(&near, &far, carried).await?;
        kept.push((near, far));
    }
    Ok(())
}

/// A substream that was there, and is not any more.
async fn used(near: &Session, far: &Session, carried: usize) -> Outcome<()> {
    let (a, b) = pair(near, far).await?;
    let end = |mut stream: cepa::session::ServiceStream| async move {
        let mut back = vec![0; carried];
        stream.write_all(&vec![7; carried]).await?;
        stream.shutdown().await?;
        stream.read_exact(&mut back).await?;
        Outcome::Ok(stream.read(&mut [0]).await?)
    };
    let (a, b) = tokio::join!(end(a), end(b));
    a?;
    b?;
    Ok(())
}

async fn settled() -> Outcome<f64> {
    tokio::time::sleep(SETTLE).await;
    resident_bytes()
}
