//! How a session ends, and why a service was not opened or not accepted.

use std::error::Error;
use std::io;

use cepa_transports::text::quoted;

use crate::mux::{self, GoAwayCode, MuxError, StreamError};
use crate::resume::SessionLost;
use crate::stack::BindingError;
use crate::tls::TlsError;

use super::header::HeaderError;

/// How a session ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// It was closed here.
    #[error("this end closed the session")]
    Closed,
    /// The peer closed it, and said so.
    #[error("the peer closed the session")]
    ClosedByPeer,
    /// The peer closed it with a reason.
    #[error("{}", MuxError::GoAway { code: *code })]
    GoneAway {
        /// The reason that the peer gave.
        code: GoAwayCode,
    },
    /// This end gave it up for a reason that is a fault or a limit, and told the peer.
    #[error("{}", MuxError::GaveUp { code: *code })]
    GaveUp {
        /// The reason that was given.
        code: GoAwayCode,
    },
    /// A TLS layer failed, or was cut off.
    #[error("the session is lost: {0}")]
    Tls(#[source] TlsError),
    /// Anything else ended it: the stream below, the peer's silence, a fault of its mux.
    #[error("the session is lost: {0}")]
    Lost(#[source] MuxError),
    /// It outlived its connection, and no other one came in time, or one of its ends does not take it up again. What was
    /// on its way is lost.
    #[error("the session is lost: {0}")]
    GivenUp(#[source] SessionLost),
    /// It was closed here while it had no connection, so the peer does not know: what was on its way to it is lost.
    #[error("this end closed the session while its connection was lost, so the peer was not told")]
    ClosedUnheard,
    /// It ran over the session of another program of this machine, which has ended, or has lost it.
    #[error(
        "the session is lost: the program that shared its connection has lost it, or has ended"
    )]
    LenderGone,
    /// It has not ended: it was asked outside a tokio runtime, which has the timers for that.
    #[error("a session works only inside a tokio runtime: call it inside one")]
    NoRuntime,
}

impl SessionEnd {
    /// Whether one of the two ends wished it, and said so.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Closed | Self::ClosedByPeer => true,
            Self::GoneAway { code } => code.is_clean(),
            Self::GaveUp { .. }
            | Self::Tls(_)
            | Self::Lost(_)
            | Self::GivenUp(_)
            | Self::ClosedUnheard
            | Self::LenderGone
            | Self::NoRuntime => false,
        }
    }

    /// Whether another session may do better, with nothing changed here: this end has not closed the session, and the peer does
    /// not refuse this end.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Closed | Self::ClosedUnheard | Self::NoRuntime => false,
            Self::GivenUp(_)
            | Self::ClosedByPeer
            | Self::GoneAway { .. }
            | Self::GaveUp { .. }
            | Self::LenderGone => true,
            Self::Tls(error) => error.is_transient(),
            Self::Lost(error) => error.is_transient(),
        }
    }

    /// Whether this end has ended it, and neither the peer nor a failure.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Self::Closed | Self::ClosedUnheard | Self::GaveUp { .. }
        )
    }

    /// Whether one of the ends had no room for it.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        let (Self::GoneAway { code } | Self::GaveUp { code }) = self else {
            return false;
        };
        matches!(code, GoAwayCode::Limit(_))
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Closed | Self::ClosedUnheard => io::ErrorKind::NotConnected,
            Self::GivenUp(_) | Self::LenderGone => io::ErrorKind::ConnectionReset,
            Self::ClosedByPeer | Self::GoneAway { .. } | Self::GaveUp { .. } => {
                io::ErrorKind::ConnectionAborted
            }
            Self::Tls(error) => io::Error::from(error.clone()).kind(),
            Self::Lost(error) => io::Error::from(error.clone()).kind(),
            Self::NoRuntime => io::ErrorKind::Unsupported,
        }
    }

    pub(super) fn from_mux(error: MuxError) -> Self {
        match error {
            MuxError::Closed => Self::Closed,
            MuxError::GoAway {
                code: GoAwayCode::Normal,
            } => Self::ClosedByPeer,
            MuxError::GoAway { code } => Self::GoneAway { code },
            MuxError::GaveUp { code } if code.is_clean() => Self::Closed,
            MuxError::GaveUp { code } => Self::GaveUp { code },
            MuxError::Io(error) => match (inside::<SessionLost>(&error), tls_inside(&error)) {
                (Some(lost), _) => Self::GivenUp(lost.clone()),
                (None, Some(tls)) => Self::Tls(tls),
                (None, None) => Self::Lost(MuxError::Io(error)),
            },
            other => Self::Lost(other),
        }
    }
}

/// Why a service was not opened. Each text is one line and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer refused.
    #[error("the peer refused {}: {reason}", named(service))]
    Refused {
        /// The service that was asked for.
        service: String,
        /// In the peer's words, which nothing holds to a form: they are for a person to read.
        reason: String,
    },
    /// The peer has this service with inner TLS only.
    #[error(
        "the peer offers {} only with TLS inside the substream: open it secured",
        named(service)
    )]
    InnerTlsRequired {
        /// The service that was asked for.
        service: String,
    },
    /// The peer does not have this service with inner TLS.
    #[error(
        "the peer does not offer {} with TLS inside the substream: open it without",
        named(service)
    )]
    NoInnerTls {
        /// The service that was asked for.
        service: String,
    },
    /// The peer does not end TLS inside this service, but passes it on to whoever is behind it.
    #[error(
        "the peer forwards the TLS inside {} to another host: open it secured through the peer",
        named(service)
    )]
    InnerTlsEndsBeyond {
        /// The service that was asked for.
        service: String,
    },
    /// The peer ends TLS inside this service itself, and does not pass it on.
    #[error(
        "the peer ends TLS inside {} itself: open it secured with the peer, not through it",
        named(service)
    )]
    InnerTlsEndsHere {
        /// The service that was asked for.
        service: String,
    },
    /// At its other end, the TLS inside the substream is about another service, or in another session. The substream
    /// was given up.
    #[error(
        "the other end of the TLS inside {} expects another service or session: something in between connects the wrong ends, do not trust this connection",
        named(service)
    )]
    InnerBinding {
        /// The service that was asked for.
        service: String,
    },
    /// The peer has dialled us, and gives this service only to those who dial it.
    #[error(
        "the peer does not offer {} on a session that it dialled: dial the peer, and open it on that session",
        named(service)
    )]
    DialInstead {
        /// The service that was asked for.
        service: String,
    },
    /// The peer dropped the substream without an answer.
    #[error("the peer dropped {} without an answer: see its log", named(service))]
    Dropped {
        /// The service that was asked for.
        service: String,
    },
    /// The peer's mux refused the substream unseen: a limit of the peer's, or it takes no more in this session.
    #[error("the peer refused {} without looking at it: {reason}", named(service))]
    RefusedStream {
        /// The service that was asked for.
        service: String,
        /// Which limit, or why else.
        reason: mux::Refusal,
    },
    /// No substream could be opened in time: as many are open here as may be
    /// ([`mux::Config::max_outbound_streams`](crate::mux::Config::max_outbound_streams)), or as many wait for the
    /// peer as it takes at once. The peer has heard nothing of this one.
    #[error(
        "the session had no room for {} in time: close some connections, or try again later",
        named(service)
    )]
    NoRoom {
        /// The service that was to be asked for.
        service: String,
    },
    /// It was called outside a tokio runtime.
    #[error("no substream can be opened outside a tokio runtime: call it inside one")]
    NoRuntime,
    /// The peer did not answer in time.
    #[error(
        "the peer did not open {} in time: does the program behind it respond?",
        named(service)
    )]
    TimedOut {
        /// The service that was asked for.
        service: String,
    },
    /// A name that can't be sent.
    #[error(
        "{} can't be a service's name: use at most 255 bytes, and no control or invisible characters",
        quoted(service)
    )]
    Name {
        /// The name.
        service: String,
    },
    /// The peer's answer makes no sense, or it can't make sense of our request.
    #[error(
        "the peer's answer for {} is invalid ({fault}): do both ends run the same version?",
        named(service)
    )]
    Protocol {
        /// The service that was asked for.
        service: String,
        /// What does not fit.
        fault: AnswerFault,
    },
    /// TLS inside the substream failed; the session goes on.
    #[error("TLS inside the substream: {0}")]
    Tls(#[source] TlsError),
    /// The session takes no new substreams.
    #[error("no substream can be opened: {0}")]
    Mux(#[source] mux::OpenError),
    /// The session is over.
    #[error("{0}")]
    Session(#[from] SessionEnd),
}

/// Why the answer to an open makes no sense: [`OpenError::Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerFault {
    /// A header of another version.
    #[error("{}", HeaderError::Version(*.0))]
    Version(u8),
    /// Flags that there are not.
    #[error("{}", HeaderError::Flags(*.0))]
    Flags(u8),
    /// A status that there is not.
    #[error("{}", HeaderError::Status(*.0))]
    Status(u8),
    /// A text that can't be one.
    #[error("{}", HeaderError::Name)]
    Text,
    /// The peer can't make sense of our request.
    #[error("the peer does not know our header")]
    NotUnderstood,
    /// Inside the TLS of the substream another byte came than was due.
    #[error("byte {got:#04x} where {due:#04x} was due, inside TLS")]
    InnerTls {
        /// What came.
        got: u8,
        /// What was due.
        due: u8,
    },
}

impl From<HeaderError> for AnswerFault {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Version(version) => Self::Version(version),
            HeaderError::Flags(flags) => Self::Flags(flags),
            HeaderError::Status(status) => Self::Status(status),
            HeaderError::Name => Self::Text,
        }
    }
}

impl OpenError {
    /// The refusal inside an error of a stream of [`Session::open_early`](super::Session::open_early), when it is one.
    #[must_use]
    pub fn inside(error: &io::Error) -> Option<&Self> {
        inside(error)
    }

    /// Whether the session is over, or takes nothing new any more: in another one it may work at once, and the peer has served
    /// nothing of this.
    #[must_use]
    pub fn needs_new_session(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Mux(error) => error.is_safe_to_retry(),
            Self::RefusedStream { reason, .. } => *reason == mux::Refusal::GoingAway,
            _ => false,
        }
    }

    pub(super) fn from_mux(error: mux::OpenError) -> Self {
        match error {
            mux::OpenError::Session(end) => Self::Session(SessionEnd::from_mux(end)),
            other => Self::Mux(other),
        }
    }

    /// Whether another attempt may do better, with nothing changed here: in another session, when something else has ended, or when
    /// what did not answer in time does. The text of a refusal may say more, which is between the two applications.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Session(SessionEnd::NoRuntime) => false,
            Self::Session(_) | Self::TimedOut { .. } => true,
            error => error.is_limit() || error.needs_new_session(),
        }
    }

    /// Whether a limit stands in the way, of this end or of the peer: it works when something has ended.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::RefusedStream { reason, .. } => reason.is_limit(),
            Self::Session(end) => end.is_limit(),
            _ => false,
        }
    }

    /// Whether the peer's application has seen nothing of it, so that the same can be asked again, here or in another
    /// session, without being done twice.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::RefusedStream { .. } | Self::NoRoom { .. } | Self::NoRuntime => true,
            Self::Mux(error) => error.is_safe_to_retry(),
            _ => false,
        }
    }

    /// Whether it is this end that stands in the way, and the peer was not asked.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::NoRoom { .. } | Self::NoRuntime | Self::Name { .. } => true,
            Self::Mux(error) => !matches!(error, mux::OpenError::PeerGoneAway { .. }),
            Self::Session(end) => end.is_local(),
            _ => false,
        }
    }

    /// The substream failed before there was an answer.
    pub(super) fn from_io(error: &io::Error, service: &str) -> Self {
        match cause(error) {
            Cause::Refused(reason) => Self::RefusedStream {
                service: service.into(),
                reason,
            },
            Cause::Session(end) => Self::Session(end),
            Cause::TimedOut => Self::TimedOut {
                service: service.into(),
            },
            Cause::Stream => Self::Dropped {
                service: service.into(),
            },
        }
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            OpenError::Refused { .. }
            | OpenError::InnerTlsRequired { .. }
            | OpenError::NoInnerTls { .. }
            | OpenError::InnerTlsEndsBeyond { .. }
            | OpenError::InnerTlsEndsHere { .. }
            | OpenError::DialInstead { .. }
            | OpenError::RefusedStream { .. } => Kind::ConnectionRefused,
            OpenError::NoRoom { .. } => Kind::QuotaExceeded,
            OpenError::NoRuntime => Kind::Unsupported,
            OpenError::InnerBinding { .. } | OpenError::Protocol { .. } => Kind::InvalidData,
            OpenError::Dropped { .. } => Kind::ConnectionReset,
            OpenError::TimedOut { .. } => Kind::TimedOut,
            OpenError::Name { .. } => Kind::InvalidInput,
            OpenError::Tls(error) => io::Error::from(error.clone()).kind(),
            OpenError::Mux(error) => io::Error::from(error.clone()).kind(),
            OpenError::Session(end) => end.kind(),
        };
        io::Error::new(kind, error)
    }
}

impl From<SessionEnd> for io::Error {
    fn from(end: SessionEnd) -> Self {
        io::Error::new(end.kind(), end)
    }
}

impl From<AcceptError> for io::Error {
    fn from(error: AcceptError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            AcceptError::WantsInnerTls
            | AcceptError::WantsNoInnerTls
            | AcceptError::WantsInnerTlsThrough
            | AcceptError::WantsInnerTlsHere => Kind::ConnectionRefused,
            AcceptError::InnerBinding => Kind::InvalidData,
            AcceptError::Tls(error) => io::Error::from(error.clone()).kind(),
            AcceptError::Dropped => Kind::ConnectionReset,
            AcceptError::TimedOut => Kind::TimedOut,
            AcceptError::Session(end) => end.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// Why a substream of the peer was not accepted. The session goes on, unless it says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The peer asked for inner TLS, and the service was accepted without. The peer has been told.
    #[error("the peer wants TLS inside the substream: accept it secured")]
    WantsInnerTls,
    /// The peer did not ask for inner TLS, and the service was accepted with it. The peer has been
    /// told.
    #[error("the peer wants no TLS inside the substream: accept it without")]
    WantsNoInnerTls,
    /// The peer asked for inner TLS that may pass through us, and the service was accepted with such as ends here.
    /// The peer has been told.
    #[error(
        "the peer wants TLS inside the substream that may end beyond this session: accept that kind, or have the peer ask for the other"
    )]
    WantsInnerTlsThrough,
    /// The peer asked for inner TLS that ends here, and the service was accepted for the other kind. The peer has been
    /// told.
    #[error(
        "the peer wants TLS inside the substream that ends in this session: accept that kind, or have the peer ask for the other"
    )]
    WantsInnerTlsHere,
    /// At its other end, the TLS inside the substream is about another service, or in another session. The substream
    /// was given up.
    #[error(
        "the other end of the TLS inside the substream expects another service or session: something in between connects the wrong ends"
    )]
    InnerBinding,
    /// TLS inside the substream failed.
    #[error("TLS inside the substream: {0}")]
    Tls(#[source] TlsError),
    /// The peer took it back.
    #[error("the peer dropped the substream")]
    Dropped,
    /// The peer did not go on in time, and the substream was given up here.
    #[error("the peer did not continue in time, so the substream was abandoned")]
    TimedOut,
    /// The session is over.
    #[error("{0}")]
    Session(#[from] SessionEnd),
}

impl AcceptError {
    /// Whether the peer may do better with another attempt, with nothing changed here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dropped | Self::TimedOut => true,
            Self::Tls(error) => error.is_transient(),
            Self::Session(end) => end.is_transient(),
            _ => false,
        }
    }

    pub(super) fn from_io(error: &io::Error) -> Self {
        match cause(error) {
            Cause::Session(end) => Self::Session(end),
            Cause::TimedOut => Self::TimedOut,
            Cause::Refused(_) | Cause::Stream => Self::Dropped,
        }
    }
}

/// What made a substream fail.
enum Cause {
    Session(SessionEnd),
    Refused(mux::Refusal),
    TimedOut,
    Stream,
}

fn cause(error: &io::Error) -> Cause {
    match inside::<StreamError>(error) {
        Some(StreamError::Session(end)) => Cause::Session(SessionEnd::from_mux(end.clone())),
        Some(StreamError::SessionClosedByPeer) => Cause::Session(SessionEnd::ClosedByPeer),
        Some(StreamError::RefusedByPeer { reason }) => Cause::Refused(*reason),
        Some(StreamError::TimedOut(_)) => Cause::TimedOut,
        _ => Cause::Stream,
    }
}

/// The first reason of a TLS layer somewhere in an error's chain.
pub(crate) fn tls_inside(error: &io::Error) -> Option<TlsError> {
    inside::<TlsError>(error).map(|tls| tls.root().clone())
}

/// The reason for which a session is not bound to its connection, where that ended the mux.
pub(super) fn binding_inside(error: &MuxError) -> Option<BindingError> {
    match error {
        MuxError::Io(error) => binding_within(error),
        _ => None,
    }
}

/// The same in an error of the stream itself.
pub(super) fn binding_within(error: &io::Error) -> Option<BindingError> {
    inside::<BindingError>(error).copied()
}

/// An error of type `E` in the chain of an [`io::Error`].
fn inside<E: Error + 'static>(error: &io::Error) -> Option<&E> {
    let mut at = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An io::Error tells its inner error's source as its own, and would hide the error itself.
        at = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// A service in a message.
fn named(service: &str) -> String {
    if service.is_empty() {
        "its default service".into()
    } else {
        format!("the service {}", quoted(service))
    }
}
