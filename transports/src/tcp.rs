//! `tcp:`: dialling tries every address of a name, listening is at all of them and reports the real port.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};

use crate::endpoint::Endpoint;
use crate::error::{
    Action, TransportError, TransportErrorKind as Kind, describe, kind_of, transient,
};
use crate::remote::Remote;
use crate::stream::{Stream, Wire};

/// How long a dial may take in all, name lookup included. The kernel alone would wait two minutes for
/// an address that does not answer; 10 s cover three lost SYNs.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How much later than the one before it an address is tried, while none has answered (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// The addresses of the name are raced, so that one that does not answer holds up none that does.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
) -> Result<Stream, TransportError> {
    let start = Instant::now();
    let addresses = resolve(Action::Dial, endpoint, host, port).await?;
    let reached = race(alternating(addresses), start + DIAL_TIMEOUT, |address| {
        TcpStream::connect(address)
    });
    match reached.await {
        Ok((address, stream)) => Ok(wrap(stream, address)),
        Err(failures) => Err(all_failed(endpoint, host, failures)),
    }
}

/// The two families in turn, each in the order of the name service, which is by RFC 6724 (RFC 8305, section 4).
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let family = addresses.into_iter();
    let (first, second): (Vec<_>, Vec<_>) = family.partition(|it| it.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut all = Vec::new();
    for address in first {
        all.push(address);
        all.extend(second.next());
    }
    all.extend(second);
    all
}

type Failures = Vec<(SocketAddr, Kind, io::Error)>;

/// Tries each a little later than the one before, and at once when one has failed (RFC 8305, section 5). The first that is
/// reached; or why each was not, in their order.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    until: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Failures> {
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut failures = Failures::new();
    let mut next_at = Instant::now();
    loop {
        let more = waiting.len() > 0;
        if !more && running.is_empty() {
            break;
        }
        tokio::select! {
            Some((address, result)) = running.next(), if !running.is_empty() => match result {
                Ok(stream) => return Ok((address, stream)),
                Err(error) => {
                    failures.push((address, kind_of(&error), error));
                    next_at = Instant::now();
                }
            },
            () = sleep_until(next_at), if more => {
                if let Some(address) = waiting.next() {
                    next_at = Instant::now() + STAGGER;
                    let connecting = connect(address);
                    running.push(async move { (address, connecting.await) });
                }
            }
            () = sleep_until(until) => break,
        }
    }
    let place = |address| addresses.iter().position(|it| *it == address);
    for address in &addresses {
        if failures.iter().all(|(failed, ..)| failed != address) {
            let error = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
            failures.push((*address, Kind::TimedOut, error));
        }
    }
    failures.sort_by_key(|(address, ..)| place(*address));
    Err(failures)
}

fn all_failed(endpoint: &Endpoint, host: &str, failures: Failures) -> TransportError {
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

/// One that somebody else has connected or accepted.
impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        match stream.peer_addr() {
            Ok(address) => wrap(stream, address),
            // It is broken already, which the first read or write tells.
            Err(_) => Self::from_wire(stream, "tcp"),
        }
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

/// The sockets of a listener, one for each address of its name.
#[derive(Debug)]
pub(crate) struct TcpSockets {
    /// Never empty. The one that is looked at first comes last in the next round, so that none waits for ever.
    listeners: Vec<TcpListener>,
}

/// Binds every address of the name, all with one port: whoever dials the name tries them in turn, and must not meet
/// somebody else at one of them. Gives the port.
pub(crate) async fn bind(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
) -> Result<(TcpSockets, u16), TransportError> {
    let addresses = resolve(Action::Listen, endpoint, host, port).await?;
    let advice = |error: &io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop what listens there, or take another port (0: any free one)"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; take a higher one",
        io::ErrorKind::AddrNotAvailable => "that address is not one of this machine",
        _ => "check the address",
    };
    let bound = bind_all(&addresses).await;
    bound.map_err(|error| {
        let advice = advice(&error);
        TransportError::io(Action::Listen, endpoint, error, advice)
    })
}

/// How often another free port is taken because the first address's is in use at the next one.
const OTHER_PORTS: usize = 16;

async fn bind_all(addresses: &[SocketAddr]) -> io::Result<(TcpSockets, u16)> {
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_each(addresses).await {
            Err((chosen, error))
                if chosen && error.kind() == io::ErrorKind::AddrInUse && tries < OTHER_PORTS => {}
            bound => return bound.map_err(|(_, error)| error),
        }
    }
}

/// The error comes with whether the port was chosen by the system.
async fn bind_each(addresses: &[SocketAddr]) -> Result<(TcpSockets, u16), (bool, io::Error)> {
    let mut listeners = Vec::new();
    let (mut port, mut chosen, mut absent) = (None, false, None);
    let mut done = BTreeSet::new();
    for address in addresses {
        if !done.insert(*address) {
            continue;
        }
        let mut at = *address;
        if let Some(port) = port {
            at.set_port(port);
        }
        let listener = match TcpListener::bind(at).await {
            Ok(listener) => listener,
            // The name has an address of a family that this machine does not speak, as with IPv6 switched off.
            Err(error) if is_absent(&error) => {
                absent = absent.or(Some(error));
                continue;
            }
            Err(error) => return Err((chosen, error)),
        };
        if port.is_none() {
            let real = listener.local_addr().map_err(|e| (false, e))?;
            chosen = at.port() == 0;
            port = Some(real.port());
        }
        listeners.push(listener);
    }
    let Some(port) = port else {
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err((false, absent.unwrap_or_else(nothing)));
    };
    Ok((TcpSockets { listeners }, port))
}

fn is_absent(error: &io::Error) -> bool {
    let family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(family)
}

impl TcpSockets {
    /// The next connection. Cancel safe.
    ///
    /// What concerns one connection (it was gone before it was accepted) is passed over. When the process
    /// has run out of descriptors or memory, it waits a moment and tries again: a server that stops
    /// accepting for good because of one such moment would be the worse failure.
    pub(crate) async fn accept(&mut self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok((stream, address)) => return Ok(wrap(stream, address)),
                Err(error) if transient(&error) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(TransportError::io(Action::Accept, endpoint, error, "")),
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        for (at, listener) in self.listeners.iter().enumerate() {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                self.listeners.rotate_left(at + 1);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(port: u16) -> Vec<SocketAddr> {
        ["127.0.0.1", "127.0.0.2", "127.0.0.1", "::1"]
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), port))
            .to_vec()
    }

    /// In virtual time.
    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_holds_up_none_that_does() {
        let all = addresses(1);
        let (dead, good) = (all[0], all[1]);
        let start = Instant::now();
        let connect = async |address| {
            if address == dead {
                std::future::pending::<()>().await;
            }
            Ok::<_, io::Error>(())
        };
        let reached = race(vec![dead, good], start + DIAL_TIMEOUT, connect).await;
        assert_eq!(reached.unwrap().0, good);
        assert!(start.elapsed() < 2 * STAGGER, "{:?}", start.elapsed());
        // One that fails holds up nobody at all, and each failure is told, in their order.
        let start = Instant::now();
        let connect = async |address| {
            if address == dead {
                std::future::pending::<()>().await;
            }
            Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused))
        };
        let failed = race(vec![dead, good], start + DIAL_TIMEOUT, connect).await;
        let told = failed
            .unwrap_err()
            .into_iter()
            .map(|(at, kind, _)| (at, kind));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [(dead, Kind::TimedOut), (good, Kind::Refused)]
        );
        assert!(start.elapsed() <= DIAL_TIMEOUT + STAGGER);
    }

    #[test]
    fn both_families_are_tried_in_turn() {
        let [a, b, c, six] = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"]
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 1));
        assert_eq!(alternating(vec![a, b, c, six]), [a, six, b, c]);
        assert_eq!(alternating(vec![six, a, b]), [six, a, b]);
    }

    #[tokio::test]
    async fn a_listener_is_at_every_address_of_its_name_with_one_port() {
        for _ in 0..20 {
            let (mut sockets, port) = bind_all(&addresses(0)).await.unwrap();
            let all: Vec<_> = sockets
                .listeners
                .iter()
                .map(|l| l.local_addr().unwrap())
                .collect();
            // A machine without IPv6 has two.
            assert!((2..=3).contains(&all.len()), "{all:?}");
            assert!(all.iter().all(|at| at.port() == port), "{all:?}");
            let endpoint = "tcp:localhost:1".parse().unwrap();
            for at in all {
                let stream = TcpStream::connect(at).await.unwrap();
                let accepted = sockets.accept(&endpoint).await.unwrap();
                let from = stream.local_addr().unwrap();
                assert_eq!(accepted.remote(), &Remote::Tcp(from));
            }
        }
    }

    #[tokio::test]
    async fn busy_addresses_do_not_starve_the_others() {
        let (mut sockets, port) = bind_all(&addresses(0)).await.unwrap();
        let endpoint = "tcp:localhost:1".parse().unwrap();
        let mut held = Vec::new();
        for _ in 0..50 {
            held.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        held.push(TcpStream::connect(("127.0.0.2", port)).await.unwrap());
        let quiet = held.last().unwrap().local_addr().unwrap();
        // In its turn, or a little later where its readiness comes later.
        for _ in 0..25 {
            if sockets.accept(&endpoint).await.unwrap().remote() == &Remote::Tcp(quiet) {
                return;
            }
        }
        panic!("only the busy one is accepted from");
    }

    #[tokio::test]
    async fn an_address_that_is_taken_fails_the_listener_and_one_that_is_not_here_does_not() {
        let taken = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind_all(&addresses(port)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // Documentation's (RFC 5737): nobody has it.
        let elsewhere = SocketAddr::new("192.0.2.1".parse().unwrap(), 0);
        let here = SocketAddr::new("127.0.0.1".parse().unwrap(), 0);
        let (sockets, _) = bind_all(&[elsewhere, here]).await.unwrap();
        assert_eq!(sockets.listeners.len(), 1);
        let error = bind_all(&[elsewhere]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
