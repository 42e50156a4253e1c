//! `quic:`: a byte stream as the one stream of a QUIC connection (RFC 9000), for ways where only UDP leads.
//!
//! ```text
//! dialler:   UDP socket of its own  ->  handshake, ALPN "cepa"  ->  opens one stream, says one byte  ->  `stream::QuicStream`
//! listener:  UDP socket for all     ->  the source proves its address  ->  handshake  ->  that stream, that byte
//! ```
//!
//! QUIC is quinn's. It can not do without TLS, so there is one here: its certificate is made when the listener is, is signed by itself, and
//! is taken by every dialler as it is. It proves nothing. Who the peers are is said by the TLS that runs inside the stream, as over TCP.
//!
//! A stream is there for the other end once something was sent in it. A peer that dials and then only listens sends nothing, so
//! the dialler's first byte is always one of the carrier, `wire::HELLO`.
//!
//! How a stream ends stands in `stream`, what waits for that when a program ends in `leaving`.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn::{
    ClientConfig, ConnectError, Connection, ConnectionError, Endpoint as QuinnEndpoint, RecvStream,
    SendStream,
};
use tokio::time::Instant;

use crate::endpoint::{Endpoint, QuicSettings, TcpWay};
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::remote::Remote;
use crate::stream::Stream;
use crate::tcp::{self, DIAL_TIMEOUT};
use crate::tcp_way;

use self::refused::{by_no_proxy, not_connected, unusable};
use self::socket::{local, open, udp_socket};
use self::stream::QuicStream;
use self::wire::HELLO;

mod config;
#[cfg(feature = "nat")]
mod knock;
mod leaving;
mod listener;
#[cfg(feature = "nat")]
mod port;
mod refused;
mod socket;
mod stream;
mod wire;

#[cfg(feature = "nat")]
pub use self::knock::KNOCK;
pub use self::leaving::settled;
pub(crate) use self::listener::QuicListener;
#[cfg(feature = "nat")]
pub use self::port::{QuicArriving, QuicPort};

/// The addresses of the name are raced, as those of `tcp:` are.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    settings: &QuicSettings,
) -> Result<Stream, TransportError> {
    by_no_proxy(Action::Dial, endpoint, settings)?;
    let until = Instant::now() + DIAL_TIMEOUT;
    let config = config::client(settings).map_err(|why| unusable(Action::Dial, endpoint, &why))?;
    let way = settings.way.as_deref();
    let addresses = tcp::resolve(Action::Dial, endpoint, host, port).await?;
    let addresses = tcp::alternating(tcp_way::reachable(way, addresses));
    let connecting = tcp::race(addresses, until, |at| connect(at, way, config.clone()));
    match connecting.await {
        Ok((at, (stream, local))) => Ok(Stream::from_wire(stream, format!("quic {at}"))
            .with_remote(Remote::Quic(at))
            .with_local(local)),
        Err(failures) => Err(tcp::all_failed(
            endpoint,
            host,
            way,
            failures,
            |kind| match kind {
                Kind::TimedOut => {
                    "does cepa listen at quic: there? where UDP is not let through, use tcp: or wss:"
                }
                Kind::Refused => "try again later",
                Kind::Invalid => {
                    "check the host and the port: they have to be those of a quic: listener of cepa"
                }
                _ => "check the host, the port and the network",
            },
        )),
    }
}

/// A connection with one address, and its stream.
async fn connect(
    at: SocketAddr,
    way: Option<&TcpWay>,
    config: ClientConfig,
) -> io::Result<(QuicStream, Option<SocketAddr>)> {
    let from = tcp_way::bound(way).unwrap_or(if at.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    });
    let socket =
        udp_socket(SocketAddr::new(from, 0), way).map_err(|error| match tcp_way::bound(way) {
            Some(address) => tcp_way::unbound(address, &error),
            None => error,
        })?;
    let endpoint = open(socket, None)?;
    let (connection, send, recv) = begin(&endpoint, config, at).await?;
    let here = local(&endpoint, from_here(at, from));
    Ok((QuicStream::new(endpoint, connection, send, recv), here))
}

/// A connection from there, with the stream that it is for.
async fn begin(
    endpoint: &QuinnEndpoint,
    config: ClientConfig,
    at: SocketAddr,
) -> io::Result<(Connection, SendStream, RecvStream)> {
    // Its name stands for nobody, and is not sent.
    let connecting = endpoint.connect_with(config, at, "cepa").map_err(|error| {
        let kind = match error {
            ConnectError::InvalidRemoteAddress(_) => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    })?;
    let connection = connecting.await.map_err(|error| not_connected(&error))?;
    let lost = |error: ConnectionError| not_connected(&error);
    let (mut send, recv) = connection.open_bi().await.map_err(lost)?;
    send.write_all(&[HELLO]).await.map_err(io::Error::from)?;
    Ok((connection, send, recv))
}

/// From which address of its own this machine reaches that one. The socket that is connected for it sends nothing.
fn from_here(at: SocketAddr, from: IpAddr) -> Option<IpAddr> {
    let asked = std::net::UdpSocket::bind((from, 0)).ok()?;
    asked.connect(at).ok()?;
    Some(asked.local_addr().ok()?.ip())
}
