//! Who sends next. This file knows streams only by key, and nothing of frames: to send in another
//! order, replace it.
//!
//! ```text
//!   control                      opening, acknowledging, credit, ends: small, and all else waits for it
//!   class 0   sparse | bulk      sparse: streams with little queued (a keystroke, a request)
//!   class 1   sparse | bulk      bulk:   the rest, by deficit round robin
//!   ...
//! ```
//!
//! - Between classes the order is strict, with a bound: whoever waits in a lower class gets one
//!   turn when the classes above it have sent [`STARVE_TURNS`] frames' worth of bytes meanwhile,
//!   so about one byte in 17 at the least.
//! - Inside a class sparse streams go first, in turn, with a bound: after [`URGENT_RUN`] bytes of
//!   them in a row one bulk frame goes, so that a flood of small messages can not starve it.
//! - Bulk streams of a class share by weight: a turn is worth a frame times the weight over the
//!   usual weight. What a frame takes above that is owed in the turns that follow, so shares are
//!   of bytes, whatever the frames' lengths.

use std::collections::VecDeque;

use super::priority::Priority;
use super::store::Key;

/// A stream with at most this many bytes queued is sparse.
pub(crate) const URGENT_MAX: usize = 1 << 10;

/// Bytes of sparse streams in a row before one bulk frame of their class goes.
const URGENT_RUN: usize = 16 << 10;

/// Frames' worth of bytes that higher classes send before one that waits below gets a turn.
const STARVE_TURNS: i64 = 16;

/// Turns that a stream may owe when it comes back with data.
const DEBT_TURNS: usize = 4;

/// Where a stream waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Control,
    Urgent,
    Bulk,
}

/// A bulk stream in its class.
#[derive(Debug)]
struct Waiting {
    key: Key,
    weight: u8,
    /// Bytes that it may send before the next stream's turn; below 0: what it sent too much.
    deficit: i64,
}

#[derive(Debug, Default)]
struct Class {
    urgent: VecDeque<Key>,
    bulk: VecDeque<Waiting>,
    /// Sparse bytes since the last bulk frame.
    urgent_run: usize,
    /// Bytes that higher classes have sent while this one waited, less [`STARVE_TURNS`] times what
    /// it sent itself.
    starved: i64,
}

impl Class {
    fn is_empty(&self, bulk: bool) -> bool {
        self.urgent.is_empty() && (!bulk || self.bulk.is_empty())
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) key: Key,
    pub(crate) lane: Lane,
    class: usize,
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    control: VecDeque<Key>,
    /// By the number of the class, and no more of them than were ever used: most sessions use one.
    classes: Vec<(usize, Class)>,
    /// Streams in the bulk lanes.
    bulk: usize,
    /// Streams in the sparse lanes.
    urgent: usize,
    /// The bulk stream that was taken out last, and what is left of its turn.
    turn: Option<(Key, i64)>,
    /// Bytes of a usual frame.
    frame: usize,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            control: VecDeque::new(),
            classes: Vec::new(),
            bulk: 0,
            urgent: 0,
            turn: None,
            frame: 16 << 10,
        }
    }
}

impl Scheduler {
    /// Puts a stream into a lane. The caller sees to it that it is there only once.
    pub(crate) fn push(&mut self, key: Key, lane: Lane, priority: Priority) {
        let number = priority.class_index();
        let at = match self.classes.binary_search_by_key(&number, |(of, _)| *of) {
            Ok(at) => at,
            Err(at) => {
                self.classes.reserve_exact(1);
                self.classes.insert(at, (number, Class::default()));
                at
            }
        };
        let Some((_, class)) = self.classes.get_mut(at) else {
            return;
        };
        match lane {
            Lane::Control => self.control.push_back(key),
            Lane::Urgent => {
                class.urgent.push_back(key);
                self.urgent += 1;
            }
            Lane::Bulk => {
                let left = self.turn.filter(|(of, _)| *of == key);
                let waiting = Waiting {
                    key,
                    weight: priority.weight(),
                    deficit: left.map_or(0, |(_, left)| left),
                };
                if left.is_some() {
                    self.turn = None;
                }
                if waiting.deficit > 0 {
                    // Its turn goes on.
                    class.bulk.push_front(waiting);
                } else {
                    class.bulk.push_back(waiting);
                }
                self.bulk += 1;
            }
        }
    }

    /// The same of a bulk stream that had sent too much when it last ran out of data: else those that often do would get more than others.
    pub(crate) fn push_owing(&mut self, key: Key, priority: Priority, debt: usize) {
        let debt = debt.min(self.frame.saturating_mul(DEBT_TURNS));
        self.turn = Some((key, -i64::try_from(debt).unwrap_or(i64::MAX)));
        self.push(key, Lane::Bulk, priority);
    }

    /// What a stream owes that was taken out last and is in no lane for bulk.
    pub(crate) fn take_debt(&mut self, key: Key) -> Option<usize> {
        let (_, left) = self.turn.take_if(|(of, _)| *of == key)?;
        usize::try_from(left.saturating_neg()).ok()
    }

    /// The stream whose turn it is, taken out of its lane. Lanes behind `last` may not go now.
    pub(crate) fn next(&mut self, last: Lane) -> Option<Turn> {
        let bulk = last == Lane::Bulk;
        if let Some(key) = self.control.pop_front() {
            return Some(Turn {
                key,
                lane: Lane::Control,
                class: 0,
            });
        }
        if last == Lane::Control || self.urgent == 0 && (!bulk || self.bulk == 0) {
            return None;
        }
        let frame = i64::try_from(self.frame).unwrap_or(i64::MAX);
        let enough = frame.saturating_mul(STARVE_TURNS);
        let at = self
            .classes
            .iter()
            .rposition(|(_, class)| class.starved >= enough && !class.is_empty(bulk))
            .or_else(|| {
                let mut classes = self.classes.iter();
                classes.position(|(_, class)| !class.is_empty(bulk))
            })?;
        let (number, class) = self.classes.get_mut(at)?;
        let may_bulk = bulk && !class.bulk.is_empty();
        if (class.urgent_run < URGENT_RUN || !may_bulk)
            && let Some(key) = class.urgent.pop_front()
        {
            self.urgent -= 1;
            return Some(Turn {
                key,
                lane: Lane::Urgent,
                class: *number,
            });
        }
        class.urgent_run = 0;
        loop {
            let mut waiting = class.bulk.pop_front()?;
            if waiting.deficit <= 0 {
                waiting.deficit +=
                    (frame * i64::from(waiting.weight) / i64::from(Priority::USUAL_WEIGHT)).max(1);
            }
            if waiting.deficit > 0 {
                self.bulk -= 1;
                self.turn = Some((waiting.key, waiting.deficit));
                return Some(Turn {
                    key: waiting.key,
                    lane: Lane::Bulk,
                    class: *number,
                });
            }
            class.bulk.push_back(waiting);
        }
    }

    /// Tells that `bytes`, header included, went out in `turn`. To be called before the stream is pushed again.
    pub(crate) fn sent(&mut self, turn: Turn, bytes: usize) {
        let sent = i64::try_from(bytes).unwrap_or(i64::MAX);
        match turn.lane {
            Lane::Control => return,
            Lane::Urgent => {}
            Lane::Bulk => {
                if let Some((key, left)) = &mut self.turn
                    && *key == turn.key
                {
                    *left = left.saturating_sub(sent);
                }
            }
        }
        for (number, class) in &mut self.classes {
            if *number == turn.class {
                let worth = sent.saturating_mul(STARVE_TURNS);
                class.starved = class.starved.saturating_sub(worth).max(-worth);
                if turn.lane == Lane::Urgent {
                    class.urgent_run = class.urgent_run.saturating_add(bytes);
                }
            } else if *number > turn.class && !class.is_empty(true) {
                class.starved = class.starved.saturating_add(sent);
            }
        }
    }

    /// Sets the length of a usual frame, which is what a turn is worth.
    pub(crate) fn set_frame(&mut self, bytes: usize) {
        self.frame = bytes.max(1);
    }

    /// Whether a stream waits that has more to send than data.
    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Whether a sparse stream waits.
    pub(crate) fn has_urgent(&self) -> bool {
        self.urgent > 0
    }

    /// Whether a bulk stream waits.
    pub(crate) fn has_bulk(&self) -> bool {
        self.bulk > 0
    }

    /// Takes a stream out of the data lanes, wherever it is. Says whether it was there.
    pub(crate) fn remove_data(&mut self, key: Key) -> bool {
        let before = self.urgent + self.bulk;
        for (_, class) in &mut self.classes {
            class.urgent.retain(|other| *other != key);
            class.bulk.retain(|waiting| waiting.key != key);
        }
        self.urgent = self
            .classes
            .iter()
            .map(|(_, class)| class.urgent.len())
            .sum();
        self.bulk = self.classes.iter().map(|(_, class)| class.bulk.len()).sum();
        self.urgent + self.bulk < before
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.urgent == 0 && self.bulk == 0
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::INITIAL_WINDOW;
    use super::super::moment::Moment;
    use super::super::store::Store;
    use super::super::stream_entry::Entry;
    use super::*;

    const USUAL: Priority = Priority::NORMAL;

    fn keys(n: u32) -> Vec<Key> {
        let mut store = Store::default();
        let now = std::time::Instant::now();
        let now = Moment::new(now, now);
        (1..=n)
            .map(|id| store.insert(Entry::opened_here(id, now, INITIAL_WINDOW)))
            .collect()
    }

    #[test]
    fn control_before_urgent_before_bulk_each_in_turn() {
        let keys = keys(6);
        let mut scheduler = Scheduler::default();
        scheduler.push(keys[0], Lane::Bulk, USUAL);
        scheduler.push(keys[1], Lane::Bulk, USUAL);
        scheduler.push(keys[2], Lane::Urgent, USUAL);
        scheduler.push(keys[3], Lane::Urgent, USUAL);
        scheduler.push(keys[4], Lane::Control, USUAL);
        scheduler.push(keys[5], Lane::Control, USUAL);
        let order: Vec<u32> = std::iter::from_fn(|| scheduler.next(Lane::Bulk))
            .map(|turn| turn.key.id)
            .collect();
        assert_eq!(order, [5, 6, 3, 4, 1, 2]);
        assert!(scheduler.is_empty());
    }

    #[test]
    fn bulk_that_may_not_go_does_not_hold_up_the_rest() {
        let keys = keys(3);
        let mut scheduler = Scheduler::default();
        scheduler.push(keys[0], Lane::Bulk, Priority::HIGHEST);
        scheduler.push(keys[1], Lane::Urgent, Priority::LOWEST);
        assert_eq!(scheduler.next(Lane::Urgent).unwrap().key, keys[1]);
        assert_eq!(scheduler.next(Lane::Urgent), None);
        assert!(scheduler.has_bulk() && !scheduler.has_urgent());
        assert_eq!(scheduler.next(Lane::Bulk).unwrap().key, keys[0]);
    }

    #[test]
    fn small_messages_can_not_starve_bulk() {
        let keys = keys(2);
        let mut scheduler = Scheduler::default();
        scheduler.push(keys[0], Lane::Bulk, USUAL);
        scheduler.push(keys[1], Lane::Urgent, USUAL);
        let mut before_bulk = 0;
        loop {
            let turn = scheduler.next(Lane::Bulk).unwrap();
            if turn.lane == Lane::Bulk {
                break;
            }
            before_bulk += 100;
            scheduler.sent(turn, 100);
            scheduler.push(turn.key, turn.lane, USUAL);
            assert!(before_bulk < 1 << 20, "bulk never came");
        }
        assert!(before_bulk >= URGENT_RUN);
        let turn = scheduler.next(Lane::Bulk).unwrap();
        assert_eq!(
            (turn.key, turn.lane),
            (keys[1], Lane::Urgent),
            "and goes on"
        );
    }

    /// Lets bulk streams that always have data send `frames` frames, and says how many bytes each
    /// one sent. `cut` is how long a frame of each is.
    fn share(streams: &[(Priority, usize)], frames: usize) -> Vec<usize> {
        let keys = keys(u32::try_from(streams.len()).unwrap());
        let mut scheduler = Scheduler::default();
        let mut sent = vec![0; streams.len()];
        for (key, (priority, _)) in keys.iter().zip(streams) {
            scheduler.push(*key, Lane::Bulk, *priority);
        }
        for _ in 0..frames {
            let turn = scheduler.next(Lane::Bulk).unwrap();
            let at = keys.iter().position(|key| *key == turn.key).unwrap();
            sent[at] += streams[at].1;
            scheduler.sent(turn, streams[at].1);
            scheduler.push(turn.key, Lane::Bulk, streams[at].0);
        }
        sent
    }

    #[test]
    fn equal_weights_share_bytes_whatever_their_frames() {
        let sent = share(&[(USUAL, 16 << 10), (USUAL, 3000), (USUAL, 64 << 10)], 3000);
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(most - least <= 3 * (64 << 10), "{sent:?}");
    }

    #[test]
    fn weights_share_in_proportion() {
        let heavy = USUAL.with_weight(24);
        let light = USUAL.with_weight(1);
        let sent = share(
            &[(heavy, 16 << 10), (USUAL, 16 << 10), (light, 16 << 10)],
            3300,
        );
        assert!(
            sent[0].abs_diff(24 * sent[2]) <= 48 * (16 << 10),
            "{sent:?}"
        );
        assert!(sent[1].abs_diff(8 * sent[2]) <= 16 * (16 << 10), "{sent:?}");
    }

    #[test]
    fn a_lower_class_waits_but_is_not_starved() {
        let (low, lowest) = (USUAL.with_class(5), Priority::LOWEST);
        let sent = share(
            &[(USUAL, 16 << 10), (low, 16 << 10), (lowest, 16 << 10)],
            2000,
        );
        let total: usize = sent.iter().sum();
        for (at, sent) in sent.iter().enumerate().skip(1) {
            assert!(*sent >= total / 24, "{at}: {sent} of {total}");
            assert!(*sent <= total / 12, "{at}: {sent} of {total}");
        }
    }

    #[test]
    fn a_stream_that_changes_class_leaves_the_old_one() {
        let keys = keys(2);
        let mut scheduler = Scheduler::default();
        scheduler.push(keys[0], Lane::Bulk, USUAL);
        scheduler.push(keys[1], Lane::Bulk, Priority::LOWEST);
        assert!(scheduler.remove_data(keys[1]));
        assert!(!scheduler.remove_data(keys[1]));
        scheduler.push(keys[1], Lane::Bulk, Priority::HIGHEST);
        assert_eq!(scheduler.next(Lane::Bulk).unwrap().key, keys[1]);
        assert_eq!(scheduler.next(Lane::Bulk).unwrap().key, keys[0]);
        assert!(scheduler.is_empty());
    }
}
