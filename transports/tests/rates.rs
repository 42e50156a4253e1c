//! Rates in virtual time: the clock stands still while a task can run, so nothing here depends on
//! how busy the machine is.
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use cepa_transports::meter::{Meter, Metered};
use cepa_transports::throttle::{Grant, Policy, Throttled, TokenBucket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

/// Takes everything and gives without end, as fast as it is asked; remembers the calls.
#[derive(Clone, Default)]
struct Endless {
    vectored: Arc<Mutex<Vec<Vec<usize>>>>,
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = buf.remaining();
        buf.initialize_unfilled();
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.vectored
            .lock()
            .unwrap()
            .push(bufs.iter().map(|b| b.len()).collect());
        Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

const FIVE_SECONDS: Duration = Duration::from_secs(5);

async fn write_for(stream: &mut (impl AsyncWrite + Unpin), time: Duration, piece: usize) {
    let buf = vec![0; piece];
    let _ = tokio::time::timeout(time, async {
        loop {
            stream.write_all(&buf).await.unwrap();
        }
    })
    .await;
}

fn within_two_percent(bytes: u64, rate: u64, seconds: u64) {
    let expected = rate * seconds;
    let off = bytes.abs_diff(expected);
    assert!(
        off * 50 <= expected,
        "{bytes} bytes in {seconds} s at {rate} B/s"
    );
}

#[tokio::test(start_paused = true)]
async fn writing_keeps_the_rate_within_two_percent() {
    for rate in [960, 11_520, 1_000_000, 125_000_000] {
        for piece in [1, 100, 70_000] {
            // A byte at a time at these rates would only take long.
            if piece == 1 && rate > 100_000 {
                continue;
            }
            let meter = Meter::new();
            let wire = Metered::new(Endless::default(), meter.clone());
            let mut stream = Throttled::new(wire).with_write(TokenBucket::new(rate));
            write_for(&mut stream, FIVE_SECONDS, piece).await;
            within_two_percent(meter.bytes_out(), rate, 5);
            assert_eq!(meter.bytes_in(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reading_keeps_the_rate_within_two_percent() {
    for rate in [960, 11_520, 1_000_000, 125_000_000] {
        let meter = Meter::new();
        let wire = Metered::new(Endless::default(), meter.clone());
        let mut stream = Throttled::new(wire).with_read(TokenBucket::new(rate));
        let mut buf = vec![0; 70_000];
        let _ = tokio::time::timeout(FIVE_SECONDS, async {
            loop {
                stream.read_exact(&mut buf).await.unwrap();
            }
        })
        .await;
        within_two_percent(meter.bytes_in(), rate, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_after_a_pause() {
    let meter = Meter::new();
    let wire = Metered::new(Endless::default(), meter.clone());
    let mut stream = Throttled::new(wire).with_write(TokenBucket::new(1_000_000));
    write_for(&mut stream, Duration::from_millis(10), 1000).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let before = meter.bytes_out();
    write_for(&mut stream, FIVE_SECONDS, 1000).await;
    within_two_percent(meter.bytes_out() - before, 1_000_000, 5);
}

#[tokio::test(start_paused = true)]
async fn streams_that_share_a_bucket_share_it_evenly() {
    let bucket = TokenBucket::new(400_000);
    let meters: Vec<_> = (0..4).map(|_| Meter::new()).collect();
    let mut tasks = Vec::new();
    for (i, meter) in meters.iter().enumerate() {
        let wire = Metered::new(Endless::default(), meter.clone());
        let mut stream = Throttled::new(wire).with_write(bucket.clone());
        tasks.push(tokio::spawn(async move {
            write_for(&mut stream, FIVE_SECONDS, 8000 + i).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    within_two_percent(meters.iter().map(Meter::bytes_out).sum(), 400_000, 5);
    for meter in &meters {
        within_two_percent(meter.bytes_out(), 100_000, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_can_be_changed() {
    let bucket = TokenBucket::new(1000);
    let meter = Meter::new();
    let wire = Metered::new(Endless::default(), meter.clone());
    let mut stream = Throttled::new(wire).with_write(bucket.clone());
    write_for(&mut stream, FIVE_SECONDS, 50).await;
    let before = meter.bytes_out();
    within_two_percent(before, 1000, 5);
    bucket.set_rate(50_000);
    assert_eq!(bucket.rate(), 50_000);
    write_for(&mut stream, FIVE_SECONDS, 50).await;
    within_two_percent(meter.bytes_out() - before, 50_000, 5);
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_reserved_and_did_not_use_is_given_back() {
    let bucket = TokenBucket::with_burst(1000, 1);
    let now = Instant::now();
    let mut stream = Throttled::new(tokio::io::empty()).with_read(bucket.clone());
    let mut buf = [0; 10];
    // Ten bytes are reserved for reading; the end of file uses none of them.
    assert_eq!(stream.read(&mut buf).await.unwrap(), 0);
    drop(stream);
    let next = bucket.reserve(10, now);
    assert_eq!(
        next,
        Grant {
            bytes: 10,
            at: now + Duration::from_millis(10)
        }
    );
}

#[tokio::test]
async fn vectored_writes_stay_vectored() {
    let wire = Endless::default();
    let calls = Arc::clone(&wire.vectored);
    let (a, b, c) = ([1; 10], [2; 0], [3; 20]);
    let slices = [IoSlice::new(&a), IoSlice::new(&b), IoSlice::new(&c)];
    let meter = Meter::new();
    let metered = Metered::new(wire, meter.clone());
    let mut stream = Throttled::new(metered).with_write(TokenBucket::with_burst(1_500, 1));
    assert!(stream.is_write_vectored());
    // A turn is 10 ms: 15 bytes; the second slice is cut there.
    assert_eq!(stream.write_vectored(&slices).await.unwrap(), 15);
    let mut open = Throttled::new(stream.into_inner());
    assert_eq!(open.write_vectored(&slices).await.unwrap(), 30);
    assert_eq!(*calls.lock().unwrap(), [vec![10, 0, 5], vec![10, 0, 20]]);
    assert_eq!((meter.bytes_out(), meter.writes()), (45, 2));
}

/// A user's own policy: nothing at first, then one byte a second.
struct Stingy(Instant);

impl Policy for Stingy {
    fn reserve(&self, want: usize, now: Instant) -> Grant {
        if now < self.0 {
            return Grant {
                bytes: 0,
                at: self.0,
            };
        }
        Grant {
            bytes: want.min(1),
            at: now + Duration::from_secs(1),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own() {
    let start = Instant::now();
    let opening = start + Duration::from_secs(60);
    let mut stream = Throttled::new(Endless::default()).with_write(Arc::new(Stingy(opening)));
    stream.write_all(b"abc").await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 63);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_its_turn_can_be_dropped() {
    let (mut a, b) = tokio::io::duplex(1000);
    a.write_all(&[7; 100]).await.unwrap();
    drop(a);
    let mut b = Throttled::new(b).with_read(TokenBucket::new(1000));
    let mut got = Vec::new();
    let mut dropped = 0;
    while got.len() < 100 {
        let mut buf = [0; 9];
        match tokio::time::timeout(Duration::from_millis(1), b.read(&mut buf)).await {
            Ok(n) => got.extend_from_slice(&buf[..n.unwrap()]),
            Err(_) => dropped += 1,
        }
    }
    assert_eq!(got, [7; 100]);
    assert!(dropped > 50, "{dropped}");
    let end = poll_fn(|cx| Pin::new(&mut b).poll_read(cx, &mut ReadBuf::new(&mut [0; 9]))).await;
    end.unwrap();
}
