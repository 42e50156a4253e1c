//! What nodes and relays say to each other before a circuit carries bytes: the codec, without IO.
//!
//! The form is that of all messages of ours (`src/wire/message.rs`). docs/PROTOCOL.md has the table.

use minicbor::{Decode, Encode};

use crate::identity::PeerId;
use crate::session::reserved;
use crate::wire::{Status, VERSION, clean_reason, message};

/// Service at a relay: be registered there.
pub(crate) const REGISTER: &str = reserved::RELAY_REGISTER;

/// Service at a relay: a circuit to a registered peer.
pub(crate) const DIAL: &str = reserved::RELAY_DIAL;

/// Service at a registered peer, opened by its relay: a circuit from somebody.
pub(crate) const CIRCUIT: &str = reserved::RELAY_CIRCUIT;

/// Code of the reset of both ends of a circuit that has carried nothing for too long.
pub(crate) const IDLE: u32 = 10;

/// Code of the reset of what a relay takes back for a peer that has none: both ends of a circuit, or a registration.
pub(crate) use crate::protocols::copy::TAKEN_BACK;

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

    /// Unasked, to a peer that is registered: another process with its key is now, too, and gets its circuits.
    pub(crate) fn taken_over(lifetime: u32) -> Self {
        Self {
            reason: "another process with your key has registered".into(),
            ..Self::done(Some(lifetime))
        }
    }

    /// Whether this is that.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.status() == Status::Done && !self.reason.is_empty()
    }

    /// A refusal; of a long reason the first 255 bytes.
    pub(crate) fn refused(status: Status, reason: &str) -> Self {
        Self {
            version: VERSION,
            status: status.number(),
            reason: clean_reason(reason),
            lifetime: None,
        }
    }

    pub(crate) fn status(&self) -> Status {
        Status::of(self.status)
    }

    /// The reason, fit to be shown.
    pub(crate) fn reason(&self) -> String {
        clean_reason(&self.reason)
    }
}

message!(Register, Circuit, Answer);
/// For the fuzz target: decodes as each message; what decodes must encode to the same message again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::fuzz_one;
    fuzz_one::<Register>(bytes);
    fuzz_one::<Circuit>(bytes);
    fuzz_one::<Answer>(bytes);
}

#[cfg(test)]
mod tests {
    use cepa_transports::text::{HOSTILE, is_printable};

    use super::*;
    use crate::wire::{Message as _, MessageError};
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
        fn numbers_of_states_are_distinguished(number in any::<u32>()) {
            prop_assert_eq!(Status::of(number).number(), number);
        }
    }
}
