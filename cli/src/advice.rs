//! What a user of the tool can do about an error: the command or the option that helps, which the library's texts do not know.
//!
//! The library's errors are values. [`of`] walks the chain of their sources to the first that has an advice here, and
//! [`Failure`](crate::exit::Failure) shows it behind the message. A table under test has them all.

use std::error::Error;
use std::{fmt, io};

use cepa::identity::{EditError, IdentityError, PeerId, PeerIdError};
use cepa::link::LinkError;
use cepa::session::{ConnectError, SessionEnd};
use cepa::tls::TlsError;
use cepa::transports::{Endpoint, Target, TransportError, TransportErrorKind};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// The peer does not allow our id, which is known or not.
    AskToAllow(Option<PeerId>),
    /// The peer does not take our sealed messages.
    AskToTakeSealed(PeerId),
    ConnectAgain,
    /// The peer has ended the session, and the command can make another one.
    Reconnect,
    /// The session was cut in the middle of something.
    ConnectAgainAfterCut,
    /// The same, where the session could have gone on over another connection.
    ConnectAgainDurably,
    /// The same, for a program that is never run again by itself.
    RunAgain,
    /// The same, where the program could have run on.
    RunAgainDurably,
    /// The same, for a copy.
    CopyAgain,
    /// The same, where the console goes on at the peer.
    AttachAgain,
    ShowId,
    ShowIdThere,
    CreateIdentity,
    ListPeers,
    ListPorts,
    ReplaceKey,
}

impl Advice {
    /// Whether a command that reconnects by itself does it anyway.
    pub(crate) fn is_to_reconnect(self) -> bool {
        matches!(
            self,
            Self::ConnectAgain
                | Self::Reconnect
                | Self::ConnectAgainAfterCut
                | Self::ConnectAgainDurably
                | Self::RunAgain
                | Self::RunAgainDurably
                | Self::CopyAgain
                | Self::AttachAgain
        )
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AskToAllow(Some(own)) => {
                return write!(f, "ask its owner to add: --allow {own}");
            }
            Self::AskToTakeSealed(own) => {
                return write!(f, "ask its owner to add: --allow {own} --sealed (`cepa serve`) or --carry (`cepa relay`)");
            }
            Self::AskToAllow(None) => {
                "ask its owner to allow the peer id that `cepa id show` prints here"
            }
            Self::ConnectAgain => "connect again",
            Self::Reconnect => "with --reconnect, this command connects again by itself",
            Self::ConnectAgainAfterCut => {
                "the last output may be missing. Connect again, or use --reconnect"
            }
            Self::ConnectAgainDurably => {
                "the last output may be missing. Connect again, or use --durable or --reconnect"
            }
            Self::RunAgain => "the last output may be missing. Run it again",
            Self::RunAgainDurably => {
                "the last output may be missing. Run it again, or use --durable"
            }
            Self::CopyAgain => {
                "the same command goes on from what has arrived; --reconnect does that by itself"
            }
            Self::AttachAgain => "run the same command line to attach again",
            Self::ShowId => "`cepa id show` prints it",
            Self::ShowIdThere => "`cepa id show` there prints the right id",
            Self::CreateIdentity => "`cepa id new --identity FILE` creates one",
            Self::ListPorts => "`cepa ports` shows what is there",
            Self::ListPeers => "`cepa peer ls` lists them",
            Self::ReplaceKey => "if that peer has a new key, use `cepa peer add --replace`",
        })
    }
}

/// The advice for an error: that of the first in its chain of sources that has one.
pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Advice> {
    let mut at = Some(error);
    while let Some(error) = at {
        // It says itself what to do.
        if let Some(ConnectError::ClosedAtOnce(_)) = error.downcast_ref() {
            return None;
        }
        let advice = of_one(error);
        if advice.is_some() {
            return advice;
        }
        at = error.source();
    }
    None
}

/// An error's text, and the advice behind it.
pub(crate) fn with_advice(error: &(dyn Error + 'static)) -> String {
    match of(error) {
        Some(advice) => format!("{error}; {advice}"),
        None => error.to_string(),
    }
}

fn of_one(error: &(dyn Error + 'static)) -> Option<Advice> {
    if let Some(error) = error.downcast_ref::<TlsError>() {
        return match error.root() {
            error if error.is_identity_refused() => Some(Advice::AskToAllow(None)),
            TlsError::Truncated { .. } | TlsError::BadRecord => Some(Advice::ConnectAgain),
            TlsError::NotHere { .. } => Some(Advice::ShowIdThere),
            _ => None,
        };
    }
    // What an io::Error keeps is not its source, which is the source of that.
    if let Some(inner) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return of(inner);
    }
    if let Some(SessionEnd::Lost(_)) = error.downcast_ref() {
        return Some(Advice::ConnectAgain);
    }
    if let Some(error) = error.downcast_ref::<TransportError>()
        && error.kind() == TransportErrorKind::NotFound
        && error
            .endpoint()
            .parse::<Endpoint>()
            .is_ok_and(|at| matches!(at.target(), Target::Serial { .. }))
    {
        return Some(Advice::ListPorts);
    }
    if let Some(LinkError::Restarted) = error.downcast_ref() {
        return Some(Advice::ConnectAgain);
    }
    if let Some(PeerIdError::Length { .. }) = error.downcast_ref() {
        return Some(Advice::ShowId);
    }
    if let Some(IdentityError::NotAnIdentityFile { .. }) = error.downcast_ref() {
        return Some(Advice::CreateIdentity);
    }
    match error.downcast_ref() {
        Some(EditError::NameTaken { .. }) => Some(Advice::ReplaceKey),
        Some(EditError::NoSuchPeer { .. }) => Some(Advice::ListPeers),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use cepa::mux::MuxError;
    use cepa::node::{RouteError, RouteErrorKind};
    use cepa::session::OpenError;

    use super::*;

    /// Every kind of error that has an advice, by itself and inside of others, and some that have none.
    #[test]
    fn every_advice_is_that_of_a_kind_of_error() {
        let refused = |alert| TlsError::RefusedByPeer { alert };
        let lost = || SessionEnd::Lost(MuxError::Eof);
        let id: Result<PeerId, _> = "abc".parse();
        let address: Result<cepa::node::PeerAddr, _> = "cepa://abc".parse();
        let name = || "ann".to_owned();
        let ask = Some(Advice::AskToAllow(None));
        let again = Some(Advice::ConnectAgain);
        let table: Vec<(Box<dyn Error>, Option<Advice>)> = vec![
            (refused(42).into(), ask),
            (refused(43).into(), ask),
            (refused(46).into(), ask),
            (refused(48).into(), ask),
            (refused(49).into(), ask),
            (refused(45).into(), None),
            (refused(80).into(), None),
            (ConnectError::Tls(refused(46)).into(), ask),
            (OpenError::Tls(refused(46)).into(), ask),
            (TlsError::Truncated { layer: 1 }.into(), again),
            (
                ConnectError::ClosedAtOnce(TlsError::Truncated { layer: 1 }).into(),
                None,
            ),
            (TlsError::BadRecord.into(), again),
            (TlsError::TimedOut.into(), None),
            (
                TlsError::NotHere {
                    asked: PeerId::from_bytes([1; 32]),
                }
                .into(),
                Some(Advice::ShowIdThere),
            ),
            (SessionEnd::Tls(TlsError::BadRecord).into(), again),
            (SessionEnd::ClosedByPeer.into(), None),
            (lost().into(), again),
            (OpenError::Session(lost()).into(), again),
            (
                RouteError::new(RouteErrorKind::Lost, OpenError::Session(lost())).into(),
                again,
            ),
            (LinkError::Restarted.into(), again),
            (io::Error::other(LinkError::Restarted).into(), again),
            (LinkError::Reset.into(), None),
            (id.unwrap_err().into(), Some(Advice::ShowId)),
            (address.unwrap_err().into(), Some(Advice::ShowId)),
            (
                IdentityError::NotAnIdentityFile { what: "a folder" }.into(),
                Some(Advice::CreateIdentity),
            ),
            (IdentityError::NoKey.into(), None),
            (
                EditError::NameTaken {
                    name: name(),
                    id: PeerId::from_bytes([1; 32]),
                }
                .into(),
                Some(Advice::ReplaceKey),
            ),
            (
                EditError::NoSuchPeer { name: name() }.into(),
                Some(Advice::ListPeers),
            ),
        ];
        for (error, advice) in table {
            assert_eq!(of(&*error), advice, "{error:?}");
        }
    }

    /// What the tool adds stands behind the text, on the same line.
    #[test]
    fn an_error_and_its_advice_are_one_line() {
        let error = SessionEnd::Lost(MuxError::Eof);
        assert_eq!(with_advice(&error), format!("{error}; connect again"));
        assert_eq!(
            with_advice(&SessionEnd::Closed),
            SessionEnd::Closed.to_string()
        );
    }
}
