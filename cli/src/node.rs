//! Nodes for commands: a peer that is reached by its id, a server that is registered at relays, and what a
//! node tells on standard error.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{Identity, Pinned, TrustPolicy};
use cepa::mux::Substream;
use cepa::node::{
    AttemptError, DialError, Event, Flaw, IntroducedError, Introduction, KnownPlaces, Node,
    NodeConfig, PeerAddr, RegisterError,
};
use cepa::onion::Onion;
use cepa::relay::{RelayConfig, RelayError, Status};
use cepa::session::{OpenError, Session};

use crate::exit::{self, Code, Failure, say};
use crate::log::{self, say_of};
use crate::{folder, stack};

/// The configuration of a node with this identity, that lets in whom `trust` says.
pub(crate) fn config(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> NodeConfig {
    let mut config = NodeConfig::new(identity.clone(), trust);
    config.stack = stack::of(identity, config.stack.trust);
    // Without a home folder there are no known peers.
    if let Ok(file) = folder::known_peers() {
        config.resolver = Some(Arc::new(KnownPlaces::new(file)));
    }
    config
}

/// Room for the sessions of a relay, a registered node and a dialler each one, and for its circuits in them.
pub(crate) fn room_for_relay(config: &mut NodeConfig, relay: &RelayConfig) {
    let sessions = relay.registrations.saturating_add(relay.circuits);
    config.sessions = sessions.max(config.sessions);
    let mux = &mut config.stack.mux;
    mux.max_inbound_streams = mux
        .max_inbound_streams
        .max(relay.circuits_a_peer.saturating_add(8));
    mux.max_outbound_streams = mux
        .max_outbound_streams
        .max(relay.circuits.saturating_add(8));
}

/// What an introduction opens, the session below it, and the node that both belong to.
pub(crate) async fn open_introduced(
    it: &Introduction,
    identity: &Identity,
) -> Result<(Onion<Substream>, Session, Node), Failure> {
    let node = Node::new(config(identity, Arc::new(Pinned::new([]))));
    let failure = match node.open_introduced(it).await {
        Ok(stream) => {
            // The session that the stream is in; its hints were followed as far as they are harmless.
            let owner = it.address().map(|address| PeerAddr::new(address.peer()));
            match owner.ok_or(Code::Usage) {
                Ok(owner) => match node.session(&owner).await {
                    Ok(session) => return Ok((stream, session, node)),
                    Err(error) => Failure::new(Code::Lost, error.to_string()),
                },
                Err(code) => Failure::new(code, "the introduction has no address"),
            }
        }
        Err(error) => introduced(&error, identity),
    };
    node.shutdown(Duration::ZERO).await;
    Err(failure)
}

/// Why an introduction was of no use, with our id where the other side has to know it.
pub(crate) fn introduced(error: &IntroducedError, identity: &Identity) -> Failure {
    let (code, told) = match error {
        IntroducedError::Flaw(Flaw::NotYours) | IntroducedError::Refused { .. } => {
            (Code::Refused, true)
        }
        IntroducedError::Flaw(_) => (Code::Usage, false),
        IntroducedError::Dial(error) => {
            let code = code(error);
            (code, code == Code::Refused)
        }
        IntroducedError::Show { error, .. } | IntroducedError::Open(error) => {
            (Failure::from(error.clone()).code, false)
        }
        _ => (Code::Other, false),
    };
    let failure = Failure::new(code, error.to_string());
    if told {
        failure.with(format_args!("our peer id is {}", identity.peer_id()))
    } else {
        failure
    }
}

/// A session with the peer of an address, and the node that it belongs to. Nobody can dial that node.
pub(crate) async fn dial(
    address: &PeerAddr,
    identity: &Identity,
) -> Result<(Session, Node), Failure> {
    let nobody = Arc::new(Pinned::new([]));
    let node = Node::new(config(identity, nobody));
    let error = match node.session(address).await {
        Ok(session) => return Ok((session, node)),
        Err(error) => error,
    };
    // There may be a session with a relay.
    node.shutdown(Duration::ZERO).await;
    let code = code(&error);
    let mut failure = Failure::new(code, error.to_string());
    if let DialError::NoHints { peer } | DialError::Unresolved { peer, .. } = &error {
        let add = format!("cepa peer add NAME {peer} --at tcp:HOST:PORT");
        failure.message = format!("{}, or enter it once: {add}", failure.message);
    }
    Err(if code == Code::Refused {
        failure.with(format_args!("our peer id is {}", identity.peer_id()))
    } else {
        failure
    })
}

/// Tells what happens at a node, until it is gone.
pub(crate) fn tell(node: &Node) {
    let mut events = node.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match &event {
                Event::Up(peer, _)
                | Event::Down(peer, ..)
                | Event::CertificateExpired(peer)
                | Event::Refused(peer, ..)
                | Event::Introduced(peer, ..)
                | Event::Revoked(peer, _)
                | Event::Asked(peer, ..)
                | Event::Wrapped(peer, ..) => {
                    say_of(peer, &event);
                }
                Event::TurnedAway(source, from, _) => say_of(log::source(*source, from), &event),
                _ => say(&event),
            }
        }
    });
}

/// Registers at relays.
pub(crate) async fn register(node: &Node, relays: &[PeerAddr]) -> Result<(), Failure> {
    for relay in relays {
        node.register(relay).await.map_err(|error| {
            let code = match &error {
                RegisterError::Dial(error) => code(error),
                RegisterError::Relay(error) => relay_code(error),
                _ => Code::Other,
            };
            Failure::new(code, error.to_string())
        })?;
    }
    Ok(())
}

/// Of several attempts the one that tells most: that somebody else answered, then that we were refused.
pub(crate) fn code(error: &DialError) -> Code {
    let attempts = match error {
        DialError::Failed { attempts, .. } => attempts,
        DialError::Own { .. } | DialError::Loop { .. } => {
            return Code::Usage;
        }
        DialError::NoHints { .. } | DialError::Unresolved { .. } => return Code::Connect,
        _ => return Code::Other,
    };
    let codes: Vec<Code> = attempts
        .iter()
        .map(|(_, error)| match error {
            AttemptError::Connect(error) => exit::connect_code(error),
            AttemptError::Relay(error) => relay_code(error),
            AttemptError::NoRelay { error, .. } => code(error),
            _ => Code::Connect,
        })
        .collect();
    [Code::Identity, Code::Refused]
        .into_iter()
        .find(|telling| codes.contains(telling))
        .or(codes.first().copied())
        .unwrap_or(Code::Connect)
}

fn relay_code(error: &RelayError) -> Code {
    match error {
        RelayError::NoRelay {
            source: OpenError::Session(_),
            ..
        }
        | RelayError::TimedOut { .. }
        | RelayError::Lost { .. } => Code::Lost,
        RelayError::Refused {
            status: Status::NotRegistered | Status::Unreachable,
            ..
        } => Code::Connect,
        RelayError::Refused { .. } | RelayError::NoRelay { .. } => Code::Refused,
        _ => Code::Other,
    }
}
