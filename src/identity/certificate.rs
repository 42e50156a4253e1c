//! What is read out of an X.509 certificate.
//!
//! Two parsers look at it, each for what it is good at: webpki (rustls's own) yields the key, since
//! it is also the one that checks signatures with it; x509-parser yields what webpki keeps to
//! itself, the dates. Nothing here proves anything about a certificate: that its presenter holds
//! the key is shown by the handshake's signature, and who may present it is the policy's matter.

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::peer_id::PeerId;

/// Why a certificate can't be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not an X.509 version 3 certificate in DER, or one with parts that no one can read.
    #[error("the certificate can't be read ({reason}): make a new one, X.509 version 3")]
    Malformed {
        /// What the parser stumbled over.
        reason: String,
    },
    /// A public key that is no SubjectPublicKeyInfo in DER, or one of RSA whose size can't be told.
    #[error("the public key can't be read ({reason}): use another key")]
    MalformedKey {
        /// What the parser stumbled over.
        reason: String,
    },
    /// Below 2,048 bits a key can be broken, above 4,096 it is a way to keep our processor busy.
    #[error(
        "the RSA key has {bits} bits, from 2048 to 4096 are accepted: use another key (Ed25519 is the default)"
    )]
    RsaSize {
        /// Bits of the modulus.
        bits: usize,
    },
}

/// What the rest of cepa wants to know of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) id: PeerId,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
}

impl Facts {
    /// Of who has shown nothing: the id of an empty key, which no key has.
    pub(crate) fn of_nobody() -> Self {
        Self {
            id: PeerId::from_spki(&[]),
            not_before: unix_time(0),
            not_after: NEVER,
        }
    }

    /// Reads a certificate and refuses keys of sizes that are not accepted.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let spki = spki(certificate)?;
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|error| {
            CertificateError::Malformed {
                reason: error.to_string(),
            }
        })?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed {
                reason: "bytes follow its end".into(),
            });
        }
        acceptable(parsed.public_key())?;
        Ok(Self {
            id: PeerId::from_spki(&spki),
            not_before: unix_time(parsed.validity().not_before.timestamp()),
            not_after: unix_time(parsed.validity().not_after.timestamp()),
        })
    }
}

impl Facts {
    /// Reads a raw public key (RFC 7250: a SubjectPublicKeyInfo in DER), which has no dates, and
    /// refuses the same keys as [`read`](Self::read) does.
    pub(crate) fn of_key(key: &[u8]) -> Result<Self, CertificateError> {
        let malformed = |reason: String| CertificateError::MalformedKey { reason };
        let der = SubjectPublicKeyInfoDer::from(key);
        webpki::RawPublicKeyEntity::try_from(&der)
            .map_err(|error| malformed(format!("{error:?}")))?;
        let (rest, parsed) =
            SubjectPublicKeyInfo::from_der(key).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end".into()));
        }
        acceptable(&parsed)?;
        Ok(Self {
            id: PeerId::from_spki(key),
            not_before: UnixTime::since_unix_epoch(std::time::Duration::ZERO),
            not_after: NEVER,
        })
    }
}

/// 9999-12-31 23:59:59, "no well-defined expiration date" (RFC 5280 section 4.1.2.5).
const NEVER: UnixTime = UnixTime::since_unix_epoch(std::time::Duration::from_secs(253_402_300_799));

/// Refuses keys of sizes that are not accepted, and those whose size can't be told: another parser might
/// make a key of them.
fn acceptable(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateError> {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => {
            let bits = bit_length(key.modulus);
            if (2048..=4096).contains(&bits) {
                Ok(())
            } else {
                Err(CertificateError::RsaSize { bits })
            }
        }
        Ok(_) => Ok(()),
        Err(error) => Err(CertificateError::MalformedKey {
            reason: error.to_string(),
        }),
    }
}

impl PeerId {
    /// The id of the key in a certificate.
    ///
    /// The certificate is read by the same parser that later checks the handshake's signature
    /// with its key, so the id and the proof can't be about different keys.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        Ok(Self::from_spki(&spki(certificate)?))
    }
}

/// The key of a certificate, as DER.
fn spki(
    certificate: &CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'static>, CertificateError> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|error| {
        CertificateError::Malformed {
            reason: format!("{error:?}"),
        }
    })?;
    Ok(parsed.subject_public_key_info().into_owned())
}

/// Bits of an unsigned big-endian number, without the zeros in front.
fn bit_length(number: &[u8]) -> usize {
    let start = number
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(number.len());
    match number.get(start..) {
        Some(significant @ [first, ..]) => significant.len() * 8 - first.leading_zeros() as usize,
        _ => 0,
    }
}

/// Dates before 1970 count as 1970: no clock that we compare with reads less.
fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        seconds.try_into().unwrap_or(0),
    ))
}

/// A date as people read it, to the second, in UTC.
pub(crate) fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => format!("second {seconds} after 1970"),
    }
}
