//! Keys and certificates of the two ends, and TLS with them: onions, and tokio-rustls with the same.

use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::onion::Onion;
use cepa::tls::TlsConfig;
use cepa::{ByteStream, Side};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::Outcome;

/// Each end knows the other's.
pub(crate) struct Credentials {
    near: TlsConfig,
    far: TlsConfig,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

pub(crate) fn server_name() -> ServerName<'static> {
    // An address needs no parsing that could fail.
    ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())
}

impl Credentials {
    pub(crate) fn new() -> Outcome<Arc<Self>> {
        let (left, right) = (
            Identity::generate(KeyKind::P256)?,
            Identity::generate(KeyKind::P256)?,
        );
        let pin = |of: &Identity| Arc::new(Pinned::one(of.peer_id()));
        let near = TlsConfig::new(&left, pin(&right))?;
        let far = TlsConfig::new(&right, pin(&left))?;

        let (left, left_key) = certificate()?;
        let (right, right_key) = certificate()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = [&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots(&right)?)
            .with_client_auth_cert(vec![left.clone()], left_key)?;
        client.resumption = rustls::client::Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots(&left)?),
            Arc::clone(&provider),
        )
        .build()?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![right], right_key)?;
        server.send_tls13_tickets = 0;
        Ok(Arc::new(Self {
            near,
            far,
            client: Arc::new(client),
            server: Arc::new(server),
        }))
    }

    /// Two ends with so many layers.
    pub(crate) async fn onions<A: ByteStream, B: ByteStream>(
        &self,
        near: A,
        far: B,
        depth: usize,
    ) -> Outcome<(Onion<A>, Onion<B>)> {
        let (mut near, mut far) = (Onion::new(near), Onion::new(far));
        for _ in 0..depth {
            tokio::try_join!(
                near.push(Side::Client, &self.near),
                far.push(Side::Server, &self.far)
            )?;
        }
        Ok((near, far))
    }

    pub(crate) async fn connect<T: ByteStream>(&self, io: T) -> Outcome<client::TlsStream<T>> {
        let connector = TlsConnector::from(Arc::clone(&self.client));
        Ok(connector.connect(server_name(), io).await?)
    }

    pub(crate) async fn accept<T: ByteStream>(&self, io: T) -> Outcome<server::TlsStream<T>> {
        Ok(TlsAcceptor::from(Arc::clone(&self.server))
            .accept(io)
            .await?)
    }

    pub(crate) async fn rustls<A: ByteStream, B: ByteStream>(
        &self,
        near: A,
        far: B,
    ) -> Outcome<(client::TlsStream<A>, server::TlsStream<B>)> {
        tokio::try_join!(self.connect(near), self.accept(far))
    }
}

fn certificate() -> Outcome<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()])?.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((certificate.der().clone(), key))
}

fn roots(certificate: &CertificateDer<'static>) -> Outcome<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    Ok(roots)
}
