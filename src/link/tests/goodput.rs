//! What share of a noisy line the application gets.

use super::*;

#[test]
fn table() {
    for rate in [11_520.0, 960.0, 300_000.0] {
        for ber in [0.0, 1e-6, 1e-5, 1e-4, 1e-3] {
            for seed in 0..3 {
                let noise = Noise {
                    bit_errors: ber,
                    ..Noise::default()
                };
                let mut bench = Bench::new(&noisy(rate, noise), &known(rate), seed);
                let done = transfer(&mut bench, rate, 200_000, Duration::from_secs(1000));
                println!(
                    "{rate} {ber:e} {:.2} % gap {:?} {:?}",
                    done.share * 100.0,
                    done.gap,
                    bench.ends[0].stats()
                );
            }
        }
    }
}
