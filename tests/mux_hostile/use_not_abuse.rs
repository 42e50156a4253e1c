//! What looks like an attack and is ordinary use: streams that are left early, in any number, at any speed. And what looks
//! like it and is one.

use std::time::Duration;

use cepa::Side;
use cepa::mux::{Config, Mux, MuxError, StreamTimeouts, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attacker::{PING, RST, SYN, WINDOW, header, pipe, read_all};
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
