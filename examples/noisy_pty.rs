//! Two pseudo terminals joined by a noisy serial line, to test any program with.
//!
//! ```text
//! cargo run --example noisy_pty -- /tmp/a /tmp/b --baud 115200 --ber 1e-5 --seed 7
//! cepa serve serial:/tmp/a,baud=115200 --allow any --service echo=echo:
//! cepa connect serial:/tmp/b,baud=115200 echo --trust any
//! ```
//!
//! The two paths become links to the terminals' other ends. Both directions are alike, and each has its own
//! part of the seed, so what happens to a byte follows from the seed and from how many went before it. It runs
//! until it is interrupted.
//!
//! ```text
//! --baud N            ten bits a byte (115200); or --rate BYTES, a second
//! --delay MS          from the last bit of a byte to its arrival (0)
//! --buffer BYTES      what the driver holds of what is to be sent (4096)
//! --fifo BYTES        what the receiver's UART collects before it tells (16)
//! --ber P             chance that a bit flips
//! --drop P            chance that a byte vanishes
//! --insert P          chance that a random byte comes in before a byte
//! --burst EVERY:LONG  every so many milliseconds, so many of them are garbage
//! --eat WHAT          xonxoff (11, 13) or control (00 to 1f, 7f): bytes that never arrive
//! --cut FROM:LONG     so many seconds after the start, for so many, nothing arrives; may be given again
//! --half ECHO         both ends on the same wires, where what both send at once is garbage; `yes` lets each hear
//!                     itself, `no` does not (wires of their own)
//! --seed N            (1)
//! ```

use std::process::ExitCode;
use std::time::Duration;

use cepa::transports::testkit::{LineSettings, bus, cable, plug};
use cepa::transports::{Endpoint, listen};

struct Options {
    links: [String; 2],
    line: LineSettings,
    /// Both ends are on the same wires, with or without an echo.
    half: Option<bool>,
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match options(std::env::args().skip(1)) {
        Ok(options) => run(options).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("noisy_pty: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), String> {
    let [one, other] = &options.links;
    let address = |path: &str| format!("pty:{path}").parse::<Endpoint>();
    let (one, other) = (
        address(one).map_err(|error| error.to_string())?,
        address(other).map_err(|error| error.to_string())?,
    );
    let failed = |error: cepa::transports::TransportError| error.to_string();
    let (a, b) = (
        listen(&one).await.map_err(failed)?,
        listen(&other).await.map_err(failed)?,
    );
    let (near, far) = match options.half {
        Some(echo) => bus(&options.line, echo, options.seed),
        None => cable(&options.line, &options.line, options.seed),
    };
    println!("joined {} and {}: {:?}", one, other, options.line);
    tokio::select! {
        ended = plug(a, near) => ended.map_err(failed),
        ended = plug(b, far) => ended.map_err(failed),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn options(words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut line = LineSettings::new(11_520.0);
    let (mut links, mut half, mut seed) = (Vec::new(), None, 1);
    let mut words = words;
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else {
            links.push(word);
            continue;
        };
        let value = words.next().ok_or(format!("--{name} needs a value"))?;
        let noise = &mut line.noise;
        match name {
            "baud" => line.rate = positive(name, &value)? / 10.0,
            "rate" => line.rate = positive(name, &value)?,
            "delay" => line.delay = Duration::from_secs_f64(number(name, &value)? / 1e3),
            "buffer" => line.buffer = whole(name, &value)?,
            "fifo" => line.fifo = whole(name, &value)?.max(1),
            "ber" => noise.bit_errors = number(name, &value)?,
            "drop" => noise.drops = number(name, &value)?,
            "insert" => noise.insertions = number(name, &value)?,
            "burst" => noise.burst = Some(span(name, &value, 1e-3)?),
            "eat" => noise.eaten = eaten(&value)?,
            "cut" => noise.cuts.push(span(name, &value, 1.0)?),
            "half" if ["yes", "no"].contains(&&*value) => half = Some(value == "yes"),
            "half" => return Err(format!("--half {value}: yes or no")),
            "seed" => seed = whole(name, &value)? as u64,
            _ => {
                return Err(format!(
                    "there is no --{name}; the head of this example has all"
                ));
            }
        }
    }
    let links = links.try_into().map_err(|_| {
        "two paths for the links are needed, as: noisy_pty /tmp/a /tmp/b".to_owned()
    })?;
    Ok(Options {
        links,
        line,
        half,
        seed,
    })
}

fn number(name: &str, value: &str) -> Result<f64, String> {
    let number = value.parse::<f64>().ok();
    let number = number.filter(|n| (0.0..1e9).contains(n));
    number.ok_or(format!("--{name} {value}: a number, not below 0"))
}

fn positive(name: &str, value: &str) -> Result<f64, String> {
    let number = number(name, value)?;
    if number < 1.0 {
        return Err(format!("--{name} {value}: at least 1"));
    }
    Ok(number)
}

fn whole(name: &str, value: &str) -> Result<usize, String> {
    let number = value.parse().ok();
    number.ok_or(format!("--{name} {value}: a whole number"))
}

fn eaten(value: &str) -> Result<Vec<u8>, String> {
    match value {
        "xonxoff" => Ok(vec![0x11, 0x13]),
        "control" => Ok((0..0x20).chain([0x7f]).collect()),
        _ => Err(format!("--eat {value}: xonxoff or control")),
    }
}

/// Two times with a colon between them.
fn span(name: &str, value: &str, unit: f64) -> Result<(Duration, Duration), String> {
    let (from, long) = value
        .split_once(':')
        .ok_or(format!("--{name} {value}: two numbers with a colon"))?;
    let time = |text| number(name, text).map(|n| Duration::from_secs_f64(n * unit));
    Ok((time(from)?, time(long)?))
}
