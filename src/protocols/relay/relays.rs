//! A node that uses relays: it stays registered at those that it was given, takes the circuits that they bring, and reaches
//! other peers through them.
//!
//! A registration is kept by a task of its own, which dials the relay again whenever the session with it is lost, and
//! asks again when it was refused: a relay that is down at the start is as good as one that goes down later. There is one
//! a relay: another address of the same relay is one more way to it, and an attempt that is under way begins anew with it.
//!
//! A relay may tell of others of its fleet. When it ends, or is full, or is not reached any more, the registration goes to one of those, by
//! chance: after a moment by chance, too, since all of a relay's nodes move at the same time. It stays there; the relay that was asked for
//! is one of several from then on. A relay that says that it is about to end keeps the registration until it stands elsewhere.
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
    Access, Admission, Beside, Call, DialError, Hint, MAX_HINTS, Node, OnSessionError, PeerAddr,
    Protocol, ProtocolError, Refused, Route, RouteError,
};
use crate::session::{Backoff, Session};
use crate::wire::Status;

use super::client::{Registration, dial_hearing, take};
use super::error::RegisterError;
use super::event::RelayEvent;
use super::known::{Known, Place, chance, shuffle};
use super::message::{Answer, CIRCUIT};

/// Lifetime that is asked for; renewed at half of it.
const LIFETIME: Duration = Duration::from_secs(3600);

/// A registration that goes elsewhere does so within this time, by chance.
const SPREAD: Duration = Duration::from_secs(2);

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
    known: Arc<Known>,
}

/// A registration that is kept.
struct Kept {
    stop: CancellationToken,
    /// The ways to the relay, of every address that was given.
    hints: Vec<Hint>,
    /// There is another way.
    another: Arc<Notify>,
    /// Where it stands: at the relay that was asked for, or another one of its fleet.
    stands: Option<PeerId>,
    /// Where it stands, or goes next: no other registration of this node goes there.
    heads: Option<PeerId>,
    /// Those of that fleet that may bring circuits: where it stands, stood just now, or is about to.
    places: Vec<PeerId>,
    /// Who waits for what comes of the next attempt.
    waiting: Vec<oneshot::Sender<Result<(), RegisterError>>>,
}

impl State {
    fn at(&self) -> MutexGuard<'_, HashMap<PeerId, Kept>> {
        // Each change is whole after the one statement that makes it.
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a relay, with every way to it; `home` is the one that was asked for.
    fn address(&self, home: PeerId, (relay, hints): &Place) -> PeerAddr {
        let (relay, mut hints) = (*relay, hints.clone());
        if let Some(kept) = self.at().get_mut(&home) {
            if relay == home {
                hints.clone_from(&kept.hints);
            } else if !kept.places.contains(&relay) {
                kept.places.push(relay);
            }
        }
        let mut address = PeerAddr::new(relay);
        for hint in hints {
            // Each one was part of an address; together they may be too long for one.
            address = address.clone().with_hint(hint).unwrap_or(address);
        }
        address
    }

    /// Where it stands.
    fn registered(&self) -> Vec<PeerId> {
        let at = self.at();
        let mut stand: Vec<_> = at.values().filter_map(|kept| kept.stands).collect();
        stand.sort_unstable();
        stand.dedup();
        stand
    }

    /// The first of these relays to which no other registration of this node goes; it is this one's from now on. A node that asked for
    /// two relays is to be at two, also where both look for another one at the same time.
    fn claim(&self, home: PeerId, places: impl IntoIterator<Item = Place>) -> Option<Place> {
        let mut at = self.at();
        let others = at.iter().filter(|(id, _)| **id != home);
        let taken: Vec<PeerId> = others.filter_map(|(_, kept)| kept.heads).collect();
        let place = places.into_iter().find(|(id, _)| !taken.contains(id));
        if let Some(kept) = at.get_mut(&home) {
            kept.heads = place.as_ref().map(|(id, _)| *id);
        }
        place
    }

    /// Tells who waits to be registered at this relay, if another registration of this node stands there.
    fn stands_otherwise(&self, home: PeerId) {
        let mut at = self.at();
        if at.values().any(|kept| kept.stands == Some(home))
            && let Some(kept) = at.get_mut(&home)
        {
            for sender in std::mem::take(&mut kept.waiting) {
                let _ = sender.send(Ok(()));
            }
        }
    }

    /// Tells who waits; whether somebody has heard it.
    fn notify(&self, home: PeerId, result: Result<PeerId, &RegisterError>) -> bool {
        let mut at = self.at();
        let Some(kept) = at.get_mut(&home) else {
            return true;
        };
        kept.stands = result.ok();
        if let Ok(relay) = result {
            kept.places = vec![relay];
        }
        let result = result.map(|_| ());
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
            known: Arc::default(),
        });
        node.add_protocol(Arc::new(Circuits(Arc::clone(&state))))?;
        node.set_route(Arc::new(ThroughRelay(Arc::clone(&state.known))));
        Ok(Self {
            node: node.handle(),
            state,
        })
    }

    /// Registers at a relay, and stays registered until [`unregister`](Self::unregister) or the end of the node: renews in
    /// time, dials again when the session is lost, and asks again when it was refused. Returns after the first attempt, and
    /// at once where it is registered there already. Another address of the same relay is one more way to it. Where another
    /// registration of this node has gone to that relay, this one goes to another one of its fleet: the node is at two then.
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
            if kept.stands.is_some() {
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
            stands: None,
            heads: None,
            places: Vec::new(),
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

    /// The relays at which the node is registered now, in no order: those that were given, or others of their fleets.
    #[must_use]
    pub fn registered(&self) -> Vec<PeerId> {
        self.state.registered()
    }
}

/// What the task of a registration shares with who asks for it.
#[derive(Default)]
struct Begin {
    stop: CancellationToken,
    another: Arc<Notify>,
}

/// Registers, renews, and begins anew whenever that fails: at the relay that was asked for, or elsewhere.
async fn stay(node: &Node, state: &State, home: PeerId, another: &Notify) {
    let mut backoff = Backoff::default().with_network(&node.network());
    // Attempts that fail for the same reason one after the other are one event.
    let mut last = String::new();
    let mut round = Round::new(state, home);
    // At a relay that is about to end, until there is another one.
    let mut leaving: Option<Box<Registration>> = None;
    loop {
        state.stands_otherwise(home);
        let Some(place) = &round.at else {
            // The others of this node are at all that there are; one of them may go.
            tokio::select! {
                () = backoff.wait() => {}
                () = another.notified() => {}
            }
            round = Round::new(state, home);
            continue;
        };
        let address = state.address(home, place);
        let relay = address.peer();
        let report = |reason: String| node.emit(RelayEvent::Unregistered { relay, reason });
        let attempt = tokio::select! {
            attempt = once(node, state, &address) => attempt,
            () = another.notified() => {
                round = Round::new(state, home);
                continue;
            }
        };
        let pause = match attempt {
            Ok((session, registration)) => {
                drop(leaving.take());
                state.notify(home, Ok(relay));
                node.emit(RelayEvent::Registered { relay });
                let since = Instant::now();
                let end = keep(state, session, registration).await;
                if let Some(kept) = state.at().get_mut(&home) {
                    kept.stands = None;
                }
                last.clear();
                backoff.reset_after(since.elapsed());
                round.tried.clear();
                match end {
                    End::Leaving(registration) => {
                        leaving = Some(registration);
                        report("the relay is about to end".into());
                        round.go_on(state, false)
                    }
                    // It may be the way alone, and the relay be there.
                    End::Lost(reason) => {
                        report(reason);
                        Pause::Longer
                    }
                }
            }
            Err(error) => {
                let (reason, is_retryable) = (error.reason(), error.is_retryable());
                // Who waits has it then, and need not hear it twice.
                let reported = state.notify(home, Err(&error));
                if !is_retryable && relay == home {
                    if !reported {
                        node.emit(RelayEvent::GivenUp { relay, reason });
                    }
                    return;
                }
                if !reported && reason != last {
                    report(reason.clone());
                }
                last = reason;
                if error.is_transient() || relay != home {
                    round.go_on(state, error.is_full())
                } else {
                    Pause::Longer
                }
            }
        };
        let pause = async {
            match pause {
                Pause::Longer => backoff.wait().await,
                Pause::Spread => sleep(by_chance(SPREAD)).await,
            }
        };
        tokio::select! {
            () = pause => {}
            () = another.notified() => round = Round::new(state, home),
        }
    }
}

/// What comes before the next attempt.
enum Pause {
    Longer,
    Spread,
}

/// Which relays of a fleet were tried, one after the other.
struct Round {
    home: PeerId,
    tried: Vec<PeerId>,
    /// The one whose turn it is; none while other registrations of this node go to all that there are.
    at: Option<Place>,
}

impl Round {
    /// Begins at the relay that was asked for; where another registration of this node goes there, at another one of its fleet.
    fn new(state: &State, home: PeerId) -> Self {
        let mut others = state.known.others(home);
        shuffle(&mut others);
        let all = std::iter::once((home, Vec::new())).chain(others);
        Self {
            home,
            tried: Vec::new(),
            at: state.claim(home, all),
        }
    }

    /// The next one: by chance, or the one that was named first. When each had its turn it begins anew, after a longer pause.
    fn go_on(&mut self, state: &State, first: bool) -> Pause {
        let known = &state.known;
        let last = self.at.take().map_or(self.home, |(id, _)| id);
        self.tried.push(last);
        let mut others = known.others(last);
        if !first {
            shuffle(&mut others);
        }
        let of_home = known.others(self.home);
        let next = others.into_iter().chain(of_home);
        let mut next: Vec<_> = next.chain([(self.home, Vec::new())]).collect();
        next.retain(|(id, _)| !self.tried.contains(id));
        self.at = state.claim(self.home, next);
        if self.at.is_some() {
            return Pause::Spread;
        }
        *self = Self::new(state, self.home);
        Pause::Longer
    }
}

fn by_chance(most: Duration) -> Duration {
    let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(chance() % millis.max(1))
}

async fn once(
    node: &Node,
    state: &State,
    relay: &PeerAddr,
) -> Result<(Session, Registration), RegisterError> {
    let (lifetime, known) = (state.lifetime, &state.known);
    let registered = node.on_session(relay, |session| {
        let (session, known) = (session.clone(), Arc::clone(known));
        Box::pin(async move {
            let relay = session.peer().id();
            Registration::hearing(&session, lifetime, |answer| known.hear(relay, answer)).await
        })
    });
    registered.await.map_err(|error| match error {
        OnSessionError::Dial(error) => error.into(),
        OnSessionError::Open(error) => error.into(),
    })
}

/// How a registration ends.
enum End {
    Lost(String),
    /// The relay is about to end.
    Leaving(Box<Registration>),
}

/// Renews in time until that fails, or the session is over.
async fn keep(state: &State, session: Session, mut registration: Registration) -> End {
    let relay = registration.relay();
    loop {
        let mut leaving = false;
        let heard = |answer: &Answer| {
            state.known.hear(relay, answer);
            if answer.is_taken_over() {
                state.node.emit(RelayEvent::TakenOver { relay });
            }
            // Where there is nowhere to go, it stays as long as it can.
            leaving = answer.is_leaving() && !state.known.others(relay).is_empty();
            !leaving
        };
        tokio::select! {
            () = sleep(registration.lifetime() / 2) => {}
            end = session.closed() => return End::Lost(end.to_string()),
            why = registration.ended_hearing(heard) => {
                if leaving {
                    return End::Leaving(Box::new(registration));
                }
                // The session tells more, if it is not the registration alone.
                let end = timeout(MOMENT, session.closed()).await;
                return End::Lost(end.map_or(why, |end| end.to_string()));
            }
        }
        let heard = |answer: &Answer| state.known.hear(relay, answer);
        let renewed = registration.renew_hearing(&session, state.lifetime, heard);
        if let Err(error) = renewed.await {
            return End::Lost(error.to_string());
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
        let at = self.0.at();
        let places = at.values().flat_map(|kept| &kept.places);
        Admission::Access(Access::peers(at.keys().chain(places).copied()))
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
struct ThroughRelay(Arc<Known>);

impl Route for ThroughRelay {
    fn connect<'a>(
        &'a self,
        session: &'a Session,
        target: PeerId,
    ) -> BoxFuture<'a, Result<Stream, RouteError>> {
        Box::pin(async move {
            let relay = session.peer().id();
            let heard = |answer: &Answer| match answer.status() {
                Status::Done => self.0.hear_of(relay, target, answer),
                Status::NotRegistered => self.0.forget_nearer(relay, target),
                _ => self.0.hear(relay, answer),
            };
            let circuit = dial_hearing(session, target, heard).await;
            circuit.map_err(RouteError::from)
        })
    }

    fn beside(&self, relay: PeerId, target: PeerId) -> Beside {
        self.0.beside(relay, target)
    }
}
