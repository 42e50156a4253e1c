//! Who a peer is, and whom we trust.
//!
//! A peer is its public key: [`PeerId`] is the SHA-256 of the key's SubjectPublicKeyInfo, so a
//! renewed certificate, a raw public key and tomorrow's certificate of the same key all name the
//! same peer. [`Identity`] is our own key with a certificate for it, made in memory or brought by
//! the user as PEM. A [`TrustPolicy`] is asked once in each handshake, after the TLS library has
//! the peer's certificate and before anything is done on the peer's behalf; whatever it answers
//! but `Ok(())`, a panic included, is a refusal.
//!
//! | file | holds |
//! |---|---|
//! | `peer_id.rs` | `PeerId`: from a key or a certificate, text form, strict parser |
//! | `compare.rs` | a peer id as words, and as a picture |
//! | `invitation.rs` | a code that brings two peers together, once |
//! | `certificate_info.rs` | what an application wants to know of a certificate |
//! | `certificate.rs` | what is read out of an X.509 certificate: key, dates, size of an RSA key |
//! | `key.rs` | `Identity`: key and certificate that belong together, making new ones |
//! | `pem.rs` | the text form of an identity |
//! | `passphrase.rs` | a private key under a passphrase |
//! | `store.rs` | identity files: mode 0600, never over an existing file |
//! | `files.rs` | files that are their owner's alone |
//! | `known/` | the known-peers file, and trust by it |
//! | `ca.rs` | trust by certificate authorities |
//! | `any_of.rs` | several policies as one |
//! | `rotation.rs` | replacing a key: the statement by which the old one names the new one |
//! | `lineage.rs` | the keys that a peer held before, as its certificate proves it |
//! | `signature.rs` | signing statements with an identity's key |
//! | `trust.rs` | `TrustPolicy`, its answers, and the two policies that need no memory |

mod any_of;
mod ca;
mod certificate;
mod certificate_info;
mod compare;
mod error;
mod files;
mod invitation;
mod key;
mod known;
mod lineage;
#[cfg_attr(not(feature = "passphrase"), path = "passphrase_left_out.rs")]
mod passphrase;
mod peer_id;
mod pem;
mod rotation;
mod signature;
mod store;
mod trust;

pub use crate::backend::default_provider;
pub use any_of::AnyOf;
#[cfg(feature = "ca")]
pub use ca::PlatformRoots;
pub use ca::{CaError, CaRoots};
pub use certificate::CertificateError;
pub(crate) use certificate::Facts;
pub use certificate_info::CertificateInfo;
#[cfg(feature = "mesh")]
pub(crate) use compare::{number_of, word};
pub use error::IdentityError;
#[cfg(feature = "mesh")]
pub(crate) use files::{Draft, Exposed, check_file, private_options};
pub use files::{ExposedFolder, PrivateFileError, read_private};
pub use invitation::{Invitation, InvitationError, NotAdmitted, OpenInvitation};
pub use key::{Identity, KeyKind};
pub use known::{
    DamagedLine, EditError, EntryError, FollowError, KnownPeer, KnownPeers, KnownPeersError,
    KnownPeersFile, KnownPeersProblem, Learned, Origin, Previous, TrustKnown, place_of,
};
pub(crate) use lineage::Lineage;
pub use peer_id::{PeerId, PeerIdError};
pub use rotation::{
    Rotation, RotationError, RotationTimes, rotations_from_text, rotations_to_text,
};
#[cfg(any(feature = "mesh", feature = "sealed"))]
pub(crate) use signature::Signature;
pub use trust::{AcceptAny, Pinned, Presented, Refusal, TrustPolicy};

pub use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

#[cfg(test)]
mod certificate_tests;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod tests;
