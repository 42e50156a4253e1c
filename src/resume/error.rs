//! Why a path was lost, which a session survives, and why a session was, which it does not.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a durable session was given up. Each text is one line and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionLost {
    /// There was no path for longer than one of the ends keeps a session.
    #[error("the connection was lost and did not come back within {} s", .after.as_secs())]
    Expired {
        /// How long there was none.
        after: Duration,
    },
    /// The peer did not take the session up again.
    #[error("the connection was lost, and the peer does not take the session up again ({0})")]
    Refused(Refusal),
    /// The peer gave the session up.
    #[error("the peer gave the session up ({})", over_text(*.reason))]
    GivenUpByPeer {
        /// What the peer said.
        reason: OverReason,
    },
    /// This end gave the session up.
    #[error("the session was given up at this end")]
    GivenUp,
    /// This end had no room for it any more.
    #[error("the session made room for another one at this end")]
    NoRoom,
    /// The peer broke the protocol.
    #[error(
        "the peer broke the protocol of durable sessions ({0}); use the same release at both ends"
    )]
    Violation(Violation),
    /// The path failed before the session was one that outlives it.
    #[error("{0}")]
    Path(Arc<io::Error>),
    /// What reads and writes the stream is gone.
    #[error("the session's driver is gone")]
    DriverGone,
}

impl From<SessionLost> for io::Error {
    fn from(lost: SessionLost) -> Self {
        Self::new(io::ErrorKind::ConnectionReset, lost)
    }
}

/// Why an end gives a session up, as the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverReason {
    /// It was asked to, or its program ends.
    GivenUp,
    /// It needs the room.
    NoRoom,
    /// The other end broke the protocol.
    Violation,
    /// Another one, by its number.
    Other(u8),
}

impl OverReason {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::GivenUp => 0,
            Self::NoRoom => 1,
            Self::Violation => 2,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            0 => Self::GivenUp,
            1 => Self::NoRoom,
            2 => Self::Violation,
            other => Self::Other(other),
        }
    }
}

fn over_text(reason: OverReason) -> String {
    match reason {
        OverReason::GivenUp => "it ended".into(),
        OverReason::NoRoom => "it has no room for it".into(),
        OverReason::Violation => "it says that this end broke the protocol".into(),
        OverReason::Other(code) => format!("reason {code}"),
    }
}

/// Why a session is not taken up again on a new path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not known, or not any more.
    #[error("the end that was asked does not know it any more")]
    Unknown,
    /// It belongs to another peer, or the proof is wrong.
    #[error("it is not ours")]
    NotYours,
    /// A newer path is there, or what was told is older than what is known.
    #[error("a newer path is there")]
    Stale,
    /// Not now.
    #[error("it is busy")]
    Busy,
    /// It is over.
    #[error("it is over")]
    Over,
    /// It had to make room for another one.
    #[error("it had no room left for it")]
    NoRoom,
    /// Another reason, by its number.
    #[error("reason {0}")]
    Other(u8),
}

impl Refusal {
    /// Whether a later attempt may do.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Stale | Self::Busy)
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Unknown => 1,
            Self::NotYours => 2,
            Self::Stale => 3,
            Self::Busy => 4,
            Self::Over => 5,
            Self::NoRoom => 6,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Unknown,
            2 => Self::NotYours,
            3 => Self::Stale,
            4 => Self::Busy,
            5 => Self::Over,
            6 => Self::NoRoom,
            other => Self::Other(other),
        }
    }
}

/// What a peer may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A type of frame that there is not.
    #[error("a frame of type {0:#04x}")]
    Type(u8),
    /// A frame whose length does not fit its type.
    #[error("a frame of type {0:#04x} with {1} bytes")]
    Length(u8, u32),
    /// An acknowledgement of what was not sent, or taken back.
    #[error("an acknowledgement up to {reported}, of {least} to {most}")]
    Acknowledged {
        /// What it said.
        reported: u64,
        /// What it had said before.
        least: u64,
        /// What was sent.
        most: u64,
    },
    /// Data, or another end, behind the end.
    #[error("bytes behind the end")]
    BehindEnd,
    /// An end in front of bytes that were there.
    #[error("an end in front of the last byte")]
    EarlyEnd,
    /// More bytes than can be counted.
    #[error("more bytes than can be counted")]
    TooMuch,
}

/// Why a path carries nothing any more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathLostWhy {
    /// Its stream ended.
    #[error("the stream below ended")]
    Ended,
    /// Its stream failed.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// Nothing came for too long.
    #[error("nothing was heard for {} s", .after.as_secs())]
    Silent {
        /// How long.
        after: Duration,
    },
    /// The peer takes the session up on another one.
    #[error("the peer comes in on another path")]
    Claimed,
}

/// A path is lost; the session waits for another one.
#[derive(Clone, Debug)]
pub(crate) struct PathLost {
    pub(crate) why: PathLostWhy,
    pub(crate) at: Instant,
    /// Its number: 1 for the first path, and one more for each that was attached.
    pub(crate) number: u64,
}

/// Why a path was not attached. It is dropped; the session is what it was, but for `Violation`, which ends it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// Another path with a later generation came first.
    #[error("a newer path is there")]
    Stale,
    #[error("the peer broke the protocol of durable sessions ({0})")]
    Violation(Violation),
    #[error("the session is over")]
    Over,
}
