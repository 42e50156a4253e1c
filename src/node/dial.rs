//! Reaching a peer: the hints of its address are raced, relays last, and what was reached through a relay is
//! reached directly as soon as that works.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::Stream;
use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Side;
use crate::identity::{PeerId, Pinned};
use crate::observe;
use crate::session::{Backoff, ServiceStream, Session, paths};
use crate::stack::{DEFAULT_LAYERS, Lasting, NotReached, Redial, StackConfig};

use super::addr::{Hint, MAX_HINTS, PeerAddr};
use super::admit;
use super::beside::first_of;
use super::core::{Core, lock};
use super::dials::{Dial, Hints, Want};
use super::error::{AttemptError, DialError, Mend, OnSession, OnSessionError, ReachError};
use super::follow::{may_follow, usable};
use super::live::Path;
use super::moves;
use super::pace::Pace;
use super::sessions::{Came, ShutDown, register};
use super::shares::{Holder, SESSION, Share};

/// How often a service is tried to open on sessions that end meanwhile.
const ATTEMPTS: usize = 8;

/// Longest time between two looks for a direct way.
const LOOK_MAX: Duration = Duration::from_secs(300);

/// The session there is with the peer, or a new one.
pub(super) async fn session(core: &Arc<Core>, address: &PeerAddr) -> Result<Session, DialError> {
    session_for(core, address, None).await
}

/// The same; a session that is made, and those with relays on the way, are counted to the one that wants them.
pub(super) async fn session_for(
    core: &Arc<Core>,
    address: &PeerAddr,
    payer: Option<Holder>,
) -> Result<Session, DialError> {
    let peer = address.peer();
    if core.is_own(&peer) {
        return Err(DialError::Own { peer });
    }
    let mut hints = usable(core, peer, address.hints().to_vec())?;
    let why = Why {
        needed_by: None,
        payer,
    };
    let session = with_hints(core, peer, hints.clone(), why.clone(), Want::Any).await?;
    hints.retain(|hint| !hint.is_relay());
    upgrade_later(core, peer, hints, why);
    Ok(session)
}

/// Opens the service of an address.
pub(super) async fn open(
    core: &Arc<Core>,
    address: &PeerAddr,
) -> Result<ServiceStream, ReachError> {
    let service = address.service().to_owned();
    let opened = on_session(core, To::Address(address, None), |session| {
        let (session, service) = (session.clone(), service.clone());
        Box::pin(async move { session.open(&service).await })
    });
    match opened.await {
        Ok((_, stream)) => Ok(stream),
        Err(OnSessionError::Dial(error)) => Err(error.into()),
        Err(OnSessionError::Open(error)) => {
            let address = address.clone();
            Err(ReachError::Open { address, error })
        }
    }
}

/// With whom a session is to be.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// The peer of an address; and who wants it, if not this node itself.
    Address(&'a PeerAddr, Option<&'a Holder>),
    /// A relay, for the dial of another peer.
    Relay {
        relay: PeerId,
        at: &'a [Hint],
        why: &'a Why,
    },
}

impl To<'_> {
    async fn session(self, core: &Arc<Core>, want: Want) -> Result<Session, DialError> {
        match (self, want) {
            (Self::Address(address, payer), Want::Any) => {
                session_for(core, address, payer.cloned()).await
            }
            (Self::Address(address, payer), Want::Dialled) => {
                own_session_for(core, address, payer.cloned()).await
            }
            (Self::Relay { relay, at, why }, want) => {
                with_hints(core, relay, at.to_vec(), why.clone(), want).await
            }
        }
    }
}

/// Opens something on the session there is, or on a new one: the one place where a session that has turned out to be over is
/// forgotten, and another one tried; or one that this node has dialled, where the peer wants that.
pub(super) async fn on_session<T, E: OnSession>(
    core: &Arc<Core>,
    to: To<'_>,
    open: impl Fn(&Session) -> BoxFuture<'static, Result<T, E>>,
) -> Result<(Session, T), OnSessionError<E>> {
    let mut want = Want::Any;
    let mut attempts = 0;
    // Why a dialled one is wanted: it tells more than that there is no way to dial it.
    let mut wanted = None;
    loop {
        let session = match (to.session(core, want).await, wanted) {
            (Ok(session), _) => session,
            (Err(DialError::NoHints { .. }), Some(error)) => {
                return Err(OnSessionError::Open(error));
            }
            (Err(error), _) => return Err(OnSessionError::Dial(error)),
        };
        attempts += 1;
        let error = match open(&session).await {
            Ok(opened) => return Ok((session, opened)),
            Err(error) => error,
        };
        wanted = None;
        match error.mended_by() {
            // It ended just now, or was being retired.
            Mend::NewSession if attempts < ATTEMPTS => core.forget(&session),
            Mend::DialInstead if want == Want::Any => {
                want = Want::Dialled;
                wanted = Some(error);
            }
            _ => return Err(OnSessionError::Open(error)),
        }
    }
}

/// A session that this end dialled.
pub(super) async fn own_session(
    core: &Arc<Core>,
    address: &PeerAddr,
) -> Result<Session, DialError> {
    own_session_for(core, address, None).await
}

async fn own_session_for(
    core: &Arc<Core>,
    address: &PeerAddr,
    payer: Option<Holder>,
) -> Result<Session, DialError> {
    let peer = address.peer();
    if core.is_own(&peer) {
        return Err(DialError::Own { peer });
    }
    let hints = usable(core, peer, address.hints().to_vec())?;
    let why = Why {
        needed_by: None,
        payer,
    };
    with_hints(core, peer, hints, why, Want::Dialled).await
}

/// Why a peer is dialled.
#[derive(Clone, Default)]
pub(super) struct Why {
    /// The dial of another peer that needs this one.
    needed_by: Option<PeerId>,
    /// Who wants it, if not this node itself.
    payer: Option<Holder>,
}

impl Why {
    /// One session more for whoever pays.
    fn pay(&self, core: &Core, peer: PeerId) -> Result<Option<Share>, DialError> {
        let paid = self
            .payer
            .clone()
            .map(|payer| core.shares.take(payer, &SESSION));
        paid.transpose()
            .map_err(|limit| DialError::Share { peer, limit })
    }
}

/// As [`session`]; boxed, since the way to a relay may lead through another.
fn with_hints(
    core: &Arc<Core>,
    peer: PeerId,
    hints: Vec<Hint>,
    why: Why,
    want: Want,
) -> BoxFuture<'_, Result<Session, DialError>> {
    Box::pin(async move {
        if let Some(session) = there(core, peer, want) {
            return Ok(session);
        }
        if core.is_stopping() {
            return Err(DialError::ShutDown);
        }
        if Handle::try_current().is_err() {
            return Err(DialError::NoRuntime);
        }
        // Whoever begins a dial pays for it; what who joins one has paid is given back.
        let mut paid = why.pay(core, peer)?;
        let place = core.dials.board(
            peer,
            why.needed_by,
            |dial| dial.serves(want) && dial.hints().join(&hints),
            || {
                start(
                    core,
                    peer,
                    Hints::new(&hints),
                    want,
                    why.clone(),
                    paid.take(),
                )
            },
        );
        match place.dial() {
            Some(dial) => dial.arrive(peer, || there(core, peer, want)).await,
            None => fly(core, peer, &Hints::new(&hints), want, &why, paid).await,
        }
    })
}

/// The session that there is with a peer, if it will do.
fn there(core: &Core, peer: PeerId, want: Want) -> Option<Session> {
    let table = core.table();
    let found = match want {
        Want::Any => table.chosen(peer),
        Want::Dialled => table.dialled(peer),
    };
    found.map(|(_, _, live)| live.session.clone())
}

/// Begins a dial in a task of its own.
fn start(
    core: &Arc<Core>,
    peer: PeerId,
    hints: Hints,
    want: Want,
    why: Why,
    paid: Option<Share>,
) -> Dial {
    let (sender, outcome) = watch::channel(None);
    let hints = Arc::new(hints);
    let (own, ours) = (Arc::clone(core), Arc::clone(&hints));
    let task = core.tasks.spawn(async move {
        let outcome = fly(&own, peer, &ours, want, &why, paid).await;
        sender.send_replace(Some(outcome));
    });
    Dial::new(want, hints, outcome, task.abort_handle())
}

/// Dials a peer, unless there is a session by now, and takes in what comes of it.
async fn fly(
    core: &Arc<Core>,
    peer: PeerId,
    hints: &Hints,
    want: Want,
    why: &Why,
    paid: Option<Share>,
) -> Result<Session, DialError> {
    if let Some(session) = there(core, peer, want) {
        return Ok(session);
    }
    let found = observe::reaching(&peer).instrument(race(core, peer, hints, why));
    let (session, path) = found.await?;
    let taken = register(core, session.clone(), path, Came::Dialled(paid)).await;
    taken.map_err(|ShutDown| DialError::ShutDown)?;
    if let Some(lasting) = session.lasting() {
        lasting.set_redial_of_node(again(core, peer, hints.all(), why));
    }
    upgrade_later(core, peer, hints.direct(), why.clone());
    Ok(session)
}

/// How a session that outlives its connections is reached again.
fn again(core: &Arc<Core>, peer: PeerId, hints: Vec<Hint>, why: &Why) -> Redial {
    let (own, why) = (Arc::clone(core), why.clone());
    // One that is not followed would count as one that gave no answer.
    let hints: Vec<Hint> = hints
        .into_iter()
        .filter(|it| may_follow(core, it))
        .collect();
    let direct: Vec<Hint> = hints.iter().filter(|it| !it.is_relay()).cloned().collect();
    let attempt: moves::Attempt = Arc::new(move |lasting, hint| {
        let (core, why, direct) = (Arc::clone(&own), why.clone(), direct.clone());
        Box::pin(async move {
            match take_up(&core, peer, &hint, &why, &lasting, true).await {
                Ok(()) => {
                    if hint.is_relay() {
                        look_later(&core, peer, direct, why);
                    }
                    Ok(())
                }
                Err(AttemptError::Connect(error)) => Err(error.into()),
                Err(_) => Err(NotReached::NotNow),
            }
        })
    });
    moves::redial(hints, &core.config, attempt)
}

/// A session goes on over a hint; with `only_if_lost`, where it has no connection.
async fn take_up(
    core: &Arc<Core>,
    peer: PeerId,
    hint: &Hint,
    why: &Why,
    lasting: &Arc<Lasting>,
    only_if_lost: bool,
) -> Result<(), AttemptError> {
    if !may_follow(core, hint) {
        return Err(AttemptError::NotFollowed);
    }
    let config = pinned(core, peer);
    let taken = match hint {
        Hint::Direct(endpoint) => paths::reach(lasting, endpoint, config, only_if_lost).await,
        Hint::Relay { relay, at } => {
            let (_, stream) = by_relay(core, peer, *relay, at, why).await?;
            paths::reach_on(lasting, stream, DEFAULT_LAYERS, &config, only_if_lost).await
        }
    };
    taken.map_err(AttemptError::Connect)
}

/// Hints for an address that has none; at least one, relays last.
async fn resolve(core: &Core, peer: PeerId) -> Result<Vec<Hint>, DialError> {
    let Some(resolver) = &core.config.resolver else {
        return Err(DialError::NoHints { peer });
    };
    let found = tokio::select! {
        found = resolver.resolve(peer) => found,
        () = core.stopping() => return Err(DialError::ShutDown),
    };
    let mut hints = found.map_err(|error| DialError::Unresolved {
        peer,
        error: error.into(),
    })?;
    hints.truncate(MAX_HINTS);
    let hints = usable(core, peer, hints)?;
    if hints.is_empty() {
        return Err(DialError::NoHints { peer });
    }
    Ok(hints)
}

/// Tries the hints in their order, each a little later than the one before, until one has led to the peer.
/// The next one is tried at once when one fails, but for relays (`pace.rs`); those that are on their way are given up then. More may come meanwhile, of
/// others who dial the peer, or of the resolver.
async fn race(
    core: &Arc<Core>,
    peer: PeerId,
    hints: &Hints,
    why: &Why,
) -> Result<(Session, Path), DialError> {
    let mut running = FuturesUnordered::new();
    let mut resolving = None;
    let (mut attempts, mut unresolved) = (Vec::new(), None);
    let mut pace = Pace::new(core.config.stagger, core.config.head_start);
    loop {
        if hints.take_question() {
            resolving = Some(Box::pin(resolve(core, peer)));
        }
        let next_at = hints.look(|next| pace.due(next));
        let more = next_at.is_some();
        if !more && running.is_empty() && resolving.is_none() {
            if !hints.close() {
                continue;
            }
            return Err(match unresolved {
                Some(error) if attempts.is_empty() => error,
                _ => DialError::Failed {
                    peer,
                    attempts: attempts.into(),
                },
            });
        }
        tokio::select! {
            Some((hint, result)) = running.next(), if !running.is_empty() => match result {
                Ok(reached) => return Ok(reached),
                Err(error) => {
                    pace.failed(&hint);
                    attempts.push((hint, error));
                }
            },
            Some(found) = OptionFuture::from(resolving.as_mut()), if resolving.is_some() => {
                resolving = None;
                match found {
                    Ok(found) => hints.resolved(&found),
                    Err(error) => unresolved = Some(error),
                }
            }
            () = sleep_until(next_at.unwrap_or_else(Instant::now)), if more => {
                if let Some(hint) = hints.next() {
                    pace.begins(&hint);
                    running.push(async move {
                        let result = attempt(core, peer, &hint, why).await;
                        (hint, result)
                    });
                }
            }
            () = hints.more() => {}
            () = core.stopping() => return Err(DialError::ShutDown),
        }
    }
}

async fn attempt(
    core: &Arc<Core>,
    peer: PeerId,
    hint: &Hint,
    why: &Why,
) -> Result<(Session, Path), AttemptError> {
    if !may_follow(core, hint) {
        return Err(AttemptError::NotFollowed);
    }
    match hint {
        Hint::Direct(endpoint) => {
            let dialled = Session::dial_with(endpoint, pinned(core, peer)).await;
            let session = dialled.map_err(AttemptError::Connect)?;
            let path = Path {
                via: Vec::new(),
                dialled: true,
                label: session.label().to_owned(),
            };
            Ok((session, path))
        }
        Hint::Relay { relay, at } => {
            let (relay, stream) = by_relay(core, peer, *relay, at, why).await?;
            let label = stream.label().to_owned();
            let config = pinned(core, peer);
            let session = Session::handshake(stream, DEFAULT_LAYERS, Side::Client, &config)
                .await
                .map_err(AttemptError::Connect)?;
            let before = core.chosen(relay).map(|(_, _, live)| live.current().via);
            let via = std::iter::once(relay)
                .chain(before.unwrap_or_default())
                .collect();
            let path = Path {
                via,
                dialled: true,
                label,
            };
            Ok((session, path))
        }
    }
}

/// A circuit to the peer, through a relay or what leads where it leads; and through which of them.
async fn by_relay(
    core: &Arc<Core>,
    peer: PeerId,
    relay: PeerId,
    at: &Hint,
    why: &Why,
) -> Result<(PeerId, Stream), AttemptError> {
    let beside = core.route().map(|route| route.beside(relay, peer));
    let mut beside = beside.unwrap_or_default();
    beside.retain(|other| *other != peer && *other != relay && !core.is_own(other));
    first_of((relay, vec![at.clone()]), beside, |relay, at| async move {
        circuit(core, peer, relay, &at, why).await
    })
    .await
}

/// A circuit to the peer, over a session with a relay.
async fn circuit(
    core: &Arc<Core>,
    peer: PeerId,
    relay: PeerId,
    at: &[Hint],
    why: &Why,
) -> Result<Stream, AttemptError> {
    let route = core.route().ok_or(AttemptError::NoRoute { relay })?;
    let why = Why {
        needed_by: Some(peer),
        payer: why.payer.clone(),
    };
    let to = To::Relay {
        relay,
        at,
        why: &why,
    };
    let connected = on_session(core, to, |session| {
        let (route, session) = (Arc::clone(&route), session.clone());
        Box::pin(async move { route.connect(&session, peer).await })
    });
    let connected = connected.await.map_err(|error| match error {
        OnSessionError::Dial(error) => AttemptError::NoRelay {
            relay,
            error: error.into(),
        },
        OnSessionError::Open(error) => AttemptError::Relay(error),
    });
    connected.map(|(_, stream)| stream)
}

/// Whoever answers has to be the peer that the address names.
pub(super) fn pinned(core: &Core, peer: PeerId) -> StackConfig {
    let mut config = core.config.stack.clone();
    config.trust = Arc::new(Pinned::one(peer));
    // There may be several behind one address.
    config.ask_for = Some(peer);
    config.admission = Some(admit::outbound(&core.shares));
    config
}

/// Looks for a direct way now and then, while the chosen session leads through a relay.
fn upgrade_later(core: &Arc<Core>, peer: PeerId, hints: Vec<Hint>, why: Why) {
    if is_relayed(core, peer) {
        look_later(core, peer, hints, why);
    }
}

fn look_later(core: &Arc<Core>, peer: PeerId, hints: Vec<Hint>, why: Why) {
    if hints.is_empty() || !lock(&core.upgrading).insert(peer) {
        return;
    }
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        let mut backoff = Backoff::new(core.config.upgrade_after, LOOK_MAX);
        loop {
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = core.stopping() => break,
            }
            if !is_relayed(&core, peer) {
                break;
            }
            if let Some((_, _, live)) = core.chosen(peer)
                && let Some(lasting) = live.session.lasting()
            {
                // It goes on over the direct way, with all that is open in it.
                if migrate(&core, peer, &hints, &why, lasting).await {
                    break;
                }
                continue;
            }
            let Ok(paid) = why.pay(&core, peer) else {
                continue;
            };
            if let Ok((session, path)) = race(&core, peer, &Hints::new(&hints), &why).await {
                let _ = register(&core, session, path, Came::Dialled(paid)).await;
                break;
            }
        }
        lock(&core.upgrading).remove(&peer);
    });
}

/// A session goes on over one of the hints; whether it does.
async fn migrate(
    core: &Arc<Core>,
    peer: PeerId,
    hints: &[Hint],
    why: &Why,
    lasting: &Arc<Lasting>,
) -> bool {
    let _turn = lasting.turn.lock().await;
    for hint in hints {
        let taken = take_up(core, peer, hint, why, lasting, false);
        tokio::select! {
            taken = taken => if taken.is_ok() {
                return true;
            },
            () = core.stopping() => return false,
        }
    }
    false
}

fn is_relayed(core: &Core, peer: PeerId) -> bool {
    let chosen = core.chosen(peer);
    chosen.is_some_and(|(_, origin, _)| !origin.direct)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::identity::{AcceptAny, Identity, KeyKind};
    use crate::node::NodeConfig;
    use crate::node::listeners::bind;
    use crate::node::sessions::{Accepted, accept};

    fn core() -> Arc<Core> {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        Arc::new(Core::new(NodeConfig::new(identity, Arc::new(AcceptAny))))
    }

    /// A dial begins, a session comes in before it has dialled anything, and that is its outcome.
    #[tokio::test]
    async fn who_needs_a_dialled_session_joins_no_dial_that_may_find_another() {
        let (ours, theirs) = (core(), core());
        let listening = bind(&theirs, &"tcp:127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let at = format!("cepa://{}@{}", theirs.id, listening.endpoint());
        let (near, far) = tokio::io::duplex(1 << 16);
        let config = &ours.config.stack;
        let comes = accept(&ours, near.into(), DEFAULT_LAYERS, Vec::new(), config, None);
        let dials = Session::handshake(far, &[], Side::Client, &theirs.config.stack);
        let (came, dialled) = tokio::join!(Box::pin(comes), Box::pin(dials));
        let (Ok(Accepted::New(came)), _dialled) = (came, dialled.unwrap()) else {
            panic!("no session");
        };
        let (_sender, outcome) = watch::channel(Some(Ok(came.session.clone())));
        let dial = || {
            let task = tokio::spawn(pending::<()>()).abort_handle();
            Dial::new(Want::Any, Arc::new(Hints::new(&[])), outcome.clone(), task)
        };
        let _waits = ours.dials.board(theirs.id, None, |_| false, dial);
        let session = own_session(&ours, &at.parse().unwrap()).await.unwrap();
        assert!(!session.is_same(&came.session), "that was not dialled here");
        // Whom any will do, that one does.
        assert!(there(&ours, theirs.id, Want::Any).is_some());
    }
}
