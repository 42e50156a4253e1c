//! What a session holds of data that has arrived and that nobody has read, and whether it may hold more.
//!
//! ```text
//!   held       what the queues of all streams keep in memory
//!   covered    what of it is paid for: at most the session's own budget (with a first window for each stream that it
//!              chose to open), and at most what its pool gave
//!   FREE       what every session may hold beyond that, so that its wire does not stop for a keystroke
//!
//!   held <= covered + FREE    the wire is read
//!   else                      it is not, until somebody reads or the pool has room
//! ```
//!
//! That is looked at between two reads of the wire, so what is held beyond `covered` is at most `FREE` and what one
//! read brings. A stream whose data is read at once adds nothing, so a session without any room still moves
//! data for those who wait for it, until something comes that nobody reads.
//!
//! From the pool it takes in steps, so that it is asked now and then and not for each frame.

use std::task::Waker;

use super::chunk::CHUNK;
use super::pool::{Member, ReceivePool};
use super::wakes::Wakes;

/// See the head of this file.
const FREE: usize = CHUNK;

/// What is taken from the pool beyond what is needed, and kept for what comes next.
const STEP: usize = CHUNK;

/// Unread bytes of a session above which nothing is kept as part of a chunk: so that there is never more than
/// this to copy at once when memory is short.
const CROWDED: usize = 4 << 20;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Memory {
    held: usize,
    budget: usize,
    member: Option<Member>,
    stopped: bool,
    /// Something was freed since that was last asked for.
    moved: bool,
    /// The driver, while it does not read.
    waker: Option<Waker>,
}

impl Memory {
    pub(crate) fn new(budget: usize, pool: Option<ReceivePool>) -> Self {
        Self {
            held: 0,
            budget,
            member: pool.map(Member::new),
            stopped: false,
            moved: false,
            waker: None,
        }
    }

    /// The session's own budget is now so much.
    pub(crate) fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether the wire is not read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What windows may grow into, in bytes.
    pub(crate) fn room(&self) -> u64 {
        let pool = self.member.as_ref().map_or(usize::MAX, Member::room);
        pool.min(self.budget.saturating_sub(self.held)) as u64
    }

    /// A queue that kept `before` bytes keeps `after`.
    pub(crate) fn change(&mut self, before: usize, after: usize) {
        debug_assert!(before <= self.held, "a part is never more than the whole");
        self.held = self.held.saturating_sub(before) + after;
    }

    /// Whether all that is held is covered but for what is free; takes from the pool what is missing. With a
    /// `waker`, whoever can cover it wakes.
    fn cover(&mut self, waker: Option<&Waker>, wakes: &mut Wakes) -> bool {
        let above = self.held.saturating_sub(FREE);
        let Some(member) = &mut self.member else {
            return above <= self.budget;
        };
        let missing = above.saturating_sub(member.taken());
        if missing == 0 {
            member.leave(wakes);
        }
        // What is above the session's own budget has to be read first; the pool can not help.
        above <= self.budget && (missing == 0 || member.take(missing, missing + STEP, waker, wakes))
    }

    /// Whether so much is unread that what comes is better copied than kept as part of a larger chunk.
    pub(crate) fn is_crowded(&self) -> bool {
        self.held > CROWDED
    }

    /// Something came from the wire: whether more may be read. If not, `compact` makes what is held as small
    /// as it can be, by calls of [`Memory::change`].
    pub(crate) fn arrived(&mut self, wakes: &mut Wakes) -> bool {
        self.stopped || self.cover(None, wakes)
    }

    /// There is no room: the wire is not read from now on.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether the wire may be read again; if not, `waker` is woken when it may.
    pub(crate) fn resume(&mut self, waker: &Waker, wakes: &mut Wakes) -> bool {
        self.waker = Some(waker.clone());
        self.stopped = !self.cover(Some(waker), wakes);
        if !self.stopped {
            self.waker = None;
        }
        !self.stopped
    }

    /// Nothing more is read from the wire: what is held is given back as it is read.
    pub(crate) fn end(&mut self, wakes: &mut Wakes) {
        self.stopped = false;
        self.waker = None;
        if let Some(member) = &mut self.member {
            member.leave(wakes);
        }
    }

    /// Whether something was read or dropped since this was last asked.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Something was read or dropped: gives back what is not needed, and wakes the driver if it may go on.
    pub(crate) fn freed(&mut self, wakes: &mut Wakes) {
        self.moved = true;
        self.eased(wakes);
    }

    /// What is held takes less: the same, but nobody has taken anything.
    pub(crate) fn eased(&mut self, wakes: &mut Wakes) {
        if self.stopped {
            let waker = self.waker.take();
            if self.cover(waker.as_ref(), wakes) {
                wakes.extend(waker);
            } else {
                self.waker = waker;
            }
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
}
