//! Whom to trust: the question, the answers, and two policies that need no memory. Others stand in
//! `known/policy.rs`, `ca.rs` and `any_of.rs`.
//!
//! The TLS layer asks a [`TrustPolicy`] once per handshake. By then the certificate could be read,
//! its dates were checked and its key is of an accepted size. The presenter's proof that it holds
//! the key follows in the same handshake and is not the policy's concern: no handshake succeeds
//! without it; [`TrustPolicy::proven`] is called when it has come.
//!
//! The handshake that asks a policy runs on an async task. A policy that may have to wait, if only for a small file, says
//! so ([`TrustPolicy::may_block`]), and is asked on a thread for blocking work; the handshake's own time limit goes on
//! meanwhile. So none asks a person; who wants to ask lets the handshake fail, asks, and dials again.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use cepa_transports::Side;
use cepa_transports::text::clean;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate::{CertificateError, date};
use super::peer_id::PeerId;
use super::rotation::{self, Rotation, RotationError};

/// What a peer has shown, and when.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Presented<'a> {
    /// Id of the key in the certificate.
    pub id: PeerId,
    /// The certificate for that key; none where the peer showed the key alone (a raw public key, RFC
    /// 7250). A policy that goes by anything but the key refuses then.
    pub certificate: Option<&'a CertificateDer<'a>>,
    /// What was sent beside it, in the order it came. Nothing is proven about these.
    pub chain: &'a [CertificateDer<'a>],
    /// The certificate's dates; 1970 to 9999 where there is none.
    pub not_before: UnixTime,
    /// The certificate's dates.
    pub not_after: UnixTime,
    /// The time of asking.
    pub now: UnixTime,
    /// The TLS role of the one who presents.
    pub role: Side,
}

impl<'a> Presented<'a> {
    /// For the layer that asks, and for tests of one's own policies.
    #[must_use]
    pub fn new(
        id: PeerId,
        certificate: Option<&'a CertificateDer<'a>>,
        chain: &'a [CertificateDer<'a>],
        validity: (UnixTime, UnixTime),
        now: UnixTime,
        role: Side,
    ) -> Self {
        let (not_before, not_after) = validity;
        Self {
            id,
            certificate,
            chain,
            not_before,
            not_after,
            now,
            role,
        }
    }

    /// The statements in the certificate by which keys before this one name their successor, oldest
    /// first. They are not checked; see [`path_from`](Self::path_from).
    pub fn rotations(&self) -> Result<Vec<Rotation>, RotationError> {
        self.certificate
            .map_or_else(|| Ok(Vec::new()), rotation::in_certificate)
    }

    /// The statements that lead from a key that is known to the presented one, checked; none where
    /// there are none. Fails when there are, and one of them is forged or does not count now.
    ///
    /// Only signatures on that path are checked, so strangers can't keep us busy.
    pub fn path_from(
        &self,
        knows: impl Fn(PeerId) -> bool,
    ) -> Result<Vec<Rotation>, RotationError> {
        rotation::path(self.rotations()?, self.id, self.now, knows)
    }
}

/// Decides whether to talk to a peer.
///
/// Anything but `Ok(())` is a refusal, a panic included.
pub trait TrustPolicy: fmt::Debug + Send + Sync {
    /// Decides on what a peer has presented. It has not yet proven that it holds the key, so nothing
    /// may be remembered of it here.
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal>;

    /// Called after [`decide`](Self::decide) has said yes and the peer has proven that it holds the
    /// key: here is the place to remember it. Can still refuse. Does nothing unless overridden.
    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        let _ = peer;
        Ok(())
    }

    /// Whether this peer is trusted by its key, whatever the dates of its certificate say. Asked only
    /// when they don't hold; the peer is refused then, unless this is overridden. Expiry must not lock
    /// out a peer whose very key was pinned; who uses such a policy shall warn, by
    /// [`Peer::not_after`](crate::tls::Peer::not_after).
    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        let _ = peer;
        false
    }

    /// Whether this policy may block the thread that asks it: on a file, a lock, another program. It is then asked on a
    /// thread for blocking work of the tokio runtime, so that no other task waits for it. No, unless this is overridden;
    /// a policy that asks other policies says yes if one of them does. Asked once, when a handshake begins.
    fn may_block(&self) -> bool {
        false
    }

    /// Whether this very key, or one that it succeeds, is one that the policy lists; not so where it takes
    /// anybody, or whomever somebody else vouches for. What a peer may do can depend on it
    /// ([`Peer::is_named`](crate::tls::Peer::is_named)). Asked once, after [`decide`](Self::decide) has said yes.
    ///
    /// The answer is that of [`overlooks_dates`](Self::overlooks_dates) unless this is overridden: override both
    /// where dates are overlooked for anybody.
    fn names(&self, peer: &Presented<'_>) -> bool {
        self.overlooks_dates(peer)
    }
}

/// Why we do not talk to a peer. Each text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Someone else answered than who was expected.
    WrongPeer {
        /// Who would have been right.
        expected: Vec<PeerId>,
        /// Who it was.
        presented: PeerId,
    },
    /// Nobody has said anything about this peer, and there is nobody to ask.
    Unknown {
        /// Who it was.
        presented: PeerId,
    },
    /// Somebody is known here by another key, and it is not replaced by this one.
    Changed {
        /// What the peer is called here.
        name: String,
        /// Its key, as it is known.
        expected: Vec<PeerId>,
        /// Who it was.
        presented: PeerId,
        /// Why a statement that the new key is the old one's successor was not followed, if one came.
        note: Option<Box<RotationError>>,
    },
    /// No authority that is trusted vouches for this peer under the name that was asked for.
    NotByCa {
        /// Who it was.
        presented: PeerId,
        /// What was missing.
        reason: String,
    },
    /// The peer's certificate has expired.
    Expired {
        /// Who it was.
        presented: PeerId,
        /// When it ran out.
        not_after: UnixTime,
    },
    /// The peer's certificate is not valid yet, or one of the clocks is wrong.
    NotYetValid {
        /// Who it was.
        presented: PeerId,
        /// From when it is valid.
        not_before: UnixTime,
        /// What our clock reads.
        now: UnixTime,
    },
    /// We know who it is, and it may not do this.
    NotAuthorised {
        /// Who it was.
        presented: PeerId,
        /// The policy's own words.
        reason: String,
    },
    /// The peer showed no certificate at all.
    NoCertificate,
    /// The peer's certificate or key is of a kind that is never accepted.
    Unusable {
        /// What is wrong with it.
        problem: CertificateError,
    },
    /// The policy could not decide: an error or a panic inside it.
    PolicyFailed {
        /// Who it was.
        presented: PeerId,
        /// What went wrong.
        reason: String,
    },
    /// A reason of a user's own policy.
    Other {
        /// Who it was.
        presented: PeerId,
        /// The policy's own words.
        reason: String,
    },
}

impl Refusal {
    /// Who was refused, where that much is known.
    #[must_use]
    pub fn presented(&self) -> Option<PeerId> {
        match self {
            Self::WrongPeer { presented, .. }
            | Self::Unknown { presented }
            | Self::Changed { presented, .. }
            | Self::NotByCa { presented, .. }
            | Self::Expired { presented, .. }
            | Self::NotYetValid { presented, .. }
            | Self::NotAuthorised { presented, .. }
            | Self::PolicyFailed { presented, .. }
            | Self::Other { presented, .. } => Some(*presented),
            Self::NoCertificate | Self::Unusable { .. } => None,
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongPeer {
                expected,
                presented,
            } => {
                f.write_str("the peer is not the expected one: it is ")?;
                write!(f, "{presented}, expected ")?;
                list(f, expected)?;
                f.write_str("; if its owner changed the key, expect the new id; otherwise someone is in between")
            }
            Self::Unknown { presented } => write!(
                f,
                "unknown peer {presented}; compare this id with the one that its owner sees, then trust it"
            ),
            Self::Changed {
                name,
                expected,
                presented,
                note,
            } => {
                write!(f, "the key of {} has changed: it was ", shown(name))?;
                list(f, expected)?;
                write!(f, ", but {presented} answered; ")?;
                if let Some(note) = note {
                    write!(f, "{}; ", shown(&note.to_string()))?;
                }
                f.write_str(
                    "if its owner changed it, accept the new one; otherwise someone is in between",
                )
            }
            Self::NotByCa { presented, reason } => write!(
                f,
                "no trusted authority certifies peer {presented} ({}): it needs a certificate for the requested name",
                shown(reason)
            ),
            Self::Expired {
                presented,
                not_after,
            } => write!(
                f,
                "the certificate of peer {presented} expired on {}: ask its owner to renew it with the same key, which keeps the id",
                date(*not_after)
            ),
            Self::NotYetValid {
                presented,
                not_before,
                now,
            } => write!(
                f,
                "the certificate of peer {presented} is not valid before {}, and this machine's clock says {}: correct the clock that is wrong",
                date(*not_before),
                date(*now)
            ),
            Self::NotAuthorised { presented, reason } => write!(
                f,
                "peer {presented} is not authorised ({}): allow it, or have it use another identity",
                shown(reason)
            ),
            Self::NoCertificate => f.write_str(
                "the peer showed no certificate: it must present one (self-signed is enough)",
            ),
            Self::Unusable { problem } => {
                write!(f, "the peer is refused: {}", shown(&problem.to_string()))
            }
            Self::PolicyFailed { presented, reason } => write!(
                f,
                "refused peer {presented}: cannot decide whether to trust it ({}); fix that and try again",
                shown(reason)
            ),
            Self::Other { presented, reason } => {
                write!(f, "peer {presented} is refused: {}", shown(reason))
            }
        }
    }
}

/// Ids in a message: three at most, then a count.
fn list(f: &mut fmt::Formatter<'_>, ids: &[PeerId]) -> fmt::Result {
    for (index, id) in ids.iter().take(3).enumerate() {
        if index > 0 {
            f.write_str(" or ")?;
        }
        write!(f, "{id}")?;
    }
    match ids.len().saturating_sub(3) {
        0 => Ok(()),
        1 => f.write_str(" or one other peer"),
        more => write!(f, " or one of {more} other peers"),
    }
}

/// Text that others wrote, fit to stand in a one-line message.
fn shown(text: &str) -> Cow<'_, str> {
    clean(text, 400)
}

/// Trusts the peers on a list, and nobody else but a successor that the old key itself has named: who
/// holds that key is trusted anyway, and a peer that has replaced its key is not locked out. Dates of
/// certificates do not count: what is pinned is the key.
///
/// An empty list trusts nobody; the refusal is then [`Refusal::Unknown`], since nobody was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    expected: BTreeSet<PeerId>,
}

impl Pinned {
    /// Trusts these peers.
    pub fn new(expected: impl IntoIterator<Item = PeerId>) -> Self {
        Self {
            expected: expected.into_iter().collect(),
        }
    }

    /// Trusts this one peer.
    #[must_use]
    pub fn one(expected: PeerId) -> Self {
        Self::new([expected])
    }

    /// The list.
    pub fn expected(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.expected.iter().copied()
    }

    fn trusts(&self, peer: &Presented<'_>) -> bool {
        let pinned = |id| self.expected.contains(&id);
        pinned(peer.id) || peer.path_from(pinned).is_ok_and(|path| !path.is_empty())
    }
}

impl TrustPolicy for Pinned {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        if self.trusts(peer) {
            Ok(())
        } else if self.expected.is_empty() {
            Err(Refusal::Unknown { presented: peer.id })
        } else {
            Err(Refusal::WrongPeer {
                expected: self.expected.iter().copied().collect(),
                presented: peer.id,
            })
        }
    }

    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        self.trusts(peer)
    }

    fn names(&self, peer: &Presented<'_>) -> bool {
        self.trusts(peer)
    }
}

/// Lets anyone in who proves to hold some key; the application reads from the handshake's result who
/// it was, and decides.
///
/// This is for servers whose callers are accounts made by calling. For a client it means to talk to
/// whoever answers: never use it there for anything that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptAny;

impl TrustPolicy for AcceptAny {
    fn decide(&self, _: &Presented<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn names(&self, _: &Presented<'_>) -> bool {
        false
    }
}
