//! Every number that says why: the codes of go-aways and of resets, and what they mean.
//!
//! The protocol has three codes for go-aways and none for resets. Ours begin with the bytes `cep`, so that nobody else's mean
//! something here by chance, and are listed in `docs/PROTOCOL.md`. To other implementations they do no harm: a go-away
//! with a code that is not 0 ends the session there as any error does, and what a reset carries is not looked at.

use std::fmt;

/// The first three bytes of our codes.
const OURS: u32 = 0x6365_7000;

const PEER_SESSIONS: u32 = OURS + 0x01;
const HOST_SESSIONS: u32 = OURS + 0x02;
const SESSIONS: u32 = OURS + 0x03;
const MEMORY: u32 = OURS + 0x04;
const IDLE: u32 = OURS + 0x10;
const SHUTTING_DOWN: u32 = OURS + 0x11;

const GOING_AWAY: u32 = OURS + 0x20;
const APPLICATION: u32 = OURS + 0x21;
const STREAMS: u32 = OURS + 0x22;
const BACKLOG: u32 = OURS + 0x23;
const UNACCEPTED: u32 = OURS + 0x24;
/// A reset after a limit of [`StreamTimeouts`](super::StreamTimeouts).
pub(crate) const TIMED_OUT: u32 = OURS + 0x28;
/// A reset of what nobody read while memory was short.
pub(crate) const UNREAD: u32 = OURS + 0x29;
/// A reset of what was open when its application closed the session.
pub(crate) const CLOSED: u32 = OURS + 0x2a;

/// Why a session was ended by one end, as the other end reads it (spec, "Go Away").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GoAwayCode {
    /// 0: no more streams are wanted; the existing ones may finish.
    Normal,
    /// 1: the receiver of this code broke the protocol.
    ProtocolError,
    /// 2: the sender of this code failed.
    InternalError,
    /// The sender has no room for this session.
    Limit(LimitKind),
    /// Nothing was open for so long that the sender closed the session.
    Idle,
    /// The sender stops or starts again.
    ShuttingDown,
    /// A code that neither the protocol nor this crate defines.
    Other(u32),
}

/// What the sender of a [`GoAwayCode::Limit`] has no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitKind {
    /// Sessions of one peer.
    PeerSessions,
    /// Sessions of one host.
    HostSessions,
    /// Sessions in all.
    Sessions,
    /// Memory for what arrives.
    Memory,
}

/// Why the peer took a stream back unseen: nothing of it was used, so what was sent on it may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It takes no more streams in this session.
    #[error("it takes no more streams in this session; open it in a new one")]
    GoingAway,
    /// Its application did not want the stream ([`Substream::refuse`](super::Substream::refuse)).
    #[error("its application does not want it")]
    Application,
    /// So many streams are open and wait that no more may; it is the limit on open ones that the first of them waits for
    /// ([`Config::max_inbound_streams`](super::Config::max_inbound_streams)).
    #[error("too many streams are open; end some, or try again later")]
    Streams,
    /// So many streams wait to be accepted that no more may
    /// ([`Config::accept_backlog`](super::Config::accept_backlog)).
    #[error("too many streams wait to be accepted; try again later")]
    Backlog,
    /// What was sent on streams before they were accepted has used up the memory for it.
    #[error("too much was sent before streams were accepted; try again later")]
    Memory,
}

impl From<u32> for GoAwayCode {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Normal,
            1 => Self::ProtocolError,
            2 => Self::InternalError,
            PEER_SESSIONS => Self::Limit(LimitKind::PeerSessions),
            HOST_SESSIONS => Self::Limit(LimitKind::HostSessions),
            SESSIONS => Self::Limit(LimitKind::Sessions),
            MEMORY => Self::Limit(LimitKind::Memory),
            IDLE => Self::Idle,
            SHUTTING_DOWN => Self::ShuttingDown,
            other => Self::Other(other),
        }
    }
}

impl From<GoAwayCode> for u32 {
    fn from(code: GoAwayCode) -> Self {
        match code {
            GoAwayCode::Normal => 0,
            GoAwayCode::ProtocolError => 1,
            GoAwayCode::InternalError => 2,
            GoAwayCode::Limit(LimitKind::PeerSessions) => PEER_SESSIONS,
            GoAwayCode::Limit(LimitKind::HostSessions) => HOST_SESSIONS,
            GoAwayCode::Limit(LimitKind::Sessions) => SESSIONS,
            GoAwayCode::Limit(LimitKind::Memory) => MEMORY,
            GoAwayCode::Idle => IDLE,
            GoAwayCode::ShuttingDown => SHUTTING_DOWN,
            GoAwayCode::Other(other) => other,
        }
    }
}

impl GoAwayCode {
    /// Whether a session that ends with this code ended without a fault and for want of nothing.
    #[must_use]
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Normal | Self::Idle | Self::ShuttingDown)
    }

    /// What the receiver of this code can do about it, if anything.
    fn advice(self) -> Option<&'static str> {
        match self {
            Self::Limit(LimitKind::PeerSessions) => {
                Some("use or close one that is open, or ask its owner to allow more")
            }
            Self::Limit(LimitKind::HostSessions) => {
                Some("close sessions from this host, or try again later")
            }
            Self::Limit(LimitKind::Sessions | LimitKind::Memory) | Self::ShuttingDown => {
                Some("try again later")
            }
            Self::Idle => Some("open a new one when there is something to send"),
            Self::Normal | Self::ProtocolError | Self::InternalError | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for GoAwayCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("0, normal"),
            Self::ProtocolError => f.write_str("1, protocol error"),
            Self::InternalError => f.write_str("2, internal error"),
            Self::Limit(kind) => write!(f, "{:#x}, limit of {kind}", u32::from(*self)),
            Self::Idle => write!(f, "{IDLE:#x}, idle"),
            Self::ShuttingDown => write!(f, "{SHUTTING_DOWN:#x}, shutting down"),
            Self::Other(other) => write!(f, "{other}"),
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PeerSessions => "sessions of one peer",
            Self::HostSessions => "sessions of one host",
            Self::Sessions => "sessions in all",
            Self::Memory => "memory",
        })
    }
}

/// Why the peer ended the session, and what to do then, in the text of an error.
pub(crate) struct ByPeer(pub(crate) GoAwayCode);

impl fmt::Display for ByPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            GoAwayCode::Idle => {
                f.write_str("the peer closed the session, for nothing was open in it")?;
            }
            GoAwayCode::ShuttingDown => f.write_str("the peer is shutting down")?,
            code => write!(f, "the peer ended the session (go-away code {code})")?,
        }
        self.0
            .advice()
            .map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl Refusal {
    /// Whether it is a limit of the peer's, so that it may work when something has ended.
    #[must_use]
    pub fn is_limit(self) -> bool {
        match self {
            Self::Streams | Self::Backlog | Self::Memory => true,
            Self::GoingAway | Self::Application => false,
        }
    }

    /// The code of the reset that says so.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::GoingAway => GOING_AWAY,
            Self::Application => APPLICATION,
            Self::Streams => STREAMS,
            Self::Backlog => BACKLOG,
            Self::Memory => UNACCEPTED,
        }
    }

    /// The refusal that a reset with this code is.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        match code {
            GOING_AWAY => Some(Self::GoingAway),
            APPLICATION => Some(Self::Application),
            STREAMS => Some(Self::Streams),
            BACKLOG => Some(Self::Backlog),
            UNACCEPTED => Some(Self::Memory),
            _ => None,
        }
    }
}

/// The code of a reset, and what it means where that is known, in the text of an error.
pub(crate) struct Reset(pub(crate) u32);

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            TIMED_OUT => "a time limit of its own passed",
            UNREAD => "it was not read there while memory was short",
            CLOSED => "the session was closed there while it was open",
            GOING_AWAY | APPLICATION | STREAMS | BACKLOG | UNACCEPTED => {
                "refused, though it was in use"
            }
            code => return write!(f, "code {code}"),
        };
        write!(f, "code {:#x}, {meaning}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_meaning_and_the_page_about_the_protocol_has_it() {
        let page = include_str!("../../docs/PROTOCOL.md");
        let go_aways = [
            GoAwayCode::Normal,
            GoAwayCode::ProtocolError,
            GoAwayCode::InternalError,
            GoAwayCode::Limit(LimitKind::PeerSessions),
            GoAwayCode::Limit(LimitKind::HostSessions),
            GoAwayCode::Limit(LimitKind::Sessions),
            GoAwayCode::Limit(LimitKind::Memory),
            GoAwayCode::Idle,
            GoAwayCode::ShuttingDown,
        ];
        let mut seen = std::collections::HashSet::new();
        for code in go_aways {
            let number = u32::from(code);
            assert_eq!(GoAwayCode::from(number), code);
            assert!(seen.insert(number));
            if number > 2 {
                assert!(page.contains(&format!("| `{number:08x}` |")), "{code}");
            }
        }
        assert_eq!(GoAwayCode::from(77), GoAwayCode::Other(77));
        let refusals = [
            Refusal::GoingAway,
            Refusal::Application,
            Refusal::Streams,
            Refusal::Backlog,
            Refusal::Memory,
        ];
        for refusal in refusals {
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
        }
        for code in refusals
            .map(Refusal::code)
            .into_iter()
            .chain([TIMED_OUT, UNREAD, CLOSED])
        {
            assert!(seen.insert(code));
            assert!(page.contains(&format!("| `{code:08x}` |")), "{code:x}");
        }
        assert_eq!(Refusal::from_code(0), None);
    }

    #[test]
    fn what_the_peer_may_do_about_it_is_in_the_text() {
        let text = |code| ByPeer(code).to_string();
        assert_eq!(
            text(GoAwayCode::Normal),
            "the peer ended the session (go-away code 0, normal)"
        );
        assert_eq!(
            text(GoAwayCode::Limit(LimitKind::PeerSessions)),
            "the peer ended the session (go-away code 0x63657001, limit of sessions of one peer): use or close one that is open, or ask its owner to allow more"
        );
        assert_eq!(
            text(GoAwayCode::ShuttingDown),
            "the peer is shutting down: try again later"
        );
        assert_eq!(
            text(GoAwayCode::Other(7)),
            "the peer ended the session (go-away code 7)"
        );
        assert_eq!(Reset(7).to_string(), "code 7");
        assert_eq!(
            Reset(TIMED_OUT).to_string(),
            "code 0x63657028, a time limit of its own passed"
        );
    }
}
