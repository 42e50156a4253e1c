//! What a session counts is what passes, at every height of the stack, and a policy put on the wire
//! holds the wire.
//!
//! Everything runs over streams in memory and in virtual time, which moves only when every task
//! waits. So "nothing is on its way any more" is a fact and no guess, and all figures are exact.

mod support;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, Pinned};
use cepa::mux::{Stats, Substream};
use cepa::onion::{LayerBytes, LayerInfo, Onion};
use cepa::session::Session;
use cepa::stack::{Binding, StackConfig};
use cepa::transports::meter::{Meter, Metered};
use cepa::transports::throttle::{Grant, Policy, Throttled, TokenBucket};
use cepa::transports::{Layer, Stream, memory};
use support::Pair;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep};

const TLS: &[Layer] = &[Layer::Mux, Layer::Tls];
const TLS_IN_TLS: &[Layer] = &[Layer::Mux, Layer::Tls, Layer::Tls];

/// A TLS 1.3 record adds a header of 5 bytes, the inner type of 1, and the tag of 16.
const RECORD: u64 = 22;
/// A mux frame's header.
const FRAME: u64 = 12;

/// Waits until no task has anything to do: virtual time stands still until then.
async fn settled() {
    sleep(Duration::from_millis(1)).await;
}

/// Two sessions that know each other.
async fn meet(pair: &Pair, layers: &[Layer], (a, b): (Stream, Stream)) -> (Session, Session) {
    let config = |own: &Identity, other: &Identity| {
        let mut config = StackConfig::new(own.clone(), Arc::new(Pinned::one(other.peer_id())));
        // Nothing is counted that no test caused; a slow wire may take its time.
        config.mux.keepalive_interval = None;
        config.layer_timeout = Duration::from_secs(600);
        config.stack_timeout = Duration::from_secs(600);
        config
    };
    let (left, right) = (
        config(&pair.left, &pair.right),
        config(&pair.right, &pair.left),
    );
    let (a, b) = tokio::join!(
        Session::handshake(a, layers, Side::Client, &left),
        Session::handshake(b, layers, Side::Server, &right)
    );
    (a.unwrap(), b.unwrap())
}

/// Both ends of a substream for this service.
async fn open(a: &Session, b: &Session, service: &str) -> (Onion<Substream>, Onion<Substream>) {
    let (opened, accepted) = tokio::join!(a.open(service), async {
        b.accept().await.unwrap().accept().await
    });
    (opened.unwrap(), accepted.unwrap())
}

/// The lengths of the headers of a substream: the opener's, and the answer.
fn headers(service: &str) -> (u64, u64) {
    (3 + service.len() as u64, 3)
}

/// Sends so many bytes and ends that direction, while the other end reads them.
async fn transfer(from: &mut Onion<Substream>, to: &mut Onion<Substream>, bytes: usize) {
    let data: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    let mut got = Vec::new();
    let (sent, read) = tokio::join!(
        async {
            from.write_all(&data).await?;
            from.shutdown().await
        },
        to.read_to_end(&mut got)
    );
    sent.unwrap();
    read.unwrap();
    assert!(got == data, "what arrived differs");
}

// ---- counting ------------------------------------------------------------------------------------

/// Keeps what is written to a stream.
struct Tapped {
    inner: Stream,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.written.lock().unwrap().extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

type Tap = Arc<Mutex<Vec<u8>>>;

/// A pair in memory with a tap on what either end writes.
fn tapped() -> ((Stream, Stream), [Tap; 2]) {
    let (a, b) = memory::pair();
    let taps = [Tap::default(), Tap::default()];
    let tap = |inner, written: &Tap| {
        let written = Arc::clone(written);
        Stream::from_io(Tapped { inner, written }, "tapped")
    };
    ((tap(a, &taps[0]), tap(b, &taps[1])), taps)
}

/// How many TLS records these bytes are, and how many bytes of plaintext are in them.
fn records(mut wire: &[u8]) -> (u64, u64) {
    let (mut count, mut plain) = (0, 0);
    while let Some((head, rest)) = wire.split_first_chunk::<5>() {
        assert_eq!(head[0], 23, "only application data is due here");
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        assert!(rest.len() >= length, "a record is cut off");
        count += 1;
        plain += length as u64 + 5 - RECORD;
        wire = &rest[length..];
    }
    assert!(wire.is_empty(), "half a header is left");
    (count, plain)
}

/// All counters of one end at one moment.
#[derive(Clone, Debug)]
struct Figures {
    wire: (u64, u64),
    layers: Vec<LayerBytes>,
    mux: Stats,
}

impl Figures {
    async fn of(session: &Session) -> Self {
        settled().await;
        Self {
            wire: (session.meter().bytes_in(), session.meter().bytes_out()),
            layers: session.layers().iter().map(LayerInfo::bytes).collect(),
            mux: session.mux_stats(),
        }
    }

    /// What one layer hands down is what the next one below takes up, at every height.
    fn agree(&self) {
        self.agree_outward();
        assert_eq!(self.wire.0, self.layers[0].sealed_in, "wire {self:#?}");
        for pair in self.layers.windows(2) {
            assert_eq!(pair[0].plain_in, pair[1].sealed_in, "layers {self:#?}");
        }
        let innermost = self.layers.last().unwrap();
        let binding = Binding::LENGTH as u64;
        let mux = self.mux.bytes_in;
        assert_eq!(innermost.plain_in, binding + mux, "mux {self:#?}");
    }

    fn agree_outward(&self) {
        assert_eq!(self.wire.1, self.layers[0].sealed_out, "wire {self:#?}");
        for pair in self.layers.windows(2) {
            assert_eq!(pair[0].plain_out, pair[1].sealed_out, "layers {self:#?}");
        }
        let innermost = self.layers.last().unwrap();
        let binding = Binding::LENGTH as u64;
        let mux = self.mux.bytes_out;
        assert_eq!(innermost.plain_out, binding + mux, "mux {self:#?}");
    }

    /// What one end has sent is what the other has received, at every height.
    fn mirrors(&self, other: &Self) {
        assert_eq!(self.wire.1, other.wire.0);
        assert_eq!(self.layers.len(), other.layers.len());
        for (out, into) in self.layers.iter().zip(&other.layers) {
            assert_eq!(out.sealed_out, into.sealed_in);
            assert_eq!(out.plain_out, into.plain_in);
        }
        assert_eq!(self.mux.bytes_out, other.mux.bytes_in);
        assert_eq!(self.mux.data_out, other.mux.data_in);
    }
}

/// Checks both ends, now that nothing is on its way.
async fn both(a: &Session, b: &Session) -> (Figures, Figures) {
    let (left, right) = (Figures::of(a).await, Figures::of(b).await);
    left.agree();
    right.agree();
    left.mirrors(&right);
    right.mirrors(&left);
    (left, right)
}

#[tokio::test(start_paused = true)]
async fn every_height_counts_the_same_bytes() {
    let pair = Pair::new();
    for layers in [TLS, TLS_IN_TLS] {
        let (streams, taps) = tapped();
        let (a, b) = meet(&pair, layers, streams).await;
        let (left, right) = both(&a, &b).await;
        // A handshake is there, and no service yet.
        for figures in [&left, &right] {
            assert!(figures.wire.0 > 800 && figures.wire.1 > 800, "{figures:?}");
            assert_eq!((figures.mux.data_in, figures.mux.data_out), (0, 0));
        }
        let marks = [0, 1].map(|i: usize| taps[i].lock().unwrap().len());
        assert_eq!(marks[0] as u64, left.wire.1, "what the tap saw");
        assert_eq!(marks[1] as u64, right.wire.1, "what the tap saw");

        // Several substreams at once, different volumes each way.
        let volumes = [(1, 700_000), (300_000, 0), (16_384, 16_384), (77, 13)];
        let (mut there, mut back) = (0, 0);
        let mut running = tokio::task::JoinSet::new();
        for (number, (out, home)) in volumes.into_iter().enumerate() {
            let service = "x".repeat(number);
            let (mut opened, mut accepted) = open(&a, &b, &service).await;
            there += out as u64 + headers(&service).0;
            back += home as u64 + headers(&service).1;
            running.spawn(async move {
                transfer(&mut opened, &mut accepted, out).await;
                transfer(&mut accepted, &mut opened, home).await;
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }

        let before = [left, right];
        let (left, right) = both(&a, &b).await;
        assert_eq!((left.mux.data_out, left.mux.data_in), (there, back));
        for (end, (before, after)) in before.iter().zip([&left, &right]).enumerate() {
            // Mux headers are what the mux adds, and nothing else.
            let frames = after.mux.bytes_out - after.mux.data_out;
            assert!(frames > 0 && frames % FRAME == 0, "{frames} bytes");
            // Each layer adds records, and nothing else: there is no padding.
            for (was, is) in before.layers.iter().zip(&after.layers) {
                let plain = is.plain_out - was.plain_out;
                let added = (is.sealed_out - was.sealed_out) - plain;
                assert!(added > 0 && added % RECORD == 0, "{added} bytes");
                assert!(added / RECORD >= plain.div_ceil(16_384));
            }
            // The same figures by somebody who only has the wire.
            let wire = taps[end].lock().unwrap();
            let (count, plain) = records(&wire[marks[end]..]);
            let (was, is) = (before.layers[0], after.layers[0]);
            assert_eq!(plain, is.plain_out - was.plain_out);
            assert_eq!(count * RECORD + plain, is.sealed_out - was.sealed_out);
        }

        // The goodbyes are counted too. Reading is over with the innermost layer's; that of a layer
        // below it, a record of two bytes, is counted by the wire and left unread behind it.
        a.close().await;
        b.closed().await;
        let closed = [Figures::of(&a).await, Figures::of(&b).await];
        for (i, (end, other)) in closed.iter().zip(closed.iter().rev()).enumerate() {
            end.agree_outward();
            assert_eq!(end.wire.1, taps[i].lock().unwrap().len() as u64);
            assert_eq!(end.wire.1, other.wire.0);
            let goodbyes = (layers.len() as u64 - 2) * (RECORD + 2);
            assert_eq!(end.wire.0 - end.layers[0].sealed_in, goodbyes, "{end:#?}");
            assert!(end.wire.1 > [&left, &right][i].wire.1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tls_inside_a_substream_is_counted_apart() {
    let pair = Pair::new();
    let inner = Pair::new();
    let (a, b) = meet(&pair, TLS, memory::pair()).await;
    let (opened, accepted) = tokio::join!(a.open_secured("vault", &inner.left_tls), async {
        let incoming = b.accept().await.unwrap();
        incoming.accept_secured(&inner.right_tls).await
    });
    let (mut opened, mut accepted) = (opened.unwrap(), accepted.unwrap());
    let of = |onion: &Onion<Substream>| onion.layers()[0].clone();
    let (near, far) = (of(&opened), of(&accepted));
    transfer(&mut opened, &mut accepted, 200_000).await;
    transfer(&mut accepted, &mut opened, 1000).await;
    let (left, _) = both(&a, &b).await;
    let (near, far) = (near.bytes(), far.bytes());
    // Each end's binding is 33 bytes more, and the acceptor's word that the opener was let in is one.
    assert_eq!((near.plain_out, near.plain_in), (200_033, 1034));
    assert_eq!((far.plain_out, far.plain_in), (1034, 200_033));
    assert_eq!(
        (near.sealed_out, near.sealed_in),
        (far.sealed_in, far.sealed_out)
    );
    // Nothing else was in that session.
    let (request, answer) = headers("vault");
    assert_eq!(left.mux.data_out, near.sealed_out + request);
    assert_eq!(left.mux.data_in, near.sealed_in + answer);
}

/// A meter can be put at any height by the application as well.
#[tokio::test(start_paused = true)]
async fn application_bytes_are_counted_by_a_meter_on_the_substream() {
    let pair = Pair::new();
    let (a, b) = meet(&pair, TLS, memory::pair()).await;
    let (opened, mut accepted) = open(&a, &b, "x").await;
    let meter = Meter::new();
    let mut opened = Metered::new(opened, meter.clone());
    opened.write_all(&[7; 5000]).await.unwrap();
    opened.shutdown().await.unwrap();
    accepted.read_to_end(&mut Vec::new()).await.unwrap();
    let (left, _) = both(&a, &b).await;
    assert_eq!(meter.bytes_out(), 5000);
    assert_eq!(left.mux.data_out, 5000 + headers("x").0);
}

// ---- throttling --------------------------------------------------------------------------------

/// How long `doing` took, in seconds of virtual time.
async fn timed(doing: impl Future<Output = ()>) -> f64 {
    let start = Instant::now();
    doing.await;
    start.elapsed().as_secs_f64()
}

/// Fails unless so many bytes in so many seconds are this rate: 3 % below it at most (a bucket grants in turns, and now and then
/// the sender tries whether that is a machine that is late), and above it by what a bucket may have saved up (20 ms, and a turn of
/// 10 ms that was granted before).
#[allow(clippy::cast_precision_loss)] // a few million
fn at_rate(what: &str, bytes: u64, seconds: f64, rate: u64) {
    let (bytes, rate) = (bytes as f64, rate as f64);
    let most = rate * (seconds + 0.030) + 1.0;
    assert!(
        bytes <= most && bytes >= rate * seconds * 0.97,
        "{what}: {bytes} bytes in {seconds} s, which is {} a second and not {rate}",
        bytes / seconds
    );
}

/// Bytes on the wire of a session so far, in and out.
fn on_wire(session: &Session) -> (u64, u64) {
    (session.meter().bytes_in(), session.meter().bytes_out())
}

#[tokio::test(start_paused = true)]
async fn a_bucket_holds_the_wire_and_not_the_application() {
    const RATE: u64 = 100_000;
    const BYTES: usize = 500_000;
    let pair = Pair::new();
    // Writing is held at the sender, or reading at the receiver: the same for what passes.
    for (layers, writing) in [(TLS, true), (TLS, false), (TLS_IN_TLS, true)] {
        let (a, b) = memory::pair();
        let bucket = TokenBucket::new(RATE);
        let streams = if writing {
            let a = Throttled::new(a).with_write(bucket);
            (Stream::from_io(a, "throttled"), b)
        } else {
            let b = Throttled::new(b).with_read(bucket);
            (a, Stream::from_io(b, "throttled"))
        };
        let (a, b) = meet(&pair, layers, streams).await;
        let (mut opened, mut accepted) = open(&a, &b, "x").await;
        settled().await;
        let before = on_wire(&b).0;
        let took = timed(transfer(&mut opened, &mut accepted, BYTES)).await;
        let passed = on_wire(&b).0 - before;
        at_rate("wire", passed, took, RATE);
        // The rate is that of the wire: what TLS and the mux add is in it.
        let added = passed - BYTES as u64;
        assert!(added > BYTES as u64 / 16_384 * RECORD, "{added} bytes");
        // The other direction is held by nothing.
        let took = timed(transfer(&mut accepted, &mut opened, BYTES)).await;
        assert!(took < 0.5, "{took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_handshake_is_held_too() {
    const RATE: u64 = 1000;
    let pair = Pair::new();
    let (a, b) = memory::pair();
    let a = Throttled::new(a)
        .with_write(TokenBucket::new(RATE))
        .with_read(TokenBucket::new(RATE));
    let (a, _b) = meet(&pair, TLS, (Stream::from_io(a, "throttled"), b)).await;
    let took = a.handshake_time().as_secs_f64();
    let (read, written) = on_wire(&a);
    // The two directions wait for one another, so each has at least its own time.
    for (what, bytes) in [("in", read), ("out", written)] {
        #[allow(clippy::cast_precision_loss)]
        let least = bytes as f64 / 1000.0 - 0.030;
        assert!(took >= least, "{what}: {bytes} bytes in {took} s");
    }
    #[allow(clippy::cast_precision_loss)]
    let most = (read + written) as f64 / 1000.0 * 1.05;
    assert!(took <= most, "{took} s for {} bytes", read + written);
}

/// Rates of two transfers of 10 s at once, one each way of a session that is held to `up` and `down` bytes a second: bytes on the wire
/// and seconds of each.
async fn both_ways(up_rate: u64, down_rate: u64) -> [(u64, f64); 2] {
    let pair = Pair::new();
    let (a, b) = memory::pair();
    let a = Throttled::new(a)
        .with_write(TokenBucket::new(up_rate))
        .with_read(TokenBucket::new(down_rate));
    let (a, b) = meet(&pair, TLS, (Stream::from_io(a, "throttled"), b)).await;
    let (mut up, mut up_end) = open(&a, &b, "up").await;
    let (mut down_end, mut down) = open(&a, &b, "down").await;
    settled().await;
    let before = on_wire(&a);
    let of = |rate: u64| usize::try_from(10 * rate).unwrap();
    let (up_took, down_took) = tokio::join!(
        timed(transfer(&mut up, &mut up_end, of(up_rate))),
        timed(transfer(&mut down, &mut down_end, of(down_rate)))
    );
    let after = on_wire(&a);
    [
        (after.1 - before.1, up_took),
        (after.0 - before.0, down_took),
    ]
}

#[tokio::test(start_paused = true)]
async fn both_directions_have_their_own_rate() {
    const UP: u64 = 100_000;
    const DOWN: u64 = 120_000;
    // Each takes 10 s; they run at once. Much more there than back would starve for window updates,
    // which wait behind what goes back.
    let [up, down] = both_ways(UP, DOWN).await;
    at_rate("up", up.0, up.1, UP);
    at_rate("down", down.0, down.1, DOWN);
}

/// What goes the other way holds answers up, so that those to a ping and to what followed it come together, as they do from a machine that
/// is late. A trial whether it is one costs next to nothing where it is none; and what a bucket has saved up is no fast path.
#[tokio::test(start_paused = true)]
#[allow(clippy::cast_precision_loss)] // a few million
async fn a_busy_way_back_is_taken_for_neither_a_late_machine_nor_a_fast_path() {
    for (up, down) in [
        (120_000, 100_000),
        (50_000, 60_000),
        (200_000, 200_000),
        (30_000, 30_000),
    ] {
        let both = both_ways(up, down).await;
        for (rate, (bytes, took)) in [up, down].into_iter().zip(both) {
            let part = bytes as f64 / took / rate as f64;
            assert!(part > 0.85, "{part:.3} of {rate}, {up} up, {down} down");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_sessions_share_one_bucket() {
    const RATE: u64 = 200_000;
    let pair = Pair::new();
    let bucket = TokenBucket::new(RATE);
    let mut ends = Vec::new();
    for _ in 0..2 {
        let (a, b) = memory::pair();
        let a = Throttled::new(a).with_write(bucket.clone());
        let (a, b) = meet(&pair, TLS, (Stream::from_io(a, "throttled"), b)).await;
        let substream = open(&a, &b, "x").await;
        ends.push((a, b, substream));
    }
    settled().await;
    let [(a, _a, mut first), (b, _b, mut second)] = ends.try_into().unwrap_or_else(|_| panic!());
    let before = on_wire(&a).1 + on_wire(&b).1;
    let (one, other) = tokio::join!(
        timed(transfer(&mut first.0, &mut first.1, 500_000)),
        timed(transfer(&mut second.0, &mut second.1, 500_000))
    );
    let passed = on_wire(&a).1 + on_wire(&b).1 - before;
    at_rate("together", passed, one.max(other), RATE);
    // And neither was starved meanwhile.
    assert!((one - other).abs() < 0.2, "{one} s and {other} s");
}

/// A policy of one's own: it lets everything pass and keeps the books.
#[derive(Clone, Default)]
struct Books(Arc<Mutex<(u64, u64)>>);

impl Policy for Books {
    fn reserve(&self, want: usize, now: Instant) -> Grant {
        // More than was asked for, so that something is left to give back.
        let bytes = want + 100;
        self.0.lock().unwrap().0 += bytes as u64;
        Grant { bytes, at: now }
    }

    fn refund(&self, bytes: usize) {
        self.0.lock().unwrap().1 += bytes as u64;
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own_is_asked_for_every_byte_of_the_wire() {
    let pair = Pair::new();
    let (a, b) = memory::pair();
    let (reads, writes) = (Books::default(), Books::default());
    let a = Throttled::new(a)
        .with_read(reads.clone())
        .with_write(writes.clone());
    let (a, b) = meet(&pair, TLS, (Stream::from_io(a, "books"), b)).await;
    let (mut opened, mut accepted) = open(&a, &b, "x").await;
    transfer(&mut opened, &mut accepted, 300_000).await;
    transfer(&mut accepted, &mut opened, 100_000).await;
    a.close().await;
    b.closed().await;
    settled().await;
    let (into, out) = on_wire(&a);
    for (books, passed) in [(reads, into), (writes, out)] {
        let (granted, refunded) = *books.0.lock().unwrap();
        assert!(refunded > 0);
        assert_eq!(granted - refunded, passed);
    }
}
