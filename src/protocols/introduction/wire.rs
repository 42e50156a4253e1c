//! What is said about introductions on a substream: the codec, without IO.
//!
//! The form is that of the relay's messages: two bytes of length, then CBOR. docs/PROTOCOL.md has the table.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::identity::PeerId;
use crate::session::reserved;
use crate::wire::{VERSION, clean_reason, message};

use super::flaw::{ChainFlaw, Flaw};
use super::link::MAX_BYTES;

/// Service at an owner: show an introduction, or take one back.
pub(super) const SERVICE: &str = reserved::INTRODUCTION;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Use,
    Revoke,
}

/// Recipient, or issuer, to owner.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Present {
    #[n(0)]
    version: u8,
    #[n(1)]
    wish: u8,
    #[n(2)]
    introduction: ByteVec,
}

/// The owner's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Verdict {
    #[n(0)]
    version: u8,
    #[n(1)]
    status: u32,
    /// Whom a refusal is about, where it is about somebody.
    #[n(2)]
    who: Option<ByteArray<32>>,
    /// For a person.
    #[n(3)]
    detail: Option<String>,
}

// Room for the map around an introduction.
message!(Present: MAX_BYTES + 64, Verdict);

impl Present {
    pub(super) fn new(wish: Wish, introduction: Vec<u8>) -> Self {
        Self {
            version: VERSION,
            wish: match wish {
                Wish::Use => 0,
                Wish::Revoke => 1,
            },
            introduction: introduction.into(),
        }
    }

    pub(super) fn wish(&self) -> Result<Wish, Flaw> {
        match self.wish {
            0 => Ok(Wish::Use),
            1 => Ok(Wish::Revoke),
            _ => Err(Flaw::Malformed("neither used nor revoked".into())),
        }
    }

    pub(super) fn introduction(&self) -> &[u8] {
        &self.introduction
    }
}

impl Verdict {
    pub(super) fn of(result: &Result<(), Flaw>) -> Self {
        let (mut who, mut detail) = (None, None);
        match result {
            Err(
                Flaw::WrongOwner { owner: peer }
                | Flaw::Signature { issuer: peer }
                | Flaw::NotPermitted { issuer: peer }
                | Flaw::Revoked { by: peer },
            ) => who = Some((*peer.as_bytes()).into()),
            Err(Flaw::Malformed(text)) => detail = Some(clean_reason(text)),
            _ => {}
        }
        Self {
            version: VERSION,
            status: result.as_ref().err().map_or(0, Flaw::number),
            who,
            detail,
        }
    }

    pub(super) fn result(self) -> Result<(), Flaw> {
        let who = self.who.map(|id| PeerId::from_bytes(*id));
        let detail = || clean_reason(self.detail.as_deref().unwrap_or_default());
        Err(match (self.status, who) {
            (0, _) => return Ok(()),
            (1, _) => Flaw::Malformed(detail()),
            (2, Some(owner)) => Flaw::WrongOwner { owner },
            (3, _) => Flaw::Chain(ChainFlaw::AtOwner),
            (4, Some(issuer)) => Flaw::Signature { issuer },
            (5, Some(issuer)) => Flaw::NotPermitted { issuer },
            (6, _) => Flaw::NotYours,
            (7, _) => Flaw::Expired,
            (8, _) => Flaw::NotYet,
            (9, _) => Flaw::UsedUp,
            (10, Some(by)) => Flaw::Revoked { by },
            (11, _) => Flaw::Forgotten,
            (12, _) => Flaw::Full,
            (13, _) => Flaw::NoService,
            // Why is for who runs the owner.
            (15, _) => Flaw::NotRecorded(String::new()),
            (other, _) => Flaw::Other(other),
        })
    }
}

/// For the fuzz target: what is read is written the same again.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use crate::wire::{Message, fuzz_one};

    fuzz_one::<Present>(bytes);
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
        let present = Present::new(Wish::Revoke, vec![7, 7]).framed();
        assert_eq!(present, [0, 9, 0xa3, 0, 1, 1, 1, 2, 0x42, 7, 7]);
        let yes = Verdict::of(&Ok(())).framed();
        assert_eq!(yes, [0, 5, 0xa2, 0, 1, 1, 0]);
    }

    #[test]
    fn every_refusal_arrives_as_what_it_was() {
        let peer = PeerId::from_bytes([5; 32]);
        for flaw in [
            Flaw::Malformed("a\nb".into()),
            Flaw::WrongOwner { owner: peer },
            Flaw::Signature { issuer: peer },
            Flaw::NotPermitted { issuer: peer },
            Flaw::NotYours,
            Flaw::Expired,
            Flaw::NotYet,
            Flaw::UsedUp,
            Flaw::Revoked { by: peer },
            Flaw::Forgotten,
            Flaw::Full,
            Flaw::NoService,
            Flaw::NotRecorded(String::new()),
            Flaw::Other(99),
        ] {
            let sent = Verdict::of(&Err(flaw.clone()));
            let got = Verdict::read(&sent.cbor()).unwrap().result().unwrap_err();
            let clean = |flaw: &Flaw| flaw.to_string().replace('\n', " ");
            assert_eq!(got.number(), flaw.number());
            assert_eq!(clean(&got), clean(&flaw));
            assert!(!got.to_string().contains('\n'));
        }
        assert_eq!(Verdict::of(&Ok(())).result(), Ok(()));
    }
}
