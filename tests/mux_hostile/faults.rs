//! Frames that no peer may send: each ends the session on the first, with the code that the spec has
//! for it, and everybody at our end is told what it was.

use std::io;

use cepa::Side;
use cepa::mux::{Config, MuxError, StreamError, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attacker::{
    ACK, DATA, FIN, GO_AWAY, INITIAL_WINDOW, PING, RST, SYN, WINDOW, data, header, pipe, read_all,
};
use crate::memory::{KIB, Since};
use crate::{in_virtual_time, start, stream_error};

/// What is sent behind `SYN 1` and three bytes on it.
fn faults() -> Vec<(&'static str, Vec<u8>, Violation)> {
    let frame = |kind, flags, id, length| header(kind, flags, id, length).to_vec();
    let twice = |flags, second: Vec<u8>| [data(flags, 1, b""), second].concat();
    let mut bad_version = frame(DATA, 0, 1, 0);
    bad_version[0] = 1;
    vec![
        (
            "more than the window, in one frame",
            frame(DATA, 0, 1, INITIAL_WINDOW - 3 + 1),
            Violation::WindowExceeded(1),
        ),
        (
            "more than the window, byte by byte",
            [
                data(0, 1, &vec![0; INITIAL_WINDOW as usize - 3]),
                data(0, 1, b"x"),
            ]
            .concat(),
            Violation::WindowExceeded(1),
        ),
        (
            "4 GiB in one frame",
            frame(DATA, 0, 1, u32::MAX),
            Violation::WindowExceeded(1),
        ),
        (
            "an opening with a body over the window",
            frame(DATA, SYN, 3, INITIAL_WINDOW + 1),
            Violation::WindowExceeded(3),
        ),
        (
            "credit over 4 GiB",
            frame(WINDOW, 0, 1, u32::MAX - INITIAL_WINDOW + 1),
            Violation::CreditOverflow(1),
        ),
        (
            "credit over 4 GiB, in two",
            [frame(WINDOW, 0, 1, 1 << 31), frame(WINDOW, 0, 1, 1 << 31)].concat(),
            Violation::CreditOverflow(1),
        ),
        ("a bad version", bad_version, Violation::Version(1)),
        (
            "an unknown type",
            frame(4, 0, 1, 0),
            Violation::FrameType(4),
        ),
        (
            "unknown flags",
            frame(DATA, 0x10, 1, 0),
            Violation::Flags(0x10),
        ),
        (
            "opening and acknowledging at once",
            frame(WINDOW, SYN | ACK, 3, 0),
            Violation::Flags(SYN | ACK),
        ),
        (
            "data for the session",
            frame(DATA, 0, 0, 0),
            Violation::StreamId(0),
        ),
        (
            "a ping for a stream",
            frame(PING, SYN, 1, 0),
            Violation::StreamId(1),
        ),
        (
            "a go-away with flags",
            frame(GO_AWAY, FIN, 0, 0),
            Violation::Flags(FIN),
        ),
        (
            "wrong parity",
            frame(WINDOW, SYN, 2, 0),
            Violation::WrongParity(2),
        ),
        (
            "wrong parity, opened and reset",
            frame(WINDOW, SYN | RST, 2, 0),
            Violation::WrongParity(2),
        ),
        (
            "opened twice",
            frame(DATA, SYN, 1, 0),
            Violation::DuplicateStream(1),
        ),
        (
            "a stream of ours that we never opened",
            frame(DATA, 0, 8, 0),
            Violation::NeverOpened(8),
        ),
        (
            "a reset for a stream of ours that we never opened",
            frame(WINDOW, RST, 8, 0),
            Violation::NeverOpened(8),
        ),
        (
            "data after FIN",
            twice(FIN, data(0, 1, b"x")),
            Violation::DataAfterFin(1),
        ),
        (
            "a promise of data after FIN",
            twice(FIN, frame(DATA, 0, 1, 5)),
            Violation::DataAfterFin(1),
        ),
        (
            "FIN after FIN",
            twice(FIN, data(FIN, 1, b"")),
            Violation::FinAfterFin(1),
        ),
    ]
}

#[test]
fn each_ends_the_session_on_the_first_with_the_right_code() {
    in_virtual_time(async {
        for (what, wire, violation) in faults() {
            let (us, mut peer) = pipe();
            let (session, driven) = start(us, Side::Server, Config::default());
            peer.write_all(&data(SYN, 1, b"abc")).await.unwrap();
            let mut stream = session.accept().await.unwrap();
            let mut open = session.open().await.unwrap();
            let since = Since::now();
            peer.write_all(&wire).await.unwrap();
            // The rest of what was promised never comes, and nobody waits for it.
            let seen = read_all(&mut peer).await;
            assert_eq!(seen.last(), Some(&(GO_AWAY, 0, 0, 1)), "{what}");
            let codes = seen.iter().filter(|(kind, ..)| *kind == GO_AWAY).count();
            assert_eq!(codes, 1, "{what}: told once");
            assert!(since.peak() < 512 * KIB, "{what}: {} bytes", since.peak());
            drop(peer);
            let end = session.closed().await;
            assert!(
                matches!(&end, MuxError::Protocol(found) if *found == violation),
                "{what}: {end}"
            );
            driven.await.expect("no panic").unwrap_err();

            // What came before can be read, then everybody reads the reason.
            let mut got = [0; 3];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"abc", "{what}");
            let after_fin = matches!(
                violation,
                Violation::DataAfterFin(_) | Violation::FinAfterFin(_)
            );
            for stream in [&mut stream, &mut open] {
                let mut rest = Vec::new();
                match stream.read_to_end(&mut rest).await {
                    // This stream had a real end before.
                    Ok(_) => assert!(after_fin && stream.id() == 1, "{what}: a clean end"),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
                        assert!(matches!(
                            stream_error(&error),
                            StreamError::Session(MuxError::Protocol(found)) if *found == violation
                        ));
                    }
                }
                assert!(rest.len() < INITIAL_WINDOW as usize, "{what}");
            }
        }
    });
}

/// A client judges its server by the same rules, the parities being the other way round.
#[test]
fn a_server_is_judged_too() {
    in_virtual_time(async {
        for (wire, violation) in [
            (header(WINDOW, SYN, 1, 0), Violation::WrongParity(1)),
            (header(DATA, 0, 5, 0), Violation::NeverOpened(5)),
            (
                header(DATA, SYN, 2, INITIAL_WINDOW + 1),
                Violation::WindowExceeded(2),
            ),
        ] {
            let (us, mut peer) = pipe();
            let (session, _) = start(us, Side::Client, Config::default());
            peer.write_all(&wire).await.unwrap();
            assert_eq!(read_all(&mut peer).await, [(GO_AWAY, 0, 0, 1)]);
            drop(peer);
            let end = session.closed().await;
            assert!(
                matches!(end, MuxError::Protocol(found) if found == violation),
                "{end}"
            );
        }
    });
}

/// Frames of random fields, mostly possible ones, and random bytes: whatever happens, the driver ends
/// by itself and has not panicked.
#[test]
fn nonsense_ends_in_an_error_and_never_in_a_panic() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    in_virtual_time(async {
        let mut reasons = std::collections::HashSet::new();
        for _ in 0..300 {
            let (us, mut peer) = pipe();
            let (session, driven) = start(us, Side::Server, Config::default());
            let keeper = tokio::spawn(async move {
                let mut kept = Vec::new();
                while let Ok(stream) = session.accept().await {
                    kept.push(stream);
                    if kept.len() % 3 == 0 {
                        kept.clear();
                    }
                }
                session.closed().await
            });
            let mut wire = Vec::new();
            for _ in 0..200 {
                let kind = random(1000).min(3 + random(2)).min(random(6)) as u8;
                let flags = [0, 0, 0, SYN, SYN, ACK, FIN, RST][random(8) as usize];
                let flags = flags | u16::from(random(300) == 0) << random(6);
                let id = (random(12) * if random(40) == 0 { 1 } else { 2 }) as u32 + 1;
                let on_stream = kind < PING || random(100) == 0;
                let id = if on_stream { id } else { 0 };
                let length = [0, 1, 12, 3000, 1u32 << 18][random(5) as usize];
                wire.extend_from_slice(&header(kind.min(4), flags, id, length));
                if kind == DATA && length < 1 << 18 {
                    wire.resize(wire.len() + length as usize, 0);
                }
            }
            // The other end may be done before.
            let _ = peer.write_all(&wire).await;
            peer.shutdown().await.ok();
            read_all(&mut peer).await;
            drop(peer);
            let _ = driven.await.expect("no panic");
            let end = keeper.await.unwrap();
            reasons.insert(std::mem::discriminant(&end));
            if let MuxError::Protocol(violation) = end {
                reasons.insert(std::mem::discriminant(&MuxError::Protocol(violation)));
            }
        }
        assert!(reasons.len() >= 2, "both cuts and broken rules came up");
    });
}
