//! What is wrong with a sealed message, or with the key for one.

use cepa_transports::text::quoted;

use crate::identity::PeerId;

use super::bounds::{MAX_BODY, MAX_SEALED};

/// Why a sealed message does not hold, or can't be made. Each text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealFlaw {
    /// The bytes are none. Why is text for a person to read, of a decoder among others.
    #[error("cannot read the sealed message ({0}): was it cut short?")]
    Malformed(String),
    /// The bytes are no key; why is text, as above.
    #[error("cannot read the sealing key ({0}): ask its owner for a complete one")]
    MalformedKey(String),
    /// It was made for algorithms that are not known here.
    #[error("the sealing key uses algorithms that this release does not know: update cepa")]
    Suite,
    /// It could not be signed, in the words of the cryptographic backend.
    #[error("cannot sign the sealed message ({0}): use another key")]
    Sign(String),
    /// More than one message can have.
    #[error(
        "the message has {found} bytes, at most {MAX_BODY} can be sealed: send less, or open a session"
    )]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// More than a sealed message ever is.
    #[error("not a sealed message: it has {found} bytes, at most {MAX_SEALED} are possible")]
    TooLongSealed {
        /// Bytes found.
        found: usize,
    },
    /// The name of a service that can't be sent.
    #[error(
        "{} can't be the name of a service: 1 to 255 bytes, no control or invisible characters",
        quoted(service)
    )]
    Service {
        /// The name, cut where it is long.
        service: String,
    },
    /// The key's time is over.
    #[error("the sealing key of {owner} has expired: ask for the current one")]
    KeyExpired {
        /// Whose key.
        owner: PeerId,
    },
    /// The key of another peer, or of one that does not prove that it is the one that was asked for.
    #[error(
        "the sealing key belongs to {found}, and does not prove that this is {owner}: if {owner} has a new key, ask for its new id"
    )]
    OtherOwner {
        /// Whose key it should be.
        owner: PeerId,
        /// Whose it is.
        found: PeerId,
    },
    /// Its signature does not hold.
    #[error("the sealing key is not signed by {owner}: it was altered, or is somebody else's")]
    KeySignature {
        /// Whose key it should be.
        owner: PeerId,
    },
    /// The recipient does not have the key, or no longer.
    #[error("it is sealed with a key that is not in use here: ask for the current one")]
    UnknownKey,
    /// It was altered, or is for another key, or is the answer to another request.
    #[error("cannot open it: it was altered, or is not for this recipient or this request")]
    Unopened,
    /// Not signed by whom it says that it is from.
    #[error("it is not signed by {sender}: it was altered, or is somebody else's")]
    Signature {
        /// Whom it says that it is from.
        sender: PeerId,
    },
    /// Signed for somebody else, and sealed anew by who got it.
    #[error("it is for another recipient: somebody else has sent it here")]
    WrongRecipient,
    /// Its time is over.
    #[error("it has expired: send it again, and compare the clocks of both ends")]
    Expired,
    /// It says that it was made in the future.
    #[error("it is dated in the future: correct the clock that is wrong")]
    NotYet,
    /// It came before.
    #[error("it is a duplicate, and may have been carried out before")]
    Replayed,
    /// Its sender may not ask for that.
    #[error(
        "no service of this name takes your sealed messages: its owner has to allow you, and to offer it to sealed messages"
    )]
    NotServed,
    /// The recipient can't remember more of them.
    #[error("the recipient has too many requests to remember: try later")]
    Full,
}
