//! What all tasks of a node share: its services, its sessions, its word to stop.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::timeout;

use crate::gate::Gate;
use crate::identity::{PeerId, UnixTime};
use crate::relay::Relay;
use crate::session::Session;

use super::access::Access;
use super::call::{Call, Path};
use super::config::NodeConfig;
use super::event::{Event, Events};
use super::introduction::book::Book;
use super::sealed::state::State as Sealed;
use super::table::{Origin, Table};
use super::turns::Turns;

/// Events that a slow watcher may be behind.
const EVENTS: usize = 1024;

/// How long a peer may take to answer a goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, ()> + Send + Sync>;

/// A service that peers can open.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) access: Access,
    pub(super) handler: Handler,
}

impl Service {
    fn new<H, F>(access: Access, handler: H) -> Self
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        Self { access, handler }
    }
}

/// A session that is up.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) path: Path,
}

pub(super) struct Core {
    pub(super) config: NodeConfig,
    pub(super) id: PeerId,
    pub(super) relay: Option<Relay>,
    pub(super) gate: Gate,
    /// Turns at dialling a peer.
    pub(super) turns: Turns,
    /// Peers that a direct way is looked for to.
    pub(super) upgrading: Mutex<HashSet<PeerId>>,
    services: Mutex<HashMap<String, Service>>,
    /// For every name that has no service of its own.
    rest: Mutex<Option<Service>>,
    /// Who may introduce others to a service.
    introducers: Mutex<HashMap<String, Access>>,
    book: Mutex<Book>,
    pub(super) sealed: Sealed,
    /// Places for substreams that are forwarded.
    pub(super) forwards: Arc<Semaphore>,
    table: Mutex<Table<Live>>,
    /// Relays that may bring us circuits.
    relays: Mutex<HashSet<PeerId>>,
    events: broadcast::Sender<Event>,
    stop: watch::Sender<bool>,
    /// Handlers at work.
    busy: watch::Sender<usize>,
}

impl Core {
    pub(super) fn new(config: NodeConfig, relay: Option<Relay>) -> Self {
        let id = config.stack.identity.peer_id();
        Self {
            id,
            relay,
            gate: Gate::new(config.gate.clone()),
            turns: Turns::default(),
            upgrading: Mutex::default(),
            services: Mutex::default(),
            rest: Mutex::default(),
            introducers: Mutex::default(),
            book: Mutex::new(Book::new(UnixTime::now())),
            sealed: Sealed::new(&config.stack.identity),
            forwards: Arc::new(Semaphore::new(config.forwards.min(Semaphore::MAX_PERMITS))),
            table: Mutex::new(Table::new(id)),
            relays: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            stop: watch::Sender::new(false),
            busy: watch::Sender::new(0),
            config,
        }
    }

    // ---- services ------------------------------------------------------------------------------

    pub(super) fn serve<H, F>(&self, name: &str, access: Access, handler: H)
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        lock(&self.services).insert(name.to_owned(), Service::new(access, handler));
    }

    pub(super) fn serve_rest<H, F>(&self, access: Access, handler: H)
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        *lock(&self.rest) = Some(Service::new(access, handler));
    }

    pub(super) fn withdraw(&self, name: &str) -> bool {
        lock(&self.introducers).remove(name);
        lock(&self.services).remove(name).is_some()
    }

    pub(super) fn service_names(&self) -> Vec<String> {
        let services = lock(&self.services);
        let mut names: Vec<String> = services
            .keys()
            .filter(|name| is_plain(name))
            .cloned()
            .collect();
        names.sort();
        names
    }

    pub(super) fn allow(&self, name: &str, access: Access) -> bool {
        let mut services = lock(&self.services);
        let service = services.get_mut(name);
        service.map(|service| service.access = access).is_some()
    }

    /// The service of that name for that peer, or why not. A service that a peer may not open and one
    /// that does not exist are the same to it.
    pub(super) fn find(&self, peer: PeerId, name: &str) -> Result<Service, &'static str> {
        let services = lock(&self.services);
        let open = |service: &&Service| service.access.allows(&peer);
        let found = if name.is_empty() {
            let plain = services.iter().filter(|(name, _)| is_plain(name));
            let mut all = plain.map(|(_, service)| service).filter(open);
            let only = all.next();
            if all.next().is_some() {
                return Err("name a service: there are several");
            }
            only
        } else {
            services.get(name).filter(open)
        };
        found
            .cloned()
            .or_else(|| lock(&self.rest).clone().filter(|rest| open(&rest)))
            .ok_or("no service of this name is open to you")
    }

    /// The service of that name, whoever asks.
    pub(super) fn service(&self, name: &str) -> Option<Service> {
        lock(&self.services).get(name).cloned()
    }

    // ---- introductions -------------------------------------------------------------------------

    pub(super) fn introducers(&self, name: &str, who: Access) {
        lock(&self.introducers).insert(name.to_owned(), who);
    }

    pub(super) fn may_introduce(&self, name: &str, issuer: &PeerId) -> bool {
        let introducers = lock(&self.introducers);
        introducers.get(name).is_some_and(|who| who.allows(issuer))
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    // ---- sessions ------------------------------------------------------------------------------

    pub(super) fn table(&self) -> MutexGuard<'_, Table<Live>> {
        lock(&self.table)
    }

    pub(super) fn chosen(&self, peer: PeerId) -> Option<(u64, Origin, Live)> {
        self.table().chosen(peer)
    }

    pub(super) fn sessions(&self) -> Vec<(PeerId, Live)> {
        self.table().all()
    }

    // ---- relays --------------------------------------------------------------------------------

    pub(super) fn takes_circuits_of(&self, relay: PeerId) -> bool {
        lock(&self.relays).contains(&relay)
    }

    pub(super) fn take_circuits_of(&self, relay: PeerId) {
        lock(&self.relays).insert(relay);
    }

    pub(super) fn take_no_circuits_of(&self, relay: PeerId) {
        lock(&self.relays).remove(&relay);
    }

    // ---- events and the end --------------------------------------------------------------------

    pub(super) fn events(&self) -> Events {
        Events::new(self.events.subscribe())
    }

    pub(super) fn tell(&self, event: Event) {
        // Nobody watching is nobody's error.
        let _ = self.events.send(event);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the node shuts down.
    pub(super) async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        // What it gives holds a lock, and must not live on in the caller's task.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// A handler is at work until this is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.send_modify(|busy| *busy += 1);
        Busy(Arc::clone(self))
    }

    pub(super) async fn shutdown(&self, patience: Duration) {
        self.stop.send_replace(true);
        let mut busy = self.busy.subscribe();
        let _ = timeout(patience, busy.wait_for(|busy| *busy == 0)).await;
        let closing = self.sessions().into_iter().map(|(_, live)| async move {
            let _ = timeout(GOODBYE, live.session.close()).await;
        });
        futures::future::join_all(closing).await;
    }
}

/// Whether a service is there for its own sake, and not as another form of one (`cepa.console.`).
fn is_plain(name: &str) -> bool {
    !name.starts_with("cepa.")
}

pub(super) struct Busy(Arc<Core>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
