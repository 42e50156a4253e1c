//! The far end of `cepa forward -D`: a substream whose opener says where it wants to be connected, judged by the list of
//! the service (`destination.rs`), and joined to that.
//!
//! Every address is judged before any is dialled, and what is dialled are addresses, so a name service that answers otherwise the
//! second time changes nothing. Of a name some of whose addresses are not allowed the others are used.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cepa::mux::{ReceivePool, Substream};
use cepa::onion::Onion;
use cepa::session::Session;
use cepa::transports::{Endpoint, Terminal, TransportErrorKind};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

use crate::destination::{Destination, Destinations, Host};
use crate::lookups;
use crate::socks::{self, Reply};
use crate::upstream::Near;

/// How long the opener may take to say what it wants: it sends that with its request.
const ASKING: Duration = Duration::from_secs(30);

/// How many addresses of one name are tried: a name service could have us knock at thousands.
const ADDRESSES: usize = 8;

/// How much later than the one before it an address is tried (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Serves one substream to its end. `Err` is for the log.
pub(crate) async fn serve(
    name: &str,
    allowed: &Destinations,
    mut far: Onion<Substream>,
    peer: &(Session, ReceivePool),
) -> Result<(), String> {
    let to = match timeout(ASKING, socks::asked(&mut far)).await {
        Ok(Ok(to)) => to,
        Ok(Err(e)) => return Err(format!("the request was not understood: {e}")),
        Err(_) => {
            let why = "the peer has not said where it wants to be connected";
            return Err(why.to_owned());
        }
    };
    match connect(name, allowed, &to, peer).await {
        Ok((near, at)) => {
            let answered = socks::answered(&mut far, Reply::Connected).await;
            answered.map_err(|e| e.to_string())?;
            let served = Box::new(near).serve(&at, Box::new(far), |far| far.wire_mut());
            served.await
        }
        Err((reply, why)) => {
            // Who has left needs no answer.
            let _ = socks::answered(&mut far, reply).await;
            let _ = far.shutdown().await;
            let _ = far.wire_mut().drained(None).await;
            Err(format!("{to}: {why}"))
        }
    }
}

const NOT_ALLOWED: &str = "refused: it is not among the allowed destinations";

async fn connect(
    name: &str,
    allowed: &Destinations,
    to: &Destination,
    peer: &(Session, ReceivePool),
) -> Result<(Near, Endpoint), (Reply, String)> {
    let addresses = match &to.host {
        Host::Address(address) if allowed.allow_address(*address, to.port) => vec![*address],
        Host::Name(host) if allowed.allow_name(host, to.port) => {
            let found = addresses_of(host, to.port, &peer.0).await?;
            let fit = |at: &IpAddr| allowed.allow_address_of_name(*at, to.port);
            let fits: Vec<_> = found.iter().copied().filter(fit).collect();
            if let (true, Some(first)) = (fits.is_empty(), found.first()) {
                let why = format!(
                    "refused: the name is allowed, but it leads to {first}, which is not public; allow that address, too"
                );
                return Err((Reply::NotAllowed, why));
            }
            fits
        }
        _ => return Err((Reply::NotAllowed, NOT_ALLOWED.to_owned())),
    };
    dial(name, &addresses, to.port, peer).await
}

/// The first addresses of a name, each once.
async fn addresses_of(
    host: &str,
    port: u16,
    peer: &Session,
) -> Result<Vec<IpAddr>, (Reply, String)> {
    let Some(found) = lookups::addresses_of(peer.peer().id(), host, port).await else {
        let why = "looking up the name takes too long".to_owned();
        return Err((Reply::HostUnreachable, why));
    };
    let mut addresses = Vec::new();
    for at in found {
        let at = at.to_canonical();
        if !addresses.contains(&at) {
            addresses.push(at);
        }
        if addresses.len() == ADDRESSES {
            break;
        }
    }
    if addresses.is_empty() {
        return Err(no_address());
    }
    Ok(addresses)
}

fn no_address() -> (Reply, String) {
    let why = "the name has no address here".to_owned();
    (Reply::HostUnreachable, why)
}

/// The first of them that answers; or why the first one that failed did.
async fn dial(
    name: &str,
    addresses: &[IpAddr],
    port: u16,
    peer: &(Session, ReceivePool),
) -> Result<(Near, Endpoint), (Reply, String)> {
    let mut dials = FuturesUnordered::new();
    let mut after = Duration::ZERO;
    for address in addresses {
        let at = format!("tcp:{}", SocketAddr::new(*address, port));
        let Ok(at) = at.parse::<Endpoint>() else {
            continue;
        };
        let wait = after;
        after += STAGGER;
        dials.push(async move {
            sleep(wait).await;
            let near = Near::open(name, &at, &Terminal::default(), peer, None).await;
            near.map(|near| (near, at))
        });
    }
    let mut failed = None;
    while let Some(dialled) = dials.next().await {
        match dialled {
            Ok(near) => return Ok(near),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    let Some(e) = failed else {
        return Err(no_address());
    };
    let os = std::error::Error::source(&e).and_then(|e| e.downcast_ref::<std::io::Error>());
    let reply = match (e.kind(), os.map(std::io::Error::kind)) {
        (TransportErrorKind::Refused, _) => Reply::Refused,
        (TransportErrorKind::TimedOut, _) => Reply::TimedOut,
        (_, Some(std::io::ErrorKind::NetworkUnreachable)) => Reply::NetworkUnreachable,
        (_, Some(std::io::ErrorKind::HostUnreachable)) => Reply::HostUnreachable,
        _ => Reply::Failed,
    };
    Err((reply, e.to_string()))
}
