//! Where a `socks:` service may lead: the list of its owner, and what a peer asks for, judged by it.
//!
//! A name and an address are two questions. A name has to be in the list, and so has each address that it turns out to
//! have, unless that is a public one: whoever is master of an allowed name (or of its name service) could otherwise point it at this
//! machine, or at one that only this machine reaches. So nothing is looked up for a name that is not allowed, and what is dialled are
//! the addresses that were judged, never the name again.
//!
//! ```text
//! ALLOWED   HOST[:PORT | :PORT-PORT | :*]     no port: 80 and 443
//! HOST      a name, *.NAME (all below NAME), an address, ADDRESS/BITS, or * (every name, every public address)
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What is meant without a port: the web. A host allowed for that must not open its mail or its shell.
const DEFAULT_PORTS: &[u16] = &[80, 443];

/// Longest name of a host (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;

/// All that a service allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destinations(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    host: Pattern,
    /// None: the default ones.
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// Every name, and every public address.
    Any,
    Name(String),
    /// All names that end so; with the dot.
    Below(String),
    /// Addresses whose first bits are these.
    Net(IpAddr, u8),
}

/// What a peer wants to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// In lower case, without a dot at its end.
    Name(String),
    Address(IpAddr),
}

impl Destinations {
    /// Whether a name may be looked up, to connect to this port of it.
    pub(crate) fn allow_name(&self, name: &str, port: u16) -> bool {
        self.at(port).any(|host| match host {
            Pattern::Any => true,
            Pattern::Name(allowed) => name == allowed,
            Pattern::Below(end) => name.len() > end.len() && name.ends_with(end.as_str()),
            Pattern::Net(..) => false,
        })
    }

    /// Whether an address of an allowed name may be dialled.
    pub(crate) fn allow_address_of_name(&self, address: IpAddr, port: u16) -> bool {
        is_public(address) || self.lists(address, port)
    }

    /// Whether an address may be dialled that was asked for as such.
    pub(crate) fn allow_address(&self, address: IpAddr, port: u16) -> bool {
        let any = self.at(port).any(|host| *host == Pattern::Any);
        (any && is_public(address)) || self.lists(address, port)
    }

    fn lists(&self, address: IpAddr, port: u16) -> bool {
        self.at(port)
            .any(|host| matches!(host, Pattern::Net(net, bits) if holds(*net, *bits, address)))
    }

    fn at(&self, port: u16) -> impl Iterator<Item = &Pattern> {
        let fits = move |rule: &&Rule| match &rule.ports {
            Some(ports) => ports.contains(&port),
            None => DEFAULT_PORTS.contains(&port),
        };
        self.0.iter().filter(fits).map(|rule| &rule.host)
    }
}

impl FromStr for Destinations {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word.is_empty() {
            return Err(
                "say which destinations are allowed, for example socks:*.example.com:443,10.1.0.0/16:22"
                    .into(),
            );
        }
        let rules: Result<_, _> = word.split(',').map(str::parse).collect();
        rules.map(Self)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        // An IPv6 address alone has colons, too.
        let (host, ports) = match net(word) {
            Some(_) => (word, None),
            None => match word.rsplit_once(':') {
                Some((host, ports)) => (host, Some(ports)),
                None => (word, None),
            },
        };
        Ok(Self {
            host: pattern(host)?,
            ports: ports.map(range).transpose()?,
        })
    }
}

fn pattern(word: &str) -> Result<Pattern, String> {
    let bare = word.strip_prefix('[').and_then(|w| w.strip_suffix(']'));
    if let Some((net, bits)) = net(bare.unwrap_or(word)) {
        let most = if net.is_ipv4() { 32 } else { 128 };
        if bits > most {
            return Err(format!("{word}: at most {most} bits, as in /{most}"));
        }
        if net.to_canonical() != net {
            // Its bits would count from another place.
            return Err(format!("{word}: write an IPv4 address in its own form"));
        }
        return Ok(Pattern::Net(net, bits));
    }
    if word == "*" {
        return Ok(Pattern::Any);
    }
    let (below, name) = match word.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, word),
    };
    let Some(name) = host_name(name) else {
        return Err(format!(
            "{word:?} is no destination; expected a host name, *.NAME, an address or ADDRESS/BITS, each with :PORT, :PORT-PORT or :* if need be"
        ));
    };
    Ok(if below {
        Pattern::Below(format!(".{name}"))
    } else {
        Pattern::Name(name)
    })
}

/// An address, or those that begin with the same bits.
fn net(word: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match word.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits.unwrap_or(all)))
}

fn range(word: &str) -> Result<RangeInclusive<u16>, String> {
    if word == "*" {
        return Ok(1..=u16::MAX);
    }
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let port = |word: &str| word.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!(
            "{word:?} is no port; expected PORT, PORT-PORT or * (all), from 1 to 65535"
        )),
    }
}

/// A name as it is compared: in lower case, without a dot at its end; none where it can't be one.
fn host_name(word: &str) -> Option<String> {
    let name = word.strip_suffix('.').unwrap_or(word);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let labels = name
        .split('.')
        .all(|label| (1..=63).contains(&label.len()) && label.chars().all(fits));
    (labels && name.len() <= NAME_MAX).then(|| name.to_ascii_lowercase())
}

impl Host {
    /// A host as a program names it: an address in letters is one. Names that no name service has are `None`.
    pub(crate) fn named(word: &str) -> Option<Self> {
        let bare = word.strip_prefix('[').and_then(|w| w.strip_suffix(']'));
        match bare.unwrap_or(word).parse::<IpAddr>() {
            Ok(address) => Some(Self::Address(address.to_canonical())),
            Err(_) => host_name(word).map(Self::Name),
        }
    }
}

impl FromStr for Destination {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let (host, port) = word.rsplit_once(':').ok_or(())?;
        Ok(Self {
            host: Host::named(host).ok_or(())?,
            port: port.parse().map_err(|_| ())?,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{port}"),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{port}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{port}"),
        }
    }
}

fn holds(net: IpAddr, bits: u8, address: IpAddr) -> bool {
    let same = |one: u128, other: u128, width: u32| {
        let apart = width.saturating_sub(u32::from(bits));
        // All bits differ that are shifted out: /0 holds everything.
        (one ^ other).checked_shr(apart).unwrap_or(0) == 0
    };
    match (net, address.to_canonical()) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            same(net.to_bits().into(), address.to_bits().into(), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => same(net.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}

/// Whether an address is one that everybody on the internet may reach: neither this machine's own, nor one of a private network, nor
/// one that stands for another address (IANA's registries of special-purpose addresses, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // Multicast, what is reserved, and broadcast.
        || a >= 224
        // "This network".
        || a == 0
        // Shared behind a carrier's NAT.
        || (a == 100 && b & 0xc0 == 64)
        // Protocol assignments, 6to4 relays, benchmarks.
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3. Of that: Teredo, ORCHID and other assignments (2001::/23), documentation, and 6to4, which
    // has an IPv4 address in it; NAT64 (64:ff9b::/96), which has one too, is outside.
    a & 0xe000 == 0x2000
        && !(a == 0x2001 && b < 0x200)
        && !(a == 0x2001 && b == 0xdb8)
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(allowed: &str, wanted: &str) -> bool {
        let allowed: Destinations = allowed.parse().unwrap();
        let wanted: Destination = wanted.parse().unwrap();
        match &wanted.host {
            Host::Name(name) => allowed.allow_name(name, wanted.port),
            Host::Address(address) => allowed.allow_address(*address, wanted.port),
        }
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        for (allowed, wanted, expected) in [
            ("example.com", "example.com:443", true),
            ("example.com", "Example.COM.:80", true),
            ("example.com", "example.com:22", false),
            ("example.com:22", "example.com:22", true),
            ("example.com:22", "example.com:443", false),
            ("example.com:*", "example.com:1", true),
            ("example.com:20-30", "example.com:30", true),
            ("example.com:20-30", "example.com:31", false),
            ("example.com", "www.example.com:443", false),
            ("*.example.com", "www.example.com:443", true),
            ("*.example.com", "a.b.example.com:443", true),
            ("*.example.com", "example.com:443", false),
            ("*.example.com", "badexample.com:443", false),
            ("a.com,b.com:22", "b.com:22", true),
            ("a.com,b.com:22", "a.com:22", false),
            ("10.1.0.0/16:*", "10.1.2.3:5432", true),
            ("10.1.0.0/16:*", "10.2.2.3:5432", false),
            ("10.1.0.0/16:*", "[::ffff:10.1.2.3]:5432", true),
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("::1", "[::1]:443", true),
            ("[2001:db8::/32]:22", "[2001:db8:1::1]:22", true),
            ("[2001:db8::/32]:22", "[2001:db9::1]:22", false),
            ("0.0.0.0/0:*", "127.0.0.1:22", true),
            ("0.0.0.0/0:*", "[::1]:22", false),
            ("10.0.0.0/8:*", "db.internal:22", false),
            ("*", "example.com:443", true),
            ("*", "93.184.216.34:443", true),
            ("*", "127.0.0.1:443", false),
            ("*", "10.0.0.1:443", false),
            ("*", "[::ffff:127.0.0.1]:443", false),
            ("*", "[64:ff9b::7f00:1]:443", false),
        ] {
            assert_eq!(may(allowed, wanted), expected, "{allowed} for {wanted}");
        }
    }

    #[test]
    fn a_name_leads_to_what_is_public_or_listed_itself() {
        let of = |allowed: &str, address: &str| {
            let allowed: Destinations = allowed.parse().unwrap();
            allowed.allow_address_of_name(address.parse().unwrap(), 443)
        };
        for public in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(of("a.com", public), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!of("a.com,*", special), "{special}");
            let plain = special.trim_start_matches("::ffff:");
            assert!(of(&format!("a.com,{plain}"), special), "{special}");
        }
    }

    #[test]
    fn what_is_no_destination_is_refused_with_what_was_expected() {
        for word in [
            "",
            "a b",
            "a.com,",
            "*a.com",
            "a.*",
            "a.com:0",
            "a.com:70000",
            "a.com:9-1",
            "a.com:x",
            "10.0.0.0/33",
            "::/129",
            "::ffff:0:0/64",
            "a..com",
            "http://a.com",
        ] {
            let error = word.parse::<Destinations>().unwrap_err();
            assert!(error.chars().all(|c| !c.is_control()), "{word}: {error}");
        }
        for word in ["", "a.com", "a.com:", "a b:1", "a.com:70000", "\u{1b}[m:1"] {
            assert!(word.parse::<Destination>().is_err(), "{word}");
        }
        for word in ["a.com:1", "1.2.3.4:5", "[2001:db8::1]:65535"] {
            assert_eq!(word.parse::<Destination>().unwrap().to_string(), word);
        }
    }
}
