//! `etcd://HOST:PORT[,HOST:PORT…]/PREFIX`: where a fleet's etcd is, and below which keys. `etcds:` is the same under TLS.

use std::fmt;
use std::str::FromStr;

/// etcd's own default.
const PORT: u16 = 2379;
/// More are no cluster of etcd.
const MOST_ENDPOINTS: usize = 16;
/// Longest prefix in bytes: it stands in front of every key.
const MOST_PREFIX: usize = 128;

/// Where a fleet's etcd is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetAddress {
    endpoints: Vec<String>,
    prefix: String,
    tls: bool,
}

impl FleetAddress {
    /// HOST:PORT of each member of the etcd, at least one.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// What all keys of the fleet begin with, without a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is reached under TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl FromStr for FleetAddress {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected etcd://HOST:PORT[,HOST:PORT…]/PREFIX (etcds: under TLS)";
        let (tls, rest) = match word.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(EXPECTED.to_owned()),
        };
        let (hosts, prefix) = rest
            .split_once('/')
            .ok_or_else(|| format!("a prefix of the keys is missing; {EXPECTED}"))?;
        if hosts.contains('@') {
            return Err(
                "a password has no place in an address, where others of this machine see it: give --fleet-login FILE"
                    .to_owned(),
            );
        }
        let prefix = prefix.trim_matches('/');
        let may = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if prefix.is_empty() || prefix.len() > MOST_PREFIX || !prefix.chars().all(may) {
            return Err(format!(
                "the prefix has 1 to {MOST_PREFIX} letters, digits, and - _ . /; {EXPECTED}"
            ));
        }
        let endpoints: Vec<String> = hosts
            .split(',')
            .map(|word| endpoint(word).map_err(|why| format!("{why}; {EXPECTED}")))
            .collect::<Result<_, _>>()?;
        if endpoints.len() > MOST_ENDPOINTS {
            return Err(format!("more than {MOST_ENDPOINTS} hosts"));
        }
        Ok(Self {
            endpoints,
            prefix: prefix.to_owned(),
            tls,
        })
    }
}

/// HOST, HOST:PORT, [V6] or [V6]:PORT.
fn endpoint(word: &str) -> Result<String, String> {
    if word.is_empty() {
        return Err(
            "a host is missing: no comma before the first or behind the last one".to_owned(),
        );
    }
    if word.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address has brackets: [{word}]:{PORT}"));
    }
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) if port != 0 => (host, port),
            _ => return Err(format!("{port:?} is no port: 1 to 65535")),
        },
        _ => (word, PORT),
    };
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let may = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = || !host.is_empty() && host.len() <= 253 && host.chars().all(may);
    if !inner.map_or_else(is_name, |v6| v6.parse::<std::net::Ipv6Addr>().is_ok()) {
        return Err(format!("{host:?} is no host name and no address"));
    }
    Ok(format!("{host}:{port}"))
}

impl fmt::Display for FleetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "etcds" } else { "etcd" };
        write!(f, "{scheme}://{}/{}", self.endpoints.join(","), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (word, printed) in [
            ("etcd://127.0.0.1:2379/cepa", "etcd://127.0.0.1:2379/cepa"),
            ("etcd://a,b:99/x/y/", "etcd://a:2379,b:99/x/y"),
            ("etcds://[::1]:1,[::2]/p", "etcds://[::1]:1,[::2]:2379/p"),
        ] {
            let read: FleetAddress = word.parse().unwrap();
            assert_eq!(read.to_string(), printed);
            assert_eq!(printed.parse::<FleetAddress>().unwrap(), read);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (word, why) in [
            ("127.0.0.1:2379", "expected etcd://"),
            ("http://a/b", "expected etcd://"),
            ("etcd://a:1", "prefix of the keys is missing"),
            ("etcd://a:1/", "the prefix has 1"),
            ("etcd://a:1/x y", "the prefix has 1"),
            ("etcd://a:0/x", "\"0\" is no port"),
            ("etcd://a:70000/x", "\"70000\" is no port"),
            ("etcd:///x", "a host is missing"),
            ("etcd://a,,b/x", "a host is missing"),
            ("etcd://a:1,/x", "comma"),
            ("etcd://::1/x", "[::1]:2379"),
            ("etcd://[zz]/x", "is no host name"),
            ("etcd://me:secret@a/x", "--fleet-login"),
        ] {
            let error = word.parse::<FleetAddress>().unwrap_err();
            assert!(error.contains(why), "{word}: {error}");
        }
        let many = vec!["a"; 17].join(",");
        assert!(format!("etcd://{many}/x").parse::<FleetAddress>().is_err());
    }
}
