//! Which proxy an address is dialled through that names none itself: one for all, or those of the environment, as curl and others
//! read it.
//!
//! There is no standard for the variables. What most programs agree on is here: lower case counts before upper case, an empty value is
//! none, and `NO_PROXY` lists hosts, domains and networks. `HTTPS_PROXY` counts for `ws:` and `wss:`, which lead where a browser
//! would go, `ALL_PROXY` for `tcp:`; where the one of a scheme is not set, the other one serves.
use std::net::IpAddr;

use crate::endpoint::{Endpoint, Proxy, Target};
use crate::network::Network;

/// Proxies for addresses without one of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    tcp: Option<Proxy>,
    web: Option<Proxy>,
    except: Vec<Except>,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Except {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    All,
    /// The name itself and every name below it, in lower case, without a dot in front.
    Domain(String),
    Network(Network),
}

impl Proxies {
    /// One for every address.
    #[must_use]
    pub fn always(proxy: Proxy) -> Self {
        Self {
            tcp: Some(proxy.clone()),
            web: Some(proxy),
            except: Vec::new(),
        }
    }

    /// Those of `ALL_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; `variable` gives the value of one. `None` where neither of the first two
    /// is set.
    ///
    /// # Errors
    /// One line that names the variable, and not its value: that may hold a password.
    pub fn of_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let value = |name: &str| {
            let lower = variable(&name.to_lowercase());
            lower.or_else(|| variable(name)).filter(|it| !it.is_empty())
        };
        let proxy = |name: &str| match value(name) {
            None => Ok(None),
            Some(text) => Proxy::from_variable(&text)
                .map(Some)
                .map_err(|why| format!("{name}: {why}")),
        };
        let (all, https) = (proxy("ALL_PROXY")?, proxy("HTTPS_PROXY")?);
        if all.is_none() && https.is_none() {
            return Ok(None);
        }
        let except = value("NO_PROXY").unwrap_or_default();
        let except = except.split([',', ' ']).map(str::trim);
        Ok(Some(Self {
            tcp: all.clone().or_else(|| https.clone()),
            web: https.or(all),
            except: except.filter(|it| !it.is_empty()).map(Except::of).collect(),
        }))
    }

    /// The address as it is to be dialled. One that names a proxy, or that is no network connection, stays as it is.
    #[must_use]
    pub fn on(&self, endpoint: &Endpoint) -> Endpoint {
        let mut target = endpoint.target().clone();
        let (place, own, proxy) = match &mut target {
            Target::Tcp {
                host,
                port,
                settings,
            } => ((host, *port), &mut settings.proxy, &self.tcp),
            Target::Ws {
                host,
                port,
                settings,
                ..
            } => ((host, *port), &mut settings.tcp.proxy, &self.web),
            Target::Rfc2217 {
                host,
                port,
                settings,
            } => ((host, *port), &mut settings.tcp.proxy, &self.tcp),
            // It goes by none, and is not to pass by the one that all others take: opening it says so.
            Target::Quic {
                host,
                port,
                settings,
            } => ((host, *port), &mut settings.proxy, &self.tcp),
            _ => return endpoint.clone(),
        };
        let (host, port) = place;
        if own.is_none() && !self.except.iter().any(|it| it.is(host, port)) {
            *own = proxy.clone().map(Box::new);
        }
        endpoint.clone().with_target(target)
    }
}

impl Except {
    fn of(text: &str) -> Self {
        if let Some(network) = Network::parse(text.trim_matches(['[', ']'])) {
            return Self {
                host: Host::Network(network),
                port: None,
            };
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (text, None),
            },
            None => (text, None),
        };
        let host = host.trim_matches(['[', ']']);
        let host = match Network::parse(host) {
            Some(network) => Host::Network(network),
            None if host == "*" => Host::All,
            None => {
                let name = host.strip_prefix('*').unwrap_or(host);
                Host::Domain(name.trim_matches('.').to_lowercase())
            }
        };
        Self { host, port }
    }

    fn is(&self, host: &str, port: u16) -> bool {
        let fits = match &self.host {
            Host::All => true,
            Host::Network(network) => {
                let address = host.split_once('%').map_or(host, |(address, _)| address);
                address.parse().is_ok_and(|ip: IpAddr| network.contains(ip))
            }
            Host::Domain(domain) => {
                let host = host.trim_end_matches('.').to_lowercase();
                match host.strip_suffix(domain.as_str()) {
                    Some(before) => before.is_empty() || before.ends_with('.'),
                    None => false,
                }
            }
        };
        fits && self.port.is_none_or(|it| it == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Result<Option<Proxies>, String> {
        Proxies::of_environment(|name| {
            let found = set.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn dialled(proxies: &Proxies, at: &str) -> String {
        proxies.on(&at.parse().unwrap()).to_string()
    }

    #[test]
    fn each_kind_of_address_has_its_variable_and_the_other_one_else() {
        let both = of(&[("ALL_PROXY", "socks5h://a:1"), ("https_proxy", "b:2")]);
        let both = both.unwrap().unwrap();
        for (at, proxy) in [
            ("tcp:h:1", "socks5h://a:1"),
            ("ws:h:1/", "http://b:2"),
            ("quic:h:1", "socks5h://a:1"),
            ("mux+tls+wss:h:1/", "http://b:2"),
        ] {
            assert_eq!(dialled(&both, at), format!("{at},proxy={proxy}"));
        }
        for at in ["unix:/s", "exec:cat", "tcp:h:1,proxy=http://c:3"] {
            assert_eq!(dialled(&both, at), at);
        }
        let all = of(&[("all_proxy", "socks5://a"), ("ALL_PROXY", "x:y")]).unwrap();
        assert_eq!(
            dialled(&all.unwrap(), "wss:h:1/"),
            "wss:h:1/,proxy=socks5://a:1080"
        );
        let https = of(&[("HTTPS_PROXY", "http://b:2/")]).unwrap().unwrap();
        assert_eq!(dialled(&https, "tcp:h:1"), "tcp:h:1,proxy=http://b:2");
        assert_eq!(of(&[("ALL_PROXY", ""), ("NO_PROXY", "*")]), Ok(None));
        let wrong = of(&[("ALL_PROXY", "ftp://me:sesame@p:1")]).unwrap_err();
        assert!(wrong.starts_with("ALL_PROXY: expected a proxy"), "{wrong}");
        assert!(!wrong.contains("sesame"), "{wrong}");
    }

    #[test]
    fn no_proxy_lists_who_is_dialled_directly() {
        for (list, direct, by) in [
            ("*", &["h", "1.2.3.4"][..], &[][..]),
            (
                "example.com",
                &["example.com", "EXAMPLE.com.", "a.example.com"],
                &["notexample.com", "example.org"],
            ),
            (
                " .example.com, ,other ",
                &["a.example.com", "other"],
                &["h"],
            ),
            ("*.example.com", &["a.example.com"], &["h"]),
            ("10.0.0.0/8", &["10.1.2.3"], &["11.0.0.1", "h"]),
            (
                "127.0.0.1 ::1",
                &["127.0.0.1", "[::1]"],
                &["127.0.0.2", "[::2]"],
            ),
            ("[::1]", &["[::1]"], &["h"]),
            ("h:7", &["h:7"], &["h:8", "h"]),
            ("127.0.0.1:7", &["127.0.0.1:7"], &["127.0.0.1:8"]),
        ] {
            let proxies = of(&[("ALL_PROXY", "p:1"), ("no_proxy", list)])
                .unwrap()
                .unwrap();
            for (hosts, goes_by) in [(direct, false), (by, true)] {
                for host in hosts {
                    let port = !host.ends_with(']') && host.contains(':');
                    let at = if port {
                        format!("tcp:{host}")
                    } else {
                        format!("tcp:{host}:99")
                    };
                    let found = dialled(&proxies, &at).contains("proxy=");
                    assert_eq!(found, goes_by, "{list}: {at}");
                }
            }
        }
    }
}
