//! The text form of an identity: a PKCS#8 key and the certificates that go with it, in one PEM text.
//!
//! Users also bring what other tools made: key and certificate in two files, `EC PRIVATE KEY`
//! (SEC1), `RSA PRIVATE KEY` (PKCS#1), a key alone. All are taken; what we write is always PKCS#8
//! first, certificates after it. Sections of other kinds (parameters, requests) are passed over.

use std::io::Write as _;

use data_encoding::BASE64;
use rustls_pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use zeroize::{Zeroize, Zeroizing};

use super::error::IdentityError;
use super::key::Identity;

/// What a PEM text holds that matters here.
struct Sections {
    keys: Vec<PrivateKeyDer<'static>>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Drop for Sections {
    fn drop(&mut self) {
        for key in &mut self.keys {
            key.zeroize();
        }
    }
}

impl Identity {
    /// An identity from PEM text: a private key, and its certificate (with its chain after it, if
    /// there is one). For a key alone a certificate is made.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::from_pem_bytes(pem.as_bytes())
    }

    /// An identity from two PEM texts, as other tools keep them: the certificates, and the key.
    ///
    /// A key in the first and certificates in the second are ignored.
    pub fn from_pem_pair(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        Self::from_pem_bytes_pair(certificate.as_bytes(), key.as_bytes())
    }

    pub(super) fn from_pem_bytes(pem: &[u8]) -> Result<Self, IdentityError> {
        let mut sections = read(pem)?;
        let key = only_key(&mut sections, pem)?;
        let chain = std::mem::take(&mut sections.certificates);
        if chain.is_empty() {
            Self::from_key(key)
        } else {
            Self::from_der(chain, key)
        }
    }

    pub(super) fn from_pem_bytes_pair(
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, IdentityError> {
        let chain = std::mem::take(&mut read(certificate)?.certificates);
        let key = only_key(&mut read(key)?, key)?;
        if chain.is_empty() {
            let mut key = key;
            key.zeroize();
            return Err(IdentityError::NoCertificate);
        }
        Self::from_der(chain, key)
    }

    /// The identity as PEM text: the private key, then the certificates. Overwritten on drop; see
    /// that no copy of it is left lying around.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let (label, der) = match self.private_key() {
            PrivateKeyDer::Pkcs1(key) => ("RSA PRIVATE KEY", key.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(key) => ("EC PRIVATE KEY", key.secret_sec1_der()),
            key => ("PRIVATE KEY", key.secret_der()),
        };
        let chain: usize = self.chain().iter().map(|der| armoured_len(der.len())).sum();
        // Sized in advance: a text that grows leaves copies of the key behind in freed memory.
        let mut text = Zeroizing::new(Vec::with_capacity(armoured_len(der.len()) + chain));
        armour(&mut text, label, der);
        for certificate in self.chain() {
            armour(&mut text, "CERTIFICATE", certificate);
        }
        // Base64 and labels are ASCII, so nothing is ever lost or copied here.
        Zeroizing::new(String::from_utf8(std::mem::take(&mut *text)).unwrap_or_default())
    }
}

/// All keys and certificates of a PEM text.
fn read(pem: &[u8]) -> Result<Sections, IdentityError> {
    let mut sections = Sections {
        keys: Vec::new(),
        certificates: Vec::new(),
    };
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|error| IdentityError::Pem {
            reason: explain(&error),
        })?;
        match kind {
            SectionKind::PrivateKey => sections.keys.push(PrivatePkcs8KeyDer::from(der).into()),
            SectionKind::RsaPrivateKey => sections.keys.push(PrivatePkcs1KeyDer::from(der).into()),
            SectionKind::EcPrivateKey => sections.keys.push(PrivateSec1KeyDer::from(der).into()),
            SectionKind::Certificate => sections.certificates.push(der.into()),
            _ => {}
        }
    }
    Ok(sections)
}

/// The private key, when there is exactly one.
fn only_key(sections: &mut Sections, pem: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let count = sections.keys.len();
    match (sections.keys.pop(), count) {
        (Some(key), 1) => Ok(key),
        (None, _) if is_encrypted(pem) => Err(IdentityError::Encrypted),
        (None, _) => Err(IdentityError::NoKey),
        (Some(mut key), count) => {
            key.zeroize();
            Err(IdentityError::SeveralKeys { count })
        }
    }
}

/// PKCS#8 says so in its label; the older way of OpenSSL says so in a header (RFC 1421).
fn is_encrypted(pem: &[u8]) -> bool {
    [
        b"BEGIN ENCRYPTED PRIVATE KEY".as_slice(),
        b"Proc-Type: 4,ENCRYPTED",
    ]
    .iter()
    .any(|mark| pem.windows(mark.len()).any(|window| window == *mark))
}

/// A parser's complaint in words, without the bytes it complains about: they may be of the key.
fn explain(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no END line".into(),
        PemError::IllegalSectionStart { .. } => "a BEGIN line is not right".into(),
        PemError::Base64Decode(_) => "a section is not base64".into(),
        PemError::SectionTooLarge => "a section is too large".into(),
        _ => "it can't be parsed".into(),
    }
}

/// Characters in a line of base64 (RFC 7468 section 2).
const LINE: usize = 64;

/// Room for a section: four characters for three bytes, line ends, and two marker lines.
fn armoured_len(der: usize) -> usize {
    let base64 = der.div_ceil(3) * 4;
    base64 + base64.div_ceil(LINE) + 80
}

fn armour(text: &mut Vec<u8>, label: &str, der: &[u8]) {
    let capacity = text.capacity();
    // Writing into a Vec does not fail.
    let _ = writeln!(text, "-----BEGIN {label}-----");
    for piece in der.chunks(LINE / 4 * 3) {
        let mut line = [0; LINE];
        let len = BASE64.encode_len(piece.len());
        if let Some(line) = line.get_mut(..len) {
            BASE64.encode_mut(piece, line);
            text.extend_from_slice(line);
        }
        text.push(b'\n');
        line.zeroize();
    }
    let _ = writeln!(text, "-----END {label}-----");
    debug_assert_eq!(
        capacity,
        text.capacity(),
        "the text was sized for the whole identity"
    );
}
