//! The text form of an identity: a PKCS#8 key and the certificates that go with it, in one PEM text.
//!
//! Users also bring what other tools made: key and certificate in two files, `EC PRIVATE KEY`
//! (SEC1), `RSA PRIVATE KEY` (PKCS#1), a key alone. All are taken; what we write is always PKCS#8
//! first, certificates after it. Sections of other kinds (parameters, requests) are passed over.

use std::io::Write as _;

use data_encoding::BASE64;
use rustls::crypto::SecureRandom;
use rustls_pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use zeroize::{Zeroize, Zeroizing};

use super::error::IdentityError;
use super::key::Identity;
use super::passphrase;
use crate::backend::default_provider;

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

    /// An identity from PEM text whose private key is under a passphrase (`ENCRYPTED PRIVATE KEY`,
    /// PKCS#8 with PBES2: scrypt or PBKDF2, AES in CBC or GCM mode).
    ///
    /// Takes some hundred milliseconds, and 16 MiB of memory, or what the file asks for up to 1 GiB.
    pub fn from_encrypted_pem(pem: &str, passphrase: &[u8]) -> Result<Self, IdentityError> {
        Self::from_encrypted_pem_bytes(pem.as_bytes(), passphrase)
    }

    pub(super) fn from_encrypted_pem_bytes(
        pem: &[u8],
        passphrase: &[u8],
    ) -> Result<Self, IdentityError> {
        let mut sections = read(pem)?;
        let mut sealed = sealed_keys(pem)?;
        let count = sections.keys.len() + sealed.len();
        let (Some(sealed), 1) = (sealed.pop(), count) else {
            return Err(match count {
                0 => IdentityError::NoKey,
                1 => IdentityError::Pem {
                    reason: "its key is under no passphrase".into(),
                },
                count => IdentityError::SeveralKeys { count },
            });
        };
        let key = passphrase::decrypt(&sealed, passphrase)?;
        let key = PrivatePkcs8KeyDer::from(key.to_vec()).into();
        let chain = std::mem::take(&mut sections.certificates);
        if chain.is_empty() {
            Self::from_key(key)
        } else {
            Self::from_der(chain, key)
        }
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

    /// The identity as PEM text, with the private key under a passphrase.
    ///
    /// Fails for keys that were brought in a form before PKCS#8, for an empty passphrase, and when the
    /// random source does. Takes some hundred milliseconds and 16 MiB of memory.
    pub fn to_encrypted_pem(&self, passphrase: &[u8]) -> Result<String, IdentityError> {
        self.to_encrypted_pem_with(passphrase, default_provider().secure_random)
    }

    pub(super) fn to_encrypted_pem_with(
        &self,
        passphrase: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<String, IdentityError> {
        if passphrase.is_empty() {
            return Err(IdentityError::EmptyPassphrase);
        }
        let PrivateKeyDer::Pkcs8(key) = self.private_key() else {
            return Err(IdentityError::Key {
                reason: "only PKCS#8 goes under a passphrase".into(),
            });
        };
        let sealed = passphrase::encrypt(key.secret_pkcs8_der(), passphrase, random)?;
        let chain: usize = self.chain().iter().map(|der| armoured_len(der.len())).sum();
        let mut text = Vec::with_capacity(armoured_len(sealed.len()) + chain);
        armour(&mut text, ENCRYPTED, &sealed);
        for certificate in self.chain() {
            armour(&mut text, "CERTIFICATE", certificate);
        }
        Ok(String::from_utf8(text).unwrap_or_default())
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
        let (kind, der) = section.map_err(|error| {
            if contains(pem, b"Proc-Type: 4,ENCRYPTED") {
                return IdentityError::EncryptedOldWay;
            }
            IdentityError::Pem {
                reason: explain(&error),
            }
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
        (None, _) if contains(pem, b"BEGIN ENCRYPTED PRIVATE KEY") => Err(IdentityError::Encrypted),
        (None, _) => Err(IdentityError::NoKey),
        (Some(mut key), count) => {
            key.zeroize();
            Err(IdentityError::SeveralKeys { count })
        }
    }
}

/// PKCS#8 says in its label that it is encrypted; the older way of OpenSSL says so in a header
/// (RFC 1421).
fn contains(pem: &[u8], mark: &[u8]) -> bool {
    pem.windows(mark.len()).any(|window| window == mark)
}

/// The label of a key under a passphrase (RFC 7468 section 11), which the parser of the others passes
/// over.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// All keys under a passphrase, as DER.
fn sealed_keys(pem: &[u8]) -> Result<Vec<Vec<u8>>, IdentityError> {
    let damaged = |reason: &str| IdentityError::Pem {
        reason: reason.into(),
    };
    let text = std::str::from_utf8(pem).map_err(|_| damaged("it is not text"))?;
    let (begin, end) = (
        format!("-----BEGIN {ENCRYPTED}-----"),
        format!("-----END {ENCRYPTED}-----"),
    );
    let mut keys = Vec::new();
    for section in text.split(&begin).skip(1) {
        let (base64, _) = section
            .split_once(&end)
            .ok_or_else(|| damaged("a section has no END line"))?;
        let base64: String = base64.split_ascii_whitespace().collect();
        let der = BASE64.decode(base64.as_bytes());
        keys.push(der.map_err(|_| damaged("a section is not base64"))?);
    }
    Ok(keys)
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
