//! How a TLS layer's configuration is made: everything is said first, in any order, and judged once, by
//! [`TlsConfigBuilder::build`].
//!
//! Each method replaces what was said before of the same thing, and touches nothing else; so a configuration that exists is
//! changed in the same way, by [`TlsConfig::to_builder`].

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;

use super::config::{Settings, TlsConfig};
use super::config_error::TlsConfigError;
use super::shown::{KeyForm, name_of};
use super::version::Version;
use crate::identity::{Identity, PeerId, TrustPolicy};

impl TlsConfig {
    /// TLS 1.3 with mutual authentication: we show `identity`, and `trust` decides on the peer. For anything else there is
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    /// When the cryptographic backend does not take the key.
    pub fn new(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> Result<Self, TlsConfigError> {
        Self::builder(identity, trust).build()
    }

    /// The same with more to say.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use cepa::identity::{AcceptAny, Identity, KeyKind};
    /// use cepa::tls::{TlsConfig, Version};
    ///
    /// let identity = Identity::generate(KeyKind::P256)?;
    /// let tls = TlsConfig::builder(&identity, Arc::new(AcceptAny))
    ///     .alpn(&["h2"])
    ///     .versions(&[Version::Tls12, Version::Tls13])
    ///     .server_name("db.example")
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> TlsConfigBuilder {
        let settings = Settings::new(identity, trust);
        TlsConfigBuilder { settings }
    }

    /// A builder that has this configuration's settings, to make another one of it.
    pub fn to_builder(&self) -> TlsConfigBuilder {
        let settings = self.settings().clone();
        TlsConfigBuilder { settings }
    }
}

/// Collects what a TLS layer offers and demands: [`TlsConfig::builder`].
#[derive(Clone)]
#[must_use = "it is a configuration once it is built"]
pub struct TlsConfigBuilder {
    settings: Settings,
}

impl TlsConfigBuilder {
    /// The protocols spoken inside this layer, best first; the handshake fails unless both sides
    /// agree on one (RFC 7301). Each name has 1 to 255 bytes.
    ///
    /// Demanding one keeps a peer of another protocol from being talked into misreading ours.
    pub fn alpn<P: AsRef<[u8]>>(self, protocols: &[P]) -> Self {
        self.protocols(protocols, !protocols.is_empty())
    }

    /// As [`alpn`](Self::alpn), but a peer that names no protocol at all is accepted.
    pub fn optional_alpn<P: AsRef<[u8]>>(self, protocols: &[P]) -> Self {
        self.protocols(protocols, false)
    }

    fn protocols<P: AsRef<[u8]>>(mut self, protocols: &[P], required: bool) -> Self {
        self.settings.alpn = protocols
            .iter()
            .map(|name| name.as_ref().to_vec())
            .collect();
        self.settings.alpn_required = required;
        self
    }

    /// The versions to offer and accept; default TLS 1.3 alone.
    pub fn versions(mut self, versions: &[Version]) -> Self {
        let mut versions = versions.to_vec();
        versions.sort_unstable();
        versions.dedup();
        self.settings.versions = versions;
        self
    }

    /// Only these cipher suites, by IANA code, best first: 0x1301 is `TLS_AES_128_GCM_SHA256`. Default: all that
    /// the backend has.
    pub fn suites(mut self, suites: &[u16]) -> Self {
        self.settings.suites = Some(suites.to_vec());
        self
    }

    /// Only these key exchange groups, by IANA code, best first: 0x001d is X25519, 0x11ec is
    /// X25519MLKEM768. X25519 alone saves 2.3 kB of handshake on a slow line, and gives up
    /// protection against recordings that a quantum computer reads one day.
    pub fn groups(mut self, groups: &[u16]) -> Self {
        self.settings.groups = Some(groups.to_vec());
        self
    }

    /// Further identities of a server behind the same listener. A client chooses by the name that it
    /// asks for: `<peer id>.cepa.alt` gets that identity, and no name the first one, given to
    /// [`builder`](TlsConfig::builder). With more than one identity, any other name is refused (alert
    /// unrecognized_name). A client shows the first identity.
    pub fn more_identities(mut self, identities: &[Identity]) -> Self {
        self.settings.more_identities = identities.to_vec();
        self
    }

    /// How keys are shown: a client shows its own in this form, and asks for the server's in it. A
    /// server takes what the client offers, and prefers this form where it is offered both (RFC 7250
    /// section 4). TLS 1.3 only.
    pub fn key_form(mut self, form: KeyForm) -> Self {
        self.settings.key_form = form;
        self
    }

    /// As server: asks for the client's certificate, and also lets in who shows none
    /// ([`Peer::is_anonymous`](super::Peer::is_anonymous)); the application decides what that one may
    /// see. Whatever is shown is judged by the policy as ever. No session is made with such a peer.
    pub fn optional_client_certificate(mut self) -> Self {
        self.settings.optional_client = true;
        self
    }

    /// As client: shows no certificate, even to a server that asks for one. A server of ours refuses
    /// that, unless it was told [otherwise](Self::optional_client_certificate).
    pub fn without_client_certificate(mut self) -> Self {
        self.settings.anonymous = true;
        self
    }

    /// The name that we ask a server for (SNI, RFC 6066). It picks one of several identities behind
    /// a listener; it proves nothing, and is not compared with the certificate. It goes over the wire
    /// in the clear. Without one, and for an IP address, no name is sent.
    ///
    /// A client asks for one thing: of this, [`server_peer`](Self::server_peer) and [`ask_for`](Self::ask_for) the last
    /// counts.
    pub fn server_name(mut self, server_name: &str) -> Self {
        self.settings.server_name = Some(server_name.to_owned());
        self.settings.asked = None;
        self.settings.only_asked = false;
        self
    }

    /// Asks for one peer by its id, by the name `<peer id>.cepa.alt`, and refuses any other server,
    /// whatever the trust policy says to it.
    pub fn server_peer(self, peer: PeerId) -> Self {
        let mut asking = self.ask_for(peer);
        asking.settings.only_asked = true;
        asking
    }

    /// Asks for one peer by its id, and leaves it to the trust policy who may answer: the holder of a
    /// key that has replaced the one that we know, say.
    pub fn ask_for(self, peer: PeerId) -> Self {
        let mut asking = self.server_name(&name_of(peer));
        asking.settings.asked = Some(peer);
        asking
    }

    /// The most bytes of payload in one record that we send, from 32 to 16,384 (the default).
    pub fn max_fragment(mut self, bytes: usize) -> Self {
        self.settings.max_fragment = Some(bytes);
        self
    }

    /// Another cryptographic provider than the feature's; those of rustls are in [`rustls::crypto`](super::rustls::crypto).
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.settings.base = provider;
        self
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
    /// let tls = TlsConfig::builder(&identity, trust).clock(Arc::new(Told(1_800_000_000))).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clock(mut self, clock: Arc<dyn TimeProvider>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Another trust policy than the one that the builder began with.
    pub fn trust(mut self, trust: Arc<dyn TrustPolicy>) -> Self {
        self.settings.trust = trust;
        self
    }

    /// What was said.
    pub(super) fn into_settings(self) -> Settings {
        self.settings
    }

    /// The configuration.
    ///
    /// # Errors
    /// One line, when something that was said can't be, or does not go with the rest.
    pub fn build(self) -> Result<TlsConfig, TlsConfigError> {
        self.settings.build()
    }
}
