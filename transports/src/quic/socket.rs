//! UDP sockets, and quinn on them.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quinn::{Endpoint as QuinnEndpoint, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, SockRef, Socket, Type};

use crate::endpoint::TcpWay;
use crate::tcp_way;

/// Bytes that the system keeps of what has come and is not taken yet, as far as it allows: a burst of packets that finds no room is lost.
const SOCKET: usize = 2 << 20;

/// A UDP socket at this address, for quinn.
pub(super) fn udp_socket(at: SocketAddr, way: Option<&TcpWay>) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    tcp_way::send_by(&SockRef::from(&socket), way)?;
    // What the system does not allow it does not do; then more is lost under load, and sent again.
    let _ = socket.set_recv_buffer_size(SOCKET);
    let _ = socket.set_send_buffer_size(SOCKET);
    socket.bind(&at.into())?;
    Ok(socket.into())
}

pub(super) fn open(
    socket: std::net::UdpSocket,
    server: Option<ServerConfig>,
) -> io::Result<QuinnEndpoint> {
    QuinnEndpoint::new(
        EndpointConfig::default(),
        server,
        socket,
        Arc::new(TokioRuntime),
    )
}

/// This end's own address, where its packets go and come by this one of this machine.
pub(super) fn local(endpoint: &QuinnEndpoint, ip: Option<IpAddr>) -> Option<SocketAddr> {
    let bound = endpoint.local_addr().ok()?;
    Some(SocketAddr::new(ip.unwrap_or(bound.ip()), bound.port()))
}
