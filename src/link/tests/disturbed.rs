//! Lines that lose bytes, add some, are drowned by bursts, or are cut for seconds.

use proptest::prelude::*;

use super::super::codec::{Escapes, escapes_of};
use super::*;

const RATE: f64 = 11_520.0;

fn sent(noise: Noise, seed: u64, bytes: u64) -> Transfer {
    let mut bench = Bench::new(&noisy(RATE, noise), &known(RATE), seed);
    transfer(&mut bench, RATE, bytes, Duration::from_secs(300))
}

#[test]
fn dropped_and_inserted_bytes() {
    for (drops, insertions, goal) in [(1e-4, 0.0, 0.9), (1e-3, 0.0, 0.75), (1e-3, 1e-3, 0.6)] {
        let noise = Noise {
            drops,
            insertions,
            ..Noise::default()
        };
        let done = sent(noise, 1, 100_000);
        assert!(done.share >= goal, "drops {drops}: {done:?}");
    }
}

#[test]
fn a_burst_of_garbage_every_second() {
    let ms = Duration::from_millis;
    let noise = Noise {
        burst: Some((ms(1000), ms(50))),
        ..Noise::default()
    };
    let done = sent(noise, 1, 100_000);
    assert!(done.share >= 0.8, "{done:?}");
    // What the burst hit came soon behind it.
    assert!(done.gap <= ms(400), "{done:?}");
}

#[test]
fn it_goes_on_within_a_second_of_the_end_of_a_cut() {
    let secs = Duration::from_secs;
    for rate in [RATE, 960.0] {
        for seed in 0..5 {
            // At the edges of frames and inside.
            let from = secs(3) + Duration::from_millis(13 * seed);
            let noise = Noise {
                cuts: vec![(from, secs(5)), (from + secs(11), secs(5))],
                ..Noise::default()
            };
            let mut bench = Bench::new(&noisy(rate, noise), &known(rate), seed);
            let done = transfer(&mut bench, rate, (rate * 12.0) as u64, secs(60));
            // A frame that was whole before the cut was the last; one that begins behind it is the next.
            let frame = Duration::from_secs_f64(600.0 / rate);
            assert!(done.gap <= secs(6) + frame, "{rate} {seed}: {done:?}");
            assert!(done.took <= secs(24) + 2 * frame, "{rate} {seed}: {done:?}");
        }
    }
}

#[test]
fn a_rate_that_is_not_known_is_found() {
    for rate in [1200.0, 11_520.0, 300_000.0] {
        let config = Config::default();
        let mut bench = Bench::new(&LineSettings::new(rate), &config, 1);
        let bytes = (rate * 30.0).min(600_000.0) as u64;
        let done = transfer(&mut bench, rate, bytes, Duration::from_secs(60));
        assert!(done.share >= 0.95, "{rate}: {done:?}");
        let queued = bench.wires.queued(bench.now, 0);
        assert!(
            queued as f64 <= rate * 0.2 + 2100.0,
            "{rate}: {queued} in the driver"
        );
    }
}

#[test]
fn a_rate_that_is_wrong_is_noticed() {
    // The caller says 115200 baud, the line has a twelfth of that.
    let rate = 960.0;
    let mut bench = Bench::new(&LineSettings::new(rate), &known(RATE), 1);
    let mut most = 0;
    let mut written = 0;
    while written < 60_000 {
        bench.settle();
        let now = bench.now;
        written += bench.ends[0].write(now, &[7; 2048]);
        bench.settle();
        bench.ends[1].read(usize::MAX, |_| {});
        if bench.elapsed() > Duration::from_secs(10) {
            most = most.max(bench.wires.queued(now, 0));
        }
        bench.step();
    }
    assert!(most <= 1500, "{most} bytes in the driver");
}

#[test]
fn late_commit_leaves_little_below() {
    // What was written and has not left the line is at most 30 ms and one frame.
    let mut bench = Bench::new(&LineSettings::new(RATE), &known(RATE), 1);
    let (mut written, mut most) = (0u64, 0);
    while written < 60_000 {
        bench.settle();
        let now = bench.now;
        written += bench.ends[0].write(now, &[7; 2048]) as u64;
        bench.settle();
        let carried = bench.wires.carried(0);
        // The wire adds some; this errs to the strict side.
        most = most.max(written.saturating_sub(carried));
        bench.ends[1].read(usize::MAX, |_| {});
        bench.step();
    }
    assert!(most <= 576 + 345, "{most} bytes below");
}

#[test]
fn bytes_that_come_in_pieces_far_apart_are_frames_too() {
    // The receiver's UART tells of 31 bytes at a time, which take longer than a frame may stand still on a faster
    // line. The rate need not be known: it is found by frames that come.
    for (rate, fifo) in [(120.0, 31), (120.0, 63), (30.0, 31), (30.0, 63), (5.0, 14)] {
        for rate_known in [true, false] {
            for payload_max in [24, 1024] {
                let settings = LineSettings {
                    buffer: fifo,
                    fifo,
                    ..LineSettings::new(rate)
                };
                let config = Config {
                    line_rate: rate_known.then_some(Rate::bytes_per_second(rate)),
                    escapes: Escapes::Control,
                    window: 16,
                    payload_max,
                    ..Config::default()
                };
                let mut bench = Bench::new(&settings, &config, 117_493_477);
                let bytes = (rate * 4.0) as u64;
                transfer(&mut bench, rate, bytes, Duration::from_secs(400));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_the_line_does_the_bytes_arrive(
        seed in any::<u32>(),
        rate in prop::sample::select(vec![120.0, 960.0, 11_520.0, 300_000.0]),
        rate_known in any::<bool>(),
        errors in (0u8..4, 0u8..4, 0u8..4),
        delay in 0u64..300,
        buffer in 16usize..8192,
        fifo in 1usize..64,
        cut in prop::option::of((0u64..3000, 1u64..4000)),
        escapes in 0u8..3,
        window in 10u8..18,
        payload_max in 24u16..1024,
    ) {
        let chance = |level: u8| if level == 0 { 0.0 } else { 10f64.powi(-6 + i32::from(level)) };
        let noise = Noise {
            bit_errors: chance(errors.0),
            drops: chance(errors.1),
            insertions: chance(errors.2),
            burst: None,
            cuts: cut.into_iter().map(|(from, long)| (Duration::from_millis(from), Duration::from_millis(long))).collect(),
            eaten: Vec::new(),
        };
        let settings = LineSettings { delay: Duration::from_millis(delay), buffer, fifo, ..noisy(rate, noise) };
        let config = Config {
            line_rate: rate_known.then_some(Rate::bytes_per_second(rate)),
            escapes: escapes_of(escapes),
            window,
            payload_max,
            ..Config::default()
        };
        let mut bench = Bench::new(&settings, &config, u64::from(seed));
        let bytes = (rate * 4.0).min(20_000.0) as u64;
        let done = transfer(&mut bench, rate, bytes, Duration::from_secs(400));
        prop_assert!(done.share > 0.0);
        let kept = bench.ends[1].kept();
        prop_assert!(kept.0 <= 1 << window, "{kept:?}");
    }
}
