//! What a finished handshake tells about the peer and the layer.
//!
//! A peer that has replaced its key carries the proof in its certificate; so who it *is* is a question of
//! [`Peer::is`], and not of comparing [`Peer::id`] with an id that was noted before.

use std::sync::Arc;

use cepa_transports::Side;
use rustls::CommonState;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use super::config::TlsConfig;
use super::error::TlsError;
use super::shown::KeyForm;
use super::verifier::{self, Verdict};
use super::version::Version;
use crate::identity::{Facts, Lineage, PeerId, Presented, Refusal, TrustPolicy};

/// The peer of one TLS layer, authenticated, and what was agreed with it.
#[derive(Clone, Debug)]
pub struct Peer {
    facts: Facts,
    anonymous: bool,
    /// Its TLS role.
    role: Side,
    /// Whether the layer's policy lists it.
    named: bool,
    local_id: PeerId,
    /// Its own certificate first; empty where it showed a raw key.
    chain: Arc<[CertificateDer<'static>]>,
    lineage: Arc<Lineage>,
    version: Version,
    suite: u16,
    group: Option<u16>,
    alpn: Option<Vec<u8>>,
    server_name: Option<String>,
}

impl Peer {
    /// Reads a finished handshake; fails when it lacks what `config` requires (ALPN).
    ///
    /// `role` is the peer's; `server_name` is the name that a client asked for, as a server sees it.
    pub(crate) fn from_connection(
        connection: &CommonState,
        role: Side,
        server_name: Option<&str>,
        config: &TlsConfig,
        verdict: &Verdict,
    ) -> Result<Self, TlsError> {
        let asks = verdict.asks();
        let (Some(version), Some(suite)) = (
            connection.protocol_version().and_then(Version::from_rustls),
            connection.negotiated_cipher_suite(),
        ) else {
            return Err(TlsError::Misuse {
                what: "the TLS handshake has not finished",
            });
        };
        let shown = connection.peer_certificates().unwrap_or_default();
        let (facts, chain) = match (shown.first(), asks.peer_form) {
            (Some(first), KeyForm::Certificate) => {
                (Facts::read(first), config.inner.seen.keep(shown))
            }
            (Some(key), KeyForm::RawPublicKey) => (Facts::of_key(key), Arc::default()),
            (None, _) if asks.anonymous => (Ok(Facts::of_nobody()), Arc::default()),
            (None, _) => return Err(TlsError::Refused(Refusal::NoCertificate)),
        };
        let anonymous = shown.is_empty();
        let facts = facts.map_err(|problem| TlsError::Refused(Refusal::Unusable { problem }))?;
        // Where a key was shown, the verifier has accepted it; else there are no statements to hold times against.
        let accepted = verdict.accepted();
        let at = accepted.map_or(facts.not_before, |accepted| accepted.at);
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        config.check_alpn(alpn.as_deref())?;
        Ok(Self {
            lineage: Arc::new(Lineage::new(facts.id, Arc::clone(&chain), at)),
            facts,
            anonymous,
            role,
            named: accepted.is_some_and(|accepted| accepted.named),
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

    /// As this peer vouches for one that it has met in a handshake of its own, and that is no peer of this layer: by what that one has
    /// shown, its own certificate first. None where it can't be read.
    pub(crate) fn vouching_for(&self, chain: Vec<CertificateDer<'static>>) -> Option<Self> {
        let facts = Facts::read(chain.first()?).ok()?;
        Some(self.standing_for(facts, chain.into()))
    }

    /// The same for one that has shown its key alone.
    pub(crate) fn vouching_for_key(&self, id: PeerId) -> Self {
        let facts = Facts {
            id,
            ..Facts::of_nobody()
        };
        self.standing_for(facts, Arc::default())
    }

    fn standing_for(&self, facts: Facts, chain: Arc<[CertificateDer<'static>]>) -> Self {
        let lineage = Lineage::new(facts.id, Arc::clone(&chain), UnixTime::now());
        Self {
            lineage: Arc::new(lineage),
            facts,
            chain,
            named: false,
            ..self.clone()
        }
    }

    /// Whether it has shown no key at all, which only a client may, and only where
    /// [`optional_client_certificate`](super::TlsConfigBuilder::optional_client_certificate) says so.
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Who it is. For an [anonymous](Self::is_anonymous) client this is the id of an empty key, which
    /// nobody can have and which is no peer's.
    pub fn id(&self) -> PeerId {
        self.facts.id
    }

    /// Whether it is the peer of this id: by its present key, or by one that it held before
    /// ([`former_ids`](Self::former_ids)). No signature is checked where the id is the present one, or where the
    /// peer's certificate does not mention it. An anonymous client is nobody.
    pub fn is(&self, id: &PeerId) -> bool {
        !self.anonymous && self.lineage.is(id)
    }

    /// The ids of the keys that it held before, oldest first, at most eight: those that the statements in its
    /// certificate prove, each signed by the older and the newer key, up to the present one, and good when the
    /// handshake was made. A statement that is forged or has expired gives nothing. Checked when first asked for,
    /// once for all clones. None for a raw public key, which carries no statements.
    ///
    /// Two peers can share a former id, where a key was stolen and the thief names a successor too; who keeps
    /// something by id notices that, and refuses the second.
    pub fn former_ids(&self) -> &[PeerId] {
        self.lineage.former()
    }

    /// Whether the layer's trust policy lists this very key, or one that it succeeds; not so where it takes anybody
    /// ([`TrustPolicy::names`]).
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// What it has shown, for asking another policy than that of the handshake. Its key is proven.
    pub fn presented(&self, now: UnixTime) -> Presented<'_> {
        let (certificate, chain) = match self.chain.split_first() {
            Some((first, rest)) => (Some(first), rest),
            None => (None, &[][..]),
        };
        let dates = (self.facts.not_before, self.facts.not_after);
        Presented::new(self.facts.id, certificate, chain, dates, now, self.role)
    }

    /// Asks another policy than that of the handshake whether it trusts this peer, as a handshake would have,
    /// dates included; gives whether the policy lists it ([`TrustPolicy::names`]). Nothing is remembered: the
    /// policy's [`proven`](TrustPolicy::proven) is not called. Blocks as long as the policy does.
    ///
    /// # Errors
    /// The policy's refusal; a panic in it is one, and an anonymous client is always refused.
    pub fn judged_by(&self, policy: &dyn TrustPolicy, now: UnixTime) -> Result<bool, Refusal> {
        if self.anonymous {
            return Err(Refusal::NoCertificate);
        }
        let presented = self.presented(now);
        verifier::decide(policy, &presented, None)?;
        Ok(verifier::names(policy, &presented))
    }

    /// Who we are to it. For a client that shows [no certificate](super::TlsConfigBuilder::without_client_certificate) this is the
    /// id of an empty key, as it is for the server.
    pub fn local_id(&self) -> PeerId {
        self.local_id
    }

    /// How it showed its key.
    pub fn key_form(&self) -> KeyForm {
        match self.chain.first() {
            None if !self.anonymous => KeyForm::RawPublicKey,
            _ => KeyForm::Certificate,
        }
    }

    /// The certificate that it showed; none where it showed a raw public key, or nothing.
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
