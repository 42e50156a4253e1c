//! A victim for testers outside: plain yamux on loopback, as the side that accepts, which anybody may
//! attack with any yamux implementation or with bytes of their own.
//!
//! ```text
//! cargo run --release --example mux_victim -- hold|discard|drop PORT
//!
//!   hold      keeps every stream and reads nothing, until the session is over; then reads all of it
//!   discard   reads every stream to its end and throws the bytes away
//!   drop      drops every stream at once, which resets it
//! ```
//!
//! On stdout the line `ready` says that it listens. PORT 0 takes a free one, and the next line,
//! `port N`, says which. Connections are served side by side, each as a session of its own with the
//! library's default limits, until the process is killed. Nothing is ever written to a stream, and
//! none is shut down. On stderr one line tells how each stream ended:
//!
//! ```text
//! stream total 300000 end=clean EOF              the peer's FIN came; BYTES is all that was read
//! stream total 4096 end=ERR the peer reset …     anything else, with the reason
//! stream total 0 end=ERR dropped here            `drop`: it was not looked at
//! ```
//!
//! and nothing else comes there. How each session ended is told on stdout, `session end=clean` or
//! `session end=ERR reason`. With `hold`, the lines of the streams come when their session is over.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use cepa::Side;
use cepa::mux::{Config, StreamTimeouts, Substream, mux};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Clone, Copy)]
enum Mode {
    Hold,
    Discard,
    Drop,
}

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (mode, port) = match words[..] {
        ["hold", port] => (Mode::Hold, port.parse()),
        ["discard", port] => (Mode::Discard, port.parse()),
        ["drop", port] => (Mode::Drop, port.parse()),
        _ => return usage(),
    };
    let Ok(port) = port else { return usage() };
    match serve(mode, port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mux_victim: port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: mux_victim hold|discard|drop PORT");
    ExitCode::from(2)
}

async fn serve(mode: Mode, port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("ready");
    if port == 0 {
        println!("port {}", listener.local_addr()?.port());
    }
    loop {
        let (connection, _) = listener.accept().await?;
        tokio::spawn(session(mode, connection));
    }
}

async fn session(mode: Mode, connection: TcpStream) {
    let mut config = Config::default();
    // A victim is patient: what ends a stream here shall be the attack.
    config.stream_timeouts = StreamTimeouts::NONE;
    let (session, driver) = mux(connection, Side::Server, config);
    let driver = tokio::spawn(driver);
    let mut held = Vec::new();
    let mut reading = JoinSet::new();
    while let Ok(stream) = session.accept().await {
        match mode {
            Mode::Hold => held.push(stream),
            Mode::Discard => {
                reading.spawn(read(stream));
            }
            Mode::Drop => {
                drop(stream);
                eprintln!("stream total 0 end=ERR dropped here");
            }
        }
        while reading.try_join_next().is_some() {}
    }
    for stream in held {
        read(stream).await;
    }
    reading.join_all().await;
    let end = match driver.await {
        Ok(Ok(())) => "clean".to_owned(),
        Ok(Err(error)) => format!("ERR {error}"),
        Err(error) => format!("ERR {error}"),
    };
    // Whoever only wanted to know that it listens may have closed this.
    let _ = writeln!(std::io::stdout(), "session end={end}");
}

/// Reads a stream to its end, and tells which it was.
async fn read(mut stream: Substream) {
    let mut total = 0;
    loop {
        match stream.read_chunk().await {
            Ok(Some(chunk)) => total += chunk.len(),
            Ok(None) => break eprintln!("stream total {total} end=clean EOF"),
            Err(error) => break eprintln!("stream total {total} end=ERR {error}"),
        }
    }
}
