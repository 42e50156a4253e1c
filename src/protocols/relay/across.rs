//! From one member of a fleet to another: the nearer end asks for a circuit in the name of a peer that has asked there, and the farther
//! one decides whether it serves that peer.
//!
//! There is one session with each member, the node's own, dialled when it is needed. Who asks at the farther end is a member by its proven
//! key; whom it names is its word, which is believed of members alone, and gives that peer nothing but what this relay gives it.

use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};

use crate::identity::PeerId;
use crate::mux::Substream;
use crate::node::{Access, OnSessionError, PeerAddr};
use crate::onion::Onion;
use crate::protocols::pool::{Holder, Place};
use crate::session::{OpenError, Session};
use crate::wire::Status;

use super::client;
use super::error::RelayError;
use super::fleet::Fleet;
use super::inner::{Inner, Joined, Refusal};
use super::message::ForPeer;

/// Asks a member for a circuit to a peer that is registered there.
pub(super) async fn ask(
    relay: &Inner,
    member: PeerId,
    target: PeerId,
    from: &Holder,
) -> Result<(Session, Onion<Substream>), Refusal> {
    let unreachable = || Refusal::of(Status::Unreachable);
    let Joined { fleet, node } = relay.fleet.as_ref().ok_or_else(unreachable)?;
    let address = address(fleet, member);
    let request = ForPeer::new(
        target,
        from.id,
        &from.former,
        from.place.map(|at| told(relay.id, at)),
    );
    let far = node.on_session(&address, |session| {
        let (session, request) = (session.clone(), request.clone());
        Box::pin(async move { client::across(&session, &request).await })
    });
    let far = far.await;
    let far = far.map_err(|error| match error {
        OnSessionError::Open(RelayError::Refused {
            status: Status::NotAllowed,
            reason,
            ..
        }) if reason.is_empty() => Refusal {
            status: Status::NotAllowed,
            reason: format!("the peer's relay {}\u{2026} does not", member.short()),
        },
        OnSessionError::Open(RelayError::Refused { status, reason, .. }) => {
            Refusal { status, reason }
        }
        // It has the service, or it would not stand in the store: this one is no member for it.
        OnSessionError::Open(RelayError::NoRelay {
            source: OpenError::Refused { .. },
            ..
        }) => no_member(relay.id, member),
        OnSessionError::Dial(error) if error.is_refused() => no_member(relay.id, member),
        _ => Refusal {
            status: Status::Unreachable,
            reason: format!("its relay {}\u{2026} does not answer", member.short()),
        },
    })?;
    fleet.counts().outbound.fetch_add(1, Ordering::Relaxed);
    Ok(far)
}

/// Where a member is reached, as far as is known.
pub(super) fn address(fleet: &Fleet, member: PeerId) -> PeerAddr {
    let mut address = PeerAddr::new(member);
    for hint in fleet.addresses(member) {
        address = address.clone().with_hint(hint).unwrap_or(address);
    }
    address
}

/// A member does not know this relay as one.
fn no_member(own: PeerId, member: PeerId) -> Refusal {
    let short = member.short();
    Refusal {
        status: Status::Unreachable,
        reason: format!(
            "its relay {short}\u{2026} does not take this one for a relay of its fleet: give that one --fleet-peer {own}"
        ),
    }
}

/// Whom a member names, as this relay counts it.
pub(super) fn caller(relay: &Inner, asked: &ForPeer) -> Holder {
    let mut caller = Holder {
        id: asked.from(),
        former: asked.former(),
        place: asked.place().map(Place::Told),
        named: false,
    };
    if let Some(Joined { fleet, .. }) = &relay.fleet {
        let callers = fleet.callers();
        // By this relay's own list: what the other one has called it by, it says to nobody.
        caller.named =
            matches!(callers, Access::Peers(_)) && caller.ids().any(|id| callers.lists(&id));
    }
    caller
}

/// Whether this relay serves a peer that has asked at another member.
pub(super) fn serves(relay: &Inner, caller: &Holder) -> bool {
    let Some(Joined { fleet, .. }) = &relay.fleet else {
        return false;
    };
    let callers = fleet.callers();
    if !relay.serves(caller) || !caller.ids().any(|id| callers.lists(&id)) {
        return false;
    }
    fleet.counts().inbound.fetch_add(1, Ordering::Relaxed);
    true
}

/// A place as it is told to another member: it tells two hosts apart, and is no address.
fn told(relay: PeerId, place: Place) -> [u8; 16] {
    let text = match place {
        // Of another machine than the same of another member.
        Place::Host(source) if !source.is_far() => format!("at {relay}"),
        Place::Host(source) => source.to_string(),
        Place::Relay(relay) => format!("relay {relay}"),
        Place::Told(token) => return token,
    };
    let mut token = [0; 16];
    let hash = Sha256::digest(text.as_bytes());
    for (to, from) in token.iter_mut().zip(hash) {
        *to = from;
    }
    token
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use crate::gate::Source;

    use super::*;

    #[test]
    fn the_same_host_is_told_by_the_same_token_by_every_member() {
        let [a, b] = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        let host = |text: &str| Place::Host(Source::from(text.parse::<IpAddr>().unwrap()));
        let (one, other) = (host("192.0.2.1"), host("192.0.2.2"));
        assert_eq!(told(a, one), told(b, one));
        assert_ne!(told(a, one), told(a, other));
        // Of one network of 64 bits all are one.
        assert_eq!(told(a, host("2001:db8::1")), told(b, host("2001:db8::2")));
        // This machine is another one for each.
        let here = Place::Host(Source::HERE);
        assert_eq!(told(a, here), told(a, host("127.0.0.1")));
        assert_ne!(told(a, here), told(b, here));
        assert_ne!(told(a, Place::Relay(a)), told(a, Place::Relay(b)));
        assert_eq!(told(a, Place::Told([7; 16])), [7; 16]);
    }
}
