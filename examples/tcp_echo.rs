//! An echo over TCP between two peers that know each other by their keys.
//!
//! ```text
//! cargo run --example tcp_echo
//! ```
//!
//! Server and client run in this one process; they share nothing but an address and each other's
//! peer id. The client opens the service "echo", has three lines sent back, asks for a service that
//! is not there, and closes the session; with that the server ends too.

use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::session::{Incoming, OpenError, Session};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, Listener, listen};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    // A peer is its key; the certificate around it is made in memory.
    let server_identity = Identity::generate(KeyKind::Ed25519)?;
    let client_identity = Identity::generate(KeyKind::Ed25519)?;
    let (server_id, client_id) = (server_identity.peer_id(), client_identity.peer_id());

    // Port 0 takes a free one; the listener's endpoint tells which.
    let listener = listen(&"tcp:127.0.0.1:0".parse()?).await?;
    let address = listener.endpoint().clone();
    println!("server {} listens on {address}", server_id.short());

    let serving = tokio::spawn(server(listener, server_identity, client_id));
    client(&address, client_identity, server_id).await?;
    serving.await?
}

/// Takes one session and serves it until the client closes it.
async fn server(mut listener: Listener, identity: Identity, allowed: PeerId) -> Outcome<()> {
    let config = StackConfig::new(identity, Arc::new(Pinned::one(allowed)));
    let stream = listener.accept().await?.ok_or("nobody came")?;
    // No layers in the address means mux+tls: mutual TLS 1.3, and substreams inside it.
    let session = Session::accept_on(stream, listener.endpoint(), &config).await?;
    println!("server: {} is here", session.peer().id().short());

    let end = loop {
        match session.accept().await {
            Ok(incoming) => tokio::spawn(serve(incoming)),
            Err(end) => break end,
        };
    };
    println!("server: {end}");
    if end.is_clean() {
        Ok(())
    } else {
        Err(end.into())
    }
}

/// Answers one substream.
async fn serve(incoming: Incoming) -> Outcome<()> {
    if incoming.service() != "echo" {
        return Ok(incoming.refuse("there is only an echo here").await?);
    }
    let (mut from, mut to) = tokio::io::split(incoming.accept().await?);
    tokio::io::copy(&mut from, &mut to).await?;
    // The client has ended its direction; now ours ends too.
    Ok(to.shutdown().await?)
}

async fn client(address: &Endpoint, identity: Identity, expected: PeerId) -> Outcome<()> {
    let config = StackConfig::new(identity, Arc::new(Pinned::one(expected)));
    let session = Session::dial(address, &config).await?;
    println!("client: {} answers", session.peer().id().short());

    let mut echo = session.open("echo").await?;
    for line in ["one\n", "two\n", "three\n"] {
        echo.write_all(line.as_bytes()).await?;
        echo.flush().await?;
        let mut back = String::new();
        echo.read_line(&mut back).await?;
        if back != line {
            return Err(format!("sent {line:?}, got {back:?}").into());
        }
        println!("client: {} came back", back.trim_end());
    }
    echo.shutdown().await?;
    let mut rest = Vec::new();
    echo.read_to_end(&mut rest).await?;

    match session.open("time").await {
        Err(OpenError::Refused { reason, .. }) => println!("client: no time: {reason}"),
        other => return Err(format!("not a refusal: {other:?}").into()),
    }

    session.close().await;
    let wire = session.meter();
    println!(
        "client: closed after {} bytes in, {} bytes out on the wire",
        wire.bytes_in(),
        wire.bytes_out()
    );
    Ok(())
}
