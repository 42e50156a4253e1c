//! Where a registered peer is to be found.
//!
//! A relay keeps the sessions of its own registered peers itself; a [`Presence`] only says *that* a peer
//! is registered, and at which relay. [`InMemory`] knows one process. A fleet of relays shares one
//! `Presence` over a store that it has already ([`RelayConfig::presence`](super::RelayConfig::presence)), and tells a
//! dialler which of them to ask.

use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::identity::PeerId;

/// Remembers at which relay a peer is registered, for as long as the registration lasts.
///
/// Every call may be slow, since the store may be elsewhere; none may block. An error refuses
/// what was asked for, and is told to the peer as "full" or "unreachable", without its text.
pub trait Presence: Send + Sync + 'static {
    /// Registers `peer` at `relay` for so long, in place of what was there for the same two.
    fn put(&self, peer: PeerId, relay: PeerId, lifetime: Duration)
    -> BoxFuture<'_, io::Result<()>>;

    /// The relays at which `peer` is registered now.
    fn get(&self, peer: PeerId) -> BoxFuture<'_, io::Result<Vec<PeerId>>>;

    /// Takes a registration back.
    fn remove(&self, peer: PeerId, relay: PeerId) -> BoxFuture<'_, io::Result<()>>;
}

/// The registrations of one process. How many there are, the relay's own limits bound.
#[derive(Debug, Default)]
pub struct InMemory {
    peers: Mutex<HashMap<PeerId, Vec<(PeerId, Instant)>>>,
}

impl InMemory {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<PeerId, Vec<(PeerId, Instant)>>) -> T) -> T {
        change(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Presence for InMemory {
    fn put(
        &self,
        peer: PeerId,
        relay: PeerId,
        lifetime: Duration,
    ) -> BoxFuture<'_, io::Result<()>> {
        self.with(|peers| {
            let relays = peers.entry(peer).or_default();
            relays.retain(|(known, _)| *known != relay);
            relays.push((relay, Instant::now() + lifetime));
        });
        Box::pin(ready(Ok(())))
    }

    fn get(&self, peer: PeerId) -> BoxFuture<'_, io::Result<Vec<PeerId>>> {
        let now = Instant::now();
        let found = self.with(|peers| {
            let relays = peers.get(&peer)?;
            let alive = relays.iter().filter(|(_, until)| now < *until);
            Some(alive.map(|(relay, _)| *relay).collect())
        });
        Box::pin(ready(Ok(found.unwrap_or_default())))
    }

    fn remove(&self, peer: PeerId, relay: PeerId) -> BoxFuture<'_, io::Result<()>> {
        self.with(|peers| {
            if let Some(relays) = peers.get_mut(&peer) {
                relays.retain(|(known, _)| *known != relay);
                if relays.is_empty() {
                    peers.remove(&peer);
                }
            }
        });
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_registration_lasts_as_long_as_it_says() {
        let [peer, one, two] = [1, 2, 3].map(|n| PeerId::from_bytes([n; 32]));
        let all = InMemory::default();
        assert_eq!(all.get(peer).await.unwrap(), []);
        all.put(peer, one, Duration::from_secs(10)).await.unwrap();
        all.put(peer, two, Duration::from_secs(20)).await.unwrap();
        assert_eq!(all.get(peer).await.unwrap(), [one, two]);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(all.get(peer).await.unwrap(), [two]);
        all.put(peer, two, Duration::from_secs(20)).await.unwrap();
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(all.get(peer).await.unwrap(), [two], "renewed");
        all.remove(peer, two).await.unwrap();
        all.remove(peer, one).await.unwrap();
        assert_eq!(all.get(peer).await.unwrap(), []);
        assert!(all.with(|peers| peers.is_empty()));
    }
}
