//! The side of whoever was introduced, and of an issuer that takes back.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use crate::identity::{PeerId, UnixTime};
use crate::node::{DialError, Hint, Node, OnSessionError, PeerAddr};
use crate::protocols::fair::{Payer, Rank};
use crate::session::{OpenError, ServiceStream, Session};
use crate::wire::{MessageError, fault, receive, send};

use super::flaw::Flaw;
use super::party::Party;
use super::state::State;
use super::statement::Introduction;
use super::wire::{Present, SERVICE, Verdict, Wish};

/// Time for the owner to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why an introduction did not open its service: which step failed. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntroducedError {
    /// What is wrong can be seen without asking anybody.
    #[error("{0}")]
    Flaw(#[from] Flaw),
    /// The owner of the service is not reached.
    #[error("introduced, but not connected: {0}")]
    Dial(#[from] DialError),
    /// All that it says about where the owner is runs a command or opens a device here.
    #[error(
        "introduced, but not connected: {hint} is not a network address, and an introduction may use no others: ask for one with tcp: or relay: hints, or for the address of {owner}"
    )]
    LocalHints {
        /// Whose service it is.
        owner: PeerId,
        /// The first of them.
        hint: Hint,
    },
    /// The owner is reached and takes no introductions, or the session with it was lost.
    #[error("connected, but {owner} does not accept introductions: {error}")]
    Show {
        /// Whose service it is.
        owner: PeerId,
        /// What it said.
        #[source]
        error: OpenError,
    },
    /// The owner's answer is invalid.
    #[error(
        "connected, but {owner} gave no valid answer to the introduction ({fault}): do both ends run the same version?"
    )]
    Protocol {
        /// Whose service it is.
        owner: PeerId,
        /// What does not fit.
        fault: MessageError,
    },
    /// The owner did not answer in time.
    #[error("connected, but {owner} did not answer in time: try again later")]
    TimedOut {
        /// Whose service it is.
        owner: PeerId,
    },
    /// The session or the substream was lost before the owner had answered.
    #[error("connected, but the connection to {owner} was lost: {source}")]
    Io {
        /// Whose service it is.
        owner: PeerId,
        /// How.
        source: io::Error,
    },
    /// The owner has judged it, and does not admit us.
    #[error("{owner} refused: {flaw}")]
    Refused {
        /// Whose service it is.
        owner: PeerId,
        /// Why.
        #[source]
        flaw: Flaw,
    },
    /// Admitted; but the service itself did not open.
    #[error("the introduction was accepted, but the service did not open: {0}")]
    Open(#[source] OpenError),
}

impl IntroducedError {
    /// Whether the same introduction may work later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_transient(),
            Self::Show { error, .. } | Self::Open(error) => error.is_transient(),
            Self::TimedOut { .. } | Self::Io { .. } => true,
            Self::Flaw(flaw) | Self::Refused { flaw, .. } => matches!(flaw, Flaw::Full),
            Self::LocalHints { .. } | Self::Protocol { .. } => false,
        }
    }
}

impl From<IntroducedError> for io::Error {
    fn from(error: IntroducedError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            IntroducedError::Flaw(Flaw::Malformed(_)) => Kind::InvalidInput,
            IntroducedError::Flaw(_)
            | IntroducedError::Refused { .. }
            | IntroducedError::LocalHints { .. } => Kind::PermissionDenied,
            IntroducedError::Dial(error) => io::Error::from(error.clone()).kind(),
            IntroducedError::Show { error, .. } | IntroducedError::Open(error) => {
                io::Error::from(error.clone()).kind()
            }
            IntroducedError::Protocol { .. } => Kind::InvalidData,
            IntroducedError::TimedOut { .. } => Kind::TimedOut,
            IntroducedError::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// Opens the service of an introduction; what has to be dialled is counted to `payer`, if somebody else wants it.
pub(super) async fn open(
    node: &Node,
    introduction: &Introduction,
    payer: Option<PeerId>,
) -> Result<ServiceStream, IntroducedError> {
    let recipient = introduction.recipient();
    if recipient.is_some_and(|recipient| !Party::own(node.identity()).is(&recipient)) {
        return Err(Flaw::NotYours.into());
    }
    introduction.holds(UnixTime::now())?;
    let (session, stream, service) = show(node, introduction, Wish::Use, payer).await?;
    let opened = session.open_on(stream, &service).await;
    opened.map_err(IntroducedError::Open)
}

/// Takes an introduction back, at the owner of its service.
pub(super) async fn revoke(
    node: &Node,
    state: &State,
    introduction: &Introduction,
) -> Result<(), IntroducedError> {
    let owner = introduction.address().map(PeerAddr::peer);
    // Also by an id that this node had before.
    if owner.is_some_and(|owner| node.is_own(&owner)) {
        introduction.holds(UnixTime::now())?;
        let by = Party::own(node.identity());
        let payer = Payer {
            rank: Rank::Owner,
            account: by.id,
        };
        return Ok(state.revoke(introduction, &by, payer).await?);
    }
    show(node, introduction, Wish::Revoke, None).await.map(drop)
}

async fn show(
    node: &Node,
    introduction: &Introduction,
    wish: Wish,
    payer: Option<PeerId>,
) -> Result<(Session, ServiceStream, String), IntroducedError> {
    let address = introduction.address();
    let address = address.ok_or_else(|| Flaw::Malformed("it has no links".into()))?;
    let owner = address.peer();
    // Somebody else has written the hints: they may open connections, and start no command here.
    let mut way = PeerAddr::new(owner);
    for hint in address.hints().iter().filter(|hint| Hint::is_network(hint)) {
        let longer = way.with_hint(hint.clone());
        way = longer.map_err(|e| Flaw::Malformed(e.to_string()))?;
    }
    let opened = node.open_on_session_for(payer, &way, SERVICE).await;
    let (session, mut stream) = opened.map_err(|error| {
        let local = address.hints().iter().find(|hint| !hint.is_network());
        match (error, local) {
            (
                OnSessionError::Dial(DialError::NoHints { .. } | DialError::Unresolved { .. }),
                Some(hint),
            ) => {
                let hint = hint.clone();
                IntroducedError::LocalHints { owner, hint }
            }
            (OnSessionError::Dial(error), _) => error.into(),
            (OnSessionError::Open(error), _) => IntroducedError::Show { owner, error },
        }
    })?;
    let present = Present::new(wish, introduction.to_bytes());
    let asked = timeout(PATIENCE, async {
        send(&mut stream, &present).await?;
        receive::<Verdict>(&mut stream).await
    });
    let verdict = match asked.await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(source)) => {
            return Err(match fault(&source) {
                Some(fault) => IntroducedError::Protocol { owner, fault },
                None => IntroducedError::Io { owner, source },
            });
        }
        Err(_) => return Err(IntroducedError::TimedOut { owner }),
    };
    match verdict.result() {
        Ok(()) => Ok((session, stream, address.service().to_owned())),
        Err(flaw) => Err(IntroducedError::Refused { owner, flaw }),
    }
}
