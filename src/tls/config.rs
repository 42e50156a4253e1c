//! What a TLS layer offers and demands.
//!
//! Not optional, in either role: both sides show a certificate; the trust policy is asked; TLS 1.3
//! unless the layer's own configuration asks for 1.2; no session tickets, no resumption, no early
//! data (a resumed session would skip the policy, early data can be replayed); no certificate
//! compression (a small flight must not unpack into a large one); no key log, no extraction of
//! secrets; in TLS 1.2 the extended master secret (RFC 7627), without which a man in the middle can
//! make two sessions share their keys.
//!
//! Each connection gets a configuration of its own from here: they share all that is costly, and
//! differ in the verifier, which carries that connection's verdict (see `verifier.rs`).

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::error::{TlsError, quote};
use super::verifier::{Verdict, Verifier};
use crate::Side;
use crate::identity::{Identity, PeerId, TrustPolicy, default_provider};

/// Sent as server name where none was set. `.alt` is no part of the DNS (RFC 9476), so it can't be
/// mistaken for a name that someone owns.
const DEFAULT_SERVER_NAME: &str = "cepa.alt";

/// The largest payload of a record, RFC 8446 section 5.1; and the least that rustls can be set to.
const FRAGMENTS: std::ops::RangeInclusive<usize> = 32..=16_384;

/// rustls counts a record's header into its fragment size.
const RECORD_HEADER: usize = 5;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2 (RFC 5246), for peers that have nothing better.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Version {
    /// The number on the wire: 0x0303 or 0x0304.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }

    pub(super) fn from_rustls(version: rustls::ProtocolVersion) -> Option<Self> {
        match version {
            rustls::ProtocolVersion::TLSv1_2 => Some(Self::Tls12),
            rustls::ProtocolVersion::TLSv1_3 => Some(Self::Tls13),
            _ => None,
        }
    }

    fn to_rustls(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &rustls::version::TLS12,
            Self::Tls13 => &rustls::version::TLS13,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}

/// The configuration of a TLS layer, for either role. Cheap to clone.
#[derive(Clone)]
pub struct TlsConfig {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    settings: Settings,
    /// The provider, cut down to the suites and groups that were asked for.
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    resolver: Arc<SingleCertAndKey>,
    /// Complete but for the verifier.
    client: ClientConfig,
}

#[derive(Clone)]
struct Settings {
    identity: Identity,
    trust: Arc<dyn TrustPolicy>,
    base: Arc<CryptoProvider>,
    versions: Vec<Version>,
    suites: Option<Vec<u16>>,
    groups: Option<Vec<u16>>,
    alpn: Arc<[Vec<u8>]>,
    alpn_required: bool,
    server_name: ServerName<'static>,
    max_fragment: Option<usize>,
    clock: Arc<dyn TimeProvider>,
}

impl TlsConfig {
    /// TLS 1.3 with mutual authentication: we show `identity`, and `trust` decides on the peer.
    pub fn new(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> Result<Self, TlsConfigError> {
        Settings {
            identity: identity.clone(),
            trust,
            base: default_provider(),
            versions: vec![Version::Tls13],
            suites: None,
            groups: None,
            alpn: Arc::new([]),
            alpn_required: false,
            server_name: name(DEFAULT_SERVER_NAME)?,
            max_fragment: None,
            clock: Arc::new(DefaultTimeProvider),
        }
        .build()
    }

    /// The protocols spoken inside this layer, best first; the handshake fails unless both sides
    /// agree on one (RFC 7301).
    ///
    /// Demanding one keeps a peer of another protocol from being talked into misreading ours.
    pub fn with_alpn<P: AsRef<[u8]>>(self, protocols: &[P]) -> Result<Self, TlsConfigError> {
        self.alpn(protocols, true)
    }

    /// As [`with_alpn`](Self::with_alpn), but a peer that names no protocol at all is accepted.
    pub fn with_optional_alpn<P: AsRef<[u8]>>(
        self,
        protocols: &[P],
    ) -> Result<Self, TlsConfigError> {
        self.alpn(protocols, false)
    }

    fn alpn<P: AsRef<[u8]>>(self, protocols: &[P], required: bool) -> Result<Self, TlsConfigError> {
        let protocols: Vec<Vec<u8>> = protocols
            .iter()
            .map(|name| name.as_ref().to_vec())
            .collect();
        // One length byte on the wire, and no empty names (RFC 7301 section 3.1).
        if let Some(bad) = protocols
            .iter()
            .find(|name| !(1..=255).contains(&name.len()))
        {
            return Err(TlsConfigError::Alpn { length: bad.len() });
        }
        let mut settings = self.into_settings();
        settings.alpn_required = required && !protocols.is_empty();
        settings.alpn = protocols.into();
        settings.build()
    }

    /// The versions to offer and accept. Set these before single suites.
    pub fn with_versions(self, versions: &[Version]) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.versions = versions.to_vec();
        settings.versions.sort_unstable();
        settings.versions.dedup();
        settings.build()
    }

    /// Only these cipher suites, by IANA code, best first: 0x1301 is `TLS_AES_128_GCM_SHA256`.
    pub fn with_suites(self, suites: &[u16]) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.suites = Some(suites.to_vec());
        settings.build()
    }

    /// Only these key exchange groups, by IANA code, best first: 0x001d is X25519, 0x11ec is
    /// X25519MLKEM768. X25519 alone saves 2.3 kB of handshake on a slow line, and gives up
    /// protection against recordings that a quantum computer reads one day.
    pub fn with_groups(self, groups: &[u16]) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.groups = Some(groups.to_vec());
        settings.build()
    }

    /// The name that we ask a server for (SNI, RFC 6066). It picks one of several identities behind
    /// a listener; it proves nothing, and is not compared with the certificate. An IP address is not
    /// sent. It goes over the wire in the clear.
    pub fn with_server_name(self, server_name: &str) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.server_name = name(server_name)?;
        settings.build()
    }

    /// Asks for one peer by its id: `<peer id>.cepa.alt`.
    pub fn with_server_peer(self, peer: PeerId) -> Result<Self, TlsConfigError> {
        self.with_server_name(&format!("{peer}.cepa.alt"))
    }

    /// The most bytes of payload in one record that we send, from 32 to 16,384 (the default).
    pub fn with_max_fragment(self, bytes: usize) -> Result<Self, TlsConfigError> {
        if !FRAGMENTS.contains(&bytes) {
            return Err(TlsConfigError::Fragment { bytes });
        }
        let mut settings = self.into_settings();
        settings.max_fragment = Some(bytes);
        settings.build()
    }

    /// Another cryptographic provider than the feature's.
    pub fn with_provider(self, provider: Arc<CryptoProvider>) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.base = provider;
        settings.build()
    }

    /// Another clock to hold certificates' dates against than the system's.
    pub fn with_clock(self, clock: Arc<dyn TimeProvider>) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.clock = clock;
        settings.build()
    }

    /// Another trust policy; all else stays.
    pub fn with_trust(self, trust: Arc<dyn TrustPolicy>) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.trust = trust;
        settings.build()
    }

    /// The identity that this layer shows.
    pub fn identity(&self) -> &Identity {
        &self.inner.settings.identity
    }

    /// The most bytes of payload in one record.
    pub fn max_fragment(&self) -> usize {
        self.inner.settings.max_fragment.unwrap_or(*FRAGMENTS.end())
    }

    fn into_settings(self) -> Settings {
        Arc::unwrap_or_clone(self.inner).settings
    }

    /// For one connection as client: the configuration, and where its verdict will stand.
    pub(crate) fn client(&self) -> (Arc<ClientConfig>, Verdict) {
        let verdict = Verdict::new(Arc::clone(&self.inner.settings.alpn));
        let mut config = self.inner.client.clone();
        config
            .dangerous()
            .set_certificate_verifier(self.verifier(Side::Server, &verdict));
        (Arc::new(config), verdict)
    }

    /// For one connection as server: the configuration, and where its verdict will stand.
    pub(crate) fn server(&self) -> Result<(Arc<ServerConfig>, Verdict), TlsError> {
        let settings = &self.inner.settings;
        let verdict = Verdict::new(Arc::clone(&settings.alpn));
        let mut config = ServerConfig::builder_with_details(
            Arc::clone(&self.inner.provider),
            Arc::clone(&settings.clock),
        )
        .with_protocol_versions(&self.inner.versions)
        .map_err(|error| TlsError::Local {
            detail: error.to_string(),
        })?
        .with_client_cert_verifier(self.verifier(Side::Client, &verdict))
        .with_cert_resolver(Arc::clone(&self.inner.resolver) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // The order of suites is part of a layer's configuration, and ours holds.
        config.ignore_client_order = true;
        config.max_early_data_size = 0;
        config.require_ems = true;
        config.cert_compressors = Vec::new();
        config.cert_decompressors = Vec::new();
        config.alpn_protocols = settings.alpn.to_vec();
        config.max_fragment_size = settings.max_fragment.map(|bytes| bytes + RECORD_HEADER);
        Ok((Arc::new(config), verdict))
    }

    /// The name that a client asks for.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.inner.settings.server_name.clone()
    }

    /// Is the protocol that was agreed on (or not) in order?
    pub(super) fn check_alpn(&self, got: Option<&[u8]>) -> Result<(), TlsError> {
        let settings = &self.inner.settings;
        let fine = match got {
            Some(got) => settings.alpn.iter().any(|name| name == got),
            None => !settings.alpn_required,
        };
        if fine {
            return Ok(());
        }
        Err(TlsError::Alpn {
            required: settings.alpn.to_vec(),
            got: got.map(<[u8]>::to_vec),
        })
    }

    fn verifier(&self, role: Side, verdict: &Verdict) -> Arc<Verifier> {
        Arc::new(Verifier::new(
            Arc::clone(&self.inner.settings.trust),
            self.inner.provider.signature_verification_algorithms,
            role,
            verdict.clone(),
        ))
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.inner.settings;
        let alpn: Vec<_> = settings.alpn.iter().map(|name| quote(name)).collect();
        f.debug_struct("TlsConfig")
            .field("identity", &settings.identity)
            .field("trust", &settings.trust)
            .field("versions", &settings.versions)
            .field("suites", &settings.suites)
            .field("groups", &settings.groups)
            .field("alpn", &alpn)
            .field("server_name", &settings.server_name)
            .finish_non_exhaustive()
    }
}

impl Settings {
    fn build(self) -> Result<TlsConfig, TlsConfigError> {
        let provider = self.provider()?;
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|version| version.to_rustls())
            .collect();
        let resolver = Arc::new(SingleCertAndKey::from(self.certified()?));
        let verifier = Arc::new(Verifier::new(
            Arc::clone(&self.trust),
            provider.signature_verification_algorithms,
            Side::Server,
            Verdict::new(Arc::clone(&self.alpn)),
        ));
        let mut client =
            ClientConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&self.clock))
                .with_protocol_versions(&versions)
                .map_err(|error| TlsConfigError::Backend {
                    reason: error.to_string(),
                })?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_client_cert_resolver(Arc::clone(&resolver) as _);
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.require_ems = true;
        client.cert_compressors = Vec::new();
        client.cert_decompressors = Vec::new();
        client.alpn_protocols = self.alpn.to_vec();
        client.max_fragment_size = self.max_fragment.map(|bytes| bytes + RECORD_HEADER);
        Ok(TlsConfig {
            inner: Arc::new(Inner {
                settings: self,
                provider,
                versions,
                resolver,
                client,
            }),
        })
    }

    /// Our chain, with the key as the provider in use wants it.
    fn certified(&self) -> Result<Arc<CertifiedKey>, TlsConfigError> {
        if Arc::ptr_eq(&self.base, &default_provider()) {
            return Ok(Arc::clone(self.identity.certified()));
        }
        let key = self
            .base
            .key_provider
            .load_private_key(self.identity.private_key().clone_key())
            .map_err(|error| TlsConfigError::Backend {
                reason: error.to_string(),
            })?;
        Ok(Arc::new(CertifiedKey::new(
            self.identity.chain().to_vec(),
            key,
        )))
    }

    /// The provider with the suites and groups that were asked for, in that order.
    fn provider(&self) -> Result<Arc<CryptoProvider>, TlsConfigError> {
        if self.versions.is_empty() {
            return Err(TlsConfigError::NoVersion);
        }
        if self.suites.is_none() && self.groups.is_none() {
            return Ok(Arc::clone(&self.base));
        }
        let mut provider = CryptoProvider::clone(&self.base);
        if let Some(codes) = &self.suites {
            provider.cipher_suites = pick(codes, |code| {
                self.base
                    .cipher_suites
                    .iter()
                    .find(|suite| u16::from(suite.suite()) == code)
                    .copied()
            })
            .map_err(|code| TlsConfigError::UnknownSuite { code })?;
            for suite in &provider.cipher_suites {
                let fits = self
                    .versions
                    .iter()
                    .any(|version| version.to_rustls() == suite.version());
                if !fits {
                    return Err(TlsConfigError::SuiteVersion {
                        code: u16::from(suite.suite()),
                    });
                }
            }
        }
        if let Some(codes) = &self.groups {
            provider.kx_groups = pick(codes, |code| {
                self.base
                    .kx_groups
                    .iter()
                    .find(|group| u16::from(group.name()) == code)
                    .copied()
            })
            .map_err(|code| TlsConfigError::UnknownGroup { code })?;
        }
        // A version for which nothing is left would only fail later, in a handshake.
        for version in &self.versions {
            if !provider
                .cipher_suites
                .iter()
                .any(|suite| suite.version() == version.to_rustls())
            {
                return Err(TlsConfigError::NoSuite { version: *version });
            }
        }
        if provider.kx_groups.is_empty() {
            return Err(TlsConfigError::NoGroup);
        }
        Ok(Arc::new(provider))
    }
}

/// Looks all codes up; the first that is not there is the error.
fn pick<T>(codes: &[u16], find: impl Fn(u16) -> Option<T>) -> Result<Vec<T>, u16> {
    codes.iter().map(|code| find(*code).ok_or(*code)).collect()
}

fn name(text: &str) -> Result<ServerName<'static>, TlsConfigError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsConfigError::ServerName {
        name: text.to_owned(),
    })
}

/// A layer's configuration that can't work. Each text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// No version at all.
    #[error("a TLS layer needs a version: name TLS 1.3, or TLS 1.2 for old peers")]
    NoVersion,
    /// A cipher suite that the provider lacks.
    #[error(
        "cipher suite 0x{code:04x} is not available: choose another one, or another cryptographic backend"
    )]
    UnknownSuite {
        /// Its IANA code.
        code: u16,
    },
    /// A cipher suite of a version that is not enabled.
    #[error(
        "cipher suite 0x{code:04x} belongs to a TLS version that this layer does not enable: set the versions first"
    )]
    SuiteVersion {
        /// Its IANA code.
        code: u16,
    },
    /// A version for which no suite is left.
    #[error("no cipher suite is left for {version}: name one, or leave that version out")]
    NoSuite {
        /// The version.
        version: Version,
    },
    /// A key exchange group that the provider lacks.
    #[error(
        "key exchange group 0x{code:04x} is not available: choose another one, or another cryptographic backend"
    )]
    UnknownGroup {
        /// Its IANA code.
        code: u16,
    },
    /// No key exchange group at all.
    #[error("a TLS layer needs a key exchange group: name one, 0x001d is X25519")]
    NoGroup,
    /// A protocol name of a length that ALPN can't carry.
    #[error("an ALPN name has 1 to 255 bytes, this has {length}")]
    Alpn {
        /// Its length in bytes.
        length: usize,
    },
    /// Neither a host name nor an IP address.
    #[error("{name:?} can't be asked for as a server name: use a host name or an IP address")]
    ServerName {
        /// What was given.
        name: String,
    },
    /// A fragment size out of range.
    #[error("a record carries 32 to 16384 bytes, not {bytes}")]
    Fragment {
        /// What was given.
        bytes: usize,
    },
    /// The cryptographic provider does not take the settings or the key.
    #[error(
        "the cryptographic backend does not take these settings ({reason}): use another key, suite or backend"
    )]
    Backend {
        /// What it says.
        reason: String,
    },
}
