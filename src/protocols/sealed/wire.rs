//! What is said about sealed messages on a substream: the codec, without IO.
//!
//! The form is that of the relay's messages: two bytes of length, then CBOR. docs/PROTOCOL.md has the table.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::identity::PeerId;
use crate::session::reserved;
use crate::wire::{Status, VERSION, clean_reason, message};

use super::bounds::MAX_SEALED;

/// Service at a carrier: take a request to somebody, or fetch somebody's key.
pub(super) const CARRY: &str = reserved::SEALED_CARRY;

/// Service at a recipient: here is a request, or give me your key.
pub(super) const DELIVER: &str = reserved::SEALED_DELIVER;

/// Sender to carrier.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Carry {
    #[n(0)]
    version: u8,
    #[n(1)]
    to: ByteArray<32>,
    /// Without one the key is wanted.
    #[n(2)]
    request: Option<ByteVec>,
}

/// Carrier, or a sender itself, to recipient.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Deliver {
    #[n(0)]
    version: u8,
    /// Without one the key is wanted.
    #[n(1)]
    request: Option<ByteVec>,
}

/// The answer to either.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Brought {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// For a person; empty where all is well.
    #[n(2)]
    reason: String,
    /// The sealed answer, or the key.
    #[n(3)]
    content: Option<ByteVec>,
}

// Room for the map around a sealed message, and for a reason.
message!(Carry: MAX_SEALED + 64, Deliver: MAX_SEALED + 64, Brought: MAX_SEALED + 320);

impl Carry {
    pub(super) fn new(to: PeerId, request: Option<Vec<u8>>) -> Self {
        Self {
            version: VERSION,
            to: (*to.as_bytes()).into(),
            request: request.map(Into::into),
        }
    }

    pub(super) fn to(&self) -> PeerId {
        PeerId::from_bytes(*self.to)
    }

    pub(super) fn into_deliver(self) -> Deliver {
        Deliver {
            version: VERSION,
            request: self.request,
        }
    }
}

impl Deliver {
    pub(super) fn new(request: Option<Vec<u8>>) -> Self {
        Self {
            version: VERSION,
            request: request.map(Into::into),
        }
    }

    pub(super) fn request(&self) -> Option<&[u8]> {
        self.request.as_deref().map(Vec::as_slice)
    }
}

impl Brought {
    pub(super) fn done(content: Vec<u8>) -> Self {
        Self {
            version: VERSION,
            status: Status::Done.number(),
            reason: String::new(),
            content: Some(content.into()),
        }
    }

    pub(super) fn refused(status: Status, reason: &str) -> Self {
        Self {
            version: VERSION,
            status: status.number(),
            reason: clean_reason(reason),
            content: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.content.is_some()
    }

    /// The content, or why there is none.
    pub(super) fn result(self) -> Result<Vec<u8>, (Status, String)> {
        match (Status::of(self.status), self.content) {
            (Status::Done, Some(content)) => Ok(content.into()),
            (Status::Done, None) => Err((Status::Malformed, "an answer without content".into())),
            (status, _) => Err((status, clean_reason(&self.reason))),
        }
    }
}

/// For the fuzz target: what is read is written the same again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::fuzz_one;

    fuzz_one::<Carry>(bytes);
    fuzz_one::<Deliver>(bytes);
    fuzz_one::<Brought>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message as _;

    #[test]
    fn the_wire_is_as_documented() {
        // docs/PROTOCOL.md quotes these.
        let carry = Carry::new(PeerId::from_bytes([7; 32]), Some(vec![9, 9])).framed();
        assert_eq!(carry[..8], [0, 42, 0xa3, 0, 1, 1, 0x58, 0x20]);
        assert_eq!(carry[40..], [2, 0x42, 9, 9]);
        assert_eq!(Deliver::new(None).framed(), [0, 3, 0xa1, 0, 1]);
        assert_eq!(
            Deliver::new(Some(vec![9])).framed(),
            [0, 6, 0xa2, 0, 1, 1, 0x41, 9]
        );
        assert_eq!(
            Brought::done(vec![9]).framed(),
            [0, 10, 0xa4, 0, 1, 1, 0, 2, 0x60, 3, 0x41, 9]
        );
        assert_eq!(
            Brought::refused(Status::NotRegistered, "no\n").framed(),
            [0, 9, 0xa3, 0, 1, 1, 5, 2, 0x62, b'n', b'o']
        );
    }

    #[test]
    fn the_largest_fit_their_frames() {
        let whole = vec![7; MAX_SEALED];
        let to = PeerId::from_bytes([7; 32]);
        for body in [
            Carry::new(to, Some(whole.clone())).cbor().len() <= Carry::MAX,
            Deliver::new(Some(whole.clone())).cbor().len() <= Deliver::MAX,
            Brought::done(whole).cbor().len() <= Brought::MAX,
        ] {
            assert!(body);
        }
        assert!(u16::try_from(Brought::MAX).is_ok());
    }
}
