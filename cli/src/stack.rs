//! How the commands set up a stack, which addresses can carry a session, and which are of use to others.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use cepa::identity::{Identity, TrustPolicy};
use cepa::node::Hint;
use cepa::onion::MAX_LAYERS;
use cepa::stack::StackConfig;
use cepa::transports::{self, Endpoint, Layer, Target};

use crate::dial;
use crate::exit::{Code, Failure, say};

/// The library's defaults, but for the number of substreams that are opened here: a crowd at a forward is bounded by descriptors.
pub(crate) fn of(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> StackConfig {
    let mut config = StackConfig::new(identity.clone(), trust);
    config.proxies = dial::proxies();
    let outbound = &mut config.mux.max_outbound_streams;
    *outbound = (*outbound).max(connections());
    config
}

/// How many connections of others this process may carry, a descriptor each: what it may open, less an eighth and at least
/// 64 for all else.
pub(crate) fn connections() -> usize {
    let may_open = transports::descriptor_limit();
    may_open.saturating_sub((may_open / 8).max(64)).max(16)
}

/// An address whose layers can carry a session: none written, or the mux above TLS, which may
/// stand on a link. The library
/// checks this too, but only once the stream is open.
pub(crate) fn carries_session(address: &Endpoint) -> Result<(), Failure> {
    few_layers(address)?;
    match address.layers() {
        [] => Ok(()),
        [Layer::Mux, tls @ .., Layer::Link(_)] | [Layer::Mux, tls @ ..]
            if !tls.is_empty() && tls.iter().all(|l| l.is_tls()) =>
        {
            Ok(())
        }
        _ => Err(Failure::new(
            Code::Usage,
            format!(
                "{address}: these layers cannot carry a session; write mux+tls+ in front, or no layers"
            ),
        )),
    }
}

/// A stack has at most so many TLS layers. The library counts them too, but only once the stream is open.
pub(crate) fn few_layers(address: &Endpoint) -> Result<(), Failure> {
    let tls = address.layers().iter().filter(|layer| layer.is_tls());
    let found = tls.count();
    if found > MAX_LAYERS {
        return Err(Failure::new(
            Code::Usage,
            format!(
                "an address may have at most {MAX_LAYERS} TLS layers, and this one has {found}; leave some out"
            ),
        ));
    }
    Ok(())
}

/// An address that is good to listen on and that nobody else can dial (every address of this machine, or any free
/// port), with HOST or PORT where the user has to put what others dial. Which of its addresses that is, a
/// machine can't know: behind a NAT it is none of them.
pub(crate) fn only_to_listen(address: &Endpoint) -> Option<String> {
    let (host, port) = address.place()?;
    let wildcard = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    if !wildcard && port != 0 {
        return None;
    }
    let port = match port {
        0 => "PORT".to_owned(),
        port => port.to_string(),
    };
    let host = if wildcard { "HOST" } else { host };
    Some(dialled_at(address, host, &port))
}

/// An address that is listened at, as it is dialled at this host.
fn dialled_at(address: &Endpoint, host: &str, port: &str) -> String {
    let mut text = String::new();
    for layer in address.layers() {
        let _ = write!(text, "{layer}+");
    }
    let scheme = address.scheme();
    let _ = match host {
        host if host.contains(':') => write!(text, "{scheme}:[{host}]:{port}"),
        host => write!(text, "{scheme}:{host}:{port}"),
    };
    if let Target::Ws { path, .. } = address.target() {
        let escaped = path.replace('%', "%25").replace(',', "%2C");
        text.push_str(&escaped.replace('?', "%3F"));
    }
    text
}

/// Where others dial what listens at an address: at `public`, if that is given; for one that is every address of this machine, at
/// each of those, the ones that lead elsewhere first; else at the address itself.
pub(crate) fn for_others(address: &Endpoint, public: Option<&str>) -> Vec<Endpoint> {
    let Some((host, port)) = address.place() else {
        return vec![address.clone()];
    };
    let any = host.parse().ok().filter(IpAddr::is_unspecified);
    let hosts = match (public, any) {
        (Some(public), _) => vec![public.to_owned()],
        (None, None) if address.is_network() => return vec![address.clone()],
        // Which way of this machine is taken is nothing to others.
        (None, None) => vec![host.to_owned()],
        (None, Some(any)) => of_this_machine(any.is_ipv6()),
    };
    let dialled = hosts.iter().map(|host| {
        let host = host.trim_matches(['[', ']']);
        dialled_at(address, host, &port.to_string()).parse()
    });
    dialled.filter_map(Result::ok).collect()
}

/// Whether only this machine can dial it.
pub(crate) fn is_loopback(at: &Endpoint) -> bool {
    let Some((host, _)) = at.place() else {
        return false;
    };
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The addresses of this machine that can be dialled without a zone, those of loopback last; of IPv6 only if `both`.
fn of_this_machine(both: bool) -> Vec<String> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let mut all: Vec<IpAddr> = all.iter().map(if_addrs::Interface::ip).collect();
    all.retain(|ip| both || ip.is_ipv4());
    all.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    all.dedup();
    all.iter().map(IpAddr::to_string).collect()
}

/// Warns of an address that others can't dial, in an address of a peer, or of the relay that it is registered at.
pub(crate) fn warn_of_dead_hints(hints: &[Hint]) {
    for hint in hints {
        let mut at = hint;
        while let Hint::Relay { at: before, .. } = at {
            at = before;
        }
        if let Hint::Direct(address) = at
            && let Some(better) = only_to_listen(address)
        {
            say(format_args!(
                "warning: others cannot connect to {address}; give {better} with the machine's name or address"
            ));
        }
    }
}
