//! The node's side: being registered at a relay, reaching a peer through one, and taking what one brings.

use std::time::Duration;

use cepa_transports::{Remote, Stream};
use tokio::time::timeout;

use crate::identity::PeerId;
use crate::mux::Substream;
use crate::onion::Onion;
use crate::session::{Incoming, OpenError, Session};

use super::error::RelayError;
use crate::wire::{Message, Status, fault, receive, send};

use super::message::{
    Answer, CIRCUIT, Circuit, DIAL, ForPeer, HOLDS, Held, Holds, MEMBER, REGISTER, Register,
    TAKEN_BACK,
};
use super::stream::{CircuitStream, reset_code};

/// Time for a relay to answer; the peer behind it may have to be asked first.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a peer opens this service to bring us a circuit.
#[must_use]
pub fn is_circuit(service: &str) -> bool {
    service == CIRCUIT
}

/// A registration. It lasts as long as its relay said, and is taken back when this is dropped.
#[derive(Debug)]
pub struct Registration {
    stream: Onion<Substream>,
    relay: PeerId,
    lifetime: Duration,
}

impl Registration {
    /// Registers at the other end of a session.
    ///
    /// # Errors
    /// The relay's refusal, or what went wrong on the way to it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn at(session: &Session, wanted: Duration) -> Result<Self, RelayError> {
        Self::hearing(session, wanted, |_| {}).await
    }

    /// The same; `heard` gets the relay's answer, whatever it is.
    pub(super) async fn hearing(
        session: &Session,
        wanted: Duration,
        heard: impl FnOnce(&Answer),
    ) -> Result<Self, RelayError> {
        let stream = open(session, REGISTER).await?;
        let mut registration = Self {
            stream,
            relay: session.peer().id(),
            lifetime: Duration::ZERO,
        };
        registration.renew_hearing(session, wanted, heard).await?;
        Ok(registration)
    }

    /// Asks for so much time from now on.
    ///
    /// # Errors
    /// As [`at`](Self::at); the registration is then over.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the registration as well.
    pub async fn renew(&mut self, session: &Session, wanted: Duration) -> Result<(), RelayError> {
        self.renew_hearing(session, wanted, |_| {}).await
    }

    /// The same; `heard` gets the relay's answer, whatever it is.
    pub(super) async fn renew_hearing(
        &mut self,
        session: &Session,
        wanted: Duration,
        heard: impl FnOnce(&Answer),
    ) -> Result<(), RelayError> {
        let wanted = u32::try_from(wanted.as_secs()).unwrap_or(u32::MAX);
        let request = Register::new(wanted);
        let answer: Answer = exchange(session, &mut self.stream, &request).await?;
        heard(&answer);
        if let Some(refused) = refusal(session, &answer) {
            return Err(refused);
        }
        let seconds = answer.lifetime.unwrap_or(0).max(1);
        self.lifetime = Duration::from_secs(seconds.into());
        Ok(())
    }

    /// Waits until the relay ends it, and gives why in one line. `taken_over` hears when another process with this node's key is
    /// registered as well: it gets the circuits from then on. A relay does that when another instance of this node is registered
    /// in its place, or when it is full and others have less. The session may go on.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing, unless a message was read in part: the registration ends at its next use then.
    pub async fn ended(&mut self, mut taken_over: impl FnMut()) -> String {
        let heard = |answer: &Answer| {
            if answer.is_taken_over() {
                taken_over();
            }
            true
        };
        self.ended_hearing(heard).await
    }

    /// The same; `heard` gets what the relay says unasked, and says whether to go on.
    pub(super) async fn ended_hearing(&mut self, mut heard: impl FnMut(&Answer) -> bool) -> String {
        loop {
            let error = match receive::<Answer>(&mut self.stream).await {
                Ok(answer) if answer.status() == Status::Done && !heard(&answer) => {
                    return "the relay is about to end".into();
                }
                Ok(answer) if answer.status() == Status::Done => continue,
                Ok(_) => {
                    return "the relay says something that nobody asked for: is it of our version?"
                        .into();
                }
                Err(error) => error,
            };
            return match reset_code(&error) {
                Some(TAKEN_BACK) => {
                    "the relay has taken the registration back, for a peer that had none, or for another instance of this one"
                        .into()
                }
                _ => "the relay has ended the registration".into(),
            };
        }
    }

    /// How long it lasts from the moment it was made or renewed.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Who the relay is.
    pub fn relay(&self) -> PeerId {
        self.relay
    }
}

/// A stream to a peer that is registered at the other end of a session.
///
/// What it carries is the relay's to read and to change: put TLS on it before anything else.
///
/// # Errors
/// The refusal of the relay or of the peer, or what went wrong on the way.
///
/// # Cancel safety
/// Dropping the future gives the circuit up.
pub async fn dial(session: &Session, target: PeerId) -> Result<Stream, RelayError> {
    dial_hearing(session, target, |_| {}).await
}

/// The same; `heard` gets the relay's answer, whatever it is.
pub(super) async fn dial_hearing(
    session: &Session,
    target: PeerId,
    heard: impl FnOnce(&Answer),
) -> Result<Stream, RelayError> {
    let mut stream = open(session, DIAL).await?;
    let answer = exchange(session, &mut stream, &Circuit::new(target)).await?;
    heard(&answer);
    if let Some(refused) = refusal(session, &answer) {
        return Err(refused);
    }
    let label = format!(
        "relay {} to {}",
        session.peer().id().short(),
        target.short()
    );
    Ok(carried(stream, label, session.peer().id(), target))
}

/// A substream to a peer that is registered at the other end of a session, another member of this relay's fleet, for somebody who has asked
/// here.
pub(super) async fn across(
    session: &Session,
    request: &ForPeer,
) -> Result<Onion<Substream>, RelayError> {
    let mut stream = open(session, MEMBER).await?;
    let answer = exchange(session, &mut stream, request).await?;
    refusal(session, &answer).map_or(Ok(stream), Err)
}

/// How many registrations a peer has at the other end of a session, another member of this relay's fleet, as that says.
pub(super) async fn holds(session: &Session, request: &Holds) -> Result<usize, RelayError> {
    let mut stream = open(session, HOLDS).await?;
    let held: Held = exchange(session, &mut stream, request).await?;
    Ok(usize::try_from(held.count).unwrap_or(usize::MAX))
}

/// Takes a circuit that a relay brings: the stream, and from whom the relay says that it is. Only a TLS
/// handshake on the stream proves that.
///
/// # Errors
/// One line, where the relay does not speak as it should. It has been told.
///
/// # Cancel safety
/// Dropping the future refuses the circuit.
pub async fn take(incoming: Incoming) -> Result<(Stream, PeerId), String> {
    let relay = incoming.peer().id();
    let mut stream = incoming.accept().await.map_err(|e| e.to_string())?;
    let circuit = match timeout(PATIENCE, receive::<Circuit>(&mut stream)).await {
        Ok(Ok(circuit)) => circuit,
        Ok(Err(error)) => {
            let reason = fault(&error).map(|fault| fault.to_string());
            let said = reason.as_deref().unwrap_or_default();
            let _ = send(&mut stream, &Answer::refused(Status::Malformed, said)).await;
            return Err(reason.unwrap_or_else(|| error.to_string()));
        }
        Err(_) => return Err("nothing came".into()),
    };
    send(&mut stream, &Answer::done(None))
        .await
        .map_err(|e| e.to_string())?;
    let from = circuit.target();
    let label = format!("relay {} from {}", relay.short(), from.short());
    Ok((carried(stream, label, relay, from), from))
}

/// The first request leaves with the opening, and [`exchange`] hears of a refusal.
pub(super) async fn open(session: &Session, service: &str) -> Result<Onion<Substream>, RelayError> {
    let opened = session.open_early(service).await;
    opened.map_err(|error| no_relay(session, error))
}

fn no_relay(session: &Session, source: OpenError) -> RelayError {
    let relay = session.peer().id();
    RelayError::NoRelay { relay, source }
}

/// The refusal in an answer, if it is one.
fn refusal(session: &Session, answer: &Answer) -> Option<RelayError> {
    match answer.status() {
        Status::Done => None,
        status => Some(RelayError::Refused {
            relay: session.peer().id(),
            status,
            reason: answer.reason(),
        }),
    }
}

/// Says something to a relay, and reads its answer.
pub(super) async fn exchange<M: Message>(
    session: &Session,
    stream: &mut Onion<Substream>,
    request: &impl Message,
) -> Result<M, RelayError> {
    let relay = session.peer().id();
    // What stands in the way of the request stands in the way of its answer, too.
    let sent = timeout(PATIENCE, send(stream, request)).await;
    if sent.is_err() {
        return Err(RelayError::TimedOut { relay });
    }
    stream.accepted().await.map_err(|e| no_relay(session, e))?;
    match timeout(PATIENCE, receive::<M>(stream)).await {
        Err(_) => Err(RelayError::TimedOut { relay }),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            if let Some(fault) = fault(&error) {
                return Err(RelayError::Protocol { relay, fault });
            }
            // The session tells why, at once or a moment later, if it is not the substream alone.
            Err(
                match timeout(Duration::from_secs(1), session.closed()).await {
                    Ok(end) => RelayError::Lost { relay, end },
                    Err(_) => RelayError::NoAnswer {
                        relay,
                        source: error.into(),
                    },
                },
            )
        }
    }
}

fn carried(stream: Onion<Substream>, label: String, relay: PeerId, says: PeerId) -> Stream {
    let stream = CircuitStream::new(stream, relay);
    Stream::from_io(stream, label).with_remote(Remote::Circuit {
        relay: *relay.as_bytes(),
        says: *says.as_bytes(),
    })
}
