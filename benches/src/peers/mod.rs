//! The peers: cepa and its rivals behind one face. One end opens byte streams, the other accepts them.
//!
//! | peer | a stream is |
//! | --- | --- |
//! | `cepa` | a substream of the mux over one layer of an onion, as [`Config::default`](cepa::mux::Config) has it |
//! | `tcp` | a connection |
//! | `tls` | a connection with tokio-rustls: the mark that cepa is measured by |
//! | `yamux` | a stream of the `yamux` crate over tokio-rustls |
//! | `tokio-yamux` | a stream of the `tokio-yamux` crate over tokio-rustls |
//! | `h2` | a request of the `h2` crate over tokio-rustls, its bodies there and back |
//! | `quinn` | a bidirectional stream of QUIC, over loopback UDP |
//!
//! All have the same kind of certificates on both ends (P-256, self-signed), TLS 1.3, the same provider, and with it
//! the same key exchange and suite. Sockets have `TCP_NODELAY`. The rivals keep their defaults, except where a limit
//! would end the workload.

mod h2;
mod io;
mod quinn;
mod tls;
mod tokio_yamux;
mod yamux;

use std::sync::{Arc, Mutex, PoisonError};

use cepa::mux::{self, Mux};
use cepa::{ByteStream, Side};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::Outcome;
use crate::link::{Knob, Path, Pongs, Tampered, link};

use io::{QUEUE, Queue};

pub(crate) use io::Io;
pub(crate) use tls::Credentials;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    Cepa,
    Tcp,
    Tls,
    Yamux,
    TokioYamux,
    H2,
    Quinn,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cepa => "cepa",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Yamux => "yamux",
            Self::TokioYamux => "tokio-yamux",
            Self::H2 => "h2",
            Self::Quinn => "quinn",
        }
    }
}

/// What the two ends are joined by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Between {
    /// Sockets over loopback.
    Loopback,
    /// A path inside this process.
    Link(Path),
    /// The same with plain frames, whose pongs the sender gets late or never.
    Plain(Path, Pongs),
}

/// Two ends that are joined.
pub(crate) struct Joined {
    pub(crate) opener: Opener,
    pub(crate) accepter: Accepter,
    /// Where there is a path inside this process.
    pub(crate) knob: Option<Knob>,
}

/// How many streams there will be at once, and what cepa may queue for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) count: usize,
    pub(crate) queue: Option<usize>,
}

impl From<usize> for Streams {
    fn from(count: usize) -> Self {
        Self { count, queue: None }
    }
}

/// Joins two ends.
pub(crate) async fn join(
    peer: Peer,
    between: Between,
    streams: impl Into<Streams>,
    credentials: &Arc<Credentials>,
) -> Outcome<Joined> {
    let streams = streams.into();
    match (peer, between) {
        (Peer::Quinn, Between::Loopback) => {
            let (near, far) = quinn::join(streams.count, credentials).await?;
            Ok(Joined {
                opener: Opener::Quinn(near),
                accepter: Accepter::Quinn(far),
                knob: None,
            })
        }
        (Peer::Tcp | Peer::Tls, Between::Loopback) => connections(peer, credentials).await,
        (_, Between::Loopback) => {
            let (near, far) = tcp().await?;
            secured(peer, near, far, streams, credentials).await
        }
        (Peer::Quinn, _) => {
            Err("quinn runs over loopback only: a link carries bytes, not datagrams".into())
        }
        (_, Between::Link(path)) => {
            let (near, far, knob) = link(path)?;
            let mut joined = secured(peer, near, far, streams, credentials).await?;
            joined.knob = Some(knob);
            Ok(joined)
        }
        (_, Between::Plain(path, pongs)) => {
            let (near, far, knob) = link(path)?;
            let mut joined = muxed(peer, Tampered::new(near, pongs), far, streams).await?;
            joined.knob = Some(knob);
            Ok(joined)
        }
    }
}

/// One connection over loopback, with the peer's mux on top where it has one.
pub(crate) async fn connect(peer: Peer, credentials: &Arc<Credentials>) -> Outcome<Joined> {
    let (near, far) = tcp().await?;
    secured(peer, near, far, 1.into(), credentials).await
}

/// The two ends of a TCP connection that is there, with the peer's mux on top where it has one.
pub(crate) async fn over(
    peer: Peer,
    near: std::net::TcpStream,
    far: std::net::TcpStream,
    credentials: &Arc<Credentials>,
) -> Outcome<Joined> {
    let into_async = |socket: std::net::TcpStream| {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        TcpStream::from_std(socket)
    };
    secured(
        peer,
        into_async(near)?,
        into_async(far)?,
        1.into(),
        credentials,
    )
    .await
}

/// The two ends of a TCP connection over loopback under so many layers of TLS, without a mux.
pub(crate) async fn layered(
    peer: Peer,
    depth: usize,
    credentials: &Credentials,
) -> Outcome<(Io, Io)> {
    let (near, far) = tcp().await?;
    if peer == Peer::Cepa {
        let (near, far) = credentials.onions(near, far, depth).await?;
        return Ok((Box::new(near), Box::new(far)));
    }
    let (mut near, mut far): (Io, Io) = (Box::new(near), Box::new(far));
    for _ in 0..depth {
        let (over_near, over_far) = credentials.rustls(near, far).await?;
        (near, far) = (Box::new(over_near), Box::new(over_far));
    }
    Ok((near, far))
}

/// Puts TLS on, and the peer's mux on top.
async fn secured<T: ByteStream>(
    peer: Peer,
    near: T,
    far: T,
    streams: Streams,
    credentials: &Arc<Credentials>,
) -> Outcome<Joined> {
    match peer {
        Peer::Cepa => {
            let (near, far) = credentials.onions(near, far, 1).await?;
            muxed(peer, near, far, streams).await
        }
        Peer::Tcp => muxed(peer, near, far, streams).await,
        _ => {
            let (near, far) = credentials.rustls(near, far).await?;
            muxed(peer, near, far, streams).await
        }
    }
}

/// The peer's mux over two ends of whatever carries bytes.
async fn muxed<A: ByteStream, B: ByteStream>(
    peer: Peer,
    near: A,
    far: B,
    streams: Streams,
) -> Outcome<Joined> {
    let (opener, accepter) = match peer {
        Peer::Cepa => ours(near, far, streams),
        Peer::Yamux => {
            let (opener, queue) = yamux::join(near, far, streams.count);
            (Opener::Yamux(opener), Accepter::Queue(queue))
        }
        Peer::TokioYamux => {
            let (opener, queue) = tokio_yamux::join(near, far);
            (Opener::TokioYamux(opener), Accepter::Queue(queue))
        }
        Peer::H2 => {
            let (opener, queue) = h2::join(near, far, streams.count).await?;
            (Opener::H2(opener), Accepter::Queue(queue))
        }
        Peer::Tcp | Peer::Tls => alone(Box::new(near), Box::new(far)),
        Peer::Quinn => return Err("quinn has no plain frames".into()),
    };
    Ok(Joined {
        opener,
        accepter,
        knob: None,
    })
}

fn ours(near: impl ByteStream, far: impl ByteStream, streams: Streams) -> (Opener, Accepter) {
    let mut config = mux::Config::default();
    // As between the two ends of a session.
    config.first_window = 64 << 10;
    let count = streams.count;
    if count > config.max_inbound_streams {
        config.max_inbound_streams = count;
        config.max_outbound_streams = count;
        config.receive_budget = count * (256 << 10);
    }
    config.send_queue = streams.queue.unwrap_or(config.send_queue);
    let (client, driver) = mux::mux(near, Side::Client, config.clone());
    tokio::spawn(driver);
    let (server, driver) = mux::mux(far, Side::Server, config);
    tokio::spawn(driver);
    (Opener::Cepa(client), Accepter::Cepa(server))
}

/// One stream: the connection itself.
fn alone(near: Io, far: Io) -> (Opener, Accepter) {
    let (send, accepted) = mpsc::channel(1);
    // The channel has room for one and its other end is here.
    let _ = send.try_send(far);
    (
        Opener::Once(Arc::new(Mutex::new(Some(near)))),
        Accepter::Queue(accepted),
    )
}

/// A stream a connection.
async fn connections(peer: Peer, credentials: &Arc<Credentials>) -> Outcome<Joined> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (send, accepted) = mpsc::channel::<Io>(QUEUE);
    let secure = peer == Peer::Tls;
    let of_server = Arc::clone(credentials);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (send, credentials) = (send.clone(), Arc::clone(&of_server));
            tokio::spawn(async move {
                socket.set_nodelay(true)?;
                let io: Io = if secure {
                    Box::new(credentials.accept(socket).await?)
                } else {
                    Box::new(socket)
                };
                let _ = send.send(io).await;
                Outcome::Ok(())
            });
        }
    });
    let opener = if secure {
        Opener::Tls(address, Arc::clone(credentials))
    } else {
        Opener::Tcp(address)
    };
    Ok(Joined {
        opener,
        accepter: Accepter::Queue(accepted),
        knob: None,
    })
}

pub(crate) async fn tcp() -> Outcome<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// The end that opens streams.
#[derive(Clone)]
pub(crate) enum Opener {
    Cepa(Mux),
    Yamux(yamux::Opener),
    TokioYamux(tokio_yamux::Opener),
    H2(h2::Opener),
    Quinn(quinn::End),
    Tcp(std::net::SocketAddr),
    Tls(std::net::SocketAddr, Arc<Credentials>),
    Once(Arc<Mutex<Option<Io>>>),
}

impl Opener {
    pub(crate) async fn open(&self) -> Outcome<Io> {
        Ok(match self {
            Self::Cepa(mux) => Box::new(mux.open().await?),
            Self::Yamux(opener) => opener.open().await?,
            Self::TokioYamux(opener) => opener.open().await?,
            Self::H2(opener) => opener.open().await?,
            Self::Quinn(end) => end.open().await?,
            Self::Tcp(address) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                Box::new(socket)
            }
            Self::Tls(address, credentials) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                Box::new(credentials.connect(socket).await?)
            }
            Self::Once(stream) => {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                stream.ok_or("this peer has one stream on a link, and it is taken")?
            }
        })
    }
}

/// The end that accepts them.
pub(crate) enum Accepter {
    Cepa(Mux),
    Queue(Queue),
    Quinn(quinn::End),
}

impl Accepter {
    pub(crate) async fn accept(&mut self) -> Outcome<Io> {
        match self {
            Self::Cepa(mux) => Ok(Box::new(mux.accept().await?)),
            Self::Queue(queue) => Ok(queue.recv().await.ok_or("the session ended")?),
            Self::Quinn(end) => end.accept().await,
        }
    }
}
