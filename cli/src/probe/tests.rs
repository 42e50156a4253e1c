//! Probes over simulated lines, in virtual time: what they find out is what the line is made to do.

use std::time::{Duration, Instant};

use cepa_transports::testkit::{Line, LineSettings, Noise};

use super::engine::{Answerer, Asker, Findings, ranges};
use super::wire::Fate;

type Filter = fn(u8) -> Option<u8>;

struct World {
    noise: Noise,
    rate: f64,
    delay: Duration,
    filter: Filter,
    answers: bool,
    loopback: bool,
    seed: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            noise: Noise::default(),
            rate: 11_520.0,
            delay: Duration::from_millis(1),
            filter: Some,
            answers: true,
            loopback: false,
            seed: 1,
        }
    }
}

/// Runs a probe; gives what it found and how long it took, or nothing where it failed.
fn probe(world: &World, blocks: u16) -> Option<(Findings, Duration)> {
    let start = Instant::now();
    let mut now = start;
    let mut settings = LineSettings::new(world.rate);
    settings.delay = world.delay;
    settings.noise = world.noise.clone();
    let mut there = Line::new(settings.clone(), world.seed, start);
    let mut back = Line::new(settings, world.seed + 1000, start);
    let mut asker = Asker::new(0x77, blocks, world.rate, start);
    let mut answerer = Answerer::default();
    let (mut to_there, mut to_back) = (Vec::<u8>::new(), Vec::<u8>::new());
    loop {
        let arrived: Vec<u8> = there
            .read(now)
            .into_iter()
            .filter_map(world.filter)
            .collect();
        if world.loopback {
            asker.handle_input(now, &arrived);
        } else {
            answerer.handle_input(now, &arrived);
        }
        let arrived: Vec<u8> = back
            .read(now)
            .into_iter()
            .filter_map(world.filter)
            .collect();
        asker.handle_input(now, &arrived);
        asker.handle_timeout(now);
        if let Some(findings) = asker.findings() {
            return Some((findings.clone(), now - start));
        }
        if asker.has_failed() {
            return None;
        }
        assert!(
            now - start < Duration::from_secs(3600),
            "it goes on for ever"
        );
        // What was said to that goes before time does.
        if to_there.is_empty() {
            to_there.extend(asker.poll_transmit().into_iter().flatten());
        }
        if to_back.is_empty() && world.answers {
            to_back.extend(answerer.poll_transmit().into_iter().flatten());
        }
        let taken = there.write(now, &to_there);
        to_there.drain(..taken);
        let taken = back.write(now, &to_back);
        to_back.drain(..taken);
        let next = [there.next(), back.next(), asker.poll_timeout()];
        let next = next.into_iter().flatten().min().unwrap();
        now = next.max(now + Duration::from_micros(50));
    }
}

fn near(value: f64, wanted: f64, by: f64) {
    assert!(
        (value - wanted).abs() <= by * wanted,
        "{value} is not near {wanted}"
    );
}

#[test]
fn a_clean_line_is_clean_and_its_rate_and_round_trip_are_found() {
    for rate in [960.0, 11_520.0, 300_000.0] {
        let world = World {
            rate,
            ..World::default()
        };
        let (found, _) = probe(&world, 400).unwrap();
        assert!(!found.loopback);
        for meter in [&found.there, &found.back] {
            assert_eq!(meter.fates, [Fate::Clean; 256]);
            assert_eq!((meter.sent, meter.seen, meter.flips), (400, 400, 0));
            near(meter.rate().unwrap(), rate, 0.02);
            assert_eq!(meter.best_frame(), 1024);
        }
        // A question and its answer, of 29 bytes each, and the delay both ways.
        let median = found.round_trips[found.round_trips.len() / 2].as_secs_f64();
        near(median, 58.0 / rate + 0.002, 0.1);
    }
}

#[test]
fn bit_errors_are_estimated() {
    for (ber, blocks) in [(1e-3, 2000), (1e-4, 4000)] {
        let noise = Noise {
            bit_errors: ber,
            ..Noise::default()
        };
        for seed in 1..4 {
            let world = World {
                noise: noise.clone(),
                seed,
                ..World::default()
            };
            let (found, _) = probe(&world, blocks).unwrap();
            for meter in [&found.there, &found.back] {
                near(meter.bit_errors(), ber, 0.35);
                assert!(meter.values(Fate::Eaten).is_empty());
            }
        }
    }
}

#[test]
fn lost_bytes_are_estimated_apart_from_bit_errors() {
    let noise = Noise {
        bit_errors: 1e-4,
        drops: 1e-3,
        ..Noise::default()
    };
    let world = World {
        noise,
        ..World::default()
    };
    let (found, _) = probe(&world, 4000).unwrap();
    for meter in [&found.there, &found.back] {
        near(meter.lost_bytes(), 1e-3, 0.3);
        near(meter.bit_errors(), 1e-4, 0.35);
        // √(16 / (8·1e-4 + 1e-3))
        assert!(
            (75..115).contains(&meter.best_frame()),
            "{}",
            meter.best_frame()
        );
    }
}

#[test]
fn bytes_that_are_eaten_and_changed_are_named() {
    let world = World {
        filter: |b| match b {
            0x11 | 0x13 => None,
            b'\r' => Some(b'\n'),
            b => Some(b),
        },
        ..World::default()
    };
    let (found, _) = probe(&world, 100).unwrap();
    for meter in [&found.there, &found.back] {
        assert_eq!(meter.values(Fate::Eaten), [0x11, 0x13]);
        assert_eq!(meter.values(Fate::Changed), [b'\r']);
        assert_eq!(meter.values(Fate::Clean).len(), 253);
    }
}

#[test]
fn a_line_of_seven_bits_is_found_out_in_spite_of_itself() {
    let world = World {
        filter: |b| Some(b & 0x7f),
        ..World::default()
    };
    let (found, _) = probe(&world, 100).unwrap();
    for meter in [&found.there, &found.back] {
        assert_eq!(ranges(&meter.values(Fate::Stripped)), "80-ff");
        assert_eq!((meter.seen, meter.flips), (100, 0));
    }
}

#[test]
fn a_loopback_plug_is_recognised() {
    let world = World {
        loopback: true,
        ..World::default()
    };
    let (found, _) = probe(&world, 200).unwrap();
    assert!(found.loopback);
    assert_eq!(found.there, found.back);
    assert_eq!((found.there.sent, found.there.seen), (200, 200));
    assert_eq!(found.there.fates, [Fate::Clean; 256]);
    assert_eq!(found.round_trips.len(), 10);
}

#[test]
fn nobody_there_is_reported_after_a_bounded_time() {
    let world = World {
        answers: false,
        ..World::default()
    };
    assert!(probe(&world, 100).is_none());
}

#[test]
fn ranges_are_short() {
    assert_eq!(ranges(&[]), "");
    assert_eq!(ranges(&[0x13, 0x11, 0, 1, 2]), "00-02 11 13");
    assert_eq!(ranges(&[0xfe, 0xff]), "fe-ff");
}
