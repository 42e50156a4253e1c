//! Peers that do not read, streams that stand still, and many closes at once.

use std::time::Duration;

use cepa::Side;
use cepa::mux::{Config, GoAwayCode, Mux, MuxError, StreamError, StreamTimeouts, Substream};
use cepa::transports::Rate;
use cepa::transports::throttle::{Throttled, TokenBucket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::memory::{KIB, Since};
use crate::{Ended, in_virtual_time, start};

fn patient() -> Config {
    let mut config = Config::default();
    config.stream_timeouts = StreamTimeouts::NONE;
    config
}

fn pair(buffer: usize) -> ((Mux, Ended), (Mux, Ended)) {
    let (a, b) = tokio::io::duplex(buffer);
    (
        start(a, Side::Client, patient()),
        start(b, Side::Server, patient()),
    )
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256 + seed) as u8).collect()
}

/// Both ends write on every stream, without reading a byte, until nothing moves any more; then both
/// read. What libp2p/rust-yamux#227 describes: there, the session stood still for ever.
#[test]
fn both_ends_that_write_until_nothing_moves_can_still_read() {
    const EACH: usize = 700_000; // more than windows, queues and pipe hold together
    const STREAMS: usize = 8;
    for buffer in [30, 4 << 10, 64 << 10] {
        in_virtual_time(async move {
            // Few bytes a poll are slow: less of it.
            let streams = if buffer < 100 { 1 } else { STREAMS };
            let ((client, _), (server, _)) = pair(buffer);
            let mut ends = Vec::new();
            for i in 0..streams {
                let mut here = client.open().await.unwrap();
                here.write_all(&[i as u8]).await.unwrap();
                let mut there = server.accept().await.unwrap();
                assert_eq!(there.read_u8().await.unwrap(), i as u8);
                ends.push((i, here));
                ends.push((i + 100, there));
            }
            let mut writers = JoinSet::new();
            let mut readers = Vec::new();
            for (seed, end) in ends {
                let (read, mut write) = tokio::io::split(end);
                writers.spawn(async move {
                    write.write_all(&pattern(EACH, seed)).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                readers.push((seed, read));
            }
            // Time passes only when nobody can do anything.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(writers.try_join_next().is_none(), "all of them are stuck");
            let mut reading = JoinSet::new();
            for (seed, mut read) in readers {
                reading.spawn(async move {
                    let mut got = Vec::new();
                    read.read_to_end(&mut got).await.unwrap();
                    assert!(
                        got == pattern(EACH, (seed + 100) % 200),
                        "{} bytes",
                        got.len()
                    );
                });
            }
            while let Some(done) = reading.join_next().await {
                done.unwrap();
            }
            while let Some(done) = writers.join_next().await {
                done.unwrap();
            }
        });
    }
}

/// Bytes that `reading` streams receive in 10 s of a path of 1 MB/s, beside `stalled` others that
/// are written to as hard and never read.
async fn received(reading: usize, stalled: usize) -> Vec<u64> {
    let (a, b) = tokio::io::duplex(16 << 10);
    let a = Throttled::new(a).with_write(TokenBucket::new(1_000_000));
    let (client, _) = start(a, Side::Client, patient());
    let (server, _) = start(b, Side::Server, patient());
    let mut writers = JoinSet::new();
    let mut open = async |tag: u8| -> Substream {
        let mut stream = client.open().await.unwrap();
        writers.spawn(async move {
            let block = vec![tag; 64 << 10];
            while stream.write_all(&block).await.is_ok() {}
        });
        server.accept().await.unwrap()
    };
    let mut kept = Vec::new();
    for _ in 0..stalled {
        kept.push(open(1).await);
    }
    // Until they stand still, they have a right to their windows.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut readers = JoinSet::new();
    for _ in 0..reading {
        let mut stream = open(0).await;
        readers.spawn(async move {
            let mut got = 0;
            let until = tokio::time::Instant::now() + Duration::from_secs(10);
            while let Ok(chunk) = tokio::time::timeout_at(until, stream.read_chunk()).await {
                got += chunk.unwrap().unwrap().len() as u64;
            }
            got
        });
    }
    let mut all = readers.join_all().await;
    all.sort_unstable();
    all
}

#[test]
fn streams_that_stand_still_leave_the_others_their_rate() {
    in_virtual_time(async {
        let alone: u64 = received(4, 0).await.iter().sum();
        assert!(alone > 9_000_000, "{alone}: the path is used");
        for stalled in [1, 8] {
            let each = received(4, stalled).await;
            let beside: u64 = each.iter().sum();
            println!("4 streams alone: {alone} B, beside {stalled} stalled: {beside} B");
            assert!(beside * 100 >= alone * 95, "{beside} of {alone}");
            assert!(each[0] * 100 >= each[3] * 90, "and fairly: {each:?}");
        }
    });
}

/// 10,000 closes of every kind, while bulk goes both ways: no task, no stream, no byte is left.
#[test]
fn ten_thousand_closes_under_load_leave_no_task_and_no_byte() {
    in_virtual_time(async {
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let tasks_before = tasks();
        let since = Since::now();
        let ((client, driven), (server, served)) = pair(64 << 10);
        let answering = {
            let server = server.clone();
            tokio::spawn(async move {
                let mut answers = JoinSet::new();
                while let Ok(mut stream) = server.accept().await {
                    answers.spawn(async move {
                        // Its end may be abnormal: that is what this is about.
                        while let Ok(Some(chunk)) = stream.read_chunk().await {
                            if stream.write_chunk(chunk).await.is_err() {
                                return;
                            }
                        }
                        let _ = stream.shutdown().await;
                    });
                    while answers.try_join_next().is_some() {}
                }
            })
        };
        // Once around, so that buffers have the size that they keep.
        let (mut read, mut write) = tokio::io::split(client.open().await.unwrap());
        let writer = tokio::spawn(async move {
            write.write_all(&pattern(500_000, 0)).await.unwrap();
            write.shutdown().await.unwrap();
        });
        tokio::io::copy(&mut read, &mut tokio::io::sink())
            .await
            .unwrap();
        writer.await.unwrap();
        drop(read);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let warm = since.held();

        let mut closers = JoinSet::new();
        for i in 0..20 {
            let client = client.clone();
            closers.spawn(async move {
                for j in 0..500 {
                    let mut stream = client.open().await.unwrap();
                    match (i + j) % 5 {
                        0 => {}
                        1 => stream.write_all(b"dropped with this").await.unwrap(),
                        2 => {
                            stream.write_all(&[1; 3000]).await.unwrap();
                            stream.shutdown().await.unwrap();
                        }
                        3 if j % 100 == 3 => {
                            stream.write_all(b"reset").await.unwrap();
                            stream.reset(3);
                        }
                        _ => {
                            stream.write_all(&[2; 1000]).await.unwrap();
                            stream.shutdown().await.unwrap();
                            let mut got = Vec::new();
                            stream.read_to_end(&mut got).await.unwrap();
                            assert_eq!(got, [2; 1000]);
                        }
                    }
                    drop(stream);
                    // Resets in a row are an attack: 33 a second are not.
                    tokio::time::sleep(Duration::from_millis(400)).await;
                }
            });
        }
        let bulk = {
            let client = client.clone();
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(client.open().await.unwrap());
                let reader = tokio::spawn(async move {
                    tokio::io::copy(&mut read, &mut tokio::io::sink())
                        .await
                        .unwrap()
                });
                let block = vec![3; 16 << 10];
                for _ in 0..400 {
                    write.write_all(&block).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                write.shutdown().await.unwrap();
                assert_eq!(reader.await.unwrap(), 400 * (16 << 10));
            })
        };
        while let Some(done) = closers.join_next().await {
            done.unwrap();
        }
        bulk.await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for session in [&client, &server] {
            let stats = session.stats();
            assert_eq!(
                (
                    stats.streams,
                    stats.inbound,
                    stats.unread,
                    stats.unsent,
                    stats.windows
                ),
                (0, 0, 0, 0, 0)
            );
        }
        let left = since.held().saturating_sub(warm);
        println!("10,000 closes: {} KiB more than before", left / KIB);
        assert!(left <= 128 * KIB, "{left} bytes beside idle buffers");
        client.close().await;
        answering.await.unwrap();
        driven.await.unwrap().unwrap();
        served.await.unwrap().unwrap();
        drop((client, server));
        assert_eq!(tasks(), tasks_before, "no task");
        println!("and after the end: {} B", since.held());
        assert!(since.held() <= 32 * KIB, "{} bytes", since.held());
    });
}

/// While a session goes away, it waits for what the peer still has to say or to take, and does not spin
/// meanwhile: else virtual time would stand still here for ever.
#[test]
fn an_ending_session_waits_in_peace() {
    in_virtual_time(async {
        // Gone away, with a stream that lives on.
        let ((client, driven), (server, _)) = pair(1 << 10);
        let mut here = client.open().await.unwrap();
        let mut there = server.accept().await.unwrap();
        client.go_away(GoAwayCode::Normal).await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        here.write_all(b"still here").await.unwrap();
        here.shutdown().await.unwrap();
        there.shutdown().await.unwrap();
        there.read_to_end(&mut Vec::new()).await.unwrap();
        here.read_to_end(&mut Vec::new()).await.unwrap();
        drop((here, there));
        driven.await.unwrap().unwrap();
        assert!(server.closed().await.is_clean());
    });
}

/// With nothing left to say a close waits for nobody, and what was said can still be read.
#[test]
fn a_close_with_nothing_left_to_say_is_over_at_once() {
    in_virtual_time(async {
        for dropped in [false, true] {
            let ((client, driven), (server, served)) = pair(64 << 10);
            let mut here = client.open().await.unwrap();
            here.write_all(&pattern(100_000, 0)).await.unwrap();
            here.shutdown().await.unwrap();
            // The peer holds the stream, has read nothing, and does not end its direction.
            let mut there = server.accept().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let begun = tokio::time::Instant::now();
            if dropped {
                drop((here, client));
            } else {
                client.close().await;
            }
            driven.await.unwrap().unwrap();
            let passed = begun.elapsed();
            assert!(passed < Duration::from_millis(100), "{passed:?}");
            let mut got = Vec::new();
            there.read_to_end(&mut got).await.unwrap();
            assert!(got == pattern(100_000, 0));
            served.await.unwrap().unwrap();
        }
    });
}

/// How a peer keeps a close waiting.
#[derive(Clone, Copy, Debug)]
enum Slow {
    /// It does not read the stream.
    Still,
    /// It reads a byte every ten seconds.
    Dripping,
    /// It does not read the wire.
    Deaf,
    /// It reads everything and never ends its own direction.
    Open,
}

#[test]
fn a_close_is_over_in_its_time_whatever_the_peer_does() {
    in_virtual_time(async {
        for slow in [Slow::Still, Slow::Dripping, Slow::Deaf, Slow::Open] {
            for timeout in [Duration::from_secs(2), Duration::from_secs(20)] {
                let (a, b) = tokio::io::duplex(1 << 10);
                let mut config = patient();
                config.close_timeout = timeout;
                let (client, driven) = start(a, Side::Client, config);
                let mut here = client.open().await.unwrap();
                let peer = match slow {
                    Slow::Deaf | Slow::Open => {
                        let (mut from, to) = tokio::io::split(b);
                        tokio::spawn(async move {
                            let mut scrap = [0; 1000];
                            while matches!(slow, Slow::Open)
                                && from.read(&mut scrap).await.is_ok_and(|n| n > 0)
                            {
                            }
                            std::future::pending::<()>().await;
                            drop((from, to));
                        })
                    }
                    Slow::Still | Slow::Dripping => {
                        let (server, _) = start(b, Side::Server, patient());
                        tokio::spawn(async move {
                            let mut there = server.accept().await.unwrap();
                            while matches!(slow, Slow::Dripping) && there.read_u8().await.is_ok() {
                                tokio::time::sleep(Duration::from_secs(10)).await;
                            }
                            std::future::pending::<()>().await;
                        })
                    }
                };
                here.write_all(&pattern(120_000, 0)).await.unwrap();
                if !matches!(slow, Slow::Deaf | Slow::Open) {
                    // More than a window.
                    here.write_all(&pattern(200_000, 0)).await.unwrap();
                }
                here.shutdown().await.unwrap();
                let begun = tokio::time::Instant::now();
                client.close().await;
                let _ = driven.await.unwrap();
                let passed = begun.elapsed();
                let at_most = timeout + Duration::from_millis(10);
                assert!(passed <= at_most, "{slow:?}: {passed:?} of {timeout:?}");
                let error = here.read_u8().await.unwrap_err();
                assert!(
                    matches!(
                        crate::stream_error(&error),
                        StreamError::Session(MuxError::Closed)
                    ),
                    "{error}"
                );
                peer.abort();
            }
        }
    });
}

/// What can be sent in the time is sent, and a line that tells its rate gets the time that it needs.
#[test]
fn a_close_sends_what_is_queued_as_long_as_that_moves() {
    in_virtual_time(async {
        for (rate, line_rate) in [(100_000, None), (10_000, Some(10_000.0))] {
            let (a, b) = tokio::io::duplex(1 << 10);
            let a = Throttled::new(a).with_write(TokenBucket::new(rate));
            let mut config = patient();
            config.line_rate = line_rate.map(Rate::bytes_per_second);
            let (client, driven) = start(a, Side::Client, config);
            let (server, _) = start(b, Side::Server, patient());
            let mut here = client.open().await.unwrap();
            here.write_all(&pattern(120_000, 1)).await.unwrap();
            here.shutdown().await.unwrap();
            let mut there = server.accept().await.unwrap();
            let reading = tokio::spawn(async move {
                let mut got = Vec::new();
                there.read_to_end(&mut got).await.unwrap();
                got
            });
            client.close().await;
            driven.await.unwrap().unwrap();
            assert!(reading.await.unwrap() == pattern(120_000, 1));
        }
    });
}
