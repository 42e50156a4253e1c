//! Circuits between two members of a fleet that nobody reads.
//!
//! All circuits between two relays are in one session, and what has arrived of them and waits here shares the memory of one peer. Of each up to
//! a window (256 KiB at first) waits until its other end takes it. Where many ends do not, there is no room any more: then the session is
//! not read, and all the other circuits in it wait as well. So a relay looks at each such circuit once a second:
//!
//! ```text
//!    what waits of it would take longer than 30 s, as fast as it was read in the last 3 s  ->  it is slow
//!    the slow ones of a session hold more than half of that memory                        ->  those that hold most are ended
//! ```
//!
//! A circuit that is read is never slow, however much it carries, nor is one of which nothing waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::session::Session;

/// Between two looks.
const EACH: Duration = Duration::from_secs(1);

/// What would not be read in so many looks is slow.
const LOOKS: u64 = 30;

/// Looks that say how fast it is read: some read much, now and then.
const PACE: usize = 3;

/// One part of the memory of a peer may wait of slow circuits: there is always room for the others then.
const PART: usize = 2;

/// The circuits that lead through a session with another member. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    all: HashMap<u64, Circuit>,
}

struct Circuit {
    session: Session,
    stream: u32,
    pace: Pace,
    /// Ends it.
    unread: CancellationToken,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Each change is whole before anything can panic.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A circuit that is looked at, until this is dropped.
pub(super) struct Looked {
    of: Unread,
    number: u64,
    /// It is in the way of others, and has to end.
    pub(super) unread: CancellationToken,
}

impl Unread {
    /// One more, by its end in the session with the other member.
    pub(super) fn add(&self, session: Session, stream: u32) -> Looked {
        let unread = CancellationToken::new();
        let circuit = Circuit {
            session,
            stream,
            pace: Pace::default(),
            unread: unread.clone(),
        };
        let mut state = lock(&self.0);
        state.next += 1;
        let number = state.next;
        state.all.insert(number, circuit);
        drop(state);
        Looked {
            of: self.clone(),
            number,
            unread,
        }
    }

    /// Looks at them now and then, as long as there is the relay; so many bytes may wait of one peer.
    pub(super) fn look(&self, memory_a_peer: usize) -> impl Future<Output = ()> + Send + use<> {
        let state = Arc::downgrade(&self.0);
        async move {
            loop {
                sleep(EACH).await;
                let Some(state) = state.upgrade() else {
                    return;
                };
                lock(&state).look(memory_a_peer / PART);
            }
        }
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        lock(&self.of.0).all.remove(&self.number);
    }
}

impl State {
    fn look(&mut self, most: usize) {
        let mut sessions = HashMap::new();
        for circuit in self.all.values() {
            let session = &circuit.session;
            let streams = || {
                let streams = session.streams(usize::MAX).into_iter();
                streams
                    .map(|it| (it.id, it.stats))
                    .collect::<HashMap<_, _>>()
            };
            sessions
                .entry(session.number())
                .or_insert_with(|| (streams(), Vec::new()));
        }
        for (number, circuit) in &mut self.all {
            let Some((streams, waiting)) = sessions.get_mut(&circuit.session.number()) else {
                continue;
            };
            if let Some(stats) = streams.get(&circuit.stream) {
                let waits = circuit.pace.look(stats.data_in, stats.unread);
                waiting.push((*number, waits));
            }
        }
        for (_, waiting) in sessions.into_values() {
            for number in surplus(waiting, most) {
                if let Some(circuit) = self.all.get(&number) {
                    circuit.unread.cancel();
                }
            }
        }
    }
}

/// How fast a stream is read.
#[derive(Debug, Default)]
struct Pace {
    /// Bytes that were read until each of the last looks, the oldest first.
    read: VecDeque<u64>,
}

impl Pace {
    /// So many bytes have come, and so many of them wait: those that wait of a slow one.
    fn look(&mut self, come: u64, wait: usize) -> usize {
        let wait_bytes = wait as u64;
        let read = come.saturating_sub(wait_bytes);
        let (before, looks) = (self.read.front().copied(), self.read.len() as u64);
        if self.read.len() >= PACE {
            self.read.pop_front();
        }
        self.read.push_back(read);
        let since = read.saturating_sub(before.unwrap_or(0));
        // Of one that was never looked at before nothing is known.
        if since.saturating_mul(LOOKS) < wait_bytes.saturating_mul(looks) {
            wait
        } else {
            0
        }
    }
}

/// Of these, each with what waits of it, those that hold most, so that the others hold no more than this.
fn surplus(mut all: Vec<(u64, usize)>, most: usize) -> Vec<u64> {
    let waits = all.iter().map(|(_, waits)| *waits);
    let mut held = waits.fold(0, usize::saturating_add);
    // The older one of two.
    all.sort_unstable_by_key(|(number, waits)| (std::cmp::Reverse(*waits), *number));
    let mut ended = Vec::new();
    for (number, waits) in all {
        if held <= most {
            break;
        }
        held = held.saturating_sub(waits);
        ended.push(number);
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_slow_by_what_waits_and_how_fast_it_is_read() {
        // Bytes that are read from one look to the next, while 60,000 wait.
        let slow = |reads: &[u64]| {
            let (mut pace, mut come) = (Pace::default(), 60_000);
            let looks = reads.iter().map(|read| {
                come += read;
                pace.look(come, 60_000) > 0
            });
            looks.collect::<Vec<_>>()
        };
        assert_eq!(
            slow(&[9, 0, 0]),
            [false, true, true],
            "nothing is known at first"
        );
        assert_eq!(slow(&[9, 1, 1, 1, 1]), [false, true, true, true, true]);
        assert_eq!(slow(&[9, 2000, 1999, 2001]), [false, false, true, false]);
        // Much, now and then; then nothing any more.
        let now_and_then = [9, 6000, 0, 0, 6000, 0, 0, 0];
        assert_eq!(
            slow(&now_and_then)[1..],
            [false, false, false, false, false, false, true]
        );
        let mut pace = Pace::default();
        for _ in 0..5 {
            assert_eq!(pace.look(60_000, 0), 0, "it rests");
        }
    }

    #[test]
    fn those_that_hold_most_are_ended_until_it_is_little() {
        let all = vec![(1, 5), (2, 20), (3, 0), (4, 20), (5, 10)];
        assert_eq!(surplus(all.clone(), 55), [0; 0]);
        assert_eq!(surplus(all.clone(), 54), [2]);
        assert_eq!(surplus(all.clone(), 20), [2, 4]);
        assert_eq!(surplus(all, 0), [2, 4, 5, 1]);
    }
}
