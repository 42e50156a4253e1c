//! A pair of engines over lines that do everything at once, a seed each: short runs, and many of them.
//!
//! `CEPA_SEEDS=N` tries N seeds, `CEPA_SEED=N` begins with that one.

use cepa_transports::endpoint::Duplex;
use cepa_transports::testkit::Rng;

use super::super::codec::{Decoder, Escapes, FrameCheck, Piece, encode, escapes_of, unescape};
use super::*;

pub(super) fn from_environment(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// A line that a seed decides, with nothing, one thing or everything wrong with it.
fn line(rng: &mut Rng, escapes: Escapes) -> LineSettings {
    let mut chance = |most: f64| {
        if rng.percent(40) {
            most / [1.0, 10.0, 100.0, 1000.0][rng.between(0, 3)]
        } else {
            0.0
        }
    };
    let noise = Noise {
        bit_errors: chance(1e-3),
        drops: chance(3e-3),
        insertions: chance(3e-3),
        ..Noise::default()
    };
    let ms = |n: usize| Duration::from_millis(n as u64);
    let rates = [240.0_f64, 960.0, 11_520.0, 92_160.0, 300_000.0];
    let rate = rates[rng.between(0, rates.len() - 1)];
    let burst = rng.percent(20).then(|| {
        // Between two of them there has to be the time for an opening.
        let opening = 100_000.0 / rate;
        let every = rng.between(opening.max(100.0) as usize, 2000);
        (ms(every), ms(rng.between(1, every / 4)))
    });
    let mut cuts = Vec::new();
    if rng.percent(20) {
        cuts.push((ms(rng.between(0, 500)), ms(rng.between(1, 3000))));
    }
    let eaten = match escapes {
        _ if rng.percent(50) => Vec::new(),
        Escapes::Least => Vec::new(),
        Escapes::XonXoff => vec![0x11, 0x13],
        Escapes::Control => (0..0x20).chain([0x7f]).collect(),
    };
    LineSettings {
        rate,
        delay: ms(if rng.percent(30) {
            rng.between(1, 200)
        } else {
            0
        }),
        buffer: rng.between(16, 8192),
        fifo: rng.between(8, 128),
        noise: Noise {
            burst,
            cuts,
            eaten,
            ..noise
        },
    }
}

/// Some hundred bytes each way, and the end of both streams.
fn exchange(seed: u64) {
    let mut rng = Rng::new(seed);
    let escapes = escapes_of(rng.between(0, 2) as u8);
    let settings = line(&mut rng, escapes);
    let mut config = Config {
        line_rate: rng
            .percent(70)
            .then_some(Rate::bytes_per_second(settings.rate)),
        escapes,
        payload_max: rng.between(24, 1024) as u16,
        mtu: rng.percent(30).then(|| rng.between(64, 400) as u16),
        window: rng.between(10, 16) as u8,
        duplex: if rng.percent(30) {
            Duplex::Half
        } else {
            Duplex::Full
        },
        give_up: Duration::from_secs(3600),
        ..Config::default()
    };
    if config.duplex == Duplex::Half && settings.rate < 900.0 {
        // Whoever guesses at turns that take seconds talks into those of the other end.
        config.line_rate = Some(Rate::bytes_per_second(settings.rate));
    }
    // What only one end is told holds for both.
    let other = Config {
        escapes: Escapes::Least,
        mtu: None,
        duplex: Duplex::Full,
        ..config.clone()
    };
    let mut configured = [&config, &other];
    if rng.percent(50) {
        configured.reverse();
    }
    let mut bench = if config.duplex == Duplex::Half {
        half::shared(&settings, configured, rng.percent(50), seed)
    } else {
        Bench::between(&settings, configured, seed)
    };
    let bytes = [rng.between(0, 700) as u64, rng.between(0, 700) as u64];
    let (mut written, mut read) = ([0; 2], [0; 2]);
    while (0..2).any(|end| !bench.ends[end].is_read_out() || read[end] < bytes[1 - end]) {
        bench.settle();
        let now = bench.now;
        for end in 0..2 {
            let engine = &mut bench.ends[end];
            let left = bytes[end] - written[end];
            let mut piece = vec![0; engine.room(now).min(left as usize)];
            fill(seed + end as u64, written[end], &mut piece);
            written[end] += engine.write(now, &piece) as u64;
            if written[end] == bytes[end] && !engine.is_finishing() {
                engine.finish();
            }
            let mut got = Vec::new();
            engine.read(usize::MAX, |part| got.extend(part));
            let from = 1 - end;
            verify(seed + from as u64, read[end], &got)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            read[end] += got.len() as u64;
            let failed = matches!(engine.end(), Some(End::Failed(_)));
            assert!(!failed, "seed {seed}: {:?}", engine.end());
        }
        assert!(
            bench.elapsed() < Duration::from_secs(600),
            "seed {seed}: {read:?} of {bytes:?} on {settings:?}, {config:?}, {:?} {:?}, {} collided",
            bench.ends[0].stats(),
            bench.ends[1].stats(),
            bench.wires.collided()
        );
        bench.settle();
        bench.step();
    }
    assert_eq!(read, [bytes[1], bytes[0]], "seed {seed}");
}

#[test]
fn whatever_a_seed_does_to_the_line_both_streams_arrive() {
    let first = from_environment("CEPA_SEED", 1);
    let seeds = from_environment("CEPA_SEEDS", 200);
    let started = Instant::now();
    // Once a burst of garbage came as regularly as the pings, for ever.
    for seed in (first..first + seeds).chain([18_348]) {
        exchange(seed);
    }
    let rate = seeds as f64 / started.elapsed().as_secs_f64();
    println!("{seeds} seeds, {rate:.0} a second");
}

/// Damages a frame in one of the ways of a line, or forges it; says whether it is another one in any case.
fn damage(rng: &mut Rng, body: &[u8], wire: &mut Vec<u8>) -> bool {
    let at = |rng: &mut Rng, wire: &[u8]| rng.between(0, wire.len() - 1);
    match rng.between(0, 5) {
        0 => {
            for _ in 0..rng.between(1, 8) {
                let place = at(rng, wire);
                wire[place] ^= 1 << rng.between(0, 7);
            }
        }
        1 => {
            let from = at(rng, wire);
            let to = (from + rng.between(1, 40)).min(wire.len());
            wire[from..to].fill_with(|| rng.next_u64() as u8);
        }
        2 => {
            let place = at(rng, wire);
            wire.remove(place);
        }
        3 => {
            let place = at(rng, wire);
            wire.insert(place, rng.next_u64() as u8);
        }
        // Forged as a whole by somebody who does not know the nonces.
        4 => wire.fill_with(|| rng.next_u64() as u8),
        // Of another epoch, and so another frame even if its bytes are the same.
        _ => {
            wire.clear();
            let seal = FrameCheck::epoch(rng.next_u64(), rng.next_u64());
            encode(body, &seal, Escapes::Least, true, wire);
            return true;
        }
    }
    false
}

/// `CEPA_FRAMES=N` tries N. A random checksum is right once in 4.3e9.
#[test]
fn no_damaged_frame_is_taken_for_another() {
    let mut rng = Rng::new(from_environment("CEPA_SEED", 1));
    let seal = FrameCheck::epoch(rng.next_u64(), rng.next_u64());
    let (mut body, mut wire, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let frames = from_environment("CEPA_FRAMES", 100_000);
    let mut accepted = 0;
    for _ in 0..frames {
        body.resize(rng.between(1, 80), 0);
        body.fill_with(|| rng.next_u64() as u8);
        wire.clear();
        encode(&body, &seal, Escapes::Least, true, &mut wire);
        let forged = damage(&mut rng, &body, &mut wire);
        let mut decoder = Decoder::default();
        let mut input = &wire[..];
        while let Some(piece) = decoder.next(&mut input) {
            let Piece::Candidate { raw, .. } = piece else {
                continue;
            };
            let found = unescape(&raw, Escapes::Least);
            if let Some(found) = found.as_deref().and_then(|found| seal.check(found)) {
                again.clear();
                again.extend_from_slice(found);
                // Damage outside of it, or to a byte that was made the same again, does no harm.
                accepted += u64::from(forged || again != body);
            }
        }
    }
    println!("{frames} damaged or forged frames, {accepted} accepted");
    assert_eq!(accepted, 0, "of {frames}");
}
