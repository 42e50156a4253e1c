//! Our own identity: a private key, and a certificate for it.
//!
//! TLS wants a certificate, cepa wants only the key in it, so the certificate that we make is as
//! small and as lasting as a foreign TLS library will accept:
//!
//! - version 3, self-signed, CA:FALSE, key usage digitalSignature, for clients and servers alike,
//!   so that OpenSSL with `-partial_chain` takes it as a pinned end-entity certificate in both roles;
//! - from 1970-01-01 to 9999-12-31 23:59:59, the date that RFC 5280 section 4.1.2.5 gives to "no
//!   expiry". A device on a serial line often has no clock and believes that it is 1970; a
//!   certificate must not lock it out. What is trusted is the key; taking trust away is done by
//!   taking its id off a list, not by waiting for a date;
//! - subject alternative name `<peer id>.cepa.alt` (RFC 9476 keeps `.alt` out of the DNS): the name
//!   by which one of several identities behind a listener can be asked for;
//! - after a change of keys, the statements that led to this one (`rotation.rs`).
//!
//! The private key lies in memory that is overwritten when the last clone goes. The copy that the
//! cryptographic backend makes for signing is the backend's to clear (aws-lc does).

use std::fmt;
use std::sync::Arc;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::crypto::SecureRandom;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime,
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::certificate::Facts;
use super::error::IdentityError;
use super::peer_id::PeerId;
use super::rotation::{self, MAX_STATEMENTS, Rotation, RotationTimes};
#[cfg(any(feature = "mesh", feature = "sealed"))]
use super::signature::{self, Signature};
use crate::backend::default_provider;

/// The kind of key that a new identity gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Ed25519 (RFC 8032). The default: smallest, fastest, nothing to choose wrongly, and signing
    /// needs no randomness that could fail.
    #[default]
    Ed25519,
    /// ECDSA over P-256, for peers whose TLS library lacks Ed25519.
    P256,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::P256 => "P-256",
        })
    }
}

/// A private key and the certificate that goes with it. Clones share one key.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    /// As it was brought or made; overwritten on drop.
    key: PrivateKeyDer<'static>,
    /// The public key, as a SubjectPublicKeyInfo.
    public_key: SubjectPublicKeyInfoDer<'static>,
    /// The chain, and the key as the default provider loaded it.
    certified: Arc<CertifiedKey>,
    /// The first certificate of the chain.
    certificate: CertificateDer<'static>,
    facts: Facts,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Identity {
    /// Makes a new key, and a certificate for it, in memory.
    ///
    /// Fails when the random source does; a key is never made from anything weaker.
    pub fn generate(kind: KeyKind) -> Result<Self, IdentityError> {
        Self::generate_from(kind, default_provider().secure_random)
    }

    pub(super) fn generate_from(
        kind: KeyKind,
        random: &dyn SecureRandom,
    ) -> Result<Self, IdentityError> {
        Self::make(kind, random, |_| Ok(Vec::new()))
    }

    /// Makes the successor of this identity: a new key, which the old one names as the next, in a
    /// certificate that says so to everyone who knows the old key or one before it.
    ///
    /// The old identity is still good until `times.overlap`, and must be kept until the new one is in
    /// use. Eight changes are carried along; who knows only a key older than that learns nothing.
    pub fn rotate(&self, kind: KeyKind, times: RotationTimes) -> Result<Self, IdentityError> {
        self.rotate_from(kind, times, default_provider().secure_random)
    }

    pub(super) fn rotate_from(
        &self,
        kind: KeyKind,
        times: RotationTimes,
        random: &dyn SecureRandom,
    ) -> Result<Self, IdentityError> {
        let mut statements = self.rotations();
        Self::make(kind, random, |new| {
            let statement = Rotation::sign(&*self.inner.certified.key, new, times)?;
            statements.push(statement);
            let surplus = statements.len().saturating_sub(MAX_STATEMENTS);
            statements.drain(..surplus);
            Ok(statements)
        })
    }

    /// The statements by which the keys before this one have named their successors, oldest first.
    pub fn rotations(&self) -> Vec<Rotation> {
        rotation::in_certificate(self.certificate()).unwrap_or_default()
    }

    /// The same as bytes, for a message: those of the latest keys, as many as `most` bytes hold.
    #[cfg(any(test, feature = "mesh", feature = "sealed"))]
    pub(crate) fn statements(&self, most: usize) -> Vec<u8> {
        let statements = self.rotations();
        let mut latest = statements.as_slice();
        loop {
            let bytes = rotation::write_all(latest);
            match latest.split_first() {
                Some((_, later)) if bytes.len() > most => latest = later,
                _ => return bytes,
            }
        }
    }

    fn make(
        kind: KeyKind,
        random: &dyn SecureRandom,
        statements: impl FnOnce(&dyn SigningKey) -> Result<Vec<Rotation>, IdentityError>,
    ) -> Result<Self, IdentityError> {
        let mut pair = new_pair(kind, random)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialized_der().to_vec()));
        let key = Guarded(Some(key));
        let certificate = load_key(key.get()?)
            .and_then(|signing| statements(&*signing))
            .and_then(|statements| self_signed(&pair, &statements));
        pair.zeroize();
        Self::from_der(vec![certificate?], key.take()?)
    }

    /// An identity from a key and its certificate chain, the key's own certificate first.
    ///
    /// PKCS#8 keys are taken, and SEC1 (EC) and PKCS#1 (RSA) ones. The certificate must be for that
    /// key; its dates are not looked at here (the peer will).
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, IdentityError> {
        // From here on the key is cleared on every way out.
        let key = Guarded(Some(key));
        let certificate = chain.first().ok_or(IdentityError::NoCertificate)?.clone();
        let facts = Facts::read(&certificate)?;
        let signing = load_key(key.get()?)?;
        // Both providers that we build with can tell; one that can't must not get past this.
        let Some(public_key) = signing
            .public_key()
            .map(SubjectPublicKeyInfoDer::into_owned)
        else {
            return Err(IdentityError::Key {
                reason: "its public half can't be told".into(),
            });
        };
        let id = PeerId::from_spki(&public_key);
        if id != facts.id {
            return Err(IdentityError::Mismatch {
                certificate: facts.id,
                key: id,
            });
        }
        let certified = Arc::new(CertifiedKey::new(chain, signing));
        let key = key.take()?;
        Ok(Self {
            inner: Arc::new(Inner {
                key,
                public_key,
                certified,
                certificate,
                facts,
            }),
        })
    }

    /// An identity from a key alone; a certificate is made for it.
    ///
    /// For an ECDSA key the certificate (not the peer id) differs each time, since such signatures
    /// are random.
    pub fn from_key(key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        let key = Guarded(Some(key));
        let mut pair = KeyPair::try_from(key.get()?).map_err(|error| IdentityError::Key {
            reason: format!("no certificate can be made for it: {error}"),
        })?;
        let certificate = self_signed(&pair, &[]);
        pair.zeroize();
        Self::from_der(vec![certificate?], key.take()?)
    }

    /// The same key, and so the same peer, with the smallest certificate that X.509 allows instead of
    /// the one it has: no extensions, and a name that names nobody. It saves a third of the bytes of
    /// a handshake, for lines where those are few and the peer can't do raw public keys.
    pub fn with_minimal_certificate(&self) -> Result<Self, IdentityError> {
        let key = Guarded(Some(self.inner.key.clone_key()));
        let mut pair = KeyPair::try_from(key.get()?).map_err(|error| IdentityError::Key {
            reason: format!("no certificate can be made for it: {error}"),
        })?;
        let certificate = minimal(&pair);
        pair.zeroize();
        Self::from_der(vec![certificate?], key.take()?)
    }

    /// Whether the other one is a clone of this.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Our own id, as peers see it.
    pub fn peer_id(&self) -> PeerId {
        self.inner.facts.id
    }

    /// Our public key, as the DER of its SubjectPublicKeyInfo: what a peer sees of us where raw
    /// public keys (RFC 7250) are used, and what [`peer_id`](Self::peer_id) is the hash of.
    pub fn public_key(&self) -> &[u8] {
        &self.inner.public_key
    }

    /// Our certificate: the one for the key, first of the chain.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.inner.certificate
    }

    /// The certificate and what else was brought with it, in the order in which it is sent.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.inner.certified.cert
    }

    /// SHA-256 of our certificate (DER): what other programs call its fingerprint.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.certificate()).into()
    }

    /// The first moment at which the certificate is valid, to the second.
    pub fn not_before(&self) -> UnixTime {
        self.inner.facts.not_before
    }

    /// The last moment at which the certificate is valid, to the second.
    pub fn not_after(&self) -> UnixTime {
        self.inner.facts.not_after
    }

    /// The private key. Whoever calls this answers for the bytes.
    pub(crate) fn private_key(&self) -> &PrivateKeyDer<'static> {
        &self.inner.key
    }

    #[cfg(any(feature = "mesh", feature = "sealed"))]
    /// Signs a statement, which begins with a name of its own (`signature.rs`).
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Signature, IdentityError> {
        signature::sign(&*self.inner.certified.key, message)
            .map_err(|reason| IdentityError::Key { reason })
    }

    /// Chain and key, ready for the default provider.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.inner.certified
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("peer_id", &self.peer_id())
            .finish_non_exhaustive()
    }
}

/// A private key that is overwritten when it is dropped, unless it was taken out.
struct Guarded(Option<PrivateKeyDer<'static>>);

impl Guarded {
    fn get(&self) -> Result<&PrivateKeyDer<'static>, IdentityError> {
        self.0.as_ref().ok_or(IdentityError::NoKey)
    }

    fn take(mut self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        self.0.take().ok_or(IdentityError::NoKey)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(key) = &mut self.0 {
            key.zeroize();
        }
    }
}

fn load_key(key: &PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, IdentityError> {
    default_provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|error| IdentityError::Key {
            reason: error.to_string(),
        })
}

/// A new key, as PKCS#8 that everyone reads.
///
/// An Ed25519 key is 32 random bytes (RFC 8032 section 5.1.5). The backends would write them as
/// version 2 (RFC 5958), with the public key behind the private one; OpenSSL 3.0, and Python with it,
/// reads version 1 alone (RFC 8410 section 7), which differs in what stands around the 32 bytes. A
/// P-256 key is a number in a range, and is left to the backend, with its own use of the same source;
/// it is asked only when that source answers.
fn new_pair(kind: KeyKind, random: &dyn SecureRandom) -> Result<KeyPair, IdentityError> {
    // SEQUENCE of 46 bytes { INTEGER 0, SEQUENCE { OID 1.3.101.112 }, OCTET STRING { OCTET STRING of
    // 32 bytes, which follow } }
    const V1: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let failed = |reason: String| IdentityError::Generate { reason };
    let mut seed = Zeroizing::new([0; 32]);
    random
        .fill(&mut *seed)
        .map_err(|_| failed("it gave no bytes".into()))?;
    // Once in 2^256 times by chance: a source that fills in nothing, and does not say so.
    if seed.iter().all(|byte| *byte == 0) {
        return Err(failed("it gave nothing but zeros".into()));
    }
    let pair = match kind {
        KeyKind::Ed25519 => {
            let der = Zeroizing::new([&V1[..], &*seed].concat());
            let der = PrivatePkcs8KeyDer::from(der.as_slice());
            KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)
        }
        KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
    };
    pair.map_err(|error| failed(error.to_string()))
}

fn made(error: &rcgen::Error) -> IdentityError {
    IdentityError::Generate {
        reason: error.to_string(),
    }
}

/// What both of our kinds of certificates have: a name, and no end.
fn lasting(name: String) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after =
        rcgen::date_time_ymd(9999, 12, 31) + time::Duration::seconds(24 * 60 * 60 - 1);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params
}

/// As little as possible; an issuer must not be empty (RFC 5280 section 4.1.2.4).
fn minimal(pair: &KeyPair) -> Result<CertificateDer<'static>, IdentityError> {
    let mut params = lasting("-".into());
    params.serial_number = Some(vec![1].into());
    let certificate = params.self_signed(pair).map_err(|error| made(&error))?;
    Ok(certificate.der().clone())
}

/// The certificate that this file's head describes.
fn self_signed(
    pair: &KeyPair,
    statements: &[Rotation],
) -> Result<CertificateDer<'static>, IdentityError> {
    let id = PeerId::from_spki(&pair.subject_public_key_info());
    let name = format!("{id}.cepa.alt");
    let mut params = lasting(id.short());
    params.subject_alt_names = vec![SanType::DnsName(
        name.try_into().map_err(|error| made(&error))?,
    )];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    if !statements.is_empty() {
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &rotation::EXTENSION,
            rotation::write_all(statements),
        )];
    }
    let certificate = params.self_signed(pair).map_err(|error| made(&error))?;
    Ok(certificate.der().clone())
}
