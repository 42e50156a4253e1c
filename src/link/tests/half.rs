//! One way at a time: both ends on the same wires, where what both say at once is garbage.

use cepa_transports::endpoint::Duplex;
use cepa_transports::testkit::Rng;

use super::super::error::LinkError;
use super::*;

const RATE: f64 = 11_520.0;

pub(super) fn half(rate: f64) -> Config {
    Config {
        duplex: Duplex::Half,
        ..known(rate)
    }
}

/// One end was told, which is enough.
fn bench(settings: &LineSettings, echo: bool, seed: u64) -> Bench {
    let (configured, other) = (half(settings.rate), known(settings.rate));
    let configs = if seed.is_multiple_of(2) {
        [&configured, &other]
    } else {
        [&other, &configured]
    };
    shared(settings, configs, echo, seed)
}

pub(super) fn shared(
    settings: &LineSettings,
    configs: [&Config; 2],
    echo: bool,
    seed: u64,
) -> Bench {
    let mut bench = Bench::between(settings, configs, seed);
    bench.wires = Medium::one_way(settings, echo, seed, bench.start);
    bench
}

fn silences(bench: &Bench) -> u64 {
    bench.ends.iter().map(|end| end.stats().silences).sum()
}

#[test]
fn bulk_one_way() {
    for (rate, seconds, goals) in [
        (RATE, 10.0, [0.93, 0.88, 0.75]),
        (960.0, 40.0, [0.88, 0.85, 0.6]),
        (300_000.0, 1.0, [0.85, 0.75, 0.55]),
    ] {
        for (bit_errors, goal) in [0.0, 1e-5, 1e-4].into_iter().zip(goals) {
            for echo in [false, true] {
                let noise = Noise {
                    bit_errors,
                    ..Noise::default()
                };
                let mut bench = bench(&noisy(rate, noise), echo, 1);
                let bytes = (rate * seconds) as u64;
                let done = transfer(&mut bench, rate, bytes, Duration::from_secs(100));
                println!(
                    "{rate} {bit_errors:e} echo {echo}: {:.3}, {} silences",
                    done.share,
                    silences(&bench)
                );
                assert!(done.share >= goal, "{rate} {bit_errors} {echo}: {done:?}");
                let clean = bit_errors == 0.0;
                let collided = bench.wires.collided();
                assert!(!clean || (collided, silences(&bench)) == (0, 0));
                // What was heard of ourselves is nobody's words.
                for end in &mut bench.ends {
                    let chatter = end.take_chatter();
                    assert!(!clean || chatter.is_empty(), "{chatter:02x?}");
                }
            }
        }
    }
}

/// Sends on both ends at once for so long; the bytes that each has read.
fn both(bench: &mut Bench, time: Duration) -> [u64; 2] {
    both_on(bench, time, &mut [0; 2], &mut [0; 2])
}

/// The same further on: what was written and read before.
fn both_on(
    bench: &mut Bench,
    time: Duration,
    written: &mut [u64; 2],
    read: &mut [u64; 2],
) -> [u64; 2] {
    let before = *read;
    let until = bench.now + time;
    while bench.now < until {
        bench.settle();
        let now = bench.now;
        for end in 0..2 {
            let engine = &mut bench.ends[end];
            let mut piece = vec![0; engine.room(now)];
            fill(end as u64, written[end], &mut piece);
            written[end] += engine.write(now, &piece) as u64;
            let mut got = Vec::new();
            engine.read(usize::MAX, |part| got.extend(part));
            verify(1 - end as u64, read[end], &got).unwrap();
            read[end] += got.len() as u64;
            assert!(engine.end().is_none(), "{:?}", engine.end());
        }
        bench.settle();
        bench.step();
    }
    [read[0] - before[0], read[1] - before[1]]
}

#[test]
fn bulk_both_ways_is_shared_evenly() {
    let mut bench = bench(&LineSettings::new(RATE), false, 1);
    let read = both(&mut bench, Duration::from_secs(20));
    let shares = read.map(|read| read as f64 / 20.0 / RATE);
    println!("{shares:.3?}");
    assert!(shares.iter().all(|share| *share >= 0.43), "{shares:?}");
    assert_eq!((bench.wires.collided(), silences(&bench)), (0, 0));
}

#[test]
fn two_that_start_at_once_both_speaking_find_each_other() {
    let settings = LineSettings {
        fifo: 64,
        ..LineSettings::new(RATE)
    };
    let (mut slowest, mut collided) = (Duration::ZERO, 0);
    for seed in 0..200_u64 {
        let config = half(RATE);
        let mut bench = shared(&settings, [&config, &config], seed.is_multiple_of(3), seed);
        let now = bench.now;
        bench.ends = [1, 2].map(|end| Engine::new(Side::Client, &config, 2 * seed + end, now));
        let done = transfer(&mut bench, RATE, 500, Duration::from_secs(5));
        slowest = slowest.max(done.took);
        collided += u64::from(bench.wires.collided() > 0);
    }
    assert_eq!(collided, 200, "all of them have to begin by a collision");
    println!("slowest {slowest:?}");
    assert!(slowest <= Duration::from_millis(1500), "{slowest:?}");
}

/// Both believe that it is their turn, in the middle of everything.
#[test]
fn two_that_talk_at_once_recover() {
    let mut collisions = 0;
    for seed in 0..40_u64 {
        let settings = LineSettings::new(RATE);
        let config = half(RATE);
        let mut bench = shared(&settings, [&config, &config], seed.is_multiple_of(2), seed);
        let (mut written, mut read) = ([0; 2], [0; 2]);
        let time = Duration::from_millis(500 + 37 * seed);
        both_on(&mut bench, time, &mut written, &mut read);
        let before = bench.wires.collided();
        let now = bench.now;
        for end in &mut bench.ends {
            end.take_the_turn(now);
        }
        let time = Duration::from_secs(2);
        let read = both_on(&mut bench, time, &mut written, &mut read);
        // Who hears the other one in time lets it talk.
        collisions += u32::from(bench.wires.collided() > before);
        let least = read.into_iter().min().unwrap() as f64 / 2.0 / RATE;
        assert!(least >= 0.3, "seed {seed}: {least} {read:?}");
    }
    println!("{collisions} collisions");
    assert!(collisions >= 5, "{collisions}");
}

#[test]
fn lost_turns_and_cuts_cost_little() {
    let ms = Duration::from_millis;
    let burst = Noise {
        burst: Some((ms(90), ms(12))),
        ..Noise::default()
    };
    let mut bench = bench(&noisy(RATE, burst), false, 1);
    let done = transfer(&mut bench, RATE, 60_000, Duration::from_secs(30));
    println!("bursts: {done:?} {} silences", silences(&bench));
    assert!(silences(&bench) > 5 && done.share >= 0.45, "{done:?}");
    assert!(done.gap <= ms(900), "{done:?}");
    for seed in 0..5 {
        let cuts = vec![(ms(3000 + 13 * seed), ms(5000))];
        let cut = Noise {
            cuts,
            ..Noise::default()
        };
        let mut bench = self::bench(&noisy(RATE, cut), seed.is_multiple_of(2), seed);
        let done = transfer(&mut bench, RATE, 60_000, Duration::from_secs(30));
        assert!(done.gap <= ms(6000), "{seed}: {done:?}");
    }
}

#[test]
fn a_rate_or_a_delay_that_is_not_known() {
    for (rate, delay, goal) in [
        (RATE, 0, 0.8),
        (960.0, 0, 0.7),
        (RATE, 16, 0.6),
        (RATE, 300, 0.7),
    ] {
        let settings = LineSettings {
            delay: Duration::from_millis(delay),
            ..LineSettings::new(rate)
        };
        for rate_known in [false, true] {
            let config = Config {
                line_rate: rate_known.then_some(Rate::bytes_per_second(rate)),
                ..half(rate)
            };
            let mut bench = shared(&settings, [&config, &config], false, 1);
            let bytes = (rate * 20.0) as u64;
            let done = transfer(&mut bench, rate, bytes, Duration::from_secs(300));
            println!(
                "{rate} {delay} ms, told {rate_known}: {:.3}, {} silences, {} collided",
                done.share,
                silences(&bench),
                bench.wires.collided()
            );
            assert!(done.share >= goal, "{rate} {delay} {rate_known}: {done:?}");
        }
    }
}

/// A keystroke on an idle line, after longer and longer pauses.
#[test]
fn an_idle_line_answers_soon() {
    let mut bench = bench(&LineSettings::new(RATE), false, 1);
    transfer(&mut bench, RATE, 1000, Duration::from_secs(3));
    let mut rng = Rng::new(1);
    for pause in [1, 10, 50, 200, 1000, 5000, 20_000] {
        for from in 0..2 {
            let until = bench.now + Duration::from_millis(pause + rng.between(0, 50) as u64);
            while bench.now < until {
                bench.settle();
                bench.step();
            }
            let began = bench.now;
            bench.ends[from].write(began, b"k");
            while bench.ends[1 - from].read(9, |_| {}) == 0 {
                bench.settle();
                bench.step();
            }
            let took = bench.now - began;
            assert!(
                took <= Duration::from_millis(125),
                "{pause} {from}: {took:?}"
            );
        }
    }
    // And it is not full of turns: both ends together.
    let before = bench.wires.carried(0) + bench.wires.carried(1);
    let until = bench.now + Duration::from_secs(10);
    while bench.now < until {
        bench.settle();
        bench.step();
    }
    let carried = bench.wires.carried(0) + bench.wires.carried(1) - before;
    assert!(
        carried as f64 / 10.0 / RATE <= 0.02,
        "{carried} bytes in 10 s"
    );
}

/// Dropped while the other end talks: it is told all the same.
#[test]
fn who_leaves_says_so_in_its_turn() {
    for seed in 0..20 {
        let mut bench = bench(&LineSettings::new(RATE), false, seed);
        both(&mut bench, Duration::from_millis(300 + 17 * seed));
        let left = bench.now;
        bench.ends[0].abandon(left);
        while bench.ends[1].end().is_none() {
            bench.settle();
            bench.ends[1].read(usize::MAX, |_| {});
            let now = bench.now;
            let room = bench.ends[1].room(now);
            bench.ends[1].write(now, &vec![1; room]);
            bench.settle();
            let took = bench.now - left;
            assert!(took <= Duration::from_millis(400), "seed {seed}: {took:?}");
            bench.step();
        }
        let how = bench.ends[1].end();
        assert!(
            matches!(how, Some(End::Failed(LinkError::Reset))),
            "{how:?}"
        );
    }
}
