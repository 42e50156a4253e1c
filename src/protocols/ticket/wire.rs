//! What is said about tickets on a substream: the codec, without IO.
//!
//! The form is that of the relay's messages: two bytes of length, then CBOR. docs/PROTOCOL.md has the table.

use std::time::Duration;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::session::ServiceName;
use crate::wire::{VERSION, message};

/// Most services of one ticket.
pub const MAX_SERVICES: usize = 16;

/// Who has a ticket, to the peer that has made it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Shown {
    #[n(0)]
    version: u8,
    #[n(1)]
    pub(super) proof: ByteArray<32>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Verdict {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// The owner's proof.
    #[n(2)]
    pub(super) answer: Option<ByteArray<32>>,
    /// The services, by their names.
    #[n(3)]
    pub(super) services: Option<Vec<String>>,
    /// Seconds to wait before the next attempt.
    #[n(4)]
    wait: Option<u32>,
}

// Room for the longest names of all services.
message!(Shown, Verdict: 8 * 1024);

/// Why a ticket is of no use. Each text is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketRefusal {
    /// The proof is not that of the secret which the peer has now.
    #[error("the ticket is not valid any more, or not complete: ask for another one")]
    Wrong,
    /// Its time is over.
    #[error("the ticket has expired: ask for another one")]
    Expired,
    /// Another peer was the first.
    #[error(
        "another peer has used this ticket first: if that was not you, tell whoever gave it to you, and ask for another one"
    )]
    Taken,
    /// It was used as often as it may be.
    #[error("the ticket has been used up: ask for another one")]
    UsedUp,
    /// Too many wrong proofs by this peer. The proof was not looked at.
    #[error("the ticket was wrong too often: try again in {} s", wait.as_secs())]
    TooManyTries {
        /// How long to wait.
        wait: Duration,
    },
    /// It was made by the one who wants to use it.
    #[error("this ticket is your own: give it to somebody else")]
    Own,
    /// The session has not shown it.
    #[error("the session has not shown its ticket: connect with the ticket")]
    NotShown,
    /// A reason that is not known here.
    #[error("the ticket was refused with status {0}: are both ends of the same version?")]
    Other(u32),
}

impl TicketRefusal {
    /// For who has made the ticket: the other text is for who has it.
    pub(super) fn to_owner(self) -> String {
        let text = match self {
            Self::Wrong => {
                "what it showed is no ticket of this share; perhaps one of an earlier share"
            }
            Self::Expired => "the ticket has expired",
            Self::Taken => {
                "another peer has used this ticket first; if that was the wrong one, end this and share again"
            }
            Self::UsedUp => "the ticket has been used up",
            Self::TooManyTries { wait } => {
                return format!(
                    "it showed a wrong one too often, and is not heard for {} s",
                    wait.as_secs()
                );
            }
            Self::Own => "it is this machine's own",
            Self::NotShown => "it has not shown it",
            Self::Other(number) => return format!("status {number}"),
        };
        text.to_owned()
    }

    fn number(self) -> u32 {
        match self {
            Self::Wrong => 1,
            Self::Expired => 2,
            Self::Taken => 3,
            Self::UsedUp => 4,
            Self::TooManyTries { .. } => 5,
            Self::Own => 6,
            Self::NotShown => 7,
            Self::Other(number) => number,
        }
    }
}

impl Shown {
    pub(super) fn new(proof: [u8; 32]) -> Self {
        Self {
            version: VERSION,
            proof: proof.into(),
        }
    }
}

impl Verdict {
    pub(super) fn granted(answer: [u8; 32], services: Vec<String>) -> Self {
        Self {
            version: VERSION,
            status: 0,
            answer: Some(answer.into()),
            services: Some(services),
            wait: None,
        }
    }

    pub(super) fn refused(why: TicketRefusal) -> Self {
        let wait = match why {
            TicketRefusal::TooManyTries { wait } => {
                Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX))
            }
            _ => None,
        };
        Self {
            version: VERSION,
            status: why.number(),
            answer: None,
            services: None,
            wait,
        }
    }

    /// The owner's proof and the services, of which only those stay that can be asked for.
    pub(super) fn result(self) -> Result<([u8; 32], Vec<String>), TicketRefusal> {
        let wait = || Duration::from_secs(self.wait.unwrap_or_default().into());
        Err(match self.status {
            0 => {
                let answer = self.answer.map_or([0; 32], |answer| *answer);
                let mut services = self.services.unwrap_or_default();
                services.truncate(MAX_SERVICES);
                services.retain(|name| ServiceName::unreserved(name).is_ok());
                return Ok((answer, services));
            }
            1 => TicketRefusal::Wrong,
            2 => TicketRefusal::Expired,
            3 => TicketRefusal::Taken,
            4 => TicketRefusal::UsedUp,
            5 => TicketRefusal::TooManyTries { wait: wait() },
            6 => TicketRefusal::Own,
            7 => TicketRefusal::NotShown,
            other => TicketRefusal::Other(other),
        })
    }
}

/// For the fuzz target: what is read is written the same again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::{Message, fuzz_one};

    fuzz_one::<Shown>(bytes);
    fuzz_one::<Verdict>(bytes);
    if let Ok(verdict) = <Verdict as Message>::read(bytes) {
        let _ = verdict.result();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message as _;

    #[test]
    fn the_wire_is_as_documented() {
        let shown = Shown::new([7; 32]).framed();
        assert_eq!(shown[..8], [0, 38, 0xa2, 0, 1, 1, 0x58, 0x20]);
        let yes = Verdict::granted([7; 32], vec!["up".into()]).framed();
        assert_eq!(yes[..10], [0, 45, 0xa4, 0, 1, 1, 0, 2, 0x58, 0x20]);
        assert_eq!(yes[42..], [3, 0x81, 0x62, b'u', b'p']);
        let no = Verdict::refused(TicketRefusal::Taken).framed();
        assert_eq!(no, [0, 5, 0xa2, 0, 1, 1, 3]);
    }

    #[test]
    fn every_refusal_arrives_as_what_it_was() {
        for why in [
            TicketRefusal::Wrong,
            TicketRefusal::Expired,
            TicketRefusal::Taken,
            TicketRefusal::UsedUp,
            TicketRefusal::TooManyTries {
                wait: Duration::from_secs(59),
            },
            TicketRefusal::Own,
            TicketRefusal::NotShown,
            TicketRefusal::Other(99),
        ] {
            let sent = Verdict::refused(why).cbor();
            assert_eq!(Verdict::read(&sent).unwrap().result(), Err(why));
        }
        // What no service can be called is not asked for.
        let names = ["up", "", "cepa.pair", "a\nb"].map(str::to_owned);
        let sent = Verdict::granted([7; 32], names.to_vec()).cbor();
        let got = Verdict::read(&sent).unwrap().result();
        assert_eq!(got, Ok(([7; 32], vec!["up".to_owned()])));
        let longest = vec!["x".repeat(255); MAX_SERVICES];
        let sent = Verdict::granted([7; 32], longest.clone()).cbor();
        assert!(sent.len() <= Verdict::MAX);
        assert_eq!(Verdict::read(&sent).unwrap().result().unwrap().1, longest);
    }
}
