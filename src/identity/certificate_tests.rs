//! Certificates and keys that are not accepted, each refused as what it is.

use rustls_pki_types::CertificateDer;

use super::certificate::{CertificateError, Facts};
use super::{Identity, KeyKind, PeerId};

/// One element of DER.
fn der(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..0x80) => bytes.push(short),
        Ok(long) => bytes.extend([0x81, long]),
        Err(_) => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        }
    }
    [bytes, content].concat()
}

/// The elements inside an element, each with its own head.
fn inside(der: &[u8]) -> Vec<&[u8]> {
    fn split(der: &[u8]) -> (usize, usize) {
        match der[1] {
            0x81 => (3, usize::from(der[2])),
            short if short < 0x80 => (2, usize::from(short)),
            _ => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        }
    }
    let (head, length) = split(der);
    let mut rest = &der[head..head + length];
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (head, length) = split(rest);
        let (element, behind) = rest.split_at(head + length);
        elements.push(element);
        rest = behind;
    }
    elements
}

/// A certificate with another key in it; its signature is about the one before, and nobody looks at it here.
fn certificate_of(spki: &[u8]) -> CertificateDer<'static> {
    let good = Identity::generate(KeyKind::P256).unwrap();
    let parts = inside(good.certificate());
    let mut to_be_signed = inside(parts[0]);
    let place = to_be_signed
        .iter()
        .position(|part| *part == good.public_key())
        .unwrap();
    to_be_signed[place] = spki;
    let signed = der(0x30, &to_be_signed);
    der(0x30, &[&signed, parts[1], parts[2]]).into()
}

/// A key of an algorithm with these parameters. What stands in it is no key, and not looked at.
fn spki(algorithm: &[u8], parameters: &[u8]) -> Vec<u8> {
    let algorithm = der(0x30, &[&der(6, &[algorithm]), parameters]);
    let key = [&[0, 4][..], &[7; 64]].concat();
    der(0x30, &[&algorithm, &der(3, &[&key])])
}

const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";

/// As a certificate and as a raw key.
fn both(spki: &[u8]) -> [Result<PeerId, CertificateError>; 2] {
    [
        Facts::read(&certificate_of(spki)).map(|facts| facts.id),
        Facts::of_key(spki).map(|facts| facts.id),
    ]
}

fn one_line(error: &CertificateError) -> String {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    text
}

#[test]
fn only_the_documented_kinds_of_keys_are_accepted() {
    let curve = |oid: &[u8]| der(6, &[oid]);
    let p521 = curve(b"\x2b\x81\x04\x00\x23");
    for (algorithm, parameters, kind) in [
        (EC, p521, "ECDSA P-521"),
        (EC, curve(b"\x2b\x81\x04\x00\x0a"), "ECDSA secp256k1"),
        (
            EC,
            curve(b"\x2b\x24\x03\x03\x02\x08\x01\x01\x07"),
            "EC on the curve 1.3.36.3.3.2.8.1.1.7",
        ),
        (b"\x2b\x65\x71", vec![], "Ed448"),
        (b"\x2b\x65\x6e", vec![], "X25519"),
        (b"\x2a\x86\x48\xce\x38\x04\x01", vec![], "DSA"),
        (
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a",
            vec![],
            "RSASSA-PSS",
        ),
        (b"\x2a\x03\x04", vec![], "the algorithm 1.2.3.4"),
    ] {
        for result in both(&spki(algorithm, &parameters)) {
            let error = result.unwrap_err();
            assert_eq!(error, CertificateError::KeyKind { kind: kind.into() });
            let text = one_line(&error);
            assert!(text.contains(kind) && text.contains("P-384"), "{text}");
        }
    }
    let p256 = spki(EC, &curve(b"\x2a\x86\x48\xce\x3d\x03\x01\x07"));
    let p384 = spki(EC, &curve(b"\x2b\x81\x04\x00\x22"));
    for good in [p256, p384, spki(b"\x2b\x65\x70", &[])] {
        for result in both(&good) {
            assert_eq!(result, Ok(PeerId::from_spki(&good)));
        }
    }
}

#[test]
fn a_curve_that_is_spelled_out_is_refused_as_such() {
    // ECParameters (SEC 1, C.2) of P-256 in outline: version, field, curve, base point, order.
    let field = der(
        0x30,
        &[
            &der(6, &[b"\x2a\x86\x48\xce\x3d\x01\x01"]),
            &der(2, &[&[7; 32]]),
        ],
    );
    let curve = der(0x30, &[&der(4, &[&[7; 32]]), &der(4, &[&[7; 32]])]);
    let explicit = der(
        0x30,
        &[
            &der(2, &[&[1]]),
            &field,
            &curve,
            &der(4, &[&[4; 65]]),
            &der(2, &[&[7; 32]]),
        ],
    );
    for result in both(&spki(EC, &explicit)) {
        let error = result.unwrap_err();
        assert_eq!(error, CertificateError::ExplicitCurve);
        assert!(one_line(&error).contains("named curve"), "{error}");
    }
    // And none at all, or one that is left to others to know.
    for parameters in [vec![], der(5, &[])] {
        for result in both(&spki(EC, &parameters)) {
            let malformed = matches!(result, Err(CertificateError::MalformedKey { .. }));
            assert!(malformed, "{parameters:02x?}: {result:?}");
        }
    }
}

#[test]
fn a_critical_extension_that_is_not_known_is_named() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let with = |extensions: &[(&[u64], bool)]| {
        let mut params = rcgen::CertificateParams::new(["x.cepa.alt".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.custom_extensions = extensions
            .iter()
            .map(|(oid, critical)| {
                let content = der(4, &[b"x"]);
                let mut one = rcgen::CustomExtension::from_oid_content(oid, content);
                one.set_criticality(*critical);
                one
            })
            .collect();
        params.self_signed(&pair).unwrap().der().clone()
    };
    let known: &[u64] = &[2, 5, 29, 32];
    for (extensions, named) in [
        (&[(&[1, 2, 3, 4][..], true)][..], "1.2.3.4"),
        (&[(&[1, 2, 3, 4], false), (&[1, 2, 3, 5], true)], "1.2.3.5"),
        // Certificate policies are known to many, and not here.
        (&[(known, true)], "2.5.29.32"),
    ] {
        let certificate = with(extensions);
        let expected = CertificateError::CriticalExtension { oid: named.into() };
        let error = Facts::read(&certificate).unwrap_err();
        assert_eq!(error, expected);
        assert!(one_line(&error).contains(named), "{error}");
        assert_eq!(PeerId::from_certificate(&certificate), Err(expected));
    }
    assert!(Facts::read(&with(&[(&[1, 2, 3, 4], false), (known, false)])).is_ok());
}

/// Ours are no exception.
#[cfg(feature = "aws-lc-rs")]
#[test]
fn an_identity_of_another_kind_is_refused_when_it_is_loaded() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let certificate = rcgen::CertificateParams::new(["x.cepa.alt".to_owned()])
        .unwrap()
        .self_signed(&pair)
        .unwrap();
    let (certificate, key) = (certificate.pem(), pair.serialize_pem());
    for error in [
        Identity::from_pem_pair(&certificate, &key).unwrap_err(),
        Identity::from_pem(&key).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("P-521") && text.contains("Ed25519"), "{text}");
    }
}
