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

/// It is renewed before half of it is over.
pub(super) const RENEW: Duration = Duration::from_secs(240);

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
        if !is_behind || router.is_loopback() {
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
        // What it maps elsewhere is of no use, and goes when it is dropped.
        let is_here = it.at.ip() == seen && it.at.port() >= FIRST_PORT;
        is_here.then_some(it)
    }

    /// Where others reach the port.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
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
