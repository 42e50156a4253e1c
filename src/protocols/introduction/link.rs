//! One link of an introduction: what it says, its codec, its signature. No IO, no clock.
//!
//! Signed is `cepa introduction\0` and the bytes of the statement as they are carried. A link names the one
//! before it by the SHA-256 of the same, so it can't be moved to another chain. What a later version wants to
//! restrict needs a new version: fields that are not known are skipped.
//!
//! The first link may say two things that only the owner of the service looks at: in which epoch of its process it was
//! made ([`Epoch`]), and, where a membrane of that owner has made it, of what ([`Ancestor`]). An issuer that has replaced its
//! key gives the statements of its former keys along in it, so that it may introduce as the one that it was.

use std::time::Duration;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::identity::{Identity, Lineage, PeerId, UnixTime};
use crate::node::PeerAddr;
use crate::protocols::signed::Signed;
use crate::wire::{Message as _, clean_reason, message};

use super::flaw::Flaw;

pub(super) const DOMAIN: &[u8] = b"cepa introduction\0";

/// Longest address in an introduction, so that four of them and four RSA keys fit a message.
const MAX_ADDRESS: usize = 1024;
/// Longest statements about former keys in bytes: eight of the usual kinds, or one of the largest RSA keys.
const MAX_FORMER: usize = 2304;
/// Longest introduction in bytes.
pub(super) const MAX_BYTES: usize = 14 * 1024;
/// Most that one is made from: with more, it has crossed membranes too often to be followed.
pub(super) const MAX_ANCESTORS: usize = 32;

/// What a process of an owner calls itself, at random: what names it was made while that process lived.
pub(super) type Epoch = [u8; 16];
/// What a link is known by.
pub(in crate::protocols) type Name = [u8; 32];

/// What one link says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Statement {
    #[n(0)]
    pub(super) version: u8,
    /// SubjectPublicKeyInfo (DER) of who says it.
    #[n(1)]
    pub(super) issuer: ByteVec,
    /// `cepa://OWNER@HINT;HINT/SERVICE`.
    #[n(2)]
    pub(super) address: String,
    /// Seconds since 1970.
    #[n(3)]
    pub(super) issued: u64,
    #[n(4)]
    pub(super) expires: u64,
    /// Makes two of otherwise the same content different ones.
    #[n(5)]
    pub(super) nonce: ByteArray<16>,
    #[n(6)]
    pub(super) recipient: Option<ByteArray<32>>,
    #[n(7)]
    pub(super) uses: Option<u32>,
    #[n(8)]
    pub(super) further: u8,
    /// The name of the link before.
    #[n(9)]
    pub(super) parent: Option<ByteArray<32>>,
    /// Nanoseconds beyond `issued`.
    #[n(10)]
    pub(super) nanos: Option<u32>,
    #[n(11)]
    pub(super) epoch: Option<ByteArray<16>>,
    #[n(12)]
    pub(super) made_from: Option<Vec<Ancestor>>,
    /// Statements of the issuer's former keys, as in a certificate.
    #[n(13)]
    pub(super) former: Option<ByteVec>,
}

message!(Statement: MAX_BYTES);

/// A link that another introduction was made from, where it crossed a membrane. The first one is what was let through.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(in crate::protocols) struct Ancestor {
    #[n(0)]
    pub(super) name: ByteArray<32>,
    #[n(1)]
    pub(super) expires: u64,
    /// How many uses there are of it and of all that was made from it, if that has to be counted.
    #[n(2)]
    pub(super) uses: Option<u32>,
    /// When it was passed on, where the recipient of the one before has done that.
    #[n(3)]
    pub(super) passed_on: Option<u64>,
}

/// One step from the beginning to an introduction: what has to hold of it whenever the introduction is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: Name,
    /// Seconds since 1970.
    pub(super) expires: u64,
    /// Uses that are to be counted.
    pub(super) uses: Option<u32>,
    /// For whoever uses it first.
    pub(super) bearer: bool,
    /// When it was passed on, where the recipient of the step before has done that.
    pub(super) passed_on: Option<u64>,
}

/// What only the owner of the service looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound {
    pub(super) epoch: Option<Epoch>,
    pub(super) made_from: Option<Vec<Ancestor>>,
}

/// A signed statement, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) signed: Signed,
    pub(super) said: Statement,
    pub(super) address: PeerAddr,
    pub(super) issuer: PeerId,
}

impl Link {
    pub(super) fn read(signed: Signed) -> Result<Self, Flaw> {
        let said =
            Statement::read(signed.statement()).map_err(|e| Flaw::Malformed(e.to_string()))?;
        if said.address.len() > MAX_ADDRESS {
            return Err(Flaw::Malformed(format!(
                "an address of more than {MAX_ADDRESS} bytes: give fewer hints"
            )));
        }
        let address: PeerAddr = said
            .address
            .parse()
            .map_err(|e| Flaw::Malformed(clean_reason(&format!("{e}"))))?;
        // The default service may be another one tomorrow.
        if address.service().is_empty() {
            return Err(Flaw::Malformed("it names no service".into()));
        }
        if said.nanos.is_some_and(|nanos| nanos >= 1_000_000_000) {
            return Err(Flaw::Malformed("more nanoseconds than a second has".into()));
        }
        let ancestors = said.made_from.as_ref().map_or(0, Vec::len);
        if ancestors > MAX_ANCESTORS {
            return Err(Flaw::Malformed(format!(
                "made from more than {MAX_ANCESTORS}"
            )));
        }
        let issuer = PeerId::from_spki(&said.issuer);
        Ok(Self {
            signed,
            said,
            address,
            issuer,
        })
    }

    pub(super) fn sign(issuer: &Identity, said: &Statement) -> Result<Self, Flaw> {
        Self::read(Signed::sign(issuer, DOMAIN, said.cbor()).map_err(Flaw::Sign)?)
    }

    /// Who has issued it, also by former keys whose statements are good now.
    pub(super) fn issued_by(&self, now: UnixTime) -> Lineage {
        let former = self.said.former.as_ref().map(|former| former.as_slice());
        Lineage::of_statements(self.issuer, former.unwrap_or_default(), now)
    }

    /// What it is known by: whoever used it, whether it was revoked.
    pub(super) fn name(&self) -> Name {
        self.signed.name(DOMAIN)
    }

    pub(super) fn recipient(&self) -> Option<PeerId> {
        let recipient = self.said.recipient.as_ref();
        recipient.map(|bytes| PeerId::from_bytes(**bytes))
    }

    pub(super) fn uses(&self) -> Option<u32> {
        self.said.uses
    }

    /// Since 1970.
    pub(super) fn issued(&self) -> Duration {
        let nanos = Duration::from_nanos(self.said.nanos.unwrap_or(0).into());
        Duration::from_secs(self.said.issued).saturating_add(nanos)
    }

    pub(super) fn expires(&self) -> UnixTime {
        at(self.said.expires)
    }

    /// In which epoch of its owner it was made, if it says so.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.said.epoch.as_ref().map(|epoch| **epoch)
    }

    pub(super) fn ancestor(&self, uses: Option<u32>) -> Ancestor {
        Ancestor {
            name: self.name().into(),
            expires: self.said.expires,
            uses,
            passed_on: self.said.parent.as_ref().map(|_| self.said.issued),
        }
    }

    /// What a membrane has made has no number of its own: the uses of what it was made from are counted.
    pub(super) fn counted_uses(&self) -> Option<u32> {
        match self.said.made_from {
            Some(_) => None,
            None => self.said.uses,
        }
    }
}

impl Ancestor {
    pub(super) fn step(&self) -> Step {
        Step {
            name: *self.name,
            expires: self.expires,
            uses: self.uses,
            bearer: false,
            passed_on: self.passed_on,
        }
    }
}

/// The statements of an identity's former keys, where it has any.
pub(super) fn former(identity: &Identity) -> Option<ByteVec> {
    let statements = identity.statements(MAX_FORMER);
    (!statements.is_empty()).then(|| statements.into())
}

pub(super) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
