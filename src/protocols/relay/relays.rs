//! A node that uses relays: it stays registered at those that it was given, takes the circuits that they bring, and reaches
//! other peers through them.
//!
//! A registration is kept by a task of its own, which dials the relay again whenever the session with it is lost, and
//! asks again when it was refused: a relay that is down at the start is as good as one that goes down later. There is one
//! a relay: another address of the same relay is one more way to it, and an attempt that is under way begins anew with it.
//!
//! What comes of an attempt is told to those who wait for it. Where nobody does, it is an event.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa_transports::Stream;
use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::identity::PeerId;
use crate::node::{
    Access, Admission, Call, DialError, Hint, MAX_HINTS, Node, OnSessionError, PeerAddr, Protocol,
    ProtocolError, Refused, Route, RouteError,
};
use crate::session::{Backoff, Session};

use super::client::{Registration, dial, take};
use super::error::RegisterError;
use super::event::RelayEvent;
use super::message::CIRCUIT;

/// Lifetime that is asked for; renewed at half of it.
const LIFETIME: Duration = Duration::from_secs(3600);

/// How much later than its streams a session may tell that it is over.
const MOMENT: Duration = Duration::from_secs(1);

/// The relays of a node. Clones are the same.
#[derive(Clone)]
pub struct Relays {
    node: Node,
    state: Arc<State>,
}

struct State {
    node: Node,
    lifetime: Duration,
    /// Those that may bring us circuits.
    at: Mutex<HashMap<PeerId, Kept>>,
}

/// A registration that is kept.
struct Kept {
    stop: CancellationToken,
    /// The ways to the relay, of every address that was given.
    hints: Vec<Hint>,
    /// There is another way.
    another: Arc<Notify>,
    stands: bool,
    /// Who waits for what comes of the next attempt.
    waiting: Vec<oneshot::Sender<Result<(), RegisterError>>>,
}

impl State {
    fn at(&self) -> MutexGuard<'_, HashMap<PeerId, Kept>> {
        // Each change is whole after the one statement that makes it.
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a relay, with every way to it.
    fn address(&self, relay: PeerId) -> PeerAddr {
        let hints = self.at().get(&relay).map(|kept| kept.hints.clone());
        let mut address = PeerAddr::new(relay);
        for hint in hints.into_iter().flatten() {
            // Each one was part of an address; together they may be too long for one.
            address = address.clone().with_hint(hint).unwrap_or(address);
        }
        address
    }

    /// Tells who waits; whether somebody has heard it.
    fn notify(&self, relay: PeerId, result: Result<(), &RegisterError>) -> bool {
        let mut at = self.at();
        let Some(kept) = at.get_mut(&relay) else {
            return true;
        };
        kept.stands = result.is_ok();
        let waiting = std::mem::take(&mut kept.waiting);
        drop(at);
        let reported = waiting
            .into_iter()
            .map(|sender| sender.send(result.map_err(Clone::clone)).is_ok());
        // Each of them, and not up to the first.
        reported.fold(false, |any, one| any | one)
    }
}

/// Adds the ways of an address; the oldest go where there are too many.
fn add(hints: &mut Vec<Hint>, relay: &PeerAddr) -> bool {
    let before = hints.len();
    for hint in relay.hints() {
        if !hints.contains(hint) {
            hints.push(hint.clone());
        }
    }
    let added = hints.len() > before;
    let surplus = hints.len().saturating_sub(MAX_HINTS);
    hints.drain(..surplus);
    added
}

impl Relays {
    /// Lets a node reach peers through relays, and register at them.
    ///
    /// # Errors
    /// The node has this already.
    pub fn on(node: &Node) -> Result<Self, ProtocolError> {
        Self::with_lifetime(node, LIFETIME)
    }

    /// The same, asking for registrations that last so long; default 1 h.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn with_lifetime(node: &Node, lifetime: Duration) -> Result<Self, ProtocolError> {
        let state = Arc::new(State {
            node: node.handle(),
            lifetime,
            at: Mutex::default(),
        });
        node.add_protocol(Arc::new(Circuits(Arc::clone(&state))))?;
        node.set_route(Arc::new(ThroughRelay));
        Ok(Self {
            node: node.handle(),
            state,
        })
    }

    /// Registers at a relay, and stays registered until [`unregister`](Self::unregister) or the end of the node: renews in
    /// time, dials again when the session is lost, and asks again when it was refused. Returns after the first attempt, and
    /// at once where it is registered there already. Another address of the same relay is one more way to it.
    ///
    /// # Errors
    /// What came of the first attempt. Where it [may work later](RegisterError::is_retryable) it is tried on in any case.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: it stays registered, or tries to be, and what comes of it is an event.
    pub async fn register(&self, relay: &PeerAddr) -> Result<(), RegisterError> {
        let (sender, first) = oneshot::channel();
        let id = relay.peer();
        if let Some(begin) = self.wanted(relay, sender) {
            let (node, state) = (self.node.clone(), Arc::clone(&self.state));
            self.node.spawn(async move {
                tokio::select! {
                    () = stay(&node, &state, id, &begin.another) => {}
                    () = begin.stop.cancelled() => {}
                }
                // Another registration there may have taken its place.
                if !begin.stop.is_cancelled() {
                    state.at().remove(&id);
                }
            });
        }
        first.await.unwrap_or(Err(DialError::ShutDown.into()))
    }

    /// Takes an address in, with who waits for what comes of it; what a new registration begins with, where there is none.
    fn wanted(
        &self,
        relay: &PeerAddr,
        sender: oneshot::Sender<Result<(), RegisterError>>,
    ) -> Option<Begin> {
        let mut at = self.state.at();
        if let Some(kept) = at.get_mut(&relay.peer()) {
            let another = add(&mut kept.hints, relay);
            if kept.stands {
                let _ = sender.send(Ok(()));
                return None;
            }
            kept.waiting.retain(|sender| !sender.is_closed());
            kept.waiting.push(sender);
            if another {
                kept.another.notify_one();
            }
            return None;
        }
        let begin = Begin::default();
        let mut hints = Vec::new();
        add(&mut hints, relay);
        let kept = Kept {
            stop: begin.stop.clone(),
            hints,
            another: Arc::clone(&begin.another),
            stands: false,
            waiting: vec![sender],
        };
        at.insert(relay.peer(), kept);
        Some(begin)
    }

    /// Takes a registration back, by whatever addresses it was made; returns whether there was one. Who still waits for it reads
    /// [`RegisterError::TakenBack`]. Circuits that are open go on.
    pub fn unregister(&self, relay: PeerId) -> bool {
        let Some(kept) = self.state.at().remove(&relay) else {
            return false;
        };
        kept.stop.cancel();
        for sender in kept.waiting {
            let _ = sender.send(Err(RegisterError::TakenBack { relay }));
        }
        self.node.emit(RelayEvent::TakenBack { relay });
        true
    }

    /// The relays at which the node is registered now, in no order.
    #[must_use]
    pub fn registered(&self) -> Vec<PeerId> {
        let at = self.state.at();
        let stand = at.iter().filter(|(_, kept)| kept.stands);
        stand.map(|(relay, _)| *relay).collect()
    }
}

/// What the task of a registration shares with who asks for it.
#[derive(Default)]
struct Begin {
    stop: CancellationToken,
    another: Arc<Notify>,
}

/// Registers, renews, and begins anew whenever that fails.
async fn stay(node: &Node, state: &State, relay: PeerId, another: &Notify) {
    let mut backoff = Backoff::default().with_network(&node.network());
    let report = |reason: String| node.emit(RelayEvent::Unregistered { relay, reason });
    // Attempts that fail for the same reason one after the other are one event.
    let mut last = String::new();
    loop {
        let address = state.address(relay);
        let attempt = tokio::select! {
            attempt = once(node, state, &address) => attempt,
            () = another.notified() => continue,
        };
        match attempt {
            Ok((session, registration)) => {
                state.notify(relay, Ok(()));
                node.emit(RelayEvent::Registered { relay });
                let since = Instant::now();
                let reason = keep(state, session, registration).await;
                if let Some(kept) = state.at().get_mut(&relay) {
                    kept.stands = false;
                }
                report(reason);
                last.clear();
                backoff.reset_after(since.elapsed());
            }
            Err(error) => {
                let (reason, is_transient) = (error.reason(), error.is_retryable());
                // Who waits has it then, and need not hear it twice.
                let reported = state.notify(relay, Err(&error));
                if !is_transient {
                    if !reported {
                        node.emit(RelayEvent::GivenUp { relay, reason });
                    }
                    return;
                }
                if !reported && reason != last {
                    report(reason.clone());
                }
                last = reason;
            }
        }
        tokio::select! {
            () = backoff.wait() => {}
            () = another.notified() => {}
        }
    }
}

async fn once(
    node: &Node,
    state: &State,
    relay: &PeerAddr,
) -> Result<(Session, Registration), RegisterError> {
    let lifetime = state.lifetime;
    let registered = node.on_session(relay, |session| {
        let session = session.clone();
        Box::pin(async move { Registration::at(&session, lifetime).await })
    });
    registered.await.map_err(|error| match error {
        OnSessionError::Dial(error) => error.into(),
        OnSessionError::Open(error) => error.into(),
    })
}

/// Renews in time until that fails, or the session is over; why.
async fn keep(state: &State, session: Session, mut registration: Registration) -> String {
    let relay = registration.relay();
    loop {
        tokio::select! {
            () = sleep(registration.lifetime() / 2) => {}
            end = session.closed() => return end.to_string(),
            why = registration.ended(|| state.node.emit(RelayEvent::TakenOver { relay })) => {
                // The session tells more, if it is not the registration alone.
                let end = timeout(MOMENT, session.closed()).await;
                return end.map_or(why, |end| end.to_string());
            }
        }
        if let Err(error) = registration.renew(&session, state.lifetime).await {
            return error.to_string();
        }
    }
}

/// Takes the circuits that relays bring, of those at which the node is registered (or about to be: one may come right behind
/// the relay's answer).
struct Circuits(Arc<State>);

impl Protocol for Circuits {
    fn names(&self) -> &[&'static str] {
        &[CIRCUIT]
    }

    fn admission(&self, _name: &str) -> Admission {
        Admission::Access(Access::peers(self.0.at().keys().copied()))
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (incoming, context) = call.into_parts();
            let relay = incoming.peer().id();
            let node = &self.0.node;
            match take(incoming).await {
                Ok((stream, _from)) => {
                    let before = context.path().via.iter().copied();
                    let via = std::iter::once(relay).chain(before).collect();
                    // What comes of it is the node's event.
                    let _ = node.accept_via(stream, &[], via).await;
                }
                Err(reason) => node.emit_refused(relay, CIRCUIT, Refused::Other(reason)),
            }
        })
    }
}

/// The way through a relay.
struct ThroughRelay;

impl Route for ThroughRelay {
    fn connect<'a>(
        &'a self,
        session: &'a Session,
        target: PeerId,
    ) -> BoxFuture<'a, Result<Stream, RouteError>> {
        Box::pin(async move { dial(session, target).await.map_err(RouteError::from) })
    }
}
