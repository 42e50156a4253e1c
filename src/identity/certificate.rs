//! What is read out of an X.509 certificate.
//!
//! Two parsers look at it, each for what it is good at: webpki (rustls's own) yields the key, since
//! it is also the one that checks signatures with it; x509-parser yields what webpki keeps to
//! itself, the dates. Nothing here proves anything about a certificate: that its presenter holds
//! the key is shown by the handshake's signature, and who may present it is the policy's matter.

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::asn1_rs::{Any, Tag};
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
        "the RSA key has {bits} bits, but must have 2048 to 4096: use another key (Ed25519 is the default)"
    )]
    RsaSize {
        /// Bits of the modulus.
        bits: usize,
    },
    /// A key of another kind than those that every build of cepa can check signatures with.
    #[error(
        "keys of this kind are not accepted ({kind}): use Ed25519, ECDSA P-256 or P-384, or RSA of 2048 to 4096 bits"
    )]
    KeyKind {
        /// Which kind it is.
        kind: String,
    },
    /// An EC key with the numbers of its curve in the place of the curve's name (RFC 5480 section 2.1.1 forbids it):
    /// they can be chosen so that somebody else's key seems to be one's own.
    #[error(
        "the EC key has explicit curve parameters: create it with a named curve, P-256 or P-384 (OpenSSL: `-pkeyopt ec_param_enc:named_curve`)"
    )]
    ExplicitCurve,
    /// An extension that is critical, so that whoever does not know it has to refuse the certificate (RFC 5280 section
    /// 4.2), and that is not known here.
    #[error("the certificate has an unknown critical extension ({oid}): create one without it")]
    CriticalExtension {
        /// Which one.
        oid: String,
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

/// Refuses keys of other kinds and sizes than are documented, and those whose size can't be told: another parser might
/// make a key of them. What a provider could check beyond that differs from build to build, and is not asked for.
fn acceptable(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateError> {
    let refused = |kind: String| Err(CertificateError::KeyKind { kind });
    match key.algorithm.algorithm.to_id_string().as_str() {
        // RFC 8410 section 3
        "1.3.101.112" => Ok(()),
        // id-ecPublicKey, RFC 5480 section 2.1.1
        "1.2.840.10045.2.1" => named_curve(key.algorithm.parameters.as_ref()),
        // rsaEncryption, RFC 8017 appendix A.1
        "1.2.840.113549.1.1.1" => rsa_size(key),
        "1.2.840.113549.1.1.10" => refused("RSASSA-PSS".into()),
        "1.2.840.10040.4.1" => refused("DSA".into()),
        "1.3.101.110" => refused("X25519".into()),
        "1.3.101.113" => refused("Ed448".into()),
        other => refused(format!("the algorithm {other}")),
    }
}

/// The curve of an EC key has to be one of two, and by its name.
fn named_curve(parameters: Option<&Any<'_>>) -> Result<(), CertificateError> {
    let malformed = |reason: &str| CertificateError::MalformedKey {
        reason: reason.to_owned(),
    };
    let parameters = parameters.ok_or_else(|| malformed("an EC key without a curve"))?;
    // The parser gives an id for any tag.
    let curve = match parameters.tag() {
        Tag::Oid => parameters.as_oid().ok(),
        Tag::Sequence => return Err(CertificateError::ExplicitCurve),
        _ => None,
    };
    let curve = curve.ok_or_else(|| malformed("an EC key without the name of a curve"))?;
    let kind = match curve.to_id_string().as_str() {
        "1.2.840.10045.3.1.7" | "1.3.132.0.34" => return Ok(()),
        "1.3.132.0.35" => "ECDSA P-521".into(),
        "1.3.132.0.33" => "ECDSA P-224".into(),
        "1.3.132.0.10" => "ECDSA secp256k1".into(),
        other => format!("EC on the curve {other}"),
    };
    Err(CertificateError::KeyKind { kind })
}

fn rsa_size(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateError> {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => {
            let bits = bit_length(key.modulus);
            if (2048..=4096).contains(&bits) {
                Ok(())
            } else {
                Err(CertificateError::RsaSize { bits })
            }
        }
        Ok(_) => Err(CertificateError::MalformedKey {
            reason: "it is no RSA key".into(),
        }),
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
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|error| match error {
        webpki::Error::UnsupportedCriticalExtension => CertificateError::CriticalExtension {
            oid: unknown_critical(certificate).unwrap_or_else(|| "its id can't be read".into()),
        },
        error => CertificateError::Malformed {
            reason: format!("{error:?}"),
        },
    })?;
    Ok(parsed.subject_public_key_info().into_owned())
}

/// The first critical extension of a certificate that webpki does not know; which one it was it keeps to itself.
fn unknown_critical(certificate: &CertificateDer<'_>) -> Option<String> {
    // Key usage, subject alternative name, basic constraints, name constraints, CRL distribution points, and extended
    // key usage (RFC 5280 section 4.2.1).
    const KNOWN: [&str; 6] = ["15", "17", "19", "30", "31", "37"];
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let critical = certificate.extensions().iter().filter(|one| one.critical);
    critical.map(|one| one.oid.to_id_string()).find(|oid| {
        let known = oid.strip_prefix("2.5.29.");
        known.is_none_or(|last| !KNOWN.contains(&last))
    })
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
