//! A port that this machine's router maps for an attempt: the last step, where the NATs alone let nothing through.
//!
//! The router is asked by PCP (RFC 6887), by NAT-PMP (RFC 6886) if it knows no PCP, and by UPnP if it knows neither. It is believed little: what it
//! maps is told to the peer only if it is at the address at which the relay sees this node, so neither a router that names another
//! machine nor one that is behind a second NAT makes a peer try anything. A mapping is for as long as it is needed and for [`LEASE`] at
//! most, however long the router says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{PortMappingProtocol, SearchOptions};
use tokio::time::timeout;

use crate::node::Node;

use super::policy::is_private;

/// Seconds that a mapping holds which nobody renews: what is left behind by a process that is killed.
const LEASE: u32 = 600;

/// A lease that a router grants is renewed when so much of it, in percent, is over.
const RENEW: u32 = 40;

/// For UPnP, in all: a search and three requests in the same network. An attempt is so much longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// One request of PCP: sent again after this, once, and then heard for twice as long.
const FIRST_ANSWER: Duration = Duration::from_millis(300);

/// What the router may show to who asks it for its mappings.
const NAME: &str = "cepa";

/// No router maps a port for a program below it.
const FIRST_PORT: u16 = 1024;

/// A port of the router that leads to one of this machine. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Mapped {
    at: SocketAddr,
    /// Taken when it is dropped.
    by: Option<By>,
    node: Node,
}

#[derive(Debug)]
enum By {
    /// NAT-PMP, too.
    Pcp(PortMapping),
    Upnp {
        router: Box<Gateway<Tokio>>,
        port: u16,
        local: SocketAddr,
    },
}

impl Mapped {
    /// A TCP port for this one. `None` where there is no router that maps one at the address at which the relay sees this node.
    pub(super) async fn new(
        node: &Node,
        router: Ipv4Addr,
        local: SocketAddr,
        seen: IpAddr,
    ) -> Option<Self> {
        // Whoever has a public address, or is seen at its own one, is behind no NAT.
        let is_behind = local.is_ipv4() && is_private(local.ip()) && local.ip() != seen;
        if !is_behind {
            return None;
        }
        let mapped = |(at, by)| Self {
            at,
            by: Some(by),
            node: node.handle(),
        };
        // One behind the other: what is given up halfway may have been mapped already.
        let first = match by_pcp(router, local).await {
            Some(found) => Some(found),
            None => by_upnp(router, local).await,
        };
        let it = first.map(mapped)?;
        // What is of none goes when it is dropped.
        is_of_use(it.at, seen).then_some(it)
    }

    /// Where others reach the port.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// How long after the last lease began it is to be renewed: a router may grant less than it is asked for.
    pub(super) fn renew_after(&self) -> Duration {
        let granted = match &self.by {
            Some(By::Pcp(mapping)) => mapping.lifetime().min(LEASE),
            _ => LEASE,
        };
        Duration::from_secs(granted.into()) * RENEW / 100
    }

    /// Another lease. False where the router does not give the same port again.
    pub(super) async fn renew(&mut self) -> bool {
        let Some(by) = &mut self.by else {
            return false;
        };
        let renewed = async {
            match by {
                By::Pcp(mapping) => match again(mapping).await {
                    Some(again) => {
                        *mapping = again;
                        mapping.external_port().get() == self.at.port()
                    }
                    None => false,
                },
                By::Upnp {
                    router,
                    port,
                    local,
                } => {
                    let added =
                        router.add_port(PortMappingProtocol::TCP, *port, *local, LEASE, NAME);
                    added.await.is_ok()
                }
            }
        };
        timeout(PATIENCE, renewed).await.unwrap_or(false)
    }
}

/// Whether a peer can be told of a port that the router says it has mapped.
fn is_of_use(at: SocketAddr, seen: IpAddr) -> bool {
    at.ip() == seen && at.port() >= FIRST_PORT
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let Some(by) = self.by.take() else {
            return;
        };
        // A node that shuts down waits for it.
        self.node.spawn_last(async move {
            let _ = timeout(PATIENCE, remove(by)).await;
        });
    }
}

async fn remove(by: By) {
    // The lease ends by itself where that fails.
    match by {
        By::Pcp(mapping) => {
            let _ = mapping.try_drop().await;
        }
        By::Upnp { router, port, .. } => {
            let _ = router.remove_port(PortMappingProtocol::TCP, port).await;
        }
    }
}

async fn by_pcp(router: Ipv4Addr, local: SocketAddr) -> Option<(SocketAddr, By)> {
    let port = NonZeroU16::new(local.port())?;
    let (router, tcp) = (router.into(), InternetProtocol::Tcp);
    let mapping = PortMapping::new(router, local.ip(), tcp, port, options(None)).await;
    let mapping = mapping.ok().filter(|it| it.lifetime() > 0)?;
    let at = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => {
            let at = natpmp::external_address(router, Some(TIMES)).await;
            // Nobody knows where it leads from.
            at.unwrap_or(Ipv4Addr::UNSPECIFIED).into()
        }
    };
    let at = SocketAddr::new(at, mapping.external_port().get());
    Some((at, By::Pcp(mapping)))
}

/// The same mapping with another lease, which shows the nonce of the first one where there was one.
async fn again(mapping: &PortMapping) -> Option<PortMapping> {
    let (router, port) = (mapping.gateway(), mapping.internal_port());
    let options = options(Some(mapping.external_port()));
    let tcp = InternetProtocol::Tcp;
    match mapping.mapping_type() {
        PortMappingType::Pcp {
            client,
            nonce,
            external_ip,
        } => {
            let base = pcp::BaseMapRequest::new(router, client, tcp, port);
            let again = pcp::port_mapping(base, Some(nonce), Some(external_ip), options);
            again.await.ok()
        }
        PortMappingType::NatPmp => natpmp::port_mapping(router, tcp, port, options).await.ok(),
    }
}

const TIMES: TimeoutConfig = TimeoutConfig {
    initial_timeout: FIRST_ANSWER,
    max_retries: 1,
    max_retry_timeout: None,
};

fn options(external_port: Option<NonZeroU16>) -> PortMappingOptions {
    PortMappingOptions {
        external_port,
        lifetime_seconds: Some(LEASE),
        timeout_config: Some(TIMES),
    }
}

async fn by_upnp(router: Ipv4Addr, local: SocketAddr) -> Option<(SocketAddr, By)> {
    let mut search = SearchOptions::default();
    search.bind_addr = SocketAddr::new(local.ip(), 0);
    search.timeout = Some(PATIENCE);
    let mapped = timeout(PATIENCE, async {
        let found = search_gateway(search).await.ok()?;
        // Whatever else in the network says that it is a router is none of this machine's.
        if found.addr.ip() != IpAddr::from(router) {
            return None;
        }
        let at = found.get_external_ip().await.ok()?;
        let tcp = PortMappingProtocol::TCP;
        let port = found.add_any_port(tcp, local, LEASE, NAME).await.ok()?;
        let by = By::Upnp {
            router: Box::new(found),
            port,
            local,
        };
        Some((SocketAddr::new(at.to_canonical(), port), by))
    });
    mapped.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);
    const SEEN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    /// A router at an address of this machine, which answers as it is told: by what comes, and how often something has come.
    /// crab_nat asks at port 5351 alone, so each test has an address of its own.
    async fn router(
        last: u8,
        mut says: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Ipv4Addr {
        // Of this process: the port is the same one for all.
        let [.., high, low] = std::process::id().to_be_bytes();
        let at = Ipv4Addr::new(127, 64 | (high & 0x3f), low, last);
        let socket = UdpSocket::bind((at, crab_nat::GATEWAY_PORT)).await.unwrap();
        tokio::spawn(async move {
            let mut asked = [0; 1100];
            while let Ok((n, from)) = socket.recv_from(&mut asked).await {
                if let Some(answer) = says(&asked[..n]) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        at
    }

    /// Of PCP (RFC 6887, sections 7.2 and 11.1).
    fn pcp_answer(asked: &[u8], lifetime: u32, port: u16, at: Ipv4Addr) -> Vec<u8> {
        let mut answer = vec![2, asked[1] | 0x80, 0, 0];
        answer.extend(lifetime.to_be_bytes());
        answer.extend([0; 16]);
        // The nonce, the protocol and the port inside.
        answer.extend(&asked[24..42]);
        answer.extend(port.to_be_bytes());
        answer.extend(at.to_ipv6_mapped().octets());
        answer
    }

    fn lifetime_asked(asked: &[u8]) -> u32 {
        u32::from_be_bytes(asked[4..8].try_into().unwrap())
    }

    #[tokio::test]
    async fn a_router_that_knows_pcp_maps_renews_and_removes() {
        let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let at = router(1, move |it| {
            told.send(lifetime_asked(it)).unwrap();
            // It says that it maps for ever.
            let lifetime = lifetime_asked(it).saturating_mul(u32::MAX);
            Some(pcp_answer(it, lifetime, 6000, SEEN))
        });
        let (found, by) = by_pcp(at.await, LOCAL).await.unwrap();
        assert_eq!(found, SocketAddr::new(SEEN.into(), 6000));
        let node = node();
        let mut mapped = Mapped {
            at: found,
            by: Some(by),
            node: node.handle(),
        };
        assert!(mapped.renew().await);
        assert_eq!(mapped.renew_after(), Duration::from_secs(240));
        drop(mapped);
        // However long the router says: the lease that is asked for is the same one, and in the end none.
        let asked = [asked.recv().await, asked.recv().await, asked.recv().await];
        assert_eq!(asked, [Some(LEASE), Some(LEASE), Some(0)]);
        node.shutdown(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn what_a_router_grants_for_less_is_renewed_in_time() {
        let at = router(20, |it| {
            Some(pcp_answer(it, lifetime_asked(it) / 6, 6000, SEEN))
        });
        let (found, by) = by_pcp(at.await, LOCAL).await.unwrap();
        let node = node();
        let mapped = Mapped {
            at: found,
            by: Some(by),
            node: node.handle(),
        };
        assert_eq!(mapped.renew_after(), Duration::from_secs(40));
        drop(mapped);
        node.shutdown(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_router_that_knows_nat_pmp_alone_is_asked_so() {
        let at = router(2, |asked| match asked {
            // Of an unknown version (RFC 6886, section 3.5).
            [2, ..] => Some(vec![0, 0x80, 0, 1, 0, 0, 0, 9]),
            [0, 0] => {
                let mut answer = vec![0, 0x80, 0, 0, 0, 0, 0, 9];
                answer.extend(SEEN.octets());
                Some(answer)
            }
            [0, 2, _, _, inside @ .., _, _, _, _, _, _] => {
                let mut answer = vec![0, 0x82, 0, 0, 0, 0, 0, 9];
                answer.extend(inside);
                answer.extend(6001_u16.to_be_bytes());
                answer.extend(7200_u32.to_be_bytes());
                Some(answer)
            }
            _ => None,
        });
        let (found, _) = by_pcp(at.await, LOCAL).await.unwrap();
        assert_eq!(found, SocketAddr::new(SEEN.into(), 6001));
    }

    #[tokio::test]
    async fn what_a_router_says_makes_a_peer_try_no_other_machine() {
        let seen = IpAddr::from(SEEN);
        let (elsewhere, here) = (Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::LOCALHOST);
        let home = Ipv4Addr::new(192, 168, 1, 1);
        for (n, at, port) in [
            (3, elsewhere, 6000),
            (4, here, 6000),
            (5, home, 6000),
            (6, Ipv4Addr::UNSPECIFIED, 6000),
            (7, SEEN, 22),
        ] {
            let at = router(n, move |asked| Some(pcp_answer(asked, LEASE, port, at))).await;
            let (found, _) = by_pcp(at, LOCAL).await.unwrap();
            assert!(!is_of_use(found, seen), "{found}");
        }
    }

    #[tokio::test]
    async fn a_router_that_refuses_is_silent_or_talks_nonsense_maps_nothing() {
        type Says = fn(&[u8]) -> Option<Vec<u8>>;
        let all: [(u8, Says); 6] = [
            (10, |_| None),
            (11, |_| Some(Vec::new())),
            (12, |_| Some(vec![0xff; 1500])),
            // Without a port, for no time at all, and "not authorized".
            (13, |asked| Some(pcp_answer(asked, LEASE, 0, SEEN))),
            (14, |asked| Some(pcp_answer(asked, 0, 6000, SEEN))),
            (15, |asked| {
                let mut answer = pcp_answer(asked, LEASE, 6000, SEEN);
                answer[3] = 2;
                Some(answer)
            }),
        ];
        for (n, says) in all {
            let at = router(n, says).await;
            assert!(by_pcp(at, LOCAL).await.is_none(), "router {n}");
        }
    }

    /// Another's mapping is none: the nonce is the one of the request.
    #[tokio::test]
    async fn an_answer_to_another_request_is_none() {
        let at = router(16, |asked| {
            let mut answer = pcp_answer(asked, LEASE, 6000, SEEN);
            answer[24] ^= 1;
            Some(answer)
        });
        assert!(by_pcp(at.await, LOCAL).await.is_none());
    }

    #[tokio::test]
    async fn who_is_behind_no_nat_asks_nobody() {
        let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let at = router(17, move |_| {
            told.send(()).unwrap();
            None
        });
        let (at, node, seen) = (at.await, node(), IpAddr::from(SEEN));
        for local in [
            "198.51.100.2:4000",
            "192.0.2.7:4000",
            "[fd00::1]:4000",
            "127.0.0.1:4000",
        ] {
            let mapped = Mapped::new(&node, at, local.parse().unwrap(), seen).await;
            assert!(mapped.is_none(), "{local}");
        }
        assert!(asked.try_recv().is_err());
    }

    fn node() -> Node {
        use crate::identity::{AcceptAny, Identity, KeyKind};
        use crate::node::NodeConfig;
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        Node::new(NodeConfig::new(identity, std::sync::Arc::new(AcceptAny)))
    }
}
