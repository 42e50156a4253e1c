//! Keys shown as certificates and as raw public keys (RFC 7250): the same peers either way, and how
//! many bytes a mutual handshake takes.

mod support;

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind, Pinned, Presented, Refusal, TrustPolicy};
use cepa::onion::Onion;
use cepa::tls::{KeyForm, Peer, TlsConfig, TlsConfigError, TlsError, Version};
use cepa::transports::meter::{Meter, Metered};
use support::{Pair, anyone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const X25519: u16 = 0x001d;
const AES_128_GCM: u16 = 0x1301;

/// What both ends get, and how many bytes passed, both ways together.
async fn shake(
    client: &TlsConfig,
    server: &TlsConfig,
) -> (Result<Peer, TlsError>, Result<Peer, TlsError>, u64) {
    let (a, b) = tokio::io::duplex(1 << 16);
    let meter = Meter::new();
    let mut a = Onion::new(Metered::new(a, meter.clone()));
    let mut b = Onion::new(b);
    let (of_client, of_server) = tokio::join!(
        async {
            let pushed = a.push(Side::Client, client).await?;
            // Whether the server took us is known only once it has said something.
            a.read_u8().await.map_err(|error| tls(&error))?;
            Ok(pushed)
        },
        async {
            let pushed = b.push(Side::Server, server).await;
            if pushed.is_ok() {
                b.write_u8(0).await.unwrap();
                b.flush().await.unwrap();
            }
            pushed
        }
    );
    // Without the server's byte and its record.
    let bytes = meter.bytes_in() + meter.bytes_out() - 23;
    (of_client, of_server, bytes)
}

fn tls(error: &std::io::Error) -> TlsError {
    TlsError::inside(error).expect("a TLS error").root().clone()
}

fn raw(config: &TlsConfig) -> TlsConfig {
    config
        .to_builder()
        .key_form(KeyForm::RawPublicKey)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_peer_has_the_same_id_in_either_form() {
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let (a, b) = (
            Identity::generate(kind).unwrap(),
            Identity::generate(kind).unwrap(),
        );
        let of = |own: &Identity, other: &Identity| {
            TlsConfig::new(own, Arc::new(Pinned::one(other.peer_id()))).unwrap()
        };
        let (client, server) = (of(&a, &b), of(&b, &a));
        // The server takes what the client offers.
        for (client, server, form) in [
            (client.clone(), server.clone(), KeyForm::Certificate),
            (raw(&client), server.clone(), KeyForm::RawPublicKey),
            (client.clone(), raw(&server), KeyForm::Certificate),
            (raw(&client), raw(&server), KeyForm::RawPublicKey),
        ] {
            let (of_client, of_server, _) = shake(&client, &server).await;
            let (of_client, of_server) = (of_client.unwrap(), of_server.unwrap());
            assert_eq!(
                (of_client.id(), of_client.local_id()),
                (b.peer_id(), a.peer_id())
            );
            assert_eq!(
                (of_server.id(), of_server.local_id()),
                (a.peer_id(), b.peer_id())
            );
            for peer in [of_client, of_server] {
                assert_eq!(peer.key_form(), form);
                assert_eq!(peer.certificate().is_some(), form == KeyForm::Certificate);
                assert_eq!(
                    peer.certificate_sha256().is_some(),
                    form == KeyForm::Certificate
                );
                assert!(peer.not_after().as_secs() > 250_000_000_000);
            }
        }
    }
}

#[tokio::test]
async fn on_a_link_keys_are_raw_even_where_nobody_tuned_the_configuration() {
    use cepa::session::Session;
    use cepa::stack::{DEFAULT_LAYERS, SERIAL_LAYERS, StackConfig};
    let pair = Pair::new();
    let of = |own: &Identity| StackConfig::new(own.clone(), Arc::new(AcceptAny));
    let (left, right) = (of(&pair.left), of(&pair.right));
    for (layers, form) in [
        (DEFAULT_LAYERS, KeyForm::Certificate),
        (SERIAL_LAYERS, KeyForm::RawPublicKey),
    ] {
        let (a, b) = cepa::transports::memory::pair();
        let (a, b) = tokio::join!(
            Session::handshake(a, layers, Side::Client, &left),
            Session::handshake(b, layers, Side::Server, &right)
        );
        for session in [a.unwrap(), b.unwrap()] {
            assert_eq!(session.peer().key_form(), form, "{layers:?}");
        }
    }
}

#[tokio::test]
async fn a_raw_key_that_is_not_pinned_is_refused() {
    let pair = Pair::new();
    let nobody = Identity::generate(KeyKind::Ed25519).unwrap();
    let wrong = TlsConfig::new(&pair.left, Arc::new(Pinned::one(nobody.peer_id()))).unwrap();
    let (of_client, of_server, _) = shake(&raw(&wrong), &pair.right_tls).await;
    match of_client.unwrap_err() {
        TlsError::Refused(Refusal::WrongPeer { presented, .. }) => {
            assert_eq!(presented, pair.right.peer_id());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(of_server, Err(TlsError::RefusedByPeer { .. })));
    // And a client's by a server.
    let wrong = TlsConfig::new(&pair.right, Arc::new(Pinned::one(nobody.peer_id()))).unwrap();
    let (of_client, of_server, _) = shake(&raw(&pair.left_tls), &wrong).await;
    assert!(
        matches!(of_client, Err(TlsError::RefusedByPeer { .. })),
        "{of_client:?}"
    );
    match of_server.unwrap_err() {
        TlsError::Refused(Refusal::WrongPeer { presented, .. }) => {
            assert_eq!(presented, pair.left.peer_id());
        }
        other => panic!("{other:?}"),
    }
}

/// Takes certificates alone, as a policy by authorities does.
#[derive(Debug)]
struct Certified;

impl TrustPolicy for Certified {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        match peer.certificate {
            Some(_) => Ok(()),
            None => Err(Refusal::Other {
                presented: peer.id,
                reason: "a certificate is needed".into(),
            }),
        }
    }
}

#[tokio::test]
async fn a_policy_sees_that_there_is_no_certificate() {
    let pair = Pair::new();
    let server = TlsConfig::new(&pair.right, Arc::new(Certified)).unwrap();
    let (_, of_server, _) = shake(&pair.left_tls, &server).await;
    assert!(of_server.is_ok());
    let (_, of_server, _) = shake(&raw(&pair.left_tls), &server).await;
    assert!(matches!(
        of_server,
        Err(TlsError::Refused(Refusal::Other { .. }))
    ));
}

#[tokio::test]
async fn a_foreign_server_without_raw_keys_is_a_clear_error() {
    let pair = Pair::new();
    // rustls as it comes, with a certificate.
    let certificate = pair.right.certificate().clone();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(["x".to_owned()]).unwrap();
    let own = own.self_signed(&key).unwrap().der().clone();
    drop(certificate);
    let config = tokio_rustls::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![own],
            tokio_rustls::rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (a, b) = tokio::io::duplex(1 << 16);
    let mut a = Onion::new(a);
    let client = raw(&anyone(&pair.left));
    let (of_client, of_server) = tokio::join!(a.push(Side::Client, &client), acceptor.accept(b));
    assert!(of_server.is_err());
    let text = of_client.unwrap_err().to_string();
    assert!(text.contains("raw public keys"), "{text}");
    assert!(text.contains("certificates"), "{text}");
    assert!(!text.contains('\n'));
}

#[test]
fn raw_keys_and_tls_1_2_do_not_go_together() {
    let config = anyone(&Identity::generate(KeyKind::Ed25519).unwrap());
    let both = config
        .to_builder()
        .versions(&[Version::Tls12, Version::Tls13])
        .build()
        .unwrap();
    let error = both
        .to_builder()
        .key_form(KeyForm::RawPublicKey)
        .build()
        .unwrap_err();
    assert_eq!(error, TlsConfigError::RawKeyVersion);
}

#[tokio::test]
async fn a_server_that_also_takes_tls_1_2_takes_raw_keys_in_1_3() {
    let pair = Pair::new();
    let server = pair.right_tls.clone();
    let server = server
        .to_builder()
        .versions(&[Version::Tls12, Version::Tls13])
        .build()
        .unwrap();
    let (of_client, of_server, _) = shake(&raw(&pair.left_tls), &server).await;
    assert_eq!(of_client.unwrap().version(), Version::Tls13);
    assert_eq!(of_server.unwrap().key_form(), KeyForm::RawPublicKey);
}

/// The bytes of a mutual handshake between two peers of this kind, as they are on a slow line.
async fn bytes(kind: KeyKind, form: KeyForm) -> u64 {
    let mut most = 0;
    // An ECDSA signature is 70 to 72 bytes long, by chance.
    for _ in 0..4 {
        let of = |identity: &Identity| {
            TlsConfig::builder(identity, Arc::new(AcceptAny))
                .groups(&[X25519])
                .suites(&[AES_128_GCM])
                .alpn(&["cepa/1"])
                .key_form(form)
                .build()
                .unwrap()
        };
        let small = || Identity::generate(kind)?.with_minimal_certificate();
        let (a, b) = (small().unwrap(), small().unwrap());
        let (of_client, of_server, bytes) = shake(&of(&a), &of(&b)).await;
        of_client.unwrap();
        of_server.unwrap();
        most = most.max(bytes);
    }
    println!("{kind:?} {form:?}: {most} bytes");
    most
}

#[tokio::test]
async fn a_handshake_is_small_where_bytes_are_few() {
    assert!(bytes(KeyKind::Ed25519, KeyForm::RawPublicKey).await <= 830);
    assert!(bytes(KeyKind::P256, KeyForm::Certificate).await <= 1300);
}
