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
//! Each connection gets a configuration of its own from here: they share all that is costly, and
//! differ in the verifier, which carries that connection's verdict (see `verifier.rs`).

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SigningKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::config_error::TlsConfigError;
use super::error::{TlsError, quote};
use super::shown::{Asked, KeyForm, Shown, asked_for, name_of};
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

/// The configuration of a TLS layer, for either role. Cheap to clone.
#[derive(Clone)]
pub struct TlsConfig {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    /// The provider, cut down to the suites and groups that were asked for.
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// Our identities; a client shows the first.
    shown: Vec<Shown>,
    /// Complete but for the verifier.
    client: ClientConfig,
}

#[derive(Clone)]
struct Settings {
    identity: Identity,
    more_identities: Vec<Identity>,
    key_form: KeyForm,
    /// As server: a client need not show a certificate.
    optional_client: bool,
    /// As client: we show none.
    anonymous: bool,
    trust: Arc<dyn TrustPolicy>,
    base: Arc<CryptoProvider>,
    versions: Vec<Version>,
    suites: Option<Vec<u16>>,
    groups: Option<Vec<u16>>,
    alpn: Arc<[Vec<u8>]>,
    alpn_required: bool,
    server_name: Option<ServerName<'static>>,
    /// Whom a client asks for by that name, and whether it takes nobody else.
    asked: Option<PeerId>,
    only_asked: bool,
    max_fragment: Option<usize>,
    clock: Arc<dyn TimeProvider>,
}

impl TlsConfig {
    /// TLS 1.3 with mutual authentication: we show `identity`, and `trust` decides on the peer.
    pub fn new(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> Result<Self, TlsConfigError> {
        Settings {
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

    /// Further identities of a server behind the same listener. A client chooses by the name that it
    /// asks for: `<peer id>.cepa.alt` gets that identity, and no name the first one, given to
    /// [`new`](Self::new). With more than one identity, any other name is refused (alert
    /// unrecognized_name). A client shows the first identity.
    pub fn with_more_identities(self, identities: &[Identity]) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.more_identities = identities.to_vec();
        settings.build()
    }

    /// How keys are shown: a client shows its own in this form, and asks for the server's in it. A
    /// server takes what the client offers, and prefers this form where it is offered both (RFC 7250
    /// section 4). TLS 1.3 only.
    pub fn with_key_form(self, form: KeyForm) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.key_form = form;
        settings.build()
    }

    /// As server: asks for the client's certificate, and also lets in who shows none
    /// ([`Peer::is_anonymous`](super::Peer::is_anonymous)); the application decides what that one may
    /// see. Whatever is shown is judged by the policy as ever. No session is made with such a peer.
    pub fn with_optional_client_certificate(self) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.optional_client = true;
        settings.build()
    }

    /// As client: shows no certificate, even to a server that asks for one. A server of ours refuses
    /// that, unless it was told [otherwise](Self::with_optional_client_certificate).
    pub fn without_client_certificate(self) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.anonymous = true;
        settings.build()
    }

    /// The name that we ask a server for (SNI, RFC 6066). It picks one of several identities behind
    /// a listener; it proves nothing, and is not compared with the certificate. It goes over the wire
    /// in the clear. Without one, and for an IP address, no name is sent.
    pub fn with_server_name(self, server_name: &str) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.server_name = Some(name(server_name)?);
        settings.asked = None;
        settings.only_asked = false;
        settings.build()
    }

    /// Asks for one peer by its id, by the name `<peer id>.cepa.alt`, and refuses any other server,
    /// whatever the trust policy says to it.
    pub fn with_server_peer(self, peer: PeerId) -> Result<Self, TlsConfigError> {
        let mut settings = self.asking_for(peer)?.into_settings();
        settings.only_asked = true;
        settings.build()
    }

    /// Asks for one peer by its id, and leaves it to the trust policy who may answer: the holder of a
    /// key that has replaced the one that we know, say.
    pub fn asking_for(self, peer: PeerId) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.server_name = Some(name(&name_of(peer))?);
        settings.asked = Some(peer);
        settings.only_asked = false;
        settings.build()
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

    /// Another cryptographic provider than the feature's; those of rustls are in [`rustls::crypto`](super::rustls::crypto).
    ///
    /// # Errors
    /// When it has nothing for what is configured.
    pub fn with_provider(self, provider: Arc<CryptoProvider>) -> Result<Self, TlsConfigError> {
        let mut settings = self.into_settings();
        settings.base = provider;
        settings.build()
    }

    /// Another clock to hold certificates' dates against than the system's.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// # use cepa::identity::{AcceptAny, Identity, KeyKind};
    /// use cepa::tls::{TimeProvider, TlsConfig, UnixTime};
    ///
    /// /// A device without a clock of its own, which was told the time.
    /// #[derive(Debug)]
    /// struct Told(u64);
    ///
    /// impl TimeProvider for Told {
    ///     fn current_time(&self) -> Option<UnixTime> {
    ///         Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    ///     }
    /// }
    ///
    /// # let identity = Identity::generate(KeyKind::Ed25519)?;
    /// # let trust = Arc::new(AcceptAny);
    /// let tls = TlsConfig::new(&identity, trust)?.with_clock(Arc::new(Told(1_800_000_000)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// None that the configuration did not have before.
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

    /// Our identities, as a server shows them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn shown(&self) -> &[Shown] {
        &self.inner.shown
    }

    fn into_settings(self) -> Settings {
        match Arc::try_unwrap(self.inner) {
            Ok(inner) => inner.settings,
            Err(shared) => shared.settings.clone(),
        }
    }

    /// For one connection as client: the configuration, and where its verdict will stand.
    pub(crate) fn client(&self) -> (Arc<ClientConfig>, Verdict) {
        let settings = &self.inner.settings;
        let verdict = Verdict::new(Asks {
            alpn: Arc::clone(&settings.alpn),
            asked: settings.asked,
            peer: settings.asked.filter(|_| settings.only_asked),
            // As the server sees us, who shows nothing.
            local_id: if settings.anonymous {
                Facts::of_nobody().id
            } else {
                settings.identity.peer_id()
            },
            peer_form: settings.key_form,
            anonymous: false,
        });
        let mut config = self.inner.client.clone();
        config
            .dangerous()
            .set_certificate_verifier(self.verifier(Side::Server, &verdict));
        (Arc::new(config), verdict)
    }

    /// For one connection as server, whose client asks for this: the configuration, and where its
    /// verdict will stand.
    pub(crate) fn server(&self, asked: &Asked) -> Result<(Arc<ServerConfig>, Verdict), TlsError> {
        let inner = &self.inner;
        let settings = &inner.settings;
        let Some(shown) = asked_for(&inner.shown, asked.name.as_deref()) else {
            return Err(TlsError::UnknownName {
                name: asked.name.clone().unwrap_or_default(),
            });
        };
        let (own_form, peer_form) = if settings.versions.contains(&Version::Tls13) {
            asked.forms(settings.key_form)
        } else {
            Default::default()
        };
        let verdict = Verdict::new(Asks {
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
            detail: error.to_string(),
        })?
        .with_client_cert_verifier(self.verifier(Side::Client, &verdict))
        .with_cert_resolver(shown.to_client(own_form));
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

    /// The name that a client asks for, for rustls; whether it is sent stands in the configuration.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, TlsError> {
        match &self.inner.settings.server_name {
            Some(name) => Ok(name.clone()),
            None => name(NO_NAME).map_err(|error| TlsError::Local {
                detail: error.to_string(),
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

    fn verifier(&self, role: Side, verdict: &Verdict) -> Arc<Verifier> {
        Arc::new(Verifier::new(
            Arc::clone(&self.inner.settings.trust),
            self.inner.provider.signature_verification_algorithms,
            self.inner.settings.versions.contains(&Version::Tls12),
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
            .field("key_form", &settings.key_form)
            .field("more_identities", &settings.more_identities)
            .finish_non_exhaustive()
    }
}

impl Settings {
    fn build(self) -> Result<TlsConfig, TlsConfigError> {
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
        // Each connection gets a verifier of its own in place of this one.
        let verifier = Arc::new(Verifier::new(
            Arc::clone(&self.trust),
            provider.signature_verification_algorithms,
            self.versions.contains(&Version::Tls12),
            Side::Server,
            Verdict::default(),
        ));
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
        client.require_ems = true;
        client.enable_sni = self.server_name.is_some();
        client.cert_compressors = Vec::new();
        client.cert_decompressors = Vec::new();
        client.alpn_protocols = self.alpn.to_vec();
        client.max_fragment_size = self.max_fragment.map(|bytes| bytes + RECORD_HEADER);
        Ok(TlsConfig {
            inner: Arc::new(Inner {
                settings: self,
                provider,
                versions,
                shown,
                client,
            }),
        })
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
