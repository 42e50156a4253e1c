//! QUIC, by the `quinn` crate with its defaults, over loopback UDP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};
use tokio::io::join as both;

use super::io::Io;
use super::tls::Credentials;
use crate::Outcome;

/// A connection, and the endpoint that has to live as long.
#[derive(Clone)]
pub(crate) struct End {
    connection: Connection,
    _endpoint: Endpoint,
}

impl End {
    pub(crate) async fn open(&self) -> Outcome<Io> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok(Box::new(both(receive, send)))
    }

    pub(crate) async fn accept(&self) -> Outcome<Io> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok(Box::new(both(receive, send)))
    }
}

/// The two ends: the one that opens, and the one that accepts.
pub(crate) async fn join(streams: usize, credentials: &Credentials) -> Outcome<(End, End)> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(u32::try_from(streams.max(512))?.into());
    let transport = Arc::new(transport);

    let server = QuicServerConfig::try_from(Arc::clone(&credentials.server))?;
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(Arc::clone(&transport));
    let server = Endpoint::server(server, any)?;

    let client = QuicClientConfig::try_from(Arc::clone(&credentials.client))?;
    let mut client_config = ClientConfig::new(Arc::new(client));
    client_config.transport_config(transport);
    let mut client = Endpoint::client(any)?;
    client.set_default_client_config(client_config);

    let near = client.connect(server.local_addr()?, "127.0.0.1")?;
    let far = async {
        server
            .accept()
            .await
            .ok_or("the endpoint closed")?
            .await
            .map_err(crate::Failure::from)
    };
    let near = async { near.await.map_err(crate::Failure::from) };
    let (near, far) = tokio::try_join!(near, far)?;
    let end = |connection, endpoint| End {
        connection,
        _endpoint: endpoint,
    };
    Ok((end(near, client), end(far, server)))
}
