//! Networks of IP addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Some leading bits of an IP address (RFC 4632 section 3.1, RFC 4291 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Its bits behind the prefix are 0.
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// `None` where the address does not have so many bits.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let address = masked(address, bits)?;
        Some(Self { address, bits })
    }

    /// Reads `ADDRESS/BITS`, or an address alone.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = width(address);
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => all,
        };
        Self::new(address, bits)
    }

    /// This machine itself.
    #[must_use]
    pub fn loopback() -> Vec<Self> {
        let [v4, v6] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        [Self::new(v4, 8), Self::new(v6, 128)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whether the address lies in it. An IPv4 address that came by an IPv6 socket (`::ffff:192.0.2.1`) counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address, self.bits) == Some(self.address)
            || masked(address.to_canonical(), self.bits) == Some(self.address)
    }
}

fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    let behind = u32::from(width(address).checked_sub(bits)?);
    // A shift by the whole width is none that Rust knows.
    Some(match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(behind).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    })
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.bits < width(self.address) {
            write!(f, "/{}", self.bits)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network}");
            assert!(!network.contains(outside.parse().unwrap()), "{network}");
            assert_eq!(Network::parse(&network.to_string()), Some(network));
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "::/129",
            "10.0.0.0/+8",
            "a/8",
        ] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }
}
