//! A ticker that is moved from one connection to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cepa::session::Session;
use cepa::transports::{Endpoint, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ends::{Kind, Peers};
use super::options::Options;
use crate::Outcome;
use crate::figure::DURABLE;
use crate::measure::{median, quantile};

const TICK: Duration = Duration::from_millis(1);

/// From the beginning of a move on; it is over long before.
const WINDOW: Duration = Duration::from_millis(100);

pub(super) async fn run(options: &Options) -> Outcome<()> {
    let peers = Peers::new()?.of(Kind::Durable);
    let mut listener = listen(&"tcp:127.0.0.1:0".parse()?).await?;
    let at: Endpoint = listener.endpoint().clone();
    let (sender, mut sessions) = tokio::sync::mpsc::channel(1);
    let (config, endpoint) = (peers.server.clone(), at.clone());
    tokio::spawn(async move {
        while let Ok(Some(stream)) = listener.accept().await {
            // Those that are taken up are no new session.
            if let Ok(session) = Session::accept_on(stream, &endpoint, &config).await {
                let _ = sender.send(session).await;
            }
        }
    });
    let near = Session::dial(&at, &peers.client).await?;
    let far = sessions.recv().await.ok_or("no session")?;
    let (from, to) = crate::one_way::pair(&near, &far).await?;
    let longest = [gaps(from), tick(to)];

    // The ticks go from the far end to the near one.
    let (mut still, mut moved, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.moves {
        for moves in [false, true] {
            longest[0].store(0, Ordering::Relaxed);
            let begun = Instant::now();
            if moves {
                near.migrate(&at).await?;
                took.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            tokio::time::sleep(WINDOW.saturating_sub(begun.elapsed())).await;
            #[allow(clippy::cast_precision_loss)] // microseconds
            let gap = longest[0].load(Ordering::Relaxed) as f64 / 1e3;
            if moves { &mut moved } else { &mut still }.push(gap);
        }
    }
    let paths = near.path_stats().map_or(0, |stats| stats.paths);
    if paths != options.moves as u64 + 1 {
        return Err(format!("{paths} connections for {} moves", options.moves).into());
    }
    DURABLE.figure("migration-takes-p50", median(&took), "ms")?;
    DURABLE.figure("ticker-gap-still-p50", median(&still), "ms")?;
    DURABLE.figure("ticker-gap-still-longest", quantile(&still, 1.0), "ms")?;
    DURABLE.at_most("ticker-gap-migration-p50", median(&moved), "ms", 20.0)?;
    DURABLE.at_most(
        "ticker-gap-migration-longest",
        quantile(&moved, 1.0),
        "ms",
        20.0,
    )
}

/// The longest gap between two ticks, in microseconds, since it was set to 0.
fn gaps(mut from: impl AsyncReadExt + Unpin + Send + 'static) -> Arc<AtomicU64> {
    let longest = Arc::new(AtomicU64::new(0));
    let most = Arc::clone(&longest);
    tokio::spawn(async move {
        let mut last = Instant::now();
        while from.read_u8().await.is_ok() {
            let gap = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
            most.fetch_max(gap, Ordering::Relaxed);
            last = Instant::now();
        }
    });
    longest
}

/// Ticks, and counts them.
fn tick(mut to: impl AsyncWriteExt + Unpin + Send + 'static) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if to.write_u8(1).await.is_err() || to.flush().await.is_err() {
                return;
            }
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    count
}
