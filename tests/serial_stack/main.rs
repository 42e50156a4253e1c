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

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::Side;
use cepa::identity::Pinned;
use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::testkit::{CableWatch, LineSettings, Noise, Rng, bus, cable, fill, verify};
use cepa::transports::{ByteStream, Endpoint, Layer, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep};

use support::identity;

/// Baud rates, and the bytes a second that they carry.
const FAST: (u32, f64) = (115_200, 11_520.0);
const SLOW: (u32, f64) = (9600, 960.0);

/// Two peers that expect each other, tuned as `dial` and `serve` do for a serial line.
fn configs(baud: u32) -> (StackConfig, StackConfig) {
    let address = format!("serial:/dev/ttyS0,baud={baud}");
    configs_of(&address, &address)
}

/// The same for two ends that were not told the same of the line.
fn configs_of(near: &str, far: &str) -> (StackConfig, StackConfig) {
    let (a, b) = (identity(), identity());
    let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
    let address = |text: &str| text.parse::<Endpoint>().unwrap();
    (
        StackConfig::new(a, Arc::new(for_a)).for_endpoint(&address(near)),
        StackConfig::new(b, Arc::new(for_b)).for_endpoint(&address(far)),
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
    (near, far): (impl ByteStream, impl ByteStream),
    (client, server): &(StackConfig, StackConfig),
) -> (Session, Session) {
    sessions_of((near, far), [&[], &[]], (client, server)).await
}

/// The same with layers as an address writes them.
async fn sessions_of(
    (near, far): (impl ByteStream, impl ByteStream),
    [near_layers, far_layers]: [&[Layer]; 2],
    (client, server): (&StackConfig, &StackConfig),
) -> (Session, Session) {
    let near = Stream::from_io(near, "near");
    let far = Stream::from_io(far, "far");
    let (near, far) = tokio::join!(
        Session::handshake(near, near_layers, Side::Client, client),
        Session::handshake(far, far_layers, Side::Server, server),
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
    trips_beside_bulk(near, far, &watch, settings, seed, time).await
}

async fn trips_beside_bulk(
    near: Session,
    far: Session,
    watch: &CableWatch,
    settings: &LineSettings,
    seed: u64,
    time: Duration,
) -> Reached {
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
    // The rest of a record of 0.51 s, a fiftieth of a second that the line is filled ahead, 0.22 s for both messages themselves, and 0.05 s
    // for what the receiver's UART holds back until 64 bytes are there.
    // The goal is 0.8 s. How long certificates and signatures are differs from run to run, and with that where records and questions
    // meet: 20 runs had 786 to 807 ms, 794 in the middle.
    reaches(SLOW, 4096, 0.0, 1200, (560, 840, 0.87)).await;
}

#[tokio::test(start_paused = true)]
async fn a_keystroke_beside_bulk_on_a_noisy_line() {
    reaches(FAST, 4096, 1e-5, 60, (120, 400, 0.85)).await;
}

/// Sends random bytes one way on one stream, checked at the other end, beside round trips on another.
async fn carries(near: &Session, far: Session, bytes: u64) {
    let taken = tokio::spawn(async move {
        let incoming = far.accept().await.unwrap();
        let mut stream = incoming.accept().await.unwrap();
        let echo = tokio::spawn(async move {
            let mut stream = far.accept().await.unwrap().accept().await.unwrap();
            let mut space = [0; 64];
            while stream.read_exact(&mut space).await.is_ok() {
                stream.write_all(&space).await.unwrap();
                stream.flush().await.unwrap();
            }
        });
        let (mut read, mut space) = (0, vec![0; 4096]);
        while read < bytes {
            let n = stream.read(&mut space).await.unwrap();
            verify(5, read, &space[..n]).unwrap();
            read += n as u64;
        }
        stream.write_all(b"all").await.unwrap();
        stream.flush().await.unwrap();
        (stream, echo)
    });
    let mut bulk = near.open("bulk").await.unwrap();
    let mut keys = near.open("echo").await.unwrap();
    let mut sent = 0;
    while sent < bytes {
        let mut piece = vec![0; (bytes - sent).min(1000) as usize];
        fill(5, sent, &mut piece);
        bulk.write_all(&piece).await.unwrap();
        sent += piece.len() as u64;
        trip(&mut keys).await;
    }
    let mut end = [0; 3];
    bulk.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"all");
    drop(taken.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_keeps_xon_and_xoff_for_itself() {
    let eats = line(
        FAST.1,
        4096,
        Noise {
            eaten: vec![0x11, 0x13],
            bit_errors: 1e-5,
            ..Noise::default()
        },
    );
    // From the line's flow control, or said of the layer; at one end, which is enough.
    for (near, far) in [
        ("serial:/dev/ttyS0,flow=sw", "serial:/dev/ttyS0"),
        (
            "mux+tls+link+tcp:a:1",
            "mux+tls+link,escape=xonxoff+tcp:a:1",
        ),
    ] {
        let (client, server) = configs_of(near, far);
        let layers = |text: &str| text.parse::<Endpoint>().unwrap().layers().to_vec();
        let (ends, layers) = (cable(&eats, &eats, 1), [layers(near), layers(far)]);
        let layers = [&layers[0][..], &layers[1]];
        let (near, far) = sessions_of(ends, layers, (&client, &server)).await;
        carries(&near, far, 20_000).await;
    }
}

/// A file as a program sends it: a session, a stream, the bytes, and the other end's word that it has all of them. `goal`: of what the
/// line carries in all that time.
#[tokio::test(start_paused = true)]
async fn a_file_takes_nearly_all_of_the_line() {
    for ((baud, rate), goal) in [(FAST, 0.95), (SLOW, 0.92)] {
        let configs = configs(baud);
        for seed in 0..3 {
            let settings = line(rate, 4096, Noise::default());
            let started = Instant::now();
            let (near, far) = sessions(cable(&settings, &settings, seed), &configs).await;
            let taken = tokio::spawn(async move {
                let mut stream = far.accept().await.unwrap().accept().await.unwrap();
                let mut file = Vec::new();
                stream.read_to_end(&mut file).await.unwrap();
                stream.write_all(b"all").await.unwrap();
                stream.shutdown().await.unwrap();
                (far, file)
            });
            let mut file = vec![0; 100_000];
            fill(seed, 0, &mut file);
            let mut stream = near.open("file").await.unwrap();
            stream.write_all(&file).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut end = Vec::new();
            stream.read_to_end(&mut end).await.unwrap();
            let share = file.len() as f64 / started.elapsed().as_secs_f64() / rate;
            println!("{baud} baud, seed {seed}: {share:.4} of the line");
            assert_eq!(end, b"all");
            assert!(taken.await.unwrap().1 == file);
            assert!(share >= goal, "{baud} baud, seed {seed}: {share:.4}");
        }
    }
}

/// Notes the longest write.
struct Writes<T> {
    inner: T,
    longest: Arc<AtomicU64>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Writes<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Writes<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.longest
            .fetch_max(bytes.len() as u64, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_radio_with_short_packets() {
    for (mtu, (baud, rate)) in [(64, SLOW), (64, FAST), (240, FAST)] {
        let noise = Noise {
            bit_errors: 1e-5,
            ..Noise::default()
        };
        let settings = line(rate, 4096, noise);
        let (near, far) = cable(&settings, &settings, 1);
        let longest = [Arc::<AtomicU64>::default(), Arc::default()];
        let watched = |inner, end: usize| Writes {
            inner,
            longest: Arc::clone(&longest[end]),
        };
        let configured = format!("serial:/dev/ttyS0,baud={baud},mtu={mtu}");
        let configs = configs_of(&configured, &format!("serial:/dev/ttyS0,baud={baud}"));
        let ends = (watched(near, 0), watched(far, 1));
        let (near, far) = sessions(ends, &configs).await;
        carries(&near, far, 5000).await;
        for longest in &longest {
            let longest = longest.load(Ordering::Relaxed);
            assert!(
                (mtu * 9 / 10..=mtu).contains(&longest),
                "{longest} of {mtu}"
            );
        }
    }
}

/// Two wires for both, as in RS-485: the ends take turns. `goals`: milliseconds until a session stands, of the
/// median, of the 99th percentile, and the share of bulk.
async fn one_way(
    (baud, rate): (u32, f64),
    bit_errors: f64,
    seconds: u64,
    goals: (u64, u64, u64, f64),
) {
    let noise = Noise {
        bit_errors,
        ..Noise::default()
    };
    let settings = line(rate, 4096, noise);
    let ends = bus(&settings, bit_errors > 0.0, 1);
    let watch = ends.0.watch();
    // One end was told, which is enough.
    let configured = format!("serial:/dev/ttyS0,baud={baud},duplex=half");
    let configs = configs_of(&configured, &format!("serial:/dev/ttyS0,baud={baud}"));
    let started = Instant::now();
    let (near, far) = sessions(ends, &configs).await;
    let stood = started.elapsed();
    let time = Duration::from_secs(seconds);
    let reached = trips_beside_bulk(near, far, &watch, &settings, 1, time).await;
    println!(
        "{baud} baud, half duplex, bit errors {bit_errors:e}: stands in {stood:?}, {reached:?}"
    );
    let ms = Duration::from_millis;
    assert!(stood <= ms(goals.0), "{stood:?}");
    assert!(reached.p50 <= ms(goals.1), "{reached:?}");
    assert!(reached.p99 <= ms(goals.2), "{reached:?}");
    assert!(reached.share >= goals.3, "{reached:?}");
    assert_eq!(watch.collided(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_keystroke_beside_bulk_where_ends_take_turns_at_115200_baud() {
    one_way(FAST, 0.0, 60, (150, 120, 250, 0.8)).await;
}

#[tokio::test(start_paused = true)]
async fn a_keystroke_beside_bulk_where_ends_take_turns_at_9600_baud() {
    one_way(SLOW, 0.0, 200, (1600, 900, 1100, 0.75)).await;
}

/// With an echo: what an end hears of itself changes nothing.
#[tokio::test(start_paused = true)]
async fn a_keystroke_beside_bulk_where_ends_take_turns_on_a_noisy_line() {
    one_way(FAST, 1e-5, 60, (150, 250, 500, 0.75)).await;
}

#[tokio::test(start_paused = true)]
async fn all_arrives_where_ends_take_turns() {
    let noise = Noise {
        bit_errors: 1e-5,
        ..Noise::default()
    };
    let settings = line(FAST.1, 4096, noise);
    let configured = "serial:/dev/ttyS0,duplex=half,mtu=200";
    let (near, far) = sessions(bus(&settings, true, 2), &configs_of(configured, configured)).await;
    carries(&near, far, 20_000).await;
}
