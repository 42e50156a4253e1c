//! One local port for several TCP sockets: the connection with a relay, a listener beside it, and connections from it to others.
//!
//! A NAT maps what leaves from one port of a host to one port of its own, as long as it is of the kind that lets peers find each
//! other. So where a relay sees a connection come from, others of the same port may come from as well, and only sockets that are
//! bound to that port are of use for it. All of them have `SO_REUSEADDR` and `SO_REUSEPORT`, from before they were bound; the system
//! lets no other user in.
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::dial::dial;
use crate::endpoint::{Endpoint, Target};
use crate::error::TransportError;
use crate::stream::Stream;
use crate::{tcp, tcp_way};

/// Connections that wait to be accepted: one peer comes, over a few ways at most.
const QUEUE: u32 = 8;

/// As [`dial`], from a port that others may share, where it is a TCP connection of our own: not one that a proxy makes, nor one that
/// leaves by a certain interface or with a mark, since others would not go the same way.
///
/// # Errors
/// As for [`dial`].
pub async fn dial_from_shared_port(endpoint: &Endpoint) -> Result<Stream, TransportError> {
    let Target::Tcp {
        host,
        port,
        settings,
    } = endpoint.target()
    else {
        return dial(endpoint).await;
    };
    if settings.proxy.is_some() || tcp_way::is_certain(settings.way.as_deref()) {
        return dial(endpoint).await;
    }
    let mut settings = settings.clone();
    settings.way.get_or_insert_default().shared_port = true;
    crate::error::in_runtime(crate::error::Action::Dial, endpoint)?;
    tcp::dial(endpoint, host, *port, &settings).await
}

/// An address of this machine whose port several sockets share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPort(SocketAddr);

impl SharedPort {
    /// That of a connection which was [dialled from one](dial_from_shared_port), by its [own address](Stream::local). For any other
    /// one, what is tried with this fails.
    #[must_use]
    pub fn of(local: SocketAddr) -> Self {
        Self(local)
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0
    }

    /// Listens there. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's; `AddrInUse` where the port is not shared.
    pub fn listen(&self) -> io::Result<PortListener> {
        tcp_way::beside(self.0)?.listen(QUEUE).map(PortListener)
    }

    /// A connection from there. Where the other end connects with this one at the same moment, both have the same connection (RFC
    /// 9293, section 3.5).
    ///
    /// # Errors
    /// The system's; `AddrInUse` where the port is not shared, `AddrNotAvailable` where there is a connection with that address.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let stream = tcp_way::beside(self.0)?.connect(to).await?;
        Ok(Stream::from(stream))
    }
}

/// A listener beside a connection; see [`SharedPort::listen`].
#[derive(Debug)]
pub struct PortListener(TcpListener);

impl PortListener {
    /// The next connection.
    ///
    /// # Errors
    /// The system's. Others may follow.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn accept(&self) -> io::Result<Stream> {
        let (stream, _) = self.0.accept().await?;
        Ok(Stream::from(stream))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::listen;

    /// As a relay's: dialled, and the port that it has.
    async fn relayed(options: &str) -> (Stream, Stream, SharedPort) {
        let mut relay = listen(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = format!("{}{options}", relay.endpoint());
        let dialled = dial_from_shared_port(&at.parse().unwrap()).await.unwrap();
        let accepted = relay.accept().await.unwrap().unwrap();
        let port = SharedPort::of(dialled.local().unwrap());
        (dialled, accepted, port)
    }

    async fn is_joined(mut a: Stream, mut b: Stream) {
        a.write_all(b"one").await.unwrap();
        b.write_all(b"two").await.unwrap();
        let mut read = [0; 3];
        a.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"two");
        b.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one");
    }

    #[tokio::test]
    async fn a_port_carries_a_connection_a_listener_and_more_connections() {
        let (near, far, port) = relayed("").await;
        let (other_near, other_far, other) = relayed(",bind=127.0.0.1").await;
        let listener = port.listen().unwrap();
        let (came, went) = tokio::join!(listener.accept(), other.connect(port.address()));
        let (came, went) = (came.unwrap(), went.unwrap());
        assert_eq!(came.remote(), &crate::Remote::Tcp(other.address()));
        assert_eq!(went.local(), Some(other.address()));
        is_joined(came, went).await;
        is_joined(near, far).await;
        is_joined(other_near, other_far).await;
    }

    #[tokio::test]
    async fn a_port_that_is_not_shared_is_of_no_use() {
        let mut relay = listen(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
        let dialled = dial(relay.endpoint()).await.unwrap();
        let _accepted = relay.accept().await.unwrap();
        let port = SharedPort::of(dialled.local().unwrap());
        let error = port.listen().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
