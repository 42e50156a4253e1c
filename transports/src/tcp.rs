//! `tcp:`: dialling tries every address of a name, listening reports the real port.
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::endpoint::Endpoint;
use crate::error::{
    Action, TransportError, TransportErrorKind as Kind, describe, kind_of, transient,
};
use crate::remote::Remote;
use crate::stream::{Stream, Wire};

/// How long a dial may take in all, name lookup included. The kernel alone would wait two minutes for
/// an address that does not answer; 10 s cover three lost SYNs.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Each address of the name gets an equal share of the time that is left, so that one that does not
/// answer cannot keep the next from being tried.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
) -> Result<Stream, TransportError> {
    let start = Instant::now();
    let addresses = resolve(Action::Dial, endpoint, host, port).await?;
    let mut failures: Vec<(SocketAddr, Kind, io::Error)> = Vec::new();
    for (i, address) in addresses.iter().enumerate() {
        let left = DIAL_TIMEOUT.saturating_sub(start.elapsed());
        let tries = u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        match timeout(left / tries, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(wrap(stream, *address)),
            Ok(Err(error)) => failures.push((*address, kind_of(&error), error)),
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
                failures.push((*address, Kind::TimedOut, error));
            }
        }
    }
    Err(all_failed(endpoint, host, failures))
}

fn all_failed(
    endpoint: &Endpoint,
    host: &str,
    failures: Vec<(SocketAddr, Kind, io::Error)>,
) -> TransportError {
    let mut reason = String::new();
    for (address, _, error) in &failures {
        let gap = if reason.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = if failures.len() == 1 && address.ip().to_string() == host {
            write!(reason, "{}", describe(error))
        } else {
            write!(reason, "{gap}{address}: {}", describe(error))
        };
    }
    let Some((_, kind, error)) = failures.into_iter().next() else {
        return TransportError::new(
            Action::Dial,
            endpoint,
            Kind::NotFound,
            format!("the name {host} has no address"),
            "check the name",
        );
    };
    let advice = match kind {
        Kind::Refused => "is anything listening there? check the host and the port",
        Kind::TimedOut => "check the address, and firewalls on the way",
        Kind::PermissionDenied => "a firewall of this machine or its policy forbids it",
        _ => "check the host, the port and the network",
    };
    TransportError::new(Action::Dial, endpoint, kind, reason, advice).with_source(error)
}

async fn resolve(
    action: Action,
    endpoint: &Endpoint,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, TransportError> {
    match timeout(DIAL_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => {
            let reason = format!("the name {host} cannot be resolved: {}", describe(&error));
            let advice = "check the name, and the name service of this machine";
            Err(
                TransportError::new(action, endpoint, Kind::NotFound, reason, advice)
                    .with_source(error),
            )
        }
        Err(_) => Err(TransportError::new(
            action,
            endpoint,
            Kind::TimedOut,
            format!("no answer to the lookup of {host} within 10 s"),
            "check the name service, or write the address itself",
        )),
    }
}

fn wrap(stream: TcpStream, address: SocketAddr) -> Stream {
    // Without it the last segment of every message waits for an acknowledgement (Nagle). Fails
    // only on a connection that is broken already, which the first read or write will tell better.
    let _ = stream.set_nodelay(true);
    Stream::from_wire(stream, format!("tcp {address}")).with_remote(Remote::Tcp(address))
}

impl Wire for TcpStream {
    fn cut_when_dropped(&mut self, yes: bool) {
        // Fails only on a socket that is broken already.
        let _ = set_socket_linger(&*self, yes.then_some(Duration::ZERO));
    }
}

/// Binds the first address of the name that can be bound.
pub(crate) async fn bind(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
) -> Result<(TcpListener, u16), TransportError> {
    let addresses = resolve(Action::Listen, endpoint, host, port).await?;
    let bound = TcpListener::bind(addresses.as_slice()).await;
    let advice = |error: &io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop what listens there, or take another port (0: any free one)"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; take a higher one",
        io::ErrorKind::AddrNotAvailable => "that address is not one of this machine",
        _ => "check the address",
    };
    let fail = |error: io::Error| {
        let advice = advice(&error);
        TransportError::io(Action::Listen, endpoint, error, advice)
    };
    let listener = bound.map_err(fail)?;
    let port = listener.local_addr().map_err(fail)?.port();
    Ok((listener, port))
}

/// The next connection. Cancel safe.
///
/// What concerns one connection (it was gone before it was accepted) is passed over. When the process
/// has run out of descriptors or memory, it waits a moment and tries again: a server that stops
/// accepting for good because of one such moment would be the worse failure.
pub(crate) async fn accept(
    listener: &TcpListener,
    endpoint: &Endpoint,
) -> Result<Stream, TransportError> {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return Ok(wrap(stream, address)),
            Err(error) if transient(&error) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(TransportError::io(Action::Accept, endpoint, error, "")),
        }
    }
}
