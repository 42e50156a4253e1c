//! What a relay's tasks share: its two pools, and what stands for a place in each of them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa_transports::throttle::TokenBucket;
use futures::FutureExt as _;
use futures::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::identity::PeerId;
use crate::node::{Access, Node};
use crate::session::Session;
use crate::wire::Status;

use super::config::RelayConfig;
use super::fleet::{Fleet, Load, Order};
use super::message::{Elsewhere, MAX_OTHERS};
use super::nameplates::Nameplates;
use super::unread::Unread;
use crate::protocols::pool::{Denied, Held, Holder, Pool, Rules};

/// One part of the registrations may come from one host.
const REGISTRATIONS_A_HOST: usize = 4;

/// One part of the circuits may be dialled from one host.
const CIRCUITS_A_HOST: usize = 2;

/// One part of the circuits no single member of a fleet takes, in whosever name.
const LEFT_BY_MEMBER: usize = 4;

pub(super) struct Inner {
    pub(super) id: PeerId,
    /// Those that it had before.
    pub(super) former: Vec<PeerId>,
    pub(super) config: RelayConfig,
    access: Mutex<Access>,
    registrations: Mutex<Pool<Reach>>,
    circuits: Mutex<Pool<Line>>,
    pub(super) nameplates: Nameplates,
    gone: Gone,
    began: Instant,
    pub(super) counts: Counts,
    pub(super) fleet: Option<Joined>,
    /// Circuits between this member and another one.
    pub(super) unread: Unread,
    /// Circuits that each other member has asked for.
    by_member: Mutex<HashMap<PeerId, usize>>,
    /// It takes no registrations any more, and those that there are have to go.
    pub(super) leaving: CancellationToken,
}

/// A relay's place in its fleet.
pub(super) struct Joined {
    pub(super) fleet: Fleet,
    /// Has the sessions with the other members.
    pub(super) node: Node,
}

/// Counters, and what is not gone yet.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Circuits whose memory is not given back.
    pub(super) circuits: AtomicUsize,
    pub(super) carried: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) idle: AtomicU64,
    pub(super) unread: AtomicU64,
    pub(super) taken_back: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// A refusal on its way to whoever asked.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) reason: String,
}

/// How a registered peer is reached.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) session: Session,
    /// Ends the registration.
    pub(super) taken_back: CancellationToken,
    /// Another process with the peer's key is registered as well.
    pub(super) taken_over: Arc<Notify>,
}

/// A circuit, whether it is still being asked for or carries.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Of all circuits that its peer dialled.
    pub(super) rate: TokenBucket,
    /// Ends it.
    pub(super) taken_back: CancellationToken,
    /// When it last carried a byte, in milliseconds since the relay began.
    carried: Arc<AtomicU64>,
}

impl Held for Reach {
    fn used(&self, now: Duration) -> Duration {
        now
    }
}

impl Held for Line {
    fn used(&self, _now: Duration) -> Duration {
        Duration::from_millis(self.carried.load(Ordering::Relaxed))
    }
}

impl Inner {
    pub(super) fn new(id: PeerId, config: RelayConfig) -> Self {
        let (registrations, circuits) = (config.registrations, config.circuits);
        let of_one_host = |given: Option<usize>, all: usize, part| {
            // A small pool has at least one for each.
            given.unwrap_or_else(|| all.div_ceil(part))
        };
        let registrations = Rules {
            all: registrations,
            peer: config.registrations_a_peer,
            host: of_one_host(
                config.registrations_a_host,
                registrations,
                REGISTRATIONS_A_HOST,
            ),
            silent: Duration::MAX,
            min_life: Duration::ZERO,
            takes_last: false,
        };
        let circuits = Rules {
            all: circuits,
            peer: config.circuits_a_peer,
            host: of_one_host(config.circuits_a_host, circuits, CIRCUITS_A_HOST),
            silent: config.idle_when_full,
            min_life: config.min_life,
            takes_last: true,
        };
        Self {
            id,
            former: Vec::new(),
            access: Mutex::new(config.access.clone()),
            config,
            registrations: Mutex::new(Pool::new(registrations)),
            circuits: Mutex::new(Pool::new(circuits)),
            nameplates: Nameplates::new(),
            gone: Gone::default(),
            began: Instant::now(),
            counts: Counts::default(),
            fleet: None,
            unread: Unread::default(),
            by_member: Mutex::default(),
            leaving: CancellationToken::new(),
        }
    }

    /// Other relays of the fleet, at most so many.
    pub(super) fn others(&self, order: Order, most: usize) -> Vec<Elsewhere> {
        let fleet = self.fleet.as_ref().map(|joined| &joined.fleet);
        let others = fleet.map(|fleet| fleet.others(order, most.min(MAX_OTHERS)));
        let others = others.into_iter().flatten();
        others
            .map(|(relay, addresses)| Elsewhere::new(relay, &addresses))
            .collect()
    }

    /// One more circuit that a member asks for, whatever peers it names.
    pub(super) fn open_for_member(self: &Arc<Self>, member: PeerId) -> Result<OfMember, Denied> {
        let most = self.config.circuits - self.config.circuits / LEFT_BY_MEMBER;
        let mut all = lock(&self.by_member);
        let count = all.entry(member).or_default();
        if *count >= most {
            // Whom it names has done nothing for that.
            return Err(Denied::Full);
        }
        *count += 1;
        let relay = Arc::clone(self);
        Ok(OfMember { relay, member })
    }

    /// Tells the fleet what it holds.
    pub(super) fn tell_load(&self) {
        if let Some(Joined { fleet, .. }) = &self.fleet {
            fleet.set_load(self.load(), self.leaving.is_cancelled());
        }
    }

    /// What it holds, and may.
    pub(super) fn load(&self) -> Load {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut load = Load::default();
        load.registrations = number(self.registrations().len());
        load.most_registrations = number(self.config.registrations);
        load.circuits = number(self.counts.circuits.load(Ordering::Relaxed));
        load.most_circuits = number(self.config.circuits);
        load
    }

    pub(super) fn access(&self) -> MutexGuard<'_, Access> {
        lock(&self.access)
    }

    pub(super) fn registrations(&self) -> MutexGuard<'_, Pool<Reach>> {
        lock(&self.registrations)
    }

    pub(super) fn circuits(&self) -> MutexGuard<'_, Pool<Line>> {
        lock(&self.circuits)
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether a peer that was served when it came still is.
    pub(super) fn serves(&self, holder: &Holder) -> bool {
        let access = self.access();
        holder.ids().any(|id| access.lists(&id))
    }

    /// One more circuit, dialled by this peer.
    pub(super) fn open(self: &Arc<Self>, from: &Holder) -> Result<Open, Denied> {
        let now = self.now();
        let made = |sibling: Option<&Line>| Line {
            // Whatever its keys were, its circuits share one rate.
            rate: sibling.map_or_else(|| TokenBucket::new(self.config.rate), |it| it.rate.clone()),
            taken_back: CancellationToken::new(),
            carried: Arc::new(AtomicU64::new(millis(now))),
        };
        let mut line = None;
        let (number, lost) = self.circuits().take(from.clone(), now, |sibling| {
            line.insert(made(sibling)).clone()
        })?;
        self.end(lost.map(|line| line.taken_back));
        let line = line.ok_or(Denied::Full)?;
        self.counts.circuits.fetch_add(1, Ordering::Relaxed);
        Ok(Open {
            relay: Arc::clone(self),
            number,
            line,
        })
    }

    /// One more registration, of this peer, which has so many at other members of the fleet.
    pub(super) fn register(
        self: &Arc<Self>,
        holder: &Holder,
        session: &Session,
        elsewhere: usize,
    ) -> Result<Registered, Denied> {
        let reach = Reach {
            session: session.clone(),
            taken_back: CancellationToken::new(),
            taken_over: Arc::default(),
        };
        if elsewhere > 0 {
            let here = self.registrations().held_by(holder).len();
            let most = self.config.registrations_a_peer;
            if here.saturating_add(elsewhere) >= most {
                return Err(Denied::Peer(most));
            }
        }
        let (taken_back, taken_over) = (reach.taken_back.clone(), Arc::clone(&reach.taken_over));
        let taken = self
            .registrations()
            .take(holder.clone(), self.now(), |_| reach);
        let (number, lost) = taken?;
        self.end(lost.map(|reach| reach.taken_back));
        Ok(Registered {
            relay: Arc::clone(self),
            ids: holder.ids().collect(),
            announced: AtomicBool::new(false),
            number,
            taken_back,
            taken_over,
        })
    }

    /// Ends what was taken back.
    pub(super) fn end(&self, lost: Option<CancellationToken>) {
        if let Some(lost) = lost {
            self.counts.taken_back.fetch_add(1, Ordering::Relaxed);
            lost.cancel();
        }
    }
}

/// Ids that are to be taken out of the store, one after the other: the store may be slow, and whoever leaves does not wait for it.
#[derive(Default)]
struct Gone {
    waiting: Mutex<Waiting>,
    /// The one that is being taken out. Whoever enters the same one in the store waits for that, or a removal could overtake the next
    /// entry; nobody else does.
    now: watch::Sender<Option<PeerId>>,
}

#[derive(Default)]
struct Waiting {
    ids: VecDeque<PeerId>,
    /// Somebody takes them out.
    at_work: bool,
}

/// Ids that wait to be taken out of the store. What finds no room stays there until it runs out.
const MOST_GONE: usize = 1024;

impl Gone {
    /// Enters an id that nobody is registered by any more; whether somebody has to begin to take them out.
    fn add(&self, id: PeerId) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.ids.len() < MOST_GONE && !waiting.ids.contains(&id) {
            waiting.ids.push_back(id);
        }
        !std::mem::replace(&mut waiting.at_work, true)
    }

    fn next(&self) -> Option<PeerId> {
        let mut waiting = lock(&self.waiting);
        let next = waiting.ids.pop_front();
        waiting.at_work = next.is_some();
        next
    }

    /// Waits until none of these is being taken out.
    async fn not_now(&self, ids: &[PeerId]) {
        let mut now = self.now.subscribe();
        // The sender lives as long as this.
        let _ = now
            .wait_for(|now| !now.is_some_and(|now| ids.contains(&now)))
            .await;
    }
}

impl Inner {
    /// Takes out of the store who is gone, until there is nobody.
    async fn take_out(&self) {
        while let Some(id) = self.gone.next() {
            self.gone.now.send_replace(Some(id));
            // Another registration may stand for it as well. One that comes behind this look finds that it has to wait.
            let others = self.registrations().has(id);
            if !others {
                let removal = self.config.presence.remove(id, self.id);
                // What stays in the store runs out; and a store that panics does so for this one alone.
                let _ = timeout(
                    self.config.patience,
                    AssertUnwindSafe(removal).catch_unwind(),
                )
                .await;
            }
            self.gone.now.send_replace(None);
        }
    }
}

/// A registration, given back when dropped.
pub(super) struct Registered {
    relay: Arc<Inner>,
    /// All that the peer is reached by.
    pub(super) ids: Vec<PeerId>,
    /// The fleet knows of it.
    announced: AtomicBool,
    pub(super) number: u64,
    pub(super) taken_back: CancellationToken,
    pub(super) taken_over: Arc<Notify>,
}

impl Registered {
    /// Enters the peer in the store, by all its ids and for so long; whether that was done in time.
    pub(super) async fn announce(&self, lifetime: Duration) -> bool {
        let relay = &self.relay;
        if let Some(Joined { fleet, .. }) = &relay.fleet {
            // Whatever becomes of the store, it is entered there in time.
            let is_new = !self.announced.swap(true, Ordering::Relaxed);
            for (at, id) in self.ids.iter().enumerate() {
                let registrations = relay.registrations();
                let count = registrations.count(*id);
                if is_new {
                    let heir = self.ids.first().copied().filter(|_| at > 0);
                    fleet.register(*id, lifetime, heir, count);
                } else {
                    fleet.renew(*id, Some(lifetime), count);
                }
            }
            return true;
        }
        let entered = timeout(relay.config.patience, async {
            relay.gone.not_now(&self.ids).await;
            let one = |id: &PeerId| relay.config.presence.put(*id, relay.id, lifetime);
            join_all(self.ids.iter().map(one)).await
        });
        let entered = entered.await;
        entered.is_ok_and(|all| all.iter().all(Result::is_ok))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.relay.registrations().give_back(self.number);
        if let Some(Joined { fleet, .. }) = &self.relay.fleet {
            // Held meanwhile: a registration that is made behind this is entered behind it, too.
            let registrations = self.relay.registrations();
            for id in &self.ids {
                match registrations.count(*id) {
                    0 => fleet.remove(*id),
                    left => fleet.renew(*id, None, left),
                }
            }
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for id in &self.ids {
            if self.relay.gone.add(*id) {
                let relay = Arc::clone(&self.relay);
                runtime.spawn(async move { relay.take_out().await });
            }
        }
    }
}

/// A circuit's place among those of its dialler, given back when dropped; so whoever carries it drops this last.
pub(super) struct Open {
    pub(super) relay: Arc<Inner>,
    number: u64,
    pub(super) line: Line,
}

impl Open {
    /// It has carried something just now.
    pub(super) fn carried(&self) {
        let now = millis(self.relay.now());
        self.line.carried.store(now, Ordering::Relaxed);
    }

    /// For how long it has carried nothing.
    pub(super) fn unused(&self) -> Duration {
        let now = self.relay.now();
        now.saturating_sub(self.line.used(now))
    }
}

/// A circuit's place among those of a member, given back when dropped.
pub(super) struct OfMember {
    relay: Arc<Inner>,
    member: PeerId,
}

impl Drop for OfMember {
    fn drop(&mut self) {
        let mut all = lock(&self.relay.by_member);
        if let Some(count) = all.get_mut(&self.member) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.member);
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.relay.circuits().give_back(self.number);
        self.relay.counts.circuits.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Refusal {
    pub(super) fn of(status: Status) -> Self {
        Self {
            status,
            reason: String::new(),
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self {
            status: denied.status(),
            reason: denied.reason(),
        }
    }
}

/// For the relay's own log.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.status {
            Status::NotAllowed => "it is not served any more",
            Status::Full => "the relay has no room for more",
            Status::Quota => "it has as much as it may have",
            Status::NotRegistered => "nobody of that id is registered",
            Status::Refused => "the registered peer refused",
            Status::Unreachable => "the registered peer does not answer",
            Status::Loop => "it would be taken to itself, or to this relay",
            _ => "what it sent makes no sense",
        })?;
        match self.reason.as_str() {
            "" => Ok(()),
            reason => write!(f, " ({reason})"),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
