//! Why a peer was not reached.

use std::io;
use std::sync::Arc;

use crate::identity::PeerId;
use crate::session::{ConnectError, OpenError};
use crate::tls::TlsError;

use super::addr::{Hint, PeerAddr};
use super::protocol::{RouteError, RouteErrorKind};
use super::resolve::ResolveError;
use super::shares::Exceeded;

/// Why there is no session with a peer. Each text is one line and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address is this node's own.
    #[error("{peer} is this node itself: give the address of another peer")]
    Own {
        /// The peer id.
        peer: PeerId,
    },
    /// A peer is to be reached through itself, or through this node.
    #[error("a way to {peer} leads through the relay {relay}, which can't be: give another relay")]
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
        hint: Box<Hint>,
    },
    /// It could not be found out where the peer is.
    #[error(
        "no address is known for {peer} ({error}): give one, as in cepa://{peer}@tcp:HOST:PORT"
    )]
    Unresolved {
        /// Whom to reach.
        peer: PeerId,
        /// Why.
        error: Arc<ResolveError>,
    },
    /// No hint led to the peer.
    #[error("cannot reach {peer}: {}", list(attempts))]
    Failed {
        /// Whom to reach.
        peer: PeerId,
        /// What was tried, in this order, and what came of it.
        attempts: Vec<(Hint, AttemptError)>,
    },
    /// The task that dialled is gone without an outcome: a route or a resolver of the application has panicked in it, or the
    /// runtime that it ran in has ended.
    #[error(
        "the task that dialled {peer} is gone: look for a panic, or for a runtime that has ended"
    )]
    Gone {
        /// Whom to reach.
        peer: PeerId,
    },
    /// The one that wants the session has as many as it may.
    #[error("cannot reach {peer}: {limit}")]
    Share {
        /// Whom to reach.
        peer: PeerId,
        /// Which limit it was, of whoever wants it.
        limit: Exceeded,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShutDown,
    /// It was called outside a tokio runtime, which has the sockets and timers.
    #[error("no peer can be dialled outside a tokio runtime: call it inside one")]
    NoRuntime,
}

impl DialError {
    /// The error without the peer's name, for a message that has it already.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Failed { attempts, .. } => list(attempts),
            error => error.to_string(),
        }
    }

    /// Whether it may work later, with nothing changed here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Own { .. }
            | Self::Loop { .. }
            | Self::LocalHint { .. }
            | Self::ShutDown
            | Self::NoRuntime => false,
            Self::NoHints { .. }
            | Self::Unresolved { .. }
            | Self::Failed { .. }
            | Self::Gone { .. }
            | Self::Share { .. } => true,
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
#[derive(Clone, Debug, thiserror::Error)]
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
        "this node can't use relays, and {relay} is one: give a direct address, or add relays to the node"
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
    #[error("the relay {relay} is not reached: {error}")]
    NoRelay {
        /// Which.
        relay: PeerId,
        /// Why.
        error: Box<DialError>,
    },
}

/// Why a service of a peer was not opened.
#[derive(Clone, Debug, thiserror::Error)]
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

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            DialError::Own { .. } | DialError::Loop { .. } => Kind::InvalidInput,
            DialError::LocalHint { .. } => Kind::PermissionDenied,
            DialError::NoHints { .. } | DialError::Unresolved { .. } => Kind::NotFound,
            DialError::Failed { .. } if error.is_refused() => Kind::PermissionDenied,
            DialError::Failed { .. } => Kind::HostUnreachable,
            DialError::Gone { .. } | DialError::ShutDown => Kind::NotConnected,
            DialError::Share { .. } => Kind::QuotaExceeded,
            DialError::NoRuntime => Kind::Unsupported,
        };
        io::Error::new(kind, error)
    }
}

impl From<ReachError> for io::Error {
    fn from(error: ReachError) -> Self {
        let kind = match &error {
            ReachError::Dial(error) => io::Error::from(error.clone()).kind(),
            ReachError::Open { error, .. } => io::Error::from(error.clone()).kind(),
        };
        io::Error::new(kind, error)
    }
}

fn list(attempts: &[(Hint, AttemptError)]) -> String {
    let one = |(hint, error): &(Hint, AttemptError)| match error {
        // It names its address, or its relay, itself.
        AttemptError::Connect(ConnectError::Transport(error)) => error.to_string(),
        AttemptError::Relay(_) | AttemptError::NoRelay { .. } | AttemptError::NoRoute { .. } => {
            error.to_string()
        }
        AttemptError::Connect(_) | AttemptError::NotFollowed => format!("{hint}: {error}"),
    };
    attempts.iter().map(one).collect::<Vec<_>>().join("; ")
}
