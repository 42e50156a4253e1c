//! How the store does: what an operator is shown, and what is said when it changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// What there is between a relay and its etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// HOST:PORT of the etcd that is used now; none while there is no connection.
    pub endpoint: Option<String>,
    /// Why the last connection ended, or did not come about; none while there is one.
    pub error: Option<String>,
    /// Since when that is so.
    pub since: Option<Instant>,
    /// The lease, under which all stands that this relay has entered.
    pub lease: Option<i64>,
    /// When etcd has last kept it alive.
    pub kept: Option<Instant>,
    /// Connections that came about.
    pub connections: u64,
    /// Times that everything was read.
    pub syncs: u64,
    /// Keys that were read, and changes that were watched.
    pub changes: u64,
    /// Keys that were written or deleted.
    pub writes: u64,
}

/// What has changed, for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// A connection stands, and what the others have entered is known.
    Ready {
        /// HOST:PORT of the etcd.
        endpoint: String,
        /// It is the first one.
        first: bool,
    },
    /// There is none; it is tried again until there is one. Said once for each reason.
    Away {
        /// Why.
        reason: String,
        /// Waiting may be of no use: TLS, the password, or a permission.
        is_configuration: bool,
    },
    /// The lease has ended; all is entered again.
    LeaseLost,
}

/// What hears of it.
pub type Listener = Arc<dyn Fn(StoreEvent) + Send + Sync>;

/// Shared between who keeps the store and who looks.
#[derive(Clone)]
pub(crate) struct Watcher {
    health: Arc<Mutex<Health>>,
    listener: Listener,
}

impl Watcher {
    pub(crate) fn new(listener: Listener) -> Self {
        Self {
            health: Arc::default(),
            listener,
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.lock().clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.lock());
    }

    pub(crate) fn say(&self, event: StoreEvent) {
        (self.listener)(event);
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        // Each change is whole before anything can panic.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
