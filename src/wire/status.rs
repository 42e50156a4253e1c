//! How requests that go through somebody else are answered.

use std::io;

/// How a relay, a carrier, or a peer behind one answers. The numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// 0: done.
    Done,
    /// 1: the message made no sense.
    Malformed,
    /// 2: the relay does not serve this peer.
    NotAllowed,
    /// 3: the relay has no room for more.
    Full,
    /// 4: this peer has as much as one peer may have.
    Quota,
    /// 5: nobody of that id is registered here.
    NotRegistered,
    /// 6: the registered peer refused.
    Refused,
    /// 7: the registered peer does not answer.
    Unreachable,
    /// 8: the way would lead back to where it came from.
    Loop,
    /// Any other number: a later version's.
    Other(u32),
}

impl Status {
    /// Whether the same request may be answered otherwise later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Full | Self::Quota | Self::NotRegistered | Self::Unreachable
        )
    }

    /// What an [`io::Error`] makes of such an answer.
    pub(crate) fn io_kind(self) -> io::ErrorKind {
        match self {
            Self::NotAllowed | Self::Refused => io::ErrorKind::PermissionDenied,
            Self::Full | Self::Quota => io::ErrorKind::QuotaExceeded,
            Self::NotRegistered | Self::Unreachable => io::ErrorKind::HostUnreachable,
            Self::Loop => io::ErrorKind::InvalidInput,
            Self::Done | Self::Malformed | Self::Other(_) => io::ErrorKind::InvalidData,
        }
    }

    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Malformed => 1,
            Self::NotAllowed => 2,
            Self::Full => 3,
            Self::Quota => 4,
            Self::NotRegistered => 5,
            Self::Refused => 6,
            Self::Unreachable => 7,
            Self::Loop => 8,
            Self::Other(number) => number,
        }
    }

    pub(crate) fn of(number: u32) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::Malformed,
            2 => Self::NotAllowed,
            3 => Self::Full,
            4 => Self::Quota,
            5 => Self::NotRegistered,
            6 => Self::Refused,
            7 => Self::Unreachable,
            8 => Self::Loop,
            other => Self::Other(other),
        }
    }
}
