//! How a session ends: by its application, by a fault of the peer, or by what happens to the byte stream.

use super::super::code::{CLOSED, GoAwayCode, Refusal};
use super::super::error::{MuxError, StreamError, Violation};
use super::super::event::Event;
use super::super::store::Key;
use super::super::stream_entry::Rst;
use super::Engine;

impl Engine {
    /// Tells the peer that no more streams are wanted. With [`GoAwayCode::Normal`] existing streams
    /// go on, and the session ends when the last of them is over; any other code ends it at once.
    pub(crate) fn go_away(&mut self, code: GoAwayCode) {
        if self.end.is_some() {
            return;
        }
        self.refuse_new_streams();
        if self.local_go_away.is_none() || code != GoAwayCode::Normal {
            self.local_go_away = Some(code);
            self.go_away_owed = true;
        }
        self.ending = true;
        self.notices.open = true;
        if code != GoAwayCode::Normal {
            self.finish(MuxError::GaveUp { code });
        }
    }

    /// Ends the session in a bounded time: streams that were shut down still send what is queued, all others are
    /// reset, then go-away.
    pub(crate) fn close(&mut self, code: GoAwayCode) {
        self.begin_to_close(code);
        self.close_bounded = true;
        self.retime = true;
        self.notices.driver = true;
    }

    fn begin_to_close(&mut self, code: GoAwayCode) {
        if self.end.is_some() || self.closing {
            return;
        }
        self.refuse_new_streams();
        self.closing = true;
        self.close_code = code;
        self.notices.open = true;
        for key in self.store.keys() {
            let done = self.store.get(key).is_none_or(|entry| entry.fin_wanted);
            if !done {
                let failure = StreamError::Session(closed_here(code));
                self.reset_stream(key, CLOSED, failure);
            }
        }
    }

    /// The application has dropped its last handle to open and accept with. The session goes on for
    /// the streams that it still holds.
    pub(crate) fn abandon(&mut self) {
        self.refuse_new_streams();
        self.abandoned = true;
        self.close_if_unused();
    }

    /// The task that drives the session is gone.
    pub(crate) fn handle_driver_gone(&mut self) {
        self.finish(MuxError::DriverGone);
    }

    pub(super) fn close_if_unused(&mut self) {
        if self.end.is_none() && !self.store.iter().any(|(_, entry)| entry.held) {
            self.begin_to_close(GoAwayCode::Normal);
        }
    }

    /// No stream of the peer is taken from here on, and those that nobody accepted are refused.
    pub(super) fn refuse_new_streams(&mut self) {
        self.refusing = true;
        while let Some(key) = self.backlog.pop_front() {
            self.refuse_unseen(key, Refusal::GoingAway);
        }
    }

    /// Refuses a stream that nobody has accepted, and that is not in the backlog any more.
    pub(super) fn refuse_unseen(&mut self, key: Key, reason: Refusal) {
        if let Some(entry) = self.store.get_mut(key) {
            entry.held = false;
        }
        self.refuse(key, reason);
    }

    /// The peer broke the protocol: tell it, and end.
    pub(super) fn violated(&mut self, violation: Violation) {
        if self.end.is_none() {
            self.local_go_away = Some(violation.code());
            self.finish(MuxError::Protocol(violation));
            self.go_away_owed = true;
        }
    }

    /// Ends the session for every stream and everybody who waits. What came from the wire can still
    /// be accepted and read; nothing more goes out, except a go-away that was decided on.
    pub(super) fn finish(&mut self, error: MuxError) {
        if self.end.is_some() {
            return;
        }
        // After an error of the wire nothing can be sent.
        self.go_away_owed &= matches!(error, MuxError::GaveUp { .. } | MuxError::Closed);
        self.event_log.push_last(Event::Ended {
            reason: error.clone(),
        });
        self.notices.event = true;
        self.end = Some(error);
        self.scheduler.clear();
        self.control.clear();
        self.pongs.clear();
        self.retreating.clear();
        self.early_held.clear();
        self.slowed_until = None;
        self.pings.clear();
        self.body = None;
        self.memory.end(&mut self.wakes);
        self.still_since = None;
        self.notices.ended = true;
        for key in self.store.keys() {
            let Some(entry) = self.store.get_mut(key) else {
                continue;
            };
            entry.in_control = false;
            entry.in_data = false;
            entry.rst = Rst::None;
            self.unsent.change(entry.send.len(), 0, &mut self.wakes);
            if !entry.send.is_empty() && entry.failure.is_none() {
                entry.failure = self.end.clone().map(|end| Box::new(end.into()));
            }
            entry.send.clear();
            self.wakes.extend(entry.reader.take());
            self.wakes.extend(entry.writer.take());
            if !entry.held {
                self.remove(key);
            }
        }
    }

    /// Ends the session as this end wished, with a go-away if none was sent.
    pub(super) fn end_here(&mut self) {
        let code = self.close_code;
        if self.local_go_away != Some(code) {
            self.local_go_away = Some(code);
            self.go_away_owed = true;
        }
        self.finish(closed_here(code));
    }
}

/// Why a session is over that this end closed.
fn closed_here(code: GoAwayCode) -> MuxError {
    match code {
        GoAwayCode::Normal => MuxError::Closed,
        code => MuxError::GaveUp { code },
    }
}
