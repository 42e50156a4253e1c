//! The peers: how two ends in this process are joined over loopback TCP.

use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::mux;
use cepa::onion::Onion;
use cepa::tls::TlsConfig;
use cepa::{ByteStream, Side};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Tls,
    Onion,
    Cepa,
    Nested2,
    Onion2,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] = [
        Self::Tls,
        Self::Onion,
        Self::Cepa,
        Self::Nested2,
        Self::Onion2,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Onion => "onion",
            Self::Cepa => "cepa",
            Self::Nested2 => "nested2",
            Self::Onion2 => "onion2",
        }
    }
}

pub(crate) type Joined = Box<dyn ByteStream>;

/// Two ends, ready for bytes.
pub(crate) async fn join(peer: Peer) -> Outcome<(Joined, Joined)> {
    let (near, far) = tcp().await?;
    match peer {
        Peer::Tls => {
            let (near, far) = rivals_tls(near, far).await?;
            Ok((Box::new(near), Box::new(far)))
        }
        Peer::Nested2 => {
            let (near, far) = rivals_tls(near, far).await?;
            let (near, far) = rivals_tls(near, far).await?;
            Ok((Box::new(near), Box::new(far)))
        }
        Peer::Onion => {
            let (near, far) = onions(near, far, 1).await?;
            Ok((Box::new(near), Box::new(far)))
        }
        Peer::Onion2 => {
            let (near, far) = onions(near, far, 2).await?;
            Ok((Box::new(near), Box::new(far)))
        }
        Peer::Cepa => {
            let (near, far) = onions(near, far, 1).await?;
            let (client, driver) = mux::mux(near, Side::Client, mux::Config::default());
            tokio::spawn(driver);
            let (server, driver) = mux::mux(far, Side::Server, mux::Config::default());
            tokio::spawn(driver);
            let mut near = client.open().await?;
            // The stream is there for the other end with its first byte.
            near.write_u8(0).await?;
            let mut far = server.accept().await?;
            far.read_u8().await?;
            Ok((Box::new(near), Box::new(far)))
        }
    }
}

async fn tcp() -> Outcome<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

async fn onions<T: ByteStream>(near: T, far: T, depth: usize) -> Outcome<(Onion<T>, Onion<T>)> {
    let (left, right) = (
        Identity::generate(KeyKind::P256)?,
        Identity::generate(KeyKind::P256)?,
    );
    let pin = |of: &Identity| Arc::new(Pinned::one(of.peer_id()));
    let near_tls = TlsConfig::new(&left, pin(&right))?;
    let far_tls = TlsConfig::new(&right, pin(&left))?;
    let (mut near, mut far) = (Onion::new(near), Onion::new(far));
    for _ in 0..depth {
        tokio::try_join!(
            near.push(Side::Client, &near_tls),
            far.push(Side::Server, &far_tls)
        )?;
    }
    Ok((near, far))
}

async fn rivals_tls<A: ByteStream, B: ByteStream>(
    near: A,
    far: B,
) -> Outcome<(
    tokio_rustls::client::TlsStream<A>,
    tokio_rustls::server::TlsStream<B>,
)> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])?.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = [&rustls::version::TLS13];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    server.send_tls13_tickets = 0;
    let near = TlsConnector::from(Arc::new(client)).connect("localhost".try_into()?, near);
    let far = TlsAcceptor::from(Arc::new(server)).accept(far);
    Ok(tokio::try_join!(near, far)?)
}
