//! What comes of trying for a direct path.

use std::fmt;
use std::sync::Arc;

use cepa_transports::Remote;

use crate::identity::PeerId;
use crate::node::{NOT_OPEN, ProtocolEvent};
use crate::session::OpenError;

use super::super::relay::RelayError;

/// What has come of trying for a direct path.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DirectEvent {
    /// There is one, and what the two have open moves there if their session can.
    Direct {
        /// To whom.
        peer: PeerId,
        /// Where the peer is.
        at: Remote,
    },
    /// There is none yet.
    NotDirect {
        /// To whom.
        peer: PeerId,
        /// Why.
        why: NotDirect,
    },
}

/// Why there is no direct path. Each text is the end of a sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotDirect {
    /// There is no session with the relay, or not over TCP, or with another relay on the way.
    #[error("the connection with the relay is no TCP connection whose port can be used")]
    NoPort,
    /// The relay does not say where it sees this node.
    #[error("{0}")]
    NotSeen(#[source] Arc<RelayError>),
    /// The peer does not do this.
    #[error("{0}")]
    NotOffered(#[source] Arc<OpenError>),
    /// The peer does not want to now, in its words.
    #[error("the peer refuses: {0}")]
    Refused(String),
    /// What the peer said makes no sense, does not come in time, or the session is lost.
    #[error("the peer did not answer as it should: {0}")]
    Talk(String),
    /// None of the addresses that the peer has named may be tried.
    #[error("the peer is at no address that may be tried from here")]
    NoAddress,
    /// It was tried often enough.
    #[error("it was tried often enough for now")]
    TooOften,
    /// Other attempts take long.
    #[error("other attempts are under way")]
    Busy,
    /// A socket could not be had.
    #[error("the port of the relay's connection cannot be used: {0}")]
    Port(String),
    /// Nothing that was tried led to the peer.
    #[error("no connection came about: {0}")]
    NoWay(String),
}

impl NotDirect {
    /// Whether another attempt in this session is of no use: the peer does not have this, or not for this node. Whoever refuses in
    /// other words may be at a limit, and is asked again after a longer and longer pause.
    pub(super) fn is_final(&self) -> bool {
        let Self::NotOffered(why) = self else {
            return false;
        };
        matches!(&**why, OpenError::Refused { reason, .. } if reason == NOT_OPEN)
    }
}

impl ProtocolEvent for DirectEvent {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Direct { peer, .. } | Self::NotDirect { peer, .. } => Some(*peer),
        }
    }
}

impl fmt::Display for DirectEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { peer, at } => f.write_str(&now_direct(peer, at)),
            Self::NotDirect { peer, why } => write!(f, "not direct to {peer}: {why}"),
        }
    }
}

/// What is said of a path that is direct now, with the peer as the reader knows it.
#[must_use]
pub fn now_direct(peer: impl fmt::Display, at: &Remote) -> String {
    let at = match at {
        Remote::Tcp(at) => at.to_string(),
        other => other.to_string(),
    };
    format!("now direct to {peer} ({at}), the relay is kept as a fallback")
}
