//! A node that uses relays: it stays registered at those that it was given, takes the circuits that they bring, and reaches
//! other peers through them.
//!
//! A registration is kept by a task of its own, which dials the relay again whenever the session with it is lost, and
//! asks again when it was refused: a relay that is down at the start is as good as one that goes down later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa_transports::Stream;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::identity::PeerId;
use crate::node::{
    Access, Admission, Call, Node, PeerAddr, Protocol, ProtocolError, Refused, Route, RouteError,
};
use crate::session::{Backoff, OpenError, Session};

use super::client::{Registration, dial, take};
use super::error::{RegisterError, RelayError};
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
    at: Mutex<HashMap<PeerId, CancellationToken>>,
}

impl State {
    fn at(&self) -> MutexGuard<'_, HashMap<PeerId, CancellationToken>> {
        // Each change is whole after the one statement that makes it.
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// time, dials again when the session is lost, and asks again when it was refused. Returns after the first attempt.
    ///
    /// # Errors
    /// What came of the first attempt. Where it [may work later](RegisterError::is_transient) it is tried on in any case.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: it stays registered, or tries to be.
    pub async fn register(&self, relay: &PeerAddr) -> Result<(), RegisterError> {
        let (tell, first) = oneshot::channel();
        let stop = CancellationToken::new();
        {
            // Under one lock: the one before takes nothing out that is not its own.
            let mut at = self.state.at();
            if let Some(before) = at.insert(relay.peer(), stop.clone()) {
                before.cancel();
            }
        }
        let (node, state, relay) = (self.node.clone(), Arc::clone(&self.state), relay.clone());
        self.node.spawn(async move {
            tokio::select! {
                () = stay(&node, &state, &relay, tell) => {}
                () = stop.cancelled() => {}
            }
            let mut at = state.at();
            // Another registration there may have taken its place.
            if !stop.is_cancelled() {
                at.remove(&relay.peer());
            }
        });
        first
            .await
            .unwrap_or(Err(crate::node::DialError::ShutDown.into()))
    }

    /// Takes a registration back; returns whether there was one. Circuits that are open go on.
    pub fn unregister(&self, relay: PeerId) -> bool {
        let mut at = self.state.at();
        at.remove(&relay).map(|stop| stop.cancel()).is_some()
    }
}

/// Registers, renews, and begins anew whenever that fails.
async fn stay(
    node: &Node,
    state: &State,
    relay: &PeerAddr,
    tell: oneshot::Sender<Result<(), RegisterError>>,
) {
    let mut tell = Some(tell);
    let mut backoff = Backoff::default();
    let report = |reason: String| {
        let relay = relay.peer();
        node.emit(RelayEvent::Unregistered { relay, reason });
    };
    // Attempts that fail for the same reason one after the other are one event.
    let mut last = String::new();
    loop {
        match once(node, state, relay).await {
            Ok((session, registration)) => {
                if let Some(tell) = tell.take() {
                    let _ = tell.send(Ok(()));
                }
                let since = Instant::now();
                report(keep(state, session, registration).await);
                last.clear();
                backoff.stood_for(since.elapsed());
            }
            Err(error) => {
                let (reason, may_pass) = (error.reason(), error.is_transient());
                match tell.take() {
                    // The caller has it, and need not hear it twice.
                    Some(tell) => drop(tell.send(Err(error))),
                    None if may_pass && reason != last => report(reason.clone()),
                    None => {}
                }
                last = reason;
                if !may_pass {
                    return;
                }
            }
        }
        sleep(backoff.pause()).await;
    }
}

async fn once(
    node: &Node,
    state: &State,
    relay: &PeerAddr,
) -> Result<(Session, Registration), RegisterError> {
    let mut session = node.session(relay).await?;
    let mut registered = Registration::at(&session, state.lifetime).await;
    if let Err(RelayError::NoRelay {
        source: OpenError::DialInstead { .. },
        ..
    }) = registered
    {
        // The relay had dialled that session itself.
        session = node.own_session(relay).await?;
        registered = Registration::at(&session, state.lifetime).await;
    }
    let registration = registered?;
    node.emit(RelayEvent::Registered {
        relay: relay.peer(),
    });
    Ok((session, registration))
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
