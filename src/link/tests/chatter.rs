//! What is not of the link goes whole to who wants to see it, and never into the stream; and it costs few frames.

use cepa_transports::testkit::Rng;
use proptest::prelude::*;

use super::super::codec::{Escapes, FrameCheck, encode};
use super::super::frame::{Frame, Hello, Place, Width};
use super::*;

const RATE: f64 = 11_520.0;

/// What boards print: flags and escapes of ours are usual characters there.
const BOOT: &[&[u8]] = &[
    b"\r\n\r\nU-Boot 2026.01 (Jan 05 2026 - 12:00:00 +0000)\r\nHit any key to stop autoboot:  3 \x08\x08\x08 2 ~ }~{\r\n",
    b"[    0.000000] Linux version 6.12.0 (gcc) #1 SMP PREEMPT\r\n[    0.000000] ~~~ cma: Reserved 64 MiB }}\r\n",
    b"root@board:~# ",
    b"~",
    b"Kernel panic - not syncing: ~",
    &[0x7e, 0x7e, 0x00, 0xff, 0x7d, 0x7e, 0x7d, 0x5e, 0x7e, 0x20, 0x01, 0x7e],
    &[0xc0; 70],
];

/// Where the text is in what was heard, from a place on; what stands before it is damaged frames.
fn find(heard: &[u8], from: usize, text: &[u8]) -> Option<usize> {
    let rest = heard.get(from..)?;
    if text.is_empty() {
        return Some(from);
    }
    let at = rest.windows(text.len()).position(|part| part == text)?;
    Some(from + at + text.len())
}

#[test]
fn a_board_that_prints_before_between_and_behind_frames() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut bench = Bench::new(&LineSettings::new(RATE), &known(RATE), seed);
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        let mut prints = |bench: &mut Bench, rng: &mut Rng| {
            // Binary ones differ each time.
            let mut text = BOOT[rng.between(0, BOOT.len() - 1)].to_vec();
            if rng.percent(30) {
                text = (0..rng.between(1, 300))
                    .map(|_| rng.next_u64() as u8)
                    .collect();
                // What looks like the beginning of a frame to the end is taken for one.
                text.push(b'.');
            }
            let now = bench.now;
            if bench.out[0].is_empty() {
                assert_eq!(bench.wires.write(now, 0, &text), text.len());
                said.push(text);
            }
        };
        prints(&mut bench, &mut rng);
        let (mut written, mut read, mut next) = (0u64, 0, Duration::ZERO);
        while read < 20_000 {
            bench.settle();
            let now = bench.now;
            let left = 20_000 - written as usize;
            // Now and then nothing is to be sent.
            if bench.elapsed() > Duration::from_millis(600) || written < 4000 {
                let mut piece = vec![0; bench.ends[0].room(now).min(left)];
                fill(seed, written, &mut piece);
                written += bench.ends[0].write(now, &piece) as u64;
                bench.settle();
            }
            let mut got = Vec::new();
            bench.ends[1].read(usize::MAX, |part| got.extend(part));
            verify(seed, read, &got).unwrap();
            read += got.len() as u64;
            heard.extend(bench.ends[1].take_chatter());
            if bench.elapsed() >= next {
                prints(&mut bench, &mut rng);
                next = bench.elapsed() + Duration::from_millis(rng.between(40, 300) as u64);
            }
            assert!(bench.elapsed() < Duration::from_secs(20), "seed {seed}");
            bench.step();
        }
        prints(&mut bench, &mut rng);
        let until = bench.now + Duration::from_secs(2);
        while bench.now < until {
            bench.settle();
            heard.extend(bench.ends[1].take_chatter());
            bench.step();
        }
        let mut at = 0;
        for text in &said {
            // A flag at its very end is taken for the first of the frame behind it.
            let inner = text.strip_suffix(b"~").unwrap_or(text);
            at = find(&heard, at, inner).unwrap_or_else(|| {
                panic!(
                    "seed {seed}: {:?} is not in what was heard",
                    String::from_utf8_lossy(text)
                )
            });
        }
        let lost = bench.ends[0].stats().lost;
        assert!(
            lost <= 2 * said.len() as u64,
            "seed {seed}: {lost} lost by {}",
            said.len()
        );
    }
}

const OURS: u64 = 1;
const THEIRS: u64 = 2;
const PAYLOAD: usize = 20;

/// A frame of the other end's, with no flag in front.
fn frame(index: usize) -> Vec<u8> {
    let payload = [index as u8; PAYLOAD];
    let place = Place {
        receive_next: 0,
        receive_width: Width::of_window(15),
        send_base: 0,
        send_width: Width::of_window(15),
    };
    let mut body = Vec::new();
    let data = Frame::Data {
        offset: (index * PAYLOAD) as u64,
        payload: &payload,
        fin: false,
        ack: None,
    };
    data.emit(place, &mut body);
    let mut wire = Vec::new();
    encode(
        &body,
        &FrameCheck::epoch(THEIRS, OURS),
        Escapes::Least,
        false,
        &mut wire,
    );
    wire
}

/// An end that is in an epoch with the other one.
fn connected(now: Instant) -> Engine {
    let mut engine = Engine::new(Side::Server, &known(RATE), OURS, now);
    let open = Hello {
        busy: false,
        unsure: false,
        half: false,
        escapes: 0,
        window: 15,
        payload: 1024,
        nonce: THEIRS,
        echo: OURS,
        mtu: 0,
    };
    let (mut body, mut wire) = (Vec::new(), Vec::new());
    let place = Place {
        receive_next: 0,
        receive_width: Width::of_window(15),
        send_base: 0,
        send_width: Width::of_window(15),
    };
    Frame::Hello(open).emit(place, &mut body);
    encode(
        &body,
        &FrameCheck::opening(),
        Escapes::Control,
        true,
        &mut wire,
    );
    engine.handle_input(now, &wire);
    assert_eq!(engine.stats().received, 1);
    engine
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Wherever garbage comes in, in the middle of a frame too, at most two frames are lost by it, the stream has
    /// nothing of it, and all of it is chatter.
    #[test]
    fn garbage_costs_two_frames_at_most(
        garbage in prop_oneof![
            prop::collection::vec(any::<u8>(), 1..200),
            prop::collection::vec(prop::sample::select(vec![0x7e, 0x7d, 0x5e, b'x']), 1..20),
            prop::collection::vec(any::<u8>(), 2000..6000),
        ],
        at in 0usize..200,
        chunk in 1usize..300,
    ) {
        let now = Instant::now();
        let mut engine = connected(now);
        let mut wire: Vec<u8> = (0..10).flat_map(frame).collect();
        let at = at.min(wire.len());
        wire.splice(at..at, garbage.iter().copied());
        let mut heard = Vec::new();
        for piece in wire.chunks(chunk) {
            engine.handle_input(now, piece);
            heard.extend(engine.take_chatter());
        }
        engine.handle_timeout(now + Duration::from_secs(1));
        heard.extend(engine.take_chatter());
        let received = engine.stats().received - 1;
        prop_assert!(received >= 8, "{} of 10 frames came", received);
        let mut got: Vec<u8> = Vec::new();
        engine.read(usize::MAX, |part| got.extend(part));
        for (index, byte) in got.iter().enumerate() {
            prop_assert_eq!(usize::from(*byte), index / PAYLOAD);
        }
        // Flags at its edges may have become those of frames.
        let inner: Vec<u8> = {
            let begin = garbage.iter().position(|byte| *byte != 0x7e).unwrap_or(0);
            let end = garbage.iter().rposition(|byte| *byte != 0x7e).map_or(0, |end| end + 1);
            garbage.get(begin..end).unwrap_or_default().to_vec()
        };
        prop_assert!(inner.is_empty() || find(&heard, 0, &inner).is_some(), "{:02x?} {:02x?}", inner, heard);
    }
}

/// A terminal that echoes, or a loopback plug.
#[test]
fn what_the_line_reflects_has_not_come_from_the_other_end() {
    let now = Instant::now();
    let mut engine = Engine::new(Side::Client, &known(RATE), OURS, now);
    let mut out = Vec::new();
    assert!(engine.poll_transmit(now, &mut out) && !out.is_empty());
    engine.handle_input(now, &out);
    assert_eq!(engine.stats().received, 0);
    assert_eq!(engine.stats().invalid, 0);
}
