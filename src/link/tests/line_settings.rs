//! What one end is told of the line holds for both: bytes that the line eats, and the largest frame.

use cepa_transports::endpoint::{Escapes, LinkSettings, MTU};

use super::*;

const RATE: f64 = 11_520.0;

fn configured(escape: Escapes, mtu: Option<u16>) -> Config {
    known(RATE).with_line_settings(LinkSettings {
        escape,
        mtu,
        ..LinkSettings::DEFAULT
    })
}

#[test]
fn a_line_that_eats_bytes_carries_all_of_them() {
    let control: Vec<u8> = (0..0x20).chain([0x7f]).collect();
    for (escape, eaten) in [
        (Escapes::XonXoff, vec![0x11, 0x13]),
        (Escapes::Control, control),
    ] {
        for bit_errors in [0.0, 1e-4] {
            let noise = Noise {
                eaten: eaten.clone(),
                bit_errors,
                ..Noise::default()
            };
            let (one, other) = (configured(escape, None), known(RATE));
            for configs in [[&one, &other], [&other, &one]] {
                let mut bench = Bench::between(&noisy(RATE, noise.clone()), configs, 1);
                let done = transfer(&mut bench, RATE, 20_000, Duration::from_secs(20));
                assert!(done.share >= 0.6, "{escape:?} {bit_errors}: {done:?}");
            }
        }
    }
    // Without being told, nothing of a certain length gets through.
    let noise = Noise {
        eaten: vec![0x11, 0x13],
        ..Noise::default()
    };
    let mut bench = Bench::new(&noisy(RATE, noise), &known(RATE), 1);
    let piece: Vec<u8> = (0..=255).collect();
    while bench.elapsed() < Duration::from_secs(20) {
        bench.settle();
        let now = bench.now;
        bench.ends[0].write(now, &piece);
        bench.settle();
        bench.step();
    }
    assert!(!bench.ends[1].is_readable());
}

/// The bench looks at every write; here nearly every byte is escaped, and acknowledgements are long.
#[test]
fn no_frame_is_longer_than_configured() {
    let (least, _) = MTU.into_inner();
    for (mtu, window) in [(least, 15), (least, 24), (100, 15), (250, 20)] {
        for escapes in [Escapes::Least, Escapes::Control] {
            let config = Config {
                escapes,
                window,
                ..configured(Escapes::Least, Some(mtu))
            };
            let noise = Noise {
                bit_errors: 2e-4,
                drops: 1e-4,
                ..Noise::default()
            };
            let other = known(RATE);
            let mut bench = Bench::between(&noisy(RATE, noise), [&config, &other], 1);
            let (mut written, mut read) = ([0u64; 2], [0u64; 2]);
            while read.iter().any(|read| *read < 20_000) {
                bench.settle();
                let now = bench.now;
                for end in 0..2 {
                    let room = bench.ends[end].room(now);
                    let piece: Vec<u8> = (written[end]..).take(room).map(control).collect();
                    written[end] += bench.ends[end].write(now, &piece) as u64;
                    bench.ends[end].read(usize::MAX, |part| {
                        for byte in part {
                            assert_eq!(*byte, control(read[end]));
                            read[end] += 1;
                        }
                    });
                    assert!(bench.ends[end].end().is_none());
                }
                bench.settle();
                assert!(bench.elapsed() < Duration::from_secs(100), "{read:?}");
                bench.step();
            }
            assert!(bench.longest > usize::from(mtu) * 9 / 10, "not used");
        }
    }
}

fn control(position: u64) -> u8 {
    [0x7e, 0x11, 0x7d, 0x00, 0x7f][(position % 5) as usize]
}
