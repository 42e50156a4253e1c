//! The relay's side: a protocol of a node that takes registrations and carries circuits.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use crate::identity::{Lineage, PeerId, UnixTime};
use crate::mux::Substream;
#[cfg(feature = "nat")]
use crate::node::CallContext;
use crate::node::{Access, Admission, Call, Node, Protocol, ProtocolError, Refused};
use crate::onion::Onion;
use crate::protocols::pool::Holder;
use crate::session::reserved::{CODE_OFFER, CODE_USE};
#[cfg(feature = "nat")]
use crate::wire::receive;
use crate::wire::{Status, linger_close, send};

use super::circuits::Asker;
use super::config::RelayConfig;
use super::event::RelayEvent;
use super::fleet::Order;
use super::holding;
use super::inner::{Inner, Joined, Refusal};
use super::message::{Answer, DIAL, HOLDS, MAX_OTHERS, MEMBER, REGISTER};
#[cfg(feature = "nat")]
use super::seen::{SEEN, Seen, SeenAt};
use super::{circuits, registering};

/// How often the other members of a fleet hear what this one holds, if that has changed.
const TELL_LOAD: Duration = Duration::from_secs(5);

/// How often it is said that another relay has the same identity.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// How often a relay that is about to end looks whether all have gone.
const LOOK: Duration = Duration::from_millis(50);

/// Counters and gauges of a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Registrations now.
    pub registrations: usize,
    /// Circuits now, each from when it was asked for until its memory was given back.
    pub circuits: usize,
    /// Circuits that came about.
    pub carried: u64,
    /// Registrations and circuits that were refused.
    pub refused: u64,
    /// Circuits that were ended because they had carried nothing for too long.
    pub idle: u64,
    /// Circuits between two relays of a fleet that were ended because one end did not read, and others had no room for that.
    pub unread: u64,
    /// Circuits and registrations that were ended for a peer that had none, or because nobody was behind them any more.
    pub taken_back: u64,
    /// Bytes copied, both ways.
    pub bytes: u64,
}

/// A relay. Clones are the same one.
///
/// It has no listeners of its own: it is a [`Protocol`] of a node.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
    node: Node,
}

impl Relay {
    /// Makes a node a relay.
    ///
    /// # Errors
    /// The node is one already.
    pub fn on(node: &Node, config: RelayConfig) -> Result<Self, ProtocolError> {
        let chain = node.identity().chain().into();
        let lineage = Lineage::new(node.id(), chain, UnixTime::now());
        let fleet = config.fleet.clone();
        let mut inner = Inner::new(node.id(), config);
        inner.fleet = fleet.map(|fleet| Joined {
            fleet,
            node: node.handle(),
        });
        inner.former = lineage.former().to_vec();
        let relay = Self {
            inner: Arc::new(inner),
            node: node.handle(),
        };
        node.add_protocol(Arc::new(relay.clone()))?;
        if relay.inner.fleet.is_some() {
            node.add_protocol(Arc::new(Member(relay.clone())))?;
            relay.inner.tell_load();
            let tells = tell_load(Arc::downgrade(&relay.inner));
            let looks = relay.inner.unread.look(node.receive_memory_a_peer());
            // Outside a runtime nobody is served, and there is no load.
            if tokio::runtime::Handle::try_current().is_ok() {
                node.spawn(tells);
                node.spawn(looks);
            }
        }
        Ok(relay)
    }

    /// Changes whom it serves. Circuits that are there go on, and registrations until they are renewed.
    pub fn set_access(&self, access: Access) {
        *self.inner.access() = access;
    }

    /// Takes no registrations any more, tells those who have one that this relay is about to end, and which others of its fleet there
    /// are, and waits until they have gone there, or for so long. Circuits go on; there is no way back.
    ///
    /// # Cancel safety
    /// Dropping the future gives the wait up, and nothing else.
    pub async fn leave(&self, patience: Duration) {
        self.inner.leaving.cancel();
        self.inner.tell_load();
        let gone = async {
            while self.inner.registrations().len() > 0 {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(patience, gone).await;
    }

    /// Waits until it carries no circuit any more, or for so long.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn carried_out(&self, patience: Duration) {
        let ended = async {
            while self.inner.counts.circuits.load(Ordering::Relaxed) > 0 {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(patience, ended).await;
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        let counts = &self.inner.counts;
        RelayStats {
            registrations: self.inner.registrations().len(),
            circuits: counts.circuits.load(Ordering::Relaxed),
            carried: counts.carried.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            idle: counts.idle.load(Ordering::Relaxed),
            unread: counts.unread.load(Ordering::Relaxed),
            taken_back: counts.taken_back.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
        }
    }

    /// Who is registered, by their present ids, and how often.
    #[must_use]
    pub fn registered(&self) -> Vec<(PeerId, usize)> {
        self.inner.registrations().holders().into_iter().collect()
    }

    async fn serve_one(&self, call: Call) {
        let (incoming, context) = call.into_parts();
        let holder = Holder::of(incoming.peer(), &context);
        let service = incoming.service();
        if let Some(service) = [CODE_OFFER, CODE_USE].into_iter().find(|it| *it == service) {
            let Ok(stream) = incoming.accept().await else {
                return;
            };
            let (nameplates, now) = (&self.inner.nameplates, self.inner.now());
            let served = if service == CODE_OFFER {
                // It is waited for by who offers, as a registration is.
                let _kept = context.keep_session();
                nameplates.offer(stream, &holder, now).await
            } else {
                nameplates.come(stream, &holder, now).await
            };
            if let Err(why) = served {
                let reason = Refused::Other(why.to_string());
                self.node.emit_refused(holder.id, service, reason);
            }
            return;
        }
        #[cfg(feature = "nat")]
        if service == SEEN {
            if let Ok(stream) = incoming.accept().await {
                self.say_where_seen(stream, &context, holder.id).await;
            }
            return;
        }
        if service == HOLDS {
            if let Ok(mut stream) = incoming.accept().await {
                holding::serve(&self.inner, &mut stream).await;
            }
            return;
        }
        let known = [REGISTER, MEMBER].into_iter().find(|it| *it == service);
        let service = known.unwrap_or(DIAL);
        let registers = service == REGISTER;
        let asker = match service {
            MEMBER => Asker::Member(holder.id),
            _ => Asker::Peer(&holder),
        };
        let Ok(mut stream) = incoming.accept().await else {
            return;
        };
        let refused = if registers {
            let served =
                registering::serve(&self.inner, &self.node, &mut stream, &context, &holder).await;
            served.map_err(|refusal| (stream, refusal))
        } else {
            circuits::serve(&self.inner, stream, &context, asker).await
        };
        if let Err((stream, refusal)) = refused {
            let reason = Refused::Other(refusal.to_string());
            self.node.emit_refused(holder.id, service, reason);
            self.refuse(stream, &refusal).await;
        }
    }

    /// Tells a peer where it is seen, which is where its session comes from now.
    #[cfg(feature = "nat")]
    async fn say_where_seen(
        &self,
        mut stream: Onion<Substream>,
        context: &CallContext,
        peer: PeerId,
    ) {
        let patience = self.inner.config.patience;
        let asked = timeout(patience, receive::<Seen>(&mut stream)).await;
        // Whatever else came, nobody is told anything.
        let (Ok(Ok(asked)), Some(path)) = (asked, context.session().path()) else {
            return;
        };
        let (relay, quic) = (self.node.identity(), self.node.quic_port());
        let answer = SeenAt::of(relay, peer, &path.remote, asked.nonce(), quic);
        if matches!(
            timeout(patience, send(&mut stream, &answer)).await,
            Ok(Ok(()))
        ) {
            linger_close(&mut stream, patience).await;
        }
    }

    /// Says why not, and leaves it to the peer to end the substream: a reset could overtake the answer.
    async fn refuse(&self, mut stream: Onion<Substream>, refusal: &Refusal) {
        self.inner.counts.refused.fetch_add(1, Ordering::Relaxed);
        let mut others = Vec::new();
        if refusal.status == Status::Full {
            others = self.inner.others(Order::Emptiest, MAX_OTHERS);
        }
        let reason = match others.first() {
            Some(emptiest) if refusal.reason.is_empty() => {
                format!("relay {} has room", emptiest.relay())
            }
            _ => refusal.reason.clone(),
        };
        let answer = Answer::refused(refusal.status, &reason).with_others(others);
        let patience = self.inner.config.patience;
        if matches!(
            timeout(patience, send(&mut stream, &answer)).await,
            Ok(Ok(()))
        ) {
            linger_close(&mut stream, patience).await;
        }
    }
}

impl Protocol for Relay {
    fn names(&self) -> &[&'static str] {
        &[
            REGISTER,
            DIAL,
            CODE_OFFER,
            CODE_USE,
            #[cfg(feature = "nat")]
            SEEN,
        ]
    }

    // `../../node/access_table.txt` has these names.
    fn admission(&self, _name: &str) -> Admission {
        Admission::Access(self.inner.access().clone())
    }

    fn refusal(&self) -> &'static str {
        "this relay does not serve you: ask its owner to allow your id"
    }

    // Only what it has a place for, or any stranger's session would be of use.
    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.serve_one(call).await })
    }

    // Circuits of others keep nobody from shutting down.
    fn delays_shutdown(&self) -> bool {
        false
    }
}

/// What a relay is for the other members of its fleet.
struct Member(Relay);

impl Protocol for Member {
    fn names(&self) -> &[&'static str] {
        &[MEMBER, HOLDS]
    }

    fn admission(&self, _name: &str) -> Admission {
        let fleet = self.0.inner.fleet.as_ref();
        Admission::Access(fleet.map_or(Access::Nobody, |joined| joined.fleet.members()))
    }

    fn refusal(&self) -> &'static str {
        "this relay's fleet does not have you: give your id at its --fleet-peer"
    }

    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.0.serve_one(call).await })
    }

    fn delays_shutdown(&self) -> bool {
        false
    }
}

/// Tells the fleet now and then what this relay holds.
async fn tell_load(relay: Weak<Inner>) {
    let mut warned: Option<Instant> = None;
    loop {
        let fleet = relay.upgrade();
        let Some(fleet) = fleet.and_then(|it| it.fleet.as_ref().map(|it| it.fleet.clone())) else {
            return;
        };
        let is_overwritten = tokio::select! {
            () = sleep(TELL_LOAD) => false,
            () = fleet.overwritten() => true,
        };
        let Some(relay) = relay.upgrade() else {
            return;
        };
        if !is_overwritten {
            relay.tell_load();
        } else if warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN)
            && let Some(Joined { node, .. }) = &relay.fleet
        {
            warned = Some(Instant::now());
            let relay = relay.id;
            node.emit(RelayEvent::IdentityShared { relay });
        }
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
