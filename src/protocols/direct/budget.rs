//! How often a node tries for direct paths. No IO, no clock.
//!
//! An attempt is [`MOST`](super::policy::MOST) addresses at most, and 16 SYNs to each of them (`punch.rs`), where all but one of the addresses lie in
//! this node's own network. So however many peers ask, and whatever a relay signs, what is sent to addresses elsewhere is bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::identity::PeerId;

/// The time that attempts are counted in.
const WINDOW: Duration = Duration::from_secs(60);

/// Attempts with one peer in that time: one that came to nothing, one behind a change of the network, one more.
const OF_A_PEER: usize = 3;

/// Attempts in that time: a node that comes back to its relay finds a few peers there.
const OF_ALL: usize = 12;

/// The latest attempts, no more than [`OF_ALL`].
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<VecDeque<(Instant, PeerId)>>);

impl Budget {
    /// Whether one more may be begun now; then it counts.
    pub(super) fn take(&self, peer: PeerId, now: Instant) -> bool {
        // Each change is whole after the one statement that makes it.
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|(at, _)| now.saturating_duration_since(*at) < WINDOW);
        let of_peer = latest.iter().filter(|(_, it)| *it == peer).count();
        let may = of_peer < OF_A_PEER && latest.len() < OF_ALL;
        if may {
            latest.push_back((now, peer));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_one_peer_nor_many_make_a_node_try_more_often() {
        let (budget, start) = (Budget::default(), Instant::now());
        let peer = |n| PeerId::from_bytes([n; 32]);
        let taken = (0..10).filter(|_| budget.take(peer(1), start)).count();
        assert_eq!(taken, OF_A_PEER);
        let others = (2..200).filter(|n| budget.take(peer(*n), start)).count();
        assert_eq!(others, OF_ALL - OF_A_PEER);
        assert!(!budget.take(peer(250), start + WINDOW - Duration::from_secs(1)));
        assert!(budget.take(peer(1), start + WINDOW));
        assert!(budget.0.lock().unwrap().len() <= OF_ALL);
    }
}
