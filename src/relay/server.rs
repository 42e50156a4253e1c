//! The relay's side: takes registrations, asks registered peers for circuits, and copies.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa_transports::throttle::TokenBucket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::identity::PeerId;
use crate::mux::{StreamTimeouts, Substream};
use crate::onion::Onion;
use crate::session::{Incoming, OpenError, Session};

use super::copy::{End, copy};
use super::exchange::{fault, receive, send};
use super::ledger::{Ledger, Quotas};
use super::message::{Answer, CIRCUIT, Circuit, DIAL, REGISTER, Register, Status};
use super::presence::{InMemory, Presence};

/// Whom a relay serves.
pub type Allow = Arc<dyn Fn(&PeerId) -> bool + Send + Sync>;

/// The limits of a relay, and whom it serves. Start from [`RelayConfig::for_peers`].
#[derive(Clone)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Whom: others are refused, whatever they ask for.
    pub allow: Allow,
    /// Registrations in all; default 128. Each one is a session that stays.
    pub registrations: usize,
    /// Registrations of one peer; default 4: a peer that reconnects before its old session was found dead
    /// has two for a while, and one key may serve on a few machines.
    pub registrations_a_peer: usize,
    /// Longest time that a registration lasts without being renewed; default 1 h.
    pub lifetime: Duration,
    /// Circuits in all; default 16. Each one may use the relay's whole rate.
    pub circuits: usize,
    /// Circuits that one peer dials; default 4.
    pub circuits_a_peer: usize,
    /// Bytes a second of all circuits that one peer dialled, both ways together; default 10 MiB/s.
    pub rate: u64,
    /// Time for a registered peer to take or refuse a circuit; default 10 s.
    pub patience: Duration,
    /// Where it is kept who is registered at which relay; default this process. A fleet of relays shares one, and
    /// each of them tells diallers which other one to ask.
    pub presence: Arc<dyn Presence>,
}

impl RelayConfig {
    /// The defaults, for whom `allow` says yes to.
    pub fn for_peers(allow: impl Fn(&PeerId) -> bool + Send + Sync + 'static) -> Self {
        Self {
            allow: Arc::new(allow),
            registrations: 128,
            registrations_a_peer: 4,
            lifetime: Duration::from_secs(3600),
            circuits: 16,
            circuits_a_peer: 4,
            rate: 10 << 20,
            patience: Duration::from_secs(10),
            presence: Arc::new(InMemory::default()),
        }
    }
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig")
            .field("registrations", &self.registrations)
            .field("circuits", &self.circuits)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

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
/// It has no listeners of its own: give it the substreams that peers open for it, those that
/// [`Relay::serves`].
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    id: PeerId,
    config: RelayConfig,
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
                config,
                ledger: Mutex::new(Ledger::new(quotas)),
                rates: Mutex::default(),
                carried: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
            }),
        }
    }

    /// Whether a service's name is one of a relay's.
    #[must_use]
    pub fn serves(service: &str) -> bool {
        matches!(service, REGISTER | DIAL)
    }

    /// Serves one substream that a peer opened for the relay, to its end.
    pub async fn serve(&self, incoming: Incoming, session: &Session) {
        let peer = incoming.peer().id();
        if !(self.inner.config.allow)(&peer) {
            self.count_refused();
            let _ = incoming.refuse("this relay does not serve you").await;
            return;
        }
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
        let _ = timeout(self.inner.config.patience, async {
            send(stream, &answer).await?;
            stream.shutdown().await?;
            let mut scratch = [0; 256];
            while stream.read(&mut scratch).await? > 0 {}
            std::io::Result::Ok(())
        })
        .await;
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
