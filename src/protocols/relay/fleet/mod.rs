//! A fleet: relays that share who is registered at which of them, so that each leads to the peers of all.
//!
//! ```text
//!    dialler ---- relay A ------------ relay B ---- registered peer
//!                   |   one session       |
//!                   +------- store -------+      B wrote r/PEER/B, A has read it
//! ```
//!
//! The store is somebody else's (etcd, or whatever keeps keys under leases and tells of changes); what speaks with it is no part of this
//! crate. It calls [`Fleet`]: [`next_batch`](Fleet::next_batch), [`written`](Fleet::written) and [`failed`](Fleet::failed) for what is to be
//! written, [`begin_sync`](Fleet::begin_sync), [`apply`](Fleet::apply) and [`end_sync`](Fleet::end_sync) for what is read,
//! [`lease_lost`](Fleet::lease_lost) and [`set_reachable`](Fleet::set_reachable) for the rest. All that is here goes on while the store is away.
//!
//! Which relays belong together is said by their ids ([`FleetConfig::members`]). Who can write the store can have peers not found, and relays
//! connect to addresses in vain; whoever answers there has to prove a member's key, and behind it the peer its own.
//!
//! | file | holds |
//! | --- | --- |
//! | `entry.rs` | what stands in the store |
//! | `own.rs` | what the store is to be told |
//! | `view.rs` | what the store says |
//! | `engine.rs` | both, as one member has them |
//! | `lookups.rs` | how often somebody may ask for peers that there are not |

mod engine;
pub(super) mod entry;
mod lookups;
mod own;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::identity::{PeerId, UnixTime};
use crate::node::{Access, Hint};
use crate::protocols::pool::Who;

use self::engine::Engine;
pub(super) use self::engine::{Order, Route};
use self::lookups::Lookups;

pub use self::engine::Change;
pub use self::entry::{About, Load, MAX_ADDRESSES};
pub use self::own::{Batch, Write};
pub use self::view::Ignored;

/// What a member of a fleet is told at its start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FleetConfig {
    /// The relays that belong together; this one may be among them. An entry of any other is ignored.
    pub members: Vec<PeerId>,
    /// Where this one is reached, for the others and for nodes that have to go elsewhere; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<Hint>,
    /// For whom a circuit that another member asks for is carried; default nobody. [`RelayConfig::access`](super::RelayConfig::access)
    /// has to list them as well.
    pub callers: Access,
    /// Registrations at other members that are remembered; what is more is ignored. Default 4 million, of about 225 bytes each.
    pub most_entries: usize,
}

setters!(FleetConfig {
    with_members => members: Vec<PeerId>,
    with_addresses => addresses: Vec<Hint>,
    with_callers => callers: Access,
    with_most_entries => most_entries: usize,
});

impl FleetConfig {
    /// The defaults, with these members.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = PeerId>) -> Self {
        Self {
            members: members.into_iter().collect(),
            addresses: Vec::new(),
            callers: Access::Nobody,
            most_entries: 4 << 20,
        }
    }
}

/// Counters and gauges of a fleet, as one member has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetStats {
    /// Relays that belong to it, this one not counted.
    pub members: usize,
    /// Those of them that are there, as the store says.
    pub present: usize,
    /// Registrations here, by each id of their peers.
    pub own: usize,
    /// Changes here that the store does not have yet.
    pub waiting: usize,
    /// Registrations at other members.
    pub elsewhere: usize,
    /// Peers that are registered at other members.
    pub peers_elsewhere: usize,
    /// Lookups of peers that are not registered here.
    pub lookups: u64,
    /// Those of them that found nobody.
    pub missed: u64,
    /// Lookups that were refused, since their peer had missed too often.
    pub limited: u64,
    /// Circuits that go on to another member.
    pub outbound: u64,
    /// Circuits that another member brought.
    pub inbound: u64,
    /// Whether the store is heard of.
    pub reachable: bool,
    /// Leases that were lost.
    pub leases_lost: u64,
    /// Batches that the store has, and that failed.
    pub written: u64,
    /// Batches that failed.
    pub failed: u64,
    /// The last revision of the store that is known here.
    pub revision: u64,
    /// What was ignored of what the store says.
    pub ignored: Ignored,
}

/// A member's part in its fleet. Clones are the same one.
#[derive(Clone)]
pub struct Fleet(Arc<Shared>);

struct Shared {
    engine: Mutex<Engine>,
    callers: Mutex<Access>,
    lookups: Mutex<Lookups>,
    /// How often other members are asked what somebody has there.
    asks: Mutex<Lookups>,
    /// What the others are told of this one, as soon as it is a relay.
    about: Mutex<Told>,
    /// There may be something to write.
    changed: Notify,
    /// Somebody else has written what this member says of itself.
    overwritten: Notify,
    reachable: AtomicBool,
    began: Instant,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Told {
    about: About,
    is_relay: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    lookups: AtomicU64,
    missed: AtomicU64,
    limited: AtomicU64,
    pub(super) outbound: AtomicU64,
    pub(super) inbound: AtomicU64,
    leases_lost: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
}

impl Fleet {
    /// The part of this relay. Until something speaks with a store, it knows of no other member.
    #[must_use]
    pub fn new(relay: PeerId, config: FleetConfig) -> Self {
        let engine = Engine::new(relay, config.members, config.most_entries);
        let fleet = Self(Arc::new(Shared {
            engine: Mutex::new(engine),
            callers: Mutex::new(config.callers),
            lookups: Mutex::default(),
            asks: Mutex::default(),
            about: Mutex::default(),
            changed: Notify::new(),
            overwritten: Notify::new(),
            reachable: AtomicBool::new(true),
            began: Instant::now(),
            counts: Counts::default(),
        }));
        fleet.set_addresses(config.addresses);
        fleet
    }

    // ---- for what speaks with the store ----------------------------------------------------------

    /// Waits until there may be something to write.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&self) {
        loop {
            let changed = self.0.changed.notified();
            let now = self.0.began.elapsed();
            let due = self.engine().own.due(now);
            match due.map(|due| due.saturating_sub(now)) {
                Some(Duration::ZERO) => return,
                Some(left) => drop(timeout(left, changed).await),
                None => changed.await,
            }
        }
    }

    /// What the store has to be told next, at most so many writes, all of them under this member's lease. Nothing while another batch is
    /// with the store, and nothing of a peer of which something was written less than a second ago.
    #[must_use]
    pub fn next_batch(&self, most: usize) -> Option<Batch> {
        let now = self.0.began.elapsed();
        self.engine().next_batch(most, now)
    }

    /// The store has a batch, since this revision.
    pub fn written(&self, batch: u64, revision: u64) {
        self.0.counts.written.fetch_add(1, Ordering::Relaxed);
        let mut engine = self.engine();
        let before = engine.own.overwritten;
        engine.own.written(batch, revision);
        if engine.own.overwritten > before {
            self.0.overwritten.notify_one();
        }
        drop(engine);
        self.0.changed.notify_one();
    }

    /// Nobody knows what of a batch the store has: it is the first to be tried again.
    pub fn failed(&self, batch: u64) {
        self.0.counts.failed.fetch_add(1, Ordering::Relaxed);
        self.engine().own.failed(batch);
        self.0.changed.notify_one();
    }

    /// The lease is gone, and with it all that this member had entered. It is entered again, under another one.
    pub fn lease_lost(&self) {
        self.0.counts.leases_lost.fetch_add(1, Ordering::Relaxed);
        self.engine().own.lease_lost();
        self.0.changed.notify_one();
    }

    /// The store is heard of again, or not any more. A registration that is made while it is away loses, when both are known,
    /// against one that was entered elsewhere meanwhile.
    pub fn set_reachable(&self, reachable: bool) {
        self.0.reachable.store(reachable, Ordering::Relaxed);
        self.engine().set_reachable(reachable);
    }

    /// All that the store has comes next, each key by [`apply`](Self::apply).
    pub fn begin_sync(&self) {
        self.engine().begin_sync();
    }

    /// Something that the store has, or that has changed there.
    pub fn apply(&self, change: Change<'_>) {
        let mut engine = self.engine();
        let (id, before) = (engine.id, engine.own.overwritten);
        engine.apply(change);
        let is_overwritten = engine.own.overwritten > before;
        drop(engine);
        // Somebody may have deleted what is this member's, or have written it.
        if change.value.is_none() || change.key.ends_with(&id.to_string()) {
            self.0.changed.notify_one();
        }
        if is_overwritten {
            self.0.overwritten.notify_one();
        }
    }

    /// That was all that the store has at this revision: what did not come is gone, and what of it was this member's is written again.
    pub fn end_sync(&self, revision: u64) {
        self.engine().end_sync(revision);
        self.0.changed.notify_one();
    }

    /// The last revision that is known: changes are to be watched from the one behind it.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.engine().view.revision
    }

    // ---- for the relay's owner -------------------------------------------------------------------

    /// Changes where this relay is reached.
    pub fn set_addresses(&self, mut addresses: Vec<Hint>) {
        addresses.retain(|hint| entry::address(&hint.to_string()).is_some());
        addresses.truncate(MAX_ADDRESSES);
        self.tell(|told| told.about.addresses = addresses);
    }

    /// Changes for whom circuits are carried that other members ask for.
    pub fn set_callers(&self, callers: Access) {
        *lock(&self.0.callers) = callers;
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> FleetStats {
        let engine = self.engine();
        let ((own, waiting), (elsewhere, peers_elsewhere)) =
            (engine.own.counts(), engine.view.counts());
        let (members, present) = (engine.view.ids().len(), engine.view.present().count());
        let (ignored, revision) = (engine.view.ignored, engine.view.revision);
        drop(engine);
        let counts = &self.0.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FleetStats {
            members,
            present,
            own,
            waiting,
            elsewhere,
            peers_elsewhere,
            lookups: of(&counts.lookups),
            missed: of(&counts.missed),
            limited: of(&counts.limited),
            outbound: of(&counts.outbound),
            inbound: of(&counts.inbound),
            reachable: self.0.reachable.load(Ordering::Relaxed),
            leases_lost: of(&counts.leases_lost),
            written: of(&counts.written),
            failed: of(&counts.failed),
            revision,
            ignored,
        }
    }

    /// The other members that are there, with what each says of itself.
    #[must_use]
    pub fn present(&self) -> Vec<(PeerId, About)> {
        let engine = self.engine();
        let all = engine.view.present();
        all.map(|(id, about)| (id, about.clone())).collect()
    }

    // ---- for the relay ---------------------------------------------------------------------------

    pub(super) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(super) fn members(&self) -> Access {
        Access::peers(self.engine().view.ids().iter().copied())
    }

    pub(super) fn callers(&self) -> Access {
        lock(&self.0.callers).clone()
    }

    /// A new registration of a peer, which lasts so long; `count` are here by this id. `heir` is the peer's present id, if this is a former one.
    pub(super) fn register(
        &self,
        peer: PeerId,
        lifetime: Duration,
        heir: Option<PeerId>,
        count: usize,
    ) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.engine().own.register(peer, end(lifetime), heir, count);
        self.0.changed.notify_one();
    }

    /// It lasts so long from now on, if that is said; `count` are here by this id.
    pub(super) fn renew(&self, peer: PeerId, lifetime: Option<Duration>, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.engine().own.renew(peer, lifetime.map(end), count);
        self.0.changed.notify_one();
    }

    pub(super) fn remove(&self, peer: PeerId) {
        self.engine().own.remove(peer);
        self.0.changed.notify_one();
    }

    /// Waits until somebody else writes what this member says of itself.
    pub(super) async fn overwritten(&self) {
        self.0.overwritten.notified().await;
    }

    /// What this relay holds, and whether it is about to end.
    pub(super) fn set_load(&self, load: Load, leaving: bool) {
        self.tell(|told| {
            told.is_relay = true;
            env!("CARGO_PKG_VERSION").clone_into(&mut told.about.version);
            (told.about.load, told.about.leaving) = (load, leaving);
        });
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        let mut told = lock(&self.0.about);
        change(&mut told);
        if told.is_relay {
            self.engine().own.set_about(told.about.clone());
            self.0.changed.notify_one();
        }
    }

    /// Where to try for a peer, in this order.
    pub(super) fn routes(&self, peer: PeerId, here: bool) -> Option<Vec<Route>> {
        self.engine().routes(peer, here, now())
    }

    /// Whether somebody may ask for a peer that is not here; `at` is of the relay's clock.
    pub(super) fn may_look(&self, who: Who, at: Duration) -> bool {
        let may = lock(&self.0.lookups).may(who, at);
        let count = if may {
            &self.0.counts.lookups
        } else {
            &self.0.counts.limited
        };
        count.fetch_add(1, Ordering::Relaxed);
        may
    }

    /// It has found nobody.
    pub(super) fn missed(&self, who: Who, at: Duration) {
        self.0.counts.missed.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.lookups).missed(who, at);
    }

    /// How many registrations a peer has at each other member, as the store says: by whichever of its ids it has most there. Those that
    /// have most come first.
    pub(super) fn held_elsewhere(&self, ids: impl Iterator<Item = PeerId>) -> Vec<(PeerId, usize)> {
        let mut held: HashMap<PeerId, u32> = HashMap::new();
        let engine = self.engine();
        for (member, count) in ids.flat_map(|id| engine.view.held_elsewhere(id, now())) {
            let most = held.entry(member).or_default();
            *most = count.max(*most);
        }
        drop(engine);
        let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let mut held: Vec<_> = held.into_iter().collect();
        held.sort_by_key(|(member, count)| (std::cmp::Reverse(*count), *member));
        held.into_iter()
            .map(|(id, count)| (id, number(count)))
            .collect()
    }

    /// Whether other members may be asked once more what somebody has there; if so, that counts.
    pub(super) fn may_ask(&self, who: Who, at: Duration) -> bool {
        let mut asks = lock(&self.0.asks);
        let may = asks.may(who, at);
        if may {
            asks.missed(who, at);
        }
        may
    }

    /// Other members that take registrations: for one peer always in the same order, and each peer has its own; or the emptiest first.
    pub(super) fn others(&self, order: Order, most: usize) -> Vec<(PeerId, Vec<Hint>)> {
        let all = self.engine().others(order, most).into_iter();
        all.map(|(id, about)| (id, about.addresses)).collect()
    }

    /// Where a member is reached.
    pub(super) fn addresses(&self, member: PeerId) -> Vec<Hint> {
        let engine = self.engine();
        let about = engine.view.about(member);
        about.map_or_else(Vec::new, |about| about.addresses.clone())
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        lock(&self.0.engine)
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fleet").field(&self.stats()).finish()
    }
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

fn end(lifetime: Duration) -> u64 {
    now().saturating_add(lifetime.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
