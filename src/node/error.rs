//! Why a peer was not reached.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Deref;

use cepa_transports::SharedError;

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
    #[error("{peer} is this node itself: give another peer's address")]
    Own {
        /// The peer id.
        peer: PeerId,
    },
    /// A peer is to be reached through itself, or through this node.
    #[error("relay {}… can't lead to {}…: it is this machine, the peer itself, or named twice; give another relay", relay.short(), peer.short())]
    Loop {
        /// Whom to reach.
        peer: PeerId,
        /// Through whom.
        relay: PeerId,
    },
    /// Nothing says where the peer is.
    #[error("no address is known for {peer}: give one, for example cepa://{peer}@tcp:HOST:PORT")]
    NoHints {
        /// Whom to reach.
        peer: PeerId,
    },
    /// All that says where the peer is runs a command or opens a device here.
    #[error(
        "did not connect to {peer}: {hint} in its address is not a network address; allow local hints if you wrote it yourself (in a hint, write / as %2F)"
    )]
    LocalHint {
        /// Whom to reach.
        peer: PeerId,
        /// The first of them.
        hint: Box<Hint>,
    },
    /// It could not be found out where the peer is.
    #[error(
        "no address is known for {peer} ({error}): give one, for example cepa://{peer}@tcp:HOST:PORT"
    )]
    Unresolved {
        /// Whom to reach.
        peer: PeerId,
        /// Why.
        #[source]
        error: SharedError<ResolveError>,
    },
    /// No hint led to the peer.
    #[error("cannot reach {peer}: {attempts}")]
    Failed {
        /// Whom to reach.
        peer: PeerId,
        /// What was tried, in this order, and what came of it.
        #[source]
        attempts: Attempts,
    },
    /// The task that dialled is gone without an outcome: a route or a resolver of the application has panicked in it, or the
    /// runtime that it ran in has ended.
    #[error("the task that dialled {peer} is gone: look for a panic, or for a runtime that ended")]
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
        #[source]
        limit: Exceeded,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShutDown,
    /// It was called outside a tokio runtime, which has the sockets and timers.
    #[error("cannot dial a peer outside a tokio runtime: call it inside one")]
    NoRuntime,
}

impl DialError {
    /// The error without the peer's name, for a message that has it already.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Failed { attempts, .. } => attempts.to_string(),
            error => error.to_string(),
        }
    }

    /// Whether it may work later, with nothing changed here: also where somebody else would have to let this node in first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.judged(|attempts| {
            attempts.iter().any(|(_, error)| match error {
                AttemptError::Connect(_) | AttemptError::Relay(_) => true,
                AttemptError::NoRoute { .. } | AttemptError::NotFollowed => false,
                AttemptError::NoRelay { error, .. } => error.is_retryable(),
            })
        })
    }

    /// Whether it may work later, with nothing changed anywhere: what is away comes back, and what is full has room again. As
    /// [`ConnectError::is_transient`]; what a peer says of this node's key counts for all ways to it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.judged(|attempts| {
            let mut all = attempts.iter().map(|(_, error)| error);
            let refused = |error: &AttemptError| matches!(error, AttemptError::Connect(error) if is_refusal(error));
            !all.clone().any(refused) && all.any(AttemptError::is_transient)
        })
    }

    /// Whether it may work later: where there were attempts, as `by` judges them.
    fn judged(&self, by: impl FnOnce(&[(Hint, AttemptError)]) -> bool) -> bool {
        match self {
            Self::Own { .. }
            | Self::Loop { .. }
            | Self::LocalHint { .. }
            | Self::ShutDown
            | Self::NoRuntime => false,
            Self::NoHints { .. }
            | Self::Unresolved { .. }
            | Self::Gone { .. }
            | Self::Share { .. } => true,
            Self::Failed { attempts, .. } => by(attempts),
        }
    }

    /// Whether somebody who was asked does not let this node in, the peer or a relay on the way: it has to be allowed there
    /// first.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let Self::Failed { attempts, .. } = self else {
            return false;
        };
        attempts.iter().any(|(_, error)| error.is_refused())
    }
}

/// Whether the peer has said that it does not want this node's key.
fn is_refusal(error: &ConnectError) -> bool {
    match error {
        ConnectError::Tls(error) => {
            matches!(error.root(), TlsError::RefusedByPeer { .. }) && !error.is_transient()
        }
        _ => false,
    }
}

impl AttemptError {
    /// Whether somebody who was asked does not let this node in, as [`DialError::is_refused`].
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Connect(error) => is_refusal(error),
            Self::Relay(error) => matches!(
                error.kind(),
                RouteErrorKind::Refused | RouteErrorKind::DialInstead
            ),
            Self::NoRelay { error, .. } => error.is_refused(),
            Self::NoRoute { .. } | Self::NotFollowed => false,
        }
    }

    /// Whether another relay may lead to the peer where this one did not.
    pub(super) fn may_lead_elsewhere(&self) -> bool {
        match self {
            Self::NoRelay { .. } => true,
            Self::Relay(error) => error.kind().is_transient(),
            Self::Connect(_) | Self::NoRoute { .. } | Self::NotFollowed => false,
        }
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Connect(error) => io::Error::from(error.clone()).kind(),
            Self::Relay(error) => io::Error::from(error.clone()).kind(),
            Self::NoRoute { .. } => io::ErrorKind::Unsupported,
            Self::NotFollowed => io::ErrorKind::PermissionDenied,
            Self::NoRelay { error, .. } => io::Error::from(DialError::clone(error)).kind(),
        }
    }

    /// Whether this way may work later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_transient(),
            Self::Relay(error) => error.kind().is_transient(),
            Self::NoRelay { error, .. } => error.is_transient(),
            Self::NoRoute { .. } | Self::NotFollowed => false,
        }
    }
}

/// Why one hint did not lead to the peer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// No session on the stream that the hint led to, or no stream.
    #[error("{0}")]
    Connect(#[source] ConnectError),
    /// The relay did not take us to the peer.
    #[error("{0}")]
    Relay(#[source] RouteError),
    /// This node has no way through relays.
    #[error(
        "{}… is a relay, and this node can't use relays: give a direct address, or add relays to the node",
        relay.short()
    )]
    NoRoute {
        /// Which.
        relay: PeerId,
    },
    /// It opens something else than a network connection, and is not followed for that.
    #[error(
        "skipped, since it is not a network address; allow local hints if you wrote it yourself"
    )]
    NotFollowed,
    /// The relay itself was not reached.
    #[error("cannot reach relay {}…: {}", relay.short(), error.reason())]
    NoRelay {
        /// Which.
        relay: PeerId,
        /// Why.
        #[source]
        error: SharedError<DialError>,
    },
}

/// Why a service of a peer was not opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// There is no session with the peer.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The peer did not open the service.
    #[error("{address}: {error}")]
    Open {
        /// What was asked for.
        address: PeerAddr,
        /// Why not.
        #[source]
        error: OpenError,
    },
}

impl ReachError {
    /// Whether it may work later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_transient(),
            Self::Open { error, .. } => error.is_transient(),
        }
    }
}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            DialError::Own { .. } | DialError::Loop { .. } => Kind::InvalidInput,
            DialError::LocalHint { .. } => Kind::PermissionDenied,
            DialError::NoHints { .. } | DialError::Unresolved { .. } => Kind::NotFound,
            DialError::Failed { .. } if error.is_refused() => Kind::PermissionDenied,
            DialError::Failed { attempts, .. } => attempts.io_kind(),
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

/// Why something was not opened on a session with a peer.
#[derive(Clone, Debug)]
pub enum OnSessionError<E> {
    /// There is no session with the peer.
    Dial(DialError),
    /// What came of it on the last session that was tried.
    Open(E),
}

/// Says of an error on a session what another session would mend.
pub trait OnSession {
    /// What to try.
    fn mended_by(&self) -> Mend;
}

/// What may mend an error on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// Nothing that has to do with the session.
    Nothing,
    /// A new session: this one is over, and nothing of what was asked for was used.
    NewSession,
    /// A session that this node has dialled: the peer serves those who come in.
    DialInstead,
}

impl OnSession for OpenError {
    fn mended_by(&self) -> Mend {
        match self {
            Self::DialInstead { .. } => Mend::DialInstead,
            error if error.needs_new_session() => Mend::NewSession,
            _ => Mend::Nothing,
        }
    }
}

impl OnSession for RouteError {
    fn mended_by(&self) -> Mend {
        match self.kind() {
            RouteErrorKind::DialInstead => Mend::DialInstead,
            RouteErrorKind::Lost => Mend::NewSession,
            _ => Mend::Nothing,
        }
    }
}

/// A hint as a line has room for it: ids that are in full in what was typed are not repeated.
fn brief(hint: &Hint) -> String {
    match hint {
        Hint::Direct(endpoint) => endpoint.to_string(),
        Hint::Relay { relay, at } => format!("relay:{}…@{}", relay.short(), brief(at)),
    }
}

/// What was tried to reach a peer, in this order, and what came of it; not empty. As the source of an error it leads on to
/// the one that tells most: that somebody refused, else the first.
#[derive(Clone, Debug)]
pub struct Attempts(Vec<(Hint, AttemptError)>);

impl Attempts {
    /// That of all of them, where they have the same.
    fn io_kind(&self) -> io::ErrorKind {
        let mut kinds = self.0.iter().map(|(_, error)| error.io_kind());
        let first = kinds
            .next()
            .filter(|first| kinds.all(|kind| kind == *first));
        first.unwrap_or(io::ErrorKind::HostUnreachable)
    }

    fn decisive(&self) -> Option<&AttemptError> {
        let mut all = self.0.iter().map(|(_, error)| error);
        let first = all.clone().next();
        all.find(|error| error.is_refused()).or(first)
    }
}

impl From<Vec<(Hint, AttemptError)>> for Attempts {
    fn from(all: Vec<(Hint, AttemptError)>) -> Self {
        Self(all)
    }
}

impl Deref for Attempts {
    type Target = [(Hint, AttemptError)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (hint, error)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            match error {
                // It names its address, or its relay, itself.
                AttemptError::Connect(ConnectError::Transport(_))
                | AttemptError::Relay(_)
                | AttemptError::NoRelay { .. }
                | AttemptError::NoRoute { .. } => write!(f, "{error}")?,
                AttemptError::Connect(_) | AttemptError::NotFollowed => {
                    write!(f, "{}: {error}", brief(hint))?;
                }
            }
        }
        Ok(())
    }
}

impl Error for Attempts {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.decisive().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use crate::mux::{self, GoAwayCode, LimitKind, MuxError};
    use crate::session::SessionEnd;

    use super::*;

    fn id() -> PeerId {
        PeerId::from_bytes([1; 32])
    }

    fn failed(error: AttemptError) -> DialError {
        let hint = Hint::Direct("tcp:h:1".parse().unwrap());
        DialError::Failed {
            peer: id(),
            attempts: vec![(hint, error)].into(),
        }
    }

    fn routed(kind: RouteErrorKind) -> DialError {
        failed(AttemptError::Relay(RouteError::new(
            kind,
            std::io::Error::other("x"),
        )))
    }

    fn reported(error: &DialError) -> (bool, bool, bool) {
        (
            error.is_retryable(),
            error.is_transient(),
            error.is_refused(),
        )
    }

    /// Every kind of error: may it work later; with nothing changed anywhere; has somebody to let us in.
    #[test]
    fn every_error_has_its_class() {
        let hint = Hint::Direct("exec:x".parse().unwrap());
        let tls = |error| failed(AttemptError::Connect(ConnectError::Tls(error)));
        let away = GoAwayCode::Limit(LimitKind::Sessions);
        let behind = |error: DialError| {
            failed(AttemptError::NoRelay {
                relay: id(),
                error: error.into(),
            })
        };
        let known = ResolveError::Other("x".into()).into();
        let peer = id();
        for (error, class) in [
            (DialError::Own { peer }, (false, false, false)),
            (DialError::Loop { peer, relay: peer }, (false, false, false)),
            (DialError::NoHints { peer }, (true, true, false)),
            (
                DialError::LocalHint {
                    peer,
                    hint: Box::new(hint),
                },
                (false, false, false),
            ),
            (
                DialError::Unresolved { peer, error: known },
                (true, true, false),
            ),
            (DialError::ShutDown, (false, false, false)),
            (tls(TlsError::TimedOut), (true, true, false)),
            (
                tls(TlsError::RefusedByPeer { alert: 49 }),
                (true, false, true),
            ),
            (
                tls(TlsError::RefusedByPeer { alert: 80 }),
                (true, true, false),
            ),
            (
                failed(AttemptError::Connect(ConnectError::GoneAway { code: away })),
                (true, true, false),
            ),
            (routed(RouteErrorKind::Refused), (true, false, true)),
            (routed(RouteErrorKind::Full), (true, true, false)),
            (routed(RouteErrorKind::Unreachable), (true, true, false)),
            (routed(RouteErrorKind::Lost), (true, true, false)),
            (routed(RouteErrorKind::TimedOut), (true, true, false)),
            (routed(RouteErrorKind::DialInstead), (true, false, true)),
            (routed(RouteErrorKind::Protocol), (true, false, false)),
            (
                failed(AttemptError::NoRoute { relay: peer }),
                (false, false, false),
            ),
            (failed(AttemptError::NotFollowed), (false, false, false)),
            (behind(routed(RouteErrorKind::Full)), (true, true, false)),
            (behind(routed(RouteErrorKind::Refused)), (true, false, true)),
            (behind(DialError::Own { peer }), (false, false, false)),
        ] {
            assert_eq!(reported(&error), class, "{error:?}");
        }
        // What the peer says of our key counts for every way to it.
        let mut both = Vec::new();
        for error in [
            routed(RouteErrorKind::Lost),
            tls(TlsError::RefusedByPeer { alert: 49 }),
        ] {
            if let DialError::Failed { attempts, .. } = error {
                both.extend(attempts.iter().cloned());
            }
        }
        let both = DialError::Failed {
            peer,
            attempts: both.into(),
        };
        assert_eq!(reported(&both), (true, false, true));
    }

    /// The kind that an `io::Error` has of each, and that the chain of sources leads to what is beneath.
    #[test]
    fn every_error_becomes_an_io_error_of_its_kind() {
        use io::ErrorKind as Kind;
        let peer = id();
        let limit = Exceeded {
            resource: crate::node::Resource::Sessions,
            scope: crate::node::Scope::Peer,
            limit: 1,
        };
        let connect = |error| AttemptError::Connect(error);
        let tls = |error| connect(ConnectError::Tls(error));
        let cut = |kind: Kind| tls(TlsError::from_io(kind.into()));
        let route = |kind| AttemptError::Relay(RouteError::new(kind, io::Error::other("x")));
        let hint: Hint = Hint::Direct("tcp:h:1".parse().unwrap());
        let refused = TlsError::RefusedByPeer { alert: 49 };
        let closed = || OpenError::Session(SessionEnd::Lost(MuxError::Eof));
        let all = |errors: Vec<AttemptError>| DialError::Failed {
            peer,
            attempts: Attempts(errors.into_iter().map(|e| (hint.clone(), e)).collect()),
        };
        let table = [
            (DialError::Own { peer }, Kind::InvalidInput),
            (DialError::Loop { peer, relay: peer }, Kind::InvalidInput),
            (DialError::NoHints { peer }, Kind::NotFound),
            (DialError::Gone { peer }, Kind::NotConnected),
            (DialError::ShutDown, Kind::NotConnected),
            (DialError::NoRuntime, Kind::Unsupported),
            (DialError::Share { peer, limit }, Kind::QuotaExceeded),
            (all(vec![cut(Kind::ConnectionReset)]), Kind::ConnectionReset),
            (all(vec![tls(TlsError::TimedOut)]), Kind::TimedOut),
            (all(vec![tls(TlsError::BadRecord)]), Kind::InvalidData),
            (all(vec![tls(refused.clone())]), Kind::PermissionDenied),
            // A refusal says more than that another way was cut.
            (
                all(vec![cut(Kind::ConnectionReset), tls(refused)]),
                Kind::PermissionDenied,
            ),
            (
                all(vec![cut(Kind::BrokenPipe), cut(Kind::BrokenPipe)]),
                Kind::BrokenPipe,
            ),
            (
                all(vec![cut(Kind::BrokenPipe), tls(TlsError::TimedOut)]),
                Kind::HostUnreachable,
            ),
            (
                all(vec![route(RouteErrorKind::Refused)]),
                Kind::PermissionDenied,
            ),
            (all(vec![route(RouteErrorKind::Full)]), Kind::QuotaExceeded),
            (
                all(vec![route(RouteErrorKind::Unreachable)]),
                Kind::HostUnreachable,
            ),
            (
                all(vec![route(RouteErrorKind::Lost)]),
                Kind::ConnectionAborted,
            ),
            (all(vec![route(RouteErrorKind::TimedOut)]), Kind::TimedOut),
            (
                all(vec![route(RouteErrorKind::Protocol)]),
                Kind::InvalidData,
            ),
            (
                all(vec![AttemptError::NoRoute { relay: peer }]),
                Kind::Unsupported,
            ),
            (all(vec![AttemptError::NotFollowed]), Kind::PermissionDenied),
            (
                all(vec![AttemptError::NoRelay {
                    relay: peer,
                    error: all(vec![tls(TlsError::TimedOut)]).into(),
                }]),
                Kind::TimedOut,
            ),
        ];
        for (error, kind) in table {
            let text = format!("{error:?}");
            let reached = ReachError::Dial(error.clone());
            assert_eq!(io::Error::from(error).kind(), kind, "{text}");
            assert_eq!(io::Error::from(reached).kind(), kind, "{text}");
        }
        let open = ReachError::Open {
            address: PeerAddr::new(peer),
            error: closed(),
        };
        assert!(open.is_transient());
        assert_eq!(io::Error::from(open).kind(), Kind::UnexpectedEof);

        // From a service down to what the system said: each on the way is found by its type.
        let inner = all(vec![cut(Kind::ConnectionReset)]);
        let behind = all(vec![AttemptError::NoRelay {
            relay: peer,
            error: inner.into(),
        }]);
        let mut found = (false, false, false);
        let mut at: Option<&(dyn Error + 'static)> = Some(&behind);
        while let Some(error) = at {
            found.0 |= error.is::<ConnectError>();
            found.1 |= error.is::<TlsError>();
            found.2 |= error
                .downcast_ref::<io::Error>()
                .is_some_and(|e| e.kind() == Kind::ConnectionReset);
            at = error.source();
        }
        assert_eq!(found, (true, true, true));
    }

    #[test]
    fn every_error_on_a_session_has_its_mend() {
        let service = String::new;
        let gone = mux::OpenError::PeerGoneAway {
            code: GoAwayCode::Idle,
        };
        let mended = |error: OpenError| error.mended_by();
        for error in [
            OpenError::Session(SessionEnd::Closed),
            OpenError::Session(SessionEnd::Lost(MuxError::Eof)),
            OpenError::Mux(gone),
            OpenError::Mux(mux::OpenError::Closing),
            OpenError::Mux(mux::OpenError::Exhausted),
        ] {
            assert_eq!(mended(error), Mend::NewSession);
        }
        let dial = OpenError::DialInstead { service: service() };
        assert_eq!(mended(dial), Mend::DialInstead);
        let timed_out = OpenError::TimedOut { service: service() };
        assert_eq!(mended(timed_out), Mend::Nothing);
        let dropped = OpenError::Dropped { service: service() };
        assert_eq!(mended(dropped), Mend::Nothing);
    }
}
