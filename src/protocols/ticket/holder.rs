//! The side of whoever has a ticket.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::identity::PeerId;
use crate::session::{OpenError, Session, reserved};
use crate::wire::{MessageError, fault, receive, send};

use super::text::Ticket;
use super::wire::{Shown, TicketRefusal, Verdict};

/// Time for the owner to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a ticket opened nothing. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The session is with somebody else than who made the ticket.
    #[error(
        "the session is with {found}, but the ticket is from {expected}: pin the id in the ticket"
    )]
    WrongPeer {
        /// Who made it.
        expected: PeerId,
        /// Who is there.
        found: PeerId,
    },
    /// Its maker does not take tickets (any more), or the session was lost.
    #[error("the peer shares nothing by this ticket (any more): ask for another one ({0})")]
    Open(#[source] OpenError),
    /// Its maker has judged it.
    #[error("{0}")]
    Refused(#[from] TicketRefusal),
    /// What answered has not made the ticket, or speaks another language.
    #[error("the peer gave no valid answer to the ticket{}: do both ends run the same version?", because(.0.as_ref()))]
    Protocol(Option<MessageError>),
    /// No answer in time.
    #[error("the peer did not answer in time: try again later")]
    TimedOut,
    /// The substream broke.
    #[error("the connection was lost while the ticket was shown: {0}")]
    Io(#[from] io::Error),
}

impl TicketError {
    /// Whether the same ticket may work later, with nothing changed anywhere.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Open(error) => error.is_transient(),
            Self::TimedOut | Self::Io(_) => true,
            Self::Refused(why) => matches!(why, TicketRefusal::TooManyTries { .. }),
            Self::WrongPeer { .. } | Self::Protocol(_) => false,
        }
    }
}

impl From<TicketError> for io::Error {
    fn from(error: TicketError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            TicketError::WrongPeer { .. } | TicketError::Refused(_) => Kind::PermissionDenied,
            TicketError::Open(error) => io::Error::from(error.clone()).kind(),
            TicketError::Protocol(_) => Kind::InvalidData,
            TicketError::TimedOut => Kind::TimedOut,
            TicketError::Io(error) => error.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// In brackets, if there is one.
fn because(fault: Option<&MessageError>) -> String {
    fault.map_or_else(String::new, |fault| format!(" ({fault})"))
}

/// Shows a ticket to who made it: from then on the session may open the services whose names this gives.
///
/// # Errors
/// [`TicketRefusal::Own`] where it is our own ticket, [`TicketError::WrongPeer`] where the session is with somebody
/// else than its maker; else what its maker made of it, or the session's failure.
///
/// # Cancel safety
/// Dropping the future may leave the ticket used or not.
pub async fn show(session: &Session, ticket: &Ticket) -> Result<Vec<String>, TicketError> {
    let peer = session.peer();
    let me = peer.local_id();
    if me == ticket.peer() {
        return Err(TicketRefusal::Own.into());
    }
    if !peer.is(&ticket.peer()) {
        return Err(TicketError::WrongPeer {
            expected: ticket.peer(),
            found: peer.id(),
        });
    }
    let opened = session.open(reserved::TICKET).await;
    let mut stream = opened.map_err(TicketError::Open)?;
    let exporter = session.tls_exporter();
    let shown = Shown::new(ticket.secret.joiner_proof(exporter, me));
    let asked = timeout(PATIENCE, async {
        send(&mut stream, &shown).await?;
        receive::<Verdict>(&mut stream).await
    });
    let verdict = match asked.await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => {
            return Err(match fault(&error) {
                Some(fault) => TicketError::Protocol(Some(fault)),
                None => TicketError::Io(error),
            });
        }
        Err(_) => return Err(TicketError::TimedOut),
    };
    let (answer, services) = verdict.result()?;
    if !ticket.secret.is_answer(&answer, exporter, me) {
        return Err(TicketError::Protocol(None));
    }
    let _ = stream.shutdown().await;
    Ok(services)
}
