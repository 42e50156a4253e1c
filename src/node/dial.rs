//! Reaching a peer: the hints of its address are raced, relays last, and what was reached through a relay is
//! reached directly as soon as that works.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::Endpoint;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Side;
use crate::identity::{PeerId, Pinned};
use crate::mux::Substream;
use crate::onion::Onion;
use crate::relay;
use crate::session::{Backoff, OpenError, Session};
use crate::stack::{DEFAULT_LAYERS, StackConfig};

use super::addr::{Hint, MAX_HINTS, PeerAddr};
use super::call::Path;
use super::core::{Core, lock};
use super::error::{AttemptError, DialError, ReachError};
use super::live::adopt;

/// Longest time between two looks for a direct way.
const LOOK_MAX: Duration = Duration::from_secs(300);

/// The session there is with the peer, or a new one.
pub(super) async fn session(core: &Arc<Core>, address: &PeerAddr) -> Result<Session, DialError> {
    let peer = address.peer();
    if peer == core.id {
        return Err(DialError::Own { peer });
    }
    for hint in address.hints() {
        check(core, peer, hint)?;
    }
    let mut hints = address.hints().to_vec();
    // A stable sort: the order among themselves is the address's own.
    hints.sort_by_key(Hint::is_relay);
    let session = with_hints(core, peer, hints.clone(), None).await?;
    hints.retain(|hint| !hint.is_relay());
    upgrade_later(core, peer, hints);
    Ok(session)
}

/// Opens the service of an address.
pub(super) async fn open(
    core: &Arc<Core>,
    address: &PeerAddr,
) -> Result<Onion<Substream>, ReachError> {
    let mut again = true;
    loop {
        let session = session(core, address).await?;
        match session.open(address.service()).await {
            Ok(stream) => return Ok(stream),
            // It ended just now, or was being retired: another one will do.
            Err(OpenError::Session(_) | OpenError::Mux(_)) if again => again = false,
            Err(error) => {
                let address = address.clone();
                return Err(ReachError::Open { address, error });
            }
        }
    }
}

/// A way must not lead through its own end, nor through here, nor through one relay twice.
fn check(core: &Core, peer: PeerId, hint: &Hint) -> Result<(), DialError> {
    let mut passed = vec![peer, core.id];
    let mut at = hint;
    while let Hint::Relay { relay, at: before } = at {
        if passed.contains(relay) {
            let relay = *relay;
            return Err(DialError::Loop { peer, relay });
        }
        passed.push(*relay);
        at = before;
    }
    Ok(())
}

/// As [`session`], for the dial of another peer that needs this one, if there is one; boxed, since the way to a
/// relay may lead through another.
fn with_hints(
    core: &Arc<Core>,
    peer: PeerId,
    hints: Vec<Hint>,
    needed_by: Option<PeerId>,
) -> BoxFuture<'_, Result<Session, DialError>> {
    Box::pin(async move {
        if let Some((_, _, live)) = core.chosen(peer) {
            return Ok(live.session);
        }
        let _turn = core.turns.wait(peer, needed_by).await;
        // While we waited, another one dialled; or the peer did.
        if let Some((_, _, live)) = core.chosen(peer) {
            return Ok(live.session);
        }
        if core.is_stopping() {
            return Err(DialError::ShutDown);
        }
        let asked = hints.is_empty();
        let mut hints = if asked {
            resolve(core, peer).await?
        } else {
            hints
        };
        let (session, path) = race(core, peer, hints.clone()).await?;
        adopt(core, session.clone(), path);
        if asked {
            hints.retain(|hint| !hint.is_relay());
            upgrade_later(core, peer, hints);
        }
        Ok(session)
    })
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
    let mut hints = found.map_err(|error| DialError::Unresolved { peer, error })?;
    hints.truncate(MAX_HINTS);
    for hint in &hints {
        check(core, peer, hint)?;
    }
    hints.sort_by_key(Hint::is_relay);
    if hints.is_empty() {
        return Err(DialError::NoHints { peer });
    }
    Ok(hints)
}

/// Tries the hints in their order, each a little later than the one before, until one has led to the peer.
/// The next one is tried at once when one fails; those that are on their way are given up then.
async fn race(
    core: &Arc<Core>,
    peer: PeerId,
    hints: Vec<Hint>,
) -> Result<(Session, Path), DialError> {
    let mut waiting = hints.into_iter();
    let mut running = FuturesUnordered::new();
    let mut attempts = Vec::new();
    let mut next_at = Instant::now();
    loop {
        let more = waiting.len() > 0;
        if !more && running.is_empty() {
            return Err(DialError::Failed { peer, attempts });
        }
        tokio::select! {
            Some((hint, result)) = running.next(), if !running.is_empty() => match result {
                Ok(reached) => return Ok(reached),
                Err(error) => {
                    attempts.push((hint, error));
                    next_at = Instant::now();
                }
            },
            () = sleep_until(next_at), if more => {
                if let Some(hint) = waiting.next() {
                    next_at = Instant::now() + core.config.stagger;
                    running.push(async move {
                        let result = attempt(core, peer, &hint).await;
                        (hint, result)
                    });
                }
            }
            () = core.stopping() => return Err(DialError::ShutDown),
        }
    }
}

async fn attempt(
    core: &Arc<Core>,
    peer: PeerId,
    hint: &Hint,
) -> Result<(Session, Path), AttemptError> {
    match hint {
        Hint::Direct(endpoint) => {
            let session = direct(core, peer, endpoint).await?;
            let path = Path {
                via: Vec::new(),
                dialled: true,
                label: session.label().to_owned(),
            };
            Ok((session, path))
        }
        Hint::Relay { relay, at } => {
            let hints = vec![Hint::clone(at)];
            let at_relay = with_hints(core, *relay, hints, Some(peer))
                .await
                .map_err(|error| AttemptError::NoRelay {
                    relay: *relay,
                    error: Box::new(error),
                })?;
            let stream = relay::dial(&at_relay, peer)
                .await
                .map_err(AttemptError::Relay)?;
            let label = stream.label().to_owned();
            let config = pinned(core, peer);
            let session = Session::over(stream, DEFAULT_LAYERS, Side::Client, &config)
                .await
                .map_err(AttemptError::Connect)?;
            let before = core.chosen(*relay).map(|(_, _, live)| live.path.via);
            let via = std::iter::once(*relay)
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

async fn direct(
    core: &Arc<Core>,
    peer: PeerId,
    endpoint: &Endpoint,
) -> Result<Session, AttemptError> {
    Session::dial(endpoint, &pinned(core, peer))
        .await
        .map_err(AttemptError::Connect)
}

/// Whoever answers has to be the peer that the address names.
fn pinned(core: &Core, peer: PeerId) -> StackConfig {
    let mut config = core.config.stack.clone();
    config.trust = Arc::new(Pinned::one(peer));
    config
}

/// Looks for a direct way now and then, while the chosen session leads through a relay.
fn upgrade_later(core: &Arc<Core>, peer: PeerId, hints: Vec<Hint>) {
    if hints.is_empty() || !is_relayed(core, peer) || !lock(&core.upgrading).insert(peer) {
        return;
    }
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let mut backoff = Backoff::new(core.config.upgrade_after, LOOK_MAX);
        loop {
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = core.stopping() => break,
            }
            if !is_relayed(&core, peer) {
                break;
            }
            if let Ok((session, path)) = race(&core, peer, hints.clone()).await {
                adopt(&core, session, path);
                break;
            }
        }
        lock(&core.upgrading).remove(&peer);
    });
}

fn is_relayed(core: &Core, peer: PeerId) -> bool {
    let chosen = core.chosen(peer);
    chosen.is_some_and(|(_, origin, _)| !origin.direct)
}
