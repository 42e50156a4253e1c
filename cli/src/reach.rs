//! Nodes for commands: a peer that is reached by its id, a server that is registered at relays, and what a
//! node tells on standard error.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{Identity, PeerId, Pinned, TrustPolicy};
use cepa::node::{
    AttemptError, DialError, Exceeded, Hint, KnownPlaces, ListenError, Listening, Node, NodeConfig,
    PeerAddr, Resource, RouteErrorKind, Scope,
};
use cepa::session::{Backoff, Session};
use cepa::tls::TlsError;
use cepa::transports::{Endpoint, Target, TransportErrorKind};
use tokio::task::JoinHandle;

use crate::called;
use crate::columns::count;
use crate::direct::{self, DirectChoice};
use crate::exit::{self, Code, Failure, say};
use crate::keep::Keep;
use crate::manager;
use crate::mesh_node::Mesh;
use crate::signal::Signals;
use crate::{dial_failure, folder, stack};

/// How long sessions may take to end in order once a command was asked to.
pub(crate) const GOODBYE: Duration = Duration::from_secs(3);

/// The configuration of a node with this identity, that lets in whom `trust` allows.
pub(crate) fn config(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> NodeConfig {
    let mut config = NodeConfig::new(identity.clone(), trust);
    config.stack = stack::of(identity, config.stack.trust);
    config.stack.shared_port = direct::choice(None) != DirectChoice::No;
    // Without a home folder there are no known peers.
    if let Ok(file) = folder::known_peers() {
        config.resolver = Some(Arc::new(KnownPlaces::new(file)));
    }
    config
}

/// Substreams that a session may have, however few descriptors there are.
const FEW: usize = 16;

/// What one peer may have, where that was said: sessions, and commands that run for it.
pub(crate) fn shares_of_a_peer(
    config: &mut NodeConfig,
    sessions: Option<u32>,
    commands: Option<u32>,
) {
    let shares = &mut config.shares;
    for (limits, most) in [
        (&mut shares.sessions, sessions),
        (&mut shares.children, commands),
    ] {
        if let Some(most) = most {
            let most = most as usize;
            limits.peer = most;
            limits.host = limits.host.max(most);
            // Of what strangers may have, one reaches its limit up to a half.
            limits.all = limits.all.max(most * 3);
        }
    }
}

/// Raises the limit of sessions; behind a line of the log.
pub(crate) const SESSIONS_OPTION: &str = " (--sessions-a-peer N)";

/// The option that raises a limit, for who can: behind a line of the log.
pub(crate) fn raised_by(limit: &Exceeded) -> &'static str {
    match (limit.scope, limit.resource) {
        (Scope::Peer, Resource::Sessions) => SESSIONS_OPTION,
        (Scope::Peer, Resource::Children) => " (--commands-a-peer N)",
        _ => "",
    }
}

/// Room in the sessions of a node with services for as many substreams as a peer has descriptors for, or for
/// `most`: beyond that they wait.
pub(crate) fn room_for_services(config: &mut NodeConfig, most: Option<usize>) {
    let shares = &config.shares;
    // What even a stranger may have: as much as is free, where a quarter is not for strangers.
    let served = (shares.descriptors.all / 4 * 3 / 2).min(shares.descriptors.peer);
    // Each of its sessions takes one as well.
    let served = served.saturating_sub(shares.sessions.peer).max(FEW);
    // What the peer opens in its other sessions finds room as well.
    let served = served.min(shares.substreams.peer / 16 * 15);
    config.stack.mux.max_inbound_streams = most.map_or(served, |most| served.min(most));
}

/// The configuration of a node that only dials: nobody can dial it.
pub(crate) fn dialling(identity: &Identity, local_hints: bool) -> NodeConfig {
    let mut config = config(identity, Arc::new(Pinned::new([])));
    config.local_hints = local_hints;
    // Most of what is dialled is over before another path is found.
    config.stack.shared_port = false;
    config
}

/// A listener, or what waits until it can be one.
pub(crate) enum Bound {
    Listening(Box<Listening>),
    /// Comes when the device does.
    Absent(JoinHandle<Listening>),
}

/// Listens at an address. A serial adapter that is not there is waited for, unless there is nothing else to be reached by: it must
/// not take down the listeners beside it.
pub(crate) async fn bind(node: &Node, at: &Endpoint, alone: bool) -> Result<Bound, Failure> {
    let error = match node.bind(at).await {
        Ok(listening) => return Ok(Bound::Listening(Box::new(listening))),
        Err(error) => error,
    };
    match &error {
        ListenError::Transport(e)
            if !alone
                && matches!(at.target(), Target::Serial { .. })
                && e.kind() == TransportErrorKind::NotFound => {}
        _ => return Err(error.into()),
    }
    say(format_args!("{error}; waiting for it"));
    let (node, at) = (node.clone(), at.clone());
    let coming = async move {
        let mut backoff = Backoff::for_endpoint(&at);
        let mut reported = error.to_string();
        loop {
            tokio::time::sleep(backoff.pause()).await;
            match node.bind(&at).await {
                Ok(listening) => return listening,
                Err(ListenError::ShutDown) => std::future::pending().await,
                // Another reason is told, once.
                Err(e) if e.to_string() != reported => {
                    reported = e.to_string();
                    say(&reported);
                }
                Err(_) => {}
            }
        }
    };
    Ok(Bound::Absent(tokio::spawn(coming)))
}

/// What is wrong with the addresses of relays whatever happens, before anything is begun.
pub(crate) fn check_relays(
    own: PeerId,
    relays: &[PeerAddr],
    local_hints: bool,
) -> Result<(), Failure> {
    for relay in relays {
        let peer = relay.peer();
        if peer == own {
            return Err(dial_failure(&DialError::Own { peer }));
        }
        let mut hints = relay.hints().iter();
        let first = hints.clone().next().cloned();
        if let (false, Some(hint)) = (local_hints || hints.any(Hint::is_network), first) {
            return Err(dial_failure(&DialError::LocalHint {
                peer,
                hint: Box::new(hint),
            }));
        }
    }
    Ok(())
}

/// A session with the peer of an address, and the node that it belongs to. Nobody can dial that node.
pub(crate) async fn dial(
    address: &PeerAddr,
    identity: &Identity,
    local_hints: bool,
    keep: Keep,
) -> Result<(Session, Node), Failure> {
    dial_with(dialling(identity, local_hints), address, identity, keep).await
}

pub(crate) async fn dial_with(
    mut config: NodeConfig,
    address: &PeerAddr,
    identity: &Identity,
    keep: Keep,
) -> Result<(Session, Node), Failure> {
    config.stack.resume = keep.config();
    // What is open in a session that ends with its connection stays where it is.
    config.stack.shared_port = keep.config().is_some() && direct::choice(None) != DirectChoice::No;
    let Mesh { node, .. } = Mesh::new(config)?;
    let error = match node.session(address).await {
        Ok(session) => return Ok((session, node)),
        Err(error) => error,
    };
    // There may be a session with a relay.
    node.shutdown(Duration::ZERO).await;
    if let Some(failure) = somebody_else(&error, identity.peer_id()) {
        return Err(failure);
    }
    let failure = dial_failure(&error);
    Err(if refused_for_our_id(&error) {
        failure.asking_to_allow(identity.peer_id())
    } else {
        failure
    })
}

/// The command that enters where a peer is, by the name that it has if it is known.
pub(crate) fn enter(peer: PeerId) -> String {
    let known = folder::known_as(peer);
    let name = known.first().map_or("NAME", |peer| peer.name());
    format!("cepa peer add {name} {peer} --at tcp:HOST:PORT")
}

/// How long a node may take to end before it is told what it waits for.
const QUIET: Duration = Duration::from_millis(500);

/// How long an end without any patience may take.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Ends a node that was asked to end. Sessions have a moment to finish; who asks once more need not wait for that. A node whose
/// lines are read at the other end of its only session (`alone`) says nothing of it.
pub(crate) async fn leave(node: &Node, signals: &mut Signals, alone: bool) {
    manager::stopping();
    let mut ending = pin!(node.shutdown(GOODBYE));
    tokio::select! {
        () = &mut ending => return,
        () = tokio::time::sleep(QUIET) => {}
    }
    let open = node.sessions().len() as u64;
    if open > 0 && !alone {
        // Only there somebody has a key to press.
        let hint = if io::stderr().is_terminal() {
            "; press ^C again to end at once"
        } else {
            ""
        };
        let (open, most) = (count(open, "session"), GOODBYE.as_secs());
        say(format_args!(
            "waiting {most} s for what is open in {open}{hint}"
        ));
    }
    tokio::select! {
        () = ending => {}
        () = signals.asked_to_end() => {
            let _ = tokio::time::timeout(AT_ONCE, node.shutdown(Duration::ZERO)).await;
        }
    }
}

/// An error of dialling in the tool's words: with the option that helps, where there is one.
pub(crate) fn dial_failure(error: &DialError) -> Failure {
    let mut failure = Failure::of(code(error), error).passing(error.is_transient());
    if let DialError::Failed { peer, attempts } = error
        && let Some(called) = called::called(peer)
    {
        failure.message = format!("cannot reach {called}: {attempts}");
    }
    if let DialError::NoHints { peer } | DialError::Unresolved { peer, .. } = error {
        failure.message = match (error, folder::known_as(*peer).first()) {
            (DialError::NoHints { .. }, Some(known)) => {
                format!(
                    "{} is known, but no address is: add it once: {}",
                    known.name(),
                    enter(*peer)
                )
            }
            _ => format!(
                "{}, or add its address once: {}",
                failure.message,
                enter(*peer)
            ),
        };
    }
    if needs_local_hints(error) {
        failure.with("--local-hints allows such addresses")
    } else {
        failure
    }
}

/// Where somebody answered in place of the peer whom we know, too.
fn somebody_else(error: &DialError, own: PeerId) -> Option<Failure> {
    let DialError::Failed { attempts, .. } = error else {
        return None;
    };
    attempts.iter().find_map(|(hint, error)| {
        let (Hint::Direct(at), AttemptError::Connect(error)) = (hint, error) else {
            return None;
        };
        let Some(TlsError::Refused(refusal)) = exit::tls(error) else {
            return None;
        };
        dial_failure::somebody_else(refusal, at, Some(own))
    })
}

/// Whether somebody on the way would have to allow our id.
pub(crate) fn refused_for_our_id(error: &DialError) -> bool {
    let DialError::Failed { attempts, .. } = error else {
        return false;
    };
    attempts.iter().any(|(_, error)| match error {
        AttemptError::Connect(error) => exit::tls(error).is_some_and(TlsError::is_identity_refused),
        AttemptError::Relay(error) => error.kind() == RouteErrorKind::Refused,
        AttemptError::NoRelay { error, .. } => refused_for_our_id(error),
        _ => false,
    })
}

fn needs_local_hints(error: &DialError) -> bool {
    match error {
        DialError::LocalHint { .. } => true,
        DialError::Failed { attempts, .. } => attempts.iter().any(|(_, error)| match error {
            AttemptError::NotFollowed => true,
            AttemptError::NoRelay { error, .. } => needs_local_hints(error),
            _ => false,
        }),
        _ => false,
    }
}

/// Of several attempts the one that tells most: that somebody else answered, then that we were refused.
pub(crate) fn code(error: &DialError) -> Code {
    let attempts = match error {
        DialError::Failed { attempts, .. } => attempts,
        DialError::Own { .. } | DialError::Loop { .. } | DialError::LocalHint { .. } => {
            return Code::Usage;
        }
        DialError::NoHints { .. } | DialError::Unresolved { .. } => return Code::Connect,
        _ => return Code::Other,
    };
    let codes: Vec<Code> = attempts
        .iter()
        .map(|(_, error)| match error {
            AttemptError::Connect(error) => exit::connect_code(error),
            AttemptError::Relay(error) => match error.kind() {
                RouteErrorKind::Refused | RouteErrorKind::Full | RouteErrorKind::DialInstead => {
                    Code::Refused
                }
                RouteErrorKind::Unreachable => Code::Connect,
                RouteErrorKind::Lost | RouteErrorKind::TimedOut => Code::Lost,
                _ => Code::Other,
            },
            AttemptError::NoRelay { error, .. } => code(error),
            _ => Code::Connect,
        })
        .collect();
    [Code::Identity, Code::Refused]
        .into_iter()
        .find(|decisive| codes.contains(decisive))
        .or(codes.first().copied())
        .unwrap_or(Code::Connect)
}

#[cfg(test)]
mod tests {
    use crate::events::next_event;
    use cepa::identity::KeyKind;
    use cepa::mux::{GoAwayCode, LimitKind};
    use cepa::node::{Refused, RouteError};
    use cepa::session::ConnectError;
    use cepa::tls::TlsError;

    use super::*;

    #[tokio::test]
    async fn events_that_were_missed_are_counted_and_reported_once() {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let node = Node::new(dialling(&identity, false));
        let mut events = node.events();
        for _ in 0..1029 {
            node.emit_refused(node.id(), "x", Refused::NotOpen);
        }
        let mut missed = 0;
        let (lost, _) = next_event(&mut events, &mut missed).await.unwrap();
        assert!(lost.unwrap().starts_with("5 events were not logged"));
        let (lost, _) = next_event(&mut events, &mut missed).await.unwrap();
        assert_eq!(lost, None);
    }

    /// The exit code, and whether `--reconnect` tries again.
    #[test]
    fn every_error_of_a_dial_has_its_exit_code() {
        let peer = PeerId::from_bytes([1; 32]);
        let hint = || Hint::Direct("tcp:h:1".parse().unwrap());
        let failed = |error| DialError::Failed {
            peer,
            attempts: vec![(hint(), error)].into(),
        };
        let routed = |kind| {
            failed(AttemptError::Relay(RouteError::new(
                kind,
                std::io::Error::other("x"),
            )))
        };
        let connect = |error| failed(AttemptError::Connect(error));
        let full = GoAwayCode::Limit(LimitKind::PeerSessions);
        let refused = TlsError::RefusedByPeer { alert: 49 };
        let behind = |error: DialError| {
            failed(AttemptError::NoRelay {
                relay: peer,
                error: error.into(),
            })
        };
        for (error, code, again) in [
            (DialError::Own { peer }, Code::Usage, false),
            (DialError::Loop { peer, relay: peer }, Code::Usage, false),
            (
                DialError::LocalHint {
                    peer,
                    hint: Box::new(hint()),
                },
                Code::Usage,
                false,
            ),
            (DialError::NoHints { peer }, Code::Connect, true),
            (DialError::ShutDown, Code::Other, false),
            (connect(ConnectError::Tls(refused)), Code::Refused, false),
            (
                connect(ConnectError::GoneAway { code: full }),
                Code::Refused,
                true,
            ),
            (routed(RouteErrorKind::Refused), Code::Refused, false),
            (routed(RouteErrorKind::DialInstead), Code::Refused, false),
            (routed(RouteErrorKind::Full), Code::Refused, true),
            (routed(RouteErrorKind::Unreachable), Code::Connect, true),
            (routed(RouteErrorKind::Lost), Code::Lost, true),
            (routed(RouteErrorKind::TimedOut), Code::Lost, true),
            (routed(RouteErrorKind::Protocol), Code::Other, false),
            (
                failed(AttemptError::NoRoute { relay: peer }),
                Code::Connect,
                false,
            ),
            (failed(AttemptError::NotFollowed), Code::Connect, false),
            (behind(routed(RouteErrorKind::Full)), Code::Refused, true),
            (behind(DialError::NoHints { peer }), Code::Connect, true),
        ] {
            let failure = dial_failure(&error);
            assert_eq!(
                (failure.code, failure.is_transient()),
                (code, again),
                "{error:?}"
            );
        }
    }
}
