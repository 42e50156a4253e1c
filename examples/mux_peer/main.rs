//! A peer for interoperability tests of the mux. It speaks YTP/1: the client opens every stream, and
//! the first line of a stream says what the server does with it (ECHO, HASH, SLOW ms, RESET, PING,
//! GOAWAY). Loopback only; it ends by itself, and its last line starts with PASS or FAIL.
//!
//! ```text
//! cargo run --release --example mux_peer -- server --portfile /tmp/port &
//! cargo run --release --example mux_peer -- client --port "$(cat /tmp/port)"
//!
//! mux_peer server|client [--port N] [--portfile F] [--tls DIR] [--scenario all|a,b,…]
//!          [--limit SECONDS] [--count N] [--mib N] [--window BYTES] [--streams N]
//! ```
//!
//! With `--tls DIR` the connection is TLS 1.3 with certificates at both ends: the server shows
//! `responder-A`, the client `driver-A`, and each accepts the other's alone.

mod client;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cepa::identity::{Identity, PeerId, Pinned};
use cepa::mux::Config;
use cepa::onion::Onion;
use cepa::tls::TlsConfig;
use cepa::{ByteStream, Side};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct Options(Arc<HashMap<String, String>>);

impl Options {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut map = HashMap::new();
        for pair in words.chunks(2) {
            match pair {
                [name, value] if name.starts_with("--") => {
                    map.insert(name.trim_start_matches('-').to_owned(), value.clone());
                }
                other => return Err(format!("{other:?}: expected --NAME VALUE").into()),
            }
        }
        Ok(Self(Arc::new(map)))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, default: usize) -> usize {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        let window = self.number("window", 0);
        config.receive_window = u32::try_from(window).unwrap_or(u32::MAX);
        // Room for the windows that were asked for, on a hundred streams.
        config.receive_budget = config.receive_budget.max(window.saturating_mul(128));
        config
    }
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mode = words.first().cloned().unwrap_or_default();
    let begun = Instant::now();
    let result = match Options::parse(words.get(1..).unwrap_or_default()) {
        Ok(options) => {
            let limit = Duration::from_secs(options.number("limit", 120) as u64);
            let run = async {
                match mode.as_str() {
                    "server" => server::run(&options).await,
                    "client" => client::run(&options).await,
                    _ => Err("usage: mux_peer server|client …".into()),
                }
            };
            timeout(limit, run)
                .await
                .unwrap_or_else(|_| Err("time limit".into()))
        }
        Err(error) => Err(error),
    };
    let seconds = begun.elapsed().as_secs_f64();
    match result {
        Ok(text) => println!("PASS cepa {mode} {text} secs={seconds:.2}"),
        Err(error) => {
            println!("FAIL cepa {mode} {error} secs={seconds:.2}");
            std::process::exit(1);
        }
    }
}

/// What stands between TCP and the mux.
async fn wrap(
    tcp: TcpStream,
    side: Side,
    options: &Options,
) -> Result<Box<dyn ByteStream>, Failure> {
    tcp.set_nodelay(true)?;
    match options.text("tls") {
        None => Ok(Box::new(tcp)),
        Some(folder) => {
            let mut onion = Onion::new(tcp);
            onion.push(side, &config(side, folder)?).await?;
            Ok(Box::new(onion))
        }
    }
}

/// TLS 1.3, and the other end's certificate pinned.
fn config(side: Side, folder: &str) -> Result<TlsConfig, Failure> {
    let (own, peer) = match side {
        Side::Client => ("driver-A", "responder-A"),
        Side::Server => ("responder-A", "driver-A"),
    };
    let read = |name: String| std::fs::read_to_string(format!("{folder}/{name}.pem"));
    let identity =
        Identity::from_pem_pair(&read(format!("{own}.crt"))?, &read(format!("{own}.key"))?)?;
    let peer = CertificateDer::from_pem_slice(read(format!("{peer}.crt"))?.as_bytes())?;
    let trust = Arc::new(Pinned::one(PeerId::from_certificate(&peer)?));
    Ok(TlsConfig::new(&identity, trust)?)
}

// ---- what both ends count with ----------------------------------------------------------------

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn sum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// 100,000 bytes that end every HASH.
fn tail() -> Bytes {
    (0..100_000u32)
        .map(|i| i.to_le_bytes()[0])
        .collect::<Vec<u8>>()
        .into()
}

/// Bytes that look random, the same for the same seed.
fn pattern(len: usize, seed: u64) -> Bytes {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
