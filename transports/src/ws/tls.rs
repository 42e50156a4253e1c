//! The TLS of `wss:`: that of the way, which ends at a front end. The peers' own runs inside the messages, so all that this one has to
//! keep is what the way is for.
//!
//! A dialler goes by the platform's authorities, or by a pin alone: then whose certificate it is and how long it is valid says nothing.
//! A listener shows the certificate that its address names, as a web server does.
use std::io;
use std::sync::Arc;

use data_encoding::BASE64;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::failure::Failure;
use super::stream::Below;
use crate::endpoint::WsTls;
use crate::error::{TransportErrorKind as Kind, describe, kind_of};
use crate::stream::Stream;
use crate::way_tls::{provider, signatures_are_checked};

impl Below for TlsStream<Stream> {
    fn connection(&mut self) -> &mut Stream {
        self.get_mut().0
    }
}

/// The one protocol that is spoken inside (RFC 7301); a front end must not choose HTTP/2, whose WebSockets are others (RFC 8441).
const HTTP: &[u8] = b"http/1.1";

pub(super) struct Dialler {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Dialler {
    pub(super) async fn new(host: &str, tls: &WsTls) -> Result<Self, Failure> {
        let local = |reason: String| Failure::new(Kind::Invalid, reason, "check the address");
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| local(format!("no certificate can be for \"{host}\"")))?;
        let verifier: Arc<dyn ServerCertVerifier> = match tls.pin {
            Some(pin) => Arc::new(Pinned {
                pin,
                provider: provider(),
            }),
            // Reads files.
            None => match tokio::task::spawn_blocking(|| {
                rustls_platform_verifier::Verifier::new(provider())
            })
            .await
            {
                Ok(Ok(verifier)) => Arc::new(verifier),
                Ok(Err(error)) => {
                    let reason = format!("this machine has no certificate authorities: {error}");
                    let advice = "install them (Debian: ca-certificates), or give a pin=";
                    return Err(Failure::new(Kind::NotFound, reason, advice));
                }
                Err(error) => return Err(local(error.to_string())),
            },
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| local(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }

    pub(super) async fn handshake(self, below: Stream) -> Result<impl Below, Failure> {
        let connector = TlsConnector::from(self.config);
        match connector.connect(self.name, below).await {
            Ok(stream) => Ok(TlsStream::from(stream)),
            Err(error) => Err(refused(error)),
        }
    }
}

fn refused(error: io::Error) -> Failure {
    use rustls::Error as Tls;
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Tls>());
    let failure = match inner {
        Some(Tls::InvalidCertificate(rustls::CertificateError::Other(other))) => Failure::new(
            Kind::Invalid,
            format!("the front end's TLS: {other}"),
            "if that is right, put it in the place of pin=",
        ),
        Some(Tls::InvalidCertificate(why)) => Failure::new(
            Kind::Invalid,
            format!("the front end's certificate is not trusted: {why}"),
            "check the host; a certificate of your own is trusted by pin=sha256//…",
        ),
        Some(Tls::InvalidMessage(_)) => Failure::new(
            Kind::Invalid,
            "what answers there speaks no TLS",
            "check the port; without TLS it is ws:",
        ),
        Some(other) => Failure::new(
            Kind::Invalid,
            format!("the front end's TLS: {other}"),
            "check the host and the port",
        ),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Failure::new(
            Kind::Lost,
            "closed within the TLS handshake",
            "check the port; without TLS it is ws:",
        ),
        None => Failure::new(
            kind_of(&error),
            describe(&error),
            "check the host and the port",
        ),
    };
    Failure {
        source: Some(error),
        ..failure
    }
}

/// Goes by the key alone, as `--pinnedpubkey` of curl.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// What is there instead, in the form of an address.
#[derive(Debug)]
struct OtherKey([u8; 32]);

impl std::fmt::Display for OtherKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = BASE64.encode(&self.0);
        write!(f, "its key is not the pinned one, but sha256//{shown}")
    }
}

impl std::error::Error for OtherKey {}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let found: [u8; 32] = Sha256::digest(&key).into();
        // A public key's hash is no secret, so the time that this takes tells nothing.
        if found == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let other = rustls::OtherError(Arc::new(OtherKey(found)));
        Err(rustls::CertificateError::Other(other).into())
    }

    signatures_are_checked!();
}

pub(super) struct Acceptor(TlsAcceptor);

impl Acceptor {
    pub(super) fn new(tls: &WsTls) -> Result<Self, Failure> {
        let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
            return Err(Failure::new(
                Kind::Invalid,
                "a listener at wss: shows a certificate",
                "give its files, cert=PATH and key=PATH; behind a front end that has one, listen at ws:",
            ));
        };
        let file = |what: &str, error: rustls_pki_types::pem::Error| {
            let kind = match &error {
                rustls_pki_types::pem::Error::Io(error) => kind_of(error),
                _ => Kind::Invalid,
            };
            Failure::new(
                kind,
                format!("{what}: {error}"),
                "it has to be a file in PEM",
            )
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
        let chain = chain.map_err(|e| file(&format!("cert={}", cert.display()), e))?;
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|e| file(&format!("key={}", key.display()), e))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map(rustls::ConfigBuilder::<ServerConfig, _>::with_no_client_auth)
            .and_then(|config| config.with_single_cert(chain, private));
        let mut config = config.map_err(|error| {
            let reason = format!("cert= and key=: {error}");
            Failure::new(Kind::Invalid, reason, "check that they belong together")
        })?;
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn handshake(&self, below: Stream) -> io::Result<impl Below> {
        self.0.accept(below).await.map(TlsStream::from)
    }
}
