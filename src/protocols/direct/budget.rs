//! How often a node tries for direct paths. No IO, no clock.
//!
//! An attempt is [`MOST`](super::policy::MOST) addresses at most, and 16 SYNs to each of them (`punch.rs`). One of the addresses may be any public one
//! that the relay has signed, and [`MOST_ELSEWHERE`](super::policy::MOST_ELSEWHERE) may be private ones of other networks, if the relay says that both are behind one address;
//! the others lie in the network of this node's own address. So however many peers ask, and whatever a relay signs, a minute is no more than
//! 192 SYNs to public addresses elsewhere and 384 to private ones elsewhere.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::identity::PeerId;

/// The time that attempts are counted in.
const WINDOW: Duration = Duration::from_secs(60);

/// Attempts with one peer in that time: one that came to nothing, one behind a change of the network, one more.
const OF_A_PEER: usize = 3;

/// Of these, attempts that the peer has asked for: what is left is this node's own.
const ASKED_BY_A_PEER: usize = 2;

/// Attempts in that time: a node that comes back to its relay finds a few peers there.
const OF_ALL: usize = 12;

/// Of these, attempts that peers have asked for: four that ask as often as they may leave something to a fifth, and to this node's own.
const ASKED_BY_ALL: usize = 9;

/// Who begins an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This node.
    Own,
    /// The peer.
    Asked,
}

/// The latest attempts, no more than [`OF_ALL`].
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<VecDeque<(Instant, PeerId, Whose)>>);

impl Budget {
    /// Whether one more may be begun now; then it counts.
    pub(super) fn take(&self, peer: PeerId, whose: Whose, now: Instant) -> bool {
        // Each change is whole after the one statement that makes it.
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|(at, ..)| now.saturating_duration_since(*at) < WINDOW);
        let (mut of_peer, mut asked, mut asked_by_peer) = (0, 0, 0);
        for (_, it, whose) in &*latest {
            let (is_peer, is_asked) = (*it == peer, *whose == Whose::Asked);
            of_peer += usize::from(is_peer);
            asked += usize::from(is_asked);
            asked_by_peer += usize::from(is_peer && is_asked);
        }
        let may = latest.len() < OF_ALL
            && of_peer < OF_A_PEER
            && (whose == Whose::Own || asked < ASKED_BY_ALL && asked_by_peer < ASKED_BY_A_PEER);
        if may {
            latest.push_back((now, peer, whose));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::Whose::{Asked, Own};
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn neither_one_peer_nor_many_make_a_node_try_more_often() {
        let (budget, start) = (Budget::default(), Instant::now());
        let take = |n, whose| budget.take(peer(n), whose, start);
        let taken = (0..10).filter(|_| take(1, Asked)).count();
        assert_eq!(taken, ASKED_BY_A_PEER);
        let others = (2..200).filter(|n| take(*n, Asked)).count();
        assert_eq!(others, ASKED_BY_ALL - ASKED_BY_A_PEER);
        // What is left is the node's own.
        let own = (1..200).filter(|n| take(*n, Own)).count();
        assert_eq!(own, OF_ALL - ASKED_BY_ALL);
        let late = start + WINDOW - Duration::from_secs(1);
        assert!(!budget.take(peer(250), Own, late));
        assert!(budget.take(peer(1), Asked, start + WINDOW));
        assert!(budget.0.lock().unwrap().len() <= OF_ALL);
    }

    #[test]
    fn four_peers_that_ask_and_ask_leave_something_to_a_fifth() {
        let (budget, start) = (Budget::default(), Instant::now());
        let take = |n, whose| budget.take(peer(n), whose, start);
        for n in (1..=4).cycle().take(100) {
            let _ = take(n, Asked);
        }
        assert!(take(5, Asked));
        // This node has dialled one of them: that one's asking has not used up what the two have.
        assert!(take(1, Own));
        assert!(!take(1, Own), "more than {OF_A_PEER} with one peer");
    }
}
