//! The side of a sender: fetching a key, having a request carried, and opening what comes back.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use crate::identity::{PeerId, UnixTime};
use crate::node::{DialError, Node, OnSessionError, PeerAddr};
use crate::session::OpenError;
use crate::wire::{Message, MessageError, Status, fault, receive, send};

use super::flaw::SealFlaw;
use super::letter::{Answered, SealingKey, seal_request};
use super::wire::{Brought, CARRY, Carry, DELIVER, Deliver};

/// How long a request is good, and somewhat more than which its answer is waited for.
const LIFE: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(130);

/// Why there is no answer to a sealed request. Each text is one line.
///
/// What a carrier says can't be checked: after [`NotBrought`](Self::NotBrought), [`Altered`](Self::Altered),
/// [`Protocol`](Self::Protocol), [`Io`](Self::Io) and [`TimedOut`](Self::TimedOut) the request may have been carried out all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// It could not be sealed, or the key is of no use.
    #[error("{0}")]
    Flaw(#[from] SealFlaw),
    /// Whoever should be asked is not reached, a carrier or the recipient.
    #[error("the message was not sent: {0}")]
    Dial(#[from] DialError),
    /// The carrier does not carry for us, or the recipient takes none.
    #[error("{carrier} takes no sealed messages from this machine: {error}")]
    NoCarrier {
        /// Who was asked.
        carrier: PeerId,
        /// What it said.
        #[source]
        error: OpenError,
    },
    /// The carrier has brought no answer; or the recipient, asked directly, has not let the request in.
    #[error("{}", not_brought(carrier, recipient, *status, reason))]
    NotBrought {
        /// Who says so: a carrier, or the recipient itself.
        carrier: PeerId,
        /// For whom it was.
        recipient: PeerId,
        /// Why, for programs.
        status: Status,
        /// Why, in words; may be empty.
        reason: String,
    },
    /// What the carrier has brought is no answer to this request, or not the key that was asked for.
    #[error("{}", altered(carrier, recipient, flaw))]
    Altered {
        /// Who has brought it: a carrier, or the recipient itself.
        carrier: PeerId,
        /// Whose it should be.
        recipient: PeerId,
        /// What is wrong.
        #[source]
        flaw: SealFlaw,
    },
    /// The recipient has refused, and its signature proves that it was the recipient.
    #[error("{recipient} refused: {reason}")]
    Refused {
        /// Who.
        recipient: PeerId,
        /// Why, in its words.
        reason: String,
    },
    /// What came makes no sense.
    #[error("{carrier} gave an invalid answer ({fault}): do both ends run the same version?")]
    Protocol {
        /// Who.
        carrier: PeerId,
        /// What does not fit.
        fault: MessageError,
    },
    /// The session or the substream was lost before there was an answer.
    #[error(
        "the connection to {carrier} was lost ({source}); the request may have been carried out"
    )]
    Io {
        /// Who was asked.
        carrier: PeerId,
        /// How.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from {carrier} in time; the request may have been carried out")]
    TimedOut {
        /// Who was asked.
        carrier: PeerId,
    },
}

impl SealedError {
    /// Whether another attempt may do better, with nothing changed anywhere. The request may have been carried out all the same;
    /// see above.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_transient(),
            Self::NoCarrier { error, .. } => error.is_transient(),
            Self::NotBrought { status, .. } => status.is_transient(),
            Self::Io { .. } | Self::TimedOut { .. } => true,
            Self::Flaw(_) | Self::Altered { .. } | Self::Refused { .. } | Self::Protocol { .. } => {
                false
            }
        }
    }
}

impl From<SealedError> for io::Error {
    fn from(error: SealedError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            SealedError::Flaw(_) => Kind::InvalidInput,
            SealedError::Dial(error) => io::Error::from(error.clone()).kind(),
            SealedError::NoCarrier { error, .. } => io::Error::from(error.clone()).kind(),
            SealedError::NotBrought { status, .. } => status.io_kind(),
            SealedError::Altered { .. } | SealedError::Protocol { .. } => Kind::InvalidData,
            SealedError::Refused { .. } => Kind::PermissionDenied,
            SealedError::Io { source, .. } => source.kind(),
            SealedError::TimedOut { .. } => Kind::TimedOut,
        };
        io::Error::new(kind, error)
    }
}

fn altered(carrier: &PeerId, recipient: &PeerId, flaw: &SealFlaw) -> String {
    let otherwise = if carrier == recipient {
        "do both ends run the same version?"
    } else {
        "use another carrier"
    };
    match flaw {
        // Nobody has to be dishonest for that: a peer whose old id is still in use, and whose statement has expired.
        SealFlaw::OtherOwner { owner, found } => format!(
            "{carrier} brought the sealing key of {found}, which does not prove that it was {owner} before: \
             give the recipient's current id, or use another carrier"
        ),
        flaw => {
            format!("the answer from {carrier} is invalid ({flaw}): {otherwise}")
        }
    }
}

fn not_brought(carrier: &PeerId, recipient: &PeerId, status: Status, reason: &str) -> String {
    let words = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    let is_direct = carrier == recipient;
    let what = match status {
        Status::Refused if is_direct => "refused",
        Status::Refused => {
            return format!("{recipient} refused{words}, says the carrier {carrier}");
        }
        Status::NotAllowed => "does not deliver for this machine",
        Status::Full => "has no room for more; try later",
        Status::Quota if is_direct => "takes no more from one peer; try later",
        Status::Quota => "carries no more for one peer; try later",
        Status::NotRegistered => {
            "has no session with the recipient; is that running, and registered there?"
        }
        Status::Unreachable => {
            "says that the recipient does not answer; it may have got the request"
        }
        Status::Loop => "would return it to its origin; use another carrier",
        Status::Malformed | Status::Done => {
            "did not understand the request; do both ends run the same version?"
        }
        Status::Other(_) => "gave an unknown status; do both ends run the same version?",
    };
    if is_direct {
        format!("{recipient} {what}{words}")
    } else {
        format!("the carrier {carrier} {what}{words}")
    }
}

/// The present key of a peer.
pub(super) async fn key(
    node: &Node,
    carrier: &PeerAddr,
    of: PeerId,
) -> Result<SealingKey, SealedError> {
    let bytes = exchange(node, carrier, of, None).await?;
    SealingKey::from_bytes(&bytes, of, UnixTime::now()).map_err(|flaw| SealedError::Altered {
        carrier: carrier.peer(),
        recipient: of,
        flaw,
    })
}

/// A request and its answer.
pub(super) async fn ask(
    node: &Node,
    carrier: &PeerAddr,
    key: &SealingKey,
    service: &str,
    body: &[u8],
) -> Result<Vec<u8>, SealedError> {
    let identity = node.identity();
    let (request, awaiting) = seal_request(identity, key, service, body, LIFE, UnixTime::now())?;
    let answer = exchange(node, carrier, key.owner(), Some(request)).await?;
    match awaiting.open(&answer) {
        Ok(Answered::Body(body)) => Ok(body),
        Ok(Answered::Refused(reason)) => Err(SealedError::Refused {
            recipient: key.owner(),
            reason,
        }),
        Err(flaw) => Err(SealedError::Altered {
            carrier: carrier.peer(),
            recipient: key.owner(),
            flaw,
        }),
    }
}

/// One message each way. A recipient that is dialled itself needs no carrier: it is the peer of the session, or the one that
/// the address names, of which the session shows that it has another id now.
async fn exchange(
    node: &Node,
    at: &PeerAddr,
    to: PeerId,
    content: Option<Vec<u8>>,
) -> Result<Vec<u8>, SealedError> {
    let session = node.session(at).await?;
    if session.peer().is(&to) {
        let deliver = Deliver::new(content);
        say(node, at, (to, to), DELIVER, &deliver).await
    } else {
        let carry = Carry::new(to, content);
        say(node, at, (at.peer(), to), CARRY, &carry).await
    }
}

async fn say(
    node: &Node,
    at: &PeerAddr,
    (carrier, recipient): (PeerId, PeerId),
    service: &'static str,
    message: &impl Message,
) -> Result<Vec<u8>, SealedError> {
    // Nothing is sent before it is open, so nothing is carried out twice.
    let opened = node.open_on_session(at, service).await;
    let (_, mut stream) = opened.map_err(|error| match error {
        OnSessionError::Dial(error) => SealedError::Dial(error),
        OnSessionError::Open(error) => SealedError::NoCarrier { carrier, error },
    })?;
    let exchanged = timeout(PATIENCE, async {
        send(&mut stream, message).await?;
        receive::<Brought>(&mut stream).await
    });
    let brought = match exchanged.await {
        Ok(Ok(brought)) => brought,
        Ok(Err(error)) => {
            return Err(match fault(&error) {
                Some(fault) => SealedError::Protocol { carrier, fault },
                None => SealedError::Io {
                    carrier,
                    source: error,
                },
            });
        }
        Err(_) => return Err(SealedError::TimedOut { carrier }),
    };
    let not_brought = |(status, reason)| SealedError::NotBrought {
        carrier,
        recipient,
        status,
        reason,
    };
    brought.result().map_err(not_brought)
}
