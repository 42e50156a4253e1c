//! What a command does by way of other peers: it stays registered at relays, opens what it was introduced to, and shows tickets.

use std::collections::BTreeMap;
use std::time::Duration;

use cepa::identity::{Identity, PeerId};
use cepa::mux::Substream;
use cepa::node::{Event, Node, NodeConfig, PeerAddr};
use cepa::onion::Onion;
use cepa::protocols::introduction::{Flaw, IntroducedError, Introduction};
use cepa::protocols::relay::{RegisterError, RelayConfig, RelayEvent, Relays};
use cepa::protocols::ticket::{self, Ticket, TicketError, TicketRefusal};
use cepa::session::{OpenError, Session};
use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::claims;
use crate::exit::{self, Code, Failure, say};
use crate::folder;
use crate::keep::Keep;
use crate::mesh_node::Mesh;
use crate::reach::{code, dial_failure, dial_with, dialling, enter, refused_for_our_id};

/// How long a command waits at its start for the first attempt to register at a relay, to fail at once where trying again
/// is of no use.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// Registers at relays, now and whenever that is lost. A relay that is away, full, or does not allow us yet is asked again, and
/// that is said once; what no other attempt would mend is an error.
pub(crate) async fn register(mesh: &Mesh, at: &[PeerAddr]) -> Result<(), Failure> {
    // Where another command was, callers come here from now on; the relay tells that one.
    claims::claim(mesh.node.id(), at);
    // One registration a relay, by all of its addresses.
    let mut of_one: BTreeMap<PeerId, Vec<PeerAddr>> = BTreeMap::new();
    for relay in at {
        of_one.entry(relay.peer()).or_default().push(relay.clone());
    }
    let mut attempts = JoinSet::new();
    for addresses in of_one.into_values() {
        let relays = mesh.relays.clone();
        attempts.spawn(async move { register_at(&relays, &addresses).await });
    }
    while let Some(attempt) = attempts.join_next().await {
        exit::joined(attempt)??;
    }
    Ok(())
}

/// The same, without an end but by failure.
pub(crate) async fn stay_registered(mesh: &Mesh, relays: &[PeerAddr]) -> Failure {
    match register(mesh, relays).await {
        Ok(()) => std::future::pending().await,
        Err(failure) => failure,
    }
}

/// The first attempt at one relay. One that takes longer than we wait goes on, and is an event when it fails.
async fn register_at(relays: &Relays, addresses: &[PeerAddr]) -> Result<(), Failure> {
    let attempts = addresses.iter().map(|address| relays.register(address));
    let first = timeout(FIRST_ATTEMPT, join_all(attempts)).await;
    // All of them wait for the same one.
    let first = first.ok().and_then(|mut all| all.pop());
    let (Some(Err(error)), Some(relay)) = (first, addresses.first()) else {
        return Ok(());
    };
    let failure = match &error {
        RegisterError::Dial(error) => dial_failure(error),
        error => Failure::of(Code::Other, error),
    };
    // Somebody else answers in the place of the relay: not for an operator to wait for.
    if error.is_retryable() && failure.code != Code::Identity {
        say(format_args!(
            "not registered at relay {}: {}; trying again",
            relay.peer(),
            error.reason()
        ));
        return Ok(());
    }
    Err(failure)
}

/// Room for the sessions of a relay, a registered node and a dialler each one, and for its circuits in them.
pub(crate) fn room_for_relay(config: &mut NodeConfig, relay: &RelayConfig) {
    let sessions = relay.registrations.saturating_add(relay.circuits);
    let of_sessions = &mut config.shares.sessions;
    // A quarter is for peers that are allowed by name.
    of_sessions.all = of_sessions.all.max(sessions.saturating_add(sessions / 3));
    // What the strangers of one host may have at the relay, they can have sessions for.
    let registrations = relay.registrations_a_host;
    let registrations = registrations.unwrap_or_else(|| relay.registrations.div_ceil(4));
    let circuits = relay.circuits_a_host;
    let circuits = circuits.unwrap_or_else(|| relay.circuits.div_ceil(2));
    of_sessions.host = of_sessions.host.max(registrations.saturating_add(circuits));
    let mux = &mut config.stack.mux;
    // Another member of the fleet brings those of all its diallers in one session.
    let inbound = match relay.fleet {
        Some(_) => relay.circuits,
        None => relay.circuits_a_peer,
    };
    mux.max_inbound_streams = mux.max_inbound_streams.max(inbound.saturating_add(8));
    mux.max_outbound_streams = mux
        .max_outbound_streams
        .max(relay.circuits.saturating_add(8));
}

/// What an introduction opens, the session below it, and the node that both belong to.
pub(crate) async fn open_introduced(
    it: &Introduction,
    identity: &Identity,
) -> Result<(Onion<Substream>, Session, Node), Failure> {
    let Mesh {
        node,
        introductions,
        ..
    } = Mesh::new(dialling(identity, false))?;
    let failure = match introductions.open(it).await {
        Ok(stream) => {
            let owner = it.address().map(PeerAddr::peer);
            match owner.and_then(|owner| node.session_with(owner)) {
                Some(session) => return Ok((stream, session, node)),
                None => Failure::new(Code::Lost, "the session is lost: connect again"),
            }
        }
        Err(error) => introduced(&error, identity),
    };
    node.shutdown(Duration::ZERO).await;
    Err(failure)
}

/// Why an introduction was of no use, with our id where the other side has to know it.
pub(crate) fn introduced(error: &IntroducedError, identity: &Identity) -> Failure {
    let (code, reported) = match error {
        IntroducedError::Flaw(Flaw::NotYours)
        | IntroducedError::Refused {
            flaw: Flaw::NotYours | Flaw::NotPermitted { .. },
            ..
        } => (Code::Refused, true),
        IntroducedError::Refused { .. } => (Code::Refused, false),
        IntroducedError::Flaw(_) | IntroducedError::LocalHints { .. } => (Code::Usage, false),
        IntroducedError::Dial(error) => {
            let reported = refused_for_our_id(error);
            (code(error), reported)
        }
        IntroducedError::Show { error, .. } | IntroducedError::Open(error) => {
            (Failure::from(error.clone()).code, false)
        }
        _ => (Code::Other, false),
    };
    let mut failure = Failure::of(code, error);
    if let IntroducedError::LocalHints { owner, .. } = error {
        failure = failure.with(format_args!("to add its address, run: {}", enter(*owner)));
    }
    if reported {
        failure.asking_to_allow(identity.peer_id())
    } else {
        failure
    }
}

/// A session with whoever has made a ticket, to whom it was shown, the node that it belongs to, and the services.
pub(crate) async fn show_ticket(
    ticket: &Ticket,
    identity: &Identity,
    keep: Keep,
) -> Result<(Session, Node, Vec<String>), Failure> {
    let refused = |why: TicketRefusal| {
        let code = match why {
            TicketRefusal::Own => Code::Usage,
            _ => Code::Refused,
        };
        Failure::of(code, &why).passing(false)
    };
    // What its maker may not be there any more to say.
    if identity.is(&ticket.peer()) {
        return Err(refused(TicketRefusal::Own));
    }
    if folder::now() >= ticket.expires() {
        return Err(refused(TicketRefusal::Expired));
    }
    let mut config = dialling(identity, false);
    // Another session would be another use.
    config.idle_timeout = None;
    let (session, node) = dial_with(config, ticket.address(), identity, keep)
        .await
        .map_err(|failure| match failure.code {
            Code::Connect => failure.with(
                "or its sharing has ended, and the ticket is of no use any more: ask for another one",
            ),
            _ => failure,
        })?;
    let failure = match ticket::show(&session, ticket).await {
        Ok(services) => return Ok((session, node, services)),
        Err(TicketError::Refused(why)) => refused(why),
        Err(error) => {
            let code = match &error {
                TicketError::Open(OpenError::Refused { .. }) => Code::Refused,
                TicketError::Protocol(_) => Code::Other,
                _ => Code::Lost,
            };
            Failure::of(code, &error).passing(error.is_transient())
        }
    };
    node.shutdown(Duration::ZERO).await;
    Err(failure)
}

/// The relay at which this node is registered now, where an event says that.
pub(crate) fn registered_at(event: &Event) -> Option<PeerId> {
    match event.protocol() {
        Some(RelayEvent::Registered { relay }) => Some(*relay),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cepa::identity::{AcceptAny, KeyKind};
    use cepa::node::Access;
    use cepa::protocols::relay::fleet::{Fleet, FleetConfig};

    use super::*;

    #[test]
    fn what_a_relay_has_for_strangers_of_one_host_it_has_sessions_for() {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let mut config = NodeConfig::new(identity, Arc::new(AcceptAny));
        let mut relay = RelayConfig::new(Access::Anyone);
        (relay.registrations, relay.circuits) = (1000, 16);
        room_for_relay(&mut config, &relay);
        let sessions = config.shares.sessions;
        assert!(sessions.host >= 258, "{sessions:?}");
        assert!(sessions.all - sessions.all / 4 >= 1016, "{sessions:?}");
        let before = config.stack.mux.max_inbound_streams;
        relay.circuits = 2000;
        room_for_relay(&mut config, &relay);
        assert_eq!(config.stack.mux.max_inbound_streams, before);
        let fleet = FleetConfig::new([]);
        let own = config.stack.identity.peer_id();
        relay.fleet = Some(Fleet::new(own, fleet));
        room_for_relay(&mut config, &relay);
        assert!(config.stack.mux.max_inbound_streams >= 2000);
    }
}
