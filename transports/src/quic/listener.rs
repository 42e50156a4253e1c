//! Where QUIC connections are waited for: a UDP socket for each address of the name, one certificate for all.
//!
//! Who a UDP packet is from is what it says, so nobody is given away, and counted to an address, who was not heard to be at it:
//!
//! ```text
//! first packet, from an address  -- few are in their handshake -->  handshake here; the end of it proves the address  -->  a stream
//!                                -- as many as may be ---------->  Retry (RFC 9000, section 8.1.2): one packet, nothing kept
//! the same with the Retry's token: proven  ----------------------------------------------------------------------->  a stream
//! ```
//!
//! A stream that is proven by a token has its handshake still before it, which runs when the stream is read: once it has a place of the gate.
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::select_all;
use quinn::{Connection, ConnectionError, Endpoint as QuinnEndpoint, Incoming};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::config;
use super::refused::{by_no_proxy, not_connected, unusable};
use super::socket::{local, open, udp_socket};
use super::stream::{self, QuicStream};
use super::wire::{FORGOTTEN, HELLO};
use crate::endpoint::{Endpoint, QuicSettings};
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::opening::{Opened, Opening};
use crate::remote::Remote;
use crate::stream::Stream;
use crate::{tcp, tcp_way};

/// Handshakes at once with addresses that are not proven. Somebody who forges his can take them all, and then everybody else has a round trip
/// more.
const UNPROVEN: usize = 16;

/// How long a listener waits for a handshake, and then for the stream; as at `ws:`.
const HANDSHAKE: Duration = Duration::from_secs(15);

pub(crate) struct QuicListener {
    /// Never empty. The one that gave a connection is asked last in the next round, so that none waits for ever.
    endpoints: Vec<QuinnEndpoint>,
    arriving: JoinSet<Option<Stream>>,
}

impl QuicListener {
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        host: &str,
        port: u16,
        settings: &QuicSettings,
    ) -> Result<(Self, u16), TransportError> {
        by_no_proxy(Action::Listen, endpoint, settings)?;
        let way = settings.way.as_deref();
        if tcp_way::bound(way).is_some() {
            return Err(TransportError::new(
                Action::Listen,
                endpoint,
                Kind::Invalid,
                "bind= is for dialling",
                "leave it out",
            ));
        }
        let server =
            config::server(settings).map_err(|why| unusable(Action::Listen, endpoint, &why))?;
        let addresses = tcp::resolve(Action::Listen, endpoint, host, port).await?;
        let bound = tcp::bind_all(&addresses, |at| {
            let opened = open(udp_socket(at, way)?, Some(server.clone()))?;
            let real = opened.local_addr()?;
            Ok((opened, real))
        });
        let (endpoints, port) = bound.map_err(|error| tcp::not_bound(endpoint, error))?;
        let arriving = JoinSet::new();
        Ok((
            Self {
                endpoints,
                arriving,
            },
            port,
        ))
    }

    /// The next connection. Cancel safe.
    pub(crate) async fn accept(&mut self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        loop {
            let (arriving, endpoints) = (&mut self.arriving, &self.endpoints);
            let waiting = endpoints.iter().map(|it| Box::pin(it.accept()));
            let (incoming, at) = tokio::select! {
                Some(arrived) = arriving.join_next() => match arrived {
                    Ok(Some(stream)) => return Ok(stream),
                    // Nobody who could be told of is at that address. Only a runtime that shuts down ends such a task otherwise.
                    Ok(None) | Err(_) => continue,
                },
                (incoming, at, _) = select_all(waiting) => (incoming, at),
            };
            let (Some(incoming), Some(from)) = (incoming, self.endpoints.get(at).cloned()) else {
                return Err(TransportError::new(
                    Action::Accept,
                    endpoint,
                    Kind::Lost,
                    "its UDP socket has failed",
                    "start it again",
                ));
            };
            self.endpoints.rotate_left(at + 1);
            if incoming.remote_address_validated() {
                return Ok(proven(from, incoming));
            }
            if self.arriving.len() < UNPROVEN {
                self.arriving.spawn(arrive(from, incoming));
            } else {
                // Who can't be asked again is refused.
                let _ = incoming.retry();
            }
        }
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        for endpoint in &self.endpoints {
            // The accepted streams keep it.
            refuse_all(endpoint);
        }
    }
}

/// Who waits is refused, and who comes later hears nothing.
pub(super) fn refuse_all(endpoint: &QuinnEndpoint) {
    endpoint.set_server_config(None);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        let mut next = std::pin::pin!(endpoint.accept());
        match next.as_mut().poll(&mut context) {
            std::task::Poll::Ready(Some(incoming)) => incoming.refuse(),
            _ => break,
        }
    }
}

/// One whose address is proven, before its handshake.
fn proven(endpoint: QuinnEndpoint, incoming: Incoming) -> Stream {
    let remote = incoming.remote_address();
    let here = local(&endpoint, incoming.local_ip());
    let opening = Opening::within(async move {
        let connection = handshake(incoming).await?;
        first_stream(endpoint, connection).await
    });
    given(opening, remote, here)
}

fn given(opening: Opening, remote: SocketAddr, local: Option<SocketAddr>) -> Stream {
    Stream::from_wire(opening, format!("quic {remote}"))
        .with_remote(Remote::Quic(remote))
        .with_local(local)
}

/// One that proves its address by its handshake. `None` where that came to nothing: who it was from is not known, so nobody is told.
pub(super) async fn arrive(endpoint: QuinnEndpoint, incoming: Incoming) -> Option<Stream> {
    let connection = handshake(incoming).await.ok()?;
    let remote = connection.remote_address();
    let here = local(&endpoint, connection.local_ip());
    let opening = Opening::within(first_stream(endpoint, connection));
    Some(given(opening, remote, here))
}

async fn handshake(incoming: Incoming) -> io::Result<Connection> {
    let connected = async {
        let connecting = incoming.accept().map_err(|error| not_connected(&error))?;
        connecting.await.map_err(|error| not_connected(&error))
    };
    timeout(HANDSHAKE, connected).await.unwrap_or_else(|_| {
        let why = "no QUIC handshake within 15 s";
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

/// The stream of a connection, once its first byte has come.
async fn first_stream(endpoint: QuinnEndpoint, connection: Connection) -> Opened {
    let opened = async {
        let (send, mut recv) = match connection.accept_bi().await {
            Ok(streams) => streams,
            // A dialler that chose another address of this name, or changed its mind.
            Err(ConnectionError::ApplicationClosed(close)) if close.error_code == FORGOTTEN => {
                return Err(no_stream());
            }
            Err(error) => return Err(stream::of_connection(&error)),
        };
        let mut first = [0; 1];
        match recv.read_exact(&mut first).await {
            Ok(()) if first == [HELLO] => Ok((send, recv)),
            Ok(()) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a QUIC stream that does not begin as one of cepa does",
            )),
            Err(quinn::ReadExactError::FinishedEarly(_)) => Err(no_stream()),
            Err(quinn::ReadExactError::ReadError(error)) => Err(stream::of_read(error)),
        }
    };
    let (send, recv) = timeout(HANDSHAKE, opened).await.unwrap_or_else(|_| {
        let why = "no stream within 15 s of the QUIC handshake";
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })?;
    Ok(Box::new(QuicStream::new(endpoint, connection, send, recv)))
}

/// No end of a stream: whoever wanted to send nothing opens one and closes that.
fn no_stream() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "closed before a stream was opened",
    )
}
