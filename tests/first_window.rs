//! The first window of a stream: 64 KiB between two ends that both know `cepa/2`, and that of yamux with an older peer, whichever of the two
//! is the client.
// Two ends in one task.
#![allow(clippy::large_futures)]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;

use cepa::Side;
use cepa::identity::Pinned;
use cepa::mux;
use cepa::onion::Onion;
use cepa::resume;
use cepa::session::Session;
use cepa::stack::{ALPN_MUX, ALPN_RESUME, ALPN_RESUME_SMALL, ALPN_SMALL, Binding, StackConfig};
use cepa::tls::TlsConfig;
use cepa::transports::memory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{identity, soon};

const SMALL: u32 = 64 << 10;
const YAMUX: u32 = 256 << 10;

fn configs() -> [StackConfig; 2] {
    let [a, b] = [identity(), identity()];
    let [for_a, for_b] = [Pinned::one(b.peer_id()), Pinned::one(a.peer_id())];
    [
        StackConfig::new(a, Arc::new(for_a)),
        StackConfig::new(b, Arc::new(for_b)),
    ]
}

async fn sessions_of([client, server]: &[StackConfig; 2]) -> [Session; 2] {
    let (near, far) = memory::pair();
    let (client, server) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, client),
            Session::handshake(far, &[], Side::Server, server)
        )
    })
    .await;
    [client.unwrap(), server.unwrap()]
}

/// What either end may send at first, and grants, on a stream that was just opened and accepted.
async fn first_windows(near: &Session, far: &Session) -> [mux::StreamStats; 2] {
    let (opened, accepted) = soon(async {
        tokio::join!(near.open("x"), async {
            far.accept().await.unwrap().accept().await
        })
    })
    .await;
    let (mut opened, mut accepted) = (opened.unwrap(), accepted.unwrap());
    [opened.wire_mut().stats(), accepted.wire_mut().stats()]
}

#[track_caller]
fn assert_windows(both: [mux::StreamStats; 2], window: u32) {
    for stats in both {
        // The request and its answer are a few bytes.
        assert!(
            (window - 100..=window).contains(&stats.send_window),
            "{stats:?}"
        );
        assert_eq!(stats.receive_window, window);
    }
}

#[tokio::test]
async fn two_sessions_take_the_small_window() {
    for (resume, alpn) in [
        (None, ALPN_SMALL),
        (Some(resume::Config::default()), ALPN_RESUME_SMALL),
    ] {
        let configs = configs().map(|config| config.with_resume(resume.clone()));
        let [client, server] = sessions_of(&configs).await;
        for (near, far) in [(&client, &server), (&server, &client)] {
            assert_eq!(near.peer().alpn(), Some(alpn));
            assert_windows(first_windows(near, far).await, SMALL);
        }
    }
}

#[tokio::test]
async fn where_only_one_end_keeps_sessions_the_window_is_small_all_the_same() {
    for keeps in [0, 1] {
        let mut configs = configs();
        configs[keeps].resume = Some(resume::Config::default());
        let [client, server] = sessions_of(&configs).await;
        assert_eq!(server.peer().alpn(), Some(ALPN_SMALL));
        assert_windows(first_windows(&client, &server).await, SMALL);
    }
}

/// Layer and binding of a peer that knows these protocols, made by hand.
async fn older(
    stream: cepa::transports::Stream,
    side: Side,
    config: &StackConfig,
    alpn: &[&[u8]],
) -> Onion<cepa::transports::Stream> {
    let tls = TlsConfig::new(&config.identity, Arc::clone(&config.trust)).unwrap();
    let mut onion = Onion::new(stream);
    let tls = tls.to_builder().alpn(alpn).build().unwrap();
    onion.push(side, &tls).await.unwrap();
    let binding = Binding::of(&onion, side).unwrap();
    onion.write_all(binding.ours()).await.unwrap();
    onion.flush().await.unwrap();
    onion
}

/// A peer that was made before there was a small window takes that of yamux for granted, and sends as much at once.
#[tokio::test]
async fn an_older_peer_has_the_window_of_yamux() {
    for side in [Side::Client, Side::Server] {
        let [ours, theirs] = configs();
        let (near, far) = memory::pair();
        let old = async {
            let mut onion = older(near, side, &theirs, &[ALPN_MUX]).await;
            let mut said = [0; Binding::LENGTH];
            onion.read_exact(&mut said).await.unwrap();
            Binding::of(&onion, side).unwrap().check(&said).unwrap();
            let (mux, driver) = mux::mux(onion, side, mux::Config::default());
            tokio::spawn(driver);
            mux
        };
        let session = Session::handshake(far, &[], side.other(), &ours);
        let (old, session) = soon(async { tokio::join!(old, session) }).await;
        let session = session.unwrap();
        assert_eq!(session.peer().alpn(), Some(ALPN_MUX));
        let mut stream = soon(old.open()).await.unwrap();
        // A header for the service "x", and all that the window takes behind it.
        soon(stream.write_all(&[1, 0, 1, b'x'])).await.unwrap();
        let incoming = soon(session.accept()).await.unwrap();
        let mut accepted = soon(incoming.accept()).await.unwrap();
        let stats = accepted.wire_mut().stats();
        assert_eq!(stats.receive_window, YAMUX);
        assert!(stats.send_window > YAMUX - 100, "{stats:?}");
        soon(stream.write_all(&vec![7; YAMUX as usize - 4]))
            .await
            .unwrap();
        soon(old.ping()).await.unwrap();
        soon(accepted.read_exact(&mut vec![0; YAMUX as usize - 4]))
            .await
            .unwrap();
    }
}

/// A server chooses, and an older one that keeps sessions finds its protocol in what a new client offers, as a new one does the other way.
#[tokio::test]
async fn an_older_peer_that_keeps_sessions_finds_its_protocol() {
    for side in [Side::Client, Side::Server] {
        let [ours, theirs] = configs();
        let ours = ours.with_resume(Some(resume::Config::default()));
        let (near, far) = memory::pair();
        let trying = tokio::spawn(async move {
            let _ = Session::handshake(far, &[], side.other(), &ours).await;
        });
        let onion = soon(older(near, side, &theirs, &[ALPN_RESUME, ALPN_MUX])).await;
        let layers = onion.layers();
        assert_eq!(layers.last().unwrap().peer().alpn(), Some(ALPN_RESUME));
        trying.abort();
    }
}

/// The ALPN extension in the first bytes that a client sends.
async fn offered(config: StackConfig) -> String {
    let (near, mut far) = memory::pair();
    let dialling = tokio::spawn(async move {
        let _ = Session::handshake(near, &[], Side::Client, &config).await;
    });
    let mut head = [0; 5];
    soon(far.read_exact(&mut head)).await.unwrap();
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    soon(far.read_exact(&mut hello)).await.unwrap();
    dialling.abort();
    hello.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The examples of docs/PROTOCOL.md.
#[tokio::test]
async fn a_client_offers_what_the_page_says() {
    let page = include_str!("../docs/PROTOCOL.md");
    for (resume, line) in [
        (None, "0010 0010 000e  06 636570612f32  06 636570612f31"),
        (
            Some(resume::Config::default()),
            "0010 002c 002a  0d 636570612d726573756d652f32  0d 636570612d726573756d652f31  06 636570612f32  06 636570612f31",
        ),
    ] {
        let [config, _] = configs();
        let hello = offered(config.with_resume(resume)).await;
        assert!(hello.contains(&line.replace(' ', "")), "{hello}");
        assert!(page.contains(&format!("\n  {line}\n")), "{line}");
    }
}
