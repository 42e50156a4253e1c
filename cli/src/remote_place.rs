//! Where `cepa forward -R` asks a far end to listen, and where that allows it.
//!
//! A place is a port, an address and a port, or the path of a Unix socket. A port alone is at the far end's loopback addresses. Names
//! are none: what they lead to at the far end, its owner could not have seen when allowing them. What is allowed is compared as it
//! is meant, not as it is written: `127.1` is no other place than `127.0.0.1`, and `0.0.0.0` is one of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use cepa::transports::{Endpoint, Target};

/// Where a far end is to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Port(Host, u16),
    Unix(Box<Endpoint>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// This machine alone, in both families.
    Loopback,
    Address(IpAddr),
}

impl Host {
    /// Each loopback address stands for both.
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => Self::Loopback,
            address => Self::Address(address),
        }
    }

    fn split(word: &str) -> Result<(Self, &str), String> {
        let Some((host, port)) = word.rsplit_once(':') else {
            return Ok((Self::Loopback, word));
        };
        if host == "*" {
            return Err(format!(
                "to listen at all addresses there, give 0.0.0.0:{port}"
            ));
        }
        if host == "localhost" {
            return Ok((Self::Loopback, port));
        }
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let address = match inner {
            Some(inner) => inner.parse().map(IpAddr::V6).ok(),
            None => host.parse().map(IpAddr::V4).ok(),
        };
        let address = address.ok_or_else(|| {
            format!("{host:?} is no IP address; give PORT, IP:PORT, [IPV6]:PORT or unix:PATH")
        })?;
        Ok((Self::of(address), port))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(Host::Loopback, port) => write!(f, "{port}"),
            Self::Port(Host::Address(at), port) => SocketAddr::new(*at, *port).fmt(f),
            Self::Unix(at) => at.fmt(f),
        }
    }
}

/// Begins the place of a Unix socket.
const UNIX: &str = "unix:";

/// A Unix socket's address; the owner's may have options.
fn unix(word: &str) -> Result<Endpoint, String> {
    let at: Endpoint = word.parse().map_err(|e| format!("{e}"))?;
    match at.target() {
        Target::Unix { path, .. } if path.is_absolute() && at.layers().is_empty() => Ok(at),
        _ => Err("give the whole path of the socket: unix:/PATH".to_owned()),
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if word.starts_with(UNIX) {
            return unix(word).map(|at| Self::Unix(Box::new(at)));
        }
        let (host, port) = Host::split(word.strip_prefix("tcp:").unwrap_or(word))?;
        let port = port.parse().map_err(|_| {
            format!("{port:?} is no port; give PORT, IP:PORT, [IPV6]:PORT or unix:PATH")
        })?;
        Ok(Self::Port(host, port))
    }
}

/// Places where an owner allows to listen: some of one word of `--allow-remote`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places(Vec<Allowed>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Ports(Host, RangeInclusive<u16>),
    Unix(Endpoint),
}

impl FromStr for Places {
    type Err = String;

    /// `[ADDR:]PORT[,…]`, where PORT may be `N-N` or `*`; or `unix:PATH` alone, whose options have commas of their own.
    fn from_str(word: &str) -> Result<Self, String> {
        if word.starts_with(UNIX) {
            return unix(word).map(|at| Self(vec![Allowed::Unix(at)]));
        }
        let one = |word: &str| {
            let (host, ports) = Host::split(word)?;
            let no =
                || format!("{ports:?} is no port; give N, N-N or *, as in 8080,0.0.0.0:9000-9010");
            let ports = match ports.split_once('-') {
                _ if ports == "*" => 0..=u16::MAX,
                Some((from, to)) => {
                    let (from, to) = (from.parse().ok(), to.parse().ok());
                    let range = from.zip(to).filter(|(from, to)| from <= to);
                    let (from, to) = range.ok_or_else(no)?;
                    from..=to
                }
                None => {
                    let port = ports.parse().map_err(|_| no())?;
                    port..=port
                }
            };
            Ok(Allowed::Ports(host, ports))
        };
        let all = word.split(',').map(one);
        all.collect::<Result<_, String>>().map(Self)
    }
}

impl Places {
    /// Where to listen for a place, if it is among these: the first is listened at in any case, the others where they exist.
    pub(crate) fn find(&self, asked: &Place) -> Option<Vec<Endpoint>> {
        self.0.iter().find_map(|allowed| match (allowed, asked) {
            (Allowed::Ports(host, ports), Place::Port(at, port))
                if host == at && ports.contains(port) =>
            {
                let hosts = match at {
                    Host::Loopback => {
                        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
                    }
                    Host::Address(at) => vec![*at],
                };
                let at = |host| format!("tcp:{}", SocketAddr::new(host, *port)).parse().ok();
                hosts.into_iter().map(at).collect()
            }
            (Allowed::Unix(own), Place::Unix(asked)) if path(own) == path(asked) => {
                Some(vec![own.clone()])
            }
            _ => None,
        })
    }
}

fn path(at: &Endpoint) -> Option<&std::path::Path> {
    match at.target() {
        Target::Unix { path, .. } => Some(path.as_ref()),
        _ => None,
    }
}

/// A word of `-R`: where the far end listens, and where its connections go to here.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) place: Place,
    pub(crate) to: Endpoint,
}

impl FromStr for Remote {
    type Err = String;

    /// `PLACE=ADDRESS`; the place ends at the first `=`, an address may have more of them.
    fn from_str(word: &str) -> Result<Self, String> {
        let (place, to) = word
            .split_once('=')
            .ok_or("expected [ADDR:]PORT=ADDRESS, for example 8080=localhost:3000")?;
        let to = to.parse().map_or_else(
            |_| match to.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() && !to.starts_with("tcp:") => {
                    format!("tcp:{to}")
                }
                _ => to.to_owned(),
            },
            |port: u16| format!("tcp:localhost:{port}"),
        );
        let to: Endpoint = to
            .parse()
            .map_err(|e| format!("{e}, or a port, or HOST:PORT"))?;
        if !to.is_socket() || !to.layers().is_empty() {
            return Err("the far end's connections go to tcp: or unix: without layers".into());
        }
        let place = place.parse()?;
        Ok(Self { place, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(word: &str, asked: &str) -> String {
        let places: Places = word.parse().unwrap();
        let asked: Place = asked.parse().unwrap();
        let found = places.find(&asked).unwrap_or_default();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        found.join(" ")
    }

    #[test]
    fn what_is_allowed_is_what_is_meant_and_nothing_else() {
        let both = "tcp:127.0.0.1:80 tcp:[::1]:80";
        for (allowed, asked, found) in [
            ("80", "80", both),
            ("80", "localhost:80", both),
            ("80", "127.0.0.1:80", both),
            ("127.0.0.1:80", "[::1]:80", both),
            ("80", "[::ffff:127.0.0.1]:80", both),
            ("80", "tcp:127.0.0.1:80", both),
            ("79-81", "80", both),
            ("*", "80", both),
            ("1,80", "80", both),
            ("0.0.0.0:80", "0.0.0.0:80", "tcp:0.0.0.0:80"),
            (
                "[2001:db8::1]:80",
                "[2001:db8::1]:80",
                "tcp:[2001:db8::1]:80",
            ),
            (
                "unix:/run/a,mode=0600",
                "unix:/run/a",
                "unix:/run/a,mode=0600",
            ),
            ("0", "0", "tcp:127.0.0.1:0 tcp:[::1]:0"),
            // Not these.
            ("80", "81", ""),
            ("80", "0", ""),
            ("80", "0.0.0.0:80", ""),
            ("0.0.0.0:80", "80", ""),
            ("0.0.0.0:80", "192.0.2.1:80", ""),
            ("[::]:80", "0.0.0.0:80", ""),
            ("*", "0.0.0.0:80", ""),
            ("unix:/run/a", "unix:/run/b", ""),
            ("*", "unix:/run/a", ""),
        ] {
            assert_eq!(places(allowed, asked), found, "{allowed} {asked}");
        }
    }

    #[test]
    fn what_is_no_place_says_what_one_is() {
        for (word, why) in [
            ("", "is no port"),
            ("web", "is no port"),
            ("70000", "is no port"),
            ("*:80", "0.0.0.0:80"),
            ("example.com:80", "no IP address"),
            ("::1:80", "no IP address"),
            ("unix:a", "whole path"),
        ] {
            let error = word.parse::<Place>().unwrap_err();
            assert!(error.contains(why), "{word}: {error}");
        }
        for word in ["", "80,", "9-8", "a-b", "host:1", "unix:rel"] {
            assert!(word.parse::<Places>().is_err(), "{word}");
        }
    }

    #[test]
    fn a_word_of_r_is_a_place_and_an_address() {
        for (word, place, to) in [
            ("8080=3000", "8080", "tcp:localhost:3000"),
            ("0.0.0.0:80=web:3000", "0.0.0.0:80", "tcp:web:3000"),
            ("0=tcp:h:1", "0", "tcp:h:1"),
            ("unix:/a=unix:/b=c", "unix:/a", "unix:/b=c"),
            ("[::1]:7=[::1]:8", "7", "tcp:[::1]:8"),
        ] {
            let remote: Remote = word.parse().unwrap();
            let found = (remote.place.to_string(), remote.to.to_string());
            assert_eq!(found, (place.to_owned(), to.to_owned()), "{word}");
        }
        for word in ["8080", "80=exec:cat", "80=tls+tcp:h:1", "80=", "x=80"] {
            assert!(word.parse::<Remote>().is_err(), "{word}");
        }
    }
}
