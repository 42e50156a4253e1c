//! A slow line, in virtual time: what acknowledgements take of it.

use std::time::Duration;

use cepa::transports::Endpoint;
use cepa::transports::testkit::{LineSettings, cable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::ends::{Kind, Peers, over};
use crate::Outcome;
use crate::figure::DURABLE;
use crate::measure::number;
use crate::one_way::pair;

/// Bytes a second of 115,200 baud.
const RATE: f64 = 11_520.0;

const BYTES: usize = 1_000_000;

/// No transfer takes longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(3600);

/// What passed in a transfer.
struct Passed {
    there: f64,
    back: f64,
    seconds: f64,
}

pub(super) fn run() -> Outcome<()> {
    let measure = |kind| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        runtime.block_on(async { tokio::time::timeout(LONGEST, transfer(kind)).await? })
    };
    let (plain, durable) = (measure(Kind::Plain)?, measure(Kind::Durable)?);
    let percent = |more: f64| 100.0 * more / (RATE * durable.seconds);
    DURABLE.figure("line-115200-back-plain", percent(plain.back), "%")?;
    DURABLE.figure("line-115200-back-durable", percent(durable.back), "%")?;
    DURABLE.figure(
        "line-115200-there-more",
        percent(durable.there - plain.there),
        "%",
    )?;
    DURABLE.figure(
        "line-115200-time",
        durable.seconds / plain.seconds,
        "of plain",
    )?;
    let more = percent(durable.back - plain.back);
    DURABLE.at_most("line-115200-acknowledgements", more, "%", 1.0)
}

async fn transfer(kind: Kind) -> Outcome<Passed> {
    let mut peers = Peers::new()?.of(kind);
    let address: Endpoint = "serial:/dev/ttyS0,baud=115200".parse()?;
    peers.client = peers.client.for_endpoint(&address);
    peers.server = peers.server.for_endpoint(&address);
    let settings = LineSettings::new(RATE);
    let (near, far) = cable(&settings, &settings, 1);
    let (there, back) = (near.watch(), far.watch());
    let (near, far) = over((near, far), &[], &peers).await?;
    let (mut out, mut into) = pair(&near, &far).await?;
    let (before, begun) = ((there.carried(), back.carried()), Instant::now());
    let writing = tokio::spawn(async move {
        out.write_all(&vec![7; BYTES]).await?;
        out.flush().await?;
        Outcome::Ok(out)
    });
    into.read_exact(&mut vec![0; BYTES]).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let count = |now: u64, before: u64| number(usize::try_from(now - before).unwrap_or(0));
    let passed = Passed {
        there: count(there.carried(), before.0),
        back: count(back.carried(), before.1),
        seconds,
    };
    writing.await??;
    Ok(passed)
}
