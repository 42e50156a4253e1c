//! What is wrong with an introduction: one value for each step that can fail, with its number on the wire.

use crate::identity::PeerId;

/// Why an introduction does not hold. Each text is one line that names the step, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The bytes are no introduction. Why is text for a person to read: the words of a decoder, or of the owner of the service.
    #[error("cannot read the introduction ({0}): ask for a complete one")]
    Malformed(String),
    /// It could not be signed, in the words of the cryptographic backend.
    #[error("cannot sign the introduction ({0}): use another key")]
    Sign(String),
    /// It is for a service of another peer.
    #[error("the introduction is for a service of {owner}: use it there")]
    WrongOwner {
        /// Whose.
        owner: PeerId,
    },
    /// The links do not follow from each other.
    #[error("the introduction is invalid, {0}: ask for another one")]
    Chain(ChainFlaw),
    /// A link is not signed by its issuer.
    #[error("the introduction is not signed by {issuer}: it was altered, ask for another one")]
    Signature {
        /// Who should have signed it.
        issuer: PeerId,
    },
    /// The first issuer may not introduce anybody to this service.
    #[error(
        "{issuer} may not introduce peers to this service, or there is no such service: ask its owner"
    )]
    NotPermitted {
        /// Who introduced.
        issuer: PeerId,
    },
    /// It is for another peer, or was used by another one first.
    #[error("the introduction is for another peer: ask for one of your own")]
    NotYours,
    /// Its time is over.
    #[error("the introduction has expired: ask for another one")]
    Expired,
    /// It says that it was made in the future.
    #[error("the introduction is dated in the future: correct the clock that is wrong")]
    NotYet,
    /// It was used as often as it may be.
    #[error("the introduction has been used up: ask for another one")]
    UsedUp,
    /// An issuer has taken it back.
    #[error("the introduction was revoked by {by}: ask who gave it to you")]
    Revoked {
        /// Who took it back.
        by: PeerId,
    },
    /// It is older than what its owner remembers, which may be that it was used or revoked.
    #[error("the introduction is older than the last restart of its service: ask for another one")]
    Forgotten,
    /// The owner can't remember more.
    #[error("the owner of the service has too many introductions in use: try later")]
    Full,
    /// The owner can't write down what it lets in, which is why it lets nothing in: the reason, at the owner.
    #[error("the owner of the service cannot record the introduction{}: ask whoever runs it", because(.0))]
    NotRecorded(String),
    /// The owner offers no such service (any more).
    #[error("the owner offers no service of this name, or no longer: ask for another introduction")]
    NoService,
    /// A reason that is not known here.
    #[error("the introduction was refused with status {0}: are both ends of the same version?")]
    Other(u32),
}

/// Where the links of an introduction do not follow from each other: [`Flaw::Chain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFlaw {
    /// A link passes it on that may not.
    #[error("it may not be passed on any further")]
    NoFurther,
    /// More membranes are in its way than an introduction can name.
    #[error("it has crossed membranes too often")]
    TooManyMembranes,
    /// Somebody is in it twice.
    #[error("it leads back to somebody in it")]
    LeadsBack,
    /// A link other than the first, or of another peer, has what only the owner of the service may put in.
    #[error("a link says what only the owner can say")]
    OwnersWord,
    /// Its first link follows from another one.
    #[error("its beginning is missing")]
    NoBeginning,
    /// A link does not follow from the one before it.
    #[error("a link belongs to another chain")]
    OtherChain,
    /// A link is by another peer than the one before it is for.
    #[error("it was passed on by somebody whom it was not for")]
    NotTheirs,
    /// A link is for another service, for longer, or for more uses than the one before it.
    #[error("a link gives more than it was given")]
    GivesMore,
    /// The owner of the service has found it so, and does not say more.
    #[error("as its owner sees it")]
    AtOwner,
}

impl Flaw {
    /// Its number in docs/PROTOCOL.md.
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::Malformed(_) => 1,
            Self::WrongOwner { .. } => 2,
            Self::Chain(_) => 3,
            Self::Signature { .. } => 4,
            Self::NotPermitted { .. } => 5,
            Self::NotYours => 6,
            Self::Expired => 7,
            Self::NotYet => 8,
            Self::UsedUp => 9,
            Self::Revoked { .. } => 10,
            Self::Forgotten => 11,
            Self::Full => 12,
            Self::NoService => 13,
            Self::Sign(_) => 14,
            Self::NotRecorded(_) => 15,
            Self::Other(number) => *number,
        }
    }
}

/// In brackets, if there is one.
fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}
