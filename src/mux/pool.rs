//! Receive memory that many sessions share: a pool of the process, and in it a share for each peer.
//!
//! ```text
//!   process 256 MiB --+-- share of peer A, at most 64 MiB --+-- session 1
//!                     |                                     +-- session 2
//!                     +-- share of peer B, at most 64 MiB ----- session 3
//! ```
//!
//! A session takes from its pool before it keeps more unread data, and gives back what was read. A share
//! may use no more than a third of what is then still free in the pool above it, so that the more there
//! is in use, the less anybody may have: one greedy peer gets 64 of 256 MiB, sixteen of them get 13 each, and there
//! is always room for somebody new. (That rule is the dynamic threshold of shared switch buffers: Choudhury and Hahne,
//! "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
//!
//! A session that gets nothing does not read its wire, and stands in the line of its pool. Who gives back
//! wakes those at the head of each line that there is room for, so that the order in a line is kept and
//! nobody of one peer waits for another peer's sessions. A session that has been woken keeps its place until it has taken
//! what it wants; one that does not come holds back that much and nothing else.
//!
//! One lock for a pool and all its shares. A session takes and gives in steps of some tens of KiB, and those whose
//! data is read at once not at all, so it is no lock a frame. Nobody is woken under it: wakers are returned.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::wakes::Wakes;

/// A share may use one part of what is free above it …
const PARTS: usize = 3;

/// Receive memory for several sessions, as [`Config::receive_pool`](super::Config::receive_pool) has it.
/// Clones are the same pool.
///
/// [`ReceivePool::new`] makes a pool, [`ReceivePool::share`] a part of one, for instance for all sessions of
/// one peer. Counted is the memory that data takes which has arrived and that the application has not read, as
/// it is allocated, and what is kept for the peer until it has it, where a session outlives its connections; not counted are
/// buffers that each session has anyway, 64 KiB at most. A session for which there is no room stops to read from its peer until there is, and its other streams wait with it; it does not end. Reading, or dropping a substream, makes room at once.
///
/// ```
/// use cepa::mux::{Config, ReceivePool};
///
/// let process = ReceivePool::new(256 << 20);
/// let peer = process.share(64 << 20);
/// let mut config = Config::default();
/// config.receive_pool = Some(peer.clone()); // in every session of this peer
/// assert_eq!(peer.used(), 0);
/// ```
#[derive(Clone)]
pub struct ReceivePool {
    node: Arc<Node>,
}

struct Node {
    limit: usize,
    /// Changed under the lock of the lines only, and read without.
    used: AtomicUsize,
    above: Option<Arc<Node>>,
    lines: Arc<Mutex<Lines>>,
}

/// Those who wait, in one pool and all its shares. Most of the time nobody does.
#[derive(Default)]
struct Lines {
    lines: Vec<(Arc<Node>, VecDeque<Place>)>,
    /// Numbers for places.
    count: u64,
}

/// A session in a line.
struct Place {
    number: u64,
    wanted: usize,
    waker: Waker,
    /// There was room for it, and it has not come back since.
    woken: bool,
}

impl ReceivePool {
    /// A pool of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            node: Arc::new(Node {
                limit: bytes,
                used: AtomicUsize::new(0),
                above: None,
                lines: Arc::default(),
            }),
        }
    }

    /// A part of this pool that uses at most `bytes`, and never more than a third of what is free in the pool then.
    /// It takes nothing from the pool until it is used, so there may be more shares than fit.
    #[must_use]
    pub fn share(&self, bytes: usize) -> Self {
        Self {
            node: Arc::new(Node {
                limit: bytes,
                used: AtomicUsize::new(0),
                above: Some(Arc::clone(&self.node)),
                lines: Arc::clone(&self.node.lines),
            }),
        }
    }

    /// So many bytes for something that a peer makes this end hold beside its sessions, for instance a buffer behind one of its
    /// streams. `None` where there is no room, or a session waits for it: go on with less then.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Option<Held> {
        let lines = self.node.lock();
        if self.node.room() < bytes || lines.of(&self.node).is_some() {
            return None;
        }
        self.node.add(bytes);
        drop(lines);
        Some(Held {
            node: Arc::clone(&self.node),
            bytes,
        })
    }

    /// The same for what is there already, room or not: so much less is left for everything else. How many such there are
    /// must be bounded elsewhere.
    pub fn hold_anyway(&self, bytes: usize) -> Held {
        let lines = self.node.lock();
        self.node.add(bytes);
        drop(lines);
        Held {
            node: Arc::clone(&self.node),
            bytes,
        }
    }

    /// Bytes in use, those of its shares included.
    #[must_use]
    pub fn used(&self) -> usize {
        self.node.used()
    }

    /// The most that may be in use, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.node.limit
    }

    /// Sessions that do not read from their peers because this pool, or one above it, has no room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let lines = self.node.lock();
        lines
            .lines
            .iter()
            .filter(|(node, _)| node.is_in(&self.node))
            .map(|(_, line)| line.len())
            .sum()
    }
}

/// A part of a pool, given back when this is dropped: see [`ReceivePool::hold`].
#[must_use = "what it stands for is given back when it is dropped"]
pub struct Held {
    node: Arc<Node>,
    bytes: usize,
}

impl Held {
    /// Takes so many bytes more for what can wait, and says whether there was room: at least as much stays free as is in use, and
    /// nobody waits for it.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let lines = self.node.lock();
        let used = self.node.used().saturating_add(bytes);
        let left = self.node.room().checked_sub(bytes);
        if left.is_none_or(|left| left < used) || lines.of(&self.node).is_some() {
            return false;
        }
        self.node.add(bytes);
        self.bytes += bytes;
        true
    }

    /// Gives so many back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.node.give(bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.give(self.bytes);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ReceivePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceivePool")
            .field("used", &self.used())
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing below panics; if a bug makes it, sessions had better go on.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn free(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    fn room(&self) -> usize {
        let Some(above) = &self.above else {
            return self.free();
        };
        // With n more, PARTS * (used + n) may be what is free above then: free - n.
        let part = above
            .free()
            .saturating_sub(PARTS.saturating_mul(self.used()))
            / (PARTS + 1);
        self.free().min(part).min(above.room())
    }

    /// Whether this is `other` or a share of it.
    fn is_in(&self, other: &Arc<Self>) -> bool {
        std::ptr::eq(self, Arc::as_ptr(other))
            || self.above.as_ref().is_some_and(|above| above.is_in(other))
    }

    /// Gives back, and wakes who waited for it.
    fn give(&self, n: usize) {
        let mut wakes = Wakes::default();
        let mut lines = self.lock();
        self.sub(n);
        lines.wake(&mut wakes);
        drop(lines);
        wakes.wake();
    }

    /// Under the lock.
    fn add(&self, n: usize) {
        self.used.fetch_add(n, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.add(n);
        }
    }

    /// Under the lock.
    fn sub(&self, n: usize) {
        debug_assert!(n <= self.used(), "only what was taken is given back");
        self.used.fetch_sub(n, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.sub(n);
        }
    }
}

impl Lines {
    fn of(&self, node: &Arc<Node>) -> Option<usize> {
        self.lines.iter().position(|(of, _)| Arc::ptr_eq(of, node))
    }

    /// Wakes, in each line, those at its head that there is room for.
    fn wake(&mut self, wakes: &mut Wakes) {
        for (node, line) in &mut self.lines {
            let mut room = node.room();
            for place in line {
                let Some(left) = room.checked_sub(place.wanted) else {
                    break;
                };
                room = left;
                if !std::mem::replace(&mut place.woken, true) {
                    wakes.extend(Some(place.waker.clone()));
                }
            }
        }
    }

    /// Whether it is the turn of the session with the place `number`: all before it were woken. Who has no place
    /// goes before nobody.
    fn is_next(&self, node: &Arc<Node>, number: Option<u64>) -> bool {
        let Some((_, line)) = self.of(node).and_then(|at| self.lines.get(at)) else {
            return true;
        };
        line.iter()
            .find(|place| !place.woken || Some(place.number) == number)
            .is_some_and(|place| Some(place.number) == number)
    }

    /// A place at the end of the line, or the one that it has.
    fn stand(&mut self, node: &Arc<Node>, place: Place) {
        let at = self.of(node).unwrap_or_else(|| {
            self.lines.push((Arc::clone(node), VecDeque::new()));
            self.lines.len() - 1
        });
        if let Some((_, line)) = self.lines.get_mut(at) {
            match line.iter_mut().find(|other| other.number == place.number) {
                Some(other) => *other = place,
                None => line.push_back(place),
            }
        }
    }

    fn leave(&mut self, node: &Arc<Node>, number: u64) {
        let Some(at) = self.of(node) else {
            return;
        };
        if let Some((_, line)) = self.lines.get_mut(at) {
            line.retain(|place| place.number != number);
            if line.is_empty() {
                self.lines.swap_remove(at);
            }
        }
    }
}

/// What one session has of a pool. Dropped, it gives back everything.
pub(crate) struct Member {
    pool: ReceivePool,
    taken: usize,
    /// Its place in the line.
    place: Option<u64>,
}

impl Member {
    pub(crate) fn new(pool: ReceivePool) -> Self {
        Self {
            pool,
            taken: 0,
            place: None,
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// What may be taken now, were there no line.
    pub(crate) fn room(&self) -> usize {
        self.pool.node.room()
    }

    /// Takes `least`, or up to `most` where there is room and nobody waits for it. Where that can not be, and there is a
    /// waker, the session stands in the line from then on, and is woken when it is to try again.
    pub(crate) fn take(
        &mut self,
        least: usize,
        most: usize,
        waker: Option<&Waker>,
        wakes: &mut Wakes,
    ) -> bool {
        let node = &self.pool.node;
        let mut lines = node.lock();
        let room = node.room();
        if room >= least && lines.is_next(node, self.place) {
            let alone = lines.lines.is_empty();
            let n = if alone {
                most.min(room).max(least)
            } else {
                least
            };
            node.add(n);
            self.taken += n;
            if let Some(number) = self.place.take() {
                lines.leave(node, number);
                lines.wake(wakes);
            }
            return true;
        }
        if let Some(waker) = waker {
            let number = *self.place.get_or_insert_with(|| {
                lines.count += 1;
                lines.count
            });
            let place = Place {
                number,
                wanted: least,
                waker: waker.clone(),
                woken: false,
            };
            lines.stand(node, place);
            // It may have been woken in vain, when those behind it want less.
            lines.wake(wakes);
        }
        false
    }

    pub(crate) fn give(&mut self, n: usize, wakes: &mut Wakes) {
        debug_assert!(n <= self.taken, "only what was taken is given back");
        let n = n.min(self.taken);
        if n == 0 {
            return;
        }
        let node = &self.pool.node;
        let mut lines = node.lock();
        node.sub(n);
        self.taken -= n;
        lines.wake(wakes);
    }

    /// Leaves the line, in which it needs nothing any more.
    pub(crate) fn leave(&mut self, wakes: &mut Wakes) {
        if let Some(number) = self.place.take() {
            let node = &self.pool.node;
            let mut lines = node.lock();
            lines.leave(node, number);
            lines.wake(wakes);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut wakes = Wakes::default();
        self.leave(&mut wakes);
        self.give(self.taken, &mut wakes);
        wakes.wake();
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("pool", &self.pool)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    const MIB: usize = 1 << 20;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A session, and how often it was woken.
    struct One {
        member: Member,
        woken: Arc<Woken>,
    }

    impl One {
        fn of(pool: &ReceivePool) -> Self {
            Self {
                member: Member::new(pool.clone()),
                woken: Arc::default(),
            }
        }

        /// Takes, or stands in the line.
        fn take(&mut self, n: usize) -> bool {
            let mut wakes = Wakes::default();
            let waker = Waker::from(Arc::clone(&self.woken));
            let taken = self.member.take(n, n, Some(&waker), &mut wakes);
            wakes.wake();
            taken
        }

        fn give(&mut self, n: usize) {
            let mut wakes = Wakes::default();
            self.member.give(n, &mut wakes);
            wakes.wake();
        }

        fn woken(&self) -> usize {
            self.woken.0.swap(0, Ordering::Relaxed)
        }
    }

    /// Takes as much as it gets, in small steps, all in turn.
    fn greedy(members: &mut [One]) {
        let mut more = true;
        while more {
            more = false;
            for one in &mut *members {
                let mut wakes = Wakes::default();
                more |= one.member.take(1024, 1024, None, &mut wakes);
            }
        }
    }

    #[test]
    fn one_greedy_peer_gets_its_limit_and_many_leave_room() {
        for (peers, each) in [(1, 64 * MIB), (2, 256 * MIB / 5), (16, 256 * MIB / 19)] {
            let pool = ReceivePool::new(256 * MIB);
            let mut members: Vec<One> =
                (0..peers).map(|_| One::of(&pool.share(64 * MIB))).collect();
            greedy(&mut members);
            for one in &members {
                let taken = one.member.taken();
                assert!(
                    taken <= 64 * MIB && taken.abs_diff(each) < 4096,
                    "{taken} of {each}"
                );
            }
            let used: usize = members.iter().map(|one| one.member.taken()).sum();
            assert_eq!(pool.used(), used);
            let late = pool.share(64 * MIB);
            assert!(late.node.room() > MIB, "somebody new finds room");
            drop(members);
            assert_eq!(pool.used(), 0);
        }
    }

    #[test]
    fn sessions_of_a_share_have_it_together_and_nothing_of_another() {
        let pool = ReceivePool::new(256 * MIB);
        let share = pool.share(4 * MIB);
        let mut members = [One::of(&share), One::of(&share)];
        greedy(&mut members);
        assert_eq!(share.used(), 4 * MIB);
        assert_eq!(share.clone().limit(), 4 * MIB);
        assert!(One::of(&pool.share(4 * MIB)).take(MIB));
        // A part of a part is bounded by both.
        let mut part = One::of(&share.share(4 * MIB));
        assert!(!part.take(1));
        members[0].give(2 * MIB);
        assert!(part.take(MIB / 4));
        assert!(!part.take(MIB));
    }

    #[test]
    fn a_line_is_served_in_its_order_and_by_whoever_gives() {
        let pool = ReceivePool::new(100);
        let mut first = One::of(&pool);
        assert!(first.take(100));
        let mut line: Vec<One> = (0..4).map(|_| One::of(&pool)).collect();
        for one in &mut line {
            assert!(!one.take(30));
        }
        assert_eq!(pool.waiting(), 4);
        let woken = |line: &[One]| line.iter().map(One::woken).collect::<Vec<_>>();
        first.give(29);
        assert_eq!(woken(&line), [0, 0, 0, 0], "not enough for anybody");
        first.give(31);
        assert_eq!(woken(&line), [1, 1, 0, 0], "as many as there is room for");
        first.give(5);
        assert_eq!(woken(&line), [0, 0, 0, 0], "and each once");
        // Who comes from elsewhere, and who is behind, can not go first.
        assert!(!One::of(&pool).take(10));
        assert!(!line[3].take(30));
        assert!(line[1].take(30));
        assert!(line[0].take(30));
        first.give(35);
        assert_eq!(woken(&line), [0, 0, 1, 0]);
        assert!(line[2].take(30));
        assert_eq!(pool.waiting(), 1);
        // The last waits for 30, and 10 are free.
        drop(line.remove(0));
        assert_eq!(woken(&line), [0, 0, 1], "who is dropped gives back");
        drop(line);
        drop(first);
        assert_eq!((pool.used(), pool.waiting()), (0, 0));
    }

    #[test]
    fn who_leaves_the_line_or_does_not_come_holds_up_nobody() {
        let pool = ReceivePool::new(100);
        let mut first = One::of(&pool);
        assert!(first.take(100));
        let (mut absent, mut second) = (One::of(&pool), One::of(&pool));
        assert!(!absent.take(60));
        assert!(!second.take(30));
        first.give(60);
        assert_eq!((absent.woken(), second.woken()), (1, 0));
        // Its turn is kept, and what is more goes to others.
        first.give(30);
        assert_eq!((absent.woken(), second.woken()), (0, 1));
        assert!(second.take(30));
        assert!(!second.take(30), "what is left is not its own");
        drop(absent);
        assert_eq!(second.woken(), 1, "now it is");
        assert!(second.take(30));
        // Other lines of the same pool are woken, too.
        let share = pool.share(50);
        let mut other = One::of(&share);
        assert!(!other.take(20));
        first.give(10);
        assert_eq!(other.woken(), 0);
        second.give(60);
        assert_eq!(other.woken(), 1);
        assert!(other.take(20));
    }
}
