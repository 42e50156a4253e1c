//! Memory of unread data: when the wire is not read, when it is again, and what ends a standstill.
//!
//! A wire that is not read holds everything up that comes on it, credit as well. So an application that reads
//! one stream only when it could write another may wait for ever: what it waits for stands behind what it does not read. That
//! takes more unread data than there is memory for, and then there is no way on without the loss of a stream. So
//! when nothing has moved for [`STANDSTILL`], and somebody waits for the peer, the stream that holds the most
//! is reset. A session in which everybody just rests is left alone. What was sent on streams that nobody has accepted is given
//! up first, and sooner: they are refused, and can be opened again.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::super::code::{self, Refusal};
use super::super::error::{StreamError, StreamTimeout};
use super::super::event::{Event, Limit};
use super::super::queue::RecvQueue;
use super::super::store::Key;
use super::super::stream_entry::Entry;
use super::Engine;

/// See the head of this file.
const STANDSTILL: Duration = Duration::from_secs(60);

/// The same where streams wait to be accepted: less than their openers wait.
const STANDSTILL_OF_WAITING: Duration = Duration::from_secs(5);

impl Engine {
    /// Whether nothing is to be read from the byte stream, for want of memory; see [`Engine::resume`].
    pub(crate) fn is_stopped(&self) -> bool {
        self.memory.is_stopped()
    }

    /// Whether the byte stream may be read. If not, `waker` is woken when it may.
    pub(crate) fn resume(&mut self, now: Instant, waker: &Waker) -> bool {
        if self.memory.is_stopped() && self.memory.resume(waker, &mut self.wakes) {
            self.still_since = None;
            // It could not be heard.
            self.heard_at = now;
            self.keepalive_asked = None;
            self.forget_pings();
        }
        !self.memory.is_stopped()
    }

    /// Streams that this end chose to open are not held against the peer.
    pub(super) fn set_budget(&mut self) {
        let first_windows = self
            .outbound
            .saturating_mul(self.config.first_window as usize);
        let budget = self.config.receive_budget.saturating_add(first_windows);
        self.memory.set_budget(budget);
    }

    /// Something came: stops reading if that is more than may be held.
    pub(super) fn look_at_memory(&mut self, now: Instant) {
        if self.memory.arrived(&mut self.wakes) {
            return;
        }
        for (_, entry) in self.store.iter_mut() {
            let before = entry.recv.held();
            entry.recv.compact();
            self.memory.change(before, entry.recv.held());
        }
        if !self.memory.arrived(&mut self.wakes) {
            self.memory.stop();
            self.notices.accept |= !self.backlog.is_empty();
            self.still_since = Some(now);
            self.emit(|| Event::LimitReached {
                limit: Limit::ReceiveMemory,
            });
        }
    }

    /// Does something with what waits to be read, and counts what that leaves in memory.
    pub(super) fn change_recv(&mut self, key: Key, f: impl FnOnce(&mut RecvQueue)) {
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        let before = entry.recv.held();
        f(&mut entry.recv);
        let after = entry.recv.held();
        if before != after {
            self.memory.change(before, after);
            self.memory.freed(&mut self.wakes);
        }
    }

    pub(super) fn standstill_ends(&self) -> Option<Instant> {
        let waiting = !self.backlog.is_empty();
        let patience = if waiting {
            STANDSTILL_OF_WAITING
        } else {
            STANDSTILL
        };
        self.still_since.map(|since| since + patience)
    }

    pub(super) fn look_for_a_standstill(&mut self, now: Instant) {
        if self.memory.take_moved() && self.still_since.is_some() {
            self.still_since = Some(now);
        }
        if self.standstill_ends().is_none_or(|at| now < at) {
            return;
        }
        let awaited = self.pings.iter().any(|ping| ping.token.is_some())
            || self.store.iter().any(|(_, entry)| waits_for_peer(entry));
        if !awaited {
            self.still_since = Some(now);
            return;
        }
        if let Some(key) = self.newest_waiting() {
            self.still_since = Some(now);
            self.backlog.retain(|other| *other != key);
            self.refuse_unseen(key, Refusal::Memory);
            return;
        }
        if self
            .still_since
            .is_none_or(|since| now < since + STANDSTILL)
        {
            return;
        }
        self.still_since = Some(now);
        let largest = self
            .store
            .iter()
            .filter(|(_, entry)| !entry.state.is_over() && !entry.recv.is_empty())
            .max_by_key(|(_, entry)| entry.recv.held());
        if let Some((key, _)) = largest {
            let failure = StreamError::TimedOut(StreamTimeout::Unread);
            self.reset_stream(key, code::UNREAD, failure);
        }
    }

    /// The stream that came last of those that hold something and that nobody has accepted.
    fn newest_waiting(&self) -> Option<Key> {
        let holds = |key: &Key| {
            self.store
                .get(*key)
                .is_some_and(|entry| entry.recv.held() > 0)
        };
        self.backlog.iter().rev().copied().find(holds)
    }
}

/// Whether somebody can not go on before something comes from the peer.
fn waits_for_peer(entry: &Entry) -> bool {
    entry.stalled_since.is_some()
        || entry.unanswered
        || (entry.reader.is_some() && entry.recv.is_empty())
}
