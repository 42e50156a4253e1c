//! How much data may come for streams that do not exist.
//!
//! Some always does: it was on the way when this end reset the stream. What the stream might still send
//! then is remembered with its number, for as many streams as can have been reset within a round trip, and
//! is that stream's alone. Whatever goes beyond that, or comes for streams that were never there, is
//! taken from one small sum for the whole session, which nothing fills up again. So resets do not
//! add up to a right to send nonsense, and an honest peer is never cut off.

use std::collections::{HashMap, VecDeque};

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Strays {
    /// Bytes that may still come for any stream.
    left: u64,
    /// Bytes that may still come for streams that were reset here.
    of_stream: HashMap<u32, u32>,
    /// The numbers of those, the longest remembered first.
    order: VecDeque<u32>,
    /// How many are remembered.
    most: usize,
}

impl Strays {
    pub(crate) fn new(left: u64, most: usize) -> Self {
        Self {
            left,
            of_stream: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// This end resets stream `id` while the peer may send `bytes` more on it.
    pub(crate) fn allow(&mut self, id: u32, bytes: u32) {
        while self.order.len() >= self.most {
            let Some(oldest) = self.order.pop_front() else {
                return; // `most` is 0
            };
            self.of_stream.remove(&oldest);
        }
        self.order.push_back(id);
        self.of_stream.insert(id, bytes);
    }

    /// `bytes` come for stream `id`, which is not there; `None` when that is too much.
    pub(crate) fn take(&mut self, id: u32, bytes: u32) -> Option<()> {
        let over = match self.of_stream.get_mut(&id) {
            Some(of_stream) => {
                let covered = bytes.min(*of_stream);
                *of_stream -= covered;
                bytes - covered
            }
            None => bytes,
        };
        self.left = self.left.checked_sub(over.into())?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_has_its_own_and_the_rest_is_shared() {
        let mut strays = Strays::new(10, 3);
        strays.allow(1, 100);
        strays.allow(3, 100);
        strays.take(1, 60).unwrap();
        strays.take(1, 44).unwrap(); // 4 of them from what is shared
        strays.take(3, 100).unwrap();
        strays.take(99, 6).unwrap();
        assert_eq!(strays.take(99, 1), None);
    }

    #[test]
    fn only_the_last_are_remembered() {
        let mut strays = Strays::new(0, 3);
        for id in 0..1000 {
            strays.allow(id, 1);
            assert!(strays.of_stream.len() <= 3 && strays.order.len() <= 3);
        }
        assert_eq!(strays.take(996, 1), None);
        for id in 997..1000 {
            strays.take(id, 1).unwrap();
        }
        let mut none = Strays::new(5, 0);
        none.allow(1, 100);
        none.take(1, 5).unwrap();
        assert_eq!(none.take(1, 1), None);
    }
}
