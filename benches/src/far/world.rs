//! Two hosts, and a path between them that this process is.
//!
//! ```text
//!   near 10.9.0.1 --- one | frames pass through a `Wire` each way | two --- far 10.9.0.2
//! ```
//!
//! Three network namespaces, joined by two virtual cables (veth). In the middle, packet sockets take frames from one port and put them on
//! the other when they are due. It looks every 150 µs, so what comes meanwhile counts as come then.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
};

use super::place::Place;
use super::wire::{Path, Wire};
use crate::Outcome;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// An Ethernet frame at most.
const FRAME: usize = 1514;

/// Between two looks at what has come and what is due.
const LOOK: Duration = Duration::from_micros(150);

/// What waits in the kernel until the next look: a packet socket's own bound is reached within a millisecond.
const WAITING: usize = 64 << 20;

/// What TCP may use: neither end is to hold back more than the path does.
const MEMORY: &str = "4096 131072 134217728";

pub(super) struct World {
    near: Place,
    far: Place,
    /// Its namespace lasts as long as its thread.
    _between: Place,
    ended: Arc<AtomicBool>,
}

impl World {
    /// `congestion`: TCP's congestion control; the system's, where none is given.
    pub(super) fn new(path: Path, congestion: Option<&str>, seed: u64) -> Outcome<Self> {
        let (near, far, between) = (Place::new()?, Place::new()?, Place::new()?);
        for (port, place, own, other) in [("one", &near, 1, 2), ("two", &far, 2, 1)] {
            let id = place.id();
            between.command(&format!(
                "ip link add {port} type veth peer name eth netns {id}"
            ))?;
            between.command(&format!("ip link set {port} up"))?;
            // No frame is longer than those of a wire, and what is passed on is whole: nothing is left to a device that is none.
            for line in [
                format!("ip link set eth address 02:00:00:00:00:0{own}"),
                format!("ip addr add 10.9.0.{own}/24 dev eth"),
                "ip link set eth up".to_owned(),
                format!("ip neigh add 10.9.0.{other} lladdr 02:00:00:00:00:0{other} dev eth"),
                "ethtool -K eth tx off tso off gso off gro off".to_owned(),
            ] {
                place.command(&line)?;
            }
            place.set("tcp_rmem", MEMORY)?;
            place.set("tcp_wmem", MEMORY)?;
            // Each connection learns for itself.
            place.set("tcp_no_metrics_save", "1")?;
            if let Some(congestion) = congestion {
                place.set("tcp_congestion_control", congestion)?;
            }
        }
        let (one, two) = between.run(|| Ok((port("one")?, port("two")?)))?;
        let (one, two) = (Arc::new(one), Arc::new(two));
        let ended = Arc::<AtomicBool>::default();
        for (from, to, seed) in [(&one, &two, seed), (&two, &one, !seed)] {
            let (from, to, ended) = (Arc::clone(from), Arc::clone(to), Arc::clone(&ended));
            thread::spawn(move || {
                if let Err(error) = pass_on(&from, &to, path, seed, &ended) {
                    eprintln!("cepa-bench: the path ends: {error}");
                }
            });
        }
        Ok(Self {
            near,
            far,
            _between: between,
            ended,
        })
    }

    /// Two ends of a connection.
    pub(super) fn connect(&self) -> Outcome<(TcpStream, TcpStream)> {
        let listener = self.far.run(|| Ok(TcpListener::bind((FAR, 0))?))?;
        let at = listener.local_addr()?;
        let near = self.near.run(move || Ok(TcpStream::connect(at)?))?;
        let (far, from) = listener.accept()?;
        debug_assert_eq!(from.ip(), NEAR);
        Ok((near, far))
    }

    /// What TCP does about a full path.
    pub(super) fn congestion(&self) -> Outcome<String> {
        let file = "/proc/sys/net/ipv4/tcp_congestion_control";
        self.near
            .run(move || Ok(std::fs::read_to_string(file)?.trim().to_owned()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// A socket that takes and puts frames, at a port of this namespace.
fn port(name: &str) -> Outcome<OwnedFd> {
    // IPv4 alone: who asks for all frames hears its own, too.
    let kind = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (family, of) = (AddressFamily::Packet, SockProtocol::EthIp);
    let socket = socket(family, SockType::Raw, kind, of)?;
    setsockopt(&socket, RcvBufForce, &WAITING)?;
    let address = getifaddrs()?
        .filter(|it| it.interface_name == name)
        .find_map(|it| it.address?.as_link_addr().copied());
    bind(socket.as_raw_fd(), &address.ok_or("no such port")?)?;
    Ok(socket)
}

/// One direction, until it is ended.
fn pass_on(from: &OwnedFd, to: &OwnedFd, path: Path, seed: u64, ended: &AtomicBool) -> Outcome<()> {
    let mut wire = Wire::new(path, seed, Instant::now());
    let mut due: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut spare: Vec<Vec<u8>> = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        while due.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, frame)) = due.pop_front()
        {
            match send(to.as_raw_fd(), &frame, MsgFlags::empty()) {
                // A queue that is full loses frames, as everywhere.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            spare.push(frame);
        }
        loop {
            let mut frame = spare.pop().unwrap_or_default();
            frame.resize(FRAME, 0);
            match recv(from.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(n) => {
                    frame.truncate(n);
                    match wire.take(now, n) {
                        Some(at) => due.push_back((at, frame)),
                        None => spare.push(frame),
                    }
                }
                Err(Errno::EAGAIN) => {
                    spare.push(frame);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// It takes root, iproute2 and ethtool.
    #[test]
    fn a_connection_between_two_places_takes_its_time_and_loses_nothing() {
        let path = Path {
            rate: 1e7,
            round_trip: Duration::from_millis(20),
            buffer: 1e5,
            loss: 0.01,
        };
        let world = match World::new(path, None, 1) {
            Ok(world) => world,
            Err(why) => {
                eprintln!("SKIPPED: a path between network namespaces: {why}");
                return;
            }
        };
        let began = Instant::now();
        let (mut near, mut far) = world.connect().unwrap();
        assert!(began.elapsed() >= path.round_trip);
        let data: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let writer = thread::spawn(move || {
            near.write_all(&sent).unwrap();
            near
        });
        let mut got = vec![0; data.len()];
        far.read_exact(&mut got).unwrap();
        assert!(got == data);
        // 30 ms at this rate, and half a round trip.
        assert!(began.elapsed() >= Duration::from_millis(20 + 30 + 10));
        drop(writer.join().unwrap());
    }
}
