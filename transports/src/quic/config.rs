//! What this crate tells quinn: bounds for what a peer may make it hold, and TLS with a certificate that says nothing.
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, IdleTimeout, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::wire::ALPN;
use crate::endpoint::QuicSettings;
use crate::way_tls::{provider, signatures_are_checked};

/// Bytes that the other end may have on the way before this end has read so many of a stream: a stranger is heard out to the end of the
/// inner handshake, and holds no more than that. TCP's own begins with as much.
pub(super) const FIRST_WINDOW: u32 = 64 << 10;

/// Bytes that it may have on the way from then on; so much in one round trip of 100 ms makes 160 Mbit/s.
pub(super) const WINDOW: u32 = 2 << 20;

/// Connections that wait at a listener and were not looked at. Whoever comes later is refused, and tries again.
const WAITING: usize = 256;

/// Bytes of one that are kept meanwhile, and of all: the first flight is one packet or two.
const FLIGHT: u64 = 16 << 10;
const FLIGHTS: u64 = 1 << 20;

fn transport(settings: &QuicSettings, streams: u32) -> Result<Arc<TransportConfig>, String> {
    let silence = Duration::from_secs(settings.keepalive.into());
    let idle = IdleTimeout::try_from(3 * silence).map_err(|error| error.to_string())?;
    let mut it = TransportConfig::default();
    // One, which the dialler opens; whoever opens more waits for ever.
    it.max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(FIRST_WINDOW))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into())
        .keep_alive_interval(Some(silence))
        .max_idle_timeout(Some(idle));
    Ok(Arc::new(it))
}

pub(super) fn client(settings: &QuicSettings) -> Result<ClientConfig, String> {
    let provider = provider();
    let any = Arc::new(Anybody {
        provider: Arc::clone(&provider),
    });
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let mut tls = tls
        .dangerous()
        .with_custom_certificate_verifier(any)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(settings, 0)?);
    Ok(config)
}

/// With a key and a certificate of its own.
pub(super) fn server(settings: &QuicSettings) -> Result<ServerConfig, String> {
    let made = rcgen::generate_simple_self_signed(["cepa".to_owned()]);
    let made = made.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let mut tls = tls
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|error| error.to_string())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut tokens = ValidationTokenConfig::default();
    // Of no use to who resumes nothing.
    tokens.sent(0);
    config
        .transport_config(transport(settings, 1)?)
        .validation_token_config(tokens)
        .max_incoming(WAITING)
        .incoming_buffer_size(FLIGHT)
        .incoming_buffer_size_total(FLIGHTS);
    Ok(config)
}

/// Takes every certificate. Whoever reads along or stands between reads and changes the inner TLS at most, which notices.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_are_checked!();
}
