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
//! the dialler's first byte is always one of the carrier, [`HELLO`].
//!
//! How a stream ends stands in `stream`, what waits for that when a program ends in `leaving`.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, ConnectError, ConnectionError, Endpoint as QuinnEndpoint};
use quinn::{EndpointConfig, ServerConfig, TokioRuntime, TransportErrorCode, VarInt};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::time::Instant;

use crate::endpoint::{Endpoint, QuicSettings, TcpWay};
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::remote::Remote;
use crate::stream::Stream;
use crate::tcp::{self, DIAL_TIMEOUT};
use crate::tcp_way;
use crate::text::clean;

use self::stream::QuicStream;

mod config;
mod leaving;
mod listener;
mod stream;

pub use self::leaving::settled;
pub(crate) use self::listener::QuicListener;

/// The one protocol of the connection (RFC 7301).
const ALPN: &[u8] = b"cepa";

/// What the dialler sends first, so that the listener's end sees the stream.
const HELLO: u8 = 0;

/// With what a connection is closed (RFC 9000, section 20.2). Both directions had ended before.
const END: VarInt = VarInt::from_u32(0);
/// Its end was not said: something is missing.
const CUT: VarInt = VarInt::from_u32(1);
/// What was to be said there is said, and nobody reads any more what comes from here.
const UNREAD: VarInt = VarInt::from_u32(2);

/// How long a listener waits for a handshake, and then for the stream; as at `ws:`.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Bytes that the system keeps of what has come and is not taken yet, as far as it allows: a burst of packets that finds no room is lost.
const SOCKET: usize = 2 << 20;

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

/// UDP goes by no proxy of ours, and what all others go by is not to be passed by unasked.
fn by_no_proxy(
    action: Action,
    endpoint: &Endpoint,
    settings: &QuicSettings,
) -> Result<(), TransportError> {
    let Some(proxy) = &settings.proxy else {
        return Ok(());
    };
    Err(TransportError::new(
        action,
        endpoint,
        Kind::Invalid,
        format!("QUIC goes by no proxy, and {proxy} is asked for"),
        "dial tcp: or wss: by it; or leave the proxy out, by NO_PROXY or --proxy none where the address does not name it",
    ))
}

/// Only a mistake of this crate's: the settings have been looked at before.
fn unusable(action: Action, endpoint: &Endpoint, why: &str) -> TransportError {
    let advice = "please report this";
    TransportError::new(action, endpoint, Kind::Other, why, advice)
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
    let local = local(&endpoint, from_here(at, from));
    Ok((QuicStream::new(endpoint, connection, send, recv), local))
}

/// From which address of its own this machine reaches that one. The socket that is connected for it sends nothing.
fn from_here(at: SocketAddr, from: IpAddr) -> Option<IpAddr> {
    let asked = std::net::UdpSocket::bind((from, 0)).ok()?;
    asked.connect(at).ok()?;
    Some(asked.local_addr().ok()?.ip())
}

/// A UDP socket at this address, for quinn.
fn udp_socket(at: SocketAddr, way: Option<&TcpWay>) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    tcp_way::send_by(SockRef::from(&socket), way)?;
    // What the system does not allow it does not do; then more is lost under load, and sent again.
    let _ = socket.set_recv_buffer_size(SOCKET);
    let _ = socket.set_send_buffer_size(SOCKET);
    socket.bind(&at.into())?;
    Ok(socket.into())
}

fn open(socket: std::net::UdpSocket, server: Option<ServerConfig>) -> io::Result<QuinnEndpoint> {
    QuinnEndpoint::new(
        EndpointConfig::default(),
        server,
        socket,
        Arc::new(TokioRuntime),
    )
}

/// This end's own address, where its packets go and come by this one of this machine.
fn local(endpoint: &QuinnEndpoint, ip: Option<IpAddr>) -> Option<SocketAddr> {
    let bound = endpoint.local_addr().ok()?;
    Some(SocketAddr::new(ip.unwrap_or(bound.ip()), bound.port()))
}

/// Why a handshake came to nothing.
fn not_connected(error: &ConnectionError) -> io::Error {
    let no_protocol = TransportErrorCode::crypto(rustls_alert::NO_APPLICATION_PROTOCOL);
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    match error {
        ConnectionError::ConnectionClosed(close) if close.error_code == no_protocol => {
            wrong("a QUIC server answers, and knows nothing of the protocol \"cepa\"")
        }
        ConnectionError::TransportError(error) if error.code == no_protocol => {
            wrong("a QUIC server answers, and did not choose the protocol \"cepa\"")
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            let what = "it takes no connection now";
            io::Error::new(io::ErrorKind::ConnectionRefused, what)
        }
        ConnectionError::VersionMismatch => {
            wrong("a QUIC server answers, in other versions of QUIC than this one")
        }
        ConnectionError::ConnectionClosed(close) => {
            let why = clean(&close.to_string(), 200).into_owned();
            wrong(&format!("the other end gave up the handshake: {why}"))
        }
        ConnectionError::TransportError(error) => {
            let why = clean(&error.to_string(), 200).into_owned();
            wrong(&format!("the handshake failed: {why}"))
        }
        ConnectionError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        other => stream::of_connection(other),
    }
}

/// Numbers of TLS alerts (RFC 8446, section 6).
mod rustls_alert {
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;
}
