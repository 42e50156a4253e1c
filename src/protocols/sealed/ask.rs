//! The side of a sender: fetching a key, having a request carried, and opening what comes back.

use std::time::Duration;

use tokio::time::timeout;

use crate::identity::{PeerId, UnixTime};
use crate::node::{DialError, Node, PeerAddr};
use crate::session::{OpenError, Session};
use crate::wire::{Message, Status, fault, receive, send};

use super::flaw::SealFlaw;
use super::letter::{Answered, SealingKey, seal_request};
use super::wire::{Brought, CARRY, Carry, DELIVER, Deliver};

/// How long a request is good, and somewhat more than which its answer is waited for.
const LIFE: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(130);

/// Why there is no answer to a sealed request. Each text is one line.
///
/// What a carrier says can't be checked: after [`NotBrought`](Self::NotBrought), [`Altered`](Self::Altered),
/// [`Protocol`](Self::Protocol) and [`TimedOut`](Self::TimedOut) the request may have been carried out all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// It could not be sealed, or the key is of no use.
    #[error(transparent)]
    Flaw(#[from] SealFlaw),
    /// The carrier is not reached.
    #[error("the carrier is not reached: {0}")]
    Dial(#[from] DialError),
    /// The carrier does not carry for us, or the recipient takes none.
    #[error("{carrier} takes no sealed message of us: {error}")]
    NoCarrier {
        /// Who was asked.
        carrier: PeerId,
        /// What it said.
        error: OpenError,
    },
    /// The carrier has brought no answer.
    #[error("{}", not_brought(carrier, *status, reason))]
    NotBrought {
        /// Who says so.
        carrier: PeerId,
        /// Why, for programs.
        status: Status,
        /// Why, in words; may be empty.
        reason: String,
    },
    /// What the carrier has brought is no answer to this request, or not the key that was asked for.
    #[error("{}", altered(carrier, flaw))]
    Altered {
        /// Who has brought it.
        carrier: PeerId,
        /// What is wrong.
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
    #[error("{carrier} does not carry as it should ({detail}): are both of the same version?")]
    Protocol {
        /// Who.
        carrier: PeerId,
        /// What does not fit.
        detail: String,
    },
    /// No answer in time.
    #[error(
        "{carrier} brought no answer in time; it is not known whether the request was carried out"
    )]
    TimedOut {
        /// Who was asked.
        carrier: PeerId,
    },
}

fn altered(carrier: &PeerId, flaw: &SealFlaw) -> String {
    match flaw {
        // Nobody has to be dishonest for that: a peer whose old id is still in use, and whose statement has expired.
        SealFlaw::OtherOwner { owner, found } => format!(
            "{carrier} brought the sealing key of {found}, which does not prove that it was {owner} before: \
             give the present id of the recipient, or another carrier"
        ),
        flaw => format!(
            "what {carrier} brought is not what was asked for ({flaw}): use another carrier"
        ),
    }
}

fn not_brought(carrier: &PeerId, status: Status, reason: &str) -> String {
    let short = carrier.short();
    let what = match status {
        Status::NotAllowed => "does not carry for us; ask who runs it to allow our id".into(),
        Status::Full => "has no room for more; try later".into(),
        Status::Quota => "carries no more for one peer; try later".into(),
        Status::NotRegistered => {
            "has no session with anybody of that id; is the peer running, and connected there?"
                .into()
        }
        Status::Refused => "says that the recipient refused".into(),
        Status::Unreachable => {
            "says that the recipient does not answer; it may have got the request".into()
        }
        Status::Loop => "would bring it back to where it came from; give another carrier".into(),
        Status::Malformed | Status::Done => "did not understand us; is it of our version?".into(),
        Status::Other(number) => format!("answers with status {number}"),
    };
    let words = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    format!("the carrier {short}… {what}{words}")
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
        say(node, at, session, DELIVER, &Deliver::new(content)).await
    } else {
        say(node, at, session, CARRY, &Carry::new(to, content)).await
    }
}

async fn say(
    node: &Node,
    at: &PeerAddr,
    session: Session,
    service: &str,
    message: &impl Message,
) -> Result<Vec<u8>, SealedError> {
    let carrier = at.peer();
    let mut opened = session.open(service).await;
    if let Err(OpenError::DialInstead { .. }) = opened {
        // The carrier had dialled that session itself.
        opened = node.own_session(at).await?.open(service).await;
    }
    let mut stream = opened.map_err(|error| SealedError::NoCarrier { carrier, error })?;
    let exchanged = timeout(PATIENCE, async {
        send(&mut stream, message).await?;
        receive::<Brought>(&mut stream).await
    });
    let brought = match exchanged.await {
        Ok(Ok(brought)) => brought,
        Ok(Err(error)) => {
            let detail = fault(&error).unwrap_or_else(|| error.to_string());
            return Err(SealedError::Protocol { carrier, detail });
        }
        Err(_) => return Err(SealedError::TimedOut { carrier }),
    };
    let not_brought = |(status, reason)| SealedError::NotBrought {
        carrier,
        status,
        reason,
    };
    brought.result().map_err(not_brought)
}
