//! Waiting at an address.
use std::fmt;

use crate::endpoint::{Endpoint, Target};
use crate::error::{Action, TransportError, in_runtime};
use crate::fd::{self, Inherited};
use crate::memory::MemoryListener;
use crate::pty::PtyListener;
use crate::quic::QuicListener;
use crate::rfc2217::Rfc2217Listener;
use crate::serial::SerialListener;
use crate::stream::Stream;
use crate::tcp::TcpSockets;
use crate::terminal::Terminal;
use crate::unix::UnixSocket;
use crate::ws::WsListener;
use crate::{exec, ssh, stdio, tcp};

/// Listens on what the address names; its layers are not built here.
///
/// | scheme | what [`Listener::accept`] gives |
/// |---|---|
/// | `tcp`, `unix`, `memory` | a stream for each connection; `tcp` at every address of its name |
/// | `ws`, `wss` | a stream for each connection, before its handshake: where that comes to nothing, as with somebody's browser, the first read says so |
/// | `quic` | a stream for each connection, perhaps before its handshake, as with `ws` |
/// | `rfc2217` | a stream for each client, which has this end's bytes from a serial line, as it takes it |
/// | `fd` | where it is a socket that listens (TCP or Unix), a stream for each connection; otherwise one stream, then `None` |
/// | `stdio`, `exec` | one stream (the command is started by `listen`), then `None` |
/// | `serial` | a stream when the first byte has come; the next one when that was dropped and another byte comes |
/// | `pty` | a stream when somebody has opened the other end; the next one when that was dropped and somebody opens it again |
///
/// Must be called inside a tokio runtime with IO and time enabled; outside of any it is an error. Dropping the listener frees the
/// address (of an inherited socket, when whoever bound it frees it too); accepted streams live on (except that the link of a `pty:` is gone then, and that those of `quic:` keep the port until they are gone, too).
///
/// # Errors
/// One line: what was listened on, why it failed, what to do.
pub async fn listen(endpoint: &Endpoint) -> Result<Listener, TransportError> {
    in_runtime(Action::Listen, endpoint)?;
    let mut real = endpoint.clone();
    let source = match endpoint.target() {
        Target::Tcp {
            host,
            port,
            settings,
        } => {
            let (sockets, port) = tcp::bind(endpoint, host, *port, settings).await?;
            real = real.with_port(port);
            Source::Tcp(sockets)
        }
        Target::Ws {
            host,
            port,
            path,
            settings,
        } => {
            let (listener, port) =
                Box::pin(WsListener::bind(endpoint, host, *port, path, settings)).await?;
            real = real.with_port(port);
            Source::Ws(listener)
        }
        Target::Quic {
            host,
            port,
            settings,
        } => {
            let (listener, port) =
                Box::pin(QuicListener::bind(endpoint, host, *port, settings)).await?;
            real = real.with_port(port);
            Source::Quic(listener)
        }
        Target::Unix { path, settings } => {
            Source::Unix(UnixSocket::bind(endpoint, path, settings).await?)
        }
        Target::Stdio => Source::Once(Some(stdio::open(Action::Listen, endpoint)?)),
        Target::Fd { read, write } => match fd::listen(endpoint, *read, *write)? {
            Inherited::Connected(stream) => Source::Once(Some(stream)),
            Inherited::Tcp(listener, target) => {
                real = real.with_target(target);
                Source::Tcp(TcpSockets::inherited(listener))
            }
            Inherited::Unix(listener, target) => {
                real = real.with_target(target);
                Source::Unix(UnixSocket::inherited(listener))
            }
        },
        Target::Exec { argv, dir, pty } => {
            let terminal = Terminal::default();
            let command = exec::Command {
                argv,
                dir: dir.as_deref(),
                terminal: pty.then_some(&terminal),
                for_peer: false,
            };
            Source::Once(Some(exec::start(Action::Listen, endpoint, &command)?))
        }
        Target::Ssh { .. } => return Err(ssh::not_listened(endpoint)),
        Target::Serial { path, settings } => {
            Source::Serial(Box::new(SerialListener::new(endpoint, path, settings)?))
        }
        Target::Rfc2217 {
            host,
            port,
            settings,
        } => {
            let (listener, port) =
                Box::pin(Rfc2217Listener::bind(endpoint, host, *port, settings)).await?;
            real = real.with_port(port);
            Source::Rfc2217(listener)
        }
        Target::Pty { path } => Source::Pty(PtyListener::new(endpoint, path)?),
        Target::Memory { name } => Source::Memory(MemoryListener::bind(endpoint, name)?),
    };
    Ok(Listener {
        endpoint: real,
        source,
    })
}

/// Waits for streams at an address.
pub struct Listener {
    endpoint: Endpoint,
    source: Source,
}

enum Source {
    Tcp(TcpSockets),
    Ws(WsListener),
    Quic(QuicListener),
    Unix(UnixSocket),
    Memory(MemoryListener),
    Serial(Box<SerialListener>),
    Rfc2217(Rfc2217Listener),
    Pty(PtyListener),
    Once(Option<Stream>),
}

impl Listener {
    /// The next stream, or `None` when no further one will come. Cancel safe.
    ///
    /// # Errors
    /// One line, as for [`listen`].
    pub async fn accept(&mut self) -> Result<Option<Stream>, TransportError> {
        match &mut self.source {
            Source::Tcp(sockets) => sockets.accept(&self.endpoint).await.map(Some),
            Source::Ws(listener) => listener.accept(&self.endpoint).await.map(Some),
            Source::Quic(listener) => listener.accept(&self.endpoint).await.map(Some),
            Source::Unix(socket) => socket.accept(&self.endpoint).await.map(Some),
            Source::Memory(listener) => Ok(listener.accept().await),
            Source::Serial(line) => line.accept(&self.endpoint).await.map(Some),
            Source::Rfc2217(listener) => listener.accept(&self.endpoint).await.map(Some),
            Source::Pty(pty) => pty.accept(&self.endpoint).await.map(Some),
            Source::Once(stream) => Ok(stream.take()),
        }
    }

    /// What the address asks for and the device does not do, where that is no failure; one line each, as
    /// [`Stream::remarks`]. Of a line that was opened anew since, those of that time.
    pub fn remarks(&self) -> &[String] {
        match &self.source {
            Source::Serial(line) => line.remarks(),
            _ => &[],
        }
    }

    /// What is listened on, with the real port where any was asked for; of an inherited socket, where it is bound.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
