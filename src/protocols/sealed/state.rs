//! What a node has to do with sealed messages: the services that take them, its mailbox, and whether it is a carrier.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::identity::PeerId;
use crate::node::{Access, Node};
use crate::protocols::fair::Payer;
use crate::protocols::places::{Place, Places};
use crate::protocols::pool::{Denied, Holder};
use crate::wire::Status;

use super::mailbox::{Mailbox, Opened, Sender};
use super::quota::{CarrierConfig, CarrierStats, Rate, rules};

/// Requests that a recipient looks at or works on at once, those that one peer brings, and that it brings in a
/// minute. A carrier brings those of many.
const AT_ONCE: usize = 64;
const AT_ONCE_OF_ONE: usize = 16;
const A_MINUTE: u32 = 6000;

/// What a handler says: the answer, or why there is none.
pub(super) type Answer = Result<Vec<u8>, String>;

/// Does what a request asks for.
pub(super) type Handler = Arc<dyn Fn(SealedCall) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A request for a service, which somebody has carried here.
#[derive(Debug)]
pub struct SealedCall {
    pub(super) opened: Opened,
    pub(super) by: PeerId,
    pub(super) allowed_as: PeerId,
}

impl SealedCall {
    /// Who has sent it, as its signature proves.
    pub fn sender(&self) -> PeerId {
        self.opened.sender()
    }

    /// The same, with the keys that it held before.
    pub fn who(&self) -> &Sender {
        self.opened.who()
    }

    /// The id by which it may ask: a former one where `access` names that. What is held for a sender
    /// ([`Node::hold`](crate::node::Node::hold)) is counted to this, so that all who have replaced one key have one share.
    pub fn allowed_as(&self) -> PeerId {
        self.allowed_as
    }

    /// Who has brought it: a carrier, or the sender itself.
    pub fn carrier(&self) -> PeerId {
        self.by
    }

    /// The name of the service that was asked for.
    pub fn service(&self) -> &str {
        self.opened.service()
    }

    /// What it says, at most [`MAX_BODY`](super::MAX_BODY) bytes.
    pub fn body(&self) -> &[u8] {
        self.opened.body()
    }
}

pub(super) struct Service {
    access: Access,
    pub(super) handler: Handler,
}

/// See the head of this file.
pub(super) struct State {
    pub(super) node: Node,
    pub(super) mailbox: Mailbox,
    pub(super) quota: Quota,
    /// Somebody sees to it that old keys are thrown away.
    pub(super) forgetting: AtomicBool,
    services: Mutex<HashMap<String, Arc<Service>>>,
    carrier: Mutex<Option<Arc<Carrier>>>,
}

impl State {
    pub(super) fn new(node: Node) -> Self {
        Self {
            mailbox: Mailbox::new(node.identity().clone()),
            node,
            quota: Quota::new(AT_ONCE, AT_ONCE_OF_ONE, A_MINUTE),
            forgetting: AtomicBool::new(false),
            services: Mutex::default(),
            carrier: Mutex::default(),
        }
    }

    pub(super) fn serve(&self, name: &str, access: Access, handler: Handler) {
        let service = Arc::new(Service { access, handler });
        // What is replaced is the application's code, which may call us when it is dropped: not under the lock.
        let replaced = lock(&self.services).insert(name.to_owned(), service);
        drop(replaced);
    }

    pub(super) fn withdraw(&self, name: &str) -> bool {
        let withdrawn = lock(&self.services).remove(name);
        withdrawn.is_some()
    }

    /// Whether requests are taken at all.
    pub(super) fn takes_any(&self) -> bool {
        !lock(&self.services).is_empty()
    }

    /// The service of that name, if that sender may ask for it, and as what. The sender is proven by its signature, and its
    /// former keys by their statements, so it is named or not; how the request came has no part in it.
    pub(super) fn find(&self, sender: &Sender, name: &str) -> Option<(Arc<Service>, Payer)> {
        let service = lock(&self.services).get(name).cloned()?;
        let payer = Payer::among(&service.access, sender.lineage())?;
        Some((service, payer))
    }

    pub(super) fn carry(&self, config: Option<CarrierConfig>) {
        *lock(&self.carrier) = config.map(|config| Arc::new(Carrier::new(config)));
    }

    pub(super) fn carrier(&self) -> Option<Arc<Carrier>> {
        lock(&self.carrier).clone()
    }

    pub(super) fn carrier_stats(&self) -> Option<CarrierStats> {
        self.carrier().map(|carrier| carrier.stats())
    }
}

/// What a carrier has on its way.
pub(super) struct Carrier {
    pub(super) config: CarrierConfig,
    pub(super) quota: Quota,
    carried: AtomicU64,
    refused: AtomicU64,
}

impl Carrier {
    fn new(config: CarrierConfig) -> Self {
        let quota = Quota::new(config.at_once, config.at_once_a_peer, config.a_minute);
        Self {
            config,
            quota,
            carried: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(super) fn count(&self, carried: bool) {
        let counter = if carried {
            &self.carried
        } else {
            &self.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn stats(&self) -> CarrierStats {
        CarrierStats {
            now: self.quota.places.held(),
            carried: self.carried.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// Who may have how many requests, at once and in a minute.
pub(super) struct Quota {
    since: Instant,
    places: Places,
    rate: Mutex<Rate>,
}

impl Quota {
    fn new(at_once: usize, at_once_a_peer: usize, a_minute: u32) -> Self {
        Self {
            since: Instant::now(),
            places: Places::new(rules(at_once, at_once_a_peer)),
            rate: Mutex::new(Rate::new(a_minute)),
        }
    }

    /// A place for one request, given back when dropped.
    pub(super) fn enter(&self, holder: Holder) -> Result<Place, Status> {
        let ids: Vec<PeerId> = holder.ids().collect();
        let place = self.places.take(holder).map_err(Denied::status)?;
        if lock(&self.rate).take(&ids, self.since.elapsed()) {
            Ok(place)
        } else {
            Err(Status::Quota)
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
