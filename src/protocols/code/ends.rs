//! The two ends of a short code: who offers something, and who fetches it. Both have a session with the same relay.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::identity::{IdentityError, PeerId};
use crate::mux::Substream;
use crate::onion::Onion;
use crate::session::{OpenError, Session, reserved};
use crate::wire::{Message, MessageError, fault, linger_close, receive, send};

use super::pake::{Role, begin};
use super::text::{MAX_NAMEPLATE, ShortCode};
use super::wire::{Ask, CodeRefusal, Passed, Wanted};

/// Most bytes that a code can stand for: one message, with what is around them.
pub const MAX_OFFERED: usize = 3584;

/// Time for the relay, and the other end behind it, to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time for the other end to take what was given.
const LINGER: Duration = Duration::from_secs(5);

/// Why nothing came of a code. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// The relay has no short codes, or not for us; or the session with it was lost.
    #[error("the relay takes no short code from here: {0}")]
    Open(#[source] OpenError),
    /// In the words of the relay, or of the other end.
    #[error("{0}")]
    Refused(#[from] CodeRefusal),
    /// What came makes no sense.
    #[error("what came from the relay makes no sense{}: do all ends run the same version?", because(.0.as_ref()))]
    Protocol(Option<MessageError>),
    /// More than [`MAX_OFFERED`] bytes.
    #[error("{0} bytes are too long for a short code, at most {MAX_OFFERED} are allowed")]
    TooLong(usize),
    /// No random numbers.
    #[error("{0}")]
    Random(#[from] IdentityError),
    /// No answer in time.
    #[error("the relay did not answer in time: try again later")]
    TimedOut,
    /// The substream broke.
    #[error("the connection to the relay was lost, and the code with it: {0}")]
    Io(io::Error),
}

impl From<io::Error> for CodeError {
    fn from(error: io::Error) -> Self {
        match fault(&error) {
            Some(fault) => Self::Protocol(Some(fault)),
            None => Self::Io(error),
        }
    }
}

/// In brackets, if there is one.
fn because(fault: Option<&MessageError>) -> String {
    fault.map_or_else(String::new, |fault| format!(" ({fault})"))
}

/// Something that waits at a relay for who has the code. Dropped, the code is of no use any more.
#[derive(Debug)]
pub struct Offer {
    stream: Onion<Substream>,
    relay: PeerId,
    code: ShortCode,
    lifetime: Duration,
}

impl Offer {
    /// Asks the relay at the other end of a session for a nameplate that lasts so long, and makes a code of it.
    ///
    /// # Errors
    /// The relay's refusal, or what went wrong on the way to it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn at(session: &Session, lifetime: Duration) -> Result<Self, CodeError> {
        let opened = session.open(reserved::CODE_OFFER).await;
        let mut stream = opened.map_err(CodeError::Open)?;
        let answer = asked(&mut stream, &Wanted::new(lifetime)).await?;
        let (nameplate, lifetime) = (answer.nameplate, answer.time());
        answer.result()?;
        let nameplate = nameplate.filter(|it| (1..=MAX_NAMEPLATE).contains(it));
        Ok(Self {
            stream,
            relay: session.peer().id(),
            code: ShortCode::new(nameplate.ok_or(CodeError::Protocol(None))?)?,
            lifetime,
        })
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &ShortCode {
        &self.code
    }

    /// How long it lasts from the moment it was made.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Waits for who comes with the code, and gives that peer this. Whatever becomes of it, the code is used up.
    ///
    /// # Errors
    /// [`CodeRefusal::Wrong`] where somebody came with a wrong one, [`CodeRefusal::Expired`] where nobody came, another
    /// [`CodeRefusal`] of the relay; else the session's failure.
    ///
    /// # Cancel safety
    /// Dropping the future ends the offer.
    pub async fn give(mut self, given: &[u8]) -> Result<(), CodeError> {
        if given.len() > MAX_OFFERED {
            return Err(CodeError::TooLong(given.len()));
        }
        let stream = &mut self.stream;
        let theirs = receive::<Passed>(stream).await?.result()?;
        let (begun, ours) = begin(Role::Offerer, &self.code, self.relay);
        // Nothing that is no message of the exchange is worth an answer of another kind: it is a wrong guess.
        let Ok(key) = begun.finish(&theirs) else {
            return Err(refuse(stream).await);
        };
        let proof = asked(stream, &Passed::body(ours)).await?.result()?;
        if key.check(&proof).is_err() {
            return Err(refuse(stream).await);
        }
        let sealed = key.seal(given).map_err(|_| CodeError::Protocol(None))?;
        let sealed = Passed::body(sealed);
        let sent = timeout(PATIENCE, send(stream, &sealed));
        sent.await.map_err(|_| CodeError::TimedOut)??;
        linger_close(stream, LINGER).await;
        Ok(())
    }
}

/// Says that the code was wrong.
async fn refuse(stream: &mut Onion<Substream>) -> CodeError {
    let wrong = Passed::refused(CodeRefusal::Wrong);
    if let Ok(Ok(())) = timeout(PATIENCE, send(stream, &wrong)).await {
        linger_close(stream, LINGER).await;
    }
    CodeRefusal::Wrong.into()
}

/// Fetches what is offered by a code, at the relay at the other end of a session. Whatever becomes of it, the code is used up, if there is
/// one of its nameplate.
///
/// # Errors
/// [`CodeRefusal`] where there is no such code (any more) or it is wrong; else what went wrong on the way.
///
/// # Cancel safety
/// Dropping the future may leave the code used or not.
pub async fn fetch(session: &Session, code: &ShortCode) -> Result<Zeroizing<Vec<u8>>, CodeError> {
    let opened = session.open(reserved::CODE_USE).await;
    let mut stream = opened.map_err(CodeError::Open)?;
    let (begun, ours) = begin(Role::Fetcher, code, session.peer().id());
    let theirs = asked(&mut stream, &Ask::new(code.nameplate(), ours)).await?;
    let wrong = |_| CodeError::Refused(CodeRefusal::Wrong);
    let key = begun.finish(&theirs.result()?).map_err(wrong)?;
    let proof = key.proof().map_err(|_| CodeError::Protocol(None))?;
    let sealed = asked(&mut stream, &Passed::body(proof)).await?;
    let given = key.open(&sealed.result()?).map_err(wrong)?;
    let _ = stream.shutdown().await;
    Ok(given)
}

async fn asked(stream: &mut Onion<Substream>, message: &impl Message) -> Result<Passed, CodeError> {
    let asked = timeout(PATIENCE, async {
        send(stream, message).await?;
        receive::<Passed>(stream).await
    });
    Ok(asked.await.map_err(|_| CodeError::TimedOut)??)
}
