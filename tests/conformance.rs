//! Every stream type of this package passes the one suite that every stream type of cepa passes.
//!
//! What the transports make (memory, tcp, unix, pty and serial, exec) passes it in their own package.
//! Here: the onion with 0 to 3 layers, a substream of the mux, alone, over TLS and with TLS inside,
//! and the middleware on top of an onion, where it counts application bytes.

mod support;

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, Pinned};
use cepa::mux::{self, Substream};
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::meter::{Meter, Metered};
use cepa::transports::testkit::{Chopped, Cuts, Options, check_streams};
use cepa::transports::throttle::{Throttled, TokenBucket};
use cepa::transports::{ByteStream, Stream, dial, listen, memory};
use support::Pair;
use tokio::io::{DuplexStream, duplex};

/// What a Linux pipe holds.
const PIPE: usize = 64 * 1024;

/// Runs the suite, and fails with the check's own words.
async fn check<A, B, F, Fut>(options: &Options, what: &str, connect: F)
where
    A: ByteStream,
    B: ByteStream,
    F: FnMut() -> Fut,
    Fut: Future<Output = (A, B)>,
{
    let result = check_streams(options, connect).await;
    result.unwrap_or_else(|failure| panic!("{what}: {failure}"));
}

/// A stream in memory can be held to a bound of its own; the default is that of the kernel's TCP.
/// The largest there is: send queue and receive window of a substream, and an onion's buffers at
/// both ends, are 0.5 MiB together.
fn in_memory() -> Options {
    Options {
        max_buffered: 2 << 20,
        ..Options::default()
    }
}

/// Two onions with so many layers. Clients and servers change places from layer to layer, since a
/// TLS role says nothing about the other layers.
async fn onions<A: ByteStream, B: ByteStream>(
    (a, b): (A, B),
    depth: usize,
    pair: &Pair,
) -> (Onion<A>, Onion<B>) {
    let (mut a, mut b) = (Onion::new(a), Onion::new(b));
    for layer in 0..depth {
        let (left, right) = if layer % 2 == 0 {
            (Side::Client, Side::Server)
        } else {
            (Side::Server, Side::Client)
        };
        let (left, right) =
            tokio::join!(a.push(left, &pair.left_tls), b.push(right, &pair.right_tls));
        left.unwrap();
        right.unwrap();
    }
    (a, b)
}

/// A dialled TCP connection and the accepted end of it.
async fn tcp() -> (Stream, Stream) {
    let mut listener = listen(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = listener.endpoint().clone();
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    (dialled.unwrap(), accepted.unwrap().unwrap())
}

/// The ends of one substream of a fresh session over these ends; no handle on the session is left.
async fn substreams<A: ByteStream, B: ByteStream>((a, b): (A, B)) -> (Substream, Substream) {
    let (a, a_driver) = mux::mux(a, Side::Client, mux::Config::default());
    let (b, b_driver) = mux::mux(b, Side::Server, mux::Config::default());
    tokio::spawn(a_driver);
    tokio::spawn(b_driver);
    let (opened, accepted) = tokio::join!(a.open(), b.accept());
    (opened.unwrap(), accepted.unwrap())
}

/// Two sessions that know each other over these ends.
async fn sessions((a, b): (Stream, Stream), pair: &Pair) -> (Session, Session) {
    let config = |own: &Identity, other: &Identity| {
        StackConfig::new(own.clone(), Arc::new(Pinned::one(other.peer_id())))
    };
    let (left, right) = (
        config(&pair.left, &pair.right),
        config(&pair.right, &pair.left),
    );
    let (a, b) = tokio::join!(
        Session::handshake(a, &[], Side::Client, &left),
        Session::handshake(b, &[], Side::Server, &right)
    );
    (a.unwrap(), b.unwrap())
}

// ---- the onion -------------------------------------------------------------------------------

async fn onion_of(depth: usize) {
    let pair = &Pair::new();
    check(&in_memory(), &format!("onion of {depth}"), || {
        onions(duplex(PIPE), depth, pair)
    })
    .await;
}

#[tokio::test]
async fn onion_without_layers() {
    onion_of(0).await;
}

#[tokio::test]
async fn onion_of_one_layer() {
    onion_of(1).await;
}

#[tokio::test]
async fn onion_of_two_layers() {
    onion_of(2).await;
}

#[tokio::test]
async fn onion_of_three_layers() {
    onion_of(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn onion_on_two_threads() {
    onion_of(2).await;
}

/// What is left of an onion whose layers were all taken off.
#[tokio::test]
async fn onion_after_the_last_pop() {
    let pair = &Pair::new();
    check(&in_memory(), "popped onion", || async {
        let (mut a, mut b) = onions(duplex(PIPE), 2, pair).await;
        for _ in 0..2 {
            let (left, right) = tokio::join!(a.pop(), b.pop());
            left.unwrap();
            right.unwrap();
        }
        (a, b)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn onion_over_tcp() {
    let pair = &Pair::new();
    check(&Options::default(), "onion over TCP", || async {
        onions(tcp().await, 1, pair).await
    })
    .await;
}

/// Pipes that hold less than a record, cut at random, and say "pending" without need.
#[tokio::test]
async fn onion_over_a_stream_in_pieces() {
    let pair = &Pair::new();
    let options = Options {
        volume: 200_000,
        ..in_memory()
    };
    let chopped = |stream: DuplexStream, seed| {
        Chopped::new(stream, Cuts::Random { max: 900 }, seed).with_pauses(10)
    };
    for depth in [0, 1, 2] {
        check(&options, &format!("chopped onion of {depth}"), || {
            let (a, b) = duplex(1000);
            onions((chopped(a, 1), chopped(b, 2)), depth, pair)
        })
        .await;
    }
}

// ---- substreams --------------------------------------------------------------------------------

#[tokio::test]
async fn substream() {
    check(&in_memory(), "substream", || substreams(duplex(PIPE))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn substream_on_two_threads() {
    check(&in_memory(), "substream", || substreams(duplex(PIPE))).await;
}

#[tokio::test]
async fn substream_over_a_stream_in_pieces() {
    let options = Options {
        volume: 200_000,
        ..in_memory()
    };
    let chopped = |stream: DuplexStream, seed| {
        Chopped::new(stream, Cuts::Random { max: 900 }, seed).with_pauses(10)
    };
    check(&options, "substream in pieces", || {
        let (a, b) = duplex(1000);
        substreams((chopped(a, 1), chopped(b, 2)))
    })
    .await;
}

#[tokio::test]
async fn substream_over_tls() {
    let pair = &Pair::new();
    check(&in_memory(), "substream over TLS", || async {
        substreams(onions(duplex(PIPE), 1, pair).await).await
    })
    .await;
}

/// A substream as a service gets it.
#[tokio::test]
async fn substream_of_a_session() {
    let pair = &Pair::new();
    check(&in_memory(), "substream of a session", || async {
        let (a, b) = sessions(memory::pair(), pair).await;
        let (opened, accepted) = tokio::join!(a.open("x"), async {
            b.accept().await.unwrap().accept().await
        });
        (opened.unwrap(), accepted.unwrap())
    })
    .await;
}

async fn substream_with_inner_tls(what: &str) {
    let pair = &Pair::new();
    // Inside, each end is somebody else than outside.
    let inner = &Pair::new();
    let (opener, acceptor) = (&inner.left_tls, &inner.right_tls);
    check(&in_memory(), what, || async move {
        let (a, b) = sessions(memory::pair(), pair).await;
        let (opened, accepted) = tokio::join!(a.open_secured("x", opener), async {
            b.accept().await.unwrap().accept_secured(acceptor).await
        });
        (opened.unwrap(), accepted.unwrap())
    })
    .await;
}

#[tokio::test]
async fn substream_with_tls_inside() {
    substream_with_inner_tls("substream with inner TLS").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn substream_with_tls_inside_on_two_threads() {
    substream_with_inner_tls("substream with inner TLS on two threads").await;
}

/// Everything is a byte stream: a whole stack inside a substream of another one.
#[tokio::test]
async fn a_session_inside_a_substream() {
    let pair = &Pair::new();
    check(&in_memory(), "nested session", || async {
        let outer = substreams(onions(duplex(PIPE), 1, pair).await).await;
        let (a, b) = onions(outer, 1, pair).await;
        substreams((a, b)).await
    })
    .await;
}

// ---- middleware ----------------------------------------------------------------------------------

#[tokio::test]
async fn metered_and_throttled_onion() {
    let pair = &Pair::new();
    let meter = &Meter::new();
    let bucket = &TokenBucket::new(100_000_000);
    check(&in_memory(), "metered and throttled onion", || async {
        let (a, b) = onions(duplex(PIPE), 1, pair).await;
        let a = Throttled::new(Metered::new(a, meter.clone()))
            .with_read(bucket.clone())
            .with_write(bucket.clone());
        let b = Throttled::new(b).with_write(TokenBucket::new(50_000_000));
        (a, b)
    })
    .await;
    assert!(meter.bytes_in() > 1_300_000 && meter.bytes_out() > 1_300_000);
}
