//! The whole stack on a serial line: mux, TLS and link over a simulated cable, in virtual time. How soon a
//! session stands, and what a keystroke waits for beside bulk. The figures are the same on every machine.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

mod restarts;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cepa::Side;
use cepa::identity::Pinned;
use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::testkit::{CableEnd, LineSettings, Noise, Rng, cable, fill};
use cepa::transports::{Endpoint, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use support::identity;

/// Baud rates, and the bytes a second that they carry.
const FAST: (u32, f64) = (115_200, 11_520.0);
const SLOW: (u32, f64) = (9600, 960.0);

/// Two peers that expect each other, tuned as `dial` and `serve` do for a serial line.
fn configs(baud: u32) -> (StackConfig, StackConfig) {
    let address: Endpoint = format!("serial:/dev/ttyS0,baud={baud}").parse().unwrap();
    let (a, b) = (identity(), identity());
    let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
    (
        StackConfig::new(a, Arc::new(for_a)).tuned_to(&address),
        StackConfig::new(b, Arc::new(for_b)).tuned_to(&address),
    )
}

fn line(rate: f64, buffer: usize, noise: Noise) -> LineSettings {
    LineSettings {
        buffer,
        fifo: 64,
        noise,
        ..LineSettings::new(rate)
    }
}

async fn sessions(
    (near, far): (CableEnd, CableEnd),
    (client, server): &(StackConfig, StackConfig),
) -> (Session, Session) {
    let near = Stream::from_io(near, "near");
    let far = Stream::from_io(far, "far");
    let (near, far) = tokio::join!(
        Session::over(near, &[], Side::Client, client),
        Session::over(far, &[], Side::Server, server),
    );
    (near.unwrap(), far.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_session_stands_within_a_second() {
    for ((baud, rate), goal) in [(SLOW, 1200), (FAST, 150)] {
        let settings = LineSettings::new(rate);
        let configs = configs(baud);
        // Keys and nonces differ in what has to be escaped.
        for seed in 0..3 {
            let started = Instant::now();
            sessions(cable(&settings, &settings, seed), &configs).await;
            let took = started.elapsed();
            println!("{baud} baud: {took:?}");
            // Within the goal by a twentieth.
            let most = Duration::from_millis(goal * 19 / 20);
            assert!(took <= most, "{baud} baud: {took:?}");
        }
    }
}

/// Answers what comes on streams of the name `echo`; reads what comes on others, and counts it.
fn serve(session: Session) -> Arc<AtomicU64> {
    let read = Arc::<AtomicU64>::default();
    let count = Arc::clone(&read);
    tokio::spawn(async move {
        while let Ok(incoming) = session.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let echo = incoming.service() == "echo";
                let mut stream = incoming.accept().await.unwrap();
                let mut space = vec![0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut space).await {
                    if echo {
                        stream.write_all(&space[..n]).await.unwrap();
                        stream.flush().await.unwrap();
                    } else {
                        count.fetch_add(n as u64, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    read
}

#[derive(Debug)]
struct Reached {
    p50: Duration,
    p99: Duration,
    /// Bulk over what the line carries.
    share: f64,
    /// Most bytes in the driver.
    queued: usize,
}

async fn trip(stream: &mut Onion<Substream>) -> Duration {
    let started = Instant::now();
    stream.write_all(&[7; 64]).await.unwrap();
    stream.flush().await.unwrap();
    stream.read_exact(&mut [0; 64]).await.unwrap();
    started.elapsed()
}

/// Round trips of 64 bytes at jittered times beside a stream that always has more.
async fn beside_bulk(baud: u32, settings: &LineSettings, seed: u64, time: Duration) -> Reached {
    let (near_end, far_end) = cable(settings, settings, seed);
    let watch = near_end.watch();
    let (near, far) = sessions((near_end, far_end), &configs(baud)).await;
    let read = serve(far);
    let mut keys = near.open("echo").await.unwrap();
    let mut bulk = near.open("bulk").await.unwrap();
    tokio::spawn(async move {
        let (mut sent, mut piece) = (0, vec![0; 1000]);
        loop {
            fill(seed, sent, &mut piece);
            if bulk.write_all(&piece).await.is_err() {
                return;
            }
            sent += piece.len() as u64;
        }
    });
    // Bulk is under way, and what pacing learns is learnt.
    sleep(Duration::from_secs(10)).await;
    let (started, before) = (Instant::now(), read.load(Ordering::Relaxed));
    let mut rng = Rng::new(seed + 1);
    let gap = Duration::from_secs_f64(3000.0 / settings.rate);
    let (mut trips, mut queued) = (Vec::new(), 0);
    while started.elapsed() < time {
        trips.push(trip(&mut keys).await);
        // The questions take of the line, too: about 3 % of it.
        let until = Instant::now() + gap * rng.between(50, 150) as u32 / 100;
        while Instant::now() < until {
            queued = queued.max(watch.queued());
            sleep(Duration::from_millis(rng.between(20, 50) as u64)).await;
        }
    }
    let bytes = read.load(Ordering::Relaxed) - before;
    let share = bytes as f64 / started.elapsed().as_secs_f64() / settings.rate;
    trips.sort();
    let at = |part: usize| trips[(trips.len() * part / 100).min(trips.len() - 1)];
    Reached {
        p50: at(50),
        p99: at(99),
        share,
        queued,
    }
}

/// `goals`: of the median, of the 99th percentile, both in milliseconds, and of the share of bulk.
async fn reaches(
    (baud, rate): (u32, f64),
    buffer: usize,
    bit_errors: f64,
    seconds: u64,
    goals: (u64, u64, f64),
) {
    let noise = Noise {
        bit_errors,
        ..Noise::default()
    };
    let settings = line(rate, buffer, noise);
    let reached = beside_bulk(baud, &settings, 1, Duration::from_secs(seconds)).await;
    println!("{baud} baud, buffer {buffer}, bit errors {bit_errors:e}: {reached:?}");
    assert!(reached.p50 <= Duration::from_millis(goals.0), "{reached:?}");
    assert!(reached.p99 <= Duration::from_millis(goals.1), "{reached:?}");
    assert!(reached.share >= goals.2, "{reached:?}");
    // Little lies where nothing can overtake it: 50 ms of the line, and one frame.
    let below = (rate * 0.05) as usize + 600;
    assert!(reached.queued <= below, "{reached:?}");
}

#[tokio::test(start_paused = true)]
async fn a_keystroke_beside_bulk_at_115200_baud() {
    for buffer in [1024, 16 << 10] {
        reaches(FAST, buffer, 0.0, 60, (120, 250, 0.9)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_keystroke_beside_bulk_at_9600_baud() {
    reaches(SLOW, 4096, 0.0, 300, (1000, 1500, 0.9)).await;
}

#[tokio::test(start_paused = true)]
async fn a_keystroke_beside_bulk_on_a_noisy_line() {
    reaches(FAST, 4096, 1e-5, 60, (120, 400, 0.85)).await;
}
