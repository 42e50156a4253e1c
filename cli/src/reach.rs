//! Nodes for commands: a peer that is reached by its id, a server that is registered at relays, and what a
//! node tells on standard error.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{Identity, PeerId, Pinned, TrustPolicy};
use cepa::mux::Substream;
use cepa::node::{
    AttemptError, DialError, Exceeded, Hint, KnownPlaces, ListenError, Listening, Node, NodeConfig,
    PeerAddr, Resource, RouteErrorKind, Scope,
};
use cepa::onion::Onion;
use cepa::protocols::forward::Forwarder;
use cepa::protocols::introduction::{
    Flaw, IntroducedError, Introduction, Introductions, IntroductionsError,
};
use cepa::protocols::relay::{RegisterError, RelayConfig, Relays};
use cepa::protocols::sealed::Sealed;
use cepa::protocols::ticket::{self, Ticket, TicketError, TicketRefusal};
use cepa::session::{Backoff, OpenError, Session};
use cepa::tls::TlsError;
use cepa::transports::{Endpoint, Target, TransportErrorKind};

use futures::future::join_all;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::columns::count;
use crate::exit::{self, Code, Failure, say};
use crate::keep::Keep;
use crate::manager;
use crate::signal::Signals;
use crate::{folder, stack};

/// How long sessions may take to end in order once a command was asked to.
pub(crate) const GOODBYE: Duration = Duration::from_secs(3);

/// How long a command waits at its start for the first attempt to register at a relay, to fail at once where trying again
/// is of no use.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// The configuration of a node with this identity, that lets in whom `trust` allows.
pub(crate) fn config(identity: &Identity, trust: Arc<dyn TrustPolicy>) -> NodeConfig {
    let mut config = NodeConfig::new(identity.clone(), trust);
    config.stack = stack::of(identity, config.stack.trust);
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

/// A node with everything that peers do with each other.
#[derive(Clone)]
pub(crate) struct Mesh {
    pub(crate) node: Node,
    pub(crate) relays: Relays,
    pub(crate) introductions: Introductions,
    pub(crate) sealed: Sealed,
    pub(crate) forwarder: Forwarder,
}

impl Mesh {
    pub(crate) fn new(config: NodeConfig) -> Result<Self, Failure> {
        Self::with_state(config, None)
    }

    /// The same, with a file that says across restarts which introductions of others are used up or revoked.
    pub(crate) fn with_state(config: NodeConfig, state: Option<&Path>) -> Result<Self, Failure> {
        let node = Node::new(config);
        let introductions = match state {
            Some(file) => Introductions::on_with_state(&node, file),
            None => Introductions::on(&node),
        };
        Ok(Self {
            relays: Relays::on(&node).map_err(|e| Failure::new(Code::Other, e.to_string()))?,
            introductions: introductions.map_err(|e| {
                let code = match e {
                    IntroductionsError::StateFile(_) => Code::Local,
                    _ => Code::Other,
                };
                Failure::of(code, &e)
            })?,
            sealed: Sealed::on(&node).map_err(|e| Failure::new(Code::Other, e.to_string()))?,
            forwarder: Forwarder::new(&node),
            node,
        })
    }

    /// Registers at relays, now and whenever that is lost. A relay that is away, full, or does not allow us yet is asked again, and
    /// that is said once; what no other attempt would mend is an error.
    pub(crate) async fn register(&self, relays: &[PeerAddr]) -> Result<(), Failure> {
        // One registration a relay, by all of its addresses.
        let mut of_one: BTreeMap<PeerId, Vec<PeerAddr>> = BTreeMap::new();
        for relay in relays {
            of_one.entry(relay.peer()).or_default().push(relay.clone());
        }
        let mut attempts = JoinSet::new();
        for addresses in of_one.into_values() {
            let relays = self.relays.clone();
            attempts.spawn(async move { register(&relays, &addresses).await });
        }
        while let Some(attempt) = attempts.join_next().await {
            exit::joined(attempt)??;
        }
        Ok(())
    }

    /// The same, without an end but by failure.
    pub(crate) async fn stay_registered(&self, relays: &[PeerAddr]) -> Failure {
        match self.register(relays).await {
            Ok(()) => std::future::pending().await,
            Err(failure) => failure,
        }
    }
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

/// The first attempt at one relay. One that takes longer than we wait goes on, and is an event when it fails.
async fn register(relays: &Relays, addresses: &[PeerAddr]) -> Result<(), Failure> {
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

/// A session with the peer of an address, and the node that it belongs to. Nobody can dial that node.
pub(crate) async fn dial(
    address: &PeerAddr,
    identity: &Identity,
    local_hints: bool,
    keep: Keep,
) -> Result<(Session, Node), Failure> {
    dial_with(dialling(identity, local_hints), address, identity, keep).await
}

async fn dial_with(
    mut config: NodeConfig,
    address: &PeerAddr,
    identity: &Identity,
    keep: Keep,
) -> Result<(Session, Node), Failure> {
    config.stack.resume = keep.config();
    let Mesh { node, .. } = Mesh::new(config)?;
    let error = match node.session(address).await {
        Ok(session) => return Ok((session, node)),
        Err(error) => error,
    };
    // There may be a session with a relay.
    node.shutdown(Duration::ZERO).await;
    let failure = dial_failure(&error);
    Err(if refused_for_our_id(&error) {
        failure.asking_to_allow(identity.peer_id())
    } else {
        failure
    })
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
    use cepa::identity::{AcceptAny, KeyKind};
    use cepa::mux::{GoAwayCode, LimitKind};
    use cepa::node::{Access, Refused, RouteError};
    use cepa::session::ConnectError;
    use cepa::tls::TlsError;

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
    }

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
