//! A circuit's end by the clock: two sessions in memory, and a time that runs when nothing else does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cepa_transports::Side;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::identity::PeerId;
use crate::mux::{Config, StreamTimeouts, Substream, mux};
use crate::node::Access;
use crate::onion::Onion;

use super::circuits::join;
use super::config::RelayConfig;
use super::inner::{Inner, Open};
use super::stream::reset_code;
use crate::protocols::pool::Holder;

const MINUTE: Duration = Duration::from_secs(60);

/// The two ends of a substream; the first one's side opens it.
async fn substream() -> (Substream, Substream) {
    let (one, two) = tokio::io::duplex(64 << 10);
    let (one, driver) = mux(one, Side::Client, Config::default());
    tokio::spawn(driver);
    let (two, driver) = mux(two, Side::Server, Config::default());
    tokio::spawn(driver);
    let (one, two) = tokio::join!(one.open(), two.accept());
    let (mut one, mut two) = (one.unwrap(), two.unwrap());
    for stream in [&mut one, &mut two] {
        stream.set_timeouts(StreamTimeouts::NONE);
    }
    (one, two)
}

fn relay(change: impl FnOnce(&mut RelayConfig)) -> Arc<Inner> {
    let mut config = RelayConfig::new(Access::Anyone);
    change(&mut config);
    Arc::new(Inner::new(PeerId::from_bytes([1; 32]), config))
}

fn open(relay: &Arc<Inner>, from: u8) -> Open {
    let holder = Holder {
        id: PeerId::from_bytes([from; 32]),
        former: Vec::new(),
        place: None,
        named: false,
    };
    relay.open(&holder).unwrap()
}

/// The ends of a circuit, and the task that carries it.
async fn circuit(relay: &Arc<Inner>, from: u8) -> (Substream, Substream, JoinHandle<()>) {
    let ((dialler, near), (far, registered)) = (substream().await, substream().await);
    let open = open(relay, from);
    let carrying = tokio::spawn(async move {
        join(Onion::new(near), Onion::new(far), &open, None).await;
    });
    (dialler, registered, carrying)
}

async fn says(from: &mut Substream, to: &mut Substream) {
    from.write_all(b"x").await.unwrap();
    assert_eq!(to.read_u8().await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn a_circuit_lasts_as_long_as_either_end_says_something_in_time() {
    let relay = relay(|_| {});
    let (mut dialler, mut registered, carrying) = circuit(&relay, 2).await;
    for _ in 0..20 {
        says(&mut dialler, &mut registered).await;
        sleep(14 * MINUTE).await;
        says(&mut registered, &mut dialler).await;
        sleep(14 * MINUTE).await;
    }
    says(&mut dialler, &mut registered).await;
    let since = Instant::now();
    for stream in [&mut dialler, &mut registered] {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(reset_code(&error), Some(10));
    }
    carrying.await.unwrap();
    let lasted = since.elapsed();
    assert!((15 * MINUTE..16 * MINUTE).contains(&lasted), "{lasted:?}");
    assert_eq!(relay.counts.idle.load(Ordering::Relaxed), 1);
    assert_eq!(relay.counts.circuits.load(Ordering::Relaxed), 0);
}

const PIECE: usize = 16 << 10;
/// More than the window, and the rest waits at the relay, which has 128 KiB for it.
const PIECES: usize = 22;

/// A reader that is slow beyond reason, and has nothing more to come.
#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_end_has_as_long_to_leave() {
    let relay = relay(|_| {});
    let (mut dialler, mut registered, carrying) = circuit(&relay, 2).await;
    dialler.write_all(&vec![7; PIECES * PIECE]).await.unwrap();
    dialler.shutdown().await.unwrap();
    registered.shutdown().await.unwrap();
    assert_eq!(dialler.read(&mut [0]).await.unwrap(), 0, "the other end");
    let begun = Instant::now();
    for _ in 0..PIECES {
        // The mux tells of it when half of the window was read, every 12 minutes.
        sleep(3 * MINUTE / 2).await;
        registered.read_exact(&mut [0; PIECE]).await.unwrap();
    }
    assert_eq!(registered.read(&mut [0]).await.unwrap(), 0);
    assert!(begun.elapsed() > 30 * MINUTE);
    carrying.await.unwrap();
    assert_eq!(relay.counts.idle.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_taken_back_for_who_has_none() {
    let relay = relay(|config| config.circuits = 1);
    let (mut dialler, mut registered, carrying) = circuit(&relay, 2).await;
    // In use all the time, so it is its age that counts.
    for _ in 0..10 {
        says(&mut dialler, &mut registered).await;
        sleep(MINUTE / 2).await;
    }
    says(&mut dialler, &mut registered).await;
    let _newcomer = open(&relay, 3);
    for stream in [&mut dialler, &mut registered] {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(reset_code(&error), Some(11));
    }
    carrying.await.unwrap();
    assert_eq!(relay.counts.taken_back.load(Ordering::Relaxed), 1);
    assert_eq!(relay.counts.circuits.load(Ordering::Relaxed), 1);
}
