//! What a finished handshake tells about the peer and the layer.

use rustls::CommonState;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use super::config::TlsConfig;
use super::error::TlsError;
use super::shown::KeyForm;
use super::verifier::Asks;
use super::version::Version;
use crate::identity::{Facts, PeerId, Refusal};

/// The peer of one TLS layer, authenticated, and what was agreed with it.
#[derive(Clone, Debug)]
pub struct Peer {
    facts: Facts,
    local_id: PeerId,
    /// Its own certificate first; empty where it showed a raw key.
    chain: Vec<CertificateDer<'static>>,
    version: Version,
    suite: u16,
    group: Option<u16>,
    alpn: Option<Vec<u8>>,
    server_name: Option<String>,
}

impl Peer {
    /// Reads a finished handshake; fails when it lacks what `config` requires (ALPN).
    ///
    /// `server_name` is the name that a client asked for, as a server sees it.
    pub(crate) fn from_connection(
        connection: &CommonState,
        server_name: Option<&str>,
        config: &TlsConfig,
        asks: &Asks,
    ) -> Result<Self, TlsError> {
        let (Some(version), Some(suite), Some(chain)) = (
            connection.protocol_version().and_then(Version::from_rustls),
            connection.negotiated_cipher_suite(),
            connection.peer_certificates(),
        ) else {
            return Err(TlsError::Misuse {
                what: "the TLS handshake has not finished",
            });
        };
        let shown = chain
            .first()
            .ok_or(TlsError::Refused(Refusal::NoCertificate))?;
        let (facts, chain) = match asks.peer_form {
            KeyForm::Certificate => (Facts::read(shown), chain.to_vec()),
            KeyForm::RawPublicKey => (Facts::of_key(shown), Vec::new()),
        };
        let facts = facts.map_err(|problem| TlsError::Refused(Refusal::Unusable { problem }))?;
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        config.check_alpn(alpn.as_deref())?;
        Ok(Self {
            facts,
            local_id: asks.local_id,
            chain,
            version,
            suite: u16::from(suite.suite()),
            group: connection
                .negotiated_key_exchange_group()
                .map(|group| u16::from(group.name())),
            alpn,
            server_name: server_name.map(str::to_owned),
        })
    }

    /// Who it is.
    pub fn id(&self) -> PeerId {
        self.facts.id
    }

    /// Who we are to it.
    pub fn local_id(&self) -> PeerId {
        self.local_id
    }

    /// How it showed its key.
    pub fn key_form(&self) -> KeyForm {
        match self.chain.first() {
            Some(_) => KeyForm::Certificate,
            None => KeyForm::RawPublicKey,
        }
    }

    /// The certificate that it showed; none where it showed a raw public key.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// All that it showed, its own certificate first. Nothing is proven about the rest.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// SHA-256 of its certificate (DER): what other programs call the fingerprint. None where it
    /// showed a raw public key; [`id`](Self::id) is there in any case.
    pub fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.certificate()
            .map(|certificate| Sha256::digest(certificate).into())
    }

    /// From when its certificate is valid; 1970 for a raw public key.
    pub fn not_before(&self) -> UnixTime {
        self.facts.not_before
    }

    /// Until when its certificate is valid; the end of 9999 for a raw public key.
    pub fn not_after(&self) -> UnixTime {
        self.facts.not_after
    }

    /// The version of TLS.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cipher suite's IANA code.
    pub fn suite(&self) -> u16 {
        self.suite
    }

    /// The key exchange group's IANA code, where TLS tells.
    pub fn group(&self) -> Option<u16> {
        self.group
    }

    /// The protocol agreed on for the inside of this layer.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The name that the client asked for (SNI); always none on the client's own side.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}
