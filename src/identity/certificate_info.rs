//! What an application wants to know of a certificate that a peer has shown: for accounts that belong
//! to certificates, and for messages.
//!
//! Only the key is proven, by the handshake. Names and dates are what the peer wrote into its own
//! certificate, so they say what it would like to be called, and no more.

use cepa_transports::text::clean;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::{CertificateError, Facts};
use super::peer_id::PeerId;

/// Bytes of a name that are kept: it stands in messages.
const MAX_NAME: usize = 256;

/// A certificate, read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The key: SHA-256 of its SubjectPublicKeyInfo. A renewed certificate has the same.
    pub id: PeerId,
    /// SHA-256 of the whole certificate (DER): what most programs call its fingerprint.
    pub sha256: [u8; 32],
    /// The subject's name, as `CN=…, O=…`. One line of up to 256 bytes that is fit to be shown; anybody
    /// can write anything there.
    pub subject: String,
    /// The first common name in it.
    pub common_name: Option<String>,
    /// From when it is valid.
    pub not_before: UnixTime,
    /// Until when it is valid.
    pub not_after: UnixTime,
}

impl CertificateInfo {
    /// Reads a certificate. What a layer let in can be read.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let facts = Facts::read(certificate)?;
        let malformed = |error: x509_parser::nom::Err<_>| CertificateError::Malformed {
            reason: error.to_string(),
        };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(malformed)?;
        let common_name = parsed
            .subject()
            .iter_common_name()
            .find_map(|name| name.as_str().ok());
        Ok(Self {
            id: facts.id,
            sha256: Sha256::digest(certificate).into(),
            subject: clean(&parsed.subject().to_string(), MAX_NAME).into_owned(),
            common_name: common_name.map(|name| clean(name, MAX_NAME).into_owned()),
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use cepa_transports::text::{HOSTILE, is_printable};

    use super::*;

    #[test]
    fn a_certificate_says_what_its_maker_wrote() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        let mut subject = rcgen::DistinguishedName::new();
        subject.push(rcgen::DnType::CommonName, "Ann\n\u{1b}[2J");
        subject.push(rcgen::DnType::OrganizationName, "x".repeat(1000));
        params.distinguished_name = subject;
        params.not_before = rcgen::date_time_ymd(2001, 2, 3);
        params.not_after = rcgen::date_time_ymd(2004, 5, 6);
        let certificate = params.self_signed(&key).unwrap();
        let info = CertificateInfo::read(certificate.der()).unwrap();
        assert_eq!(
            info.id,
            PeerId::from_certificate(certificate.der()).unwrap()
        );
        let digest: [u8; 32] = Sha256::digest(certificate.der()).into();
        assert_eq!(info.sha256, digest);
        assert_eq!(info.common_name.as_deref(), Some("Ann \\u{1b}[2J"));
        assert!(
            info.subject.starts_with(r"CN=Ann \u{1b}[2J"),
            "{}",
            info.subject
        );
        assert!(info.subject.len() <= MAX_NAME && info.subject.ends_with('…'));
        assert_eq!(
            (info.not_before.as_secs(), info.not_after.as_secs()),
            (981_158_400, 1_083_801_600)
        );
        assert!(CertificateInfo::read(&CertificateDer::from(vec![0x30, 0])).is_err());
    }

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (name, c) in HOSTILE {
            let mut params = rcgen::CertificateParams::default();
            let mut subject = rcgen::DistinguishedName::new();
            subject.push(rcgen::DnType::CommonName, format!("Ann{c}Bob"));
            params.distinguished_name = subject;
            let certificate = params.self_signed(&key).unwrap();
            let info = CertificateInfo::read(certificate.der()).unwrap();
            let common = info.common_name.unwrap_or_default();
            assert!(common.starts_with("Ann") && common.ends_with("Bob"));
            assert!(common.chars().all(is_printable), "{name}");
            assert!(info.subject.chars().all(is_printable), "{name}");
        }
    }
}
