//! Where a stream comes from, as far as it helps to tell strangers apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source of a stream: an IPv4 address, an IPv6 network of 64 bits (one host has all of its
/// addresses), or something on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    V4(Ipv4Addr),
    V6(u128),
    Here,
}

impl Source {
    /// The source in the label of a stream (`tcp 192.0.2.1:4711`).
    #[must_use]
    pub fn of(label: &str) -> Self {
        let host = label
            .strip_prefix("tcp ")
            .and_then(|address| address.rsplit_once(':'))
            .map(|(host, _port)| host.trim_start_matches('[').trim_end_matches(']'));
        // A zone names an interface of ours: fe80::1%eth0.
        let host = host.map(|host| host.split_once('%').map_or(host, |(host, _zone)| host));
        match host.and_then(|host| host.parse::<IpAddr>().ok()) {
            Some(ip) => Self::from(ip),
            None => Self(Kind::Here),
        }
    }

    /// Whether counting it means something. On this machine there is nobody to tell apart (all that a
    /// tunnel or a proxy brings comes from one address), and only here could somebody have good reason
    /// to come many times at once.
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.0 != Kind::Here
    }
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            ip if ip.is_loopback() => Kind::Here,
            IpAddr::V4(ip) => Kind::V4(ip),
            IpAddr::V6(ip) => Kind::V6(network(ip)),
        })
    }
}

/// The first 64 bits.
fn network(ip: Ipv6Addr) -> u128 {
    u128::from(ip) >> 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart_and_ports_are_not() {
        let of = Source::of;
        assert_eq!(of("tcp 192.0.2.1:1"), of("tcp 192.0.2.1:2"));
        assert_ne!(of("tcp 192.0.2.1:1"), of("tcp 192.0.2.2:1"));
        assert_eq!(of("tcp [2001:db8::1]:1"), of("tcp [2001:db8::ffff:2]:1"));
        assert_ne!(of("tcp [2001:db8::1]:1"), of("tcp [2001:db8:0:1::1]:1"));
        assert_eq!(of("tcp [::ffff:192.0.2.1]:1"), of("tcp 192.0.2.1:1"));
        assert!(of("tcp [fe80::1%eth0]:1").is_far());
        for near in ["tcp 127.0.0.1:9", "tcp [::1]:9", "unix /run/x", "stdio", ""] {
            assert!(!of(near).is_far(), "{near}");
        }
    }
}
