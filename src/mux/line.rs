//! Tasks that wait for something of which there is only so much, in the order in which they came.
//!
//! As many of those at the head are woken as there is room for, each once. Who is woken keeps its place until it has
//! taken what it came for or leaves, and who comes later stands behind all that wait, so nobody is overtaken. Places are numbered in
//! order, so one is found by halving.

use std::collections::VecDeque;
use std::task::Waker;

use super::wakes::Wakes;

#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: VecDeque<Waiting>,
    count: u64,
}

#[derive(Debug)]
struct Waiting {
    place: u64,
    /// `None`: it was woken, and has not come since.
    waker: Option<Waker>,
}

impl Line {
    fn find(&self, place: u64) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&place, |waiting| waiting.place)
            .ok()
    }

    /// How many go before the one with this place, or before somebody without any.
    pub(crate) fn ahead_of(&self, place: Option<u64>) -> usize {
        place
            .and_then(|place| self.find(place))
            .unwrap_or(self.waiting.len())
    }

    /// Waits, at the end of the line or where it was.
    pub(crate) fn wait(&mut self, place: Option<u64>, waker: &Waker) -> u64 {
        let known = place.and_then(|place| self.find(place));
        if let Some(waiting) = known.and_then(|at| self.waiting.get_mut(at)) {
            waiting.waker = Some(waker.clone());
            return waiting.place;
        }
        self.count += 1;
        if self.waiting.is_empty() {
            // One accepts, as a rule.
            self.waiting.reserve_exact(1);
        }
        self.waiting.push_back(Waiting {
            place: self.count,
            waker: Some(waker.clone()),
        });
        self.count
    }

    pub(crate) fn leave(&mut self, place: u64) {
        if let Some(at) = self.find(place) {
            self.waiting.remove(at);
        }
        if self.waiting.is_empty() {
            // A crowd must not be paid for until the session ends.
            self.waiting.shrink_to(64);
        }
    }

    /// Wakes those that there is room for.
    pub(crate) fn wake(&mut self, room: usize, wakes: &mut Wakes) {
        for waiting in self.waiting.iter_mut().take(room) {
            wakes.extend(waiting.waker.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn those_at_the_head_are_woken_once_and_nobody_is_overtaken() {
        let mut line = Line::default();
        let woken: Vec<Arc<Woken>> = (0..4).map(|_| Arc::default()).collect();
        let waker = |i: usize| Waker::from(Arc::clone(&woken[i]));
        let places: Vec<u64> = (0..4).map(|i| line.wait(None, &waker(i))).collect();
        let wake = |line: &mut Line, room| {
            let mut wakes = Wakes::default();
            line.wake(room, &mut wakes);
            wakes.wake();
            woken
                .iter()
                .map(|woken| woken.0.swap(0, Ordering::Relaxed))
                .collect::<Vec<_>>()
        };
        assert_eq!(wake(&mut line, 2), [1, 1, 0, 0]);
        assert_eq!(wake(&mut line, 2), [0, 0, 0, 0]);
        assert_eq!(line.ahead_of(Some(places[1])), 1);
        assert_eq!(line.ahead_of(None), 4);
        // The second is done, the first comes again and waits on.
        line.leave(places[1]);
        assert_eq!(line.wait(Some(places[0]), &waker(0)), places[0]);
        assert_eq!(wake(&mut line, 2), [1, 0, 1, 0]);
        line.leave(places[0]);
        line.leave(places[2]);
        assert_eq!(line.ahead_of(Some(places[3])), 0);
        assert_eq!(wake(&mut line, usize::MAX), [0, 0, 0, 1]);
    }
}
