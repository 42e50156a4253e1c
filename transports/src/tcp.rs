//! `tcp:`: dialling tries every address of a name, listening is at all of them and reports the real port.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::endpoint::{Endpoint, Proxy, ProxyKind, TcpSettings, TcpWay};
use crate::error::{
    Action, TransportError, TransportErrorKind as Kind, describe, kind_of, transient,
};
use crate::proxy;
use crate::remote::Remote;
use crate::stream::Stream;
use crate::tcp_way;
use crate::unsent::Unsent;
use crate::via;
use crate::watched::{self, Watched};

/// How long a dial may take in all, name lookup included. The kernel alone would wait two minutes for
/// an address that does not answer; 10 s cover three lost SYNs.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted, as far as the system allows (Linux: 4,096 unless set otherwise). Of a crowd
/// that comes at once, whoever finds no place there tries again after a second.
const QUEUE: u32 = 4096;

/// How much later than the one before it an address is tried, while none has answered (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// The addresses of the name are raced, so that one that does not answer holds up none that does.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    settings: &TcpSettings,
) -> Result<Stream, TransportError> {
    if let Some(proxy) = settings.proxy.as_deref() {
        // Boxed: few dials go this way, and all would have its size.
        return Box::pin(dial_by(endpoint, host, port, settings, proxy)).await;
    }
    let start = Instant::now();
    let addresses = resolve(Action::Dial, endpoint, host, port).await?;
    let addresses = tcp_way::reachable(settings.way.as_deref(), addresses);
    let reached = race(alternating(addresses), start + DIAL_TIMEOUT, |address| {
        tcp_way::connect(address, settings.way.as_deref())
    });
    match reached.await {
        Ok((address, stream)) => Ok(wrap(stream, address, address, settings)),
        Err(failures) => {
            let way = settings.way.as_deref();
            Err(all_failed(
                endpoint,
                host,
                way,
                failures,
                |kind| match kind {
                    Kind::Refused => "is anything listening there? check the host and the port",
                    Kind::TimedOut => "check the address, and firewalls on the way",
                    _ => "check the host, the port and the network",
                },
            ))
        }
    }
}

/// Through a proxy.
async fn dial_by(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    settings: &TcpSettings,
    proxy: &Proxy,
) -> Result<Stream, TransportError> {
    let way = settings.way.as_deref();
    let fail = |kind, reason: &str, advice: &str| {
        let reason = format!("the proxy {proxy}: {reason}");
        TransportError::new(Action::Dial, endpoint, kind, reason, advice)
    };
    // The target's own name is the proxy's to resolve, but with `socks5`.
    let here = match proxy.kind {
        ProxyKind::Socks5 => resolve(Action::Dial, endpoint, host, port)
            .await?
            .first()
            .map(|address| address.ip().to_string()),
        ProxyKind::Socks5h | ProxyKind::Http => None,
    };
    let addresses = match timeout(DIAL_TIMEOUT, lookup_host((&*proxy.host, proxy.port))).await {
        Ok(Ok(addresses)) => tcp_way::reachable(way, addresses.collect()),
        Ok(Err(error)) => {
            let reason = format!("its name cannot be resolved: {}", describe(&error));
            return Err(fail(Kind::NotFound, &reason, "check proxy=").with_source(error));
        }
        Err(_) => {
            let reason = "no answer to the lookup of its name within 10 s";
            return Err(fail(Kind::TimedOut, reason, "check the name service"));
        }
    };
    let until = Instant::now() + DIAL_TIMEOUT;
    let connecting = race(alternating(addresses), until, |address| {
        tcp_way::connect(address, way)
    });
    let (at, mut stream) = match connecting.await {
        Ok(reached) => reached,
        Err(failures) => {
            let Some((_, kind, error)) = failures.into_iter().next() else {
                let reason = format!("its name has {}", tcp_way::missing(way));
                return Err(fail(Kind::NotFound, &reason, "check proxy="));
            };
            let advice = "is it running? check the host and the port of proxy=";
            return Err(fail(kind, &describe(&error), advice).with_source(error));
        }
    };
    let asked = via::connect(proxy, &mut stream, here.as_deref().unwrap_or(host), port);
    if let Err(refusal) = asked.await {
        return Err(fail(refusal.kind, &refusal.reason, refusal.advice));
    }
    let local = stream.local_addr().ok();
    let label = format!("tcp {host}:{port} by proxy {}:{}", proxy.host, proxy.port);
    Ok(Stream::from_wire(connection(stream, settings), label)
        .with_remote(Remote::Tcp(at))
        .with_local(local))
}

/// The two families in turn, each in the order of the name service, which is by RFC 6724 (RFC 8305, section 4).
pub(crate) fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
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

pub(crate) type Failures = Vec<(SocketAddr, Kind, io::Error)>;

/// Tries each a little later than the one before, and at once when one has failed (RFC 8305, section 5). The first that is
/// reached; or why each was not, in their order.
pub(crate) async fn race<T, F: Future<Output = io::Result<T>>>(
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

/// Why none of the addresses of a name was reached, and what to do about it where this machine forbids nothing.
pub(crate) fn all_failed(
    endpoint: &Endpoint,
    host: &str,
    way: Option<&TcpWay>,
    failures: Failures,
    advice: impl Fn(Kind) -> &'static str,
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
            format!("the name {host} has {}", tcp_way::missing(way)),
            "check the name",
        );
    };
    let advice = match kind {
        Kind::PermissionDenied if tcp_way::is_certain(way) => {
            "leave mark= and interface= out, or run it as root"
        }
        Kind::PermissionDenied => "a firewall of this machine or its policy forbids it",
        kind => advice(kind),
    };
    TransportError::new(Action::Dial, endpoint, kind, reason, advice).with_source(error)
}

pub(crate) async fn resolve(
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
            Ok(address) => wrap(stream, address, address, &TcpSettings::default()),
            // It is broken already, which the first read or write tells.
            Err(_) => Self::from_wire(connection(stream, &TcpSettings::default()), "tcp"),
        }
    }
}

/// A connection with `at`; where a proxy says so, for somebody else behind it.
fn wrap(stream: TcpStream, at: SocketAddr, from: SocketAddr, settings: &TcpSettings) -> Stream {
    let label = if at.ip() == from.ip() {
        format!("tcp {from}")
    } else {
        format!("tcp {from} by {at}")
    };
    let local = stream.local_addr().ok();
    Stream::from_wire(connection(stream, settings), label)
        .with_remote(Remote::Tcp(from))
        .with_local(local)
}

/// Unanswered questions after which a connection is over.
const PROBES: u32 = 4;

/// Seconds after which the other end is asked where it has ended its side: it may be gone, and nothing else would say so. Its
/// system answers for it for about a minute more (`tcp_fin_timeout`).
const HALF_CLOSED: u16 = 10;

/// A connection with its options; all of them fail only on one that is broken already, which the first read or write will tell
/// better.
fn connection(stream: TcpStream, settings: &TcpSettings) -> Watched<TcpStream, Asking> {
    let _ = stream.set_nodelay(settings.nodelay);
    #[cfg(target_os = "linux")]
    if let Some(seconds) = settings.user_timeout {
        let _ = sockopt::set_tcp_user_timeout(&stream, seconds.saturating_mul(1000));
    }
    let asking = Asking {
        keepalive: settings.keepalive,
        early: false,
        unsent: Unsent::default(),
    };
    asking.after(&stream, u16::MAX);
    Watched::new(stream, asking)
}

/// How the other end of a connection is asked whether it is there.
struct Asking {
    keepalive: Option<u16>,
    /// It was not read for a moment, and is asked after `HALF_CLOSED` seconds since.
    early: bool,
    unsent: Unsent,
}

impl Asking {
    /// After so many seconds of silence, or earlier where the settings say so.
    fn after(&self, stream: &TcpStream, most: u16) {
        let Some(seconds) = self.keepalive else {
            return;
        };
        let seconds = u64::from(seconds.min(most));
        let between = Duration::from_secs((seconds / u64::from(PROBES)).max(1));
        let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(seconds));
        let _ = sockopt::set_tcp_keepintvl(stream, between);
        let _ = sockopt::set_tcp_keepcnt(stream, PROBES);
        let _ = sockopt::set_socket_keepalive(stream, true);
    }
}

impl watched::Kind<TcpStream> for Asking {
    fn cut_when_dropped(&mut self, stream: &TcpStream, yes: bool) {
        // Fails only on a socket that is broken already.
        let _ = sockopt::set_socket_linger(stream, yes.then_some(Duration::ZERO));
    }

    fn unread(&mut self, stream: &TcpStream) {
        if !std::mem::replace(&mut self.early, true) {
            self.after(stream, HALF_CLOSED);
        }
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>, stream: &TcpStream) -> Poll<()> {
        self.unsent.poll(cx, stream)
    }
}

/// The sockets of a listener, one for each address of its name.
#[derive(Debug)]
pub(crate) struct TcpSockets {
    /// Never empty. The one that is looked at first comes last in the next round, so that none waits for ever.
    listeners: Vec<TcpListener>,
    settings: Arc<TcpSettings>,
    /// Connections whose header of the PROXY protocol is still being read.
    arriving: JoinSet<Stream>,
}

/// Connections whose header is read at once. More wait in the system's queue.
const ARRIVING: usize = 256;

/// Binds every address of the name, all with one port: whoever dials the name tries them in turn, and must not meet
/// somebody else at one of them. Gives the port.
pub(crate) async fn bind(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    settings: &TcpSettings,
) -> Result<(TcpSockets, u16), TransportError> {
    let option = match (&settings.proxy, tcp_way::bound(settings.way.as_deref())) {
        (Some(_), _) => Some("proxy="),
        (None, Some(_)) => Some("bind="),
        (None, None) => None,
    };
    if let Some(option) = option {
        return Err(TransportError::new(
            Action::Listen,
            endpoint,
            Kind::Invalid,
            format!("{option} is for dialling"),
            "leave it out",
        ));
    }
    let addresses = resolve(Action::Listen, endpoint, host, port).await?;
    let bound = bind_all(&addresses, |at| listen_at(at, settings));
    let (listeners, port) = bound.map_err(|error| not_bound(endpoint, error))?;
    let sockets = TcpSockets {
        listeners,
        settings: Arc::new(settings.clone()),
        arriving: JoinSet::new(),
    };
    Ok((sockets, port))
}

/// Why an address is not listened at.
pub(crate) fn not_bound(endpoint: &Endpoint, error: io::Error) -> TransportError {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop what listens there, or choose another port (0: any free one)"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "that address is not one of this machine",
        _ => "check the address",
    };
    TransportError::io(Action::Listen, endpoint, error, advice)
}

/// How often another free port is taken because the first address's is in use at the next one.
const OTHER_PORTS: usize = 16;

/// A socket at each address, made by `bind`, which gives where it is bound; and the one port of all.
pub(crate) fn bind_all<T>(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> io::Result<(Vec<T>, u16)> {
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_each(addresses, &bind) {
            Err((chosen, error))
                if chosen && error.kind() == io::ErrorKind::AddrInUse && tries < OTHER_PORTS => {}
            Err((_, error)) => return Err(error),
            Ok(bound) => return Ok(bound),
        }
    }
}

/// As [`TcpListener::bind`], with a longer queue.
fn listen_at(at: SocketAddr, settings: &TcpSettings) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = tcp_way::socket(at, settings.way.as_deref())?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    let listener = socket.listen(QUEUE)?;
    let real = listener.local_addr()?;
    Ok((listener, real))
}

/// The error comes with whether the port was chosen by the system.
fn bind_each<T>(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> Result<(Vec<T>, u16), (bool, io::Error)> {
    let mut sockets = Vec::new();
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
        let (socket, real) = match bind(at) {
            Ok(bound) => bound,
            // The name has an address of a family that this machine does not speak, as with IPv6 switched off.
            Err(error) if is_absent(&error) => {
                absent = absent.or(Some(error));
                continue;
            }
            Err(error) => return Err((chosen, error)),
        };
        if port.is_none() {
            chosen = at.port() == 0;
            port = Some(real.port());
        }
        sockets.push(socket);
    }
    let Some(port) = port else {
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err((false, absent.unwrap_or_else(nothing)));
    };
    Ok((sockets, port))
}

fn is_absent(error: &io::Error) -> bool {
    let family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(family)
}

impl TcpSockets {
    /// Somebody else has bound it.
    pub(crate) fn inherited(listener: TcpListener) -> Self {
        Self {
            listeners: vec![listener],
            settings: Arc::default(),
            arriving: JoinSet::new(),
        }
    }

    /// The next connection. Cancel safe.
    ///
    /// What concerns one connection (it was gone before it was accepted) is passed over. When the process
    /// has run out of descriptors or memory, it waits a moment and tries again: a server that stops
    /// accepting for good because of one such moment would be the worse failure.
    pub(crate) async fn accept(&mut self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        loop {
            let (listeners, arriving) = (&mut self.listeners, &mut self.arriving);
            let accepted = tokio::select! {
                Some(arrived) = arriving.join_next() => match arrived {
                    Ok(stream) => return Ok(stream),
                    // Only a runtime that shuts down ends such a task.
                    Err(_) => continue,
                },
                accepted = poll_fn(|cx| poll_accept(listeners, cx)), if arriving.len() < ARRIVING => accepted,
            };
            match accepted {
                Ok((stream, address)) if self.settings.proxy_from.is_none() => {
                    return Ok(wrap(stream, address, address, &self.settings));
                }
                Ok((stream, address)) => {
                    let settings = Arc::clone(&self.settings);
                    self.arriving.spawn(arrive(stream, address, settings));
                }
                Err(error) if transient(&error) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(TransportError::io(Action::Accept, endpoint, error, "")),
            }
        }
    }
}

fn poll_accept(
    listeners: &mut [TcpListener],
    cx: &mut Context<'_>,
) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
    for (at, listener) in listeners.iter().enumerate() {
        if let Poll::Ready(accepted) = listener.poll_accept(cx) {
            listeners.rotate_left(at + 1);
            return Poll::Ready(accepted);
        }
    }
    Poll::Pending
}

/// A connection behind a proxy, once it is known for whom that stands. One that is refused is a stream that says why at its first
/// read: so it goes the way of all that come to nothing, and is counted to who sent it.
async fn arrive(mut stream: TcpStream, at: SocketAddr, settings: Arc<TcpSettings>) -> Stream {
    let trusted = settings.proxy_from.as_deref().unwrap_or_default();
    match proxy::source(&mut stream, at, trusted).await {
        Ok(from) => wrap(stream, at, from.unwrap_or(at), &settings),
        Err(error) => {
            let refused = proxy::Refused::new(error);
            Stream::from_io(refused, format!("tcp {at}")).with_remote(Remote::Tcp(at))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets_at(addresses: &[SocketAddr]) -> io::Result<(TcpSockets, u16)> {
        let settings = TcpSettings::default();
        let (listeners, port) = bind_all(addresses, |at| listen_at(at, &settings))?;
        let sockets = TcpSockets {
            listeners,
            settings: Arc::new(settings),
            arriving: JoinSet::new(),
        };
        Ok((sockets, port))
    }

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
        let reported = failed
            .unwrap_err()
            .into_iter()
            .map(|(at, kind, _)| (at, kind));
        assert_eq!(
            reported.collect::<Vec<_>>(),
            [(dead, Kind::TimedOut), (good, Kind::Refused)]
        );
        assert!(start.elapsed() <= DIAL_TIMEOUT + STAGGER);
    }

    /// A host whose queue is full takes no notice of who comes, as a firewall that drops does.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_drops_everything_is_overtaken() {
        let full = short_queue("127.0.0.2:0", 1);
        let dead = full.local_addr().unwrap();
        let good = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, dead.port()))
            .await
            .unwrap();
        // One more than its queue has.
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(TcpStream::connect(dead).await.unwrap());
        }
        let until = Instant::now() + 6 * DIAL_TIMEOUT;
        let all = vec![dead, good.local_addr().unwrap()];
        let reached = race(all, until, |at| tcp_way::connect(at, None)).await;
        assert_eq!(reached.unwrap().0, good.local_addr().unwrap());
    }

    #[cfg(target_os = "linux")]
    fn short_queue(at: &str, backlog: u32) -> TcpListener {
        let at: SocketAddr = at.parse().unwrap();
        let socket = tcp_way::socket(at, None).unwrap();
        socket.bind(at).unwrap();
        socket.listen(backlog).unwrap()
    }

    #[tokio::test]
    async fn small_writes_wait_only_where_they_are_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for nodelay in [true, false] {
            let stream = TcpStream::connect(listener.local_addr().unwrap());
            let stream = stream.await.unwrap();
            let same = rustix::io::dup(&stream).unwrap();
            let settings = TcpSettings {
                nodelay,
                ..TcpSettings::default()
            };
            let _connection = connection(stream, &settings);
            assert_eq!(sockopt::tcp_nodelay(&same).unwrap(), nodelay);
        }
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
            let (mut sockets, port) = sockets_at(&addresses(0)).unwrap();
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
        let (mut sockets, port) = sockets_at(&addresses(0)).unwrap();
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
        let error = sockets_at(&addresses(port)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // Documentation's (RFC 5737): nobody has it.
        let elsewhere = SocketAddr::new("192.0.2.1".parse().unwrap(), 0);
        let here = SocketAddr::new("127.0.0.1".parse().unwrap(), 0);
        let (sockets, _) = sockets_at(&[elsewhere, here]).unwrap();
        assert_eq!(sockets.listeners.len(), 1);
        let error = sockets_at(&[elsewhere]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_costs_one_descriptor_more_only_while_it_is_not_read() {
        use std::os::fd::AsRawFd as _;

        use crate::stream::Wire as _;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, _peer) = (dialled.await.unwrap(), listener.accept().await.unwrap());
        let link = |fd: &str| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        let it = link(&stream.as_raw_fd().to_string()).unwrap();
        let descriptors = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            let names = all.map(|entry| entry.unwrap().file_name());
            names
                .filter(|name| link(name.to_str().unwrap()).as_ref() == Some(&it))
                .count()
        };
        let mut connection = connection(stream, &TcpSettings::default());
        for _ in 0..2 {
            for (reading, cost) in [(true, 1), (false, 2), (true, 1)] {
                let left = std::future::poll_fn(|cx| {
                    Poll::Ready(connection.poll_left(cx, reading).is_ready())
                });
                assert!(!left.await);
                assert_eq!(descriptors(), cost, "reading: {reading}");
            }
        }
    }
}
