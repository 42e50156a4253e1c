//! Handshakes of strangers that want to cost us something: each is refused soon, after a bounded
//! number of bytes, and in any case by the time limit.

mod support;

use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::identity::{AcceptAny, CertificateDer, CertificateError, Identity, KeyKind, Refusal};
use cepa::onion::Onion;
use cepa::session::{ConnectError, Session};
use cepa::stack::{ALPN_LAYER, ALPN_MUX, StackConfig};
use cepa::tls::{Peer, TlsConfig, TlsError};
use cepa::transports::meter::{Meter, Metered};
use cepa::transports::{Layer, Stream, dial, listen, memory};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ClientConfig, ServerConfig, SignatureAlgorithm, SignatureScheme};
use support::{Pair, TakesAnyone, anyone};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

/// A server that shakes hands with `stranger`, and how many bytes it read for that.
async fn against<F, T>(stranger: impl FnOnce(DuplexStream) -> F) -> (Result<Peer, TlsError>, u64)
where
    F: Future<Output = T>,
{
    shaking_hands(Side::Server, stranger).await
}

/// The same for a client.
async fn dialling<F, T>(stranger: impl FnOnce(DuplexStream) -> F) -> (Result<Peer, TlsError>, u64)
where
    F: Future<Output = T>,
{
    shaking_hands(Side::Client, stranger).await
}

async fn shaking_hands<F, T>(
    side: Side,
    stranger: impl FnOnce(DuplexStream) -> F,
) -> (Result<Peer, TlsError>, u64)
where
    F: Future<Output = T>,
{
    let config = anyone(&Identity::generate(KeyKind::Ed25519).unwrap());
    let (a, b) = tokio::io::duplex(1 << 12);
    let meter = Meter::new();
    let mut onion = Onion::new(Metered::new(b, meter.clone()));
    let ours = async {
        let pushed = onion.push(side, &config).await;
        drop(onion);
        pushed
    };
    let both = async { tokio::join!(ours, stranger(a)) };
    let both = tokio::time::timeout(Duration::from_secs(60), both);
    (both.await.expect("it hung").0, meter.bytes_in())
}

/// Records of a handshake that hold `bytes`, so many in each.
fn records(bytes: &[u8], each: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in bytes.chunks(each) {
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        out.extend(part);
    }
    out
}

#[tokio::test]
async fn a_hello_of_more_than_64_kib_is_refused_by_its_length() {
    for length in [0x01_00_00_u32, 0x02_00_00, 0xff_ff_ff] {
        let (result, read) = against(|mut stream| async move {
            let [_, a, b, c] = length.to_be_bytes();
            let mut hello = vec![1, a, b, c];
            hello.resize(16_000, 0);
            while stream.write_all(&records(&hello, 16_000)).await.is_ok() {}
        })
        .await;
        assert!(result.is_err());
        // It waits for nothing that it will not take; some was read ahead.
        assert!(read < 100_000, "{read} bytes were read");
    }
}

/// The next record, with its head.
async fn one_record(stream: &mut DuplexStream) -> Vec<u8> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).await.unwrap();
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).await.unwrap();
    record
}

/// A real hello, as it goes over the wire.
async fn hello() -> (Onion<DuplexStream>, DuplexStream, Vec<u8>) {
    let config = anyone(&Identity::generate(KeyKind::Ed25519).unwrap());
    let (a, mut b) = tokio::io::duplex(1 << 14);
    let mut client = Onion::new(a);
    let record = tokio::select! {
        _ = client.push(Side::Client, &config) => panic!("nobody has answered"),
        record = one_record(&mut b) => record,
    };
    (client, b, record[5..].to_vec())
}

#[tokio::test]
async fn a_hello_in_many_small_records_is_taken_and_an_endless_one_is_not() {
    let (_client, _b, body) = hello().await;
    let whole = body.clone();
    let (result, _) = against(|mut stream| async move {
        stream.write_all(&records(&whole, 1)).await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        // A handshake record with a ServerHello.
        assert_eq!((answer[0], answer[5]), (22, 2));
    })
    .await;
    assert!(
        matches!(result, Err(TlsError::Truncated { .. })),
        "{result:?}"
    );
    // Records without anything in them (RFC 8446 section 5.1) would go on for ever.
    let (result, read) = against(|mut stream| async move {
        let mut bytes = records(&body[..100], 1);
        bytes.extend([22, 3, 1, 0, 0]);
        stream.write_all(&bytes).await.unwrap();
        while stream.write_all(&[22, 3, 1, 0, 0]).await.is_ok() {}
    })
    .await;
    assert!(result.is_err());
    assert!(read < 20_000, "{read} bytes were read");
}

#[tokio::test]
async fn a_server_s_hello_in_many_small_records_is_taken_and_an_endless_one_is_not() {
    let config = anyone(&Identity::generate(KeyKind::Ed25519).unwrap());
    for cut in [false, true] {
        let config = config.clone();
        let (result, read) = dialling(|mut stream| async move {
            let (near, mut wire) = tokio::io::duplex(1 << 14);
            let mut server = Onion::new(near);
            let between = async move {
                // A record each way: the two hellos.
                let asked = one_record(&mut stream).await;
                wire.write_all(&asked).await.unwrap();
                let answer = one_record(&mut wire).await;
                let body = &answer[5..];
                if cut {
                    let mut bytes = records(&body[..60], 1);
                    bytes.extend([22, 3, 3, 0, 0]);
                    stream.write_all(&bytes).await.unwrap();
                    while stream.write_all(&[22, 3, 3, 0, 0]).await.is_ok() {}
                    return;
                }
                stream.write_all(&records(body, 1)).await.unwrap();
                // The rest as it is.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut wire).await;
            };
            tokio::join!(
                async {
                    let pushed = server.push(Side::Server, &config).await;
                    drop(server);
                    pushed
                },
                between
            )
        })
        .await;
        assert_eq!(result.is_ok(), !cut, "{result:?}");
        assert!(read < 20_000, "{read} bytes were read");
    }
}

#[tokio::test]
async fn a_flight_of_more_than_64_kib_is_refused_in_either_role() {
    let pair = Pair::new();
    // The key's own certificate and many more; nothing is proven about those, so nothing is read.
    let bulky = |identity: &Identity, certificates: usize| {
        let pem = identity.to_pem();
        let more = Identity::generate(KeyKind::P256).unwrap();
        let mut text = String::from(pem.as_str());
        for _ in 0..certificates {
            text.push_str(&certificate_pem(more.certificate()));
        }
        Identity::from_pem(&text).unwrap()
    };
    for (certificates, fits) in [(100, true), (400, false)] {
        for role in [Side::Client, Side::Server] {
            let big = anyone(&bulky(&pair.left, certificates));
            let small = anyone(&pair.right);
            let (a, b) = tokio::io::duplex(1 << 14);
            let meter = Meter::new();
            let mut theirs = Onion::new(a);
            let mut ours = Onion::new(Metered::new(b, meter.clone()));
            let (_, pushed) = tokio::join!(
                async {
                    let pushed = theirs.push(role, &big).await;
                    let _ = theirs.shutdown().await;
                    drop(theirs);
                    pushed
                },
                async {
                    let pushed = ours.push(role.other(), &small).await;
                    drop(ours);
                    pushed
                }
            );
            assert_eq!(pushed.is_ok(), fits, "{certificates} {role:?}: {pushed:?}");
            if !fits {
                assert!(meter.bytes_in() < 200_000, "{} bytes", meter.bytes_in());
            }
        }
    }
}

fn certificate_pem(der: &CertificateDer<'_>) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// What a server makes of this stream.
async fn served(stream: Stream) -> (ConnectError, Duration) {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let config = StackConfig::new(identity, Arc::new(AcceptAny));
    let begun = Instant::now();
    let session = Session::handshake(stream, &[], Side::Server, &config).await;
    (session.unwrap_err(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn silence_and_one_byte_a_second_are_cut_after_ten_seconds() {
    let (_client, _b, body) = hello().await;
    for trickle in [false, true] {
        let (near, mut far) = memory::pair();
        let bytes = records(&body, 5000);
        let stranger = tokio::spawn(async move {
            if trickle {
                for byte in bytes {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if far.write_all(&[byte]).await.is_err() {
                        return;
                    }
                }
            }
            std::future::pending::<()>().await;
        });
        let (error, took) = served(near).await;
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
        // And a second in which it could have read why.
        assert!((10..=12).contains(&took.as_secs()), "{took:?}");
        stranger.abort();
    }
}

/// By a close or by a reset, as load balancers do it.
#[tokio::test]
async fn who_leaves_before_the_first_byte_is_a_probe_and_no_failure() {
    for (says, resets, is_probe) in [
        (&b""[..], false, true),
        (b"", true, true),
        (b"\x16", false, false),
        (b"GET / HTTP/1.1\r\n\r\n", false, false),
    ] {
        let at = "tcp:127.0.0.1:0".parse().unwrap();
        let mut listener = listen(&at).await.unwrap();
        let mut stranger = dial(listener.endpoint()).await.unwrap();
        let stream = listener.accept().await.unwrap().unwrap();
        stranger.write_all(says).await.unwrap();
        stranger.cut_when_dropped(resets);
        drop(stranger);
        let (error, _) = served(stream).await;
        assert_eq!(
            error.is_probe(),
            is_probe,
            "{says:?}, reset {resets}: {error:?}"
        );
        assert_eq!(error.failing().is_none(), is_probe, "{error:?}");
        assert!(error.is_transient() || !is_probe);
    }
}

/// A dialler is told in the same way that it was turned away, or met something that is no TLS server.
#[tokio::test]
async fn a_dialler_says_what_may_be_the_matter_where_nothing_answers() {
    let (near, far) = memory::pair();
    drop(far);
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let config = StackConfig::new(identity, Arc::new(AcceptAny));
    let error = Session::handshake(near, &[], Side::Client, &config)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("closed the connection without a word"),
        "{text}"
    );
    assert!(text.contains("it may be full"), "{text}");
}

#[tokio::test]
async fn another_protocol_s_alpn_or_none_is_refused_with_the_right_alert() {
    let pair = Pair::new();
    for offered in [&[][..], &["h2", "http/1.1"], &["cepa-layer/1"], &["cepa/3"]] {
        let client = TlsConfig::new(&pair.left, Arc::new(AcceptAny)).unwrap();
        let client = client.to_builder().alpn(offered).build().unwrap();
        let (a, b) = memory::pair();
        let mut a = Onion::new(a);
        let (of_client, (of_server, _)) = tokio::join!(
            async {
                a.push(Side::Client, &client).await?;
                a.read_u8().await.map_err(|error| {
                    let tls = TlsError::inside(&error).expect("a reason");
                    tls.root().clone()
                })
            },
            served(b)
        );
        assert!(
            matches!(of_server, ConnectError::Tls(TlsError::Alpn { .. })),
            "{of_server:?}"
        );
        let error = of_client.unwrap_err();
        if offered.is_empty() {
            // rustls has no alert of its own for a client that names nothing; it is cut all the same.
            continue;
        }
        // no_application_protocol, RFC 7301 section 3.2.
        assert!(
            matches!(error, TlsError::RefusedByPeer { alert: 120 }),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn layers_that_each_take_nine_seconds_are_cut_after_thirty_together() {
    let identity = support::identity();
    let mut config = StackConfig::new(support::identity(), Arc::new(AcceptAny));
    let (near, far) = memory::pair();
    let layers = [Layer::Mux, Layer::Tls, Layer::Tls, Layer::Tls, Layer::Tls];
    let slow = tokio::spawn(async move {
        let mut onion = Onion::new(far);
        for alpn in [ALPN_LAYER, ALPN_LAYER, ALPN_LAYER, ALPN_MUX] {
            tokio::time::sleep(Duration::from_secs(9)).await;
            let tls = anyone(&identity)
                .to_builder()
                .alpn(&[alpn])
                .build()
                .unwrap();
            if onion.push(Side::Client, &tls).await.is_err() {
                return;
            }
        }
        panic!("four layers in 36 s");
    });
    let begun = Instant::now();
    let error = Session::handshake(near, &layers, Side::Server, &config).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, ConnectError::TimedOut { during } if during.contains("layer 4 of 4")),
        "{error:?}"
    );
    let took = begun.elapsed().as_secs();
    assert!((30..=32).contains(&took), "{took} s");
    slow.await.unwrap();
    // It is the sum that is bounded: with time for it, the same peer comes through to the binding.
    config.stack_timeout = Duration::from_secs(300);
    let (near, mut far) = memory::pair();
    let begun = Instant::now();
    let silent = tokio::spawn(async move {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await
    });
    let error = Session::handshake(near, &layers, Side::Server, &config).await;
    assert!(
        matches!(error, Err(ConnectError::TimedOut { .. })),
        "{error:?}"
    );
    // One layer's limit holds whatever the stack's is.
    assert!((10..=12).contains(&begun.elapsed().as_secs()));
    silent.await.unwrap().unwrap();
}

/// A client of rustls as it comes, without IO, that shows this certificate and signs with this.
fn foreign_client(shown: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> ClientConfig {
    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);
    impl ResolvesClientCert for Always {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAnyone(provider)))
        .with_client_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(shown, key)))))
}

/// Signs with zeros.
#[derive(Debug)]
struct Forger {
    scheme: SignatureScheme,
    length: usize,
}

impl SigningKey for Forger {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self { ..*self }))
    }
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

impl Signer for Forger {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![0; self.length])
    }
    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// A certificate with an RSA key of so many bits, which nobody has: what is refused by its size is
/// refused before anything is proven.
fn rsa_certificate(bits: usize) -> CertificateDer<'static> {
    struct Fake(Vec<u8>);
    impl rcgen::PublicKeyData for Fake {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_RSA_SHA256
        }
    }
    impl rcgen::SigningKey for Fake {
        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            Ok(vec![0; 256])
        }
    }
    let der = |tag: u8, body: &[u8]| {
        let mut der = vec![tag, 0x82];
        der.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        der.extend(body);
        der
    };
    // SEQUENCE { INTEGER modulus, INTEGER 65537 }; the leading zero keeps the modulus positive.
    let modulus = [&[0][..], &vec![0xff; bits / 8]].concat();
    let key = der(0x30, &[der(2, &modulus), vec![2, 3, 1, 0, 1]].concat());
    let certificate = rcgen::CertificateParams::new(["x.cepa.alt".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&Fake(key)).unwrap();
    certificate.der().clone()
}

#[tokio::test]
async fn a_key_of_16_kbit_is_refused_by_its_size_and_no_signature_of_it_is_checked() {
    let refusal_of = async |bits: usize| {
        let forger = Forger {
            scheme: SignatureScheme::RSA_PSS_SHA256,
            length: bits / 8,
        };
        let client = foreign_client(vec![rsa_certificate(bits)], Arc::new(forger));
        let (result, read) = against(|stream| async move {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let name = "x.cepa.alt".try_into().unwrap();
            let Ok(mut stream) = connector.connect(name, stream).await else {
                return;
            };
            let _ = stream.read_u8().await;
        })
        .await;
        assert!(read < 10_000, "{read} bytes were read");
        result.unwrap_err()
    };
    match refusal_of(16_384).await {
        TlsError::Refused(Refusal::Unusable { problem }) => {
            assert_eq!(problem, CertificateError::RsaSize { bits: 16_384 });
        }
        other => panic!("{other:?}"),
    }
    // One of a size that is taken goes on to the signature, which is none.
    let error = refusal_of(2048).await;
    assert!(!matches!(error, TlsError::Refused(_)), "{error:?}");
}

/// A server of rustls as it comes, that shows this certificate and signs with this.
fn foreign_server(shown: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> ServerConfig {
    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);
    impl ResolvesServerCert for Always {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(shown, key)))))
}

#[tokio::test]
async fn a_server_s_key_of_16_kbit_is_refused_by_its_size() {
    for (bits, by_size) in [(16_384, true), (2048, false)] {
        let forger = Forger {
            scheme: SignatureScheme::RSA_PSS_SHA256,
            length: bits / 8,
        };
        let server = foreign_server(vec![rsa_certificate(bits)], Arc::new(forger));
        let (result, read) = dialling(|stream| async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
            let _ = acceptor.accept(stream).await;
        })
        .await;
        assert!(read < 10_000, "{read} bytes were read");
        match result.unwrap_err() {
            TlsError::Refused(Refusal::Unusable { problem }) => {
                assert!(by_size, "{problem}");
                assert_eq!(problem, CertificateError::RsaSize { bits });
            }
            other => assert!(!by_size, "{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_flood_of_key_updates_ends_the_layer_and_is_not_answered_one_by_one() {
    let pair = Pair::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["x".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.into()).unwrap();
    let client = foreign_client(vec![certificate], key);
    let (a, b) = tokio::io::duplex(1 << 20);
    let meter = Meter::new();
    let mut server = Onion::new(Metered::new(b, meter.clone()));
    let config = anyone(&pair.left);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let (pushed, stream) = tokio::join!(
        server.push(Side::Server, &config),
        connector.connect("x".try_into().unwrap(), a)
    );
    pushed.unwrap();
    let (mut wire, mut conn) = stream.unwrap().into_inner();
    let (read, written) = (meter.bytes_in(), meter.bytes_out());
    let mut flood = Vec::new();
    for _ in 0..1000 {
        conn.refresh_traffic_keys().unwrap();
        while conn.wants_write() {
            conn.write_tls(&mut flood).unwrap();
        }
    }
    // Each is a record of its own, as short as they come.
    assert!(flood.len() < 40_000, "{}", flood.len());
    wire.write_all(&flood).await.unwrap();
    let error = support::soon(server.read_u8()).await.unwrap_err();
    assert!(TlsError::inside(&error).is_some(), "{error}");
    let (read, written) = (meter.bytes_in() - read, meter.bytes_out() - written);
    assert!(read <= flood.len() as u64, "{read}");
    // An answer and an alert, not a thousand answers.
    assert!(written < 200, "{written} bytes were sent");
}
