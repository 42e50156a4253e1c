//! Attacks on memory and slots. The figures in the comments are what other implementations were
//! measured to hold in the same attack.

use std::time::Duration;

use cepa::Side;
use cepa::mux::{Config, Mux, MuxError, StreamTimeouts, Violation};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use crate::attacker::{
    ACK, DATA, INITIAL_WINDOW, PING, RST, SYN, Seen, WINDOW, data, flood, header, pipe, read_all,
    read_one,
};
use crate::memory::{KIB, MIB, Since};
use crate::{in_virtual_time, start};

/// The go-away that answers a broken rule.
const PROTOCOL_ERROR: Seen = (3, 0, 0, 1);

/// Keeps every stream that comes, and reads none.
async fn keep_all(session: Mux) -> Vec<cepa::mux::Substream> {
    let mut kept = Vec::new();
    while let Ok(stream) = session.accept().await {
        kept.push(stream);
    }
    kept
}

fn assert_ended_by(end: &MuxError, violation: Violation) {
    assert!(
        matches!(end, MuxError::Protocol(found) if *found == violation),
        "{end}"
    );
}

/// Nothing here times out by itself.
fn patient() -> Config {
    let mut config = Config::default();
    config.stream_timeouts = StreamTimeouts::NONE;
    config
}

/// Waits until nobody has anything to do: only then does time pass.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Fills so many unread windows with bodies of `body` bytes, and says what that cost: held, peak.
async fn fill_windows(windows: u32, body: u32) -> (usize, usize) {
    let (us, mut peer) = pipe();
    let since = Since::now();
    let (session, driven) = start(us, Side::Server, patient());
    let keeper = tokio::spawn(keep_all(session.clone()));
    for i in 0..windows {
        let syn = header(WINDOW, SYN, 2 * i + 1, 0);
        peer.write_all(&syn).await.unwrap();
    }
    let rounds = INITIAL_WINDOW / body;
    // In turn: consecutive frames of one stream would be the easier case. Made once and sent often.
    let at_once = (512 / body).max(1);
    let mut turns = Vec::new();
    for i in 0..windows * at_once {
        turns.extend_from_slice(&header(DATA, 0, 2 * (i % windows) + 1, body));
        turns.resize(turns.len() + body as usize, i as u8);
    }
    let since = since.without(turns.capacity());
    for _ in 0..rounds / at_once {
        peer.write_all(&turns).await.unwrap();
    }
    settled().await;
    let (held, peak) = (since.held(), since.peak());
    assert_eq!(
        session.stats().data_in,
        u64::from(windows) * u64::from(rounds / at_once * at_once * body),
        "all of it was taken"
    );
    // So that the next measurement begins with nothing.
    drop((session, peer));
    driven.await.unwrap().unwrap_err();
    drop(keeper.await.unwrap());
    println!(
        "{windows} windows in frames of {body} B: {} KiB held, {} KiB at the peak",
        held / KIB,
        peak / KIB
    );
    (held, peak)
}

/// `yamux` 0.14.1: 1,027 MiB. hashicorp/yamux: 69 MiB.
#[test]
fn one_byte_frames_into_64_unread_windows_cost_at_most_20_mib() {
    in_virtual_time(async {
        let (held, peak) = fill_windows(64, 1).await;
        assert!(held >= 16 * MIB, "that much data was sent");
        assert!(peak <= 20 * MIB, "{peak} bytes");
    });
}

/// As two ends have it that both know `cepa/2`.
#[test]
fn unread_data_takes_its_own_size_when_nothing_has_come_for_a_second() {
    const SMALL: u32 = 64 << 10;
    static BODY: [u8; 16 << 10] = [7; 16 << 10];
    in_virtual_time(async {
        for body in [1000, (8 << 10) + 1, 16 << 10] {
            let (us, mut peer) = pipe();
            let mut config = patient();
            config.first_window = SMALL;
            let (session, driven) = start(us, Side::Server, config);
            let keeper = tokio::spawn(keep_all(session.clone()));
            let since = Since::now();
            for i in 0..256 {
                let syn = header(WINDOW, SYN, 2 * i + 1, 0);
                peer.write_all(&syn).await.unwrap();
            }
            for _ in 0..SMALL / body {
                for i in 0..256 {
                    let frame = header(DATA, 0, 2 * i + 1, body);
                    peer.write_all(&frame).await.unwrap();
                    peer.write_all(&BODY[..body as usize]).await.unwrap();
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            let held = since.held();
            println!("frames of {body} B: {} KiB held", held / KIB);
            assert!(held <= 18 * MIB, "frames of {body} bytes: {held}");
            // One window has no more room than that.
            peer.write_all(&header(DATA, 0, 1, SMALL)).await.unwrap();
            drop((session, peer));
            let end = driven.await.unwrap().unwrap_err();
            assert_ended_by(&end, Violation::WindowExceeded(1));
            drop(keeper.await.unwrap());
        }
    });
}

#[test]
fn no_size_of_frame_makes_unread_data_cost_more_than_twice_its_size() {
    in_virtual_time(async {
        for body in [
            100,
            1000,
            8 << 10,
            (8 << 10) + 1,
            12 << 10,
            16 << 10,
            64 << 10,
        ] {
            let (held, peak) = fill_windows(64, body).await;
            assert!(peak.max(held) <= 32 * MIB, "frames of {body} bytes: {peak}");
        }
    });
}

/// A round trip: the session lives, and everything before it was taken.
async fn lives(peer: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    peer.write_all(&header(PING, SYN, 0, 7)).await.unwrap();
    while read_one(peer).await.expect("the session lives") != (PING, ACK, 0, 7) {}
}

/// hashicorp/yamux: 5,383 MiB, and going on.
#[test]
fn pings_whose_answers_are_never_read_cost_64_kib_and_the_session() {
    in_virtual_time(async {
        let (us, mut peer) = pipe();
        let (session, driven) = start(us, Side::Server, Config::default());
        lives(&mut peer).await;
        let mut wire = Vec::with_capacity(4 << 10);
        let (since, begun) = (Since::now(), Instant::now());
        let mut sent = 0;
        // 300 a millisecond, for as long as somebody takes them.
        loop {
            wire.clear();
            for _ in 0..300 {
                wire.extend_from_slice(&header(PING, SYN, 0, sent));
                sent += 1;
            }
            if peer.write_all(&wire).await.is_err() {
                break;
            }
            assert!(begun.elapsed() <= Duration::from_secs(10), "not closed");
            settled().await;
        }
        let peak = since.peak();
        println!(
            "ping flood: {} KiB at the peak, closed after {:?} and {sent} pings",
            peak / KIB,
            begun.elapsed()
        );
        assert!(peak <= 64 * KIB, "{peak} bytes");
        assert_ended_by(&session.closed().await, Violation::PingFlood);
        driven.await.unwrap().unwrap_err();
    });
}

/// A ping now and then whose answer is not read is no flood, and never costs more either.
#[test]
fn slow_pings_whose_answers_are_never_read_cost_nothing_more() {
    in_virtual_time(async {
        let (us, mut peer) = pipe();
        let (_session, _driven) = start(us, Side::Server, Config::default());
        lives(&mut peer).await;
        let ask = async |peer: &mut DuplexStream, times| {
            for value in 0..times {
                peer.write_all(&header(PING, SYN, 0, value)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        };
        // Until the pipe is full of answers, which costs us nothing but is counted here.
        ask(&mut peer, 4000).await;
        let since = Since::now();
        ask(&mut peer, 16_000).await;
        let peak = since.peak();
        println!("slow pings: {} KiB at the peak", peak / KIB);
        assert!(peak <= 64 * KIB, "{peak} bytes");
    });
}

/// How a peer opens far too many streams.
#[derive(Clone, Copy, Debug)]
struct SynFlood {
    accepting: bool,
    /// The peer reads what it is answered.
    reading: bool,
    /// It waits for the answers now and then.
    pausing: bool,
}

/// Opens 100,000 streams, and says how many refusals that brought and what it cost.
async fn syn_flood(how: SynFlood) -> (usize, usize) {
    let (us, mut peer) = pipe();
    let (session, driven) = start(us, Side::Server, Config::default());
    lives(&mut peer).await;
    let since = Since::now();
    let keeper = how
        .accepting
        .then(|| tokio::spawn(keep_all(session.clone())));
    let (mut from, mut to) = tokio::io::split(peer);
    let reader = tokio::spawn(async move {
        if how.reading {
            read_all(&mut from).await
        } else {
            std::future::pending().await
        }
    });
    let syn = |i: u32| header(WINDOW, SYN, 2 * i + 1, 0);
    let mut first = 0;
    while how.pausing && first < 100_000 && !driven.is_finished() {
        let some: Vec<u8> = (first..first + 50).flat_map(syn).collect();
        first += 50;
        if to.write_all(&some).await.is_err() {
            break;
        }
        settled().await;
        assert!(session.stats().streams <= 512);
    }
    flood(&mut to, |i, wire| {
        wire.extend_from_slice(&syn(i));
        assert!(!i.is_multiple_of(1000) || session.stats().streams <= 512);
        i < 100_000
    })
    .await;
    assert_ended_by(&session.closed().await, Violation::ResetFlood);
    driven.await.unwrap().unwrap_err();
    let peak = since.peak();
    assert!(session.stats().streams <= 512);
    drop(to);
    let refused = if how.reading {
        let seen = reader.await.unwrap();
        assert_eq!(seen.last(), Some(&PROTOCOL_ERROR));
        seen.iter().filter(|(_, flags, ..)| *flags == RST).count()
    } else {
        reader.abort();
        0
    };
    if let Some(keeper) = keeper {
        assert_eq!(keeper.await.unwrap().len(), 256, "and no more");
    }
    (refused, peak)
}

#[test]
fn of_100_000_openings_256_are_held_256_wait_2_000_are_refused_and_that_is_the_end() {
    in_virtual_time(async {
        for bits in 0..8 {
            let how = SynFlood {
                accepting: bits & 1 != 0,
                reading: bits & 2 != 0,
                pausing: bits & 4 != 0,
            };
            let (refused, peak) = syn_flood(how).await;
            println!(
                "100k SYN, {how:?}: {refused} refused, {} KiB at the peak",
                peak / KIB
            );
            assert!(refused <= 2000);
            // Who floods without a pause gets the go-away before the refusals.
            assert!(refused > 1900 || !(how.reading && how.pausing), "{refused}");
            assert!(peak <= 2 * MIB, "{peak} bytes");
        }
    });
}

/// hashicorp/yamux: 829 MiB.
#[test]
fn a_million_openings_and_resets_hold_512_slots_however_many_handles_are_kept() {
    in_virtual_time(async {
        // As fast as it goes; and so that every handle is kept before its reset comes.
        for one_by_one in [false, true] {
            let (us, mut peer) = pipe();
            let (session, _) = start(us, Side::Server, patient());
            lives(&mut peer).await;
            let since = Since::now();
            let keeper = tokio::spawn(keep_all(session.clone()));
            let pair = |i: u32, wire: &mut Vec<u8>| {
                wire.extend_from_slice(&header(WINDOW, SYN, 2 * i + 1, 0));
                wire.extend_from_slice(&header(WINDOW, RST, 2 * i + 1, 0));
                assert!(!i.is_multiple_of(1000) || session.stats().streams <= 512);
                i < 1_000_000
            };
            let (mut from, mut to) = tokio::io::split(peer);
            let reader = tokio::spawn(async move { read_all(&mut from).await });
            // Far more than are allowed, then the rest at once.
            for i in 0..if one_by_one { 3000 } else { 0 } {
                let mut wire = Vec::new();
                pair(i, &mut wire);
                let (syn, rst) = wire.split_at(12);
                if to.write_all(syn).await.is_err() {
                    break;
                }
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                if to.write_all(rst).await.is_err() {
                    break;
                }
                assert!(session.stats().streams <= 512);
            }
            flood(&mut to, pair).await;
            let peak = since.peak();
            assert_ended_by(&session.closed().await, Violation::ResetFlood);
            drop(to);
            let seen = reader.await.unwrap();
            assert_eq!(seen.last(), Some(&PROTOCOL_ERROR));
            let kept = keeper.await.unwrap().len();
            println!(
                "SYN+RST (one by one {one_by_one}): {kept} handles, {} KiB at the peak",
                peak / KIB
            );
            assert!(kept <= 256, "{kept} slots");
            assert!(!one_by_one || kept == 256, "{kept}");
            assert!(peak <= 2 * MIB, "{peak} bytes");
        }
    });
}

#[test]
fn resets_at_a_pace_that_is_allowed_hold_256_slots_too() {
    in_virtual_time(async {
        let (us, mut peer) = pipe();
        let (session, _) = start(us, Side::Server, patient());
        lives(&mut peer).await;
        let since = Since::now();
        let keeper = tokio::spawn(keep_all(session.clone()));
        let (mut from, mut to) = tokio::io::split(peer);
        let reader = tokio::spawn(async move { read_all(&mut from).await.len() });
        for i in 0..20_000 {
            to.write_all(&header(WINDOW, SYN, 2 * i + 1, 0))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(31)).await;
            to.write_all(&header(WINDOW, RST, 2 * i + 1, 0))
                .await
                .unwrap();
            assert!(session.stats().streams <= 512);
        }
        settled().await;
        let peak = since.peak();
        println!("SYN+RST at 32/s: {} KiB at the peak", peak / KIB);
        assert_eq!(session.stats().streams, 256, "and it lives");
        assert!(peak <= 2 * MIB, "{peak} bytes");
        keeper.abort();
        reader.abort();
    });
}

#[test]
fn streams_that_the_application_drops_at_once_free_their_slots_only_on_the_wire() {
    in_virtual_time(async {
        let (us, mut peer) = pipe();
        let (session, _) = start(us, Side::Server, patient());
        lives(&mut peer).await;
        let since = Since::now();
        let dropper = {
            let session = session.clone();
            tokio::spawn(async move { while session.accept().await.is_ok() {} })
        };
        // Nobody reads the resets: when the pipe is full of them, they wait here, in their slots.
        flood(&mut peer, |i, wire| {
            wire.extend_from_slice(&header(WINDOW, SYN, 2 * i + 1, 0));
            i < 100_000
        })
        .await;
        assert_ended_by(&session.closed().await, Violation::ResetFlood);
        println!(
            "SYN, dropped at once: {} KiB at the peak",
            since.peak() / KIB
        );
        assert!(since.peak() <= 2 * MIB, "{} bytes", since.peak());
        dropper.await.unwrap();
    });
}

#[test]
fn data_for_streams_that_do_not_exist_ends_the_session_at_1_mib() {
    in_virtual_time(async {
        let (us, mut peer) = pipe();
        let (session, driven) = start(us, Side::Server, Config::default());
        lives(&mut peer).await;
        let since = Since::now();
        for i in 0..64 {
            let frame = data(0, 2 * i + 1, &[0; 16 << 10]);
            peer.write_all(&frame).await.unwrap();
            lives(&mut peer).await;
        }
        assert_eq!(session.stats().data_in, MIB as u64);
        peer.write_all(&data(0, 1, b"x")).await.unwrap();
        assert_eq!(read_all(&mut peer).await.last(), Some(&PROTOCOL_ERROR));
        println!("unknown streams: {} KiB at the peak", since.peak() / KIB);
        assert!(since.peak() <= 256 * KIB, "{} bytes", since.peak());
        drop(peer);
        assert_ended_by(&session.closed().await, Violation::StrayData);
        driven.await.unwrap().unwrap_err();

        // The promise is enough: nothing is waited for, and nothing allocated for it.
        for len in [MIB as u32 + 1, u32::MAX] {
            let (us, mut peer) = pipe();
            let (session, _) = start(us, Side::Server, Config::default());
            lives(&mut peer).await;
            let since = Since::now();
            peer.write_all(&header(DATA, 0, 1, len)).await.unwrap();
            assert_eq!(read_all(&mut peer).await.last(), Some(&PROTOCOL_ERROR));
            assert!(since.peak() <= 64 * KIB, "{} bytes", since.peak());
            drop(peer);
            assert_ended_by(&session.closed().await, Violation::StrayData);
        }
    });
}

#[test]
fn frames_without_effect_cost_nothing() {
    in_virtual_time(async {
        let (us, mut peer) = pipe();
        let (session, _) = start(us, Side::Server, patient());
        let keeper = tokio::spawn(keep_all(session.clone()));
        peer.write_all(&header(WINDOW, SYN, 1, 0)).await.unwrap();
        lives(&mut peer).await;
        let since = Since::now();
        flood(&mut peer, |i, wire| {
            wire.extend_from_slice(&header(WINDOW, 0, 1, 0)); // no credit
            wire.extend_from_slice(&header(DATA, 0, 1, 0)); // no data
            wire.extend_from_slice(&header(WINDOW, ACK, 1, 0)); // nothing to answer
            wire.extend_from_slice(&header(WINDOW, RST, 99, 0)); // nothing to reset
            wire.extend_from_slice(&header(PING, ACK, 0, i)); // never asked
            i < 20_000
        })
        .await;
        lives(&mut peer).await;
        println!(
            "frames without effect: {} KiB at the peak",
            since.peak() / KIB
        );
        assert!(since.peak() <= 128 * KIB, "{} bytes", since.peak());
        keeper.abort();
    });
}
