//! To which addresses a node connects because a peer has named them: the one place where that is decided. No IO.
//!
//! What a peer names is of two kinds. Where the relay *sees* it, the relay has signed; what it says of its *local* addresses, nobody
//! vouches for. So a local address is tried only where the two seem to be in one network: both are seen at the same public
//! address, or it lies in the network of the very address that this node's own connection leaves from. The former is the relay's word, and so it
//! is good for two addresses at most.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::transports::Network;

/// Addresses that one peer may have tried at once.
pub(super) const MOST: usize = 8;

/// Of these, private ones outside of the network of this node's own address. That the peer is in the same one, only the relay says, and a
/// relay may lie. The peer's own address and where a router between sees it are two.
pub(super) const MOST_ELSEWHERE: usize = 2;

/// Services of systems listen below it, and no NAT maps a connection of a program there.
const FIRST_PORT: u16 = 1024;

/// Who says that the peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The relay, which sees it there.
    Seen,
    /// The peer, of a port that its router has mapped; the relay, of the address.
    Mapped,
    /// The peer alone.
    Local,
}

/// What the decision depends on besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Here {
    /// The owner wants private networks to be used.
    pub(super) private: bool,
    /// From where this node connects.
    pub(super) own: IpAddr,
    /// The network of that, if it is known.
    pub(super) network: Option<Network>,
    /// Where the relay sees this node, and the peer.
    pub(super) seen: [IpAddr; 2],
    /// For tests.
    pub(super) loopback: bool,
}

impl Here {
    /// Whether that is in the network of this node's own address.
    fn is_near(&self, ip: IpAddr) -> bool {
        self.network.is_some_and(|network| network.contains(ip))
    }
}

/// Whether a node connects to this address.
pub(super) fn may_try(at: SocketAddr, source: Source, here: &Here) -> bool {
    let ip = at.ip().to_canonical();
    if at.port() < FIRST_PORT || ip.is_ipv4() != here.own.is_ipv4() {
        return false;
    }
    if here.loopback && ip.is_loopback() {
        return true;
    }
    // It would be this machine itself.
    if never(ip) || ip == here.own {
        return false;
    }
    let [ours, theirs] = here.seen.map(|ip| ip.to_canonical());
    let same_network = here.is_near(ip);
    if is_private(ip) {
        return source != Source::Mapped && here.private && (same_network || ours == theirs);
    }
    match source {
        Source::Seen => true,
        Source::Mapped => ip == theirs,
        Source::Local => here.private && same_network,
    }
}

/// The addresses to connect to, in this order, each once.
pub(super) fn to_try(
    seen: SocketAddr,
    mapped: Option<SocketAddr>,
    local: impl Iterator<Item = SocketAddr>,
    here: &Here,
) -> Vec<SocketAddr> {
    let mapped = mapped.map(|at| (at, Source::Mapped));
    let seen = std::iter::once((seen, Source::Seen)).chain(mapped);
    let local = local.map(|at| (at, Source::Local));
    let (mut all, mut elsewhere) = (Vec::new(), 0);
    for (at, source) in seen.chain(local) {
        let canonical = SocketAddr::new(at.ip().to_canonical(), at.port());
        if all.len() == MOST || all.contains(&canonical) || !may_try(at, source, here) {
            continue;
        }
        if is_private(canonical.ip()) && !here.is_near(canonical.ip()) {
            if elsewhere == MOST_ELSEWHERE {
                continue;
            }
            elsewhere += 1;
        }
        all.push(canonical);
    }
    all
}

/// Whether a peer is told of this address of ours, beside where the relay sees us.
pub(super) fn may_tell(at: SocketAddr, seen: SocketAddr, here: &Here) -> bool {
    let ip = at.ip().to_canonical();
    at != seen && here.private && (!never(ip) || here.loopback && ip.is_loopback())
}

/// No other machine is there, or more than one.
fn never(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 0.0.0.0/8 (RFC 791), 240.0.0.0/4 and the broadcast in it (RFC 1112).
            let first = ip.octets()[0];
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || first == 0
                || first >= 240
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                // fe80::/10 (RFC 4291), fec0::/10 (RFC 3879).
                || first & 0xff80 == 0xfe80
                // What stands for an IPv4 address: 64:ff9b::/96 and 64:ff9b:1::/48 (RFC 6052, RFC 8215), 2002::/16 (RFC 3056), and
                // ::/96 (RFC 4291).
                || first == 0x64
                || first == 0x2002
                || ip.segments()[..6] == [0; 6]
        }
    }
}

/// An address that means another machine in another network.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // RFC 1918; RFC 6598.
            ip.is_private() || u32::from(ip) >> 22 == u32::from(Ipv4Addr::new(100, 64, 0, 0)) >> 22
        }
        IpAddr::V6(ip) => is_unique_local(ip),
    }
}

/// fc00::/7 (RFC 4193).
fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xfe00 == 0xfc00
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn here(own: &str, network: &str, bits: u8, seen: [&str; 2]) -> Here {
        Here {
            private: true,
            own: own.parse().unwrap(),
            network: Network::new(network.parse().unwrap(), bits),
            seen: seen.map(|it| it.parse().unwrap()),
            loopback: false,
        }
    }

    /// Every address × who says so × where we are, as text for review.
    fn table() -> String {
        let apart = ["203.0.113.2", "198.51.100.2"];
        let together = ["203.0.113.2", "203.0.113.2"];
        let six = ["2001:db8:1::2", "2001:db8:2::2"];
        let home = |seen| here("192.168.1.2", "192.168.1.0", 24, seen);
        let wheres = [
            ("other networks", home(apart)),
            ("same public", home(together)),
            (
                "no private",
                Here {
                    private: false,
                    ..home(together)
                },
            ),
            ("v6", here("2001:db8:1::2", "2001:db8:1::", 64, six)),
            ("v6 at fd00::2", here("fd00::2", "fd00::", 64, six)),
        ];
        let addresses = [
            "198.51.100.2:41001",
            "198.51.100.2:1024",
            "198.51.100.2:1023",
            "198.51.100.2:0",
            "[::ffff:198.51.100.2]:41001",
            "192.168.1.7:41001",
            "192.168.1.2:41001",
            "192.168.2.7:41001",
            "10.0.0.1:41001",
            "172.31.255.255:41001",
            "172.32.0.1:41001",
            "100.64.0.1:41001",
            "100.127.255.255:41001",
            "100.128.0.1:41001",
            "127.0.0.1:41001",
            "127.9.9.9:41001",
            "169.254.1.1:41001",
            "0.0.0.0:41001",
            "0.1.2.3:41001",
            "224.0.0.1:41001",
            "239.255.255.255:41001",
            "240.0.0.1:41001",
            "255.255.255.255:41001",
            "[2001:db8:2::2]:41001",
            "[2001:db8:1::7]:41001",
            "[2001:db8:1::2]:41001",
            "[::1]:41001",
            "[::]:41001",
            "[fe80::1]:41001",
            "[fec0::1]:41001",
            "[fd00::7]:41001",
            "[fd01::7]:41001",
            "[fc00::7]:41001",
            "[ff02::1]:41001",
            "[::ffff:127.0.0.1]:41001",
            "[::ffff:10.0.0.1]:41001",
            "[::10.0.0.1]:41001",
            "[64:ff9b::10.0.0.1]:41001",
            "[2002:a00:1::1]:41001",
        ];
        let mut out = String::from(
            "To which addresses a node connects because a peer has named them: see src/protocols/direct/policy.rs.\n\
             \"seen\": the relay has signed that it sees the peer there; \"local\": the peer says so. We are at 192.168.1.2/24, at\n\
             2001:db8:1::2/64 or at fd00::2/64; \"same public\": the relay sees both peers at one address.\n\n",
        );
        let heads: Vec<_> = wheres
            .iter()
            .map(|(name, _)| format!("{name:15}"))
            .collect();
        let _ = writeln!(out, "{:28} {}", "", heads.join(" ").trim_end());
        for address in addresses {
            let at = address.parse().unwrap();
            let cells = wheres.iter().map(|(_, here)| {
                let may = |source| may_try(at, source, here);
                let cell = match (may(Source::Seen), may(Source::Local)) {
                    (true, true) => "seen, local",
                    (true, false) => "seen",
                    (false, true) => "local",
                    (false, false) => "-",
                };
                format!("{cell:15}")
            });
            let cells = cells.collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "{address:28} {}", cells.trim_end());
        }
        let _ = writeln!(
            out,
            "\nHow many are tried of 50 local addresses that the peer names, beside where the relay sees it:\n"
        );
        for of in ["192.168.1", "10.0.0", "172.16.0", "100.64.0", "198.51.100"] {
            let cells = wheres.iter().map(|(_, here)| {
                let local = (100..150).map(|n| format!("{of}.{n}:41001").parse().unwrap());
                let seen = SocketAddr::new(here.seen[1], 41001);
                format!("{:<15}", to_try(seen, None, local, here).len() - 1)
            });
            let cells = cells.collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "{of:28} {}", cells.trim_end());
        }
        out
    }

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let (expected, found) = (include_str!("policy_table.txt"), table());
        assert!(
            found == expected,
            "src/protocols/direct/policy_table.txt is not what policy.rs decides; if the change is meant, replace the file by:\n{found}"
        );
    }

    #[test]
    fn each_address_is_tried_once_and_no_more_than_eight_are() {
        let here = here(
            "192.168.1.2",
            "192.168.1.0",
            24,
            ["203.0.113.2", "203.0.113.2"],
        );
        let seen: SocketAddr = "203.0.113.2:5000".parse().unwrap();
        let mapped = SocketAddr::new("::ffff:203.0.113.2".parse().unwrap(), 5000);
        let local = |a, b, c| {
            (10..100).map(move |n| SocketAddr::new(Ipv4Addr::new(a, b, c, n).into(), 5000))
        };
        // A relay that lies about where it sees the peer opens no network that is not this node's own.
        let all = to_try(seen, None, local(10, 0, 0).chain(local(172, 16, 0)), &here);
        assert_eq!(all.len(), 1 + MOST_ELSEWHERE);
        let far_first = local(10, 0, 0).chain(local(192, 168, 1));
        let all = to_try(seen, None, std::iter::once(mapped).chain(far_first), &here);
        assert_eq!(all.len(), MOST);
        assert_eq!(all[0], seen);
        assert!(!all[1..].contains(&seen));
        // Another's word for an address elsewhere counts for nothing.
        let elsewhere = "198.51.100.9:5000".parse().unwrap();
        assert_eq!(
            to_try(seen, None, std::iter::once(elsewhere), &here),
            [seen]
        );
    }

    #[test]
    fn a_mapped_port_is_tried_where_the_relay_sees_the_peer_and_nowhere_else() {
        let here = here(
            "192.168.1.2",
            "192.168.1.0",
            24,
            ["198.51.100.2", "203.0.113.2"],
        );
        let seen = "203.0.113.2:5000".parse().unwrap();
        let tried = |mapped: &str| {
            let mapped = Some(mapped.parse().unwrap());
            let all = to_try(seen, mapped, std::iter::empty(), &here);
            all[1..].to_vec()
        };
        let there: SocketAddr = "203.0.113.2:6000".parse().unwrap();
        assert_eq!(tried("203.0.113.2:6000"), [there]);
        assert_eq!(tried("[::ffff:203.0.113.2]:6000"), [there]);
        for not in [
            "203.0.113.2:5000",
            "203.0.113.2:443",
            "203.0.113.3:6000",
            "198.51.100.2:6000",
            "192.168.1.7:6000",
            "10.0.0.1:6000",
            "127.0.0.1:6000",
            "[2001:db8::1]:6000",
        ] {
            assert_eq!(tried(not), [], "{not}");
        }
        // Nor where both are behind one router, whose private addresses the peer may name.
        let together = Here {
            seen: ["203.0.113.2".parse().unwrap(); 2],
            ..here
        };
        let private = "192.168.1.7:6000".parse().unwrap();
        assert!(!may_try(private, Source::Mapped, &together));
    }

    #[test]
    fn a_peer_is_told_of_no_address_that_it_cannot_use() {
        let here = here(
            "192.168.1.2",
            "192.168.1.0",
            24,
            ["203.0.113.2", "203.0.113.2"],
        );
        let seen = "203.0.113.2:5000".parse().unwrap();
        let tell = |at: &str| may_tell(at.parse().unwrap(), seen, &here);
        assert!(tell("192.168.1.2:5000"));
        for not in ["203.0.113.2:5000", "127.0.0.1:5000", "169.254.1.1:5000"] {
            assert!(!tell(not), "{not}");
        }
        let quiet = Here {
            private: false,
            ..here
        };
        assert!(!may_tell("192.168.1.2:5000".parse().unwrap(), seen, &quiet));
    }
}
