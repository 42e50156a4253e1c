//! Where a stream comes from, as far as it helps to tell strangers apart.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use cepa_transports::Remote;
use data_encoding::BASE32_NOPAD;

/// Parts of a relay. So many times as often as one host can those fail whom one relay brings, whatever it says of them.
pub(super) const PARTS: u8 = 64;

/// The source of a stream: an IPv4 address, an IPv6 network of 64 bits (one host has all of its
/// addresses), a relay, or something on this machine.
///
/// A relay has a bounded number of parts, among which those are divided whom it brings, by the id that it says they have:
/// a part counts within its relay ([`whole`](Self::whole)), so a relay that lies about who comes hurts those alone that come by it.
///
/// Prints as what it is, for a log that counts by source: `tcp 192.0.2.1`, `tcp 2001:db8::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    kind: Kind,
    /// Of a relay, from 1 on; of all it is 0.
    part: u8,
}

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
    pub const HERE: Self = Self::of(Kind::Here);

    const fn of(kind: Kind) -> Self {
        Self { kind, part: 0 }
    }

    /// The same without a part: the relay, where it is one.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self::of(self.kind)
    }

    /// What strangers are counted by who have sessions: a host, a relay, or this machine as a whole, whichever of its addresses they
    /// come from. All that a tunnel or a proxy on this machine brings is one host then, unless it says whom it brings.
    #[must_use]
    pub fn host(&self) -> Self {
        if self.is_far() {
            self.whole()
        } else {
            Self::HERE
        }
    }

    pub(super) fn part(&self) -> u8 {
        self.part
    }

    pub(super) fn has_parts(&self) -> bool {
        matches!(self.kind, Kind::Relay(_))
    }

    /// Whether counting it means something. On this machine there is nobody to tell apart (all that a
    /// tunnel or a proxy brings comes from one address), and only here could somebody have good reason
    /// to come many times at once.
    #[must_use]
    pub fn is_far(&self) -> bool {
        !matches!(self.kind, Kind::Loopback(_) | Kind::Here)
    }
}

/// What a program made of IO of its own ([`Remote::Unknown`]) counts as of this machine, as nothing can be told
/// apart there; [`Stream::with_remote`](cepa_transports::Stream::with_remote) is for who knows better.
impl From<&Remote> for Source {
    fn from(remote: &Remote) -> Self {
        match remote {
            Remote::Tcp(address) | Remote::Quic(address) => Self::from(address.ip()),
            Remote::Circuit { relay, says } => Self {
                kind: Kind::Relay(*relay),
                part: part(says),
            },
            _ => Self::HERE,
        }
    }
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        Self::of(match ip.to_canonical() {
            ip if ip.is_loopback() => Kind::Loopback(ip),
            IpAddr::V4(ip) => Kind::V4(ip),
            IpAddr::V6(ip) => Kind::V6(network(ip)),
        })
    }
}

/// By a key of this process: nobody can choose whose part an id is in.
fn part(id: &[u8; 32]) -> u8 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let part = KEY.hash_one(id) % u64::from(PARTS);
    u8::try_from(part).unwrap_or(0) + 1
}

/// The first 64 bits.
fn network(ip: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(ip) >> 64 << 64)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
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

    fn circuit(relay: u8, says: u8) -> Remote {
        Remote::Circuit {
            relay: [relay; 32],
            says: [says; 32],
        }
    }

    #[test]
    fn a_relay_has_a_bounded_number_of_parts() {
        let parts = |relay| -> std::collections::HashSet<Source> {
            (0..=255)
                .map(|says| Source::from(&circuit(relay, says)))
                .collect()
        };
        let all = parts(1);
        assert!(all.len() > usize::from(PARTS / 2) && all.len() <= PARTS.into());
        assert!(all.iter().all(|it| it.part() > 0 && it.has_parts()));
        assert!(all.is_disjoint(&parts(2)));
        let whole: std::collections::HashSet<_> = all.iter().map(Source::whole).collect();
        assert_eq!(whole.len(), 1);
    }

    #[test]
    fn hosts_are_distinguished_and_ports_are_not() {
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
        let circuit = |id| Source::from(&circuit(id, 0)).whole();
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
        let relay = Source::from(&Remote::Circuit {
            relay,
            says: [1; 32],
        });
        assert_eq!(relay.to_string(), format!("relay {id}"));
        assert_eq!(of("127.0.0.1:9").to_string(), "tcp 127.0.0.1");
        assert_eq!(Source::from(&Remote::Memory).to_string(), "this machine");
    }
}
