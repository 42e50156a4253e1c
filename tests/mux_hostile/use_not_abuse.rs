//! What looks like an attack and is ordinary use: streams that are left early, in any number, at any speed. And what looks
//! like it and is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cepa::Side;
use cepa::mux::{Config, Event, Limit, Mux, MuxError, StreamTimeouts, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::attacker::{
    FIN, INITIAL_WINDOW, PING, RST, SYN, WINDOW, data, header, pipe, read_all, read_one,
};
use crate::{Ended, in_virtual_time, start};

fn pair() -> ((Mux, Ended), (Mux, Ended)) {
    let (a, b) = tokio::io::duplex(64 << 10);
    (
        start(a, Side::Client, Config::default()),
        start(b, Side::Server, Config::default()),
    )
}

/// More than the allowance for resets, and no time passes in which it would fill up.
const MANY: usize = 5000;

#[test]
fn asking_and_leaving_without_a_goodbye_is_no_attack() {
    in_virtual_time(async {
        let ((client, _), (server, _)) = pair();
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok(mut stream) = serving.accept().await {
                let asked = stream.read_u8().await.unwrap();
                stream.write_u8(asked + 1).await.unwrap();
                // It may read on; the reset is no news to it.
                stream.read_u8().await.unwrap_err();
            }
        });
        for _ in 0..MANY {
            let mut stream = client.open().await.unwrap();
            stream.write_u8(7).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 8);
        }
        client.ping().await.unwrap();
    });
}

#[test]
fn to_be_refused_in_words_is_no_attack() {
    in_virtual_time(async {
        let ((client, _), (server, _)) = pair();
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok(mut stream) = serving.accept().await {
                stream.write_all(b"no such thing").await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        for _ in 0..MANY {
            let mut stream = client.open().await.unwrap();
            stream.write_all(b"something").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"no such thing");
        }
        client.ping().await.unwrap();
    });
}

#[test]
fn to_be_refused_without_words_is_no_attack() {
    in_virtual_time(async {
        let ((client, _), (server, _)) = pair();
        let serving = server.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok(stream) = serving.accept().await {
                number += 1;
                // A word for it, or none.
                if number % 2 == 0 {
                    stream.refuse();
                }
            }
        });
        for _ in 0..MANY {
            let mut stream = client.open().await.unwrap();
            stream.read_u8().await.unwrap_err();
        }
        client.ping().await.unwrap();
    });
}

/// Whoever takes openings back before they were answered is made to wait here, before the peer has to do anything.
#[test]
fn openings_that_are_taken_back_at_once_are_paced_at_this_end() {
    in_virtual_time(async {
        let ((client, _), (server, _)) = pair();
        let begun = tokio::time::Instant::now();
        // Nobody accepts.
        for _ in 0..MANY {
            let mut stream = client.open().await.unwrap();
            stream.write_u8(7).await.unwrap();
            // So that the opening leaves.
            tokio::task::yield_now().await;
        }
        let passed = begun.elapsed();
        let at_least = Duration::from_secs((MANY as u64 - 1000 - 256) / 33);
        assert!(passed >= at_least, "{passed:?}");
        assert!(passed <= 2 * at_least, "{passed:?}");
        client.ping().await.unwrap();
        server.ping().await.unwrap();
        // And what is meant is served, without a wait worth the name.
        let begun = tokio::time::Instant::now();
        let mut here = client.open().await.unwrap();
        here.write_u8(1).await.unwrap();
        let mut there = loop {
            let mut stream = server.accept().await.unwrap();
            if stream.read_u8().await.is_ok_and(|byte| byte == 1) {
                break stream;
            }
        };
        there.write_u8(2).await.unwrap();
        assert_eq!(here.read_u8().await.unwrap(), 2);
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    });
}

/// Openings and resets that nobody had the time to look at: first the peer is served late, then not at all.
#[test]
fn rapid_reset_slows_openings_down_and_then_ends_the_session() {
    in_virtual_time(async {
        let (us, mut peer) = pipe();
        let mut config = Config::default();
        config.stream_timeouts = StreamTimeouts::NONE;
        let (session, driven) = start(us, Side::Server, config);
        let (mut from, mut to) = tokio::io::split(&mut peer);
        let mut id = 1;
        let mut attack = async |times: usize| {
            for _ in 0..times {
                to.write_all(&header(WINDOW, SYN, id, 0)).await.unwrap();
                to.write_all(&header(WINDOW, RST, id, 0)).await.unwrap();
                id += 2;
            }
            to.write_all(&header(WINDOW, SYN, id, 0)).await.unwrap();
            id += 2;
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        // What is within bounds.
        attack(999).await;
        tokio::time::timeout(Duration::from_millis(1), session.accept())
            .await
            .expect("at once")
            .unwrap();
        // Beyond: openings are answered when the allowance is back.
        attack(300).await;
        let begun = tokio::time::Instant::now();
        session.accept().await.unwrap();
        let waited = begun.elapsed().as_secs();
        assert!(
            (8..=10).contains(&waited),
            "{waited} s for 300 of 33 a second"
        );
        // And beyond all bounds it is over.
        attack(1000).await;
        assert!(!driven.is_finished());
        attack(50).await;
        drop((from.read_u8().await, to));
        let end = session.closed().await;
        assert!(
            matches!(end, MuxError::Protocol(Violation::ResetFlood)),
            "{end}"
        );
        driven.await.unwrap().unwrap_err();
        let _ = (PING, read_all(&mut peer).await);
    });
}

/// Serves each stream for a while, and notes how many were open at once.
fn serve_slowly(server: &Mux, pause: Duration) -> Arc<AtomicUsize> {
    let most = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicUsize::new(0));
    let (server, noted) = (server.clone(), Arc::clone(&most));
    tokio::spawn(async move {
        while let Ok(mut stream) = server.accept().await {
            noted.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                let mut asked = Vec::new();
                let whole = stream.read_to_end(&mut asked).await.is_ok();
                tokio::time::sleep(pause).await;
                open.fetch_sub(1, SeqCst);
                if whole {
                    stream.write_all(&asked).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            });
        }
    });
    most
}

#[test]
fn two_thousand_openings_at_once_all_succeed_in_the_end() {
    in_virtual_time(async {
        let ((client, _), (server, _)) = pair();
        let most = serve_slowly(&server, Duration::from_millis(500));
        let mut tasks = JoinSet::new();
        for i in 0..2000_u32 {
            let client = client.clone();
            tasks.spawn(async move {
                let mut stream = client.open().await.unwrap();
                stream.write_u32(i).await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(stream.read_u32().await.unwrap(), i);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(
            most.load(SeqCst),
            256,
            "as many at once as may be, and no more"
        );
    });
}

/// Who opens as many as the other end takes, and always one more, never trips over a limit.
#[test]
fn equal_limits_at_both_ends_are_never_tripped_over() {
    in_virtual_time(async {
        let (a, b) = tokio::io::duplex(64 << 10);
        let mut config = Config::default();
        config.max_inbound_streams = 5;
        config.max_outbound_streams = 5;
        config.accept_backlog = 5;
        let (client, _) = start(a, Side::Client, config.clone());
        let (server, _) = start(b, Side::Server, config);
        let most = serve_slowly(&server, Duration::from_millis(1));
        let mut tasks = JoinSet::new();
        for i in 0..20_u32 {
            let client = client.clone();
            tasks.spawn(async move {
                for j in 0..100 {
                    let mut stream = client.open().await.unwrap();
                    stream.write_u32(i).await.unwrap();
                    if (i + j) % 7 == 0 {
                        // Left, before it can have been answered or at any time.
                        tokio::time::sleep(Duration::from_micros(300 * u64::from(j % 5))).await;
                        continue;
                    }
                    stream.shutdown().await.unwrap();
                    assert_eq!(stream.read_u32().await.unwrap(), i);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert!(most.load(SeqCst) <= 5);
    });
}

#[test]
fn an_opening_above_the_limit_waits_for_as_long_as_its_opener_does() {
    in_virtual_time(async {
        let ((client, _), (server, _)) = pair();
        let mut held = Vec::new();
        for _ in 0..256 {
            let mut stream = client.open().await.unwrap();
            stream.write_u8(1).await.unwrap();
            held.push((stream, server.accept().await.unwrap()));
        }
        let mut waiting = Vec::new();
        for patient in [false, true] {
            let mut stream = client.open().await.unwrap();
            if patient {
                stream.set_timeouts(StreamTimeouts::NONE);
            }
            stream.write_u8(2).await.unwrap();
            waiting.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(server.stats().waiting, 2);
        // The one is given up here, and says what may be the cause.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let error = waiting[0].read_u8().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the stream timed out: the peer did not accept it in time \
             (it may have reached its limit of streams)"
        );
        // The other waits on, and is served when there is room.
        tokio::time::sleep(Duration::from_secs(1000)).await;
        drop(held.pop());
        let mut there = server.accept().await.unwrap();
        assert_eq!(there.read_u8().await.unwrap(), 2);
        there.write_u8(3).await.unwrap();
        assert_eq!(waiting[1].read_u8().await.unwrap(), 3);
        assert_eq!(server.stats().waiting, 0);
    });
}

/// Openings that wait send no more before they are answered than there is memory for beside the others.
#[test]
fn openings_that_wait_do_not_take_the_memory_of_those_that_are_served() {
    const EACH: usize = 300_000;
    in_virtual_time(async {
        let (a, b) = tokio::io::duplex(64 << 10);
        let mut config = Config::default();
        config.max_inbound_streams = 8;
        config.accept_backlog = 8;
        config.receive_budget = 2 << 20; // as with the defaults, a first window for each stream that is served
        config.events = 10_000;
        let (client, _) = start(a, Side::Client, config.clone());
        let (server, _) = start(b, Side::Server, config);
        let most = serve_slowly(&server, Duration::from_secs(1));
        let mut tasks = JoinSet::new();
        for i in 0..60 {
            let client = client.clone();
            tasks.spawn(async move {
                let stream = client.open().await.unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                let asked = vec![i; EACH];
                let want = asked.clone();
                let asking = tokio::spawn(async move {
                    write.write_all(&asked).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                assert!(got == want);
                asking.await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(most.load(SeqCst), 8);
        let mut events = server.events();
        drop((client, server));
        while let Some(event) = events.next().await {
            let short = matches!(
                event,
                Event::LimitReached {
                    limit: Limit::ReceiveMemory
                }
            );
            assert!(!short, "memory was never short");
        }
    });
}

/// A peer that knows no such bound fills all memory with what nobody has accepted. It is let in beyond the limit, and what is too
/// much even then is refused, so that those that are served go on.
#[test]
fn what_waits_and_holds_too_much_is_refused_and_can_come_again() {
    in_virtual_time(async {
        let (us, peer) = pipe();
        let mut config = Config::default();
        config.max_inbound_streams = 2;
        config.accept_backlog = 8;
        config.receive_budget = 1 << 20;
        config.stream_timeouts = StreamTimeouts::NONE;
        let (session, _) = start(us, Side::Server, config);
        let (mut from, mut to) = tokio::io::split(peer);
        let attacker = tokio::spawn(async move {
            let window = vec![7; INITIAL_WINDOW as usize];
            for id in [1, 3, 5, 7, 9, 11, 13] {
                // The first two are served, with two bytes now and the rest behind all others.
                let first = if id < 5 { 2 } else { window.len() };
                if to
                    .write_all(&data(SYN, id, &window[..first]))
                    .await
                    .is_err()
                {
                    return to;
                }
            }
            for id in [1, 3] {
                if to.write_all(&data(FIN, id, b"the rest")).await.is_err() {
                    return to;
                }
            }
            to
        });
        let refusals = tokio::spawn(async move {
            let mut refused = Vec::new();
            while let Ok((_, flags, id, code)) = read_one(&mut from).await {
                if flags == RST {
                    refused.push((id, code));
                }
            }
            refused
        });
        let mut served = Vec::new();
        for _ in 0..2 {
            let mut stream = session.accept().await.unwrap();
            stream.read_u16().await.unwrap();
            served.push(stream);
        }
        let begun = tokio::time::Instant::now();
        for stream in &mut served {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"the rest");
        }
        let waited = begun.elapsed().as_secs();
        assert!((5..30).contains(&waited), "{waited} s");
        // One of those that wait is left, and can be served.
        drop(served);
        let mut left = session.accept().await.unwrap();
        left.read_exact(&mut vec![0; INITIAL_WINDOW as usize])
            .await
            .unwrap();
        drop((left, session, attacker.await));
        let refused = refusals.await.unwrap();
        let short = refused.iter().filter(|(_, code)| *code == 0x6365_7024);
        assert!((1..4).contains(&short.count()), "{refused:x?}");
    });
}

#[test]
fn a_reader_that_pauses_and_a_late_answer_cut_nothing() {
    in_virtual_time(async {
        let ((client, _), (server, _)) = pair();
        let mut here = client.open().await.unwrap();
        let mut there = server.accept().await.unwrap();
        let asked: Vec<u8> = (0..1_000_000_u32).map(|i| (i ^ (i >> 9)) as u8).collect();
        let want = asked.clone();
        let asking = tokio::spawn(async move {
            here.write_all(&asked).await.unwrap();
            here.shutdown().await.unwrap();
            let mut answer = Vec::new();
            here.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut got = Vec::new();
        while let Some(chunk) = there.read_chunk().await.unwrap() {
            got.extend_from_slice(&chunk);
            if got.len() % 8 == 0 {
                tokio::time::sleep(Duration::from_secs(31)).await;
            }
        }
        assert!(got == want);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        there.write_all(b"after all").await.unwrap();
        there.shutdown().await.unwrap();
        assert_eq!(asking.await.unwrap(), b"after all");
    });
}
