//! One transfer through two links and a simulated line, in virtual time.

use std::time::Duration;

use cepa::Side;
use cepa::link::{self, link};
use cepa::transports::Rate;
use cepa::transports::endpoint::Duplex;
use cepa::transports::testkit::{LineSettings, bus, cable, fill, verify};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::Outcome;

/// No transfer takes longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(7200);

#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// Of the line's rate.
    pub(super) percent: f64,
    /// The longest time without a byte.
    pub(super) gap: Duration,
}

pub(super) fn measure(
    line: &LineSettings,
    duplex: Duplex,
    bytes: u64,
    seed: u64,
) -> Outcome<Reached> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(LONGEST, transfer(line, duplex, bytes, seed)).await?
    })
}

async fn transfer(line: &LineSettings, duplex: Duplex, bytes: u64, seed: u64) -> Outcome<Reached> {
    let (near, far) = match duplex {
        Duplex::Full => cable(line, line, seed),
        Duplex::Half => bus(line, false, seed),
    };
    let mut config = link::Config::default();
    config.line_rate = Some(Rate::bytes_per_second(line.rate));
    config.duplex = duplex;
    let (mut near, driver) = link(near, Side::Client, &config);
    tokio::spawn(driver);
    let (mut far, driver) = link(far, Side::Server, &config);
    tokio::spawn(driver);
    let started = Instant::now();
    let writing = tokio::spawn(async move {
        let mut piece = [0; 1000];
        for at in (0..bytes).step_by(piece.len()) {
            let most = usize::try_from(bytes - at)?.min(piece.len());
            let piece = piece.get_mut(..most).unwrap_or_default();
            fill(seed, at, piece);
            near.write_all(piece).await?;
        }
        near.shutdown().await?;
        Outcome::Ok(())
    });
    let (mut read, mut last, mut gap) = (0, started, Duration::ZERO);
    let mut space = vec![0; 4096];
    let mut took = Duration::ZERO;
    loop {
        let n = far.read(&mut space).await?;
        let Some(got) = space.get(..n).filter(|got| !got.is_empty()) else {
            break;
        };
        verify(seed, read, got)?;
        read += n as u64;
        let now = Instant::now();
        gap = gap.max(now - last);
        last = now;
        took = now - started;
    }
    if read != bytes {
        return Err(format!("{read} of {bytes} bytes came").into());
    }
    far.shutdown().await?;
    writing.await??;
    Ok(Reached {
        percent: percent(bytes, took, line.rate),
        gap,
    })
}

/// Percent of the line that selective repeat gets with frames of the best length up to 2,048, 10 bytes a frame
/// beside its payload, and two of 256 byte values sent as two bytes; no acknowledgement counted.
pub(super) fn ideal(bit_errors: f64) -> f64 {
    let share = |payload: i32| {
        let payload = f64::from(payload);
        let wire = payload * (1.0 + 2.0 / 256.0) + 10.0;
        payload / wire * (8.0 * wire * (-bit_errors).ln_1p()).exp()
    };
    100.0 * (16..=2048).map(share).fold(0.0, f64::max)
}

/// What so many bytes in this time are of a rate.
#[allow(clippy::cast_precision_loss)] // exact up to 2^53 bytes
pub(super) fn percent(bytes: u64, took: Duration, rate: f64) -> f64 {
    100.0 * bytes as f64 / took.as_secs_f64() / rate
}
