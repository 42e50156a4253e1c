//! The relay's side: takes registrations, asks registered peers for circuits, and copies.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa_transports::throttle::TokenBucket;
use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::identity::PeerId;
use crate::mux::{StreamTimeouts, Substream};
use crate::node::{Access, Admission, Call, Node, Protocol, ProtocolError};
use crate::onion::Onion;
use crate::protocols::copy::{End, copy};
use crate::session::{OpenError, Session};
use crate::wire::{Status, fault, linger_close, receive, send};

use super::config::RelayConfig;
use super::ledger::{Ledger, Quotas};
use super::message::{Answer, CIRCUIT, Circuit, DIAL, REGISTER, Register};

/// Counters and gauges of a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Registrations now.
    pub registrations: usize,
    /// Circuits now.
    pub circuits: usize,
    /// Circuits that came about.
    pub carried: u64,
    /// Registrations and circuits that were refused.
    pub refused: u64,
    /// Bytes copied, both ways.
    pub bytes: u64,
}

/// A relay. Clones are the same one.
///
/// It has no listeners of its own: it is a [`Protocol`] of a node.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    id: PeerId,
    config: RelayConfig,
    access: Mutex<Access>,
    ledger: Mutex<Ledger<Session>>,
    rates: Mutex<HashMap<PeerId, TokenBucket>>,
    carried: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

/// A refusal on its way to whoever asked.
struct Refusal {
    status: Status,
    reason: String,
}

impl Refusal {
    fn of(status: Status) -> Self {
        Self {
            status,
            reason: String::new(),
        }
    }
}

impl Relay {
    /// A relay without peers. `id` is who it is to them.
    #[must_use]
    pub fn new(id: PeerId, config: RelayConfig) -> Self {
        let quotas = Quotas {
            registrations: config.registrations,
            registrations_a_peer: config.registrations_a_peer,
            circuits: config.circuits,
            circuits_a_peer: config.circuits_a_peer,
        };
        Self {
            inner: Arc::new(Inner {
                id,
                access: Mutex::new(config.access.clone()),
                config,
                ledger: Mutex::new(Ledger::new(quotas)),
                rates: Mutex::default(),
                carried: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
            }),
        }
    }

    /// Makes a node a relay.
    ///
    /// # Errors
    /// The node is one already.
    pub fn on(node: &Node, config: RelayConfig) -> Result<Self, ProtocolError> {
        let relay = Self::new(node.id(), config);
        node.add_protocol(Arc::new(relay.clone()))?;
        Ok(relay)
    }

    /// Changes whom it serves. Registrations and circuits that are there go on.
    pub fn set_access(&self, access: Access) {
        *self.inner.access() = access;
    }

    async fn serve_one(&self, call: Call) {
        let (incoming, context) = call.into_parts();
        let (peer, session) = (incoming.peer().id(), context.session());
        let registers = incoming.service() == REGISTER;
        let Ok(mut stream) = incoming.accept().await else {
            return;
        };
        if registers {
            self.registration(stream, session).await;
            return;
        }
        match self.agree(&mut stream, peer).await {
            Ok(Some((far, open))) => join(stream, far, &open).await,
            Ok(None) => {}
            Err(refusal) => self.refuse(&mut stream, &refusal).await,
        }
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        let ledger = self.inner.ledger();
        RelayStats {
            registrations: ledger.registrations(),
            circuits: ledger.circuits(),
            carried: self.inner.carried.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
            bytes: self.inner.bytes.load(Ordering::Relaxed),
        }
    }

    /// Who is registered, and how often.
    #[must_use]
    pub fn registered(&self) -> Vec<(PeerId, usize)> {
        self.inner.ledger().registered().collect()
    }

    /// Keeps a registration for as long as its peer renews it.
    async fn registration(&self, mut stream: Onion<Substream>, session: &Session) {
        let inner = &self.inner;
        let peer = session.peer().id();
        let mut registered = None;
        let mut patience = inner.config.patience;
        loop {
            let wanted = match timeout(patience, receive::<Register>(&mut stream)).await {
                Ok(Ok(register)) => Duration::from_secs(register.lifetime.into()),
                Ok(Err(error)) => {
                    if let Some(reason) = fault(&error) {
                        let status = Status::Malformed;
                        self.refuse(&mut stream, &Refusal { status, reason }).await;
                    }
                    return;
                }
                // Not renewed.
                Err(_) => return,
            };
            let lifetime = wanted
                .min(inner.config.lifetime)
                .max(Duration::from_secs(1));
            if registered.is_none() {
                let number = inner.ledger().register(peer, session.clone());
                match number {
                    Ok(number) => {
                        registered = Some(Registered {
                            relay: Arc::clone(inner),
                            peer,
                            number,
                        });
                    }
                    Err(status) => {
                        self.refuse(&mut stream, &Refusal::of(status)).await;
                        return;
                    }
                }
            }
            if inner
                .config
                .presence
                .put(peer, inner.id, lifetime)
                .await
                .is_err()
            {
                self.refuse(&mut stream, &Refusal::of(Status::Full)).await;
                return;
            }
            let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
            if send(&mut stream, &Answer::done(Some(seconds)))
                .await
                .is_err()
            {
                return;
            }
            patience = lifetime;
        }
    }

    /// Comes to an agreement with the dialler and whom it wants; `None` where nobody is left to be told.
    async fn agree(
        &self,
        stream: &mut Onion<Substream>,
        from: PeerId,
    ) -> Result<Option<(Onion<Substream>, Open)>, Refusal> {
        let inner = &self.inner;
        let asked = timeout(inner.config.patience, receive::<Circuit>(stream)).await;
        let target = match asked {
            Ok(Ok(circuit)) => circuit.target(),
            Ok(Err(error)) => {
                return fault(&error).map_or(Ok(None), |reason| {
                    Err(Refusal {
                        status: Status::Malformed,
                        reason,
                    })
                });
            }
            Err(_) => return Ok(None),
        };
        if target == inner.id || target == from {
            return Err(Refusal::of(Status::Loop));
        }
        let opened = inner.ledger().open(from);
        opened.map_err(Refusal::of)?;
        let open = Open {
            relay: Arc::clone(inner),
            from,
        };
        let far = self.reach(target, from).await?;
        if send(stream, &Answer::done(None)).await.is_err() {
            return Ok(None);
        }
        Ok(Some((far, open)))
    }

    /// Asks the registered peer, the newest of its registrations first.
    async fn reach(&self, target: PeerId, from: PeerId) -> Result<Onion<Substream>, Refusal> {
        let inner = &self.inner;
        let ways = inner.ledger().find(target);
        if ways.is_empty() {
            let elsewhere = inner.config.presence.get(target).await;
            return Err(match elsewhere {
                Ok(relays) => Refusal {
                    status: Status::NotRegistered,
                    reason: relays
                        .iter()
                        .find(|relay| **relay != inner.id)
                        .map(|relay| format!("it is registered at the relay {relay}"))
                        .unwrap_or_default(),
                },
                Err(_) => Refusal::of(Status::Unreachable),
            });
        }
        let mut last = Refusal::of(Status::Unreachable);
        for session in ways {
            match timeout(inner.config.patience, ask(&session, from)).await {
                Ok(Ok(far)) => return Ok(far),
                Ok(Err(refusal)) => last = refusal,
                Err(_) => last = Refusal::of(Status::Unreachable),
            }
        }
        Err(last)
    }

    fn count_refused(&self) {
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Says why not, and leaves it to the peer to end the substream: a reset could overtake the answer.
    async fn refuse(&self, stream: &mut Onion<Substream>, refusal: &Refusal) {
        self.count_refused();
        let answer = Answer::refused(refusal.status, &refusal.reason);
        let patience = self.inner.config.patience;
        if matches!(timeout(patience, send(stream, &answer)).await, Ok(Ok(()))) {
            linger_close(stream, patience).await;
        }
    }
}

impl Protocol for Relay {
    fn names(&self) -> &[&'static str] {
        &[REGISTER, DIAL]
    }

    fn admission(&self, _name: &str) -> Admission {
        Admission::Access(self.inner.access().clone())
    }

    fn refusal(&self) -> &'static str {
        "this relay does not serve you: ask its owner to allow your id"
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.serve_one(call).await })
    }

    // Circuits of others keep nobody from shutting down.
    fn delays_shutdown(&self) -> bool {
        false
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("id", &self.inner.id)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<Session>> {
        // Every change leaves the ledger whole.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> MutexGuard<'_, HashMap<PeerId, TokenBucket>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a circuit to a registered peer.
async fn ask(session: &Session, from: PeerId) -> Result<Onion<Substream>, Refusal> {
    let unreachable = || Refusal::of(Status::Unreachable);
    let mut far = session.open(CIRCUIT).await.map_err(|error| match error {
        OpenError::Refused { reason, .. } => Refusal {
            status: Status::Refused,
            reason,
        },
        _ => unreachable(),
    })?;
    let asked = async {
        send(&mut far, &Circuit::new(from)).await?;
        receive::<Answer>(&mut far).await
    };
    match asked.await {
        Ok(answer) if answer.status() == Status::Done => Ok(far),
        Ok(answer) => Err(Refusal {
            status: Status::Refused,
            reason: answer.reason(),
        }),
        Err(_) => Err(unreachable()),
    }
}

/// Copies, within the rate of whoever dialled.
async fn join(near: Onion<Substream>, far: Onion<Substream>, open: &Open) {
    // Nothing was ever pushed onto them.
    let (Ok(near), Ok(far)) = (near.into_wire(), far.into_wire()) else {
        return;
    };
    let relay = &open.relay;
    relay.carried.fetch_add(1, Ordering::Relaxed);
    let rate = relay
        .rates()
        .entry(open.from)
        .or_insert_with(|| TokenBucket::new(relay.config.rate))
        .clone();
    let [mut near, mut far] = [near, far];
    for (stream, _) in [&mut near, &mut far] {
        // How long the two may be silent is for them to say.
        stream.set_timeouts(StreamTimeouts::NONE);
    }
    copy(End::new(near), End::new(far), Arc::new(rate), |moved| {
        relay.bytes.fetch_add(moved as u64, Ordering::Relaxed);
    })
    .await;
}

/// A registration, taken back when dropped.
struct Registered {
    relay: Arc<Inner>,
    peer: PeerId,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let last = self.relay.ledger().unregister(self.peer, self.number);
        if last {
            let (relay, peer) = (Arc::clone(&self.relay), self.peer);
            // The store may be slow, and a drop can not wait.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { relay.config.presence.remove(peer, relay.id).await });
            }
        }
    }
}

/// A circuit's place among those of its dialler, given back when dropped.
struct Open {
    relay: Arc<Inner>,
    from: PeerId,
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.relay.ledger().close(self.from) {
            self.relay.rates().remove(&self.from);
        }
    }
}
