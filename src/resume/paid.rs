//! What the kept bytes are paid from, where others need that memory as well.
//!
//! A peer that acknowledges nothing makes this end keep as much as [`Config::replay`](super::Config::replay) allows, in each of
//! its sessions, and one that is away does so until it is given up. So what is kept is taken from memory that all of them share,
//! in steps, so that it is asked now and then and not for each write. Where it has no more, a session keeps [`FREE`] bytes and
//! goes on, if slowly: a writer waits for acknowledgements, and never for the memory.

use super::replay::CHUNK;

/// Memory that others use too.
pub(crate) trait Memory: Send {
    /// So many bytes more; false where there is no room.
    fn take(&mut self, bytes: usize) -> bool;

    /// Gives so many back. The rest is given back when this is dropped.
    fn give(&mut self, bytes: usize);
}

/// What each session may keep without asking: one chunk that is being filled, and one that is acknowledged in part.
const FREE: usize = 2 * CHUNK;

/// What is taken at once.
const STEP: usize = 8 * CHUNK;

/// See the head of this file. Without memory to take from there is no bound here.
#[derive(Default)]
pub(crate) struct Paid {
    memory: Option<Box<dyn Memory>>,
    taken: usize,
}

impl Paid {
    /// From now on it is taken from there. To be said before anything is kept.
    pub(crate) fn pay_from(&mut self, memory: Box<dyn Memory>) {
        (self.memory, self.taken) = (Some(memory), 0);
    }

    /// The bytes that may be kept now.
    pub(crate) fn allowed(&self) -> usize {
        match self.memory {
            Some(_) => FREE + self.taken,
            None => usize::MAX,
        }
    }

    /// Takes what is missing for so many, as far as there is room.
    pub(crate) fn want(&mut self, bytes: usize) {
        while self.allowed() < bytes
            && let Some(memory) = &mut self.memory
            && memory.take(STEP)
        {
            self.taken += STEP;
        }
    }

    /// So many are kept now: gives back what is far more than that, or all that is more where nothing has been kept for a while.
    pub(crate) fn settle(&mut self, bytes: usize, rests: bool) {
        let needed = bytes.saturating_sub(FREE).next_multiple_of(STEP);
        let surplus = self.taken.saturating_sub(needed);
        // One that goes up and down by a step does not ask each time.
        let kept = if rests { 0 } else { STEP };
        if surplus > kept
            && let Some(memory) = &mut self.memory
        {
            self.taken -= surplus - kept;
            memory.give(surplus - kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Shared memory of so many bytes, and how often it was asked.
    #[derive(Clone)]
    struct Shared {
        left: Arc<AtomicUsize>,
        asked: Arc<AtomicUsize>,
    }

    impl Memory for Shared {
        fn take(&mut self, bytes: usize) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let less = |left: usize| left.checked_sub(bytes);
            let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
            self.left.fetch_update(set, fetch, less).is_ok()
        }

        fn give(&mut self, bytes: usize) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.left.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn paid_from(bytes: usize) -> (Paid, Shared) {
        let shared = Shared {
            left: Arc::new(AtomicUsize::new(bytes)),
            asked: Arc::default(),
        };
        let mut paid = Paid::default();
        paid.pay_from(Box::new(shared.clone()));
        (paid, shared)
    }

    #[test]
    fn a_session_may_keep_what_there_is_room_for_and_a_little() {
        let mut alone = Paid::default();
        alone.want(usize::MAX);
        assert_eq!(alone.allowed(), usize::MAX);

        let (mut paid, shared) = paid_from(3 * STEP + 1);
        assert_eq!(paid.allowed(), FREE);
        paid.want(FREE);
        assert_eq!(shared.asked.load(Ordering::Relaxed), 0);
        paid.want(FREE + 1);
        assert_eq!(paid.allowed(), FREE + STEP);
        paid.want(usize::MAX);
        assert_eq!(paid.allowed(), FREE + 3 * STEP);
        paid.settle(FREE + STEP + 1, false);
        assert_eq!(paid.allowed(), FREE + 3 * STEP, "a step more is kept");
        paid.settle(FREE + STEP, false);
        assert_eq!(paid.allowed(), FREE + 2 * STEP);
        paid.settle(0, true);
        assert_eq!(paid.allowed(), FREE);
        assert_eq!(shared.left.load(Ordering::Relaxed), 3 * STEP + 1);
    }

    #[test]
    fn it_is_not_asked_for_each_write() {
        let (mut paid, shared) = paid_from(64 * STEP);
        for round in 0..1000 {
            let kept = FREE + STEP * (3 + round % 2);
            paid.want(kept);
            paid.settle(kept - STEP / 2, false);
        }
        assert!(shared.asked.load(Ordering::Relaxed) < 10);
    }
}
