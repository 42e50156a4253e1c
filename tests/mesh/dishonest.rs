//! Relays that do not do what they should. They are written here from docs/PROTOCOL.md alone, so they test
//! the wire as well.

use std::sync::Arc;

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::mux::Substream;
use cepa::node::PeerAddr;
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::{self, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::support::{address, ask, eventually, node, offer_echo, soon, through};

/// What is done to the bytes on their way from the dialler to the registered peer.
#[derive(Clone, Copy, Debug)]
enum Deed {
    None,
    /// One bit of the byte at this place.
    Flip(usize),
    /// The chunk that has this byte is left out.
    Drop(usize),
    /// The chunk that has this byte comes twice.
    Replay(usize),
    /// Nothing after this byte, and then the end.
    Truncate(usize),
    /// Two chunks from this byte on change their places.
    Reorder(usize),
}

/// A relay for one registered peer; returns its address.
async fn relay(deed: Deed) -> PeerAddr {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let id = identity.peer_id();
    let any: Endpoint = "tcp:127.0.0.1:0".parse().unwrap();
    let mut listener = transports::listen(&any).await.unwrap();
    let at = address(&format!("cepa://{id}@{}", listener.endpoint()));
    let config = StackConfig::new(identity, Arc::new(AcceptAny));
    let (registered, find) = watch::channel(None::<Session>);
    let registered = Arc::new(registered);
    tokio::spawn(async move {
        while let Ok(Some(stream)) = listener.accept().await {
            let (config, registered, find) = (config.clone(), registered.clone(), find.clone());
            tokio::spawn(async move {
                let session = Session::handshake(stream, &[], cepa::Side::Server, &config).await;
                let Ok(session) = session else { return };
                while let Ok(incoming) = session.accept().await {
                    let service = incoming.service().to_owned();
                    let mut stream = incoming.accept().await.unwrap();
                    let request = message(&mut stream).await;
                    // {0: 1, 1: 0, 2: "", 3: 3600}
                    let yes = [0, 11, 0xa4, 0, 1, 1, 0, 2, 0x60, 3, 0x19, 0x0e, 0x10];
                    if service == "cepa.relay.register" {
                        stream.write_all(&yes).await.unwrap();
                        registered.send_replace(Some(session.clone()));
                        tokio::spawn(async move {
                            // Held for as long as the session lives.
                            let _ = stream.read_u8().await;
                        });
                        continue;
                    }
                    assert_eq!(service, "cepa.relay.dial");
                    assert_eq!(request[..6], [0xa2, 0, 1, 1, 0x58, 0x20]);
                    let far = find.borrow().clone().expect("nobody is registered");
                    let mut far = far.open("cepa.relay.circuit").await.unwrap();
                    let from = session.peer().id();
                    let mut ask = vec![0, 38, 0xa2, 0, 1, 1, 0x58, 0x20];
                    ask.extend(from.as_bytes());
                    far.write_all(&ask).await.unwrap();
                    let answer = message(&mut far).await;
                    assert_eq!(answer[..5], [0xa3, 0, 1, 1, 0], "{answer:?}");
                    stream.write_all(&yes).await.unwrap();
                    tokio::spawn(carry(stream, far, deed));
                }
            });
        }
    });
    at
}

async fn message(stream: &mut Onion<Substream>) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut body = vec![0; length.into()];
    stream.read_exact(&mut body).await.unwrap();
    body
}

async fn carry(near: Onion<Substream>, far: Onion<Substream>, deed: Deed) {
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let there = async {
        let (mut at, mut done, mut kept) = (0, false, Vec::new());
        let mut buffer = vec![0; 1000];
        while let Ok(n @ 1..) = from_near.read(&mut buffer).await {
            let mut chunk = buffer[..n].to_vec();
            let here = at..at + n;
            at += n;
            match deed {
                Deed::Flip(place) if here.contains(&place) => chunk[place - here.start] ^= 4,
                Deed::Drop(place) if here.contains(&place) => continue,
                Deed::Replay(place) if here.contains(&place) => chunk.extend(chunk.clone()),
                Deed::Truncate(place) if here.contains(&place) => {
                    let _ = to_far.write_all(&chunk[..place - here.start]).await;
                    break;
                }
                Deed::Reorder(place) if at > place && !done => {
                    if kept.is_empty() {
                        kept = chunk;
                        continue;
                    }
                    chunk.append(&mut kept);
                    done = true;
                }
                _ => {}
            }
            if to_far.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = to_far.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_far, &mut to_near).await;
        let _ = to_near.shutdown().await;
    };
    tokio::join!(there, back);
}

/// An honest one written from the same page works, so it is the deed that the others fail for.
#[tokio::test]
async fn the_documented_wire_is_enough() {
    let at = relay(Deed::None).await;
    let (hidden, client) = (node(), node());
    offer_echo(&hidden);
    hidden.register(&at).await.unwrap();
    let to = through(hidden.id(), &at, "echo");
    soon(ask(client.open(&to).await.unwrap(), &vec![9; 200_000]))
        .await
        .unwrap();
}

#[tokio::test]
async fn whatever_a_relay_does_to_the_bytes_is_noticed() {
    // In the handshake, and in the data: the echo's 200,000 bytes come after about 3,000 of handshake.
    for place in [40, 900, 50_000, 150_000] {
        for deed in [
            Deed::Flip(place),
            Deed::Drop(place),
            Deed::Replay(place),
            Deed::Truncate(place),
            Deed::Reorder(place),
        ] {
            let at = relay(deed).await;
            let (hidden, client) = (node(), node());
            offer_echo(&hidden);
            hidden.register(&at).await.unwrap();
            let to = through(hidden.id(), &at, "echo");
            let result = soon(async {
                match client.open(&to).await {
                    Ok(stream) => ask(stream, &vec![9; 200_000])
                        .await
                        .map_err(|e| e.to_string()),
                    Err(e) => Err(e.to_string()),
                }
            })
            .await;
            // `ask` has compared what came back, so there is no third way.
            let error = result.expect_err("it was not noticed");
            assert!(!error.is_empty(), "{deed:?}");
            // The session with the relay is not touched, only the circuit's is gone.
            eventually(|| {
                client
                    .sessions()
                    .iter()
                    .all(|(peer, ..)| *peer == at.peer())
            })
            .await;
        }
    }
}
