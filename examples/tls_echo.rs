//! Plain TLS 1.3 with both certificates, the peer's pinned: an ordinary TLS program as far as any
//! other can tell.
//!
//! ```text
//! tls_echo server PORT CERT KEY PEERCERT    echoes lines until the client closes (PORT 0: any)
//! tls_echo client PORT CERT KEY PEERCERT    joins standard input and output to the connection
//! ```
//!
//! The server prints `LISTENING n` and takes one connection. Files are PEM, loopback only:
//!
//! ```text
//! cargo run --example tls_echo -- server 7000 responder-A.crt.pem responder-A.key.pem driver-A.crt.pem
//! cargo run --example tls_echo -- client 7000 driver-A.crt.pem driver-A.key.pem responder-A.crt.pem
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, PeerId, Pinned};
use cepa::onion::Onion;
use cepa::tls::TlsConfig;
use cepa::transports::{Endpoint, Stream, dial, listen};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, port, certificate, key, peer] = words.as_slice() else {
        eprintln!("usage: tls_echo server|client PORT CERT KEY PEERCERT");
        return ExitCode::from(2);
    };
    let result = match role.as_str() {
        "server" => server(port, certificate, key, peer).await,
        "client" => client(port, certificate, key, peer).await,
        _ => Err("the first word is server or client".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// TLS 1.3 as cepa has it; a peer may name the protocol `cepa/1` inside, or none.
fn config(certificate: &str, key: &str, peer: &str) -> Outcome<TlsConfig> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    let identity = Identity::from_pem_pair(&read(certificate)?, &read(key)?)?;
    let peer = CertificateDer::from_pem_slice(read(peer)?.as_bytes())?;
    let trust = Arc::new(Pinned::one(PeerId::from_certificate(&peer)?));
    Ok(TlsConfig::builder(&identity, trust)
        .server_name("localhost")
        .optional_alpn(&["cepa/1"])
        .build()?)
}

async fn server(port: &str, certificate: &str, key: &str, peer: &str) -> Outcome<()> {
    let config = config(certificate, key, peer)?;
    let mut listener = listen(&format!("tcp:127.0.0.1:{port}").parse::<Endpoint>()?).await?;
    let address = listener.endpoint().to_string();
    println!(
        "LISTENING {}",
        address.rsplit(':').next().unwrap_or_default()
    );
    let stream = listener.accept().await?.ok_or("nobody came")?;
    let mut onion = Onion::new(stream);
    let peer = onion.push(Side::Server, &config).await?;
    eprintln!("tls_echo: {} is here", peer.id());
    let mut buffer = vec![0; 16_384];
    loop {
        let n = onion.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        onion.write_all(&buffer[..n]).await?;
        onion.flush().await?;
    }
    onion.shutdown().await?;
    Ok(())
}

async fn client(port: &str, certificate: &str, key: &str, peer: &str) -> Outcome<()> {
    let config = config(certificate, key, peer)?;
    let stream: Stream = dial(&format!("tcp:127.0.0.1:{port}").parse::<Endpoint>()?).await?;
    let mut onion = Onion::new(stream);
    onion.push(Side::Client, &config).await?;
    let (mut from, mut to) = split(onion);
    let sending = async {
        copy(&mut tokio::io::stdin(), &mut to).await?;
        to.shutdown().await
    };
    let receiving = async {
        let mut out = tokio::io::stdout();
        copy(&mut from, &mut out).await?;
        out.flush().await
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}
