//! What share of a noisy line the application gets: the opening, all acknowledgements and every repetition
//! included, and bit for bit the same.

use super::*;

/// Percent of the line's rate, the least of some seeds.
fn share(rate: f64, bytes: u64, seeds: u64, noise: &Noise) -> f64 {
    let limit = Duration::from_secs_f64(20.0 * bytes as f64 / rate);
    let runs = (0..seeds).map(|seed| {
        let mut bench = Bench::new(&noisy(rate, noise.clone()), &known(rate), seed);
        100.0 * transfer(&mut bench, rate, bytes, limit).share
    });
    runs.fold(f64::INFINITY, f64::min)
}

fn reaches(rate: f64, bytes: u64, seeds: u64, goals: [(f64, f64); 5]) {
    for (bit_errors, goal) in goals {
        let noise = Noise {
            bit_errors,
            ..Noise::default()
        };
        let share = share(rate, bytes, seeds, &noise);
        assert!(
            share >= goal,
            "{share:.2} % of {rate} B/s at a bit error rate of {bit_errors:e}, goal {goal} %"
        );
        println!("{rate:>9} B/s, bit errors {bit_errors:e}: {share:.2} %");
    }
}

const GOALS: [(f64, f64); 5] = [
    (0.0, 97.5),
    (1e-6, 97.0),
    (1e-5, 92.0),
    (1e-4, 78.0),
    (1e-3, 45.0),
];

#[test]
fn at_115200_baud() {
    reaches(11_520.0, 200_000, 3, GOALS);
}

#[test]
fn at_9600_baud() {
    reaches(960.0, 200_000, 1, GOALS);
}

#[test]
fn at_3_megabaud() {
    reaches(300_000.0, 200_000, 1, GOALS);
}
