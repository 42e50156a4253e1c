//! What is said about short codes at a relay: the codec, without IO.
//!
//! The form is that of the relay's messages: two bytes of length, then CBOR. docs/PROTOCOL.md has the table.

use std::time::Duration;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::wire::{VERSION, message};

/// Who has something to give, to the relay.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(in crate::protocols) struct Wanted {
    #[n(0)]
    version: u8,
    /// Seconds that the nameplate should last; the relay may give less.
    #[n(1)]
    pub(in crate::protocols) lifetime: u32,
}

/// Who has a code, to the relay.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(in crate::protocols) struct Ask {
    #[n(0)]
    version: u8,
    #[n(1)]
    pub(in crate::protocols) nameplate: u32,
    /// For the other end: the first message of the exchange.
    #[n(2)]
    pub(in crate::protocols) body: ByteVec,
}

/// Everything else, to the relay, from it, and through it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(in crate::protocols) struct Passed {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// For the other end.
    #[n(2)]
    body: Option<ByteVec>,
    /// From the relay, to who asked for one.
    #[n(3)]
    pub(in crate::protocols) nameplate: Option<u32>,
    /// Seconds that the nameplate lasts, or to wait before the next attempt.
    #[n(4)]
    seconds: Option<u32>,
}

message!(Wanted, Ask, Passed);

/// Why nothing came of a code. Each text is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeRefusal {
    /// What was said made no sense.
    #[error("the relay did not understand: do both ends run the same version?")]
    Malformed,
    /// No such nameplate.
    #[error(
        "the relay has no such code: compare its number, see that both ends use the same relay, or ask for another code"
    )]
    Unknown,
    /// Somebody has come with it.
    #[error("somebody has used this code already: ask for another one")]
    Used,
    /// Its time is over.
    #[error("the code has expired: ask for another one")]
    Expired,
    /// Whoever offered it has left.
    #[error("whoever made this code has left: ask for another one")]
    Gone,
    /// Too many codes that there are not, from here.
    #[error("too many codes that the relay does not have: try again in {} s", wait.as_secs())]
    TooMany {
        /// How long to wait.
        wait: Duration,
    },
    /// As many nameplates as there may be, in all or of one peer.
    #[error(
        "the relay has no room for another code: try again later, or use the ticket (without --code)"
    )]
    Full,
    /// The two ends have different codes, of the same number. It is used up.
    #[error("the code is wrong, and used up by that: ask for another one")]
    Wrong,
    /// The other end did not go on.
    #[error("the other end did not answer, and the code is used up: ask for another one")]
    Silent,
    /// A reason that is not known here.
    #[error("the code was refused with status {0}: do both ends run the same version?")]
    Other(u32),
}

impl CodeRefusal {
    fn number(self) -> u32 {
        match self {
            Self::Malformed => 1,
            Self::Unknown => 2,
            Self::Used => 3,
            Self::Expired => 4,
            Self::Gone => 5,
            Self::TooMany { .. } => 6,
            Self::Full => 7,
            Self::Wrong => 8,
            Self::Silent => 9,
            Self::Other(number) => number,
        }
    }
}

impl Wanted {
    pub(super) fn new(lifetime: Duration) -> Self {
        let lifetime = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        Self {
            version: VERSION,
            lifetime,
        }
    }
}

impl Ask {
    pub(super) fn new(nameplate: u32, body: Vec<u8>) -> Self {
        Self {
            version: VERSION,
            nameplate,
            body: body.into(),
        }
    }
}

impl Passed {
    fn done() -> Self {
        Self {
            version: VERSION,
            status: 0,
            body: None,
            nameplate: None,
            seconds: None,
        }
    }

    /// For the other end.
    pub(in crate::protocols) fn body(body: Vec<u8>) -> Self {
        Self {
            body: Some(body.into()),
            ..Self::done()
        }
    }

    /// A nameplate, for so long.
    pub(in crate::protocols) fn given(nameplate: u32, lifetime: Duration) -> Self {
        Self {
            nameplate: Some(nameplate),
            seconds: Some(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)),
            ..Self::done()
        }
    }

    pub(in crate::protocols) fn refused(why: CodeRefusal) -> Self {
        let seconds = match why {
            CodeRefusal::TooMany { wait } => {
                Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX))
            }
            _ => None,
        };
        Self {
            status: why.number(),
            seconds,
            ..Self::done()
        }
    }

    /// Seconds that it names.
    pub(super) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or_default().into())
    }

    /// What it carries, or why it carries nothing.
    pub(in crate::protocols) fn result(self) -> Result<Vec<u8>, CodeRefusal> {
        Err(match self.status {
            0 => return Ok(self.body.map(Into::into).unwrap_or_default()),
            1 => CodeRefusal::Malformed,
            2 => CodeRefusal::Unknown,
            3 => CodeRefusal::Used,
            4 => CodeRefusal::Expired,
            5 => CodeRefusal::Gone,
            6 => CodeRefusal::TooMany { wait: self.time() },
            7 => CodeRefusal::Full,
            8 => CodeRefusal::Wrong,
            9 => CodeRefusal::Silent,
            other => CodeRefusal::Other(other),
        })
    }
}

/// For the fuzz target: what is read is written the same again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::fuzz_one;

    fuzz_one::<Wanted>(bytes);
    fuzz_one::<Ask>(bytes);
    fuzz_one::<Passed>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message as _;

    #[test]
    fn the_wire_is_as_documented() {
        // docs/PROTOCOL.md quotes these.
        let wanted = Wanted::new(Duration::from_secs(900)).framed();
        assert_eq!(wanted, [0, 7, 0xa2, 0, 1, 1, 0x19, 3, 0x84]);
        let ask = Ask::new(7, vec![1, 2]).framed();
        assert_eq!(ask, [0, 9, 0xa3, 0, 1, 1, 7, 2, 0x42, 1, 2]);
        let given = Passed::given(7, Duration::from_secs(60)).framed();
        assert_eq!(given, [0, 10, 0xa4, 0, 1, 1, 0, 3, 7, 4, 0x18, 60]);
        let body = Passed::body(vec![1, 2]).framed();
        assert_eq!(body, [0, 9, 0xa3, 0, 1, 1, 0, 2, 0x42, 1, 2]);
        let no = Passed::refused(CodeRefusal::Used).framed();
        assert_eq!(no, [0, 5, 0xa2, 0, 1, 1, 3]);
    }

    #[test]
    fn every_refusal_arrives_as_what_it_was() {
        let wait = Duration::from_secs(59);
        for why in [
            CodeRefusal::Malformed,
            CodeRefusal::Unknown,
            CodeRefusal::Used,
            CodeRefusal::Expired,
            CodeRefusal::Gone,
            CodeRefusal::TooMany { wait },
            CodeRefusal::Full,
            CodeRefusal::Wrong,
            CodeRefusal::Silent,
            CodeRefusal::Other(99),
        ] {
            let sent = Passed::refused(why).cbor();
            assert_eq!(Passed::read(&sent).unwrap().result(), Err(why));
        }
    }
}
