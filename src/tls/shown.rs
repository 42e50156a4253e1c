//! What a layer shows of us: each identity, as a certificate or as a raw public key, and which of
//! them a client's hello asks for.
//!
//! A client decides on the form of keys before it knows anything of the server, so it offers one. A
//! server adapts: RFC 7250 section 4.1 lets it choose, for its own key and for the client's apart, of
//! what the client takes. A hello that says nothing takes certificates alone.

use std::sync::Arc;

use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::pki_types::CertificateDer;
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, CertificateType, ClientHello, ResolvesServerCert,
};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};

use crate::identity::{Identity, PeerId};

/// What the names of peers end with; `.alt` is no part of the DNS (RFC 9476), so it can't be
/// mistaken for a name that someone owns.
pub(super) const SERVED_WITH: &str = "cepa.alt";

/// How a key is shown in a handshake. The peer id is the same in either form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyForm {
    /// In an X.509 certificate, which every TLS library takes.
    #[default]
    Certificate,
    /// By itself (RFC 7250): some 500 bytes less each way in a handshake, and nothing but the key.
    RawPublicKey,
}

/// The name by which a server is asked for one peer (SNI).
pub(super) fn name_of(peer: PeerId) -> String {
    format!("{peer}.{SERVED_WITH}")
}

/// What a client's hello asks for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(super) name: Option<String>,
    server: Forms,
    client: Forms,
}

impl Asked {
    pub(crate) fn of(hello: &ClientHello<'_>) -> Self {
        Self {
            name: hello.server_name().map(str::to_owned),
            server: Forms::of(hello.server_cert_types()),
            client: Forms::of(hello.client_cert_types()),
        }
    }

    /// The forms of our key and of the client's, where we would like `preferred`.
    pub(super) fn forms(&self, preferred: KeyForm) -> (KeyForm, KeyForm) {
        (self.server.pick(preferred), self.client.pick(preferred))
    }
}

/// Which forms a client can do.
#[derive(Debug, Default)]
struct Forms {
    /// Raw public keys, and nothing else.
    only_raw: bool,
    raw: bool,
}

impl Forms {
    fn of(types: Option<&[CertificateType]>) -> Self {
        let has = |wanted| types.is_some_and(|types| types.contains(&wanted));
        let raw = has(CertificateType::RawPublicKey);
        Self {
            only_raw: raw && !has(CertificateType::X509),
            raw,
        }
    }

    fn pick(&self, preferred: KeyForm) -> KeyForm {
        if self.only_raw || (self.raw && preferred == KeyForm::RawPublicKey) {
            KeyForm::RawPublicKey
        } else {
            KeyForm::Certificate
        }
    }
}

/// One identity, ready for a provider.
#[derive(Debug)]
pub(super) struct Shown {
    identity: Identity,
    certificate: Arc<SingleCertAndKey>,
    raw: Arc<CertifiedKey>,
}

impl Shown {
    pub(super) fn new(identity: &Identity, key: Arc<dyn SigningKey>) -> Self {
        let chain = identity.chain().to_vec();
        let certified = CertifiedKey::new(chain, Arc::clone(&key));
        // rustls keeps a raw key where a certificate would be.
        let raw = CertificateDer::from(identity.public_key().to_vec());
        Self {
            identity: identity.clone(),
            certificate: Arc::new(SingleCertAndKey::from(Arc::new(certified))),
            raw: Arc::new(CertifiedKey::new(vec![raw], key)),
        }
    }

    pub(super) fn id(&self) -> PeerId {
        self.identity.peer_id()
    }

    pub(super) fn to_server(&self, form: KeyForm) -> Arc<dyn ResolvesClientCert> {
        match form {
            KeyForm::Certificate => Arc::clone(&self.certificate) as _,
            KeyForm::RawPublicKey => Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
                &self.raw,
            ))),
        }
    }

    pub(super) fn to_client(&self, form: KeyForm) -> Arc<dyn ResolvesServerCert> {
        match form {
            KeyForm::Certificate => Arc::clone(&self.certificate) as _,
            KeyForm::RawPublicKey => Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(
                &self.raw,
            ))),
        }
    }
}

/// Which of several identities a name asks for, with its place among them: the first where nobody in particular is asked for,
/// none where one is that is not here.
///
/// Where there is only one, it is the answer to every name: there is nothing to choose, and a
/// dialler that expected somebody else learns who is there. (A name proves nothing either way.)
pub(super) fn asked_for<'a>(shown: &'a [Shown], name: Option<&str>) -> Option<(usize, &'a Shown)> {
    let (first, more) = shown.split_first()?;
    let Some(name) = name.filter(|name| !more.is_empty() && *name != SERVED_WITH) else {
        return Some((0, first));
    };
    let label = name.strip_suffix(SERVED_WITH)?.strip_suffix('.')?;
    let id: PeerId = label.to_ascii_lowercase().parse().ok()?;
    // An old id is answered by the key that has taken its place; the asker checks that.
    let succeeds = |one: &Shown| one.identity.rotations().iter().any(|step| step.old() == id);
    let mut all = shown.iter().enumerate();
    let exact = all.clone().find(|(_, one)| one.id() == id);
    exact.or_else(|| all.find(|(_, one)| succeeds(one)))
}
