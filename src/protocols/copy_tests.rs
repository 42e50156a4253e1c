//! A join of two substreams, over sessions in memory and in virtual time: what each end has said reaches the other before it is told how it
//! ended, and no end is made up. The model knows what each end did, and what it has read.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::Side;
use cepa_transports::throttle::{Grant, Policy};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::copy::{End, copy};
use crate::mux::{Config, StreamError, StreamTimeouts, Substream, mux};

/// More virtual time than anything takes.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

struct Unlimited;

impl Policy for Unlimited {
    fn reserve(&self, want: usize, now: Instant) -> Grant {
        Grant {
            bytes: want,
            at: now,
        }
    }
}

async fn substream(config: &Config) -> (Substream, Substream) {
    let (one, two) = tokio::io::duplex(64 << 10);
    let (one, driver) = mux(one, Side::Client, config.clone());
    tokio::spawn(driver);
    let (two, driver) = mux(two, Side::Server, config.clone());
    tokio::spawn(driver);
    let (one, two) = tokio::join!(one.open(), two.accept());
    let (mut one, mut two) = (one.unwrap(), two.unwrap());
    for stream in [&mut one, &mut two] {
        stream.set_timeouts(StreamTimeouts::NONE);
    }
    (one, two)
}

/// Two ends that are joined.
async fn joined() -> (Substream, Substream) {
    joined_by(&Config::default()).await
}

async fn joined_by(config: &Config) -> (Substream, Substream) {
    let ((one, near), (far, other)) = (substream(config).await, substream(config).await);
    let (near, far) = (
        End::new((near, bytes::Bytes::new())),
        End::new((far, bytes::Bytes::new())),
    );
    tokio::spawn(copy(near, far, Arc::new(Unlimited), pending(), |_| ()));
    (one, other)
}

/// What has been read, and how that ended: `None` for an end, else the code of the reset.
async fn hear(stream: &mut Substream, pause: Duration) -> (usize, Option<u32>) {
    let (mut heard, mut bytes) = (0, vec![0; 20_000]);
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) => return (heard, None),
            Ok(n) => heard += n,
            Err(e) => match e.get_ref().and_then(|e| e.downcast_ref()) {
                Some(StreamError::ResetByPeer { code }) => return (heard, Some(*code)),
                other => panic!("{other:?}"),
            },
        }
        sleep(pause).await;
    }
}

/// What there is no room for stays where it came, and little room is made before anybody is known to read.
#[tokio::test(start_paused = true)]
async fn a_join_that_nobody_reads_holds_a_window_and_a_record_each_way() {
    const SMALL: usize = 64 << 10;
    let config = Config {
        first_window: 64 << 10,
        ..Config::default()
    };
    let (mut one, mut other) = joined_by(&config).await;
    let piece = [0; 10_000];
    let mut sent = [0; 2];
    for (stream, sent) in [&mut one, &mut other].into_iter().zip(&mut sent) {
        while let Ok(n) = timeout(Duration::from_secs(10), stream.write(&piece)).await {
            *sent += n.unwrap();
        }
        // The writer's queue, the window here, the queue here, and the window of who does not read.
        assert_eq!(*sent, SMALL + SMALL + (16 << 10) + SMALL);
    }
    // As soon as they read, all of it comes, and more.
    for sent in sent {
        std::mem::swap(&mut one, &mut other);
        let (reader, writer) = (&mut one, &mut other);
        let more = async {
            writer.write_all(&vec![0; 1 << 20]).await.unwrap();
        };
        let read = async {
            reader
                .read_exact(&mut vec![0; sent + (1 << 20)])
                .await
                .unwrap();
        };
        timeout(FOR_EVER, async { tokio::join!(more, read) })
            .await
            .unwrap();
    }
}

/// A server that answers early and wants no more, behind a forwarder or a relay: the way to it is full.
#[tokio::test(start_paused = true)]
async fn a_last_answer_arrives_before_the_reset_behind_it() {
    let (mut client, mut server) = joined().await;
    let asking = async {
        // All windows and queues on the way are full of it, and it goes on.
        let mut sent = 0;
        let piece = vec![0; 64 << 10];
        while let Ok(n) = client.write(&piece).await {
            sent += n;
        }
        assert!(sent > 100_000);
        hear(&mut client, Duration::ZERO).await
    };
    let answering = async {
        sleep(Duration::from_secs(1)).await;
        server.write_all(&[1; 200]).await.unwrap();
        server.drained(None).await.unwrap();
        server.reset(9);
    };
    let both = async { tokio::join!(asking, answering).0 };
    let (heard, end) = timeout(FOR_EVER, both).await.unwrap();
    assert_eq!((heard, end), (200, Some(9)));
}

/// What was taken of an end that is lost then is not thrown away in the queue to the other one.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_all_that_came_before_a_reset() {
    let (mut client, mut server) = joined().await;
    let said = async {
        client.write_all(&vec![0; 300_000]).await.unwrap();
        client.drained(None).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        client.reset(9);
    };
    let heard = hear(&mut server, Duration::from_secs(5));
    let both = async { tokio::join!(said, heard).1 };
    assert_eq!(timeout(FOR_EVER, both).await.unwrap(), (300_000, Some(9)));
}

#[derive(Clone, Debug)]
struct Script {
    /// Written in such pieces, with pauses of so many milliseconds.
    writes: Vec<(usize, u64)>,
    /// Ends by a FIN, or else by a reset, which may come behind it.
    fin: bool,
    reset: bool,
    /// Milliseconds between two reads.
    pause: u64,
}

#[derive(Debug)]
struct Outcome {
    /// What had left before it ended.
    said: usize,
    heard: usize,
    end: Option<u32>,
}

async fn act(mut stream: Substream, script: &Script, code: u32) -> Outcome {
    // One task reads and writes; what a write has to wait for must not stop the reading.
    let (mut said, mut heard, mut end) = (0, 0, None::<Option<u32>>);
    let mut bytes = vec![0; 20_000];
    for (len, pause) in &script.writes {
        let mut left = vec![0; *len];
        while !left.is_empty() {
            tokio::select! {
                biased;
                read = stream.read(&mut bytes), if end.is_none() => match read {
                    Ok(0) => end = Some(None),
                    Ok(n) => heard += n,
                    Err(_) => break,
                },
                () = sleep(Duration::from_millis(*pause)) => {
                    match timeout(Duration::from_millis(50), stream.write(&left)).await {
                        Ok(Ok(n)) => { left.drain(..n); said += n; }
                        Ok(Err(_)) => break,
                        Err(_) => {}
                    }
                }
            }
        }
    }
    // Read on until all has arrived at the join: a reset of ours would take it back.
    let mut hearing = |e: std::io::Result<usize>| match e {
        Ok(0) => Some(None),
        Ok(n) => {
            heard += n;
            None
        }
        Err(e) => match e.get_ref().and_then(|e| e.downcast_ref()) {
            Some(StreamError::ResetByPeer { code }) => Some(Some(*code)),
            _ => Some(Some(0)),
        },
    };
    if script.fin {
        let _ = stream.shutdown().await;
    }
    if script.reset {
        while stream.stats().unsent > 0 && end.is_none() {
            if let Ok(read) = timeout(Duration::from_millis(10), stream.read(&mut bytes)).await {
                end = hearing(read);
            }
        }
        sleep(Duration::from_millis(100)).await;
        stream.reset(code);
        return Outcome {
            said,
            heard,
            end: end.unwrap_or(Some(code)),
        };
    }
    while end.is_none() {
        end = hearing(stream.read(&mut bytes).await);
        sleep(Duration::from_millis(script.pause)).await;
    }
    let _ = stream.shutdown().await;
    // Until all of it has been taken.
    let _ = timeout(FOR_EVER / 2, stream.drained(None)).await;
    sleep(Duration::from_secs(3600)).await;
    Outcome {
        said,
        heard,
        end: end.unwrap(),
    }
}

fn script() -> impl Strategy<Value = Script> {
    let writes = prop::collection::vec((0..150_000_usize, 0..20_u64), 0..4);
    (writes, any::<bool>(), any::<bool>(), 0..50_u64).prop_map(|(writes, fin, reset, pause)| {
        Script {
            writes,
            fin: fin || !reset,
            reset,
            pause,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_said_is_lost_and_no_end_is_made_up(one in script(), two in script()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let live = async {
            let (client, server) = joined().await;
            tokio::join!(act(client, &one, 21), act(server, &two, 22))
        };
        let outcome = runtime.block_on(async { timeout(FOR_EVER, live).await });
        let Ok((a, b)) = outcome else {
            return Err(TestCaseError::fail("it does not end"));
        };
        for (from, script, to, other) in [(&a, &one, &b, &two), (&b, &two, &a, &one)] {
            prop_assert!(to.heard <= from.said, "{a:?} {b:?}");
            // Who listens to the end hears all, and what the end was.
            if !other.reset {
                if to.end.is_none() {
                    prop_assert!(script.fin, "a clean end where there was none: {a:?} {b:?}");
                    prop_assert_eq!(to.heard, from.said, "{:?} {:?}", a, b);
                } else {
                    prop_assert!(script.reset, "a reset where there was none: {a:?} {b:?}");
                    prop_assert_eq!(to.heard, from.said, "{:?} {:?}", a, b);
                }
            }
        }
    }
}
