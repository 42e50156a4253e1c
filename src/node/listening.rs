//! The listeners of a node by their addresses, to end one that somebody else has made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cepa_transports::Endpoint;
use tokio_util::sync::CancellationToken;

/// The listeners of a node, by address.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: Arc<Mutex<HashMap<u64, Entry>>>,
    next: AtomicU64,
}

#[derive(Clone, Debug)]
struct Entry {
    endpoint: Endpoint,
    /// Told to end.
    close: CancellationToken,
    /// Tells that it is gone.
    gone: CancellationToken,
}

/// An entry, until it is dropped.
pub(super) struct Place {
    all: Arc<Mutex<HashMap<u64, Entry>>>,
    number: u64,
    entry: Entry,
}

impl Listeners {
    pub(super) fn enter(&self, endpoint: Endpoint) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            endpoint,
            close: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        lock(&self.all).insert(number, entry.clone());
        Place {
            all: Arc::clone(&self.all),
            number,
            entry,
        }
    }

    /// In the order in which they came.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let all = lock(&self.all);
        let mut all: Vec<_> = all
            .iter()
            .map(|(n, it)| (*n, it.endpoint.clone()))
            .collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, endpoint)| endpoint).collect()
    }

    /// Ends those at an address, waits until they are gone, and tells whether there was one.
    pub(super) async fn close(&self, endpoint: &Endpoint) -> bool {
        let there: Vec<Entry> = {
            let all = lock(&self.all);
            let there = all.values().filter(|it| it.endpoint == *endpoint);
            there.cloned().collect()
        };
        for it in &there {
            it.close.cancel();
        }
        for it in &there {
            it.gone.cancelled().await;
        }
        !there.is_empty()
    }
}

impl Place {
    /// Waits until the listener has to end.
    pub(super) async fn closed(&self) {
        self.entry.close.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.number);
        self.entry.gone.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
