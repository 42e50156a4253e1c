//! How much of a noisy serial line an application gets through a link: the openings, all acknowledgements and every
//! repetition included, and compared bit for bit.
//!
//! ```text
//! cargo run --release -p cepa-bench -- link
//! ```
//!
//! `goodput` runs the real stack in virtual time, so the figures are the same on every machine. `rivals` runs
//! Debian's lrzsz and gensio in real time, where they are installed, over ptys that the same simulator joins.

mod goodput;
mod rivals;

use std::time::Duration;

use cepa::transports::endpoint::Duplex;
use cepa::transports::testkit::{LineSettings, Noise};
use clap::Args;

use crate::Outcome;

/// Bytes a second of 115,200 baud, 9,600 baud and 3 Mbaud, ten bits a byte.
const RATES: [(&str, f64); 3] = [("115200", 11_520.0), ("9600", 960.0), ("3M", 300_000.0)];

/// Bit error rates, and the percent of the line that are to be reached.
const GOALS: [(&str, f64, f64); 5] = [
    ("0", 0.0, 97.5),
    ("1e-6", 1e-6, 97.0),
    ("1e-5", 1e-5, 92.0),
    ("1e-4", 1e-4, 78.0),
    ("1e-3", 1e-3, 45.0),
];

#[derive(Args)]
pub(crate) struct Options {
    /// Bytes of a transfer.
    #[arg(long, default_value_t = 200_000)]
    bytes: u64,
    /// Seeds of each row; the least of them counts.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Leaves lrzsz and gensio out, which take two minutes.
    #[arg(long)]
    alone: bool,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let mut missed = 0;
    for (baud, rate) in RATES {
        for (label, bit_errors, goal) in GOALS {
            let noise = Noise {
                bit_errors,
                ..Noise::default()
            };
            let reached = least(rate, &noise, Duplex::Full, options)?;
            let name = format!("link-{baud}-ber-{label}");
            missed += line(&name, reached.percent, goal);
            println!("  ideal selective repeat {:.1}", goodput::ideal(bit_errors));
        }
    }
    let ms = Duration::from_millis;
    let disturbed = [
        (
            "drops-1e-4",
            90.0,
            Noise {
                drops: 1e-4,
                ..Noise::default()
            },
        ),
        (
            "drops-1e-3",
            75.0,
            Noise {
                drops: 1e-3,
                ..Noise::default()
            },
        ),
        (
            "burst-50ms-each-second",
            80.0,
            Noise {
                burst: Some((ms(1000), ms(50))),
                ..Noise::default()
            },
        ),
    ];
    for (label, goal, noise) in disturbed {
        let reached = least(11_520.0, &noise, Duplex::Full, options)?;
        missed += line(&format!("link-115200-{label}"), reached.percent, goal);
    }
    let reached = least(11_520.0, &Noise::default(), Duplex::Half, options)?;
    missed += line("link-115200-half-duplex", reached.percent, 90.0);
    for (baud, rate) in RATES {
        let noise = Noise {
            cuts: vec![(ms(3000), ms(5000)), (ms(11_000), ms(5000))],
            ..Noise::default()
        };
        // Enough for both cuts to meet it.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // some millions
        let bytes = (rate * 12.0) as u64;
        let reached = goodput::measure(&noisy(rate, &noise), Duplex::Full, bytes, 1)?;
        let after = reached.gap.as_secs_f64() - 5.0;
        let held = after <= 1.0;
        missed += u32::from(!held);
        println!(
            "link-{baud}-cut-5s-recovery {after:.2} ≤ 1 {}",
            verdict(held)
        );
    }
    if !options.alone {
        rivals::run()?;
    }
    println!("link: {missed} missed");
    Ok(())
}

fn noisy(rate: f64, noise: &Noise) -> LineSettings {
    LineSettings {
        noise: noise.clone(),
        ..LineSettings::new(rate)
    }
}

/// The least share of some seeds.
fn least(rate: f64, noise: &Noise, duplex: Duplex, options: &Options) -> Outcome<goodput::Reached> {
    let mut least = goodput::measure(&noisy(rate, noise), duplex, options.bytes, 0)?;
    for seed in 1..options.seeds {
        let reached = goodput::measure(&noisy(rate, noise), duplex, options.bytes, seed)?;
        if reached.percent < least.percent {
            least = reached;
        }
    }
    Ok(least)
}

/// Prints a row; 1 if its goal was missed.
fn line(name: &str, value: f64, goal: f64) -> u32 {
    let held = value >= goal;
    println!("{name} {value:.2} ≥ {goal} {}", verdict(held));
    u32::from(!held)
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "missed" }
}
