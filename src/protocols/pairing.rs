//! Using an invitation, over a session: the joiner opens the service `cepa.pair` and shows its proof of
//! 32 bytes; the inviter lets it in with an answer of 32 bytes, or refuses with a reason.
//!
//! The session has authenticated both keys before. For the joiner the inviter's key is the one that
//! the code carries, so it has pinned it; the inviter knows the joiner's key from here on, since the
//! proof is about both keys and this very session. See [`Invitation`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::mux::Substream;
use crate::node::{Admission, Call, Node, Protocol, ProtocolError, ProtocolEvent};

use crate::onion::Onion;

use crate::identity::{Invitation, NotAdmitted, OpenInvitation, PeerId, UnixTime};
use crate::session::{AcceptError, Incoming, OpenError, Session, reserved};

/// The service that a joiner opens.
pub const PAIRING_SERVICE: &str = reserved::PAIR;

/// How long a joiner has for its proof, which is there before anybody is asked: as long as a handshake.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it has to take the answer. It is let in by then.
const LINGER: Duration = Duration::from_secs(5);

/// What became of somebody who came for an invitation.
#[derive(Debug)]
#[non_exhaustive]
pub enum PairingEvent {
    /// It was let in; the invitation is used up.
    Joined {
        /// Who.
        peer: PeerId,
    },
    /// It was not.
    Refused {
        /// Who.
        peer: PeerId,
        /// Why.
        error: PairingError,
    },
}

impl ProtocolEvent for PairingEvent {
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Joined { peer } | Self::Refused { peer, .. } => Some(*peer),
        }
    }
}

impl fmt::Display for PairingEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { peer } => write!(f, "{peer} has joined"),
            Self::Refused { peer, error } => write!(f, "{peer} did not join: {error}"),
        }
    }
}

/// Lets a node admit whoever has an invitation, on any of its listeners; what becomes of it are [`PairingEvent`]s, and who has
/// joined can be waited for, since an event may be missed. The node's trust has to let strangers in. `now` is the clock that the invitation's end goes by.
///
/// # Errors
/// The node does so already.
pub fn invite(
    node: &Node,
    invitation: OpenInvitation,
    now: fn() -> UnixTime,
) -> Result<Joining, ProtocolError> {
    Ok(Invitations::on(node, now)?.open(invitation))
}

/// The invitations of a node, one open at a time. Clones are the same.
#[derive(Clone)]
pub struct Invitations(Arc<Inviter>);

impl Invitations {
    /// Lets a node invite, as [`invite`] does; nobody is invited yet.
    ///
    /// # Errors
    /// The node does so already.
    pub fn on(node: &Node, now: fn() -> UnixTime) -> Result<Self, ProtocolError> {
        let inviter = Arc::new(Inviter {
            node: node.handle(),
            now,
            current: Mutex::new(None),
        });
        node.add_protocol(Arc::new(Serves(Arc::clone(&inviter))))?;
        Ok(Self(inviter))
    }

    /// Admits whoever has this invitation, in the place of one that was open before: who waits for that one is told so.
    #[must_use]
    pub fn open(&self, invitation: OpenInvitation) -> Joining {
        let (sender, joined) = oneshot::channel();
        let current = Current {
            open: Arc::new(Mutex::new(invitation)),
            sender: Some(sender),
        };
        *self.0.current() = Some(current);
        Joining(joined)
    }

    /// Admits nobody any more, until another one is opened.
    pub fn close(&self) {
        *self.0.current() = None;
    }
}

impl fmt::Debug for Invitations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitations")
            .field("node", &self.0.node.id())
            .finish_non_exhaustive()
    }
}

/// Waits for who joins; the invitation is open without it.
#[derive(Debug)]
pub struct Joining(oneshot::Receiver<PeerId>);

impl Joining {
    /// Who has joined; `None` once the node is gone, or the invitation is closed or replaced.
    ///
    /// # Cancel safety
    /// Dropping the future gives the waiting up, and nothing else.
    pub async fn joined(self) -> Option<PeerId> {
        self.0.await.ok()
    }
}

struct Inviter {
    node: Node,
    now: fn() -> UnixTime,
    current: Mutex<Option<Current>>,
}

/// The invitation that is open.
struct Current {
    open: Arc<Mutex<OpenInvitation>>,
    /// For who waits. One joins, so it is told once.
    sender: Option<oneshot::Sender<PeerId>>,
}

impl Inviter {
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        // Each change is whole after the one statement that makes it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, joined: &Arc<Mutex<OpenInvitation>>, peer: PeerId) {
        let mut current = self.current();
        let its = current.as_mut().filter(|it| Arc::ptr_eq(&it.open, joined));
        // Nobody waiting is nobody's error.
        let sender = its.and_then(|it| it.sender.take());
        let _ = sender.map(|sender| sender.send(peer));
    }
}

/// What a peer reads where nobody is invited.
const NOBODY: &str = "nobody is invited at the moment: ask for another invitation";

/// The protocol.
struct Serves(Arc<Inviter>);

impl Protocol for Serves {
    fn names(&self) -> &[&'static str] {
        &[PAIRING_SERVICE]
    }

    // Who joins proves to have the code.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    // Until it has proven something, a stranger's session gives way to others.
    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (incoming, context) = call.into_parts();
            let inviter = &self.0;
            let (node, session) = (&inviter.node, context.session());
            let peer = session.peer().id();
            let open = inviter.current().as_ref().map(|it| Arc::clone(&it.open));
            let Some(open) = open else {
                let _ = incoming.refuse(NOBODY).await;
                return;
            };
            match judge(session, incoming, &open, inviter.now).await {
                Ok((stream, answer)) => {
                    let _kept = context.keep_session();
                    // Told before the answer is: whatever becomes of that, the invitation is used up.
                    inviter.notify(&open, peer);
                    node.emit(PairingEvent::Joined { peer });
                    give(stream, answer).await;
                }
                Err(error) => node.emit(PairingEvent::Refused { peer, error }),
            }
        })
    }
}

/// Why two did not come together. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairingError {
    /// The session is with somebody else than who made the invitation.
    #[error(
        "the session is with {found}, but the invitation is from {expected}: pin the id in the invitation"
    )]
    WrongPeer {
        /// Who made it.
        expected: PeerId,
        /// Who is there.
        found: PeerId,
    },
    /// The inviter did not let us in, for its own reason.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The one who asks is not let in.
    #[error("{0}")]
    NotAdmitted(#[from] NotAdmitted),
    /// The inviter closed the substream in place of an answer, or answered something else.
    #[error(
        "the inviter did not accept the invitation: copy the whole code, or ask for another one if it was used or has expired"
    )]
    NoAnswer,
    /// The one who asks has shown no proof in time.
    #[error("no proof came in {} s: the same code may be used again", PATIENCE.as_secs())]
    TimedOut,
    /// The substream broke.
    #[error("the substream was lost: {0}")]
    Io(#[from] std::io::Error),
    /// The substream could not be accepted.
    #[error("{0}")]
    Accept(#[from] AcceptError),
}

impl PairingError {
    /// Whether the same code may work with another attempt, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Open(error) => error.is_transient(),
            Self::Accept(error) => error.is_transient(),
            Self::TimedOut | Self::Io(_) => true,
            Self::WrongPeer { .. } | Self::NotAdmitted(_) | Self::NoAnswer => false,
        }
    }
}

impl From<PairingError> for std::io::Error {
    fn from(error: PairingError) -> Self {
        use std::io::{Error, ErrorKind as Kind};
        let kind = match &error {
            PairingError::WrongPeer { .. } | PairingError::NotAdmitted(_) => Kind::PermissionDenied,
            PairingError::NoAnswer => Kind::ConnectionRefused,
            PairingError::Open(error) => Error::from(error.clone()).kind(),
            PairingError::Accept(error) => Error::from(error.clone()).kind(),
            PairingError::TimedOut => Kind::TimedOut,
            PairingError::Io(error) => error.kind(),
        };
        Error::new(kind, error)
    }
}

/// Uses an invitation; returns when the inviter has let us in.
///
/// # Errors
/// [`NotAdmitted::Own`] where it is our own invitation, [`PairingError::WrongPeer`] where the session is with somebody
/// else than its maker, by whatever key the maker has now; else what the inviter made of it, or the session's failure.
///
/// # Cancel safety
/// Dropping the future may leave the invitation used or not.
pub async fn join(session: &Session, invitation: &Invitation) -> Result<(), PairingError> {
    let peer = session.peer();
    if peer.local_id() == invitation.id() {
        return Err(NotAdmitted::Own.into());
    }
    if !peer.is(&invitation.id()) {
        return Err(PairingError::WrongPeer {
            expected: invitation.id(),
            found: peer.id(),
        });
    }
    let mut stream = session.open(PAIRING_SERVICE).await?;
    let (exporter, me) = (session.tls_exporter(), peer.local_id());
    stream
        .write_all(&invitation.joiner_proof(exporter, me))
        .await?;
    stream.flush().await?;
    let mut answer = [0; 32];
    if stream.read_exact(&mut answer).await.is_err() || !invitation.is_answer(&answer, exporter, me)
    {
        return Err(PairingError::NoAnswer);
    }
    let _ = stream.shutdown().await;
    Ok(())
}

/// Lets the other end of a session in, if it shows a proof; gives its id, also where it is gone before it has the answer.
///
/// The substream is for [`PAIRING_SERVICE`]; any other one is the caller's to refuse. The proof has 30 s to come as a whole, and
/// the answer 5 s to be read.
///
/// # Errors
/// [`PairingError::NotAdmitted`] with the reason, which the peer reads too where it is [`NotAdmitted::Own`], or
/// [`NotAdmitted::TooManyTries`] before its proof was looked at; [`PairingError::TimedOut`]. Else the substream's failure.
///
/// # Cancel safety
/// Dropping the future may leave the invitation used or not; [`OpenInvitation::admit`] is called once.
pub async fn admit(
    session: &Session,
    incoming: Incoming,
    open: &Mutex<OpenInvitation>,
    now: impl Fn() -> UnixTime,
) -> Result<PeerId, PairingError> {
    let (stream, answer) = judge(session, incoming, open, now).await?;
    give(stream, answer).await;
    Ok(session.peer().id())
}

/// Looks at a proof, and admits who shows a right one; gives the substream and the answer for it.
async fn judge(
    session: &Session,
    incoming: Incoming,
    open: &Mutex<OpenInvitation>,
    now: impl Fn() -> UnixTime,
) -> Result<(Onion<Substream>, [u8; 32]), PairingError> {
    let joiner = session.peer().id();
    let inviter = lock(open).invitation().id();
    // Whoever made it and has replaced the key since, too.
    if session.peer().is(&inviter) {
        let _ = incoming.refuse(&NotAdmitted::Own.to_string()).await;
        return Err(NotAdmitted::Own.into());
    }
    let moment = now();
    let may_try = lock(open).may_try(joiner, moment);
    if let Err(wait) = may_try {
        let _ = incoming.refuse(&wait.to_string()).await;
        return Err(wait.into());
    }
    let shown = timeout(PATIENCE, async {
        let mut stream = incoming.accept().await?;
        let mut proof = [0; 32];
        stream.read_exact(&mut proof).await?;
        Ok::<_, PairingError>((stream, proof))
    });
    let (stream, proof) = shown.await.map_err(|_| PairingError::TimedOut)??;
    let moment = now();
    let answer = lock(open).admit(&proof, session.tls_exporter(), joiner, moment)?;
    Ok((stream, answer))
}

/// Gives the answer. Whoever does not take it has been let in all the same.
async fn give(mut stream: Onion<Substream>, answer: [u8; 32]) {
    let given = timeout(LINGER, async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Until the joiner has read it and says so by its own end, or is gone.
        stream.read(&mut [0]).await
    });
    let _ = given.await;
}

fn lock(open: &Mutex<OpenInvitation>) -> MutexGuard<'_, OpenInvitation> {
    // Whoever panicked while it held this has let nobody in.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
