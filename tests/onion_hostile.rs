//! Peers that do what no onion would: they are rustls by hand over the same wire.

mod support;

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, KeyKind};
use cepa::onion::Onion;
use cepa::tls::TlsError;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, ClientConnection};
use support::{Cut, Cuts, TakesAnyone, anyone, soon, wires};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A TLS client driven by hand: what it sends, and when, is the test's choice.
struct Raw {
    conn: ClientConnection,
    wire: Cut,
    /// Bytes of the wire that stand behind the server's close_notify.
    below: Vec<u8>,
}

impl Raw {
    async fn connect(wire: Cut) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakesAnyone(provider)))
            .with_client_auth_cert(vec![certificate], key.into())
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let conn = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut raw = Self {
            conn,
            wire,
            below: Vec::new(),
        };
        while raw.conn.is_handshaking() {
            raw.send().await;
            if raw.conn.is_handshaking() {
                raw.record().await;
            }
        }
        raw.send().await;
        raw
    }

    /// Puts out what the session has to say.
    async fn send(&mut self) {
        let mut out = Vec::new();
        while self.conn.wants_write() {
            self.conn.write_tls(&mut out).unwrap();
        }
        self.wire.write_all(&out).await.unwrap();
        self.wire.flush().await.unwrap();
    }

    /// Reads one record.
    async fn record(&mut self) -> Vec<u8> {
        let mut record = vec![0; 5];
        self.wire.read_exact(&mut record).await.unwrap();
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + length, 0);
        self.wire.read_exact(&mut record[5..]).await.unwrap();
        let mut input = &record[..];
        while !input.is_empty() && self.conn.read_tls(&mut input).unwrap() > 0 {}
        self.conn.process_new_packets().unwrap();
        record
    }

    /// Reads up to the server's close_notify.
    async fn until_close(&mut self) {
        loop {
            self.record().await;
            if self.conn.process_new_packets().unwrap().peer_has_closed() {
                return;
            }
        }
    }

    /// Reads all that comes until the server is done.
    async fn rest(&mut self) -> &[u8] {
        self.wire.read_to_end(&mut self.below).await.unwrap();
        &self.below
    }
}

async fn against(cuts: Cuts) -> (Onion<Cut>, Raw) {
    let identity = Identity::generate(KeyKind::P256).unwrap();
    let (wire, far) = wires(1 << 20, cuts);
    let mut onion = Onion::new(wire);
    let config = anyone(&identity);
    let (pushed, raw) = tokio::join!(onion.push(Side::Server, &config), Raw::connect(far));
    pushed.unwrap();
    (onion, raw)
}

#[tokio::test]
async fn a_key_update_is_answered_and_leaves_nothing_behind_the_close() {
    for cuts in [Cuts::None, Cuts::Random(1)] {
        soon(async {
            let (mut onion, mut raw) = against(cuts).await;
            // Before the close: answered with the next write.
            raw.conn.refresh_traffic_keys().unwrap();
            std::io::Write::write_all(&mut raw.conn.writer(), b"new key").unwrap();
            raw.send().await;
            let mut got = [0; 7];
            onion.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"new key");
            onion.write_all(b"mine too").await.unwrap();
            onion.flush().await.unwrap();
            let popping = onion.pop();
            let peer = async {
                raw.until_close().await;
                let mut text = [0; 8];
                std::io::Read::read_exact(&mut raw.conn.reader(), &mut text).unwrap();
                assert_eq!(&text, b"mine too");
                // Behind the close: asked again, and must not be answered in the layer below.
                raw.conn.refresh_traffic_keys().unwrap();
                raw.send().await;
                raw.conn.send_close_notify();
                raw.send().await;
            };
            tokio::join!(async { popping.await.unwrap() }, peer);
            onion.write_all(b"just this").await.unwrap();
            onion.shutdown().await.unwrap();
            assert_eq!(raw.rest().await, b"just this");
        })
        .await;
    }
}

#[tokio::test]
async fn a_bad_record_behind_our_close_is_an_error_and_puts_nothing_below() {
    soon(async {
        let (mut onion, mut raw) = against(Cuts::None).await;
        let peer = async {
            raw.until_close().await;
            let forged = [&[23, 3, 3, 0, 40][..], &[0xEE; 40]].concat();
            raw.wire.write_all(&forged).await.unwrap();
            raw.wire.flush().await.unwrap();
        };
        let (popped, ()) = tokio::join!(onion.pop(), peer);
        assert!(matches!(popped.unwrap_err().root(), TlsError::BadRecord));
        let _ = onion.shutdown().await;
        assert_eq!(
            raw.rest().await,
            b"",
            "an alert would be read as bytes of the layer below"
        );
    })
    .await;
}

#[tokio::test]
async fn a_forged_record_ends_the_layer_after_what_came_before_it() {
    soon(async {
        let (mut onion, mut raw) = against(Cuts::Random(6)).await;
        std::io::Write::write_all(&mut raw.conn.writer(), b"genuine").unwrap();
        raw.send().await;
        raw.wire.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
        raw.wire.write_all(&[0; 20]).await.unwrap();
        let mut got = [0; 7];
        onion.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"genuine");
        for _ in 0..2 {
            let error = onion.read(&mut got).await.unwrap_err();
            assert!(matches!(
                TlsError::inside(&error).unwrap().root(),
                TlsError::BadRecord
            ));
        }
        onion.shutdown().await.unwrap();
        // The peer is told: a bad_record_mac alert.
        let mut alert = vec![0; 5];
        raw.wire.read_exact(&mut alert).await.unwrap();
        assert_eq!(alert[0], 23);
    })
    .await;
}

#[tokio::test]
async fn a_reader_does_not_take_the_writers_wake_up() {
    // A writer waits for a full wire; a reader polls beside it, sends what it can, and waits too.
    // Whoever empties the wire must wake both.
    for seed in 0..40 {
        soon(async {
            let pair = support::Pair::new();
            let (mut a, mut b) = support::onions(600, Cuts::Random(seed));
            let (left, right) = tokio::join!(
                a.push(Side::Client, &pair.left_tls),
                b.push(Side::Server, &pair.right_tls)
            );
            left.unwrap();
            right.unwrap();
            let (mut read, mut write) = tokio::io::split(a);
            let writer = tokio::spawn(async move {
                write.write_all(&vec![5; 300_000]).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let reader = tokio::spawn(async move {
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                got.len()
            });
            let mut got = vec![0; 1000];
            let mut total = 0;
            loop {
                // Single bytes to the reader keep it polling while the writer waits.
                b.write_all(b".").await.unwrap();
                b.flush().await.unwrap();
                match b.read(&mut got).await.unwrap() {
                    0 => break,
                    n => total += n,
                }
            }
            assert_eq!(total, 300_000);
            b.shutdown().await.unwrap();
            writer.await.unwrap();
            assert!(reader.await.unwrap() > 0);
        })
        .await;
    }
}
