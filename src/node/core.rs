//! What all tasks of a node share: its services, its sessions, its word to stop.
//!
//! Handlers, protocols and routes are the application's code, and so is what happens when they are dropped: it may call the node.
//! So none of it runs, and none of it is dropped, while one of the locks here is held.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gate::Gate;
use crate::identity::{PeerId, TrustPolicy, UnixTime};
use crate::mux::GoAwayCode;
use crate::session::{Session, SessionEnd, reserved};
use crate::tls::Peer;

use super::access::Access;
use super::call::Call;
use super::config::NodeConfig;
use super::dials::{Dial, Dials};
use super::event::{Event, Events, Queue};
use super::farewells::Farewells;
use super::handler::HandlerOutput;
use super::listening::Listeners;
use super::live::Live;
use super::protocol::{Protocol, ProtocolError, Route, matches};
use super::seats::Seats;
use super::shares::Shares;
use super::table::{Origin, Table};

/// How long a peer may take to answer a goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(3);

/// How often it is looked whether those have said theirs that have to be first.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What it ends with is the text of its error, if there was one.
type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// A service that peers can open.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) access: Access,
    pub(super) handler: Handler,
}

impl Service {
    pub(super) fn new<H, F>(access: Access, handler: H) -> Self
    where
        H: FnOnce(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| {
            // Not in an async block: that has room for what it captures and for what it awaits.
            handler.clone()(call).map(HandlerOutput::into_error).boxed()
        });
        Self { access, handler }
    }
}

type Services = Arc<Mutex<BTreeMap<String, Service>>>;
type Rest = Arc<Mutex<Option<Service>>>;

/// A protocol, and the names that it had when it was added.
struct Added {
    names: Vec<&'static str>,
    protocol: Arc<dyn Protocol>,
}

pub(super) struct Core {
    pub(super) config: NodeConfig,
    pub(super) id: PeerId,
    pub(super) gate: Gate,
    /// Of those that the gate has no place for.
    pub(super) farewells: Arc<Farewells>,
    pub(super) shares: Shares,
    /// Of the sessions that came in.
    pub(super) seats: Seats,
    /// Dials that are under way.
    pub(super) dials: Dials<Dial>,
    /// Peers that a direct way is looked for to.
    pub(super) upgrading: Mutex<HashSet<PeerId>>,
    services: Services,
    /// For every name that has no service of its own.
    rest: Rest,
    protocols: Mutex<Vec<Added>>,
    route: Mutex<Option<Arc<dyn Route>>>,
    table: Mutex<Table<Live>>,
    pub(super) listeners: Listeners,
    events: Queue,
    /// Nothing new is taken from then on.
    pub(super) stop: CancellationToken,
    /// What is still there ends: sessions by themselves, and handlers behind them.
    over: CancellationToken,
    /// Listeners, sessions, handlers, and whatever else runs for the node.
    pub(super) tasks: TaskTracker,
    /// Handlers that a shutdown waits for.
    pub(super) handlers: TaskTracker,
}

impl Core {
    pub(super) fn new(config: NodeConfig) -> Self {
        let id = config.stack.identity.peer_id();
        let (shares, seats) = (Shares::new(config.shares), Seats::default());
        shares.relieved_by(seats.relief());
        let (services, rest) = (Services::default(), Rest::default());
        let (all, beside) = (Arc::clone(&services), Arc::clone(&rest));
        shares.listed_by(move |ids| {
            let names = |service: &Service| service.access.names_one_of(ids);
            lock(&all).values().any(names) || lock(&beside).as_ref().is_some_and(names)
        });
        Self {
            id,
            gate: Gate::new(config.gate.clone()),
            farewells: Arc::default(),
            shares,
            seats,
            dials: Dials::default(),
            upgrading: Mutex::default(),
            services,
            rest,
            protocols: Mutex::default(),
            route: Mutex::default(),
            table: Mutex::new(Table::new(id)),
            listeners: Listeners::default(),
            events: Queue::new(),
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
            tasks: TaskTracker::new(),
            handlers: TaskTracker::new(),
            config,
        }
    }

    // ---- services ------------------------------------------------------------------------------

    pub(super) fn serve(&self, name: String, service: Service) {
        let replaced = lock(&self.services).insert(name, service);
        drop(replaced);
    }

    pub(super) fn serve_rest(&self, service: Service) {
        let replaced = lock(&self.rest).replace(service);
        drop(replaced);
    }

    pub(super) fn withdraw(&self, name: &str) -> bool {
        let withdrawn = lock(&self.services).remove(name);
        withdrawn.is_some()
    }

    /// Names in order, each with who may open it.
    pub(super) fn offered(&self) -> Vec<(String, Access)> {
        let services = lock(&self.services);
        let one = |(name, service): (&String, &Service)| (name.clone(), service.access.clone());
        services.iter().map(one).collect()
    }

    /// What serves the names that are not offered.
    pub(super) fn rest(&self) -> Option<Service> {
        lock(&self.rest).clone()
    }

    pub(super) fn allow(&self, name: &str, access: Access) -> bool {
        let mut services = lock(&self.services);
        let service = services.get_mut(name);
        service.map(|service| service.access = access).is_some()
    }

    /// Whether the node's own trust knows a peer by name; asks it off the runtime, since it may read a file.
    pub(super) async fn names(&self, peer: &Peer) -> bool {
        let (trust, peer) = (Arc::clone(&self.config.stack.trust), peer.clone());
        let asked = tokio::task::spawn_blocking(move || is_named(&*trust, &peer));
        // A policy that panics knows nobody.
        asked.await.unwrap_or(false)
    }

    /// The service of that name, or what stands for all that have none of their own.
    pub(super) fn service(&self, name: &str) -> Option<Service> {
        let named = lock(&self.services).get(name).cloned();
        named.or_else(|| self.rest())
    }

    /// The service of that very name.
    pub(super) fn named_service(&self, name: &str) -> Option<Service> {
        lock(&self.services).get(name).cloned()
    }

    // ---- protocols -----------------------------------------------------------------------------

    pub(super) fn add_protocol(&self, protocol: Arc<dyn Protocol>) -> Result<(), ProtocolError> {
        let names = protocol.names().to_vec();
        let mut protocols = lock(&self.protocols);
        for name in names.iter().copied() {
            if !reserved::is_reserved(name) {
                return Err(ProtocolError::Name { name });
            }
            let mut there = protocols.iter().flat_map(|other| &other.names);
            if there.any(|other| *other == name || matches(other, name) || matches(name, other)) {
                return Err(ProtocolError::Taken { name });
            }
        }
        protocols.push(Added { names, protocol });
        Ok(())
    }

    /// Whether it is the id of this node, or one that it had before.
    pub(super) fn is_own(&self, id: &PeerId) -> bool {
        self.config.stack.identity.is(id)
    }

    /// The protocol that has this name.
    pub(super) fn protocol(&self, name: &str) -> Option<Arc<dyn Protocol>> {
        let protocols = lock(&self.protocols);
        let mut all = protocols.iter();
        let has = |it: &&Added| it.names.iter().any(|own| matches(own, name));
        all.find(has).map(|it| Arc::clone(&it.protocol))
    }

    pub(super) fn set_route(&self, route: Arc<dyn Route>) {
        let replaced = lock(&self.route).replace(route);
        drop(replaced);
    }

    pub(super) fn route(&self) -> Option<Arc<dyn Route>> {
        lock(&self.route).clone()
    }

    // ---- sessions ------------------------------------------------------------------------------

    pub(super) fn table(&self) -> MutexGuard<'_, Table<Live>> {
        lock(&self.table)
    }

    pub(super) fn chosen(&self, peer: PeerId) -> Option<(u64, Origin, Live)> {
        self.table().chosen(peer)
    }

    /// Takes a session out that takes nothing more: it is over, though its task has not noticed yet, or is as good as
    /// superseded.
    pub(super) fn forget(&self, session: &Session) {
        let forgotten = self.table().forget(|live| live.session.is_same(session));
        for live in forgotten {
            live.superseded.notify_one();
        }
    }

    pub(super) fn sessions(&self) -> Vec<(PeerId, Live)> {
        self.table().all()
    }

    // ---- events and the end --------------------------------------------------------------------

    pub(super) fn events(&self) -> Events {
        self.events.watch()
    }

    pub(super) fn emit(&self, event: Event) {
        event.observe();
        self.events.emit(event);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the node shuts down.
    pub(super) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits until the shutdown waits for nobody any more.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Ends everything, without waiting: each session takes leave of its peer in its own task.
    pub(super) fn end(&self) {
        self.stop.cancel();
        self.over.cancel();
    }

    /// Waits, as long as a goodbye may take, until no session leads through this peer: what a relay carries has taken leave before
    /// the session with the relay does, or its peers would read that they were cut off.
    pub(super) async fn nothing_goes_through(&self, relay: PeerId) {
        let gone = async {
            let leads_there = |(_, live): &(PeerId, Live)| live.current().via.contains(&relay);
            while self.sessions().iter().any(leads_there) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout(GOODBYE, gone).await;
    }

    /// Closes a session because the node shuts down, and says how it ended.
    pub(super) async fn close(&self, session: &Session) -> SessionEnd {
        let parted = timeout(GOODBYE, async {
            session.close_with(GoAwayCode::ShuttingDown).await;
            session.closed().await
        });
        parted.await.unwrap_or(SessionEnd::Closed)
    }

    pub(super) async fn shutdown(&self, patience: Duration) {
        self.stop.cancel();
        if Handle::try_current().is_err() {
            // Without timers nothing can be waited for.
            return self.end();
        }
        self.handlers.close();
        let _ = timeout(patience, self.handlers.wait()).await;
        self.end();
        // Handlers may hold handles on this node.
        let services = mem::take(&mut *lock(&self.services));
        let rest = lock(&self.rest).take();
        let protocols = mem::take(&mut *lock(&self.protocols));
        let route = lock(&self.route).take();
        drop((services, rest, protocols, route));
        // What listens is gone when this returns. Its sessions and handlers have their time to end, one behind the other.
        self.tasks.close();
        let _ = timeout(2 * GOODBYE, self.tasks.wait()).await;
    }
}

fn is_named(trust: &dyn TrustPolicy, peer: &Peer) -> bool {
    peer.judged_by(trust, UnixTime::now()).unwrap_or(false)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
