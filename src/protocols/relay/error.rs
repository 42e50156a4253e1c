//! Why a relay did not do what it was asked for.

use std::io;

use cepa_transports::SharedError;

use crate::identity::PeerId;
use crate::node::{DialError, Mend, OnSession, RouteError, RouteErrorKind};
use crate::session::{OpenError, SessionEnd};

use crate::wire::{MessageError, Status};

/// Why a registration or a circuit did not come about. Each text is one line and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The peer is no relay, or does not serve us.
    #[error("{relay} does not relay for this machine: {source}")]
    NoRelay {
        /// Who was asked.
        relay: PeerId,
        /// What it said.
        source: OpenError,
    },
    /// The relay, or the peer behind it, refused.
    #[error("{}", refused(relay, *status, reason))]
    Refused {
        /// The relay.
        relay: PeerId,
        /// Why, for programs.
        status: Status,
        /// Why, in the words of who refused, for a person to read; may be empty.
        reason: String,
    },
    /// What came makes no sense.
    #[error(
        "{relay} does not understand this relay protocol ({fault}): are both ends of the same version?"
    )]
    Protocol {
        /// The relay.
        relay: PeerId,
        /// What does not fit.
        fault: MessageError,
    },
    /// The relay has ended the substream before it had answered; the session goes on.
    #[error(
        "{relay} does not understand this relay protocol ({source}): are both ends of the same version?"
    )]
    NoAnswer {
        /// The relay.
        relay: PeerId,
        /// How it ended.
        source: SharedError,
    },
    /// No answer in time.
    #[error("relay {relay} did not answer in time; try again, or use another relay")]
    TimedOut {
        /// The relay.
        relay: PeerId,
    },
    /// The session with the relay is over.
    #[error("the session with the relay {relay} is over: {end}")]
    Lost {
        /// The relay.
        relay: PeerId,
        /// How it ended.
        #[source]
        end: SessionEnd,
    },
}

/// Why a relay has ended a circuit by itself: in the [`io::Error`](std::io::Error) that the circuit's stream gives. Each text is one
/// line and says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitEnd {
    /// The other end's session with the relay was lost.
    #[error("relay {}… lost the other end: dial again", relay.short())]
    Lost {
        /// The relay.
        relay: PeerId,
    },
    /// The relay shuts down, and ends all it carries.
    #[error("relay {}… is shutting down: dial again later, or through another relay", relay.short())]
    Going {
        /// The relay.
        relay: PeerId,
    },
    /// It had carried nothing for as long as the relay allows.
    #[error("relay {}… ended an idle circuit: dial again when it is needed", relay.short())]
    Idle {
        /// The relay.
        relay: PeerId,
    },
    /// One of its ends did not read, and other circuits between two relays of a fleet had no room for that.
    #[error("relay {}… ended a circuit that was not read at one end while others waited: dial again, and read what comes", relay.short())]
    Unread {
        /// The relay.
        relay: PeerId,
    },
    /// The relay has no room for more, and another peer had none.
    #[error("relay {}… is full, and gave the circuit to a peer that had none: try later, or use another relay", relay.short())]
    TakenBack {
        /// The relay.
        relay: PeerId,
    },
}

/// Why a relay of a fleet looks for nobody more in somebody's name.
pub(super) const LOOKUPS_LIMITED: &str =
    "too many peers were asked for that are not there: wait a minute";

fn refused(relay: &PeerId, status: Status, reason: &str) -> String {
    let short = relay.short();
    let what = match status {
        Status::NotAllowed => "does not allow this machine".into(),
        Status::Full => "is full; try later, or use another relay".into(),
        Status::Quota if reason == LOOKUPS_LIMITED => {
            "answers no more lookups of this machine for now".into()
        }
        Status::Quota => "allows this machine no more; close something first".into(),
        Status::NotRegistered => {
            "does not know that peer: it does not run, or is not registered there".into()
        }
        Status::Refused => "reached the peer, and the peer refused".into(),
        Status::Unreachable => "got no answer from the peer; try later".into(),
        Status::Loop => "would lead back to its own origin; give another address".into(),
        Status::Malformed | Status::Done => {
            "did not understand the request; are both ends of the same version?".into()
        }
        Status::Other(number) => format!("refused with status {number}"),
    };
    let words = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    format!("relay {short}… {what}{words}")
}

impl OnSession for RelayError {
    fn mended_by(&self) -> Mend {
        match self.kind() {
            RouteErrorKind::DialInstead => Mend::DialInstead,
            RouteErrorKind::Lost => Mend::NewSession,
            _ => Mend::Nothing,
        }
    }
}

impl RelayError {
    /// The same for a route through it.
    fn kind(&self) -> RouteErrorKind {
        match self {
            RelayError::NoRelay {
                source: OpenError::DialInstead { .. },
                ..
            } => RouteErrorKind::DialInstead,
            RelayError::NoRelay { source, .. } if source.needs_new_session() => {
                RouteErrorKind::Lost
            }
            RelayError::Lost { .. } => RouteErrorKind::Lost,
            RelayError::NoRelay {
                source: OpenError::TimedOut { .. } | OpenError::Dropped { .. },
                ..
            }
            | RelayError::TimedOut { .. } => RouteErrorKind::TimedOut,
            RelayError::Refused {
                status: Status::NotRegistered | Status::Unreachable,
                ..
            } => RouteErrorKind::Unreachable,
            RelayError::Refused {
                status: Status::Full | Status::Quota,
                ..
            } => RouteErrorKind::Full,
            RelayError::Refused {
                status: Status::NotAllowed | Status::Refused,
                ..
            }
            | RelayError::NoRelay {
                source: OpenError::Refused { .. },
                ..
            } => RouteErrorKind::Refused,
            // Of these none says that another one could be let in.
            RelayError::Refused { .. }
            | RelayError::NoRelay { .. }
            | RelayError::Protocol { .. }
            | RelayError::NoAnswer { .. } => RouteErrorKind::Protocol,
        }
    }
}

impl RelayError {
    /// Whether it may work later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }
}

impl From<RelayError> for io::Error {
    fn from(error: RelayError) -> Self {
        let kind = match &error {
            RelayError::NoRelay { source, .. } => io::Error::from(source.clone()).kind(),
            RelayError::Refused { status, .. } => status.io_kind(),
            RelayError::Protocol { .. } | RelayError::NoAnswer { .. } => io::ErrorKind::InvalidData,
            RelayError::TimedOut { .. } => io::ErrorKind::TimedOut,
            RelayError::Lost { end, .. } => io::Error::from(end.clone()).kind(),
        };
        io::Error::new(kind, error)
    }
}

impl From<RegisterError> for io::Error {
    fn from(error: RegisterError) -> Self {
        let kind = match &error {
            RegisterError::Dial(error) => io::Error::from(error.clone()).kind(),
            RegisterError::Relay(error) => io::Error::from(error.clone()).kind(),
            RegisterError::TakenBack { .. } => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}

impl From<RelayError> for RouteError {
    fn from(error: RelayError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why a node is not registered at a relay. Each text is one line.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The relay was not reached.
    #[error("cannot reach the relay: {}", .0.reason())]
    Dial(#[from] DialError),
    /// The relay refused, or did not answer.
    #[error("{0}")]
    Relay(#[from] RelayError),
    /// It was [taken back](super::Relays::unregister) before the relay had answered.
    #[error(
        "not registered at {relay}: this end cancelled the registration before the relay answered"
    )]
    TakenBack {
        /// The relay.
        relay: PeerId,
    },
}

impl RegisterError {
    /// Whether it may work later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_transient(),
            Self::Relay(error) => error.is_transient(),
            Self::TakenBack { .. } => false,
        }
    }

    /// Whether the relay has no room for more.
    pub(super) fn is_full(&self) -> bool {
        let status = match self {
            Self::Relay(RelayError::Refused { status, .. }) => *status,
            _ => return false,
        };
        status == Status::Full
    }

    /// Why, for a message that names the relay itself.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Relay(error) => error.to_string(),
            Self::TakenBack { .. } => self.to_string(),
        }
    }

    /// Whether it may work later, with nothing changed here: a relay that is down comes back, and one that refuses may come to
    /// allow us.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_retryable(),
            Self::Relay(_) => true,
            Self::TakenBack { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mux::{self, GoAwayCode, MuxError};
    use crate::session::AnswerFault;

    use super::*;

    #[test]
    fn every_error_of_a_relay_has_its_kind() {
        use RouteErrorKind as Kind;
        let relay = PeerId::from_bytes([1; 32]);
        let kind = |error: RelayError| RouteError::from(error).kind();
        let service = String::new;
        for (source, wanted) in [
            (
                OpenError::Session(SessionEnd::Lost(MuxError::Eof)),
                Kind::Lost,
            ),
            (
                OpenError::Mux(mux::OpenError::PeerGoneAway {
                    code: GoAwayCode::ShuttingDown,
                }),
                Kind::Lost,
            ),
            (OpenError::Mux(mux::OpenError::Closing), Kind::Lost),
            (OpenError::TimedOut { service: service() }, Kind::TimedOut),
            (OpenError::Dropped { service: service() }, Kind::TimedOut),
            (
                OpenError::DialInstead { service: service() },
                Kind::DialInstead,
            ),
            (
                OpenError::Refused {
                    service: service(),
                    reason: String::new(),
                },
                Kind::Refused,
            ),
            (
                OpenError::Protocol {
                    service: service(),
                    fault: AnswerFault::NotUnderstood,
                },
                Kind::Protocol,
            ),
            (OpenError::NoInnerTls { service: service() }, Kind::Protocol),
        ] {
            let said = format!("{source:?}");
            assert_eq!(
                kind(RelayError::NoRelay { relay, source }),
                wanted,
                "{said}"
            );
        }
        for (status, wanted) in [
            (Status::NotAllowed, Kind::Refused),
            (Status::Refused, Kind::Refused),
            (Status::Full, Kind::Full),
            (Status::Quota, Kind::Full),
            (Status::NotRegistered, Kind::Unreachable),
            (Status::Unreachable, Kind::Unreachable),
            (Status::Loop, Kind::Protocol),
            (Status::Malformed, Kind::Protocol),
            (Status::Other(77), Kind::Protocol),
        ] {
            let reason = String::new();
            assert_eq!(
                kind(RelayError::Refused {
                    relay,
                    status,
                    reason
                }),
                wanted,
                "{status:?}"
            );
        }
        assert_eq!(kind(RelayError::TimedOut { relay }), Kind::TimedOut);
        let lost = RelayError::Lost {
            relay,
            end: SessionEnd::ClosedByPeer,
        };
        assert_eq!(kind(lost), Kind::Lost);
        assert_eq!(
            kind(RelayError::Protocol {
                relay,
                fault: MessageError::Version(2)
            }),
            Kind::Protocol
        );
        let source = io::Error::from(io::ErrorKind::UnexpectedEof).into();
        assert_eq!(kind(RelayError::NoAnswer { relay, source }), Kind::Protocol);
    }
}
