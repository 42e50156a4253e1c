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

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cepa::mux::{Config, GoAwayCode, Mux, Substream};
use cepa::{ByteStream, Side, mux};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ALL: &str = "echo,halfclose,reset,srvreset,openclose,ping,slow,window,goaway";

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
                    "server" => server(&options).await,
                    "client" => client(&options).await,
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
        Some(folder) => tls::wrap(tcp, side, folder).await,
    }
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

// ---- server -----------------------------------------------------------------------------------

async fn server(options: &Options) -> Result<String, Failure> {
    let port = u16::try_from(options.number("port", 0))?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    println!("LISTENING {port}");
    if let Some(file) = options.text("portfile") {
        let part = format!("{file}.part");
        std::fs::write(&part, port.to_string())?;
        std::fs::rename(&part, file)?;
    }
    let (tcp, _) = listener.accept().await?;
    drop(listener);
    let io = wrap(tcp, Side::Server, options).await?;
    let (session, driver) = mux::mux(io, Side::Server, options.config());
    let driver = tokio::spawn(driver);
    let mut streams = 0;
    let end = loop {
        match session.accept().await {
            Ok(stream) => {
                streams += 1;
                let session = session.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(&session, stream).await {
                        println!("stream: {error}");
                    }
                });
            }
            Err(end) => break end,
        }
    };
    let _ = driver.await;
    Ok(format!("streams={streams} end={:?}", end.to_string()))
}

async fn serve(session: &Mux, stream: Substream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["ECHO"] => {
            let early = Bytes::copy_from_slice(stream.buffer());
            let mut stream = stream.into_inner();
            stream.write_chunk(early).await?;
            while let Some(chunk) = stream.read_chunk().await? {
                stream.write_chunk(chunk).await?;
            }
            stream.shutdown().await
        }
        ["HASH"] => hash(stream).await,
        ["SLOW", millis] => {
            sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await;
            hash(stream).await
        }
        ["RESET"] => {
            stream.get_mut().reset(0);
            Ok(())
        }
        ["PING"] => {
            let answer = match session.ping().await {
                Ok(round_trip) => format!("PONG {}\n", round_trip.as_micros()),
                Err(error) => format!("ERR {error}\n"),
            };
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        }
        ["GOAWAY"] => {
            stream.write_all(b"OK\n").await?;
            stream.shutdown().await?;
            // A go-away overtakes data, and some peers end the session when they read it.
            sleep(Duration::from_millis(100)).await;
            session.go_away(GoAwayCode::Normal).await;
            Ok(())
        }
        _ => stream.shutdown().await,
    }
}

async fn hash(stream: BufReader<Substream>) -> io::Result<()> {
    let mut hash = Sha256::new();
    hash.update(stream.buffer());
    let mut count = stream.buffer().len();
    let mut stream = stream.into_inner();
    while let Some(chunk) = stream.read_chunk().await? {
        count += chunk.len();
        hash.update(&chunk);
    }
    stream
        .write_all(format!("{} {count}\n", hex(&hash.finalize())).as_bytes())
        .await?;
    stream.write_chunk(tail()).await?;
    stream.shutdown().await
}

// ---- client -----------------------------------------------------------------------------------

async fn client(options: &Options) -> Result<String, Failure> {
    let port = u16::try_from(options.number("port", 0))?;
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let io = wrap(tcp, Side::Client, options).await?;
    let (session, driver) = mux::mux(io, Side::Client, options.config());
    let driver = tokio::spawn(driver);
    let which = match options.text("scenario") {
        None | Some("all") => ALL,
        Some(which) => which,
    };
    let mut failed = false;
    let mut results = Vec::new();
    for name in which.split(',') {
        let begun = Instant::now();
        let result = timeout(Duration::from_secs(30), scenario(&session, name, options)).await;
        let result = result.unwrap_or_else(|_| Err("no end within 30 s".into()));
        let seconds = begun.elapsed().as_secs_f64();
        let word = match &result {
            Ok(note) if note == "n/a" => "n/a",
            Ok(_) => "ok",
            Err(_) => "FAILED",
        };
        match result {
            Ok(note) => println!("{name} {word} {note} {seconds:.2}s"),
            Err(error) => {
                failed = true;
                println!("{name} FAILED:{error} {seconds:.2}s");
            }
        }
        results.push(format!("{name}={word}:{seconds:.2}s"));
    }
    session.close().await;
    let _ = driver.await;
    let results = results.join(" ");
    if failed {
        Err(results.into())
    } else {
        Ok(results)
    }
}

async fn scenario(session: &Mux, name: &str, options: &Options) -> Result<String, Failure> {
    match name {
        "echo" => {
            let streams = options.number("streams", 100);
            many(session, streams, streams, |i| pattern(1 << 20, i as u64)).await
        }
        "halfclose" => ask_hash(session, "HASH", pattern(65536, 1)).await,
        "reset" => {
            let mut stream = open(session, "ECHO").await?;
            stream.write_all(&pattern(100_000, 9)).await?;
            drop(stream); // resets
            sleep(Duration::from_millis(100)).await;
            echo(session, pattern(1000, 1)).await
        }
        "srvreset" => match ask(session, "RESET").await {
            Ok(line) if line == "CANT" => Ok("n/a".into()),
            Ok(line) => Err(format!("wanted a reset, got {line:?}").into()),
            Err(error) => {
                echo(session, pattern(1000, 1)).await?;
                Ok(format!("({error})"))
            }
        },
        "openclose" => {
            let count = options.number("count", 10_000);
            many(session, count, 32, |i| Bytes::from(format!("hi {i}"))).await
        }
        "ping" => {
            let round_trip = session.ping().await?;
            let line = ask(session, "PING").await?;
            if line == "CANT" || line.starts_with("PONG ") {
                Ok(format!("({} us, {line})", round_trip.as_micros()))
            } else {
                Err(line.into())
            }
        }
        "slow" => slow(session).await,
        "window" => {
            let mib = options.number("mib", 64);
            let data = pattern(mib << 20, 4);
            let begun = Instant::now();
            ask_hash(session, "HASH", data).await?;
            let megabytes = u32::try_from(mib)?;
            Ok(format!(
                "({:.0}MiB/s)",
                f64::from(megabytes) / begun.elapsed().as_secs_f64()
            ))
        }
        "goaway" => goaway(session).await,
        other => Err(format!("no scenario {other:?}; there are {ALL}").into()),
    }
}

async fn open(session: &Mux, command: &str) -> Result<Substream, Failure> {
    let mut stream = session.open().await?;
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    Ok(stream)
}

/// Sends `data`, reads it back while sending, then ends both directions. The end is sent last,
/// because tokio-yamux ignores credit for a stream whose other direction has ended.
async fn echo(session: &Mux, data: Bytes) -> Result<String, Failure> {
    let stream = open(session, "ECHO").await?;
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await?;
        io::Result::Ok(write)
    });
    let mut back = vec![0; data.len()];
    read.read_exact(&mut back).await?;
    writer.await??.shutdown().await?;
    if sum(&back) != sum(&data) {
        return Err("SHA-256 differs".into());
    }
    match read.read(&mut [0]).await? {
        0 => Ok(String::new()),
        _ => Err("bytes behind the echo".into()),
    }
}

/// `count` echoes, `at_once` at a time.
async fn many(
    session: &Mux,
    count: usize,
    at_once: usize,
    data: fn(usize) -> Bytes,
) -> Result<String, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (session, next) = (session.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok(());
                }
                if let Err(error) = echo(&session, data(i)).await {
                    return Err(Failure::from(format!("stream {i}: {error}")));
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(String::new())
}

/// HASH or SLOW: sends everything, ends this direction, reads the answer to its end.
async fn ask_hash(session: &Mux, command: &str, data: Bytes) -> Result<String, Failure> {
    let mut stream = open(session, command).await?;
    let want = [
        format!("{} {}\n", sum(&data), data.len()).into_bytes(),
        tail().to_vec(),
    ]
    .concat();
    stream.write_chunk(data).await?;
    stream.shutdown().await?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await?;
    if got == want {
        return Ok(String::new());
    }
    Err(format!("the answer differs: {} of {} bytes", got.len(), want.len()).into())
}

async fn ask(session: &Mux, command: &str) -> Result<String, Failure> {
    let mut stream = BufReader::new(open(session, command).await?);
    let mut line = String::new();
    let n = timeout(Duration::from_secs(15), stream.read_line(&mut line)).await??;
    if n == 0 {
        return Err("end of stream instead of an answer".into());
    }
    stream.shutdown().await?;
    Ok(line.trim().to_owned())
}

async fn slow(session: &Mux) -> Result<String, Failure> {
    let begun = Instant::now();
    let beside = session.clone();
    let unread =
        tokio::spawn(async move { ask_hash(&beside, "SLOW 1500", pattern(2 << 20, 2)).await });
    sleep(Duration::from_millis(100)).await;
    echo(session, pattern(4 << 20, 3)).await?;
    let fast = begun.elapsed();
    unread.await??;
    let whole = begun.elapsed();
    if fast > Duration::from_millis(1400) {
        return Err(format!("the echo was held up: {fast:?}").into());
    }
    if whole < Duration::from_millis(1500) {
        return Err("the slow stream was not slow".into());
    }
    Ok(format!(
        "(fast {} ms, slow {} ms)",
        fast.as_millis(),
        whole.as_millis()
    ))
}

async fn goaway(session: &Mux) -> Result<String, Failure> {
    let mut old = open(session, "ECHO").await?;
    let line = ask(session, "GOAWAY")
        .await
        .unwrap_or_else(|_| "answer lost".into());
    if line == "CANT" {
        return Ok("n/a".into());
    }
    sleep(Duration::from_millis(400)).await;
    let Err(opened) = session.open().await else {
        return Err("open succeeded after a go-away".into());
    };
    let alive = timeout(Duration::from_secs(3), async {
        old.write_all(b"still").await?;
        let mut back = [0; 5];
        old.read_exact(&mut back).await?;
        old.shutdown().await
    })
    .await;
    let old = if matches!(alive, Ok(Ok(()))) {
        "alive"
    } else {
        "gone"
    };
    Ok(format!("({line}; open: {opened}; old stream {old})"))
}

/// TLS 1.3 with a pinned certificate at either end.
mod tls {
    use std::sync::Arc;

    use cepa::{ByteStream, Side};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
    use tokio::net::TcpStream;
    use tokio_rustls::rustls::client::danger::{
        HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
    };
    use tokio_rustls::rustls::crypto::{
        CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    };
    use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
    use tokio_rustls::rustls::version::TLS13;
    use tokio_rustls::rustls::{
        ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
        SignatureScheme,
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::Failure;

    pub(super) async fn wrap(
        tcp: TcpStream,
        side: Side,
        folder: &str,
    ) -> Result<Box<dyn ByteStream>, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (own, peer) = match side {
            Side::Client => ("driver-A", "responder-A"),
            Side::Server => ("responder-A", "driver-A"),
        };
        let chain = vec![CertificateDer::from_pem_file(format!(
            "{folder}/{own}.crt.pem"
        ))?];
        let key = PrivateKeyDer::from_pem_file(format!("{folder}/{own}.key.pem"))?;
        let pin = Arc::new(Pin {
            certificate: CertificateDer::from_pem_file(format!("{folder}/{peer}.crt.pem"))?,
            provider: Arc::clone(&provider),
        });
        match side {
            Side::Client => {
                let config = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[&TLS13])?
                    .dangerous()
                    .with_custom_certificate_verifier(pin)
                    .with_client_auth_cert(chain, key)?;
                let name = ServerName::try_from("localhost")?;
                Ok(Box::new(
                    TlsConnector::from(Arc::new(config))
                        .connect(name, tcp)
                        .await?,
                ))
            }
            Side::Server => {
                let config = ServerConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[&TLS13])?
                    .with_client_cert_verifier(pin)
                    .with_single_cert(chain, key)?;
                Ok(Box::new(
                    TlsAcceptor::from(Arc::new(config)).accept(tcp).await?,
                ))
            }
        }
    }

    /// Accepts one certificate.
    #[derive(Debug)]
    struct Pin {
        certificate: CertificateDer<'static>,
        provider: Arc<CryptoProvider>,
    }

    impl Pin {
        fn check(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
            if presented.as_ref() == self.certificate.as_ref() {
                return Ok(());
            }
            Err(Error::General(
                "the peer's certificate is not the pinned one".into(),
            ))
        }

        fn schemes(&self) -> Vec<SignatureScheme> {
            self.provider
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    impl ServerCertVerifier for Pin {
        fn verify_server_cert(
            &self,
            presented: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            self.check(presented)
                .map(|()| ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            presented: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, presented, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            presented: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, presented, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.schemes()
        }
    }

    impl ClientCertVerifier for Pin {
        fn root_hint_subjects(&self) -> &[DistinguishedName] {
            &[]
        }

        fn verify_client_cert(
            &self,
            presented: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: UnixTime,
        ) -> Result<ClientCertVerified, Error> {
            self.check(presented)
                .map(|()| ClientCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            presented: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, presented, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            presented: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, presented, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.schemes()
        }
    }
}
