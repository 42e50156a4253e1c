//! One UDP port for several QUIC connections: one with a relay, which says where it sees that port, and those with a peer that learns
//! so where to send. A NAT that lets peers find each other maps what leaves from one port of a host to one port of its own, whomever it goes to.
use std::io;
use std::net::{IpAddr, SocketAddr};

use std::sync::Arc;

use quinn::{
    ClientConfig, Endpoint as QuinnEndpoint, EndpointConfig, Incoming, Runtime as _, TokioRuntime,
};
use tokio::sync::{Mutex, mpsc};

use super::knock::{Heard, KNOCK, Knocking};
use super::listener::{arrive, refuse_all};
use super::socket::udp_socket;
use super::{QuicStream, begin, config};
use crate::endpoint::QuicSettings;
use crate::remote::Remote;
use crate::stream::Stream;

/// A UDP port of this machine that is for QUIC connections with several others.
#[derive(Debug)]
pub struct QuicPort {
    endpoint: QuinnEndpoint,
    client: ClientConfig,
    address: SocketAddr,
    socket: Arc<Knocking>,
    knocks: Mutex<mpsc::Receiver<Heard>>,
}

impl QuicPort {
    /// A free one at this address of the machine. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn open(at: IpAddr) -> io::Result<Self> {
        let socket = udp_socket(SocketAddr::new(at, 0), None)?;
        let address = socket.local_addr()?;
        let (socket, knocks) = Knocking::on(TokioRuntime.wrap_udp_socket(socket)?);
        let endpoint = QuinnEndpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            None,
            Arc::<Knocking>::clone(&socket) as _,
            Arc::new(TokioRuntime),
        )?;
        let client = config::client(&QuicSettings::default()).map_err(io::Error::other)?;
        Ok(Self {
            endpoint,
            client,
            address,
            socket,
            knocks: Mutex::new(knocks),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a small datagram from there, if there is room for one now: nobody is told if it is lost. The first byte has to be below 0x40, so
    /// that it is no packet of QUIC.
    pub fn knock(&self, to: SocketAddr, what: &[u8; KNOCK]) {
        self.socket.knock(to, what);
    }

    /// The next small datagram that has come, and from where it says that it does.
    ///
    /// # Errors
    /// The socket has failed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn knocked(&self) -> io::Result<(SocketAddr, [u8; KNOCK])> {
        let knock = self.knocks.lock().await.recv().await;
        knock.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// A connection from there, as one that was dialled. While nobody answers, its first packet (1,200 bytes) is sent again after 1 s, and then
    /// after twice as long each time.
    ///
    /// # Errors
    /// What came of it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let (connection, send, recv) = begin(&self.endpoint, self.client.clone(), to).await?;
        let stream = QuicStream::new(self.endpoint.clone(), connection, send, recv);
        Ok(Stream::from_wire(stream, format!("quic {to}"))
            .with_remote(Remote::Quic(to))
            .with_local(Some(self.address)))
    }

    /// From now on others may connect to it.
    ///
    /// # Errors
    /// No certificate could be made.
    pub fn listen(&self) -> io::Result<()> {
        let server = config::server(&QuicSettings::default()).map_err(io::Error::other)?;
        self.endpoint.set_server_config(Some(server));
        Ok(())
    }

    /// The next one who connects. Never ready if nobody may.
    ///
    /// # Errors
    /// The socket has failed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn accept(&self) -> io::Result<QuicArriving> {
        let incoming = self.endpoint.accept().await;
        let incoming = incoming.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(QuicArriving {
            endpoint: self.endpoint.clone(),
            incoming,
        })
    }
}

impl Drop for QuicPort {
    fn drop(&mut self) {
        // Connections that are there keep the socket.
        refuse_all(&self.endpoint);
    }
}

/// Somebody who connects to a [`QuicPort`].
#[derive(Debug)]
pub struct QuicArriving {
    endpoint: QuinnEndpoint,
    incoming: Incoming,
}

impl QuicArriving {
    /// The stream, once the handshake has proven the address. `None` where nothing came of it.
    ///
    /// # Cancel safety
    /// Dropping the future refuses it.
    pub async fn stream(self) -> Option<Stream> {
        arrive(self.endpoint, self.incoming).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::listen;

    fn port() -> QuicPort {
        QuicPort::open(std::net::Ipv4Addr::LOCALHOST.into()).unwrap()
    }

    #[tokio::test]
    async fn a_port_carries_connections_both_ways_and_what_knocks_beside_them() {
        let mut relay = listen(&"quic:127.0.0.1:0".parse().unwrap()).await.unwrap();
        let crate::Target::Quic { port: at, .. } = *relay.endpoint().target() else {
            panic!("no quic: listener");
        };
        let (one, two) = (port(), port());
        let at = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), at);
        let (with_relay, accepted) = tokio::join!(one.connect(at), relay.accept());
        let (with_relay, accepted) = (with_relay.unwrap(), accepted.unwrap().unwrap());
        assert_eq!(accepted.remote(), &Remote::Quic(one.address()));
        one.listen().unwrap();
        let came = async { one.accept().await.unwrap().stream().await };
        let (came, went) = tokio::join!(came, two.connect(one.address()));
        let (mut came, mut went) = (came.unwrap(), went.unwrap());
        assert_eq!(came.remote(), &Remote::Quic(two.address()));
        // Garbage of that length, and of another one: neither end minds.
        let knock = *b"\x01sixteen bytes...";
        two.knock(one.address(), &knock);
        assert_eq!(one.knocked().await.unwrap(), (two.address(), knock));
        went.write_all(b"one").await.unwrap();
        let mut read = [0; 3];
        came.read_exact(&mut read).await.unwrap();
        // What is there goes on without the port.
        drop((one, two, with_relay));
        came.write_all(b"two").await.unwrap();
        went.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"two");
    }

    #[tokio::test]
    async fn who_knocks_too_often_takes_no_memory_and_nothing_is_answered() {
        let (one, two) = (port(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        one.listen().unwrap();
        let mut sent = [0; KNOCK];
        for n in 0..200 {
            sent[1] = n;
            two.send_to(&sent, one.address()).unwrap();
        }
        let (from, first) = one.knocked().await.unwrap();
        assert_eq!((from, first[1]), (two.local_addr().unwrap(), 0));
        two.set_read_timeout(Some(std::time::Duration::from_millis(200)))
            .unwrap();
        assert!(two.recv(&mut [0; 64]).is_err(), "it was answered");
        let mut more = 0;
        while one.knocks.lock().await.try_recv().is_ok() {
            more += 1;
        }
        assert!(more < 64, "{more}");
    }
}
