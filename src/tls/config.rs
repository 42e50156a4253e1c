//! What a TLS layer offers and demands.
//!
//! Not optional, in either role: both sides show a certificate, unless a layer's own configuration
//! lets a client show none; the trust policy is asked; TLS 1.3
//! unless the layer's own configuration asks for 1.2; no session tickets, no resumption, no early
//! data (a resumed session would skip the policy, early data can be replayed); no certificate
//! compression (a small flight must not unpack into a large one); no key log, no extraction of
//! secrets; in TLS 1.2 the extended master secret (RFC 7627), without which a man in the middle can
//! make two sessions share their keys.
//!
//! All connections of a layer share one configuration for each role, and one more for each identity and form of keys that clients ask
//! a server for; what is found out about a peer stands with the connection (see `verifier.rs`). They share no secrets:
//! there is nothing to resume.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SigningKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::config_error::TlsConfigError;
use super::error::{LocalFault, TlsError, quote};
use super::seen::Seen;
use super::shown::{Asked, KeyForm, Shown, asked_for};
use super::verifier::{Asks, Verdict, Verifier, guarded};
use super::version::Version;
use crate::Side;
use crate::identity::{Facts, Identity, PeerId, TrustPolicy, default_provider};

/// Stands where rustls wants a name and none is sent.
const NO_NAME: &str = "cepa.alt";

/// The largest payload of a record, RFC 8446 section 5.1; and the least that rustls can be set to.
const FRAGMENTS: std::ops::RangeInclusive<usize> = 32..=16_384;

const TLS13_ALONE: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// rustls counts a record's header into its fragment size.
const RECORD_HEADER: usize = 5;

/// The configuration of a TLS layer, for either role, made by [`new`](Self::new) or [`builder`](Self::builder). Cheap to
/// clone.
#[derive(Clone)]
pub struct TlsConfig {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: Settings,
    /// The provider, cut down to the suites and groups that were asked for.
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// Our identities; a client shows the first.
    shown: Vec<Shown>,
    /// What a client asks for.
    server_name: Option<ServerName<'static>>,
    client: Ready<ClientConfig>,
    /// For each of `shown`, and each form of our key and of the client's, once it was asked for.
    servers: Vec<[OnceLock<Ready<ServerConfig>>; 4]>,
    pub(super) seen: Seen,
}

/// A configuration for rustls, and what connections with it are about.
#[derive(Clone)]
struct Ready<C> {
    config: Arc<C>,
    asks: Arc<Asks>,
}

impl<C> Ready<C> {
    /// For one connection, with nothing found out about its peer.
    fn connection(&self) -> (Arc<C>, Verdict) {
        (
            Arc::clone(&self.config),
            Verdict::new(Arc::clone(&self.asks)),
        )
    }
}

/// What was said of a layer, as it was said; [`Settings::build`] judges it.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) identity: Identity,
    pub(super) more_identities: Vec<Identity>,
    pub(super) key_form: KeyForm,
    /// As server: a client need not show a certificate.
    pub(super) optional_client: bool,
    /// As client: we show none.
    pub(super) anonymous: bool,
    pub(super) trust: Arc<dyn TrustPolicy>,
    pub(super) base: Arc<CryptoProvider>,
    pub(super) versions: Vec<Version>,
    pub(super) suites: Option<Vec<u16>>,
    pub(super) groups: Option<Vec<u16>>,
    pub(super) alpn: Arc<[Vec<u8>]>,
    pub(super) alpn_required: bool,
    pub(super) server_name: Option<String>,
    /// Whom a client asks for by that name, and whether it takes nobody else.
    pub(super) asked: Option<PeerId>,
    pub(super) only_asked: bool,
    pub(super) max_fragment: Option<usize>,
    pub(super) clock: Arc<dyn TimeProvider>,
}

impl TlsConfig {
    /// The identity that this layer shows.
    pub fn identity(&self) -> &Identity {
        &self.inner.settings.identity
    }

    /// The most bytes of payload in one record.
    pub fn max_fragment(&self) -> usize {
        self.inner.settings.max_fragment.unwrap_or(*FRAGMENTS.end())
    }

    /// Our identities, as a server shows them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn shown(&self) -> &[Shown] {
        &self.inner.shown
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// For one connection as client: the configuration, and where its verdict will stand.
    pub(crate) fn client(&self) -> (Arc<ClientConfig>, Verdict) {
        self.inner.client.connection()
    }

    /// For one connection as server, whose client asks for this: the configuration, and where its
    /// verdict will stand.
    pub(crate) fn server(&self, asked: &Asked) -> Result<(Arc<ServerConfig>, Verdict), TlsError> {
        let inner = &self.inner;
        let settings = &inner.settings;
        let chosen = asked_for(&inner.shown, asked.name.as_deref());
        let Some((at, shown)) = chosen else {
            return Err(TlsError::UnknownName {
                name: asked.name.clone().unwrap_or_default(),
            });
        };
        let (own_form, peer_form) = if settings.versions.contains(&Version::Tls13) {
            asked.forms(settings.key_form)
        } else {
            Default::default()
        };
        let raw = |form| usize::from(form == KeyForm::RawPublicKey);
        let slot = inner
            .servers
            .get(at)
            .and_then(|forms| forms.get(2 * raw(own_form) + raw(peer_form)));
        if let Some(ready) = slot.and_then(OnceLock::get) {
            return Ok(ready.connection());
        }
        let made = self.make_server(shown, own_form, peer_form)?;
        // Of two that are made at once, one is enough.
        let ready = slot.map_or(&made, |slot| slot.get_or_init(|| made.clone()));
        Ok(ready.connection())
    }

    fn make_server(
        &self,
        shown: &Shown,
        own_form: KeyForm,
        peer_form: KeyForm,
    ) -> Result<Ready<ServerConfig>, TlsError> {
        let inner = &self.inner;
        let settings = &inner.settings;
        let asks = Arc::new(Asks {
            alpn: Arc::clone(&settings.alpn),
            asked: None,
            peer: None,
            local_id: shown.id(),
            peer_form,
            anonymous: settings.optional_client,
        });
        // A raw key has its place in TLS 1.3 alone.
        let raw = [own_form, peer_form].contains(&KeyForm::RawPublicKey);
        let versions = if raw { TLS13_ALONE } else { &inner.versions };
        let mut config = ServerConfig::builder_with_details(
            Arc::clone(&inner.provider),
            Arc::clone(&settings.clock),
        )
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Local {
            fault: LocalFault::Configuration(error.to_string()),
        })?
        .with_client_cert_verifier(settings.verifier(&inner.provider, Side::Client, &asks))
        .with_cert_resolver(shown.to_client(own_form));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // The order of suites is part of a layer's configuration, and ours holds.
        config.ignore_client_order = true;
        config.max_early_data_size = 0;
        #[cfg(feature = "tls12")]
        {
            config.require_ems = true;
        }
        config.cert_compressors = Vec::new();
        config.cert_decompressors = Vec::new();
        config.alpn_protocols = settings.alpn.to_vec();
        config.max_fragment_size = settings.max_fragment.map(|bytes| bytes + RECORD_HEADER);
        Ok(Ready {
            config: Arc::new(config),
            asks,
        })
    }

    /// The name that a client asks for, for rustls; whether it is sent stands in the configuration.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, TlsError> {
        match &self.inner.server_name {
            Some(name) => Ok(name.clone()),
            None => name(NO_NAME).map_err(|error| TlsError::Local {
                fault: LocalFault::Configuration(error.to_string()),
            }),
        }
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

    /// Whether the trust policy may block the thread that asks it. One that panics about that may do anything.
    pub(super) fn may_block(&self) -> bool {
        let trust = &self.inner.settings.trust;
        guarded(|| trust.may_block()).unwrap_or(true)
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
            .field("key_form", &settings.key_form)
            .field("more_identities", &settings.more_identities)
            .finish_non_exhaustive()
    }
}

/// Always the same, so that two configurations that have it can be told to be alike.
fn system_clock() -> Arc<dyn TimeProvider> {
    static CLOCK: OnceLock<Arc<dyn TimeProvider>> = OnceLock::new();
    Arc::clone(CLOCK.get_or_init(|| Arc::new(DefaultTimeProvider)))
}

impl Settings {
    pub(super) fn new(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> Self {
        Self {
            identity: identity.clone(),
            more_identities: Vec::new(),
            key_form: KeyForm::default(),
            optional_client: false,
            anonymous: false,
            trust,
            base: default_provider(),
            versions: vec![Version::Tls13],
            suites: None,
            groups: None,
            alpn: Arc::new([]),
            alpn_required: false,
            server_name: None,
            asked: None,
            only_asked: false,
            max_fragment: None,
            clock: system_clock(),
        }
    }

    pub(super) fn build(self) -> Result<TlsConfig, TlsConfigError> {
        // One length byte on the wire, and no empty names (RFC 7301 section 3.1).
        let mut lengths = self.alpn.iter().map(Vec::len);
        if let Some(length) = lengths.find(|length| !(1..=255).contains(length)) {
            return Err(TlsConfigError::Alpn { length });
        }
        if let Some(bytes) = self.max_fragment.filter(|bytes| !FRAGMENTS.contains(bytes)) {
            return Err(TlsConfigError::Fragment { bytes });
        }
        let server_name = self.server_name.as_deref().map(name).transpose()?;
        let provider = self.provider()?;
        if self.key_form == KeyForm::RawPublicKey && self.versions != [Version::Tls13] {
            return Err(TlsConfigError::RawKeyVersion);
        }
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|version| version.to_rustls())
            .collect();
        let first = self.shown(&self.identity)?;
        let resolver = first.to_server(self.key_form);
        let mut shown = vec![first];
        for identity in &self.more_identities {
            shown.push(self.shown(identity)?);
        }
        let asks = Arc::new(Asks {
            alpn: Arc::clone(&self.alpn),
            asked: self.asked,
            peer: self.asked.filter(|_| self.only_asked),
            // As the server sees us, who shows nothing.
            local_id: if self.anonymous {
                Facts::of_nobody().id
            } else {
                self.identity.peer_id()
            },
            peer_form: self.key_form,
            anonymous: false,
        });
        let verifier = self.verifier(&provider, Side::Server, &asks);
        let builder =
            ClientConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&self.clock))
                .with_protocol_versions(&versions)
                .map_err(|error| TlsConfigError::Backend {
                    reason: error.to_string(),
                })?
                .dangerous()
                .with_custom_certificate_verifier(verifier);
        let mut client = if self.anonymous {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_resolver(resolver)
        };
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        #[cfg(feature = "tls12")]
        {
            client.require_ems = true;
        }
        client.enable_sni = server_name.is_some();
        client.cert_compressors = Vec::new();
        client.cert_decompressors = Vec::new();
        client.alpn_protocols = self.alpn.to_vec();
        client.max_fragment_size = self.max_fragment.map(|bytes| bytes + RECORD_HEADER);
        Ok(TlsConfig {
            inner: Arc::new(Inner {
                settings: self,
                provider,
                versions,
                servers: shown.iter().map(|_| Default::default()).collect(),
                shown,
                server_name,
                seen: Seen::default(),
                client: Ready {
                    config: Arc::new(client),
                    asks,
                },
            }),
        })
    }

    /// The verifier of connections that are about this, with peers of this role.
    fn verifier(&self, provider: &CryptoProvider, role: Side, asks: &Arc<Asks>) -> Arc<Verifier> {
        Arc::new(Verifier::new(
            Arc::clone(&self.trust),
            provider.signature_verification_algorithms,
            Version::any_before_tls13(&self.versions),
            role,
            Arc::clone(asks),
        ))
    }

    /// An identity of ours, with its key as the provider in use wants it.
    fn shown(&self, identity: &Identity) -> Result<Shown, TlsConfigError> {
        let key: Arc<dyn SigningKey> = if Arc::ptr_eq(&self.base, &default_provider()) {
            Arc::clone(&identity.certified().key)
        } else {
            let loaded = self
                .base
                .key_provider
                .load_private_key(identity.private_key().clone_key());
            loaded.map_err(|error| TlsConfigError::Backend {
                reason: error.to_string(),
            })?
        };
        Ok(Shown::new(identity, key))
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
