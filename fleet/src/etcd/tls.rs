//! The way to one etcd: TCP, and TLS where it is asked for. It is opened before gRPC has a part in it, so that what fails has its own
//! name: gRPC's library would dial again by itself, and tell a wrong certificate from a missing server in no way that can be relied on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::identity::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::EtcdError;

/// Which of the texts is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTls {
    /// The authorities.
    #[error("authorities: {0}")]
    Authorities(String),
    /// The client's certificates, or they and their key.
    #[error("client certificate: {0}")]
    Certificate(String),
    /// The client's key.
    #[error("client key: {0}")]
    Key(String),
}

/// TLS to etcd: the authority of its certificates, and our own certificate where etcd asks for one.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// From PEM: the authorities, and the client's certificate chain with its key.
    ///
    /// # Errors
    /// No certificate or no key is in a text, or they do not fit together.
    pub fn new(authorities: &[u8], client: Option<(&[u8], &[u8])>) -> Result<Self, BadTls> {
        use BadTls::{Authorities, Certificate, Key};
        let mut roots = RootCertStore::empty();
        for it in CertificateDer::pem_slice_iter(authorities) {
            let it = it.map_err(|e| Authorities(format!("no certificates in PEM: {e}")))?;
            let taken = roots.add(it);
            taken.map_err(|e| Authorities(format!("a certificate is not valid: {e}")))?;
        }
        if roots.is_empty() {
            return Err(Authorities("no certificate is in it".to_owned()));
        }
        let config = ClientConfig::builder_with_provider(default_provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| Authorities(e.to_string()))?
            .with_root_certificates(roots);
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let chain =
                    chain.map_err(|e| Certificate(format!("no certificate in PEM: {e}")))?;
                if chain.is_empty() {
                    return Err(Certificate("no certificate is in it".to_owned()));
                }
                let key = PrivateKeyDer::from_pem_slice(key);
                let key = key.map_err(|e| Key(format!("no private key is in it: {e}")))?;
                let config = config.with_client_auth_cert(chain, key);
                config.map_err(|e| Certificate(format!("it does not fit its key: {e}")))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Plain or under TLS.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens the way to HOST:PORT.
pub(super) async fn open(
    endpoint: &str,
    tls: Option<&Tls>,
    patience: Duration,
) -> Result<Wire, EtcdError> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(patience, TcpStream::connect(endpoint)).await;
    let stream = stream.unwrap_or_else(|_| Err(late()));
    let stream = stream.map_err(|e| EtcdError::unreachable(endpoint, &e))?;
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return Ok(Wire::Plain(stream));
    };
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|e| EtcdError::tls(endpoint, &io::Error::other(e)))?;
    let connector = TlsConnector::from(Arc::clone(&tls.0));
    match timeout(patience, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Wire::Tls(Box::new(stream))),
        // A server that ends in the middle may come back; one that we do not trust will not be another one.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Err(EtcdError::tls(endpoint, &error))
        }
        Ok(Err(error)) => Err(EtcdError::Unreachable {
            endpoint: endpoint.to_owned(),
            reason: format!("{error}, in the TLS handshake; without TLS it is etcd:"),
        }),
        Err(_) => Err(EtcdError::unreachable(endpoint, &late())),
    }
}

/// What an HTTP/2 client says first: the preface and settings without any (RFC 9113, sections 3.4 and 6.5).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The bytes of a frame's header.
const FRAME_HEAD: usize = 9;

/// Who answers at HOST:PORT, where a call has failed: gRPC's library says "transport error" of whatever is no HTTP/2, or that the connection is
/// lost, as it comes. `None` for one that may be an etcd.
pub(crate) async fn look(
    endpoint: &str,
    tls: Option<&Tls>,
    patience: Duration,
) -> Option<EtcdError> {
    let mut wire = match open(endpoint, tls, patience).await {
        Ok(wire) => wire,
        Err(error) => return Some(error),
    };
    let mut first = Vec::with_capacity(FRAME_HEAD);
    let heard = async {
        // Who ends the connection meanwhile may have said why.
        let _ = wire.write_all(HELLO).await;
        let _ = wire.flush().await;
        let _ = (&mut wire)
            .take(FRAME_HEAD as u64)
            .read_to_end(&mut first)
            .await;
    };
    timeout(patience, heard).await.ok()?;
    stranger(&first, tls.is_some())
}

/// What the first bytes of a server tell that is no HTTP/2 server.
fn stranger(first: &[u8], is_tls: bool) -> Option<EtcdError> {
    let malformed = |what: &str| Some(EtcdError::Malformed(what.to_owned()));
    match first {
        [] if is_tls => None,
        // What has to be TLS ends what is not without a word.
        [] => Some(EtcdError::NotReady(
            "it ends the connection at once; with TLS it is etcds:".to_owned(),
        )),
        [0x15, 3, ..] => malformed("it speaks TLS; write etcds: in place of etcd:"),
        [b'H', b'T', b'T', b'P', b'/', ..] => malformed("an HTTP/1 server"),
        // Settings come first, on stream 0.
        [0, _, _, 4, _, 0, 0, 0, 0] => None,
        _ => malformed("what it says is no HTTP/2"),
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_read(cx, buf),
            Self::Tls(it) => Pin::new(it).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_write(cx, buf),
            Self::Tls(it) => Pin::new(it).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_flush(cx),
            Self::Tls(it) => Pin::new(it).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_shutdown(cx),
            Self::Tls(it) => Pin::new(it).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_who_is_no_etcd() {
        let said = |first: &[u8]| stranger(first, false).map(|it| it.to_string());
        assert_eq!(said(b"\0\0\x12\x04\0\0\0\0\0"), None);
        for (first, why) in [
            (&b""[..], "etcds:"),
            (b"\x15\x03\x01\0\x02", "etcds:"),
            (b"HTTP/1.1 ", "an HTTP/1 server"),
            (b"SSH-2.0-O", "no HTTP/2"),
            (b"\0\0\0", "no HTTP/2"),
            (b"\0\0\0\x01\0\0\0\0\0", "no HTTP/2"),
        ] {
            let said = said(first).unwrap();
            assert!(said.contains(why), "{first:?}: {said}");
        }
        // Under TLS it has proven that it is the one that is meant, and may be ending.
        assert_eq!(stranger(b"", true), None);
    }
}
