//! Why no session came about.

use std::sync::Arc;
use std::{fmt, io};

use cepa_transports::TransportError;

use super::admission::NotAdmitted;
use super::binding::BindingError;
use super::lasting::{Lasting, NotReached, PathInfo};
use crate::gate::Failure;
use crate::identity::PeerId;
use crate::mux::{GoAwayCode, MuxError};
use crate::resume::{HelloMalformed, Refusal, Violation};
use crate::tls::{TlsConfigError, TlsError};

/// Why no session came about. Each text is one line and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The stream could not be opened.
    #[error("{0}")]
    Transport(#[from] TransportError),
    /// A TLS layer could not be put on, or the peer refused us right after.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The other end closed the connection, or reset it, before its first byte.
    #[error(
        "the other end closed the connection without a word: it may be full, or not speak TLS here; try again, or see its log"
    )]
    ClosedAtOnce(#[source] TlsError),
    /// The mux failed before the first ping had come back.
    #[error("cannot make a session: {0}; is the other end a cepa peer, set to the same layers?")]
    Mux(#[source] MuxError),
    /// The peer ended the session before it stood, and the code tells why: it has no room, or shuts down.
    #[error("cannot make a session: {}", MuxError::GoAway { code: *code })]
    GoneAway {
        /// The reason that the peer gave.
        code: GoAwayCode,
    },
    /// The peer means another connection, another peer or other layers than we do.
    #[error("cannot make a session: {0}")]
    Binding(#[from] BindingError),
    /// It took too long.
    #[error(
        "{during} did not finish in time: is the peer running, with the same layers, and is the line fast enough?"
    )]
    TimedOut {
        /// What was waited for, for a person to read.
        during: String,
    },
    /// The layers can't carry a session.
    #[error(
        "the layers {layers} can't carry a session: {reason}; write `mux+tls+` in front of the address, or nothing"
    )]
    Layers {
        /// The layers, as an address writes them.
        layers: String,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// There is no room here for a session with this peer.
    #[error("{0}")]
    NotAdmitted(#[from] NotAdmitted),
    /// The identity can't be used for TLS.
    #[error("{0}")]
    Config(#[from] TlsConfigError),
    /// No failure: the peer took up a session on this connection that is there already, and which goes on here. There is no
    /// new one.
    #[error("a session that is there already goes on over this connection")]
    Resumed(Resumed),
    /// Both ends have to keep a session for it to go on over another connection, and here one of them does not.
    #[error(
        "the session does not outlive its connection: both ends have to be set to that when it is made"
    )]
    NotKept,
    /// The session does not go on over this connection, since one of the two ends does not take it up.
    #[error("the session does not go on over another connection: {0}")]
    NotResumed(Refusal),
    /// The peer of this connection asked to go on with a session, and this end does not take it up.
    #[error("peer {peer} {}", not_taken_up(*.why))]
    NotTakenUp {
        /// Who asked.
        peer: PeerId,
        /// Why not, as the peer was told.
        why: Refusal,
    },
    /// Another peer is at the other end of this connection than of the session.
    #[error("another peer is there than the one that the session is with ({0})")]
    OtherPeer(PeerId),
    /// The session is over, and can't go on over another connection.
    #[error("the session is over: connect again")]
    Over,
    /// The peer begins a session that is to outlive its connections in a way that is not ours.
    #[error("cannot make a session: {0}; are both ends of the same version?")]
    Hello(HelloFault),
    /// It was called outside a tokio runtime, which has the sockets and timers.
    #[error("cannot make a session outside a tokio runtime: call it inside one")]
    NoRuntime,
}

/// Why the beginning of a session that is to outlive its connections makes no sense: [`ConnectError::Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloFault {
    /// Another version of durable sessions.
    #[error("{}", HelloMalformed::Version(*.0))]
    Version(u8),
    /// A hello of a kind that there is not.
    #[error("{}", HelloMalformed::Kind(*.0))]
    Kind(u8),
    /// A hello that ends before it is complete.
    #[error("{}", HelloMalformed::Short)]
    Short,
    /// The peer gives a new session the name of another one.
    #[error("the peer gives a session a name that another one has")]
    NameTaken,
    /// The peer takes a session up, and can't prove that it has it.
    #[error("the peer can't prove that it has the session; is somebody between?")]
    Proof,
    /// Where the peer goes on does not fit what it has sent and received.
    #[error("the peer broke the protocol of durable sessions ({0})")]
    Violation(Violation),
}

impl From<HelloMalformed> for HelloFault {
    fn from(error: HelloMalformed) -> Self {
        match error {
            HelloMalformed::Version(version) => Self::Version(version),
            HelloMalformed::Kind(kind) => Self::Kind(kind),
            HelloMalformed::Short => Self::Short,
        }
    }
}

/// What became of a peer's wish to go on with a session, for who reads the log of the other end.
fn not_taken_up(why: Refusal) -> String {
    match why {
        Refusal::Unknown | Refusal::Over => {
            "wants to go on with a session that is not here any more: it has ended, or this end was restarted; nothing is to be done here"
                .into()
        }
        Refusal::NotYours => "wants to go on with a session that is not its own".into(),
        Refusal::Stale => "wants to go on with a session that runs over a newer connection".into(),
        why => format!("wants to go on with a session, and can't: {why}"),
    }
}

/// A session went on over a connection that was accepted: [`ConnectError::Resumed`].
#[derive(Clone)]
pub struct Resumed {
    // An error is small.
    inner: Arc<(Arc<Lasting>, PathInfo)>,
}

impl Resumed {
    pub(crate) fn new(lasting: Arc<Lasting>, path: PathInfo) -> Self {
        let inner = Arc::new((lasting, path));
        Self { inner }
    }

    /// Over what the session runs now.
    #[must_use]
    pub fn path(&self) -> &PathInfo {
        &self.inner.1
    }

    /// Whether this is the session.
    pub(crate) fn is_of(&self, lasting: &Arc<Lasting>) -> bool {
        Arc::ptr_eq(&self.inner.0, lasting)
    }

    /// Waits until the session runs over this connection no more: it is over, or goes on over another one, or has none.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn left(&self) {
        let (lasting, path) = &*self.inner;
        lasting.left(path.number).await;
    }
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resumed").field(self.path()).finish()
    }
}

impl From<ConnectError> for NotReached {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::NotResumed(why) if !why.is_transient() => {
                Self::Refused { why, by_all: true }
            }
            _ => Self::NotNow,
        }
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            ConnectError::Transport(error) => io::Error::from(error.clone()).kind(),
            ConnectError::Tls(error) => io::Error::from(error.clone()).kind(),
            ConnectError::Mux(error) => io::Error::from(error.clone()).kind(),
            ConnectError::ClosedAtOnce(_) | ConnectError::GoneAway { .. } => {
                Kind::ConnectionAborted
            }
            ConnectError::Binding(_) | ConnectError::Hello(_) => Kind::InvalidData,
            ConnectError::TimedOut { .. } => Kind::TimedOut,
            ConnectError::Layers { .. } | ConnectError::Config(_) => Kind::InvalidInput,
            ConnectError::NotAdmitted(_) => Kind::QuotaExceeded,
            ConnectError::NoRuntime | ConnectError::NotKept => Kind::Unsupported,
            ConnectError::Resumed(_) => Kind::AlreadyExists,
            ConnectError::NotResumed(_)
            | ConnectError::NotTakenUp { .. }
            | ConnectError::OtherPeer(_) => Kind::ConnectionRefused,
            ConnectError::Over => Kind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}

impl ConnectError {
    /// The text that is reported to whoever watches (`src/observe.rs`): no command with its arguments, and not what came in
    /// place of TLS, which may have been meant for somebody else.
    pub(crate) fn reported(&self) -> String {
        match self {
            Self::Transport(error) => format!("cannot connect: {:?}", error.kind()),
            Self::Tls(TlsError::NotTls { .. }) => "the peer does not speak TLS here".to_owned(),
            error => error.to_string(),
        }
    }

    /// Whether the stranger at the other end left before it said anything, as a load balancer or a port scanner does that
    /// only looks whether we are there: no failure, see [`Pass::probe`](crate::gate::Pass::probe).
    #[must_use]
    pub fn is_probe(&self) -> bool {
        matches!(self, Self::ClosedAtOnce(_))
    }

    /// How the stranger at the other end has failed, for the [gate](crate::gate) that it came through; `None`
    /// where it is not to blame, a [probe](Self::is_probe) among them.
    #[must_use]
    pub fn failing(&self) -> Option<Failure> {
        match self {
            Self::TimedOut { .. } | Self::Tls(TlsError::TimedOut) => Some(Failure::TimedOut),
            Self::Tls(error) if error.is_end() || error.is_given_up() => Some(Failure::Lost),
            // Nobody honest takes up what is another's.
            Self::NotResumed(Refusal::NotYours)
            | Self::NotTakenUp {
                why: Refusal::NotYours,
                ..
            } => Some(Failure::Refused),
            // Whoever was away for too long comes once, and many may share one address; a guesser comes again and again.
            Self::Mux(MuxError::Eof | MuxError::Io(_))
            | Self::NotResumed(_)
            | Self::NotTakenUp { .. } => Some(Failure::Lost),
            Self::Tls(_) | Self::Binding(_) | Self::Mux(_) | Self::Hello(_) => {
                Some(Failure::Refused)
            }
            Self::Transport(_)
            | Self::ClosedAtOnce(_)
            | Self::NotAdmitted(_)
            | Self::GoneAway { .. }
            | Self::Layers { .. }
            | Self::Config(_)
            | Self::Resumed(_)
            | Self::NotKept
            | Self::OtherPeer(_)
            | Self::Over
            | Self::NoRuntime => None,
        }
    }

    /// Whether another attempt may do better, with nothing changed here: the peer is away or restarts, the
    /// line was disturbed, somebody else holds the port for a moment. Not so where one of the two ends does
    /// not want the other, or the address or the configuration can't work.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_transient(),
            Self::Tls(error) => error.is_transient(),
            Self::ClosedAtOnce(_)
            | Self::Mux(_)
            | Self::NotAdmitted(_)
            | Self::GoneAway { .. }
            | Self::TimedOut { .. } => true,
            Self::NotResumed(why) | Self::NotTakenUp { why, .. } => why.is_transient(),
            Self::Binding(_)
            | Self::Layers { .. }
            | Self::Config(_)
            | Self::Resumed(_)
            | Self::NotKept
            | Self::OtherPeer(_)
            | Self::Over
            | Self::Hello(_)
            | Self::NoRuntime => false,
        }
    }
}
