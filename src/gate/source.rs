//! Where a stream comes from, as far as it helps to tell strangers apart.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cepa_transports::Remote;
use data_encoding::BASE32_NOPAD;

/// The source of a stream: an IPv4 address, an IPv6 network of 64 bits (one host has all of its
/// addresses), a relay, or something on this machine.
///
/// Prints as what it is, for a log that counts by source: `tcp 192.0.2.1`, `tcp 2001:db8::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    V4(Ipv4Addr),
    /// The first 64 bits; the others are zero.
    V6(Ipv6Addr),
    Relay([u8; 32]),
    Loopback(IpAddr),
    Here,
}

impl Source {
    /// Something on this machine that has no address.
    pub const HERE: Self = Self(Kind::Here);

    /// Whether counting it means something. On this machine there is nobody to tell apart (all that a
    /// tunnel or a proxy brings comes from one address), and only here could somebody have good reason
    /// to come many times at once.
    #[must_use]
    pub fn is_far(&self) -> bool {
        !matches!(self.0, Kind::Loopback(_) | Kind::Here)
    }
}

/// What a program made of IO of its own ([`Remote::Unknown`]) counts as of this machine, as nothing can be told
/// apart there; [`Stream::with_remote`](cepa_transports::Stream::with_remote) is for who knows better.
impl From<&Remote> for Source {
    fn from(remote: &Remote) -> Self {
        match remote {
            Remote::Tcp(address) => Self::from(address.ip()),
            Remote::Circuit { relay } => Self(Kind::Relay(*relay)),
            _ => Self(Kind::Here),
        }
    }
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            ip if ip.is_loopback() => Kind::Loopback(ip),
            IpAddr::V4(ip) => Kind::V4(ip),
            IpAddr::V6(ip) => Kind::V6(network(ip)),
        })
    }
}

/// The first 64 bits.
fn network(ip: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(ip) >> 64 << 64)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::V4(ip) => write!(f, "tcp {ip}"),
            Kind::Loopback(ip) => write!(f, "tcp {ip}"),
            Kind::V6(ip) => write!(f, "tcp {ip}/64"),
            // As a peer id prints.
            Kind::Relay(id) => write!(f, "relay {}", BASE32_NOPAD.encode(&id).to_lowercase()),
            Kind::Here => f.write_str("this machine"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn of(address: &str) -> Source {
        let address: SocketAddr = address.parse().unwrap();
        Source::from(&Remote::Tcp(address))
    }

    #[test]
    fn hosts_are_told_apart_and_ports_are_not() {
        assert_eq!(of("192.0.2.1:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:1"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:1"));
        assert_eq!(of("[fe80::1%3]:1"), of("[fe80::1]:1"));
        assert!(of("[fe80::1%3]:1").is_far());
        assert!(!of("127.0.0.1:9").is_far());
        assert!(!of("[::1]:9").is_far());
    }

    #[test]
    fn a_relay_is_a_source_of_its_own_and_this_machine_is_one() {
        let circuit = |id| Source::from(&Remote::Circuit { relay: [id; 32] });
        assert!(circuit(1).is_far());
        assert_eq!(circuit(1), circuit(1));
        assert_ne!(circuit(1), circuit(2));
        for near in [
            Remote::Unix("/run/x".into()),
            Remote::Line("/dev/ttyUSB0".into()),
            Remote::Child,
            Remote::Stdio,
            Remote::Fd,
            Remote::Memory,
            Remote::Unknown,
        ] {
            assert!(!Source::from(&near).is_far(), "{near:?}");
        }
    }

    #[test]
    fn a_source_prints_as_a_host_a_network_or_a_relay() {
        assert_eq!(of("192.0.2.1:4711").to_string(), "tcp 192.0.2.1");
        assert_eq!(
            of("[2001:db8:1:2:3::1]:9").to_string(),
            "tcp 2001:db8:1:2::/64"
        );
        let id = crate::identity::PeerId::from_bytes([0xab; 32]);
        let relay = *id.as_bytes();
        let relay = Source::from(&Remote::Circuit { relay });
        assert_eq!(relay.to_string(), format!("relay {id}"));
        assert_eq!(of("127.0.0.1:9").to_string(), "tcp 127.0.0.1");
        assert_eq!(Source::from(&Remote::Memory).to_string(), "this machine");
    }
}
