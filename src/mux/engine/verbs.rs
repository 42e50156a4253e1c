//! What the application does with streams.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::super::code::Refusal;
use super::super::config::StreamTimeouts;
use super::super::error::{MuxError, StreamError};
use super::super::moment::Moment;
use super::super::priority::Priority;
use super::super::queue::RecvQueue;
use super::super::state::Halves;
use super::super::stats::{StreamInfo, StreamStats};
use super::super::store::Key;
use super::super::stream_entry::Entry;
use super::Engine;

/// What streams are for that a session keeps to share it: a peer has few services open at once.
const LABELS: usize = 8;

/// A piece of an answer, and until when all of it had to come.
type Answer = (Bytes, Option<Moment>);

impl Engine {
    /// Takes the next piece that arrived; `None` at the peer's FIN. What arrived before an abnormal
    /// end can still be read, then the end's error comes, every time.
    pub(crate) fn read(
        &mut self,
        key: Key,
        waker: &Waker,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.take_piece(key, Some(waker), usize::MAX, false)
    }

    /// [`Engine::read`], where no more than `most` bytes are taken.
    pub(crate) fn read_part(
        &mut self,
        key: Key,
        most: usize,
        waker: &Waker,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.take_piece(key, Some(waker), most, false)
    }

    /// Whether data waits to be read.
    pub(crate) fn has_unread(&self, key: Key) -> bool {
        self.store
            .get(key)
            .is_some_and(|entry| !entry.recv.is_empty())
    }

    /// [`Engine::read`], where the piece stays with the stream's handle for a while, and counts until the next call.
    pub(crate) fn borrow(
        &mut self,
        key: Key,
        waker: &Waker,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.take_piece(key, Some(waker), usize::MAX, true)
    }

    /// [`Engine::borrow`] for who does not wait: whoever reads is woken as before.
    pub(crate) fn borrow_now(&mut self, key: Key) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.take_piece(key, None, usize::MAX, true)
    }

    /// [`Engine::borrow`], or [`Engine::borrow_now`] without a waker, for who takes it for the answer that is waited for: nothing is
    /// from then on. Where it was not all of the answer, [`Engine::answer_by`] gets the time that comes with it.
    pub(crate) fn borrow_answer(
        &mut self,
        key: Key,
        waker: Option<&Waker>,
    ) -> Poll<Result<Option<Answer>, StreamError>> {
        let by = self.store.get_mut(key).and_then(|entry| {
            let has_come = !entry.recv.is_empty();
            has_come.then(|| entry.answer_by.take()).flatten()
        });
        let taken = self.take_piece(key, waker, usize::MAX, true);
        taken.map_ok(|piece| piece.map(|piece| (piece, by)))
    }

    /// Whether there is something that [`Engine::borrow_now`] would tell.
    pub(crate) fn has_news(&self, key: Key) -> bool {
        let Some(entry) = self.store.get(key) else {
            return true;
        };
        !entry.recv.is_empty()
            || entry.ended
            || matches!(entry.state.halves, Halves::RecvClosed | Halves::Closed)
            || entry.failure.is_some()
            || self.end.is_some()
    }

    fn take_piece(
        &mut self,
        key: Key,
        waker: Option<&Waker>,
        most: usize,
        lend: bool,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let end = self.end.as_ref();
        let Some(entry) = self.store.get_mut(key) else {
            return Poll::Ready(Err(gone(end)));
        };
        let before = entry.recv.held();
        let piece = entry.recv.pop(most, lend);
        if before != entry.recv.held() {
            self.memory.change(before, entry.recv.held());
            self.memory.freed(&mut self.wakes);
        }
        if let Some(piece) = piece {
            entry.recv_window.read(piece.len());
            entry.recv_window.look_ahead(
                self.received_at,
                self.round_trip,
                self.config.max_receive_window,
                &self.budget,
            );
            if entry.recv.is_empty() {
                let half_closed = entry.state.halves == Halves::SendClosed;
                entry.caught_up |= half_closed;
                if half_closed {
                    self.notices.driver |= self.watch(key);
                }
            }
            if self.store.get(key).is_some_and(Entry::credit_due) {
                self.schedule(key);
            }
            return Poll::Ready(Ok(Some(piece)));
        }
        if entry.ended || matches!(entry.state.halves, Halves::RecvClosed | Halves::Closed) {
            return Poll::Ready(Ok(None));
        }
        if let Some(failure) = entry.failure.as_deref() {
            return Poll::Ready(Err(failure.clone()));
        }
        if let Some(end) = end {
            return Poll::Ready(Err(end.clone().into()));
        }
        if let Some(waker) = waker {
            register(&mut entry.reader, waker);
        }
        Poll::Pending
    }

    /// How many bytes [`Engine::write`] takes now; more than 0.
    pub(crate) fn write_space(
        &mut self,
        key: Key,
        waker: &Waker,
    ) -> Poll<Result<usize, StreamError>> {
        let end = self.end.as_ref();
        let Some(entry) = self.store.get_mut(key) else {
            return Poll::Ready(Err(gone(end)));
        };
        if let Some(failure) = entry.failure.as_deref() {
            return Poll::Ready(Err(failure.clone()));
        }
        if entry.fin_wanted || !entry.state.can_send() {
            return Poll::Ready(Err(StreamError::WriteAfterShutdown));
        }
        if let Some(end) = end {
            return Poll::Ready(Err(end.clone().into()));
        }
        let (len, wakes) = (entry.send.len(), &mut self.wakes);
        let most = entry.send_queue(self.config.send_queue, self.config.first_window);
        let space = most.saturating_sub(len);
        let space = self.unsent.space(len, space, wakes);
        if space == 0 {
            register(&mut entry.writer, waker);
            return Poll::Pending;
        }
        Poll::Ready(Ok(space))
    }

    /// Ready once the stream was reset, or its session is over, whatever waits to be read.
    pub(crate) fn lost(&mut self, key: Key, waker: &Waker) -> Poll<StreamError> {
        let end = self.end.as_ref();
        let Some(entry) = self.store.get_mut(key) else {
            return end.map_or(Poll::Pending, |_| Poll::Ready(gone(end)));
        };
        if let Some(failure) = entry.failure.as_deref() {
            return Poll::Ready(failure.clone());
        }
        if let Some(end) = end {
            return Poll::Ready(end.clone().into());
        }
        register(&mut entry.writer, waker);
        Poll::Pending
    }

    /// Queues data by reference. The caller has asked [`Engine::write_space`]; if the stream ended
    /// since, the next call says so.
    pub(crate) fn write(&mut self, key: Key, data: Bytes) {
        self.queue(key, |entry| entry.send.push(data));
    }

    /// Queues a copy of data.
    pub(crate) fn write_copy(&mut self, key: Key, data: &[u8]) {
        self.queue(key, |entry| entry.send.copy(data));
    }

    fn queue(&mut self, key: Key, push: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if self.end.is_some() || entry.fin_wanted || !entry.state.can_send() {
            return;
        }
        let before = entry.send.len();
        push(entry);
        self.unsent
            .change(before, entry.send.len(), &mut self.wakes);
        self.schedule(key);
    }

    /// Ends this end's direction behind what is queued.
    pub(crate) fn shutdown(&mut self, key: Key) -> Result<(), StreamError> {
        let end = self.end.as_ref();
        let Some(entry) = self.store.get_mut(key) else {
            return Err(gone(end));
        };
        if entry.failure.is_none()
            && entry.state.halves == Halves::RecvClosed
            && end.is_some_and(MuxError::is_clean)
        {
            // The peer has ended its direction and then the session: nobody waits for the end of this one, and
            // nothing was cut.
            return Ok(());
        }
        if entry.fin_wanted || matches!(entry.state.halves, Halves::SendClosed | Halves::Closed) {
            // Done, or as good as done. If the session ended before the FIN left, that is told.
            let unsent = entry.state.can_send();
            return match (end, entry.failure.as_deref()) {
                (_, Some(failure)) => Err(failure.clone()),
                (Some(end), None) if unsent => Err(end.clone().into()),
                _ => Ok(()),
            };
        }
        if let Some(failure) = entry.failure.as_deref() {
            return Err(failure.clone());
        }
        if let Some(end) = end {
            return Err(end.clone().into());
        }
        entry.fin_wanted = true;
        self.schedule(key);
        Ok(())
    }

    /// Whether all that was written has been put on the wire, and the end behind it.
    pub(crate) fn drained(&mut self, key: Key, waker: &Waker) -> Poll<Result<(), StreamError>> {
        let end = self.end.as_ref();
        let Some(entry) = self.store.get_mut(key) else {
            return Poll::Ready(Err(gone(end)));
        };
        if let Some(failure) = entry.failure.as_deref() {
            return Poll::Ready(Err(failure.clone()));
        }
        if !entry.has_output() {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = end {
            return Poll::Ready(Err(end.clone().into()));
        }
        register(&mut entry.writer, waker);
        Poll::Pending
    }

    /// Ends both directions at once; `code` is sent with the RST, for peers that read it.
    pub(crate) fn reset(&mut self, key: Key, code: u32) {
        self.change_recv(key, RecvQueue::take_back);
        self.reset_stream(key, code, StreamError::ResetHere);
    }

    /// Ends a stream of the peer that nothing was done with.
    pub(crate) fn refuse(&mut self, key: Key, reason: Refusal) {
        self.reset(key, reason.code());
    }

    /// The application drops its handle. A stream that is not shut down is reset; one that is still
    /// sends what is queued, and is reset only if the peer keeps sending.
    pub(crate) fn release(&mut self, key: Key) {
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        entry.held = false;
        entry.answer_by = None;
        entry.reader = None;
        entry.writer = None;
        if entry.settled || self.end.is_some() {
            self.remove(key);
        } else if entry.fin_wanted {
            self.change_recv(key, |recv| *recv = RecvQueue::default());
            let Some(entry) = self.store.get_mut(key) else {
                return;
            };
            // A peer that has used up its window waits for credit, which will not come: it is told
            // so without being asked.
            entry.unwanted |= entry.state.can_receive() && entry.recv_window.left() == 0;
            let must_reset = entry.unwanted && !entry.has_output();
            self.dropped.push(key);
            self.retime = true;
            if must_reset {
                self.reset_stream(key, 0, StreamError::ResetHere);
            }
        } else {
            self.reset(key, 0);
        }
        if self.abandoned {
            self.close_if_unused();
        }
    }

    /// Moves a stream among the others, with what it has queued.
    pub(crate) fn set_priority(&mut self, key: Key, priority: Priority) {
        let Some(entry) = self.store.get_mut(key) else {
            return;
        };
        if entry.priority == priority {
            return;
        }
        entry.priority = priority;
        if entry.in_data && self.scheduler.remove_data(key) {
            entry.in_data = false;
            self.schedule(key);
        }
    }

    /// Counters and gauges of a stream.
    pub(crate) fn stream_stats(&self, key: Key) -> StreamStats {
        self.store.get(key).map(Entry::stats).unwrap_or_default()
    }

    /// All streams, the oldest first, but at most so many.
    pub(crate) fn streams(&self, now: Instant, most: usize) -> Vec<StreamInfo> {
        let ago = |moment: Moment| now.saturating_duration_since(moment.instant(self.started_at));
        let mut all: Vec<&Entry> = self.store.iter().map(|(_, entry)| entry).collect();
        // By number where the clock does not tell: each end counts its own upwards.
        let oldest = |entry: &&Entry| (entry.opened_at, entry.id);
        if all.len() > most {
            all.select_nth_unstable_by_key(most, oldest);
            all.truncate(most);
        }
        all.sort_unstable_by_key(oldest);
        let info = |entry: &Entry| StreamInfo {
            id: entry.id,
            by_peer: entry.inbound,
            label: entry.label.as_deref().cloned(),
            age: ago(entry.opened_at),
            quiet: ago(entry.active_at),
            stats: entry.stats(),
        };
        all.into_iter().map(info).collect()
    }

    /// What is read of a stream is written to another one, and the other way.
    pub(crate) fn hand_on(&mut self, key: Key) {
        if let Some(entry) = self.store.get_mut(key) {
            entry.handed_on = true;
            entry.recv_window.hold(true);
        }
    }

    /// Whether a stream's window does not grow for the time being.
    pub(crate) fn hold_window(&mut self, key: Key, held: bool) {
        if let Some(entry) = self.store.get_mut(key) {
            entry.recv_window.hold(held);
        }
    }

    /// Whether the peer has granted more than the first window of a stream, which shows that somebody reads it there.
    pub(crate) fn is_taken(&self, key: Key) -> bool {
        self.store
            .get(key)
            .is_none_or(|entry| entry.is_taken(self.config.first_window))
    }

    /// Says what a stream is for. Many are for the same, and share its name.
    pub(crate) fn set_label(&mut self, key: Key, label: &str) -> Arc<String> {
        let known = self.labels.iter().find(|known| ***known == *label);
        let label = known.cloned().unwrap_or_else(|| {
            if self.labels.len() == LABELS {
                self.labels.pop_front();
            }
            let new = Arc::new(label.to_owned());
            self.labels.push_back(Arc::clone(&new));
            new
        });
        if let Some(entry) = self.store.get_mut(key) {
            entry.label = Some(Arc::clone(&label));
        }
        label
    }

    /// Says what a stream that was just opened is for, by `first`, which leaves with its opening: a few bytes, for which there is room in
    /// any case. Until [`Engine::borrow_answer`] has given something the stream is lost when `answer_by` has passed.
    pub(crate) fn begin(
        &mut self,
        key: Key,
        label: &str,
        first: Vec<u8>,
        answer_by: Option<Instant>,
    ) -> Arc<String> {
        self.queue(key, |entry| entry.send.begin(first));
        let by = answer_by.map(|at| self.moment(at));
        self.answer_by(key, by);
        self.set_label(key, label)
    }

    /// The stream is lost when no answer has come by then.
    pub(crate) fn answer_by(&mut self, key: Key, by: Option<Moment>) {
        if let (Some(entry), Some(_)) = (self.store.get_mut(key), by) {
            entry.answer_by = by;
            // A driver that waits for the byte stream has to know of it, too.
            self.notices.driver |= self.watch(key);
        }
    }

    /// Replaces the time limits of a stream.
    pub(crate) fn set_timeouts(&mut self, key: Key, timeouts: StreamTimeouts) {
        if let Some(entry) = self.store.get_mut(key) {
            entry.timeouts = Some(Box::new(timeouts));
            self.watch(key);
        }
    }
}

/// Why a stream that the store does not know can not be used.
fn gone(end: Option<&MuxError>) -> StreamError {
    end.map_or(StreamError::ResetHere, |end| {
        StreamError::Session(end.clone())
    })
}

fn register(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) if known.will_wake(waker) => {}
        _ => *place = Some(waker.clone()),
    }
}
