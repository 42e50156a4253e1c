//! What a session tells those who watch it: one [`Event`] for each thing that is worth a metric or a line
//! in a log.
//!
//! The engine records, under its lock, into a queue with a bound; nobody's code is called there. Whoever
//! watches takes events out when it likes. When it is slower than what happens, the newest are
//! not kept but counted, and the count stands in their place: a watcher can fall behind, but it can
//! neither hold the session up nor make it grow. With no room at all, which is the default, recording costs
//! one comparison.

use std::collections::VecDeque;

use super::error::{MuxError, StreamError};
use super::stats::StreamStats;

/// Something that happened in a session, in the order in which it happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A substream was opened.
    Opened {
        /// Its number on the wire.
        id: u32,
        /// By the other end; it waits to be accepted.
        by_peer: bool,
    },
    /// A substream that the peer opened was handed to the application.
    Accepted {
        /// Its number on the wire.
        id: u32,
    },
    /// A substream is over on the wire and was dropped by the application, so its slot is free.
    Closed {
        /// Its number on the wire.
        id: u32,
        /// Whether the other end had opened it.
        by_peer: bool,
        /// `None`: both directions ended with a FIN.
        failure: Option<StreamError>,
        /// Its counters at the end.
        stats: StreamStats,
    },
    /// A substream that the peer wanted to open was refused with RST.
    Refused {
        /// Its number on the wire.
        id: u32,
        /// What there was no room in.
        limit: Limit,
    },
    /// A limit was reached, and something waits or was left out.
    LimitReached {
        /// Which one.
        limit: Limit,
    },
    /// The session is over. Substreams that are still held are told of after this, when they are
    /// dropped.
    Ended {
        /// Why. The peer's breach of a rule is [`MuxError::Protocol`].
        reason: MuxError,
    },
    /// So many events were not kept, because nobody took those before them.
    Lost {
        /// How many.
        count: u64,
    },
}

/// A limit of [`Config`](super::Config) that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// [`Config::max_inbound_streams`](super::Config::max_inbound_streams): an opening waits, or is refused where too
    /// many wait.
    InboundStreams,
    /// [`Config::accept_backlog`](super::Config::accept_backlog), of substreams that wait here.
    Backlog,
    /// None: this end takes no more substreams, because it is closing or nobody accepts.
    Closing,
    /// [`Config::receive_budget`](super::Config::receive_budget) or
    /// [`Config::receive_pool`](super::Config::receive_pool): nothing is read from the peer until there is room.
    ReceiveMemory,
    /// [`Config::reset_burst`](super::Config::reset_burst): the peer's openings are accepted late.
    Resets,
    /// [`Config::queued_pongs`](super::Config::queued_pongs): a ping is not answered.
    QueuedPongs,
    /// [`Config::max_outbound_streams`](super::Config::max_outbound_streams): an `open` waits.
    OutboundStreams,
    /// [`Config::accept_backlog`](super::Config::accept_backlog), of openings that the peer has not
    /// answered: an `open` waits.
    Unanswered,
}

/// The queue between the engine and who watches.
#[derive(Debug)]
pub(crate) struct EventLog {
    /// Events that are kept at most; 0: none, and nothing is counted.
    most: usize,
    queue: VecDeque<Event>,
    /// Events behind `queue` that were not kept.
    lost: u64,
}

impl EventLog {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            queue: VecDeque::new(),
            lost: 0,
        }
    }

    /// Keeps what `make` makes, or counts it. Says whether there is something new to take.
    pub(crate) fn push(&mut self, make: impl FnOnce() -> Event) -> bool {
        if self.most == 0 {
            return false;
        }
        let room = self.most.saturating_sub(self.queue.len());
        let needed = if self.lost > 0 { 2 } else { 1 };
        if room < needed {
            self.lost += 1;
        } else {
            self.report_lost();
            self.queue.push_back(make());
        }
        true
    }

    /// Keeps the last event of a session, whatever the room.
    pub(crate) fn push_last(&mut self, event: Event) {
        if self.most > 0 {
            self.report_lost();
            self.queue.push_back(event);
        }
    }

    fn report_lost(&mut self) {
        if self.lost > 0 {
            let count = std::mem::take(&mut self.lost);
            self.queue.push_back(Event::Lost { count });
        }
    }

    /// Takes the oldest event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        if self.queue.is_empty() {
            self.report_lost();
        }
        let event = self.queue.pop_front();
        if self.queue.is_empty() {
            // A burst must not be paid for until the session ends.
            self.queue.shrink_to(64);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(record: &mut EventLog) -> Vec<Result<u32, u64>> {
        std::iter::from_fn(|| record.pop())
            .map(|event| match event {
                Event::Accepted { id } => Ok(id),
                Event::Lost { count } => Err(count),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_is_not_kept_is_counted_in_its_place() {
        let mut record = EventLog::new(3);
        for id in 0..10 {
            assert!(record.push(|| Event::Accepted { id }));
            assert!(record.queue.len() <= 3);
        }
        assert!(matches!(record.pop(), Some(Event::Accepted { id: 0 })));
        record.push(|| Event::Accepted { id: 10 }); // no room for the count and this
        assert!(matches!(record.pop(), Some(Event::Accepted { id: 1 })));
        record.push(|| Event::Accepted { id: 11 });
        assert_eq!(ids(&mut record), [Ok(2), Err(8), Ok(11)]);
        for id in 0..5 {
            record.push(|| Event::Accepted { id });
        }
        record.push_last(Event::Accepted { id: 99 }); // always kept
        assert_eq!(ids(&mut record), [Ok(0), Ok(1), Ok(2), Err(2), Ok(99)]);
        assert!(record.pop().is_none());
    }

    #[test]
    fn without_room_nothing_is_made() {
        let mut record = EventLog::new(0);
        assert!(!record.push(|| panic!("nobody watches")));
        record.push_last(Event::Accepted { id: 1 });
        assert!(record.pop().is_none());
    }
}
