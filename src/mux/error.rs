//! What can go wrong, told apart: why a session ended, why a stream did, why none was opened.
//!
//! A peer's fault is a [`Violation`], and the go-away code that answers it is decided here in one
//! place; what the codes mean is in `code.rs`. Every error is `Clone`, because one cause is reported to every stream of a session.

use std::io;
use std::time::Duration;

use cepa_transports::SharedError;

use super::code::{ByPeer, GoAwayCode, Refusal, Reset};
use super::frame::HeaderError;
use super::state::InvalidTransition;

/// Why a session is over. Every stream that was not finished by then reports the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MuxError {
    /// This end closed the session, or gave up its last handle.
    #[error("the session was closed at this end")]
    Closed,
    /// The peer ended the session. With [`GoAwayCode::Normal`] that is a clean end.
    #[error("{}", ByPeer(*code))]
    GoAway {
        /// The reason that the peer gave.
        code: GoAwayCode,
    },
    /// This end ended the session with a code that is not [`GoAwayCode::Normal`].
    #[error("this end ended the session (go-away code {code})")]
    GaveUp {
        /// The reason that was sent.
        code: GoAwayCode,
    },
    /// The peer broke the protocol or a limit. It was told so with the code of the violation.
    #[error("the peer broke the multiplexing protocol: {0}")]
    Protocol(#[from] Violation),
    /// The byte stream below failed.
    #[error("the connection failed: {0}")]
    Io(#[source] SharedError),
    /// The byte stream below ended, and no go-away had come: it was cut, or the peer died.
    #[error("the connection ended without a go-away, so it was cut")]
    Eof,
    /// Not one byte came for the keepalive timeout.
    #[error("the peer has been silent for {} s", silent.as_secs_f32())]
    KeepaliveTimeout {
        /// How long nothing came.
        silent: Duration,
    },
    /// The driver was dropped before the session ended.
    #[error("the task that drives the session is gone")]
    DriverGone,
}

impl MuxError {
    /// Whether the session ended as one of its ends wished, without a fault.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::GoAway { code } | Self::GaveUp { code } => code.is_clean(),
            _ => false,
        }
    }

    /// Whether another session may do better, with nothing changed here: the peer or the connection ended this one.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Closed | Self::DriverGone | Self::Protocol(_))
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Closed | Self::DriverGone => io::ErrorKind::NotConnected,
            Self::GoAway { .. } | Self::GaveUp { .. } => io::ErrorKind::ConnectionAborted,
            Self::Protocol(_) => io::ErrorKind::InvalidData,
            Self::Io(error) => error.kind(),
            Self::Eof => io::ErrorKind::UnexpectedEof,
            Self::KeepaliveTimeout { .. } => io::ErrorKind::TimedOut,
        }
    }
}

impl From<MuxError> for io::Error {
    fn from(error: MuxError) -> Self {
        io::Error::new(error.kind(), error)
    }
}

/// What a peer did that no peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A version other than 0.
    #[error("version {0} instead of 0 (is the other end a yamux peer?)")]
    Version(u8),
    /// A frame type that does not exist.
    #[error("unknown frame type {0}")]
    FrameType(u8),
    /// Flags that do not exist, or that contradict each other or the frame's type.
    #[error("impossible flags {0:#06x}")]
    Flags(u16),
    /// A stream's frame without a stream, or a session's frame on one.
    #[error("stream id {0} does not fit the frame type")]
    StreamId(u32),
    /// A stream opened with a number that is for this end to give.
    #[error("the peer opened stream {0}, whose number is for this end to use")]
    WrongParity(u32),
    /// A stream opened twice.
    #[error("stream {0} was opened twice")]
    DuplicateStream(u32),
    /// A frame on a stream that this end could have opened, but has not.
    #[error("stream {0} was never opened")]
    NeverOpened(u32),
    /// More data than the window allowed.
    #[error("stream {0}: more data than its window")]
    WindowExceeded(u32),
    /// Window updates that add up to more than 2^32 - 1.
    #[error("stream {0}: window of more than 4 GiB")]
    CreditOverflow(u32),
    /// Data behind a FIN.
    #[error("stream {0}: data after its end")]
    DataAfterFin(u32),
    /// A second FIN.
    #[error("stream {0}: ended twice")]
    FinAfterFin(u32),
    /// More data for streams that do not exist than can have been on the way when they ended.
    #[error("too much data for streams that do not exist")]
    StrayData,
    /// Streams opened and reset, or opened beyond the limit, faster than the limit allows.
    #[error("too many refused and reset streams")]
    ResetFlood,
    /// Pings faster than they can be answered.
    #[error("too many pings")]
    PingFlood,
}

impl Violation {
    /// The go-away code that tells the peer.
    #[must_use]
    pub fn code(&self) -> GoAwayCode {
        // The protocol has one code for all of these; what broke it is for our own log.
        GoAwayCode::ProtocolError
    }

    pub(crate) fn from_misstep(misstep: InvalidTransition, id: u32) -> Self {
        match misstep {
            // `Ours` never comes from a received frame; the table test shows it.
            InvalidTransition::NotOpened | InvalidTransition::Ours => Self::NeverOpened(id),
            InvalidTransition::DataAfterFin => Self::DataAfterFin(id),
            InvalidTransition::FinAfterFin => Self::FinAfterFin(id),
        }
    }
}

impl From<HeaderError> for Violation {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Version(version) => Self::Version(version),
            HeaderError::Type(kind) => Self::FrameType(kind),
            HeaderError::Flags(flags) => Self::Flags(flags),
            HeaderError::StreamId(id) => Self::StreamId(id),
        }
    }
}

/// Why a stream ended before its FIN, or why it can not be written to. Inside every
/// [`io::Error`] that a [`Substream`](super::Substream) returns.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset the stream, or dropped it unfinished.
    #[error("the peer reset the stream ({})", Reset(*code))]
    ResetByPeer {
        /// The peer's reason; 0 when it gave none, as most implementations do.
        code: u32,
    },
    /// The peer closed the session while the stream was open. Only peers that know our codes say so; of others it is a
    /// reset.
    #[error("the peer closed the session while the stream was open")]
    SessionClosedByPeer,
    /// The peer refused the stream, and nothing that was sent on it was used. Only peers that know our codes say so; of
    /// others a refusal is a reset.
    #[error("the peer refused the stream: {reason}")]
    RefusedByPeer {
        /// Why.
        reason: Refusal,
    },
    /// This end reset the stream.
    #[error("the stream was reset at this end")]
    ResetHere,
    /// A limit of [`StreamTimeouts`](super::StreamTimeouts) passed, and the stream was reset.
    #[error("the stream timed out: {0}")]
    TimedOut(StreamTimeout),
    /// This end has already ended its direction.
    #[error("write after shutdown")]
    WriteAfterShutdown,
    /// The whole session ended.
    #[error("{0}")]
    Session(#[from] MuxError),
}

impl StreamError {
    /// Whether the peer has used nothing of what was sent on the stream, so that it can be sent again, on another
    /// stream or in another session, without being done twice.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::RefusedByPeer { .. })
    }
}

/// Which time limit of a stream passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamTimeout {
    /// The peer did not answer the opening.
    #[error("the peer did not accept it in time (it may have reached its limit of streams)")]
    Open,
    /// One direction was closed and nothing moved in the other.
    #[error("one direction was closed, and the other was idle for too long")]
    HalfClosed,
    /// The application did not read it while the session had no memory for more and others waited.
    #[error("it was not read for too long while memory was short")]
    Unread,
    /// The peer granted no credit for data that waited.
    #[error("the peer read no data for too long")]
    WriteStalled,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::ResetByPeer { .. } | StreamError::SessionClosedByPeer => {
                io::ErrorKind::ConnectionReset
            }
            StreamError::RefusedByPeer { .. } => io::ErrorKind::ConnectionRefused,
            StreamError::ResetHere => io::ErrorKind::ConnectionAborted,
            StreamError::TimedOut(_) => io::ErrorKind::TimedOut,
            StreamError::WriteAfterShutdown => io::ErrorKind::BrokenPipe,
            StreamError::Session(error) => error.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// Why no stream was opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer accepts no more streams; those that exist go on.
    #[error(
        "the peer accepts no more streams in this session (go-away code {code}); open a new one"
    )]
    PeerGoneAway {
        /// The reason that the peer gave.
        code: GoAwayCode,
    },
    /// This end is ending the session.
    #[error("this end is closing the session")]
    Closing,
    /// All stream numbers of this end are used up; a new session is needed.
    #[error("all stream numbers of this session are used up; open a new one")]
    Exhausted,
    /// The session is over.
    #[error("{0}")]
    Session(#[from] MuxError),
}

impl OpenError {
    /// Whether the peer has heard nothing of the stream, so that what was to be sent on it can be sent in another session:
    /// always, for an opening that fails has not left.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::PeerGoneAway { .. } | Self::Closing | Self::Exhausted | Self::Session(_) => true,
        }
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::PeerGoneAway { .. } | OpenError::Closing => io::ErrorKind::ConnectionAborted,
            OpenError::Exhausted => io::ErrorKind::AddrNotAvailable,
            OpenError::Session(error) => error.kind(),
        };
        io::Error::new(kind, error)
    }
}
