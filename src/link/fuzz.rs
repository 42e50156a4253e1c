//! An entry point for the fuzz target `link`, which is also run with random input by the tests. Not part of the
//! API.
//!
//! [`fuzz_link`] takes a script: bytes of the wire, frames that somebody forges who has read the nonces on
//! the line, calls of the application, and time, all against one engine. It must not panic, not keep more than its
//! bounds, not go round in a circle, and not answer more than it was told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use cepa_transports::endpoint::Duplex;
use cepa_transports::{Rate, Side};

use super::codec::{Decoder, Escapes, FLAG, FrameCheck, Piece, encode, escapes_of};
use super::config::Config;
use super::engine::{Engine, Waits};

const NONCE: u64 = 0x0102_0304_0506_0708;
const WINDOW: u8 = 11;
const MTU: u16 = 64;

/// Runs the script `data`.
pub fn fuzz_link(data: &[u8]) {
    let Some((mode, script)) = data.split_first() else {
        return;
    };
    if mode & 1 == 0 {
        decoder(script, usize::from(mode >> 1).max(1));
    } else {
        engine(script, *mode);
    }
}

/// What is cut at the flags is all that stands between them, and no flag is forgotten.
fn decoder(data: &[u8], cut: usize) {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for mut piece in data.chunks(cut) {
        while let Some(piece) = decoder.next(&mut piece) {
            let raw = match piece {
                Piece::Candidate {
                    mut raw,
                    handed_out,
                } => raw.split_off(handed_out),
                Piece::Chatter(raw) => raw,
            };
            found.extend(vec![FLAG; decoder.flags_before()]);
            found.extend(raw);
        }
        assert!(piece.is_empty(), "input was left");
        if cut.is_multiple_of(3) {
            // The line pauses.
            let reported = decoder.chatter_so_far();
            found.extend(vec![FLAG; decoder.flags_before()]);
            found.extend(reported);
        }
    }
    let last = decoder.chatter_so_far();
    found.extend(vec![FLAG; decoder.flags_before()]);
    found.extend(last);
    assert!(found == data, "bytes were lost");
}

fn engine(script: &[u8], mode: u8) {
    let mut now = Instant::now();
    let escapes = escapes_of(mode >> 5);
    let side = if mode & 2 == 0 {
        Side::Client
    } else {
        Side::Server
    };
    let config = Config {
        line_rate: (mode & 4 != 0).then_some(Rate::bytes_per_second(11_520.0)),
        escapes,
        window: WINDOW,
        mtu: (mode & 8 != 0).then_some(MTU),
        duplex: if mode & 16 == 0 {
            Duplex::Full
        } else {
            Duplex::Half
        },
        ..Config::default()
    };
    let mut engine = Engine::new(side, &config, NONCE, now);
    let theirs = u64::from(mode) + 1;
    let most = config.mtu.map_or(usize::MAX, usize::from);
    let mut rest = script;
    let mut written = 0;
    while let Some((op, after)) = rest.split_first() {
        let len = usize::from(op >> 3).min(after.len());
        let (words, after) = after.split_at(len);
        rest = after;
        let mut wire = Vec::new();
        match op & 7 {
            0 => wire.extend_from_slice(words),
            1 => {
                let mut body = vec![0x20, 1, 2, 0, WINDOW, 4, 0];
                body.extend(theirs.to_be_bytes());
                if words.len() > 1 {
                    body.extend(NONCE.to_be_bytes());
                }
                body[2] = words.first().copied().unwrap_or(2);
                encode(
                    &body,
                    &FrameCheck::opening(),
                    Escapes::Control,
                    true,
                    &mut wire,
                );
            }
            2 => encode(
                words,
                &FrameCheck::opening(),
                Escapes::Control,
                true,
                &mut wire,
            ),
            3 | 4 => encode(
                words,
                &FrameCheck::epoch(theirs, NONCE),
                escapes,
                true,
                &mut wire,
            ),
            5 => now += Duration::from_millis(words.iter().map(|n| u64::from(*n)).sum()),
            6 => written += engine.write(now, words),
            _ => {
                engine.read(words.len() * 16, |_| {});
                if words.len() == 31 {
                    engine.finish();
                }
            }
        }
        engine.handle_input(now, &wire);
        settle(&mut engine, now, most);
        let (kept, unsent) = engine.kept();
        assert!(kept <= 1 << WINDOW, "{kept} bytes kept for a reader");
        assert!(unsent <= written as u64, "{unsent} bytes of {written}");
        assert!(engine.take_chatter().len() <= 16 << 10);
    }
}

/// Takes all there is to send; after that there must be nothing to do at this moment.
fn settle(engine: &mut Engine, now: Instant, most: usize) {
    engine.handle_timeout(now);
    let mut out = Vec::new();
    for round in 0.. {
        assert!(round < 100, "it has always more to send");
        out.clear();
        if !engine.poll_transmit(now, &mut out) {
            break;
        }
        assert!(out.len() <= most, "{} bytes at once", out.len());
    }
    let waits = Waits {
        room: true,
        flush: true,
    };
    if let Some(at) = engine.poll_timeout(now, waits, false) {
        // A deadline that has passed is one that `handle_timeout` did not see to.
        engine.handle_timeout(now);
        let again = engine.poll_timeout(now, waits, false);
        assert!(
            at > now || again.is_none_or(|again| again > now),
            "it spins"
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_script_is_survived(script in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_link(&script);
        }
    }
}
