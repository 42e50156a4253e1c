//! Trust by certificate authorities: a chain from the peer's certificate to a root, and a name in it.
//!
//! The roots come from a file ([`CaRoots`]) or, with the feature `ca`, are those of the platform
//! (`PlatformRoots`). An authority vouches for names, so a name must be asked for: without one,
//! everybody whom that authority ever gave a certificate would be let in. Names other than the subject
//! alternative names are not looked at, and revocation lists are not fetched.

use std::fs;
use std::io;
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::trust::{Presented, Refusal, TrustPolicy};
use crate::backend::default_provider;
use cepa_transports::Side;
use cepa_transports::text::quoted;

/// Trusts peers whose certificate was issued below one of these roots, for one of these names.
#[derive(Clone, Debug)]
pub struct CaRoots {
    anchors: Vec<TrustAnchor<'static>>,
    names: Vec<ServerName<'static>>,
}

/// Roots or names that will not do. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The file can't be read.
    #[error("the CA certificates can't be read: {0}")]
    Read(#[source] io::Error),
    /// There is no certificate in it.
    #[error("holds no CA certificate: expected `-----BEGIN CERTIFICATE-----` sections")]
    NoCertificate,
    /// One of the certificates can't be a root.
    #[error("CA certificate {number} can't be read ({reason}): leave it out")]
    Certificate {
        /// Which of them, counted from 1.
        number: usize,
        /// What the parser says.
        reason: String,
    },
    /// Neither a host name nor an IP address.
    #[error(
        "an authority cannot certify the name {}: use a host name or an IP address",
        quoted(name)
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// The platform's verifier can't be used.
    #[error("the platform's roots can't be used ({reason}): use a file of CA certificates")]
    Platform {
        /// What it says.
        reason: String,
    },
}

impl CaRoots {
    /// Roots from a file of PEM certificates; one that can't be read fails the whole.
    pub fn load<S: AsRef<str>>(path: impl AsRef<Path>, names: &[S]) -> Result<Self, CaError> {
        Self::from_pem(&fs::read(path).map_err(CaError::Read)?, names)
    }

    /// Roots from PEM text. No names, no trust.
    pub fn from_pem<S: AsRef<str>>(pem: &[u8], names: &[S]) -> Result<Self, CaError> {
        let bad = |number: usize, reason: String| CaError::Certificate {
            number: number + 1,
            reason,
        };
        let mut anchors = Vec::new();
        for (number, der) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let der = der.map_err(|error| bad(number, error.to_string()))?;
            let anchor = anchor_from_trusted_cert(&der)
                .map_err(|error| bad(number, format!("{error:?}")))?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            return Err(CaError::NoCertificate);
        }
        let names = names.iter().map(|given| name(given.as_ref()));
        Ok(Self {
            anchors,
            names: names.collect::<Result<_, _>>()?,
        })
    }
}

fn name(given: &str) -> Result<ServerName<'static>, CaError> {
    ServerName::try_from(given.to_owned()).map_err(|_| CaError::Name {
        name: given.to_owned(),
    })
}

/// The certificate, without which no authority vouches for anybody.
fn certified<'a>(peer: &Presented<'a>) -> Result<&'a CertificateDer<'a>, Refusal> {
    peer.certificate.ok_or_else(|| Refusal::NotByCa {
        presented: peer.id,
        reason: "it showed a raw public key, and no certificate".into(),
    })
}

impl TrustPolicy for CaRoots {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        let refused = |error: webpki::Error| Refusal::NotByCa {
            presented: peer.id,
            reason: format!("{error:?}"),
        };
        let certificate = EndEntityCert::try_from(certified(peer)?).map_err(refused)?;
        let usage = match peer.role {
            Side::Server => KeyUsage::server_auth(),
            Side::Client => KeyUsage::client_auth(),
        };
        let algorithms = default_provider().signature_verification_algorithms.all;
        certificate
            .verify_for_usage(
                algorithms,
                &self.anchors,
                peer.chain,
                peer.now,
                usage,
                None,
                None,
            )
            .map_err(refused)?;
        let mut problem = webpki::Error::UnsupportedNameType;
        for name in &self.names {
            match certificate.verify_is_valid_for_subject_name(name) {
                Ok(()) => return Ok(()),
                Err(error) => problem = error,
            }
        }
        Err(refused(problem))
    }

    fn names(&self, _: &Presented<'_>) -> bool {
        false
    }
}

/// Trusts servers that the platform's own verifier trusts for this name (feature `ca`).
#[cfg(feature = "ca")]
#[derive(Debug)]
pub struct PlatformRoots {
    verifier: rustls_platform_verifier::Verifier,
    name: ServerName<'static>,
}

#[cfg(feature = "ca")]
impl PlatformRoots {
    /// The roots are read now; a platform without any is an error.
    pub fn new(name_of_server: &str) -> Result<Self, CaError> {
        let name = name(name_of_server)?;
        let verifier = rustls_platform_verifier::Verifier::new(default_provider());
        Ok(Self {
            verifier: verifier.map_err(|error| CaError::Platform {
                reason: error.to_string(),
            })?,
            name,
        })
    }
}

#[cfg(feature = "ca")]
impl TrustPolicy for PlatformRoots {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        use rustls::client::danger::ServerCertVerifier as _;
        let refused = |reason: String| Refusal::NotByCa {
            presented: peer.id,
            reason,
        };
        if peer.role != Side::Server {
            return Err(refused(
                "the platform's roots vouch for servers only".into(),
            ));
        }
        self.verifier
            .verify_server_cert(certified(peer)?, peer.chain, &self.name, &[], peer.now)
            .map(|_| ())
            .map_err(|error| refused(error.to_string()))
    }

    /// What the platform does to verify a certificate is its own matter; some ask the network.
    fn may_block(&self) -> bool {
        true
    }

    fn names(&self, _: &Presented<'_>) -> bool {
        false
    }
}
