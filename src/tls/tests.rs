//! Tests of configuration, verification and errors: two TLS connections in memory, without a stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::UnixTime;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConnection, Connection, ServerConnection, SignatureScheme};

use super::error::quote;
use super::shown::Asked;
use super::verifier::{Shown, Verdict};
use super::*;
use crate::Side;
use crate::identity::{
    AcceptAny, AnyOf, CertificateDer, Identity, KeyKind, KnownPeer, KnownPeersFile, PeerId, Pinned,
    Presented, Refusal, RotationTimes, TrustKnown, TrustPolicy,
};

/// One end of a handshake under test.
struct End {
    connection: Connection,
    config: TlsConfig,
    verdict: Verdict,
    side: Side,
    failed: Option<TlsError>,
}

impl End {
    fn client(config: &TlsConfig) -> Self {
        let (client, verdict) = config.client();
        let connection = ClientConnection::new(client, config.server_name().unwrap())
            .unwrap()
            .into();
        Self {
            connection,
            config: config.clone(),
            verdict,
            side: Side::Client,
            failed: None,
        }
    }

    fn server(config: &TlsConfig) -> Self {
        let (server, verdict) = config.server(&Asked::default()).unwrap();
        let connection = ServerConnection::new(server).unwrap().into();
        Self {
            connection,
            config: config.clone(),
            verdict,
            side: Side::Server,
            failed: None,
        }
    }

    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn input(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failed.is_none() {
            self.connection.read_tls(&mut bytes).unwrap();
            let connection = &mut self.connection;
            if let Err(error) = self.verdict.during(|| connection.process_new_packets()) {
                self.failed = Some(TlsError::from_rustls(&error, &self.verdict, self.side));
            }
        }
    }

    fn result(self) -> Result<Peer, TlsError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let name = match &self.connection {
            Connection::Client(_) => None,
            Connection::Server(server) => server.server_name(),
        };
        let role = self.side.other();
        Peer::from_connection(&self.connection, role, name, &self.config, &self.verdict)
    }
}

/// Carries bytes between the two ends until both are silent, alerts included.
fn carry(client: &mut End, server: &mut End) {
    loop {
        let (up, down) = (client.output(), server.output());
        if up.is_empty() && down.is_empty() {
            return;
        }
        server.input(&up);
        client.input(&down);
    }
}

/// What client and server end up with.
fn handshake(
    client: &TlsConfig,
    server: &TlsConfig,
) -> (Result<Peer, TlsError>, Result<Peer, TlsError>) {
    let (mut client, mut server) = (End::client(client), End::server(server));
    carry(&mut client, &mut server);
    (client.result(), server.result())
}

fn identity(kind: KeyKind) -> Identity {
    Identity::generate(kind).unwrap()
}

fn config(identity: &Identity, trust: impl TrustPolicy + 'static) -> TlsConfig {
    TlsConfig::new(identity, Arc::new(trust)).unwrap()
}

/// Two identities and a configuration for each that pins the other.
fn pair(kind: KeyKind) -> (TlsConfig, TlsConfig) {
    let (a, b) = (identity(kind), identity(kind));
    (
        config(&a, Pinned::one(b.peer_id())),
        config(&b, Pinned::one(a.peer_id())),
    )
}

fn one_line(error: &TlsError) -> String {
    let text = error.to_string();
    assert!(
        !text.chars().any(char::is_control),
        "not one line: {text:?}"
    );
    text
}

#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// An identity whose certificate is valid from and until these dates.
fn dated(from: i32, until: i32) -> Identity {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    Identity::from_pem_pair(&certificate.pem(), &key.serialize_pem()).unwrap()
}

// ---- who is let in ---------------------------------------------------------------------------

#[test]
fn both_sides_learn_who_the_other_is() {
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let (client, server) = pair(kind);
        let (of_client, of_server) = handshake(&client, &server);
        let (of_client, of_server) = (of_client.unwrap(), of_server.unwrap());
        assert_eq!(of_client.id(), server.identity().peer_id());
        assert_eq!(of_server.id(), client.identity().peer_id());
        let shown = client.identity().certificate();
        assert_eq!(of_server.certificate(), Some(shown));
        assert_eq!(
            of_server.certificate_sha256(),
            Some(client.identity().certificate_sha256())
        );
        assert_eq!(of_server.not_after(), client.identity().not_after());
        for peer in [&of_client, &of_server] {
            assert_eq!(peer.version(), Version::Tls13);
            assert_eq!(peer.chain().len(), 1);
            assert_eq!(peer.alpn(), None);
        }
        assert_eq!(of_client.server_name(), None);
        assert_eq!(of_server.server_name(), None);
    }
}

#[test]
fn keys_that_users_bring_work() {
    let mut algorithms = vec![&rcgen::PKCS_ECDSA_P384_SHA384];
    if cfg!(feature = "aws-lc-rs") {
        algorithms.push(&rcgen::PKCS_RSA_SHA256);
    }
    for algorithm in algorithms {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        // As `openssl req -x509` makes them: with CA:TRUE.
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let brought = Identity::from_pem_pair(&certificate.pem(), &key.serialize_pem()).unwrap();
        let own = identity(KeyKind::Ed25519);
        let (a, b) = (
            config(&brought, Pinned::one(own.peer_id())),
            config(&own, Pinned::one(brought.peer_id())),
        );
        for (client, server) in [(&a, &b), (&b, &a)] {
            let (of_client, of_server) = handshake(client, server);
            assert_eq!(of_client.unwrap().id(), server.identity().peer_id());
            assert_eq!(of_server.unwrap().id(), client.identity().peer_id());
        }
    }
}

#[test]
fn the_client_refuses_another_server_than_the_expected() {
    let (client, server) = pair(KeyKind::Ed25519);
    let other = identity(KeyKind::Ed25519).peer_id();
    let client = client
        .to_builder()
        .trust(Arc::new(Pinned::one(other)))
        .build()
        .unwrap();
    let (of_client, of_server) = handshake(&client, &server);
    let presented = server.identity().peer_id();
    match of_client.unwrap_err() {
        TlsError::Refused(refusal) => {
            assert_eq!(
                refusal,
                Refusal::WrongPeer {
                    expected: vec![other],
                    presented
                }
            );
        }
        error => panic!("{error}"),
    }
    // certificate_unknown, and nothing about whom we expected.
    let error = of_server.unwrap_err();
    assert!(
        matches!(error, TlsError::RefusedByPeer { alert: 46 }),
        "{error}"
    );
    assert!(
        one_line(&error).contains("(alert 46, certificate_unknown)"),
        "{error}"
    );
}

#[test]
fn the_server_refuses_a_stranger_and_the_client_hears_of_it() {
    let (client, server) = pair(KeyKind::Ed25519);
    let server = server
        .to_builder()
        .trust(Arc::new(Pinned::default()))
        .build()
        .unwrap();
    let (mut client_end, mut server_end) = (End::client(&client), End::server(&server));
    carry(&mut client_end, &mut server_end);
    let presented = client.identity().peer_id();
    match server_end.failed.unwrap() {
        TlsError::Refused(refusal) => assert_eq!(refusal, Refusal::Unknown { presented }),
        error => panic!("{error}"),
    }
    // The TLS 1.3 client had finished its handshake before; the alert came after.
    assert!(!client_end.connection.is_handshaking());
    let error = client_end.failed.unwrap();
    assert!(
        matches!(error, TlsError::RefusedByPeer { alert: 46 }),
        "{error}"
    );
}

#[test]
fn any_self_signed_certificate_is_accepted_by_accept_any() {
    let (client, server) = (identity(KeyKind::P256), identity(KeyKind::Ed25519));
    let (of_client, of_server) =
        handshake(&config(&client, AcceptAny), &config(&server, AcceptAny));
    assert_eq!(of_client.unwrap().id(), server.peer_id());
    assert_eq!(of_server.unwrap().id(), client.peer_id());
}

#[test]
fn expired_certificates_are_refused_on_both_sides_unless_the_key_itself_is_trusted() {
    let (old, new) = (dated(2000, 2020), identity(KeyKind::Ed25519));
    let not_after = old.not_after();
    let expected = Refusal::Expired {
        presented: old.peer_id(),
        not_after,
    };
    // A pinned peer is not locked out, and its dates are there to warn by.
    let holder = config(&old, AcceptAny);
    let pinning = config(&new, Pinned::one(old.peer_id()));
    let (of_client, _) = handshake(&pinning, &holder);
    assert_eq!(of_client.unwrap().not_after(), not_after);
    let (_, of_server) = handshake(&holder, &pinning);
    assert_eq!(of_server.unwrap().not_after(), not_after);
    let other = config(&new, Pinned::one(new.peer_id()));
    assert!(handshake(&other, &holder).0.is_err());
    for trust in [
        Arc::new(AcceptAny) as Arc<dyn TrustPolicy>,
        Arc::new(PanicsAboutDates),
    ] {
        let judge = TlsConfig::new(&new, trust).unwrap();
        for (judged, reported) in [handshake(&judge, &holder), {
            let (c, s) = handshake(&holder, &judge);
            (s, c)
        }] {
            let error = judged.unwrap_err();
            assert!(
                matches!(&error, TlsError::Refused(refusal) if *refusal == expected),
                "{error}"
            );
            assert!(
                one_line(&error).contains("expired on 2020-01-01 00:00:00 UTC"),
                "{error}"
            );
            // In the client's role the holder may have finished before it heard.
            if let Err(error) = reported {
                assert!(
                    matches!(error, TlsError::RefusedByPeer { alert: 45 }),
                    "{error}"
                );
                assert!(one_line(&error).contains("certificate_expired"));
            }
        }
        // At the last second of its life it is still good, a second later it is not.
        let at = |second| {
            judge
                .to_builder()
                .clock(Arc::new(Clock(second)))
                .build()
                .unwrap()
        };
        assert!(handshake(&at(not_after.as_secs()), &holder).0.is_ok());
        assert!(handshake(&at(not_after.as_secs() + 1), &holder).0.is_err());
    }
}

#[test]
fn certificates_of_the_future_are_refused() {
    let (future, now) = (dated(2100, 2200), identity(KeyKind::Ed25519));
    let judge = config(&now, AcceptAny);
    let (of_client, _) = handshake(&judge, &config(&future, AcceptAny));
    let error = of_client.unwrap_err();
    assert!(
        matches!(&error, TlsError::Refused(Refusal::NotYetValid { presented, not_before, .. })
            if *presented == future.peer_id() && *not_before == future.not_before()),
        "{error}"
    );
    assert!(one_line(&error).contains("correct the clock that is wrong"));
    // A device whose clock stands at 1970 still gets along with certificates that we made.
    let no_clock = judge
        .to_builder()
        .clock(Arc::new(Clock(0)))
        .build()
        .unwrap();
    assert!(
        handshake(&no_clock, &config(&identity(KeyKind::Ed25519), AcceptAny))
            .0
            .is_ok()
    );
}

/// First contact is refused as for anybody, since nothing but the certificate speaks for it then.
#[test]
fn a_known_peer_is_not_locked_out_by_the_dates_of_its_certificate() {
    let (old, new) = (dated(2000, 2020), identity(KeyKind::Ed25519));
    let dir = tempfile::tempdir().unwrap();
    let file = KnownPeersFile::new(dir.path().join("peers"));
    let of_file = || TrustKnown::at(file.clone(), "tcp:host:1").trusting_new();
    let holder = config(&old, AcceptAny);
    let both_roles = |trust: Arc<dyn TrustPolicy>| {
        let judge = TlsConfig::new(&new, trust).unwrap();
        let (of_client, _) = handshake(&judge, &holder);
        let (_, of_server) = handshake(&holder, &judge);
        [of_client, of_server]
    };
    for judged in both_roles(Arc::new(of_file())) {
        assert!(matches!(
            judged.unwrap_err(),
            TlsError::Refused(Refusal::Expired { .. })
        ));
    }
    let known = || KnownPeer::new("old", old.peer_id()).unwrap();
    file.edit(|peers| {
        let mut peer = known();
        peer.add_place("tcp:host:1");
        peers.add(peer)
    })
    .unwrap();
    let somebody_else = Arc::new(Pinned::one(new.peer_id())) as Arc<dyn TrustPolicy>;
    let any_of = AnyOf::new([somebody_else, Arc::new(of_file())]);
    for judged in [
        both_roles(Arc::new(of_file())),
        both_roles(Arc::new(any_of)),
    ]
    .concat()
    {
        assert_eq!(judged.unwrap().not_after(), old.not_after());
    }
}

#[derive(Debug)]
struct PanicsAboutDates;

impl TrustPolicy for PanicsAboutDates {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn overlooks_dates(&self, _: &Presented<'_>) -> bool {
        panic!("a bug in a user's policy")
    }
}

/// Says yes to what is presented, and then refuses the one who has proven it.
#[derive(Debug)]
struct SecondThoughts(std::sync::Mutex<Vec<PeerId>>);

impl TrustPolicy for SecondThoughts {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.0.lock().unwrap().push(peer.id);
        Err(Refusal::PolicyFailed {
            presented: peer.id,
            reason: "it could not be written down".into(),
        })
    }
}

#[test]
fn a_policy_has_the_last_word_when_the_key_is_proven_in_either_role_and_version() {
    for versions in [&[Version::Tls13][..], &[Version::Tls12]] {
        let (a, b) = (identity(KeyKind::P256), identity(KeyKind::P256));
        let with = |config: TlsConfig| config.to_builder().versions(versions).build().unwrap();
        let thoughts = Arc::new(SecondThoughts(std::sync::Mutex::default()));
        let judge = with(TlsConfig::new(&a, thoughts.clone()).unwrap());
        let holder = with(config(&b, AcceptAny));
        let as_client = handshake(&judge, &holder).0.unwrap_err();
        let as_server = handshake(&holder, &judge).1.unwrap_err();
        for error in [as_client, as_server] {
            assert!(
                matches!(&error, TlsError::Refused(Refusal::PolicyFailed { presented, .. }) if *presented == b.peer_id()),
                "{error}"
            );
        }
        assert_eq!(*thoughts.0.lock().unwrap(), [b.peer_id(), b.peer_id()]);
    }
}

/// When it is asked, or late: when the key is proven.
#[derive(Clone, Copy, Debug)]
struct Panics {
    late: bool,
}

impl TrustPolicy for Panics {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        assert!(self.late, "a bug in a user's policy");
        Ok(())
    }

    fn proven(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        panic!("another bug in it")
    }
}

#[test]
fn a_panicking_policy_refuses() {
    let (a, b) = (identity(KeyKind::Ed25519), identity(KeyKind::Ed25519));
    for panics in [Panics { late: false }, Panics { late: true }] {
        let judge = config(&a, panics);
        let (of_client, of_server) = handshake(&judge, &config(&b, AcceptAny));
        assert!(of_server.is_err());
        let (_, judged) = handshake(&config(&b, AcceptAny), &judge);
        for error in [of_client.unwrap_err(), judged.unwrap_err()] {
            assert!(
                matches!(&error, TlsError::Refused(Refusal::PolicyFailed { presented, .. }) if *presented == b.peer_id()),
                "{error}"
            );
        }
    }
}

/// Answers what it is told to, and notes what it was asked.
#[derive(Debug, Default)]
struct Notes {
    answer: Option<Refusal>,
    asked: Mutex<Vec<(PeerId, Side, usize)>>,
}

impl TrustPolicy for Notes {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        assert_eq!(
            PeerId::from_certificate(peer.certificate.unwrap()).unwrap(),
            peer.id
        );
        assert!(peer.not_before <= peer.now && peer.now <= peer.not_after);
        self.asked
            .lock()
            .unwrap()
            .push((peer.id, peer.role, peer.chain.len()));
        self.answer.clone().map_or(Ok(()), Err)
    }
}

#[test]
fn a_policy_is_asked_once_a_handshake_and_about_the_right_side() {
    let (a, b) = (identity(KeyKind::Ed25519), identity(KeyKind::P256));
    let (of_a, of_b) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
    let (client, server) = (
        TlsConfig::new(&a, of_a.clone()).unwrap(),
        TlsConfig::new(&b, of_b.clone()).unwrap(),
    );
    for _ in 0..2 {
        let (of_client, of_server) = handshake(&client, &server);
        of_client.unwrap();
        of_server.unwrap();
    }
    // The second handshake asks again: nothing is resumed.
    assert_eq!(
        *of_a.asked.lock().unwrap(),
        [(b.peer_id(), Side::Server, 0); 2]
    );
    assert_eq!(
        *of_b.asked.lock().unwrap(),
        [(a.peer_id(), Side::Client, 0); 2]
    );
}

#[test]
fn the_alert_fits_the_refusal() {
    let (a, b) = (identity(KeyKind::Ed25519), identity(KeyKind::Ed25519));
    let presented = b.peer_id();
    let cases = [
        (
            Refusal::NotAuthorised {
                presented,
                reason: "no".into(),
            },
            49,
        ),
        (
            Refusal::Other {
                presented,
                reason: "no".into(),
            },
            46,
        ),
        (Refusal::Unknown { presented }, 46),
    ];
    for (refusal, number) in cases {
        let trust = Notes {
            answer: Some(refusal.clone()),
            ..Notes::default()
        };
        let (of_client, of_server) = handshake(&config(&a, trust), &config(&b, AcceptAny));
        assert!(matches!(of_client, Err(TlsError::Refused(given)) if given == refusal));
        assert!(matches!(of_server, Err(TlsError::RefusedByPeer { alert }) if alert == number));
        // The same of a server; its client may have finished before it hears of it, and reads it then.
        let trust = Notes {
            answer: Some(refusal.clone()),
            ..Notes::default()
        };
        let mut client = End::client(&config(&b, AcceptAny));
        let mut server = End::server(&config(&a, trust));
        carry(&mut client, &mut server);
        assert!(matches!(server.failed, Some(TlsError::Refused(given)) if given == refusal));
        assert!(
            matches!(client.failed, Some(TlsError::RefusedByPeer { alert }) if alert == number)
        );
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let server = config(&identity(KeyKind::Ed25519), AcceptAny);
    let own = config(&identity(KeyKind::Ed25519), AcceptAny);
    let mut client = End::client(&own);
    let (with, _) = own.client();
    let mut without = rustls::ClientConfig::clone(&with);
    without.client_auth_cert_resolver = Arc::new(Shows(None));
    client.connection = ClientConnection::new(Arc::new(without), own.server_name().unwrap())
        .unwrap()
        .into();
    let mut server = End::server(&server);
    carry(&mut client, &mut server);
    assert!(matches!(
        server.failed,
        Some(TlsError::Refused(Refusal::NoCertificate))
    ));
    let error = client.failed.unwrap();
    assert!(
        matches!(error, TlsError::RefusedByPeer { alert: 116 }),
        "{error}"
    );
    assert!(one_line(&error).contains("certificate_required"));
}

#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[test]
fn somebody_else_s_certificate_is_of_no_use_without_its_key() {
    for versions in [[Version::Tls13], [Version::Tls12]] {
        let (victim, thief) = (identity(KeyKind::P256), identity(KeyKind::P256));
        let server = config(&identity(KeyKind::P256), Pinned::one(victim.peer_id()))
            .to_builder()
            .versions(&versions)
            .build()
            .unwrap();
        let own = config(&thief, AcceptAny)
            .to_builder()
            .versions(&versions)
            .build()
            .unwrap();
        let mut client = End::client(&own);
        let mut forged = rustls::ClientConfig::clone(&own.client().0);
        let stolen = CertifiedKey::new(victim.chain().to_vec(), Arc::clone(&thief.certified().key));
        forged.client_auth_cert_resolver = Arc::new(Shows(Some(Arc::new(stolen))));
        client.connection = ClientConnection::new(Arc::new(forged), own.server_name().unwrap())
            .unwrap()
            .into();
        let mut server = End::server(&server);
        carry(&mut client, &mut server);
        let error = server.failed.expect("the server must not be fooled");
        assert!(
            one_line(&error).contains("does not hold the key"),
            "{error}"
        );
    }
}

#[test]
fn nor_is_it_to_a_server() {
    for versions in [[Version::Tls13], [Version::Tls12]] {
        let (victim, thief) = (identity(KeyKind::P256), identity(KeyKind::P256));
        let client = config(&identity(KeyKind::P256), Pinned::one(victim.peer_id()))
            .to_builder()
            .versions(&versions)
            .build()
            .unwrap();
        let own = config(&thief, AcceptAny)
            .to_builder()
            .versions(&versions)
            .build()
            .unwrap();
        let mut forged = rustls::ServerConfig::clone(&own.server(&Asked::default()).unwrap().0);
        let stolen = CertifiedKey::new(victim.chain().to_vec(), Arc::clone(&thief.certified().key));
        forged.cert_resolver = Arc::new(SingleCertAndKey::from(stolen));
        let mut server = End::server(&own);
        server.connection = ServerConnection::new(Arc::new(forged)).unwrap().into();
        let mut client = End::client(&client);
        carry(&mut client, &mut server);
        let error = client.failed.expect("the client must not be fooled");
        assert!(
            one_line(&error).contains("does not hold the key"),
            "{error}"
        );
    }
}

// ---- what is agreed on -----------------------------------------------------------------------

#[test]
fn the_profiles_of_the_line_protocol_can_be_asked_for() {
    let rsa = || {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        Identity::from_pem_pair(
            &params.self_signed(&key).unwrap().pem(),
            &key.serialize_pem(),
        )
        .unwrap()
    };
    let p256: fn() -> Identity = || identity(KeyKind::P256);
    let mut profiles = vec![
        (Version::Tls13, 0x1301, p256 as fn() -> Identity),
        (Version::Tls13, 0x1302, p256),
        (Version::Tls13, 0x1303, || identity(KeyKind::Ed25519)),
        (Version::Tls12, 0xcca9, p256),
    ];
    if cfg!(feature = "aws-lc-rs") {
        profiles.push((Version::Tls12, 0xcca8, rsa));
    }
    for (version, suite, make) in profiles {
        let with = |identity: Identity| {
            config(&identity, AcceptAny)
                .to_builder()
                .suites(&[suite])
                .versions(&[version])
                .build()
                .unwrap()
        };
        let (client, server) = (with(make()), with(make()));
        let (of_client, of_server) = handshake(&client, &server);
        for peer in [of_client.unwrap(), of_server.unwrap()] {
            assert_eq!((peer.version(), peer.suite()), (version, suite));
        }
    }
}

#[test]
fn tls_12_is_not_spoken_unless_asked_for() {
    let (client, server) = pair(KeyKind::P256);
    let old = client
        .to_builder()
        .versions(&[Version::Tls12])
        .build()
        .unwrap();
    let (of_client, of_server) = handshake(&old, &server);
    let error = of_server.unwrap_err();
    assert!(matches!(error, TlsError::Incompatible { .. }), "{error}");
    let error = of_client.unwrap_err();
    assert!(
        matches!(error, TlsError::RefusedByPeer { alert: 70 }),
        "{error}"
    );
    // Where both are allowed, the better one is taken.
    let both = |config: TlsConfig| {
        config
            .to_builder()
            .versions(&[Version::Tls12, Version::Tls13])
            .build()
            .unwrap()
    };
    let (of_client, _) = handshake(&both(client), &both(server));
    assert_eq!(of_client.unwrap().version(), Version::Tls13);
}

#[test]
fn the_key_exchange_can_be_chosen() {
    let (client, server) = pair(KeyKind::Ed25519);
    let classic = client.to_builder().groups(&[0x001d]).build().unwrap();
    assert_eq!(
        handshake(&classic, &server).0.unwrap().group(),
        Some(0x001d)
    );
    if cfg!(feature = "aws-lc-rs") {
        assert_eq!(handshake(&client, &server).0.unwrap().group(), Some(0x11ec));
    }
}

#[test]
fn alpn_is_agreed_on_or_the_handshake_fails() {
    let (client, server) = pair(KeyKind::Ed25519);
    let with =
        |config: &TlsConfig, names: &[&str]| config.to_builder().alpn(names).build().unwrap();
    let cepa = with(&server, &["cepa/1"]);

    let (of_client, of_server) = handshake(&with(&client, &["new", "cepa/1"]), &cepa);
    assert_eq!(of_client.unwrap().alpn(), Some(b"cepa/1".as_slice()));
    assert_eq!(of_server.unwrap().alpn(), Some(b"cepa/1".as_slice()));

    // Another one: the server says so, alert 120.
    let (of_client, of_server) = handshake(&with(&client, &["h2"]), &cepa);
    let error = of_server.unwrap_err();
    assert!(
        matches!(&error, TlsError::Alpn { got: None, .. }),
        "{error}"
    );
    assert!(one_line(&error).contains("\"cepa/1\""), "{error}");
    assert!(matches!(
        of_client,
        Err(TlsError::RefusedByPeer { alert: 120 })
    ));

    // None at all, on either side.
    let (_, of_server) = handshake(&client, &cepa);
    assert!(matches!(of_server, Err(TlsError::Alpn { got: None, .. })));
    let (of_client, _) = handshake(&with(&client, &["cepa/1"]), &server);
    assert!(matches!(of_client, Err(TlsError::Alpn { got: None, .. })));

    // Optional: none will do, another one will not.
    let optional = client
        .to_builder()
        .optional_alpn(&["cepa/1"])
        .build()
        .unwrap();
    assert_eq!(handshake(&optional, &server).0.unwrap().alpn(), None);
    let optional = server
        .to_builder()
        .optional_alpn(&["cepa/1"])
        .build()
        .unwrap();
    assert!(handshake(&client, &optional).1.is_ok());
    assert!(handshake(&with(&client, &["h2"]), &optional).1.is_err());
}

#[test]
fn the_server_name_is_carried_and_not_judged() {
    let (client, server) = pair(KeyKind::Ed25519);
    let named = client
        .to_builder()
        .server_name("db.example")
        .build()
        .unwrap();
    assert_eq!(
        handshake(&named, &server).1.unwrap().server_name(),
        Some("db.example")
    );
    let id = server.identity().peer_id();
    let by_id = client.to_builder().server_peer(id).build().unwrap();
    let expected = format!("{id}.cepa.alt");
    assert_eq!(
        handshake(&by_id, &server).1.unwrap().server_name(),
        Some(&*expected)
    );
    let address = client
        .to_builder()
        .server_name("192.0.2.1")
        .build()
        .unwrap();
    assert_eq!(handshake(&address, &server).1.unwrap().server_name(), None);
}

#[test]
fn nothing_follows_a_finished_handshake() {
    // No tickets: the server's last flight of TLS 1.3 is behind it when the client's has come.
    let (client, server) = pair(KeyKind::Ed25519);
    let (mut client, mut server) = (End::client(&client), End::server(&server));
    while client.connection.is_handshaking() || server.connection.is_handshaking() {
        let up = client.output();
        server.input(&up);
        if server.connection.is_handshaking() {
            let down = server.output();
            client.input(&down);
        }
    }
    assert_eq!(server.output(), b"");
}

#[test]
fn records_are_as_small_as_asked() {
    use std::io::Write as _;
    let (client, server) = pair(KeyKind::Ed25519);
    let client = client.to_builder().max_fragment(1000).build().unwrap();
    assert_eq!(
        (client.max_fragment(), server.max_fragment()),
        (1000, 16_384)
    );
    let (mut client, mut server) = (End::client(&client), End::server(&server));
    carry(&mut client, &mut server);
    client.connection.writer().write_all(&[7; 2500]).unwrap();
    let bytes = client.output();
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while let [_, _, _, high, low, ..] = rest {
        let len = usize::from(*high) << 8 | usize::from(*low);
        records.push(len);
        rest = &rest[5 + len..];
    }
    // 17 bytes: the inner type and the tag.
    assert_eq!(records, [1017, 1017, 517]);
}

#[test]
fn another_provider_can_be_used() {
    let (client, server) = pair(KeyKind::Ed25519);
    let mut provider = rustls::crypto::CryptoProvider::clone(&crate::identity::default_provider());
    provider
        .cipher_suites
        .retain(|suite| u16::from(suite.suite()) == 0x1303);
    let client = client
        .to_builder()
        .provider(Arc::new(provider))
        .build()
        .unwrap();
    assert_eq!(handshake(&client, &server).1.unwrap().suite(), 0x1303);
}

/// Everything that can be said of a layer, said in this order and in the other one, is the same layer; and errors are the
/// same, too.
#[test]
fn the_order_of_settings_does_not_matter() {
    type Setting<'a> = &'a dyn Fn(TlsConfigBuilder) -> TlsConfigBuilder;
    fn built(from: &TlsConfig, settings: &[Setting<'_>]) -> [Result<TlsConfig, TlsConfigError>; 2] {
        let there = settings.iter().fold(from.to_builder(), |b, set| set(b));
        let back = settings
            .iter()
            .rev()
            .fold(from.to_builder(), |b, set| set(b));
        [there.build(), back.build()]
    }
    let (client, server) = pair(KeyKind::P256);
    let second = identity(KeyKind::P256);
    let clock = Arc::new(DefaultTimeProvider);
    // Each needs another of them: the suite the version, the backend both.
    let common: [Setting<'_>; 8] = [
        &|b| b.suites(&[0xc02b]),
        &|b| b.versions(&[Version::Tls12]),
        &|b| b.groups(&[0x0017]),
        &|b| b.provider(crate::identity::default_provider()),
        &|b| b.alpn(&["cepa/1"]),
        &|b| b.max_fragment(1000),
        &|b| b.trust(Arc::new(AcceptAny)),
        &|b| b.clock(clock.clone()),
    ];
    let of_client: Setting<'_> = &|b| b.ask_for(second.peer_id());
    let of_server: Setting<'_> = &|b| b.more_identities(std::slice::from_ref(&second));
    let clients = built(&client, &[&common[..], &[of_client]].concat());
    let servers = built(&server, &[&common[..], &[of_server]].concat());
    for client in &clients {
        for server in &servers {
            let client = client.as_ref().unwrap();
            let (of_client, of_server) = handshake(client, server.as_ref().unwrap());
            let (of_client, of_server) = (of_client.unwrap(), of_server.unwrap());
            let asked = format!("{}.cepa.alt", second.peer_id());
            assert_eq!(of_server.server_name(), Some(&*asked));
            assert_eq!(of_client.version(), Version::Tls12);
            assert_eq!(of_client.suite(), 0xc02b);
            assert_eq!(of_server.group(), Some(0x0017));
            assert_eq!(of_server.alpn(), Some(&b"cepa/1"[..]));
            assert_eq!(client.max_fragment(), 1000);
        }
    }
    let [there, back] = clients.map(|built| format!("{:?}", built.unwrap()));
    assert_eq!(there, back);
    let no: [Setting<'_>; 2] = [&|b| b.versions(&[]), &|b| b.alpn(&[""])];
    let [there, back] = built(&client, &no).map(Result::unwrap_err);
    assert_eq!(there, back);
}

#[test]
fn settings_that_can_t_work_are_refused_at_once() {
    let base = || config(&identity(KeyKind::Ed25519), AcceptAny);
    let cases = [
        (
            base().to_builder().versions(&[]).build().unwrap_err(),
            TlsConfigError::NoVersion,
        ),
        (
            base()
                .to_builder()
                .suites(&[0x1301, 0x0005])
                .build()
                .unwrap_err(),
            TlsConfigError::UnknownSuite { code: 5 },
        ),
        (
            base().to_builder().suites(&[0xcca8]).build().unwrap_err(),
            TlsConfigError::SuiteVersion { code: 0xcca8 },
        ),
        (
            base().to_builder().suites(&[]).build().unwrap_err(),
            TlsConfigError::NoSuite {
                version: Version::Tls13,
            },
        ),
        (
            base()
                .to_builder()
                .suites(&[0x1301])
                .versions(&[Version::Tls12, Version::Tls13])
                .build()
                .unwrap_err(),
            TlsConfigError::NoSuite {
                version: Version::Tls12,
            },
        ),
        (
            base().to_builder().groups(&[1]).build().unwrap_err(),
            TlsConfigError::UnknownGroup { code: 1 },
        ),
        (
            base().to_builder().groups(&[]).build().unwrap_err(),
            TlsConfigError::NoGroup,
        ),
        (
            base().to_builder().alpn(&[""]).build().unwrap_err(),
            TlsConfigError::Alpn { length: 0 },
        ),
        (
            base()
                .to_builder()
                .alpn(&["x".repeat(256)])
                .build()
                .unwrap_err(),
            TlsConfigError::Alpn { length: 256 },
        ),
        (
            base()
                .to_builder()
                .server_name("no name")
                .build()
                .unwrap_err(),
            TlsConfigError::ServerName {
                name: "no name".into(),
            },
        ),
        (
            base().to_builder().max_fragment(31).build().unwrap_err(),
            TlsConfigError::Fragment { bytes: 31 },
        ),
        (
            base()
                .to_builder()
                .max_fragment(16_385)
                .build()
                .unwrap_err(),
            TlsConfigError::Fragment { bytes: 16_385 },
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(error, expected);
        assert!(!error.to_string().contains('\n'));
    }
    // And the ends of the range do work.
    for bytes in [32, 16_384] {
        let (client, server) = pair(KeyKind::Ed25519);
        assert!(
            handshake(
                &client.to_builder().max_fragment(bytes).build().unwrap(),
                &server
            )
            .0
            .is_ok()
        );
    }
}

#[test]
fn a_configuration_does_not_show_its_key() {
    let config = config(&identity(KeyKind::Ed25519), AcceptAny);
    let shown = format!("{config:?}");
    assert!(
        shown.contains("peer_id") && !shown.to_lowercase().contains("key:"),
        "{shown}"
    );
}

// ---- errors ----------------------------------------------------------------------------------

#[test]
fn every_alert_has_a_meaning_on_one_line() {
    for alert in 0..=255 {
        let text = one_line(&TlsError::from_alert(alert));
        assert!(
            text.contains(&format!("alert {alert} ("))
                || text.contains(&format!("(alert {alert}, ")),
            "{text}"
        );
    }
    let name = |alert| one_line(&TlsError::from_alert(alert));
    assert!(name(48).contains("unknown_ca)"));
    assert!(name(49).contains("access_denied)"));
    assert!(name(120).contains("(no_application_protocol)"));
    assert!(name(112).contains("(unrecognized_name)"));
    assert!(name(200).contains("(not assigned)"));
}

#[test]
fn what_is_not_tls_is_quoted() {
    let banner = TlsError::not_tls(b"220 mail.example ESMTP\r\n\x1b[2J\"\\");
    assert!(
        one_line(&banner).contains(r#""220 mail.example ESMTP\r\n\x1b[2J\"\\""#),
        "{banner}"
    );
    assert!(one_line(&TlsError::not_tls(b"SSH-2.0-OpenSSH_9.2")).contains("SSH server"));
    assert!(one_line(&TlsError::not_tls(b"HTTP/1.1 400 Bad Request")).contains("web server"));
    assert!(one_line(&TlsError::not_tls(b"GET / HTTP/1.1")).contains("web client"));
    let echoed = TlsError::not_tls(b"Welcome\n\x16\x03\x01\x05\xb9\x01\x00\xff\xfe\x80\x81\x82");
    assert!(one_line(&echoed).contains("Silence it"));
    assert!(one_line(&TlsError::not_tls(&[0, 0xff, 0x80, 3])).contains(r#""\x00\xff\x80\x03""#));
    match TlsError::not_tls(&[b'x'; 1000]) {
        TlsError::NotTls { first } => assert_eq!(first.len(), 64),
        error => panic!("{error}"),
    }
    assert!(quote(&[b'x'; 100]).ends_with("\"..."));
    assert!(one_line(&TlsError::not_tls(&[0xff; 1000])).len() < 500);
}

#[test]
fn a_failed_stream_reports_its_first_reason_again_and_again() {
    let first = TlsError::BadRecord;
    let again = first.again(2);
    assert!(matches!(again, TlsError::Failed { layer: 2, .. }));
    // Not wrapped twice, whatever layer asks later.
    let still = again.again(1);
    assert!(
        matches!(&still, TlsError::Failed { layer: 2, source } if matches!(**source, TlsError::BadRecord))
    );
    assert!(matches!(still.root(), TlsError::BadRecord));
    assert!(one_line(&still).contains("layer 2"));
}

#[test]
fn errors_pass_through_io_errors_unharmed() {
    let error = std::io::Error::from(TlsError::Truncated { layer: 3 });
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(matches!(
        TlsError::inside(&error),
        Some(TlsError::Truncated { layer: 3 })
    ));
    assert!(matches!(
        TlsError::from_io(error),
        TlsError::Truncated { layer: 3 }
    ));
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let ours = TlsError::from_io(reset);
    assert!(
        matches!(&ours, TlsError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    assert_eq!(
        std::io::Error::from(ours).kind(),
        std::io::ErrorKind::ConnectionReset
    );
    let refused = std::io::Error::from(TlsError::Refused(Refusal::NoCertificate).again(1));
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn damaged_handshakes_are_errors_and_never_panics() {
    // Every byte of each flight is damaged once, in either direction.
    let (client, server) = pair(KeyKind::Ed25519);
    let (client, server) = (
        client.to_builder().groups(&[0x1d]).build().unwrap(),
        server.to_builder().groups(&[0x1d]).build().unwrap(),
    );
    let hello = End::client(&client).output();
    for at in 0..hello.len() {
        let mut end = End::server(&server);
        let mut damaged = hello.clone();
        damaged[at] ^= 0x55;
        end.input(&damaged);
        // Many bytes of a hello may change without harm here; the transcript differs later.
        if let Some(error) = end.failed {
            one_line(&error);
        }
    }
    let mut client_end = End::client(&client);
    let mut server_end = End::server(&server);
    server_end.input(&client_end.output());
    let flight = server_end.output();
    // A record's version is ignored by those who follow RFC 8446 section 5.1: harmless.
    let mut ignored = Vec::new();
    let mut start = 0;
    while let Some([_, _, _, high, low]) = flight.get(start..start + 5) {
        ignored.extend([start + 1, start + 2]);
        start += 5 + (usize::from(*high) << 8 | usize::from(*low));
    }
    for at in (0..flight.len()).filter(|at| !ignored.contains(at)) {
        let mut client_end = End::client(&client);
        let mut server_end = End::server(&server);
        server_end.input(&client_end.output());
        let mut damaged = server_end.output();
        // The next one along where a random signature made this flight shorter.
        let at = at.min(damaged.len() - 1);
        damaged[at] ^= 0x55;
        client_end.input(&damaged);
        match client_end.failed {
            Some(error) => drop(one_line(&error)),
            // A length that claims more than came: the client waits for the rest.
            None => assert!(
                client_end.connection.is_handshaking(),
                "byte {at} does not matter"
            ),
        }
    }
    client_end.input(&flight);
    assert!(client_end.failed.is_none(), "the whole one is fine");
}

#[test]
fn a_foreign_certificate_type_is_refused() {
    let certificate = CertificateDer::from(vec![0x30, 0x00]);
    let error = Shown::certificate(&certificate, &[])
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Refusal::Unusable { .. }));
}

#[test]
fn who_asks_for_a_peer_gets_its_successor_and_nobody_else() {
    let (client, old, other) = (
        identity(KeyKind::Ed25519),
        identity(KeyKind::Ed25519),
        identity(KeyKind::Ed25519),
    );
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let now = UnixTime::now().as_secs();
    let times = |expires| RotationTimes {
        issued: at(0),
        expires: at(expires),
        overlap: at(0),
    };
    let asking = config(&client, AcceptAny)
        .to_builder()
        .server_peer(old.peer_id())
        .build()
        .unwrap();
    let new = old.rotate(KeyKind::Ed25519, times(now + 1000)).unwrap();
    // Alone behind its listener, and as one of two.
    let alone = config(&new, AcceptAny);
    let second = config(&other, AcceptAny)
        .to_builder()
        .more_identities(std::slice::from_ref(&new))
        .build()
        .unwrap();
    let (of_client, _) = handshake(&asking, &alone);
    assert_eq!(of_client.unwrap().id(), new.peer_id());
    let mut asked = Asked::default();
    for (id, answers) in [
        (old.peer_id(), Some(new.peer_id())),
        (new.peer_id(), Some(new.peer_id())),
        (other.peer_id(), Some(other.peer_id())),
        (client.peer_id(), None),
    ] {
        asked.name = Some(format!("{id}.cepa.alt"));
        let shown = second.server(&asked).ok();
        assert_eq!(shown.map(|(_, verdict)| verdict.asks().local_id), answers);
    }
    let late = old.rotate(KeyKind::Ed25519, times(now - 1000)).unwrap();
    for server in [&late, &other] {
        let (of_client, _) = handshake(&asking, &config(server, AcceptAny));
        let error = of_client.unwrap_err();
        assert!(
            matches!(&error, TlsError::Refused(Refusal::WrongPeer { .. })),
            "{error}"
        );
    }
}

#[test]
fn a_client_without_a_certificate_is_let_in_only_where_that_is_said() {
    for version in [Version::Tls12, Version::Tls13] {
        let (a, b) = (identity(KeyKind::P256), identity(KeyKind::P256));
        let with = |config: TlsConfig| config.to_builder().versions(&[version]).build().unwrap();
        let strict = with(config(&b, AcceptAny));
        let open = strict
            .to_builder()
            .optional_client_certificate()
            .build()
            .unwrap();
        let shows = with(config(&a, AcceptAny));
        let nobody = shows
            .to_builder()
            .without_client_certificate()
            .build()
            .unwrap();
        let (of_client, of_server) = handshake(&nobody, &open);
        assert_eq!(of_client.unwrap().id(), b.peer_id());
        let peer = of_server.unwrap();
        assert!(peer.is_anonymous() && peer.certificate().is_none() && peer.chain().is_empty());
        assert_eq!(peer.id(), PeerId::from_spki(&[]));
        // Who shows one is judged as ever, and proves it.
        let (_, of_server) = handshake(&shows, &open);
        let peer = of_server.unwrap();
        assert!(!peer.is_anonymous());
        assert_eq!(peer.id(), a.peer_id());
        let judging = open
            .to_builder()
            .trust(Arc::new(Pinned::one(b.peer_id())))
            .build()
            .unwrap();
        assert!(handshake(&shows, &judging).1.is_err());
        // By default one is required, and the client is told so.
        let (_, of_server) = handshake(&nobody, &strict);
        assert!(of_server.is_err());
    }
    let (client, server) = pair(KeyKind::Ed25519);
    let nobody = client
        .to_builder()
        .without_client_certificate()
        .build()
        .unwrap();
    let (mut client_end, mut server_end) = (End::client(&nobody), End::server(&server));
    carry(&mut client_end, &mut server_end);
    let error = client_end.failed.unwrap();
    // certificate_required, RFC 8446 section 6.2.
    assert!(
        matches!(error, TlsError::RefusedByPeer { alert: 116 }),
        "{error}"
    );
}

// ---- former keys, and whom a policy lists -----------------------------------------------------

/// The successor of an identity, by a statement that counts from day 1 to day 100.
fn successor(of: &Identity) -> Identity {
    let day = |day| UnixTime::since_unix_epoch(Duration::from_secs(day * DAY));
    let times = RotationTimes {
        issued: day(1),
        expires: day(100),
        overlap: day(10),
    };
    of.rotate(KeyKind::Ed25519, times).unwrap()
}

const DAY: u64 = 24 * 60 * 60;

#[test]
fn a_peer_is_whoever_it_was_in_either_role() {
    let (a, other) = (identity(KeyKind::P256), identity(KeyKind::Ed25519));
    let b = successor(&a);
    let c = successor(&b);
    let on_day = |config: TlsConfig, day| {
        config
            .to_builder()
            .clock(Arc::new(Clock(day * DAY)))
            .build()
            .unwrap()
    };
    for (day, former) in [(2, vec![a.peer_id(), b.peer_id()]), (101, vec![])] {
        let (new, judge) = (
            on_day(config(&c, AcceptAny), day),
            config(&other, AcceptAny),
        );
        let judge = on_day(judge, day);
        let (of_client, _) = handshake(&judge, &new);
        let (_, of_server) = handshake(&new, &judge);
        for peer in [of_client.unwrap(), of_server.unwrap()] {
            assert_eq!(peer.clone().former_ids(), former);
            assert_eq!(peer.id(), c.peer_id());
            assert!(peer.is(&c.peer_id()) && !peer.is(&other.peer_id()));
            for old in [a.peer_id(), b.peer_id()] {
                assert_eq!(peer.is(&old), former.contains(&old));
            }
        }
    }
    // Nobody is nobody, not even the one whose id stands where an id is asked for.
    let open = config(&other, AcceptAny)
        .to_builder()
        .optional_client_certificate()
        .build()
        .unwrap();
    let nobody = config(&a, AcceptAny)
        .to_builder()
        .without_client_certificate()
        .build()
        .unwrap();
    let peer = handshake(&nobody, &open).1.unwrap();
    assert!(!peer.is(&peer.id()) && peer.former_ids().is_empty() && !peer.is_named());
    assert_eq!(
        peer.judged_by(&AcceptAny, UnixTime::now()),
        Err(Refusal::NoCertificate)
    );
}

#[test]
fn a_peer_is_named_where_the_policy_lists_it_and_not_where_it_takes_anybody() {
    let (a, other) = (identity(KeyKind::Ed25519), identity(KeyKind::Ed25519));
    let b = successor(&a);
    let at = |config: TlsConfig| {
        config
            .to_builder()
            .clock(Arc::new(Clock(2 * DAY)))
            .build()
            .unwrap()
    };
    let either: [Arc<dyn TrustPolicy>; 2] =
        [Arc::new(AcceptAny), Arc::new(Pinned::one(a.peer_id()))];
    let policies: [(Arc<dyn TrustPolicy>, bool); 4] = [
        (Arc::new(AcceptAny), false),
        (Arc::new(Pinned::one(b.peer_id())), true),
        (Arc::new(Pinned::one(a.peer_id())), true),
        (Arc::new(AnyOf::new(either)), true),
    ];
    let holder = at(config(&b, AcceptAny));
    for (policy, named) in policies {
        let judge = at(TlsConfig::new(&other, policy).unwrap());
        let (of_client, of_holder) = handshake(&judge, &holder);
        assert_eq!(of_client.unwrap().is_named(), named);
        assert!(!of_holder.unwrap().is_named());
        assert_eq!(handshake(&holder, &judge).1.unwrap().is_named(), named);
    }
    // A panic lists nobody, and refuses nobody that was accepted.
    let judge = config(&other, PanicsAboutNames);
    assert!(!handshake(&judge, &holder).0.unwrap().is_named());
}

#[derive(Debug)]
struct PanicsAboutNames;

impl TrustPolicy for PanicsAboutNames {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn names(&self, _: &Presented<'_>) -> bool {
        panic!("who knows")
    }
}

#[test]
fn another_policy_can_be_asked_about_a_peer_that_was_met() {
    let (a, other) = (identity(KeyKind::Ed25519), dated(2000, 2020));
    let b = successor(&a);
    let now = |day| UnixTime::since_unix_epoch(Duration::from_secs(day * DAY));
    let clock = |config: TlsConfig| {
        config
            .to_builder()
            .clock(Arc::new(Clock(15_000 * DAY)))
            .build()
            .unwrap()
    };
    let (of_client, of_server) = handshake(
        &clock(config(&b, AcceptAny)),
        &clock(config(&other, AcceptAny)),
    );
    let (old, new) = (of_client.unwrap(), of_server.unwrap());
    // The role is the peer's, and what was shown is what the handshake saw.
    let shown = new.presented(now(2));
    assert_eq!((shown.role, shown.id), (Side::Client, b.peer_id()));
    assert_eq!(shown.certificate, Some(b.certificate()));
    assert_eq!(old.presented(now(2)).role, Side::Server);
    let pinned = Pinned::one(a.peer_id());
    assert_eq!(new.judged_by(&pinned, now(2)), Ok(true));
    assert_eq!(new.judged_by(&AcceptAny, now(2)), Ok(false));
    assert!(matches!(
        new.judged_by(&pinned, now(101)),
        Err(Refusal::WrongPeer { .. })
    ));
    assert!(matches!(
        old.judged_by(&AcceptAny, UnixTime::now()),
        Err(Refusal::Expired { .. })
    ));
    let listed = Pinned::one(other.peer_id());
    assert_eq!(old.judged_by(&listed, UnixTime::now()), Ok(true));
    assert!(matches!(
        new.judged_by(&Panics { late: false }, now(2)),
        Err(Refusal::PolicyFailed { .. })
    ));
    // It is asked, and nothing is written down.
    let dir = tempfile::tempdir().unwrap();
    let file = KnownPeersFile::new(dir.path().join("peers"));
    let first_use = TrustKnown::at(file.clone(), "x").trusting_new();
    assert_eq!(new.judged_by(&first_use, now(2)), Ok(false));
    assert!(!file.path().exists());
}

/// Both ends hear what is wrong with it, and not that something is.
#[cfg(feature = "aws-lc-rs")]
#[test]
fn a_key_of_a_kind_that_is_not_accepted_is_refused_as_what_it_is() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let params = rcgen::CertificateParams::new(["x.cepa.alt".to_owned()]).unwrap();
    let chain = vec![params.self_signed(&pair).unwrap().der().clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
    let provider = crate::identity::default_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let p521 = Arc::new(CertifiedKey::new(chain, key));
    let own = config(&identity(KeyKind::P256), AcceptAny);
    let judge = config(&identity(KeyKind::P256), AcceptAny);

    let mut client = End::client(&own);
    let mut other = rustls::ClientConfig::clone(&own.client().0);
    other.client_auth_cert_resolver = Arc::new(Shows(Some(Arc::clone(&p521))));
    client.connection = ClientConnection::new(Arc::new(other), own.server_name().unwrap())
        .unwrap()
        .into();
    let mut server = End::server(&judge);
    carry(&mut client, &mut server);
    let refused = server.failed.unwrap();
    // bad_certificate, RFC 8446 section 6.2.
    let reported = client.failed.unwrap();

    let mut server = End::server(&own);
    let mut other = rustls::ServerConfig::clone(&own.server(&Asked::default()).unwrap().0);
    other.cert_resolver = Arc::new(SingleCertAndKey::from(p521));
    server.connection = ServerConnection::new(Arc::new(other)).unwrap().into();
    let mut client = End::client(&judge);
    carry(&mut client, &mut server);
    for (refused, reported) in [
        (refused, reported),
        (client.failed.unwrap(), server.failed.unwrap()),
    ] {
        let text = one_line(&refused);
        assert!(
            text.contains("ECDSA P-521") && text.contains("Ed25519"),
            "{text}"
        );
        assert!(
            matches!(reported, TlsError::RefusedByPeer { alert: 42 }),
            "{reported}"
        );
    }
}
