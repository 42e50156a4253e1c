//! Far paths: what the ramp costs, from the first byte on. A session knows the round trip before it begins, by the ping that it is announced
//! with.

use super::*;

const MIB: u64 = 1 << 20;

struct Far {
    rate: f64,
    buffer: usize,
    delay: Duration,
    pacing: bool,
    /// The transport below starts slowly.
    slow: bool,
    /// One packet of so many is lost.
    losses: Option<f64>,
}

impl Far {
    /// Share of the path that so many bytes get, up to the last one's arrival.
    fn share(&self, bytes: u64) -> f64 {
        let config = Config {
            pacing: self.pacing,
            ..Config::default()
        };
        let mut path = Path::new(self.rate, self.buffer, self.delay, config);
        path.next_probe = None;
        if self.slow {
            for wire in &mut path.wires {
                wire.transport = Some(SlowStart::new());
            }
        }
        path.wires[CLIENT].losses = self.losses.map(|of| (of, 1));
        let bulk = path.bulk[CLIENT].take();
        for end in &mut path.ends {
            end.ping().unwrap();
        }
        path.run(4 * self.delay);
        path.bulk[CLIENT] = bulk;
        let start = path.now;
        while path.got[CLIENT] < bytes {
            path.step();
        }
        path.got[CLIENT] as f64 / (path.now - start).as_secs_f64() / self.rate
    }
}

/// Bytes a second, the delay one way, and what 16, 64 and 256 MiB are to get.
const PATHS: [(f64, Duration, [f64; 3]); 2] = [
    (125e6, Duration::from_millis(25), [0.45, 0.76, 0.925]),
    (12.5e6, Duration::from_millis(100), [0.7, 0.9, 0.95]),
];
const SIZES: [u64; 3] = [16, 64, 256];

#[test]
fn bulk_on_a_far_path() {
    let mut missed = Vec::new();
    for (rate, delay, goals) in PATHS {
        for buffer in [256 << 10, 4 << 20] {
            let far = Far {
                rate,
                buffer,
                delay,
                pacing: true,
                slow: false,
                losses: None,
            };
            for (mib, goal) in SIZES.into_iter().zip(goals) {
                let share = far.share(mib * MIB);
                println!("{rate} B/s, {delay:?}, buffer {buffer}, {mib} MiB: {share:.4}");
                if share < goal {
                    missed.push((rate, buffer, mib, share));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// What the transport has not sent yet looks like a queue of the path, and a flight that stays as it was would be all that it ever has to send.
#[test]
fn bulk_on_a_far_path_over_a_transport_that_starts_slowly() {
    let mut missed = Vec::new();
    for (rate, delay, _) in PATHS {
        // Of what goes without pacing: the transport has less to grow with in the first round trips.
        for (mib, goal) in SIZES.into_iter().zip([0.7, 0.84, 0.92]) {
            let [unpaced, paced] = [false, true].map(|pacing| {
                let far = Far {
                    rate,
                    buffer: 16 << 20,
                    delay,
                    pacing,
                    slow: true,
                    losses: None,
                };
                far.share(mib * MIB)
            });
            println!("{rate} B/s, {delay:?}, {mib} MiB: {paced:.4}, unpaced {unpaced:.4}");
            if paced < goal * unpaced {
                missed.push((rate, mib, paced, unpaced));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// TCP keeps what comes behind a loss until that was sent again, and gives all of it at once.
#[test]
fn bulk_on_a_far_path_that_loses_one_packet_in_a_thousand() {
    let mut missed = Vec::new();
    for (rate, delay, _) in PATHS {
        let [unpaced, paced] = [false, true].map(|pacing| {
            let far = Far {
                rate,
                buffer: 1 << 20,
                delay,
                pacing,
                slow: false,
                losses: Some(1000.0),
            };
            far.share(64 * MIB)
        });
        println!("{rate} B/s, {delay:?}, with losses: {paced:.4}, unpaced {unpaced:.4}");
        if paced < 0.7 * unpaced {
            missed.push((rate, paced, unpaced));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
