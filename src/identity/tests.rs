//! Tests of identities and trust: each would fail without the line of code it is about.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use proptest::prelude::*;
use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use cepa_transports::Side;
use cepa_transports::text::{HOSTILE, is_printable};

/// Overwrites a file's mode.
#[cfg(unix)]
fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text:?}");
    text
}

/// The private key inside a PKCS#8 structure: SEQUENCE { INTEGER, SEQUENCE, OCTET STRING, .. }.
fn inner_key(pkcs8: &[u8]) -> Vec<u8> {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (len, head) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        };
        (&der[head..head + len], &der[head + len..])
    }
    let (sequence, _) = element(pkcs8);
    let (_, rest) = element(sequence);
    let (_, rest) = element(rest);
    element(rest).0.to_vec()
}

/// A certificate whose key nobody has: for what is read out of it before anything is proven.
fn certificate_with_rsa_modulus(modulus: &[u8]) -> CertificateDer<'static> {
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
    // SEQUENCE { INTEGER modulus, INTEGER 65537 }
    let integer = |bytes: &[u8]| {
        let mut der = vec![2, 0x82];
        der.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        der.extend(bytes);
        der
    };
    let body = [integer(modulus), vec![2, 3, 1, 0, 1]].concat();
    let mut key = vec![0x30, 0x82];
    key.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    key.extend(body);
    rcgen::CertificateParams::new(["x.cepa.alt".to_owned()])
        .unwrap()
        .self_signed(&Fake(key))
        .unwrap()
        .der()
        .clone()
}

fn modulus(bits: usize) -> Vec<u8> {
    // A leading zero keeps the number positive; the top bit makes it exactly as long as asked.
    let mut bytes = vec![0xff; bits.div_ceil(8)];
    bytes[0] = 0xff >> (bytes.len() * 8 - bits);
    if bytes[0] & 0x80 != 0 {
        bytes.insert(0, 0);
    }
    bytes
}

// ---- PeerId ----------------------------------------------------------------------------------

#[test]
fn a_peer_id_is_the_sha256_of_the_spki() {
    // The key of RFC 8032 section 7.1, test 1, wrapped as RFC 8410 section 4 says; the id was
    // computed apart from this program (`openssl dgst -sha256` and coreutils' base32).
    let spki = data_encoding::HEXLOWER
        .decode(
            b"302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        )
        .unwrap();
    let id = PeerId::from_spki(&spki);
    assert_eq!(id.to_string(), KNOWN_ID);
    assert_eq!(id.as_bytes()[..], Sha256::digest(&spki)[..]);
    assert_eq!(id.short(), KNOWN_ID[..12]);
    assert_eq!(KNOWN_ID.parse::<PeerId>().unwrap(), id);
}

const KNOWN_ID: &str = "a3r73d62fg5wbk2zkv66mhw3blwnwiyrgs7dbz23ivpy4g3zf6uq";

proptest! {
    #[test]
    fn peer_ids_survive_their_text(bytes: [u8; 32]) {
        let id = PeerId::from_bytes(bytes);
        let text = id.to_string();
        prop_assert_eq!(text.len(), 52);
        prop_assert_eq!(&text.to_uppercase(), &BASE32_NOPAD.encode(&bytes));
        prop_assert_eq!(text.parse::<PeerId>().unwrap(), id);
    }

    #[test]
    fn every_text_that_parses_is_the_text_of_its_id(text in "[a-z2-7]{52}|\\PC{0,60}") {
        if let Ok(id) = text.parse::<PeerId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}

#[test]
fn peer_ids_are_parsed_strictly() {
    let good = PeerId::from_bytes([7; 32]).to_string();
    let parse = |text: &str| text.parse::<PeerId>().unwrap_err();
    assert_eq!(parse(""), PeerIdError::Length { found: 0 });
    assert_eq!(parse(&good[1..]), PeerIdError::Length { found: 51 });
    assert_eq!(
        parse(&format!("{good}a")),
        PeerIdError::Length { found: 53 }
    );
    assert_eq!(
        parse(&good.to_uppercase()),
        PeerIdError::Character {
            position: 1,
            character: good.to_uppercase().chars().next().unwrap()
        }
    );
    assert_eq!(
        parse(&format!("{good}=")),
        PeerIdError::Character {
            position: 53,
            character: '='
        }
    );
    assert_eq!(
        parse(&format!(" {good}")),
        PeerIdError::Character {
            position: 1,
            character: ' '
        }
    );
    assert_eq!(
        parse(&format!("{}ä", &good[..51])),
        PeerIdError::Character {
            position: 52,
            character: 'ä'
        }
    );
    // Only a and q have the last four bits of 260 at zero.
    let last = |c: char| format!("{}{c}", &good[..51]).parse::<PeerId>();
    for c in ('a'..='z').chain('2'..='7') {
        match c {
            'a' | 'q' => assert!(last(c).is_ok()),
            _ => assert_eq!(last(c), Err(PeerIdError::Trailing)),
        }
    }
    for error in [parse(""), parse("A"), last('b').unwrap_err()] {
        one_line(&error);
    }
}

// ---- Identity --------------------------------------------------------------------------------

#[test]
fn made_certificates_are_what_other_tls_libraries_take() {
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let identity = Identity::generate(kind).unwrap();
        let (rest, certificate) = X509Certificate::from_der(identity.certificate()).unwrap();
        assert!(rest.is_empty());
        assert_eq!(certificate.version(), x509_parser::x509::X509Version::V3);
        assert_eq!(certificate.subject(), certificate.issuer());
        assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
        assert!(
            certificate
                .key_usage()
                .unwrap()
                .unwrap()
                .value
                .digital_signature()
        );
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth);
        let names = certificate
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value;
        let expected = format!("{}.cepa.alt", identity.peer_id());
        assert!(matches!(names.general_names.as_slice(),
                [x509_parser::extensions::GeneralName::DNSName(name)] if *name == expected));
        // "No expiry" of RFC 5280, and good on a device that believes it is 1970.
        assert_eq!(identity.not_before().as_secs(), 0);
        assert_eq!(identity.not_after().as_secs(), 253_402_300_799);
        assert_eq!(certificate.validity().not_after.to_datetime().year(), 9999);
        // The id is of the key alone, by both parsers.
        assert_eq!(
            identity.peer_id(),
            PeerId::from_spki(certificate.public_key().raw)
        );
        assert_eq!(
            identity.peer_id(),
            PeerId::from_certificate(identity.certificate()).unwrap()
        );
        assert_eq!(
            identity.certificate_sha256()[..],
            Sha256::digest(identity.certificate())[..]
        );
    }
}

#[test]
fn every_identity_is_another() {
    let ids: std::collections::BTreeSet<_> = (0..32)
        .map(|_| Identity::generate(KeyKind::Ed25519).unwrap().peer_id())
        .collect();
    assert_eq!(ids.len(), 32);
}

#[test]
fn pem_keeps_an_identity() {
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let identity = Identity::generate(kind).unwrap();
        let pem = identity.to_pem();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(pem.lines().all(|line| line.len() <= 64));
        let back = Identity::from_pem(&pem).unwrap();
        assert_eq!(back.peer_id(), identity.peer_id());
        assert_eq!(back.certificate(), identity.certificate());
        assert_eq!(back.to_pem(), pem);
    }
}

#[test]
fn new_ed25519_keys_are_written_as_every_library_reads_them() {
    // PKCS#8 version 1: the 32 bytes and nothing behind them.
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let key = identity.private_key().secret_der();
    assert_eq!(key.len(), 48);
    assert_eq!(key[..5], [0x30, 0x2e, 2, 1, 0]);
}

#[test]
fn a_renewed_certificate_keeps_the_id() {
    let identity = Identity::generate(KeyKind::P256).unwrap();
    let again = Identity::from_key(identity.private_key().clone_key()).unwrap();
    assert_eq!(again.peer_id(), identity.peer_id());
    assert_ne!(again.certificate(), identity.certificate());
}

#[test]
fn a_key_alone_gets_a_certificate() {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let pem = identity.to_pem();
    let key_only = &pem[..pem.find("-----BEGIN CERTIFICATE").unwrap()];
    let back = Identity::from_pem(key_only).unwrap();
    assert_eq!(back.peer_id(), identity.peer_id());
    // Ed25519 signatures are not random, so the fingerprint stays as well.
    assert_eq!(back.certificate(), identity.certificate());
}

#[test]
fn keys_of_other_tools_are_taken() {
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
    ]
    .into_iter()
    .chain(rsa_algorithm())
    {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let (certificate, key) = (certificate.pem(), pair.serialize_pem());
        let one_file = Identity::from_pem(&format!("{certificate}{key}")).unwrap();
        let two_files = Identity::from_pem_pair(&certificate, &key).unwrap();
        assert_eq!(one_file.peer_id(), two_files.peer_id());
        assert_eq!(
            one_file.peer_id(),
            PeerId::from_certificate(one_file.certificate()).unwrap()
        );
        let back = Identity::from_pem(&one_file.to_pem()).unwrap();
        assert_eq!(back.peer_id(), one_file.peer_id());
    }
}

/// Only aws-lc-rs makes RSA keys.
fn rsa_algorithm() -> Option<&'static rcgen::SignatureAlgorithm> {
    cfg!(feature = "aws-lc-rs").then_some(&rcgen::PKCS_RSA_SHA256)
}

#[test]
fn older_key_formats_are_taken_and_kept() {
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let sec1 = PrivateSec1KeyDer::from(inner_key(ec.serialized_der()));
    let mut cases = vec![(
        params.self_signed(&ec).unwrap(),
        PrivateKeyDer::from(sec1),
        "EC PRIVATE KEY",
    )];
    if let Some(algorithm) = rsa_algorithm() {
        let rsa = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let pkcs1 = PrivatePkcs1KeyDer::from(inner_key(rsa.serialized_der()));
        cases.push((
            params.self_signed(&rsa).unwrap(),
            pkcs1.into(),
            "RSA PRIVATE KEY",
        ));
    }
    for (certificate, key, label) in cases {
        let identity = Identity::from_der(vec![certificate.der().clone()], key).unwrap();
        let pem = identity.to_pem();
        assert!(pem.contains(label));
        assert_eq!(
            Identity::from_pem(&pem).unwrap().peer_id(),
            identity.peer_id()
        );
    }
}

#[test]
fn key_and_certificate_must_belong_together() {
    let (a, b) = (
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Identity::generate(KeyKind::P256).unwrap(),
    );
    let error = Identity::from_der(a.chain().to_vec(), b.private_key().clone_key()).unwrap_err();
    assert!(matches!(
        error,
        IdentityError::Mismatch { certificate, key } if certificate == a.peer_id() && key == b.peer_id()
    ));
    // Two of one kind, too.
    let c = Identity::generate(KeyKind::Ed25519).unwrap();
    let error = Identity::from_der(a.chain().to_vec(), c.private_key().clone_key()).unwrap_err();
    assert!(matches!(error, IdentityError::Mismatch { .. }), "{error}");
}

#[test]
fn bad_pem_is_an_error_that_helps() {
    let good = Identity::generate(KeyKind::Ed25519)
        .unwrap()
        .to_pem()
        .to_string();
    let other = Identity::generate(KeyKind::Ed25519)
        .unwrap()
        .to_pem()
        .to_string();
    let certificate = &good[good.find("-----BEGIN CERTIFICATE").unwrap()..];
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n-----END RSA PRIVATE KEY-----\n";
    let junk = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    let fail = |pem: &str| Identity::from_pem(pem).unwrap_err();
    let cases = [
        (fail(""), "no private key"),
        (fail("hello"), "no private key"),
        (fail(certificate), "no private key"),
        (fail(&format!("{good}{other}")), "2 private keys"),
        (fail(encrypted), "give its passphrase"),
        (fail(legacy), "openssl pkcs8"),
        (fail(junk), "can't be used"),
        (fail(&format!("{junk}{certificate}")), "can't be used"),
        (fail(&good[..good.len() - 40]), "damaged PEM"),
        (fail(&good.replacen('M', "!", 1)), "damaged PEM"),
        (
            Identity::from_pem_pair(&good[..0], &good).unwrap_err(),
            "no certificate",
        ),
        (
            Identity::from_pem_pair(certificate, &other).unwrap_err(),
            "does not match this private key",
        ),
    ];
    for (error, expected) in cases {
        let text = one_line(&error);
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_pem_is_never_another_identity(at in any::<prop::sample::Index>(), byte: u8) {
        let identity = fixed();
        let mut pem = identity.to_pem().as_bytes().to_vec();
        let at = at.index(pem.len());
        pem[at] = byte;
        if let Ok(read) = Identity::from_pem(&String::from_utf8_lossy(&pem)) {
            prop_assert_eq!(read.peer_id(), identity.peer_id());
        }
    }
}

fn fixed() -> &'static Identity {
    static FIXED: std::sync::OnceLock<Identity> = std::sync::OnceLock::new();
    FIXED.get_or_init(|| Identity::generate(KeyKind::Ed25519).unwrap())
}

#[test]
fn an_identity_never_shows_its_key() {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let shown = format!("{identity:?}");
    assert_eq!(
        shown,
        format!("Identity {{ peer_id: PeerId({}), .. }}", identity.peer_id())
    );
}

#[test]
fn rsa_keys_of_other_sizes_are_refused() {
    for (bits, fine) in [
        (512, false),
        (1024, false),
        (2047, false),
        (2048, true),
        (4096, true),
        (4097, false),
        (16_384, false),
    ] {
        match Facts::read(&certificate_with_rsa_modulus(&modulus(bits))) {
            Ok(_) => assert!(fine, "{bits} bits were taken"),
            Err(error) => {
                assert!(!fine, "{bits} bits: {error}");
                assert_eq!(error, CertificateError::RsaSize { bits });
                one_line(&error);
            }
        }
    }
}

#[test]
fn an_rsa_key_whose_size_can_not_be_known_is_refused() {
    // A key of 16,384 bits behind another tag than that of a SEQUENCE, as a raw public key:
    // SEQUENCE { SEQUENCE { OID rsaEncryption, NULL }, BIT STRING }.
    let of = |tag: u8, length: usize, body: &[u8]| {
        let length = u16::try_from(length).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], body].concat()
    };
    let algorithm = [
        0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0,
    ];
    let spki = |tag: u8| {
        let modulus = modulus(16_384);
        let integers = [of(2, modulus.len(), &modulus), vec![2, 3, 1, 0, 1]].concat();
        let key = [vec![0], of(tag, integers.len(), &integers)].concat();
        let both = [algorithm.to_vec(), of(3, key.len(), &key)].concat();
        of(0x30, both.len(), &both)
    };
    let size = CertificateError::RsaSize { bits: 16_384 };
    assert_eq!(Facts::of_key(&spki(0x30)).unwrap_err(), size);
    let error = Facts::of_key(&spki(0x31)).unwrap_err();
    assert!(
        matches!(error, CertificateError::MalformedKey { .. }),
        "{error:?}"
    );
    one_line(&error);
}

#[test]
fn what_is_no_certificate_is_an_error() {
    let good = Identity::generate(KeyKind::Ed25519)
        .unwrap()
        .certificate()
        .clone();
    let longer = CertificateDer::from([good.as_ref(), b"x"].concat());
    for bad in [
        CertificateDer::from(vec![]),
        CertificateDer::from(vec![0x30, 0]),
        longer,
    ] {
        assert!(matches!(
            PeerId::from_certificate(&bad),
            Err(CertificateError::Malformed { .. })
        ));
        one_line(&Facts::read(&bad).unwrap_err());
    }
    for cut in 0..good.len() {
        assert!(Facts::read(&CertificateDer::from(&good[..cut])).is_err());
    }
}

// ---- files -----------------------------------------------------------------------------------

#[test]
fn files_keep_an_identity_and_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new folder/id");
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    identity.save(&path).unwrap();
    assert_eq!(Identity::load(&path).unwrap().peer_id(), identity.peer_id());
    #[cfg(unix)]
    {
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }
    let names: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["id"], "drafts are removed");
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id");
    fs::write(&path, "precious").unwrap();
    let error = Identity::generate(KeyKind::Ed25519)
        .unwrap()
        .save(&path)
        .unwrap_err();
    assert!(matches!(error.problem(), IdentityError::Exists), "{error}");
    assert!(one_line(&error).contains("never overwritten"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_dangling_symbolic_link_is_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (folder.path().join("id"), folder.path().join("elsewhere"));
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let error = Identity::generate(KeyKind::Ed25519)
        .unwrap()
        .save(&path)
        .unwrap_err();
    assert!(matches!(error.problem(), IdentityError::Exists), "{error}");
    assert!(!elsewhere.exists());
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused_with_the_mending_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my id");
    Identity::generate(KeyKind::Ed25519)
        .unwrap()
        .save(&path)
        .unwrap();
    for bad in [0o644, 0o640, 0o604, 0o660, 0o602, 0o610, 0o601] {
        chmod(&path, bad);
        let error = Identity::load(&path).unwrap_err();
        assert!(matches!(error.problem(), IdentityError::Permissions { mode, .. } if *mode == bad));
        let text = one_line(&error);
        assert!(
            text.ends_with(&format!("run `chmod 600 '{}'`", path.display())),
            "{text}"
        );
    }
    for good in [0o600, 0o400] {
        chmod(&path, good);
        Identity::load(&path).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn through_a_symbolic_link_the_real_file_s_mode_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    Identity::generate(KeyKind::Ed25519)
        .unwrap()
        .save(&real)
        .unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    Identity::load(&link).unwrap();
    chmod(&real, 0o644);
    let error = Identity::load(&link).unwrap_err();
    assert!(
        matches!(error.problem(), IdentityError::Permissions { .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn of_two_files_only_the_key_must_be_private() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("crt"), folder.path().join("key"));
    let identity = Identity::generate(KeyKind::P256).unwrap();
    let pem = identity.to_pem();
    let split = pem.find("-----BEGIN CERTIFICATE").unwrap();
    fs::write(&key, &pem[..split]).unwrap();
    fs::write(&certificate, &pem[split..]).unwrap();
    chmod(&certificate, 0o644);
    chmod(&key, 0o644);
    let error = Identity::load_pair(&certificate, &key).unwrap_err();
    assert!(
        matches!(error.problem(), IdentityError::Permissions { .. }),
        "{error}"
    );
    chmod(&key, 0o600);
    let read = Identity::load_pair(&certificate, &key).unwrap();
    assert_eq!(read.certificate(), identity.certificate());
    // Errors name the file they are about.
    let error = Identity::load_pair(&key, &key).unwrap_err();
    assert!(matches!(error.problem(), IdentityError::NoCertificate));
    fs::write(&certificate, "nothing").unwrap();
    let error = one_line(&Identity::load_pair(&certificate, &key).unwrap_err());
    assert!(
        error.starts_with(&certificate.display().to_string()),
        "{error}"
    );
}

#[test]
fn what_is_no_identity_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert!(matches!(
        Identity::load(&missing).unwrap_err().problem(),
        IdentityError::Read(error) if error.kind() == std::io::ErrorKind::NotFound
    ));
    let error = Identity::load(folder.path()).unwrap_err();
    assert!(
        matches!(error.problem(), IdentityError::NotAnIdentityFile { .. }),
        "{error}"
    );
    let huge = folder.path().join("huge");
    fs::write(&huge, vec![b'x'; (1 << 20) + 1]).unwrap();
    #[cfg(unix)]
    chmod(&huge, 0o600);
    let error = Identity::load(&huge).unwrap_err();
    assert!(
        matches!(error.problem(), IdentityError::NotAnIdentityFile { .. }),
        "{error}"
    );
    let error = fixed().save(huge.join("below a file")).unwrap_err();
    assert!(
        matches!(error.problem(), IdentityError::Write(_)),
        "{error}"
    );
    assert!(one_line(&error).contains("below a file"));
}

#[test]
fn at_first_use_by_many_all_get_one_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = Arc::new(folder.path().join("config/identity"));
    let start = Arc::new(std::sync::Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (path, start) = (Arc::clone(&path), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                Identity::load_or_create(&*path, KeyKind::Ed25519)
                    .unwrap()
                    .peer_id()
            })
        })
        .collect();
    let ids: std::collections::BTreeSet<_> =
        threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(
        ids.into_iter().next(),
        Some(Identity::load(&*path).unwrap().peer_id())
    );
}

#[test]
fn a_damaged_identity_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id");
    fs::write(&path, "damaged").unwrap();
    #[cfg(unix)]
    chmod(&path, 0o600);
    assert!(Identity::load_or_create(&path, KeyKind::Ed25519).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"damaged");
}

// ---- trust -----------------------------------------------------------------------------------

fn ask(policy: &dyn TrustPolicy, identity: &Identity) -> Result<(), Refusal> {
    policy.decide(&Presented::new(
        identity.peer_id(),
        Some(identity.certificate()),
        &[],
        (identity.not_before(), identity.not_after()),
        UnixTime::now(),
        Side::Server,
    ))
}

#[test]
fn pinned_trusts_its_list_alone() {
    let (a, b, c) = (
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Identity::generate(KeyKind::P256).unwrap(),
    );
    let both = Pinned::new([a.peer_id(), c.peer_id()]);
    assert_eq!(ask(&both, &a), Ok(()));
    assert_eq!(ask(&both, &c), Ok(()));
    let refusal = ask(&both, &b).unwrap_err();
    assert!(matches!(
        &refusal,
        Refusal::WrongPeer { expected, presented } if expected.len() == 2 && *presented == b.peer_id()
    ));
    let text = one_line(&refusal);
    for id in [a.peer_id(), b.peer_id(), c.peer_id()] {
        assert!(text.contains(&id.to_string()));
    }
    // Nobody was expected: that is not the wrong peer, it is an unknown one.
    let refusal = ask(&Pinned::default(), &a).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::Unknown {
            presented: a.peer_id()
        }
    );
    assert!(one_line(&refusal).contains(&format!("unknown peer {}", a.peer_id())));
    // Which option that is depends on the command: it is the tool's to say.
    assert!(!one_line(&refusal).contains("--"));
}

#[test]
fn accept_any_accepts_any() {
    assert_eq!(ask(&AcceptAny, fixed()), Ok(()));
}

#[test]
fn refusals_are_one_bounded_line() {
    let presented = fixed().peer_id();
    let hostile: String = HOSTILE.iter().map(|(_, c)| c).collect();
    let long = format!("bad\nnews{hostile}").repeat(1000);
    let many: Vec<_> = (0..200).map(|n| PeerId::from_bytes([n; 32])).collect();
    let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let refusals = [
        Refusal::WrongPeer {
            expected: many,
            presented,
        },
        Refusal::Unknown { presented },
        Refusal::Expired {
            presented,
            not_after: at(1_000_000_000),
        },
        Refusal::NotYetValid {
            presented,
            not_before: at(u64::MAX),
            now: at(0),
        },
        Refusal::NotAuthorised {
            presented,
            reason: long.clone(),
        },
        Refusal::NoCertificate,
        Refusal::Unusable {
            problem: CertificateError::RsaSize { bits: 1 },
        },
        Refusal::PolicyFailed {
            presented,
            reason: long.clone(),
        },
        Refusal::Other {
            presented,
            reason: long,
        },
    ];
    for refusal in &refusals {
        let text = one_line(refusal);
        assert!(text.len() < 600 && text.chars().all(is_printable), "{text}");
    }
    assert!(
        refusals[2]
            .to_string()
            .contains("expired on 2001-09-09 01:46:40 UTC")
    );
}

#[test]
fn pem_sections_of_other_kinds_are_passed_over() {
    let pem = fixed().to_pem();
    let with_parameters = format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
        *pem
    );
    assert_eq!(
        Identity::from_pem(&with_parameters).unwrap().peer_id(),
        fixed().peer_id()
    );
    assert!(PrivatePkcs8KeyDer::from_pem_slice(with_parameters.as_bytes()).is_ok());
}

// ---- keys at rest ------------------------------------------------------------------------------

/// A random source that has nothing to give: it says so, or keeps quiet about it.
#[derive(Debug)]
struct Empty {
    honest: bool,
}

impl rustls::crypto::SecureRandom for Empty {
    fn fill(&self, _: &mut [u8]) -> Result<(), rustls::crypto::GetRandomFailed> {
        if self.honest {
            Err(rustls::crypto::GetRandomFailed)
        } else {
            Ok(())
        }
    }
}

#[test]
fn a_failing_random_source_makes_no_key() {
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        for honest in [true, false] {
            let error = Identity::generate_from(kind, &Empty { honest }).unwrap_err();
            assert!(matches!(error, IdentityError::Generate { .. }), "{error}");
            assert!(one_line(&error).contains("random source"));
        }
    }
    let error = fixed().to_encrypted_pem_with(b"x", &Empty { honest: true });
    assert!(matches!(error, Err(IdentityError::Generate { .. })));
}

#[test]
fn a_failing_random_source_makes_no_successor_and_no_invitation() {
    let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let times = RotationTimes {
        issued: at(1),
        expires: at(3),
        overlap: at(2),
    };
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        for honest in [true, false] {
            let error = fixed().rotate_from(kind, times, &Empty { honest });
            assert!(matches!(error, Err(IdentityError::Generate { .. })));
        }
    }
    let none = Empty { honest: true };
    let error = Invitation::new_from(fixed().peer_id(), "tcp:[::1]:1", at(9), &none);
    assert!(matches!(error, Err(IdentityError::Generate { .. })));
}

#[test]
fn a_key_under_a_passphrase_comes_back_with_it_alone() {
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let identity = Identity::generate(kind).unwrap();
        let pem = identity.to_encrypted_pem("pässword".as_bytes()).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        assert!(!pem.contains("BEGIN PRIVATE KEY"));
        let again = Identity::from_encrypted_pem(&pem, "pässword".as_bytes()).unwrap();
        assert_eq!(again.peer_id(), identity.peer_id());
        assert_eq!(again.certificate(), identity.certificate());
        assert_eq!(*again.to_pem(), *identity.to_pem());
        assert!(matches!(
            Identity::from_encrypted_pem(&pem, b"password"),
            Err(IdentityError::Passphrase)
        ));
        assert!(matches!(
            Identity::from_pem(&pem),
            Err(IdentityError::Encrypted)
        ));
        assert_ne!(
            identity.to_encrypted_pem(b"x").unwrap(),
            identity.to_encrypted_pem(b"x").unwrap()
        );
    }
    assert!(matches!(
        fixed().to_encrypted_pem(b""),
        Err(IdentityError::EmptyPassphrase)
    ));
}

#[test]
fn what_is_no_key_under_a_passphrase_is_an_error() {
    let pem = fixed().to_encrypted_pem(b"x").unwrap();
    let open = fixed().to_pem();
    let with = |pem: &str| Identity::from_encrypted_pem(pem, b"x").unwrap_err();
    assert!(matches!(with(&open), IdentityError::Pem { .. }));
    assert!(matches!(with(""), IdentityError::NoKey));
    assert!(matches!(
        with(&format!("{pem}{}", *open)),
        IdentityError::SeveralKeys { count: 2 }
    ));
    assert!(matches!(
        with(&pem.replace("-----END ENC", "-----END XNC")),
        IdentityError::Pem { .. }
    ));
    let line = pem.lines().nth(1).unwrap();
    assert!(matches!(
        with(&pem.replace(line, "!")),
        IdentityError::Pem { .. }
    ));
    assert!(matches!(
        with(&pem.replace(line, "AAAA")),
        IdentityError::Pem { .. }
    ));
}

#[test]
fn a_file_can_not_ask_for_all_memory_there_is() {
    // SEQUENCE { PBES2 { scrypt { salt, N = 2^40, r = 8, p = 1 }, AES-256-CBC }, 16 bytes }
    let scrypt = b"\x30\x14\x04\x04salt\x02\x06\x01\x00\x00\x00\x00\x00\x02\x01\x08\x02\x01\x01";
    let wrap = |tag: u8, parts: &[&[u8]]| {
        let body = parts.concat();
        [&[tag, u8::try_from(body.len()).unwrap()][..], &body].concat()
    };
    let kdf = wrap(
        0x30,
        &[b"\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x04\x0b", scrypt],
    );
    let aes = wrap(
        0x30,
        &[
            b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a",
            &wrap(4, &[&[0; 16]]),
        ],
    );
    let pbes2 = wrap(
        0x30,
        &[
            b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d",
            &wrap(0x30, &[&kdf, &aes]),
        ],
    );
    let der = wrap(0x30, &[&pbes2, &wrap(4, &[&[0; 16]])]);
    let base64 = data_encoding::BASE64.encode(&der);
    let pem = format!(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{base64}\n-----END ENCRYPTED PRIVATE KEY-----\n"
    );
    let error = Identity::from_encrypted_pem(&pem, b"x").unwrap_err();
    assert!(one_line(&error).contains("memory"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_file_under_a_passphrase_is_as_private_as_any() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id");
    fixed().save_encrypted(&path, b"x").unwrap();
    assert_eq!(
        Identity::load_encrypted(&path, b"x").unwrap().peer_id(),
        fixed().peer_id()
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o600);
    let error = fixed().save_encrypted(&path, b"x").unwrap_err();
    assert!(matches!(error.problem(), IdentityError::Exists));
    chmod(&path, 0o640);
    let error = Identity::load_encrypted(&path, b"x").unwrap_err();
    assert!(matches!(error.problem(), IdentityError::Permissions { .. }));
}

// ---- whose files -----------------------------------------------------------------------------

/// Gives a file or folder to another user, where we may: as root. Elsewhere the table of `files.rs` is the test.
#[cfg(unix)]
fn given_away(path: &Path, owner: u32) -> bool {
    std::os::unix::fs::chown(path, Some(owner), None).is_ok()
}

#[cfg(unix)]
#[test]
fn a_key_of_another_user_is_refused_and_so_is_one_in_a_folder_of_another_user() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("id"), folder.path().join("link"));
    fixed().save(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    if !given_away(&path, 12345) {
        return;
    }
    for path in [&path, &link] {
        let error = Identity::load(path).unwrap_err();
        assert!(
            matches!(error.problem(), IdentityError::NotOurs { owner: 12345, .. }),
            "{error}"
        );
        assert!(one_line(&error).contains("user 12345"), "{error}");
    }
    assert!(Identity::load_encrypted(&path, b"x").is_err());
    assert!(Identity::load_pair(&path, &path).is_err());
    given_away(&path, 0);
    Identity::load(&path).unwrap();
    // Of its folder, and of the folder that a link leads to.
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let (path, link) = (inner.join("id"), folder.path().join("other link"));
    fixed().save(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    given_away(&inner, 12345);
    for path in [&path, &link] {
        let error = Identity::load(path).unwrap_err();
        assert!(
            matches!(error.problem(), IdentityError::Folder { .. }),
            "{error}"
        );
        let text = one_line(&error);
        assert!(
            text.contains(&inner.display().to_string()) && text.contains("user 12345"),
            "{text}"
        );
    }
    assert!(fixed().save(inner.join("new")).is_err());
    assert!(!inner.join("new").exists());
    given_away(&inner, 0);
    Identity::load(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_key_where_everybody_can_put_another_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id");
    fixed().save(&path).unwrap();
    chmod(folder.path(), 0o777);
    let error = Identity::load(&path).unwrap_err();
    assert!(
        matches!(error.problem(), IdentityError::Folder { .. }),
        "{error}"
    );
    assert!(one_line(&error).contains("chmod o-w"), "{error}");
    // Nor where everybody can put another folder in the place of its own.
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    chmod(&inner, 0o700);
    let below = inner.join("id");
    chmod(folder.path(), 0o700);
    fixed().save(&below).unwrap();
    chmod(folder.path(), 0o777);
    let error = Identity::load(&below).unwrap_err();
    assert!(
        matches!(error.problem(), IdentityError::Folder { .. }),
        "{error}"
    );
    let parent = folder.path().canonicalize().unwrap();
    let advice = format!("chmod o-w {}", parent.display());
    assert!(one_line(&error).contains(&advice), "{error}");
    // Only its owner takes a file out of a sticky folder.
    for mode in [0o1777, 0o775, 0o755, 0o700] {
        chmod(folder.path(), mode);
        Identity::load(&path).unwrap();
        Identity::load(&below).unwrap();
    }
}

/// What has a name and is no file may keep whoever reads it waiting for ever.
#[cfg(unix)]
#[test]
fn a_pipe_with_a_name_is_no_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(Identity::load(&path).map(drop)));
    let loaded = receiver.recv_timeout(std::time::Duration::from_secs(60));
    let error = loaded.expect("it waits").unwrap_err();
    assert!(one_line(&error).contains("no regular file"), "{error}");
}
