//! serve and forward over two ptys that a noisy line joins, in real time: a transfer with its SHA-256, and a
//! conversation beside it. `CEPA_SEEDS=N` tries the first N seeds; `CEPA_BER=P` another bit error rate.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use cepa::transports::testkit::{LineSettings, Noise, Rng, fill};
use common::line::join;
use common::{Place, Server, sha256};

const BYTES: usize = 100_000;

fn transfer_and_talk(bit_errors: f64, seed: u64) {
    let place = Place::new();
    let line = LineSettings {
        noise: Noise {
            bit_errors,
            ..Noise::default()
        },
        ..LineSettings::new(11_520.0)
    };
    let runtime = join(&place, &line, seed);
    let port = |name: &str| format!("serial:{},baud=115200", place.text(name));
    let server = place.serve(&[
        &port("b"),
        "--allow",
        "any",
        "--service",
        "sum=exec:sha256sum",
        "--service",
        "echo=echo:",
    ]);
    let words = [
        "forward",
        &port("a"),
        "-L",
        "tcp:127.0.0.1:0=sum",
        "-L",
        "tcp:127.0.0.1:0=echo",
        "--trust",
        "any",
    ];
    let mut forward = Server::start(&place, &words);
    forward.wait_for("listening on ");
    let ports: Vec<String> = forward
        .seen()
        .iter()
        .filter_map(|line| line.strip_prefix("listening on tcp:"))
        .map(|rest| rest.split(' ').next().unwrap().to_owned())
        .collect();
    let patience = Some(Duration::from_secs(120));
    let transfer = thread::spawn({
        let to = ports[0].clone();
        move || {
            let mut data = vec![0; BYTES];
            fill(seed, 0, &mut data);
            let mut stream = TcpStream::connect(to).unwrap();
            stream.set_read_timeout(patience).unwrap();
            stream.write_all(&data).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut sum = String::new();
            stream.read_to_string(&mut sum).unwrap();
            assert_eq!(sum, sha256(&data), "seed {seed}");
        }
    });
    // Somebody types beside it, until it is done.
    let mut keys = TcpStream::connect(&ports[1]).unwrap();
    keys.set_nodelay(true).unwrap();
    keys.set_read_timeout(patience).unwrap();
    let (mut rng, mut typed, mut at) = (Rng::new(seed), 0, 0);
    while !transfer.is_finished() || typed < 10 {
        let mut word = vec![0; rng.between(1, 64)];
        fill(!seed, at, &mut word);
        at += word.len() as u64;
        keys.write_all(&word).unwrap();
        let mut back = vec![0; word.len()];
        keys.read_exact(&mut back).unwrap();
        assert_eq!(back, word, "seed {seed}");
        typed += 1;
        thread::sleep(Duration::from_millis(rng.between(50, 300) as u64));
    }
    transfer.join().unwrap();
    drop((forward, server));
    runtime.shutdown_background();
}

fn from_environment<T: std::str::FromStr>(name: &str, usual: T) -> T {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} makes no sense"))
    })
}

#[test]
fn a_transfer_and_a_conversation_over_a_noisy_line() {
    let bit_errors = from_environment("CEPA_BER", 1e-5);
    let tests: Vec<_> = (1..=from_environment("CEPA_SEEDS", 3))
        .map(|seed| thread::spawn(move || transfer_and_talk(bit_errors, seed)))
        .collect();
    for test in tests {
        test.join().unwrap();
    }
}
