//! What nodes and relays say to each other before a circuit carries bytes: the codec, without IO.
//!
//! A message is two bytes of length (big endian, at most 4,096) and so many bytes of CBOR (RFC 8949): a map
//! whose keys are small integers. Keys that are not known are skipped, so that a later version can say
//! more; a message whose version is not 1 is refused. docs/PROTOCOL.md has the table.

use cepa_transports::text::clean;
use minicbor::{Decode, Encode};

use crate::identity::PeerId;

/// Service at a relay: be registered there.
pub(crate) const REGISTER: &str = "cepa.relay.register";

/// Service at a relay: a circuit to a registered peer.
pub(crate) const DIAL: &str = "cepa.relay.dial";

/// Service at a registered peer, opened by its relay: a circuit from somebody.
pub(crate) const CIRCUIT: &str = "cepa.relay.circuit";

/// The version that we speak.
pub(crate) const VERSION: u8 = 1;

/// Longest message in bytes, without its length, unless it says otherwise.
const MAX_MESSAGE: usize = 4096;

/// Longest reason in bytes; what is longer is cut.
pub(crate) const MAX_REASON: usize = 255;

/// Node to relay: register me, or renew what I have.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Register {
    #[n(0)]
    version: u8,
    /// Seconds that it should last; the relay may give less.
    #[n(1)]
    pub(crate) lifetime: u32,
}

/// Node to relay (`target`: to whom) and relay to node (`target`: from whom).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Circuit {
    #[n(0)]
    version: u8,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    target: [u8; 32],
}

/// The answer to each of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Answer {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// For a person; empty where all is well.
    #[n(2)]
    reason: String,
    /// Seconds that a registration lasts.
    #[n(3)]
    pub(crate) lifetime: Option<u32>,
}

/// How a relay, or a registered peer, answers. The numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// 0: done.
    Done,
    /// 1: the message made no sense.
    Malformed,
    /// 2: the relay does not serve this peer.
    NotAllowed,
    /// 3: the relay has no room for more.
    Full,
    /// 4: this peer has as much as one peer may have.
    Quota,
    /// 5: nobody of that id is registered here.
    NotRegistered,
    /// 6: the registered peer refused.
    Refused,
    /// 7: the registered peer does not answer.
    Unreachable,
    /// 8: the way would lead back to where it came from.
    Loop,
    /// Any other number: a later version's.
    Other(u32),
}

impl Status {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Malformed => 1,
            Self::NotAllowed => 2,
            Self::Full => 3,
            Self::Quota => 4,
            Self::NotRegistered => 5,
            Self::Refused => 6,
            Self::Unreachable => 7,
            Self::Loop => 8,
            Self::Other(number) => number,
        }
    }

    pub(crate) fn of(number: u32) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::Malformed,
            2 => Self::NotAllowed,
            3 => Self::Full,
            4 => Self::Quota,
            5 => Self::NotRegistered,
            6 => Self::Refused,
            7 => Self::Unreachable,
            8 => Self::Loop,
            other => Self::Other(other),
        }
    }
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("a message of {0} bytes, at most {1} are allowed")]
    TooLong(usize, usize),
    #[error("a message that is not the CBOR of one ({0})")]
    Cbor(String),
    #[error("version {0} instead of 1: are both ends of the same version?")]
    Version(u8),
}

impl Register {
    pub(crate) fn new(lifetime: u32) -> Self {
        Self {
            version: VERSION,
            lifetime,
        }
    }
}

impl Circuit {
    pub(crate) fn new(target: PeerId) -> Self {
        Self {
            version: VERSION,
            target: *target.as_bytes(),
        }
    }

    pub(crate) fn target(&self) -> PeerId {
        PeerId::from_bytes(self.target)
    }
}

impl Answer {
    pub(crate) fn done(lifetime: Option<u32>) -> Self {
        Self {
            version: VERSION,
            status: 0,
            reason: String::new(),
            lifetime,
        }
    }

    /// A refusal; of a long reason the first 255 bytes.
    pub(crate) fn refused(status: Status, reason: &str) -> Self {
        Self {
            version: VERSION,
            status: status.number(),
            reason: clean(reason, MAX_REASON).into_owned(),
            lifetime: None,
        }
    }

    pub(crate) fn status(&self) -> Status {
        Status::of(self.status)
    }

    /// The reason, fit to be shown.
    pub(crate) fn reason(&self) -> String {
        clean(&self.reason, MAX_REASON).into_owned()
    }
}

/// A message of this protocol.
pub(crate) trait Message: Sized {
    fn version(&self) -> u8;
    fn cbor(&self) -> Vec<u8>;
    fn from_cbor(bytes: &[u8]) -> Result<Self, String>;

    /// Longest message in bytes, without its length.
    const MAX: usize = MAX_MESSAGE;

    /// With its length in front.
    fn framed(&self) -> Vec<u8> {
        let body = self.cbor();
        // Everything of variable length in it is bounded far below.
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    /// The length of a message that begins with these two bytes.
    fn length(head: [u8; 2]) -> Result<usize, MessageError> {
        let length = usize::from(u16::from_be_bytes(head));
        if length > Self::MAX {
            return Err(MessageError::TooLong(length, Self::MAX));
        }
        Ok(length)
    }

    /// From the bytes behind the length.
    fn read(body: &[u8]) -> Result<Self, MessageError> {
        let message = Self::from_cbor(body).map_err(MessageError::Cbor)?;
        match message.version() {
            VERSION => Ok(message),
            other => Err(MessageError::Version(other)),
        }
    }
}

/// For fuzz targets: what decodes must encode to the same message again.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_one<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::read(bytes) {
        assert_eq!(
            M::read(&message.cbor()),
            Ok(message),
            "a print that parses differently"
        );
    }
}

/// Makes messages of types that derive their CBOR and have a `version`; the number is their `MAX`.
macro_rules! message {
    ($($type:ty $(: $max:expr)?),*) => { $(
        impl $crate::relay::Message for $type {
            $(const MAX: usize = $max;)?


            fn version(&self) -> u8 {
                self.version
            }

            fn cbor(&self) -> Vec<u8> {
                // Writing into a `Vec` can not fail.
                minicbor::to_vec(self).unwrap_or_default()
            }

            fn from_cbor(bytes: &[u8]) -> Result<Self, String> {
                let mut decoder = minicbor::Decoder::new(bytes);
                let message = decoder.decode().map_err(|e| e.to_string())?;
                if decoder.position() != bytes.len() {
                    return Err("bytes behind it".into());
                }
                Ok(message)
            }
        }
    )* };
}

message!(Register, Circuit, Answer);
pub(crate) use message;

/// For the fuzz target: decodes as each message; what decodes must encode to the same message again.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    fuzz_one::<Register>(bytes);
    fuzz_one::<Circuit>(bytes);
    fuzz_one::<Answer>(bytes);
}

#[cfg(test)]
mod tests {
    use cepa_transports::text::{HOSTILE, is_printable};

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_wire_is_as_documented() {
        // docs/PROTOCOL.md quotes these.
        assert_eq!(
            Register::new(3600).framed(),
            [0, 7, 0xa2, 0, 1, 1, 0x19, 0x0e, 0x10]
        );
        let circuit = Circuit::new(PeerId::from_bytes([7; 32])).framed();
        assert_eq!(circuit[..8], [0, 38, 0xa2, 0, 1, 1, 0x58, 0x20]);
        assert_eq!(circuit[8..], [7; 32]);
        assert_eq!(
            Answer::refused(Status::NotRegistered, "no").framed(),
            [0, 9, 0xa3, 0, 1, 1, 5, 2, 0x62, b'n', b'o']
        );
        assert_eq!(
            Answer::done(Some(60)).framed(),
            [0, 10, 0xa4, 0, 1, 1, 0, 2, 0x60, 3, 0x18, 60]
        );
    }

    #[test]
    fn what_is_not_known_is_skipped() {
        // Key 9 with an array of two maps.
        let bytes = [0xa3, 0, 1, 1, 0x0a, 9, 0x82, 0xa1, 1, 2, 0xa0];
        assert_eq!(Register::read(&bytes).unwrap().lifetime, 10);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            Register::read(&[0xa2, 0, 2, 1, 0x0a]),
            Err(MessageError::Version(2))
        );
        assert!(matches!(
            Register::read(&[0xa2, 0, 1, 1, 0x0a, 0]),
            Err(MessageError::Cbor(_))
        ));
        assert!(matches!(
            Circuit::read(&[0xa2, 0, 1, 1, 0x42, 1, 2]),
            Err(MessageError::Cbor(_))
        ));
        assert_eq!(
            Register::length([0x10, 0x01]),
            Err(MessageError::TooLong(4097, 4096))
        );
        assert_eq!(Register::length([0x10, 0x00]), Ok(4096));
    }

    #[test]
    fn reasons_are_cut_and_cleaned() {
        let answer = Answer::refused(Status::Refused, &"ä".repeat(200));
        assert_eq!(answer.reason(), "ä".repeat(126) + "…");
        let answer = Answer::refused(Status::Refused, "a\x1b[2Jb\n");
        assert_eq!(answer.reason(), "a\\u{1b}[2Jb");
        for (name, c) in HOSTILE {
            // As a peer may send it.
            let raw = Answer {
                reason: format!("a{c}b"),
                ..answer.clone()
            };
            assert!(raw.reason().chars().all(is_printable), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz(&bytes);
        }

        #[test]
        fn numbers_of_states_are_told_apart(number in any::<u32>()) {
            prop_assert_eq!(Status::of(number).number(), number);
        }
    }
}
