//! Signing with an identity's key outside of TLS: statements that others check later, without us.
//!
//! What is signed begins with a name of its own (`cepa key rotation\0`), so that no signature passes for one of
//! another kind, and none that the key makes in TLS for any of them: those begin with 64 spaces (RFC 8446, section 4.4.3).

use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use rustls_pki_types::SubjectPublicKeyInfoDer;

use crate::backend::default_provider;

/// The schemes with which statements are signed, those of TLS 1.3.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
];

/// A signature, and how it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// SignatureScheme (RFC 8446, section 4.2.3).
    pub(crate) scheme: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Signature {
    pub(super) fn none() -> Self {
        Self {
            scheme: 0,
            bytes: Vec::new(),
        }
    }

    /// Whether the key of this SubjectPublicKeyInfo has signed the message.
    pub(crate) fn verifies(&self, key: &[u8], message: &[u8]) -> bool {
        let scheme = SignatureScheme::from(self.scheme);
        if !SCHEMES.contains(&scheme) {
            return false;
        }
        let key = SubjectPublicKeyInfoDer::from(key);
        let Ok(key) = webpki::RawPublicKeyEntity::try_from(&key) else {
            return false;
        };
        let provider = default_provider();
        let algorithms = provider.signature_verification_algorithms.mapping;
        algorithms
            .iter()
            .filter(|(known, _)| *known == scheme)
            .flat_map(|(_, algorithms)| *algorithms)
            .any(|algorithm| {
                key.verify_signature(*algorithm, message, &self.bytes)
                    .is_ok()
            })
    }
}

/// Signs; the error is one line.
pub(super) fn sign(key: &dyn SigningKey, message: &[u8]) -> Result<Signature, String> {
    let signer = key
        .choose_scheme(&SCHEMES)
        .ok_or("it has no scheme in common with TLS 1.3")?;
    let bytes = signer.sign(message).map_err(|error| error.to_string())?;
    Ok(Signature {
        scheme: u16::from(signer.scheme()),
        bytes,
    })
}
