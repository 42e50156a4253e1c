//! Names that are looked up for peers. A lookup takes a thread of the system that nobody can call back, so a place is held until it
//! has ended, whoever still waits for that; and no peer has more than its share of the places, however dead the names are that it
//! asks for. Whoever gives up while it waits for a place leaves the queue, and its name is never looked up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use cepa::identity::PeerId;
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// In all: trust policies and files need some of the threads, too.
const PLACES: usize = 32;
/// Of one peer.
const OF_A_PEER: usize = 8;
/// How long a name may be looked up, and a place be waited for.
const LOOKUP: Duration = Duration::from_secs(10);

struct Lookups {
    places: Arc<Semaphore>,
    /// Each peer's places, as long as it has a lookup.
    peers: Mutex<HashMap<PeerId, Weak<Semaphore>>>,
}

static LOOKUPS: LazyLock<Lookups> = LazyLock::new(Lookups::new);

/// The addresses of a name, in the resolver's order, or `None` after ten seconds.
pub(crate) async fn addresses_of(peer: PeerId, host: &str, port: u16) -> Option<Vec<IpAddr>> {
    let asked = (host.to_owned(), port);
    let lookup = async move {
        let found = lookup_host(asked).await.into_iter().flatten();
        found.map(|at| at.ip()).collect()
    };
    LOOKUPS.run(peer, lookup).await
}

impl Lookups {
    fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            peers: Mutex::default(),
        }
    }

    fn of(&self, peer: PeerId) -> Arc<Semaphore> {
        // Each change is whole after the one statement that makes it.
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = peers.get(&peer).and_then(Weak::upgrade) {
            return own;
        }
        peers.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(OF_A_PEER));
        peers.insert(peer, Arc::downgrade(&own));
        own
    }

    async fn run<T: Send + 'static>(
        &self,
        peer: PeerId,
        lookup: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let own = self.of(peer);
        let running = async {
            // The peer's own first, so that no peer waits for a place that another one waits to use.
            let own = own.acquire_owned().await.ok()?;
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let running = tokio::spawn(async move {
                let _places = (own, place);
                lookup.await
            });
            running.await.ok()
        };
        timeout(LOOKUP, running).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cepa::identity::{Identity, KeyKind};
    use futures::future::join_all;

    use super::*;

    fn peer() -> PeerId {
        Identity::generate(KeyKind::Ed25519).unwrap().peer_id()
    }

    #[tokio::test(start_paused = true)]
    async fn dead_names_of_one_peer_keep_no_other_peer_waiting() {
        let lookups = Lookups::new();
        let (greedy, other) = (peer(), peer());
        let dead = join_all((0..200).map(|_| lookups.run(greedy, pending::<()>())));
        let ours = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let start = tokio::time::Instant::now();
            assert_eq!(lookups.run(other, ready(7)).await, Some(7));
            assert_eq!(start.elapsed(), Duration::ZERO);
        };
        let (dead, ()) = tokio::join!(dead, ours);
        assert!(dead.iter().all(Option::is_none));
        assert_eq!(lookups.places.available_permits(), PLACES - OF_A_PEER);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_leaves_the_queue() {
        let lookups = Lookups::new();
        let peer = peer();
        let slow = || tokio::time::sleep(Duration::from_secs(15));
        let begun = Arc::new(AtomicUsize::new(0));
        let all = (0..100).map(|_| {
            let begun = Arc::clone(&begun);
            lookups.run(peer, async move {
                begun.fetch_add(1, Ordering::Relaxed);
                slow().await;
            })
        });
        assert!(join_all(all).await.iter().all(Option::is_none));
        // Ten seconds have passed; those that were under way end five later, and no other one begins.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(lookups.run(peer, ready(1)).await, Some(1));
        assert_eq!(begun.load(Ordering::Relaxed), OF_A_PEER);
        drop(lookups.of(peer));
        let _ = lookups.of(self::peer());
        assert_eq!(
            lookups.peers.lock().unwrap().len(),
            1,
            "the old one is gone"
        );
    }
}
