//! Copies over a simulated serial line, with bit errors and without, in real time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cepa::transports::testkit::{LineSettings, Noise, cable, plug};
use cepa::transports::{Endpoint, listen};

use super::pair::{FILE, Pair};
use crate::Outcome;
use crate::figure::COPY;

/// Bytes a second of 115,200 baud, ten bits a byte.
const RATE: f64 = 11_520.0;

/// Of the line, with a kill and a resumption in it.
const GOAL: f64 = 90.0;

/// A small file, whose start is part of its time, and what it gets of a line without errors.
const SMALL: u64 = 100_000;
const SMALL_GOAL: f64 = 95.0;

pub(super) async fn run(cepa: &Path, bytes: u64) -> Outcome<()> {
    let (small, _) = over(cepa, SMALL, 0.0, false).await?;
    COPY.at_least("line-115200-100-kb", small, "% of the line", SMALL_GOAL)?;
    let (undisturbed, killed) = over(cepa, bytes, 1e-5, true).await?;
    COPY.figure(
        "line-115200-ber-1e-5-undisturbed",
        undisturbed,
        "% of the line",
    )?;
    COPY.at_least(
        "line-115200-ber-1e-5-killed-and-resumed",
        killed,
        "% of the line",
        GOAL,
    )
}

/// Percent of a line: undisturbed, and killed and resumed, where that is wanted.
async fn over(cepa: &Path, bytes: u64, bit_errors: f64, and_killed: bool) -> Outcome<(f64, f64)> {
    let noise = Noise {
        bit_errors,
        ..Noise::default()
    };
    let line = LineSettings {
        noise,
        ..LineSettings::new(RATE)
    };
    let mut pair = Pair::new(cepa, bytes)?;
    let (near, far) = cable(&line, &line, 1);
    let mut plugs = Vec::new();
    let mut ports = Vec::new();
    for (name, end) in [("a", near), ("b", far)] {
        let path = pair.path(name).display().to_string();
        let address: Endpoint = format!("pty:{path}").parse()?;
        plugs.push(tokio::spawn(plug(listen(&address).await?, end)));
        ports.push(format!("serial:{path},baud=115200"));
    }
    let [a, b] = ports.as_slice() else {
        return Err("a line has two ends".into());
    };
    pair.serve(b, a, &[])?;
    let copied = tokio::task::spawn_blocking(move || {
        let undisturbed = copy(&pair, bytes, None)?;
        let killed = if and_killed {
            copy(&pair, bytes, Some(bytes / 2))?
        } else {
            f64::NAN
        };
        Ok::<_, crate::Failure>((undisturbed, killed))
    })
    .await??;
    for plug in plugs {
        plug.abort();
    }
    Ok(copied)
}

/// Percent of the line. The client is killed when so much is there, and started again.
fn copy(pair: &Pair, bytes: u64, killed_at: Option<u64>) -> Outcome<f64> {
    let started = Instant::now();
    let mut child = pair.begin()?;
    if let Some(size) = killed_at {
        let part = pair.path("there").join(format!(".{FILE}.cepa-part"));
        while fs::metadata(&part).map_or(0, |it| it.len()) < size {
            if let Some(status) = child.try_wait()? {
                return Err(format!("ended before it was killed: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill()?;
        child.wait()?;
        child = pair.begin()?;
    }
    pair.finish(child)?;
    let took = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a file is not that long")]
    Ok(bytes as f64 / (took * RATE) * 100.0)
}
