//! A path that was cut and comes back, in virtual time: how long until bytes come again.

use std::time::Duration;

use cepa::Side;
use cepa::session::{ConnectError, Session};
use cepa::transports::Stream;
use cepa::transports::testkit::{CableEnd, LineSettings, cable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::ends::{Kind, Peers, over};
use crate::Outcome;
use crate::figure::DURABLE;
use crate::one_way::pair;

/// Bytes a second of the path: 100 Mbit/s.
const RATE: f64 = 12.5e6;

/// How long there is no path.
const WITHOUT: Duration = Duration::from_secs(3);

pub(super) fn run() -> Outcome<()> {
    // Names are part of the table, so they are written out.
    let rows = [
        (10, "stall-10ms-dialling-end", "stall-10ms-other-end"),
        (50, "stall-50ms-dialling-end", "stall-50ms-other-end"),
        (200, "stall-200ms-dialling-end", "stall-200ms-other-end"),
    ];
    for (ms, dialling, other) in rows {
        let round_trip = Duration::from_millis(ms);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let [near, far] = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(600), stalls(round_trip)).await?
        })?;
        let goal = (2 * round_trip + Duration::from_millis(50)).as_secs_f64() * 1e3;
        DURABLE.at_most(dialling, near.as_secs_f64() * 1e3, "ms", goal)?;
        // The hello of who dials is answered after two round trips; what it sends then takes half of another one.
        DURABLE.figure(other, far.as_secs_f64() * 1e3, "ms")?;
    }
    Ok(())
}

fn path(round_trip: Duration, seed: u64) -> (CableEnd, CableEnd) {
    let settings = LineSettings {
        delay: round_trip / 2,
        buffer: 1 << 20,
        fifo: 1460,
        ..LineSettings::new(RATE)
    };
    cable(&settings, &settings, seed)
}

/// At the end that dials, and at the other one.
async fn stalls(round_trip: Duration) -> Outcome<[Duration; 2]> {
    let peers = Peers::new()?.of(Kind::Durable);
    let (near_end, far_end) = path(round_trip, 1);
    let cable = near_end.watch();
    let (near, far) = over((near_end, far_end), &[], &peers).await?;
    let (a, b) = pair(&near, &far).await?;
    let (mut from_far, to_far) = tokio::io::split(a);
    let (mut from_near, to_near) = tokio::io::split(b);
    tokio::spawn(tick(to_far));
    tokio::spawn(tick(to_near));
    // Both read for a while before the cut.
    for _ in 0..100 {
        from_far.read_u8().await?;
        from_near.read_u8().await?;
    }
    cable.cut_off();
    let here = tokio::spawn(last_before_silence(from_far));
    let there = tokio::spawn(last_before_silence(from_near));
    tokio::time::sleep(WITHOUT).await;
    let back_at = Instant::now();
    let (near_end, far_end) = path(round_trip, 2);
    let (moved, taken) = tokio::join!(
        near.migrate_on(Stream::from_io(near_end, "near"), &[]),
        Session::handshake(
            Stream::from_io(far_end, "far"),
            &[],
            Side::Server,
            &peers.server
        ),
    );
    moved?;
    match taken {
        Err(ConnectError::Resumed(_)) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("it became a session of its own".into()),
    }
    let (here, there) = (here.await??, there.await??);
    Ok([here - back_at, there - back_at])
}

/// Reads until nothing comes for a second, and says when something comes again.
async fn last_before_silence(mut from: impl AsyncReadExt + Unpin) -> Outcome<Instant> {
    let mut last = Instant::now();
    loop {
        from.read_u8().await?;
        let now = Instant::now();
        if now - last > Duration::from_secs(1) {
            return Ok(now);
        }
        last = now;
    }
}

/// A byte each millisecond.
async fn tick(mut to: impl AsyncWriteExt + Unpin) {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if to.write_u8(1).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
