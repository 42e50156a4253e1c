//! Which way of this machine a connection goes: from which address, by which interface, with which mark; and a TCP socket for it.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::endpoint::TcpWay;
use crate::error::describe;

/// A connection with one address.
pub(crate) async fn connect(at: SocketAddr, way: Option<&TcpWay>) -> io::Result<TcpStream> {
    let socket = socket(at, way)?;
    let shared = way.is_some_and(|way| way.shared_port);
    if shared {
        share(&socket)?;
    }
    if shared && bound(way).is_none() {
        if socket.bind(SocketAddr::new(any_of(at), 0)).is_ok() {
            return socket.connect(at).await;
        }
        // No port is free for all that it may lead to. One for this connection alone may be.
        return self::socket(at, way)?.connect(at).await;
    }
    if let Some(address) = bound(way) {
        let from = SocketAddr::new(address, 0);
        socket
            .bind(from)
            .map_err(|error| unbound(address, &error))?;
    }
    socket.connect(at).await
}

/// Why a socket is not bound to this machine's address that is asked for.
pub(crate) fn unbound(address: IpAddr, error: &io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            let why = format!("bind={address} is no address of this machine");
            io::Error::new(error.kind(), why)
        }
        _ => about(&format!("bind={address}"), error),
    }
}

/// A socket that goes the way that the settings say.
pub(crate) fn socket(at: SocketAddr, way: Option<&TcpWay>) -> io::Result<TcpSocket> {
    let socket = if at.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    send_by(&SockRef::from(&socket), way)?;
    Ok(socket)
}

/// The socket, TCP or UDP, goes the way that the settings say.
pub(crate) fn send_by(socket: &SockRef<'_>, way: Option<&TcpWay>) -> io::Result<()> {
    let Some(way) = way else {
        return Ok(());
    };
    if let Some(name) = &way.interface {
        by_interface(socket, name).map_err(|e| about(&format!("interface={name}"), &e))?;
    }
    if let Some(mark) = way.mark {
        marked(socket, mark).map_err(|e| about(&format!("mark={mark}"), &e))?;
    }
    Ok(())
}

/// Other sockets that do the same may be bound to its port.
fn share(socket: &TcpSocket) -> io::Result<()> {
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)
}

/// Any of this machine's addresses of that family.
fn any_of(at: SocketAddr) -> IpAddr {
    if at.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// A socket at this address, beside those that are there already if they share it.
#[cfg(feature = "nat")]
pub(crate) fn beside(at: SocketAddr) -> io::Result<TcpSocket> {
    let socket = socket(at, None)?;
    share(&socket)?;
    socket.bind(at)?;
    Ok(socket)
}

/// The system's error, with what it is about.
fn about(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {}", describe(error)))
}

#[cfg(target_os = "linux")]
fn by_interface(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    socket.bind_device(Some(name.as_bytes()))
}

#[cfg(target_os = "linux")]
fn marked(socket: &SockRef<'_>, mark: u32) -> io::Result<()> {
    socket.set_mark(mark).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            io::Error::new(error.kind(), "needs the capability NET_ADMIN (root has it)")
        }
        _ => error,
    })
}

#[cfg(not(target_os = "linux"))]
fn by_interface(_: &SockRef<'_>, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn marked(_: &SockRef<'_>, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the way is one that needs privileges.
pub(crate) fn is_certain(way: Option<&TcpWay>) -> bool {
    way.is_some_and(|way| way.interface.is_some() || way.mark.is_some())
}

/// This machine's address that is asked for.
pub(crate) fn bound(way: Option<&TcpWay>) -> Option<IpAddr> {
    way?.bind
}

/// The addresses that can be reached from the one that is bound: those of its family.
pub(crate) fn reachable(way: Option<&TcpWay>, all: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let fits = |at: &SocketAddr| bound(way).is_none_or(|it| it.is_ipv4() == at.is_ipv4());
    all.into_iter().filter(fits).collect()
}

/// What a name does not have.
pub(crate) fn missing(way: Option<&TcpWay>) -> String {
    bound(way).map_or("no address".to_owned(), |bound| {
        let family = if bound.is_ipv4() { "IPv4" } else { "IPv6" };
        format!("no {family} address, and bind={bound} reaches no other")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TransportErrorKind as Kind;
    use crate::{Remote, Stream, TransportError, dial, listen};

    /// Dialled with these options, and who came.
    async fn dialled(options: &str) -> Result<(Stream, IpAddr), TransportError> {
        let at = "tcp:127.0.0.1:0".parse().unwrap();
        let mut listener = listen(&at).await.unwrap();
        let at = format!("{}{options}", listener.endpoint());
        let stream = dial(&at.parse().unwrap()).await?;
        let accepted = listener.accept().await.unwrap().unwrap();
        let Remote::Tcp(from) = accepted.remote() else {
            panic!("{accepted:?}");
        };
        Ok((stream, from.ip()))
    }

    async fn refused(options: &str) -> (Kind, String) {
        let error = dialled(options).await.unwrap_err();
        (error.kind(), error.to_string())
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_is_bound() {
        let bound = Ipv4Addr::new(127, 0, 0, 2);
        let (stream, from) = dialled(",bind=127.0.0.2").await.unwrap();
        assert_eq!(from, bound);
        assert_eq!(stream.local().map(|it| it.ip()), Some(bound.into()));
        // Documentation's (RFC 5737): nobody has it.
        let (kind, why) = refused(",bind=192.0.2.1").await;
        assert!(
            why.contains("bind=192.0.2.1 is no address of this machine"),
            "{kind:?} {why}"
        );
        let (kind, why) = refused(",bind=::1").await;
        assert_eq!(kind, Kind::NotFound);
        assert!(
            why.contains("no IPv6 address, and bind=::1 reaches no other"),
            "{why}"
        );
        let at = "tcp:127.0.0.1:0,bind=127.0.0.1".parse().unwrap();
        let why = listen(&at).await.unwrap_err().to_string();
        assert!(why.contains("bind= is for dialling; leave it out"), "{why}");
    }

    #[test]
    fn only_addresses_of_the_family_of_the_bound_one_are_tried() {
        let [four, six] = ["127.0.0.1:1", "[::1]:1"].map(|it| it.parse().unwrap());
        for (bind, left) in [
            (None, vec![four, six]),
            (Some("127.0.0.9"), vec![four]),
            (Some("::"), vec![six]),
        ] {
            let way = TcpWay {
                bind: bind.map(|it: &str| it.parse().unwrap()),
                ..TcpWay::default()
            };
            assert_eq!(reachable(Some(&way), vec![four, six]), left);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_interface_and_a_mark_are_the_systems_to_allow() {
        // An unprivileged process may (Linux 5.7); where it may not, or not mark, that is what it is told.
        for (option, what) in [
            (",interface=lo", "interface=lo: "),
            (",mark=7", "mark=7: needs"),
        ] {
            match dialled(option).await {
                Ok((_, from)) => assert!(from.is_loopback()),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::PermissionDenied);
                    assert!(error.to_string().contains(what), "{error}");
                }
            }
        }
        let (_, why) = refused(",interface=no-such").await;
        assert!(why.contains("interface=no-such: "), "{why}");
        // A listener goes by them, too.
        let at = "tcp:127.0.0.1:0,interface=no-such".parse().unwrap();
        let why = listen(&at).await.unwrap_err().to_string();
        assert!(why.contains("interface=no-such: "), "{why}");
    }
}
