//! What the engine knows of one stream.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::config::StreamTimeouts;
use super::credit::{PROVEN, RecvWindow, SendWindow};
use super::error::{MuxError, StreamError, StreamTimeout};
use super::event::Event;
use super::frame::INITIAL_WINDOW;
use super::moment::Moment;
use super::priority::Priority;
use super::queue::{RecvQueue, SendQueue};
use super::state::{Halves, Handshake, State};
use super::stats::StreamStats;

/// A stream that nobody holds is given up after so long without progress, whatever limits there are.
const ABANDONED: Duration = Duration::from_secs(60);

/// What a stream that is handed on holds for sending before anybody is known to read it: a record. More waits where it came from, which
/// would hold it in any case.
pub(crate) const HANDED_ON: usize = 16 << 10;

/// Whether a RST is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rst {
    /// No, or it was.
    None,
    /// As soon as there is room.
    Owed,
    /// When the peer has answered, or this end may take back another opening.
    Held,
}

/// One stream, from its opening until it is over on the wire and dropped by the application.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u32,
    /// Opened by the peer.
    pub(crate) inbound: bool,
    pub(crate) state: State,
    /// The application has a handle, or will get one from `accept`.
    pub(crate) held: bool,
    /// Handed to the application; always true for streams of this end.
    pub(crate) accepted: bool,
    /// Over on the wire, and nothing is owed to the peer. Never reverts.
    pub(crate) settled: bool,
    /// Counts as an unanswered opening of this end.
    pub(crate) unanswered: bool,
    /// The application has ended its direction; the FIN follows what is queued.
    pub(crate) fin_wanted: bool,
    /// What is written is read of another stream.
    pub(crate) handed_on: bool,
    /// The peer reset the stream, but had ended its direction with a FIN before.
    pub(crate) ended: bool,
    /// Data came that nobody will read. The stream is reset once its own data and FIN are out.
    pub(crate) unwanted: bool,
    /// Whether a RST with this code is to be sent. Only in state `Reset`.
    pub(crate) rst: Rst,
    pub(crate) rst_code: u32,

    pub(crate) recv: RecvQueue,
    pub(crate) recv_window: RecvWindow,
    pub(crate) send: SendQueue,
    pub(crate) send_window: SendWindow,

    /// What this end puts it before and behind.
    pub(crate) priority: Priority,
    /// Sixteen times as many bytes it has sent beyond its turns when it last ran out of data.
    pub(crate) debt: u16,
    /// What it is for, for who looks. One pointer, and shared.
    pub(crate) label: Option<Arc<String>>,
    /// Bytes of data that came and went.
    pub(crate) data_in: u64,
    pub(crate) data_out: u64,

    /// In the scheduler's control lane; in one of its data lanes. At most once each.
    pub(crate) in_control: bool,
    pub(crate) in_data: bool,

    /// Who waits to read, and who to write. Taken when woken, so once a batch.
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,

    /// Why the stream ended without a FIN, once it has.
    pub(crate) failure: Option<Box<StreamError>>,

    /// By when the application of the peer has to answer, where this end waits for such an answer.
    pub(crate) answer_by: Option<Moment>,
    /// The stream's own time limits, where they are not those of the session.
    pub(crate) timeouts: Option<Box<StreamTimeouts>>,
    /// When the SYN went out or came.
    pub(crate) opened_at: Moment,
    /// When a frame last came or went.
    pub(crate) active_at: Moment,
    /// The application has just read what kept a half-closed stream from being silent; the clock
    /// starts when the engine is next told the time.
    pub(crate) caught_up: bool,
    /// Since when data waits without credit.
    pub(crate) stalled_since: Option<Moment>,
}

impl Entry {
    /// A stream that this end opens, with this first window each way.
    pub(crate) fn opened_here(id: u32, now: Moment, window: u32) -> Self {
        Self {
            id,
            inbound: false,
            state: State::OPENED_HERE,
            held: true,
            accepted: true,
            settled: false,
            unanswered: true,
            fin_wanted: false,
            handed_on: false,
            ended: false,
            unwanted: false,
            rst: Rst::None,
            rst_code: 0,
            recv: RecvQueue::default(),
            recv_window: RecvWindow::new(window),
            send: SendQueue::default(),
            send_window: SendWindow::new(window),
            priority: Priority::NORMAL,
            debt: 0,
            label: None,
            data_in: 0,
            data_out: 0,
            in_control: false,
            in_data: false,
            reader: None,
            writer: None,
            failure: None,
            answer_by: None,
            timeouts: None,
            opened_at: now,
            active_at: now,
            caught_up: false,
            stalled_since: None,
        }
    }

    /// A stream that the peer opened.
    pub(crate) fn opened_there(id: u32, now: Moment, window: u32) -> Self {
        Self {
            inbound: true,
            state: State::OPENED_THERE,
            unanswered: false,
            accepted: false,
            ..Self::opened_here(id, now, window)
        }
    }

    /// Bytes that the application has taken.
    pub(crate) fn data_read(&self) -> u64 {
        self.data_in.saturating_sub(self.recv.len() as u64)
    }

    /// How many bytes the stream holds for sending at most: no more than its first window, where that is small, before it has
    /// carried so much that it is bulk, and little where it is handed on and not taken; `most` are those of the session.
    pub(crate) fn send_queue(&self, most: usize, first_window: u32) -> usize {
        if self.handed_on && !self.is_taken(first_window) {
            most.min(HANDED_ON)
        } else if first_window < INITIAL_WINDOW && self.data_out < PROVEN {
            most.min(first_window as usize)
        } else {
            most
        }
    }

    /// Whether the peer has granted more than the first window, which shows that somebody reads there.
    pub(crate) fn is_taken(&self, first_window: u32) -> bool {
        self.data_out + u64::from(self.send_window.credit()) > u64::from(first_window)
    }

    /// Data waits and may be sent.
    pub(crate) fn can_send_data(&self) -> bool {
        !self.send.is_empty() && self.send_window.credit() > 0 && self.state.can_send()
    }

    /// Data waits without credit, and nobody has looked at the clock yet.
    pub(crate) fn stall_unnoticed(&self) -> bool {
        !self.send.is_empty()
            && self.send_window.credit() == 0
            && self.stalled_since.is_none()
            && self.state.can_send()
    }

    /// The FIN is to be sent now.
    pub(crate) fn fin_due(&self) -> bool {
        self.fin_wanted && self.send.is_empty() && self.state.can_send()
    }

    /// The application asked for something that has not gone out: data, a FIN, a RST.
    pub(crate) fn has_output(&self) -> bool {
        self.rst == Rst::Owed
            || (self.state.can_send() && (!self.send.is_empty() || self.fin_wanted))
    }

    /// The peer is to be granted credit.
    pub(crate) fn credit_due(&self) -> bool {
        self.state.can_receive() && self.held && self.recv_window.is_due()
    }

    /// The opening or its answer is to be sent; nothing is said of a stream nobody has accepted.
    pub(crate) fn greeting_due(&self) -> bool {
        matches!(
            self.state.handshake,
            Handshake::SynOwed | Handshake::AckOwed
        ) && self.accepted
            && !self.state.is_over()
    }

    /// Counters and gauges.
    pub(crate) fn stats(&self) -> StreamStats {
        StreamStats {
            data_in: self.data_in,
            data_out: self.data_out,
            unsent: self.send.len(),
            unread: self.recv.len(),
            send_window: self.send_window.credit(),
            receive_window: self.recv_window.max(),
            priority: self.priority,
        }
    }

    /// What is told of the stream when its slot becomes free; `end` is why the session is over, if it is.
    pub(crate) fn closed(&self, end: Option<&MuxError>) -> Event {
        let cut = || (!self.state.is_over()).then(|| end.cloned().map(StreamError::Session));
        Event::Closed {
            id: self.id,
            by_peer: self.inbound,
            failure: self.failure.as_deref().cloned().or_else(|| cut().flatten()),
            stats: self.stats(),
        }
    }

    /// The first time limit that the stream will reach as things stand; `usual` are those of the
    /// session, which began at `start`.
    pub(crate) fn deadline(
        &self,
        usual: &StreamTimeouts,
        start: Instant,
    ) -> Option<(Instant, StreamTimeout)> {
        if self.state.is_over() {
            return None;
        }
        let abandoned = (!self.held).then(|| {
            let which = if self.send.is_empty() {
                StreamTimeout::HalfClosed
            } else {
                StreamTimeout::WriteStalled
            };
            (self.active_at.instant(start) + ABANDONED, which)
        });
        let limits = self.timeouts.as_deref().unwrap_or(usual);
        let open = (self.state.handshake == Handshake::AckAwaited)
            .then(|| {
                Some((
                    self.opened_at.instant(start) + limits.open?,
                    StreamTimeout::Open,
                ))
            })
            .flatten();
        // An answer that is here came in time, whenever it is read.
        let answer = self
            .answer_by
            .filter(|_| self.recv.is_empty())
            .map(|at| (at.instant(start), StreamTimeout::Open));
        // Data that nobody reads here is not the peer's fault, and data that it does not take is
        // for the other limit to judge.
        let half = (matches!(self.state.halves, Halves::SendClosed | Halves::RecvClosed)
            && self.recv.is_empty()
            && self.send.is_empty())
        .then(|| {
            Some((
                self.active_at.instant(start) + limits.half_closed?,
                StreamTimeout::HalfClosed,
            ))
        })
        .flatten();
        let stalled = self.stalled_since.and_then(|since| {
            Some((
                since.instant(start) + limits.write_stalled?,
                StreamTimeout::WriteStalled,
            ))
        });
        [abandoned, open, answer, half, stalled]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions hold thousands of these, most of them idle. What is rare has a box of its own.
    #[test]
    fn an_idle_stream_is_small() {
        assert!(size_of::<Entry>() <= 248, "{}", size_of::<Entry>());
    }
}
