//! Pushes and pops TLS layers against any peer that speaks OLP/1, the line protocol of the onion
//! tests.
//!
//! ```text
//! onion_peer drive|respond TRANSPORT --certs DIR [--outer P] [--strict] [--scenario all] [--limit S]
//!   TRANSPORT: --listen PORT [--portfile F]   (0: any; prints LISTENING n, writes n into F)
//!            | --connect PORT | --tty PATH | --stdio | --exec 'CMD ...'
//! ```
//!
//! DIR holds `{driver,responder}-{A,B,C,O}.{crt,key}.pem`, all self-signed. Two ends of it:
//!
//! ```text
//! cargo run --release --example onion_peer -- respond --listen 7000 --certs DIR &
//! cargo run --release --example onion_peer -- drive --connect 7000 --certs DIR
//! ```
//!
//! The last line is `PASS …` or `FAIL …` on standard output (with `--stdio` on standard error).

mod driver;
mod protocol;
mod responder;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cepa::Side;
use cepa::onion::Onion;
use cepa::transports::{Endpoint, Stream, dial, listen};
use protocol::{Counts, Credentials, End, Outcome, Profile};
use tokio::io::AsyncWriteExt;

const USAGE: &str = "usage: onion_peer drive|respond (--listen PORT [--portfile F] | --connect PORT \
| --tty PATH | --stdio | --exec CMD) --certs DIR [--outer P] [--strict] [--scenario NAMES] \
[--bulk BYTES] [--limit SECONDS]";

enum Transport {
    Listen(u16),
    Connect(u16),
    Tty(String),
    Stdio,
    Exec(String),
}

struct Options {
    drives: bool,
    transport: Transport,
    portfile: Option<PathBuf>,
    certs: PathBuf,
    outer: Option<Profile>,
    limit: Duration,
    driver: driver::Settings,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let drives = match words.next().as_deref() {
            Some("drive") => true,
            Some("respond") => false,
            _ => return Err(USAGE.into()),
        };
        let (mut transport, mut portfile, mut certs, mut outer) = (None, None, None, None);
        let mut limit = 60.0;
        let (mut strict, mut scenario, mut bulk) = (false, "all".to_owned(), 300_000);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} wants a value; {USAGE}"))
            };
            match word.as_str() {
                "--listen" => transport = Some(Transport::Listen(value()?.parse()?)),
                "--connect" => transport = Some(Transport::Connect(value()?.parse()?)),
                "--tty" => transport = Some(Transport::Tty(value()?)),
                "--stdio" => transport = Some(Transport::Stdio),
                "--exec" => transport = Some(Transport::Exec(value()?)),
                "--portfile" => portfile = Some(value()?.into()),
                "--certs" => certs = Some(value()?.into()),
                "--outer" => outer = Some(Profile::named(&value()?).ok_or("no such profile")?),
                "--strict" => strict = true,
                "--scenario" => scenario = value()?,
                "--bulk" => bulk = value()?.parse()?,
                "--limit" => limit = value()?.parse()?,
                _ => return Err(format!("{word} is not known; {USAGE}").into()),
            }
        }
        Ok(Self {
            drives,
            transport: transport.ok_or(USAGE)?,
            portfile,
            certs: certs.ok_or(USAGE)?,
            outer,
            limit: Duration::from_secs_f64(limit),
            driver: driver::Settings {
                strict,
                scenario,
                bulk,
            },
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let mut counts = Counts::default();
    let result = tokio::time::timeout(options.limit, run(&options, &mut counts)).await;
    let result = result.unwrap_or_else(|_| Err("the time limit is over".into()));
    let (role, transport) = (
        if options.drives {
            "driver"
        } else {
            "responder"
        },
        match options.transport {
            Transport::Listen(_) => "listen",
            Transport::Connect(_) => "connect",
            Transport::Tty(_) => "tty",
            Transport::Stdio => "stdio",
            Transport::Exec(_) => "exec",
        },
    );
    let Counts {
        pushes,
        pops,
        lines,
        bulk,
    } = counts;
    let answers = if options.drives {
        "answers"
    } else {
        "commands"
    };
    let mut last = format!(
        "{} onion_peer transport={transport} role={role} {answers}={lines} pushes={pushes} \
         pops={pops} bulk_bytes={bulk} secs={:.2}",
        if result.is_ok() { "PASS" } else { "FAIL" },
        started.elapsed().as_secs_f64(),
    );
    if let Err(error) = &result {
        last.push_str(" error: ");
        last.push_str(&error.to_string());
    }
    if matches!(options.transport, Transport::Stdio) {
        eprintln!("{last}");
    } else {
        println!("{last}");
    }
    ExitCode::from(u8::from(result.is_err()))
}

async fn run(options: &Options, counts: &mut Counts) -> Outcome<()> {
    let (me, other) = if options.drives {
        ("driver", "responder")
    } else {
        ("responder", "driver")
    };
    let credentials = Credentials::load(&options.certs, me, other, options.driver.strict)?;
    let (stream, mut child) = open(options).await?;
    let mut end = End {
        onion: Onion::new(stream),
        credentials,
        counts: Counts::default(),
        layers: Vec::new(),
        base: 0,
    };
    let result = converse(options, &mut end).await;
    *counts = std::mem::take(&mut end.counts);
    // The last line must leave before the stream goes, and a terminal keeps nothing for a reader
    // that comes late.
    let _ = end.onion.shutdown().await;
    if matches!(options.transport, Transport::Tty(_)) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    drop(end);
    if let Some(child) = &mut child {
        let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
        for line in child.stderr().take_lines() {
            eprintln!("{line}");
        }
    }
    result
}

async fn converse(options: &Options, end: &mut End) -> Outcome<()> {
    if let Some(profile) = options.outer {
        // The roles follow those of the protocol, whoever dialled.
        let side = if options.drives {
            Side::Client
        } else {
            Side::Server
        };
        end.push(profile, side).await?;
        end.base = 1;
    }
    if options.drives {
        driver::run(end, &options.driver).await
    } else {
        responder::run(end).await
    }
}

async fn open(options: &Options) -> Outcome<(Stream, Option<cepa::transports::Child>)> {
    let address = match &options.transport {
        Transport::Listen(port) => {
            let stream = accept_one(*port, options.portfile.as_deref()).await?;
            return Ok((stream, None));
        }
        Transport::Connect(port) => format!("tcp:127.0.0.1:{port}"),
        Transport::Tty(path) => format!("serial:{path}"),
        Transport::Stdio => "stdio:".into(),
        Transport::Exec(command) => format!("exec:{command}"),
    };
    let mut stream = dial(&address.parse::<Endpoint>()?).await?;
    let child = stream.take_child();
    Ok((stream, child))
}

async fn accept_one(port: u16, portfile: Option<&Path>) -> Outcome<Stream> {
    let mut listener = listen(&format!("tcp:127.0.0.1:{port}").parse::<Endpoint>()?).await?;
    let address = listener.endpoint().to_string();
    let port = address.rsplit(':').next().unwrap_or_default();
    println!("LISTENING {port}");
    if let Some(file) = portfile {
        // Whoever waits for the file must not find half of it.
        let half = file.with_extension("part");
        std::fs::write(&half, port)?;
        std::fs::rename(&half, file)?;
    }
    listener.accept().await?.ok_or_else(|| "nobody came".into())
}
