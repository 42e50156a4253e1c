//! `cepa probe`: what a line does to bytes, found out with another probe that answers at its other end, or
//! with a loopback plug. Nothing of cepa's own layers runs meanwhile: it is the line that is looked at.

mod engine;
#[cfg(test)]
mod fuzz;
mod meter;
mod report;
#[cfg(test)]
mod tests;
mod wire;

use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::time::{Duration, Instant};

use cepa::transports::{self, Endpoint, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};

use crate::args;
use crate::exit::{self, Code, Failure, say};
use crate::log::say_of;
use crate::signal::Signals;
use crate::silent_line::{Heard, Who};
use engine::{Answerer, Asker, BLOCKS_MAX, Findings};
use wire::BLOCK;

/// Bytes a second that are expected of what has no baud rate.
const FAST: f64 = 1_000_000.0;
/// How long the test data of one direction takes.
const SECONDS: f64 = 4.0;

pub(crate) async fn run(args: args::Probe) -> Result<(), Failure> {
    if !args.address.layers().is_empty() {
        return Err(Failure::new(
            Code::Usage,
            format!(
                "{}: a probe tests the line itself; give the plain address",
                args.address
            ),
        ));
    }
    let mut signals = Signals::watch();
    if args.answer {
        return tokio::select! {
            result = answer(&args.address) => result,
            () = signals.asked_to_end() => Ok(()),
        };
    }
    let rate = line_rate(&args.address);
    let stream = transports::dial(&args.address).await?;
    stream.remarks().iter().for_each(say);
    let control = stream.control();
    let findings = tokio::select! {
        findings = ask(stream, &args.address, rate) => findings?,
        signal = signals.ended_by() => return Err(Failure::by_signal(signal)),
    };
    let line = control.and_then(|device| device.line_notices());
    if args.json {
        return exit::print_json(&format!("{}\n", report::json(&findings, line.as_ref())));
    }
    exit::print(&report::table(&findings, line.as_ref()))
}

/// Bytes a second that an address promises, roughly.
fn line_rate(address: &Endpoint) -> f64 {
    let settings = address.line_settings();
    settings.map_or(FAST, |it| it.line_rate().as_bytes_per_second())
}

fn gone(address: &Endpoint) -> Failure {
    Failure::new(Code::Lost, format!("{address}: the other end is gone"))
}

fn lost(address: &Endpoint, error: &std::io::Error) -> Failure {
    // Reading would have told the end; writing was first.
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return gone(address);
    }
    Failure::new(Code::Lost, format!("{address}: {error}"))
}

async fn ask(stream: Stream, address: &Endpoint, rate: f64) -> Result<Findings, Failure> {
    // In range by the clamp.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let blocks = (rate * SECONDS / BLOCK as f64).clamp(16.0, f64::from(BLOCKS_MAX)) as u16;
    // Two probes at once must not take each other's answers for theirs.
    let [.., a, b] = RandomState::new().hash_one(0).to_be_bytes();
    let mut asker = Asker::new(u16::from_be_bytes([a, b]), blocks, rate, Instant::now());
    let (mut input, mut output) = split(stream);
    let (mut buffer, mut out, mut written) = (vec![0; 4096], Vec::new(), 0);
    let heard = Heard::default();
    let mut silence = pin!(heard.tell_why_silent(address, Who::Probes));
    loop {
        if let Some(findings) = asker.findings() {
            if let Some(login) = heard.login(address).filter(|_| findings.loopback) {
                say(login);
            }
            return Ok(findings.clone());
        }
        if asker.has_failed() {
            let message = if asker.has_heard() {
                format!("{address}: the other end stopped answering")
            } else {
                format!(
                    "{address}: nobody answers; run `cepa probe --answer` at the other end, or put a \
                     loopback plug there, and check the baud rate"
                )
            };
            return Err(Failure::new(Code::Lost, message));
        }
        if written >= out.len() {
            out = asker.poll_transmit().unwrap_or_default();
            written = 0;
        }
        let rest = out.get(written..).unwrap_or_default();
        let deadline = asker.poll_timeout().unwrap_or_else(Instant::now);
        tokio::select! {
            read = input.read(&mut buffer) => match read {
                Ok(0) => return Err(gone(address)),
                Ok(n) => {
                    let came = buffer.get(..n).unwrap_or_default();
                    heard.take(came);
                    asker.handle_input(Instant::now(), came);
                }
                Err(e) => return Err(lost(address, &e)),
            },
            wrote = output.write(rest), if !rest.is_empty() => match wrote {
                Ok(n) => written += n,
                Err(e) => return Err(lost(address, &e)),
            },
            () = &mut silence, if !asker.has_heard() => {}
            () = tokio::time::sleep_until(deadline.into()) => asker.handle_timeout(Instant::now()),
        }
    }
}

/// Answers whoever asks, one after the other, for ever.
async fn answer(address: &Endpoint) -> Result<(), Failure> {
    let mut listener = transports::listen(address).await?;
    say(format_args!("answering probes on {}", listener.endpoint()));
    listener.remarks().iter().for_each(say);
    while let Some(stream) = listener.accept().await? {
        let label = stream.label().to_owned();
        if let Err(error) = answer_on(stream, &label).await {
            say(format_args!("{}: {error}", listener.endpoint()));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

async fn answer_on(stream: Stream, label: &str) -> std::io::Result<()> {
    let (mut input, mut output) = split(stream);
    let mut answerer = Answerer::default();
    let (mut buffer, mut out, mut written) = (vec![0; 4096], Vec::new(), 0);
    let mut reported = 0;
    loop {
        if written >= out.len() {
            out = answerer.poll_transmit().unwrap_or_default();
            written = 0;
        }
        let rest = out.get(written..).unwrap_or_default();
        tokio::select! {
            read = input.read(&mut buffer) => match read? {
                0 => return Ok(()),
                n => answerer.handle_input(Instant::now(), buffer.get(..n).unwrap_or_default()),
            },
            wrote = output.write(rest), if !rest.is_empty() => written += wrote?,
        }
        if answerer.askers() > reported {
            reported = answerer.askers();
            // Whoever is there may begin as often as bytes allow.
            say_of(label, "a probe started");
        }
    }
}
