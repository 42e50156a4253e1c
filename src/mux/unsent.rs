//! What a session holds of data that waits to be sent, where that is paid for by a pool.
//!
//! A peer that opens many streams and reads none makes this end hold what it would be sent. One stream holds at most
//! [`Config::send_queue`](super::Config::send_queue); the sum comes from the same pool as what arrives. Where the pool has no
//! room a stream takes [`LEAST`] bytes and no more, so that each goes on, if slowly: a writer waits for its own queue to
//! drain, and never for the pool.
//!
//! From the pool it takes in steps, so that it is asked now and then and not for each write.

use super::pool::{Member, ReceivePool};
use super::wakes::Wakes;

/// What every session may hold without asking.
const FREE: usize = 64 << 10;

/// What is taken from the pool beyond what is needed, and kept for what comes next.
const STEP: usize = 64 << 10;

/// What one stream may hold when the pool has no room.
const LEAST: usize = 2 << 10;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Unsent {
    held: usize,
    member: Option<Member>,
}

impl Unsent {
    pub(crate) fn new(pool: Option<ReceivePool>) -> Self {
        Self {
            held: 0,
            member: pool.map(Member::new),
        }
    }

    /// How many of `wanted` bytes a stream may queue that holds `len`.
    pub(crate) fn space(&mut self, len: usize, wanted: usize, wakes: &mut Wakes) -> usize {
        let Some(member) = &mut self.member else {
            return wanted;
        };
        let goal = self.held.saturating_add(wanted.min(STEP));
        let missing = goal.saturating_sub(FREE + member.taken());
        if missing > 0 {
            // Whoever waits for room to read goes first.
            member.take(missing, missing + STEP, None, wakes);
        }
        let paid = (FREE + member.taken()).saturating_sub(self.held);
        wanted.min(paid.max(LEAST.saturating_sub(len)))
    }

    /// A stream that held `before` bytes holds `after`.
    pub(crate) fn change(&mut self, before: usize, after: usize, wakes: &mut Wakes) {
        debug_assert!(before <= self.held, "a part is never more than the whole");
        self.held = self.held.saturating_sub(before) + after;
        if after >= before {
            return;
        }
        if let Some(member) = &mut self.member {
            let above = self.held.saturating_sub(FREE);
            let surplus = member.taken().saturating_sub(above);
            if above == 0 {
                member.give(surplus, wakes);
            } else if surplus >= 2 * STEP {
                member.give(surplus - STEP, wakes);
            }
        }
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: usize = 128 << 10;

    #[test]
    fn without_a_pool_there_is_no_bound_but_the_queue_s() {
        let mut unsent = Unsent::new(None);
        let wakes = &mut Wakes::default();
        assert_eq!(unsent.space(0, QUEUE, wakes), QUEUE);
        unsent.change(0, QUEUE, wakes);
        assert_eq!(unsent.held(), QUEUE);
    }

    #[test]
    fn many_streams_hold_what_the_pool_gives_and_a_little_each() {
        let pool = ReceivePool::new(4 << 20);
        let mut unsent = Unsent::new(Some(pool.clone()));
        let wakes = &mut Wakes::default();
        let mut streams = vec![0; 4096];
        // Each takes what it gets, again and again.
        for _ in 0..8 {
            for len in &mut streams {
                let space = unsent.space(*len, QUEUE - *len, wakes);
                unsent.change(*len, *len + space, wakes);
                *len += space;
            }
        }
        let all: usize = streams.iter().sum();
        assert_eq!(all, unsent.held());
        assert!(all <= (4 << 20) + FREE + streams.len() * LEAST, "{all}");
        assert!(streams.iter().all(|len| *len >= LEAST), "each goes on");
        // Sent, it is given back.
        for len in streams {
            unsent.change(len, 0, wakes);
        }
        assert_eq!((unsent.held(), pool.used()), (0, 0));
    }
}
