//! The life of one stream: every transition, in this file and nowhere else.
//!
//! The machine does not know which side opened the stream for whom; "sent" is what this end put on
//! the wire, "received" what the other end did. Two small machines run beside each other, because
//! yamux lets a side send, and even finish, before its opening was acknowledged.
#![allow(clippy::match_same_arms)] // the transitions read as a table, one line a transition

use std::fmt;

/// How far the opening of a stream has come.
///
/// ```text
///   SynOwed --SynSent--> AckAwaited --AckReceived--> Done      a stream that this end opened
///                        AckOwed    --AckSent------> Done      a stream that the other end opened
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Opened here; the other end knows nothing of it.
    SynOwed,
    /// Opened here; the other end has not said that it took it.
    AckAwaited,
    /// Opened by the other end; the application has not accepted it, or the ACK is not yet sent.
    AckOwed,
    /// Both ends know of the stream.
    Done,
}

/// Which directions of a stream are still open.
///
/// ```text
///              FinSent                    FinReceived
///         +--------------> SendClosed ------------------+
///         |                                             v
///       Open                                          Closed
///         |                                             ^
///         +--------------> RecvClosed ------------------+
///             FinReceived                   FinSent
///
///       Open, SendClosed, RecvClosed --RstSent or RstReceived--> Reset
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halves {
    /// Both ends may send.
    Open,
    /// This end has sent its FIN; the other may send.
    SendClosed,
    /// The other end has sent its FIN; this one may send.
    RecvClosed,
    /// Both FINs are on the wire: a clean end.
    Closed,
    /// Ended at once by either end.
    Reset,
}

/// What happened on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    SynSent,
    AckSent,
    DataSent,
    FinSent,
    RstSent,
    AckReceived,
    DataReceived,
    FinReceived,
    RstReceived,
}

/// An event that must not happen in the state it happened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidTransition {
    /// The peer spoke on a stream of ours that it can not know yet.
    NotOpened,
    /// The peer sent data behind its FIN.
    DataAfterFin,
    /// The peer sent a second FIN.
    FinAfterFin,
    /// This end was about to break the protocol: a bug here, not the peer's fault.
    Ours,
}

/// The state of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) handshake: Handshake,
    pub(crate) halves: Halves,
}

impl State {
    /// A stream that this end opens.
    pub(crate) const OPENED_HERE: Self = Self {
        handshake: Handshake::SynOwed,
        halves: Halves::Open,
    };
    /// A stream whose SYN has arrived.
    pub(crate) const OPENED_THERE: Self = Self {
        handshake: Handshake::AckOwed,
        halves: Halves::Open,
    };

    /// The state after `event`.
    pub(crate) fn on(self, event: Event) -> Result<Self, InvalidTransition> {
        Ok(Self {
            handshake: self.handshake.on(event)?,
            halves: self.halves.on(event)?,
        })
    }

    /// Nothing more of this stream will come or go.
    pub(crate) fn is_over(self) -> bool {
        matches!(self.halves, Halves::Closed | Halves::Reset)
    }

    /// This end may still send data.
    pub(crate) fn can_send(self) -> bool {
        matches!(self.halves, Halves::Open | Halves::RecvClosed)
    }

    /// The other end may still send data.
    pub(crate) fn can_receive(self) -> bool {
        matches!(self.halves, Halves::Open | Halves::SendClosed)
    }
}

impl Handshake {
    fn on(self, event: Event) -> Result<Self, InvalidTransition> {
        use Event::{AckReceived, AckSent, DataReceived, DataSent, FinReceived};
        use Event::{FinSent, RstReceived, RstSent, SynSent};
        match (self, event) {
            (Self::SynOwed, SynSent) => Ok(Self::AckAwaited),
            // Reset before it was opened: nothing ever goes on the wire.
            (Self::SynOwed, RstSent) => Ok(Self::SynOwed),
            (Self::SynOwed, AckReceived | DataReceived | FinReceived | RstReceived) => {
                Err(InvalidTransition::NotOpened)
            }
            (Self::SynOwed, AckSent | DataSent | FinSent) => Err(InvalidTransition::Ours),
            // Who answers has taken the stream, whether or not the ACK flag was on it.
            (Self::AckAwaited, AckReceived | DataReceived | FinReceived | RstReceived) => {
                Ok(Self::Done)
            }
            (Self::AckOwed, AckSent | RstSent) => Ok(Self::Done),
            (Self::AckOwed, DataSent | FinSent) => Err(InvalidTransition::Ours),
            (Self::AckAwaited | Self::Done | Self::AckOwed, SynSent)
            | (Self::AckAwaited | Self::Done, AckSent) => Err(InvalidTransition::Ours),
            // A second ACK does no harm, and peers exist that send one.
            (state, _) => Ok(state),
        }
    }
}

impl Halves {
    fn on(self, event: Event) -> Result<Self, InvalidTransition> {
        use Event::{AckReceived, AckSent, DataReceived, DataSent, FinReceived};
        use Event::{FinSent, RstReceived, RstSent, SynSent};
        match (self, event) {
            (Self::Open, FinSent) => Ok(Self::SendClosed),
            (Self::RecvClosed, FinSent) => Ok(Self::Closed),
            (Self::Open, FinReceived) => Ok(Self::RecvClosed),
            (Self::SendClosed, FinReceived) => Ok(Self::Closed),
            (Self::RecvClosed | Self::Closed, DataReceived) => Err(InvalidTransition::DataAfterFin),
            (Self::RecvClosed | Self::Closed, FinReceived) => Err(InvalidTransition::FinAfterFin),
            (Self::SendClosed | Self::Closed | Self::Reset, DataSent | FinSent) => {
                Err(InvalidTransition::Ours)
            }
            (Self::Open | Self::SendClosed | Self::RecvClosed, RstSent | RstReceived) => {
                Ok(Self::Reset)
            }
            // Frames that crossed our RST on the way, and a RST for what is over anyway.
            (Self::Reset, DataReceived | FinReceived)
            | (Self::Reset | Self::Closed, RstSent | RstReceived)
            | (Self::Open | Self::RecvClosed, DataSent)
            | (Self::Open | Self::SendClosed, DataReceived)
            | (_, SynSent | AckSent | AckReceived) => Ok(self),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}", self.handshake, self.halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole machine as text, one state a block, compared with a file that is read in review.
    #[test]
    fn the_table_is_the_one_that_was_reviewed() {
        use Event::*;
        use std::fmt::Write as _;
        let events = [
            SynSent,
            AckSent,
            DataSent,
            FinSent,
            RstSent,
            AckReceived,
            DataReceived,
            FinReceived,
            RstReceived,
        ];
        let mut table = String::new();
        for handshake in [
            Handshake::SynOwed,
            Handshake::AckAwaited,
            Handshake::AckOwed,
            Handshake::Done,
        ] {
            for halves in [
                Halves::Open,
                Halves::SendClosed,
                Halves::RecvClosed,
                Halves::Closed,
                Halves::Reset,
            ] {
                let state = State { handshake, halves };
                writeln!(table, "{state}").unwrap();
                for event in events {
                    match state.on(event) {
                        Ok(next) if next == state => writeln!(table, "    {event:?}: stays"),
                        Ok(next) => writeln!(table, "    {event:?}: {next}"),
                        Err(misstep) => writeln!(table, "    {event:?}: error {misstep:?}"),
                    }
                    .unwrap();
                }
            }
        }
        assert_eq!(
            table,
            include_str!("state_table.txt"),
            "the table is now:\n{table}"
        );
    }

    #[test]
    fn over_means_that_neither_end_may_send() {
        for halves in [
            Halves::Open,
            Halves::SendClosed,
            Halves::RecvClosed,
            Halves::Closed,
            Halves::Reset,
        ] {
            let state = State {
                handshake: Handshake::Done,
                halves,
            };
            assert_eq!(state.is_over(), !state.can_send() && !state.can_receive());
        }
    }
}
