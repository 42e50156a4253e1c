//! Why a peer was not reached.

use crate::identity::PeerId;
use crate::session::{ConnectError, OpenError};
use crate::tls::TlsError;

use super::addr::{Hint, PeerAddr};
use super::protocol::{RouteError, RouteErrorKind};
use super::resolve::ResolveError;

/// Why there is no session with a peer. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address is this node's own.
    #[error("{peer} is this node itself: give the address of another peer")]
    Own {
        /// The peer id.
        peer: PeerId,
    },
    /// A peer is to be reached through itself, or through this node.
    #[error("a way to {}… leads through the relay {}…, which can't be: give another relay", peer.short(), relay.short())]
    Loop {
        /// Whom to reach.
        peer: PeerId,
        /// Through whom.
        relay: PeerId,
    },
    /// Nothing says where the peer is.
    #[error("no address is known for {peer}: give one, as in cepa://{peer}@tcp:HOST:PORT")]
    NoHints {
        /// Whom to reach.
        peer: PeerId,
    },
    /// All that says where the peer is runs a command or opens a device here.
    #[error(
        "nothing was dialled for {peer}: {hint} in its address is no network connection, and only such are followed: allow local hints if you wrote it yourself (as a whole? a / in a hint is written %2F)"
    )]
    LocalHint {
        /// Whom to reach.
        peer: PeerId,
        /// The first of them.
        hint: Hint,
    },
    /// It could not be found out where the peer is.
    #[error(
        "no address is known for {peer} ({error}): give one, as in cepa://{peer}@tcp:HOST:PORT"
    )]
    Unresolved {
        /// Whom to reach.
        peer: PeerId,
        /// Why.
        error: ResolveError,
    },
    /// No hint led to the peer.
    #[error("cannot reach {peer}: {}", list(attempts))]
    Failed {
        /// Whom to reach.
        peer: PeerId,
        /// What was tried, in this order, and what came of it.
        attempts: Vec<(Hint, AttemptError)>,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShutDown,
}

impl DialError {
    /// Whether it may work later, with nothing changed here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Own { .. } | Self::Loop { .. } | Self::LocalHint { .. } | Self::ShutDown => false,
            Self::NoHints { .. } | Self::Unresolved { .. } | Self::Failed { .. } => true,
        }
    }

    /// Whether somebody who was asked does not let this node in, the peer or a relay on the way: it has to be allowed there
    /// first.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let Self::Failed { attempts, .. } = self else {
            return false;
        };
        attempts.iter().any(|(_, error)| match error {
            AttemptError::Connect(ConnectError::Tls(error)) => {
                matches!(error.root(), TlsError::RefusedByPeer { .. }) && !error.may_pass()
            }
            AttemptError::Relay(error) => matches!(
                error.kind(),
                RouteErrorKind::Refused | RouteErrorKind::DialInstead
            ),
            AttemptError::NoRelay { error, .. } => error.is_refused(),
            _ => false,
        })
    }
}

/// Why one hint did not lead to the peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// No session on the stream that the hint led to, or no stream.
    #[error(transparent)]
    Connect(ConnectError),
    /// The relay did not take us to the peer.
    #[error(transparent)]
    Relay(RouteError),
    /// This node has no way through relays.
    #[error(
        "this node can't use relays, and {}… is one: give a direct address, or add relays to the node",
        relay.short()
    )]
    NoRoute {
        /// Which.
        relay: PeerId,
    },
    /// It opens something else than a network connection, and is not followed for that.
    #[error(
        "not followed, since it is no network connection: allow local hints if you wrote it yourself"
    )]
    NotFollowed,
    /// The relay itself was not reached.
    #[error("the relay {}… is not reached: {}", relay.short(), inside(error))]
    NoRelay {
        /// Which.
        relay: PeerId,
        /// Why.
        error: Box<DialError>,
    },
}

/// Why a service of a peer was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// There is no session with the peer.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer did not open the service.
    #[error("{address}: {error}")]
    Open {
        /// What was asked for.
        address: PeerAddr,
        /// Why not.
        error: OpenError,
    },
}

/// Of a relay that has been named already: only why.
fn inside(error: &DialError) -> String {
    match error {
        DialError::Failed { attempts, .. } => list(attempts),
        other => other.to_string(),
    }
}

/// A hint as a line has room for it: ids that are in full in what was typed are not repeated.
fn brief(hint: &Hint) -> String {
    match hint {
        Hint::Direct(endpoint) => endpoint.to_string(),
        Hint::Relay { relay, at } => format!("relay:{}…@{}", relay.short(), brief(at)),
    }
}

fn list(attempts: &[(Hint, AttemptError)]) -> String {
    let one = |(hint, error): &(Hint, AttemptError)| match error {
        // It names its address, or its relay, itself.
        AttemptError::Connect(ConnectError::Transport(error)) => error.to_string(),
        AttemptError::Relay(_) | AttemptError::NoRelay { .. } | AttemptError::NoRoute { .. } => {
            error.to_string()
        }
        AttemptError::Connect(_) | AttemptError::NotFollowed => format!("{}: {error}", brief(hint)),
    };
    attempts.iter().map(one).collect::<Vec<_>>().join("; ")
}
