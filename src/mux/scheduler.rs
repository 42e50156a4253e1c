//! Who sends next. This file knows streams only by key, and nothing of frames: to send in another
//! order, replace it.
//!
//! Three lanes, each round robin, each holding a stream at most once:
//! - control: opening, acknowledging, credit, ends. Small, and everything else waits for it;
//! - urgent: streams with little queued (a keystroke, a request), so that they never stand behind
//!   bulk;
//! - bulk: the rest, one frame a turn.
//!
//! Urgent goes before bulk, with a bound: after [`URGENT_RUN`] bytes of urgent data in a row one
//! bulk frame goes, so that a flood of small messages can not starve it.

use std::collections::VecDeque;

use super::store::Key;

/// A stream with at most this many bytes queued is urgent.
pub(crate) const URGENT_MAX: usize = 1 << 10;

/// Urgent bytes in a row before one bulk frame goes.
const URGENT_RUN: usize = 16 << 10;

/// Where a stream waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Control,
    Urgent,
    Bulk,
}

#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    control: VecDeque<Key>,
    urgent: VecDeque<Key>,
    bulk: VecDeque<Key>,
    /// Urgent bytes since the last bulk frame.
    urgent_run: usize,
}

impl Scheduler {
    /// Puts a stream at the end of a lane. The caller sees to it that it is there only once.
    pub(crate) fn push(&mut self, key: Key, lane: Lane) {
        match lane {
            Lane::Control => self.control.push_back(key),
            Lane::Urgent => self.urgent.push_back(key),
            Lane::Bulk => self.bulk.push_back(key),
        }
    }

    /// The stream whose turn it is, taken out of its lane.
    pub(crate) fn next(&mut self) -> Option<(Key, Lane)> {
        if let Some(key) = self.control.pop_front() {
            return Some((key, Lane::Control));
        }
        if (self.urgent_run < URGENT_RUN || self.bulk.is_empty())
            && let Some(key) = self.urgent.pop_front()
        {
            return Some((key, Lane::Urgent));
        }
        self.urgent_run = 0;
        let key = self.bulk.pop_front()?;
        Some((key, Lane::Bulk))
    }

    /// Tells that `bytes` went out of `lane`.
    pub(crate) fn sent(&mut self, lane: Lane, bytes: usize) {
        if lane == Lane::Urgent {
            self.urgent_run = self.urgent_run.saturating_add(bytes);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.urgent.is_empty() && self.bulk.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::super::store::Store;
    use super::super::stream_entry::Entry;
    use super::*;

    fn keys(n: u32) -> Vec<Key> {
        let mut store = Store::default();
        let now = std::time::Instant::now();
        (1..=n)
            .map(|id| store.insert(Entry::opened_here(id, &Config::default(), now)))
            .collect()
    }

    #[test]
    fn control_before_urgent_before_bulk_each_in_turn() {
        let keys = keys(6);
        let mut scheduler = Scheduler::default();
        scheduler.push(keys[0], Lane::Bulk);
        scheduler.push(keys[1], Lane::Bulk);
        scheduler.push(keys[2], Lane::Urgent);
        scheduler.push(keys[3], Lane::Urgent);
        scheduler.push(keys[4], Lane::Control);
        scheduler.push(keys[5], Lane::Control);
        let order: Vec<u32> = std::iter::from_fn(|| scheduler.next())
            .map(|(key, _)| key.id)
            .collect();
        assert_eq!(order, [5, 6, 3, 4, 1, 2]);
        assert!(scheduler.is_empty());
    }

    #[test]
    fn small_messages_can_not_starve_bulk() {
        let keys = keys(2);
        let mut scheduler = Scheduler::default();
        scheduler.push(keys[0], Lane::Bulk);
        scheduler.push(keys[1], Lane::Urgent);
        let mut before_bulk = 0;
        loop {
            let (key, lane) = scheduler.next().unwrap();
            if lane == Lane::Bulk {
                break;
            }
            before_bulk += 100;
            scheduler.sent(lane, 100);
            scheduler.push(key, lane);
            assert!(before_bulk < 1 << 20, "bulk never came");
        }
        assert!(before_bulk >= URGENT_RUN);
        assert_eq!(
            scheduler.next(),
            Some((keys[1], Lane::Urgent)),
            "and urgent goes on"
        );
    }
}
