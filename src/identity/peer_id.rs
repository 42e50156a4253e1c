//! The name of a peer: SHA-256 of its SubjectPublicKeyInfo, in 52 characters.
//!
//! The text form is lower-case base32 (RFC 4648 section 6) without padding. 256 bits are 51.2
//! characters, so the 52nd carries four bits that must be zero; without that rule sixteen texts
//! would name one peer, and a comparison of texts would not be one of peers. 52 characters fit a
//! DNS label (63), which is what lets a peer be asked for by SNI.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use cepa_transports::text::quoted;
use data_encoding::{DecodeKind, Encoding, Specification};
use sha2::{Digest, Sha256};

/// Characters of the text form.
const TEXT_LEN: usize = 52;

#[allow(clippy::expect_used)] // a constant specification: it is right or every test fails
static ALPHABET: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification
        .encoding()
        .expect("32 distinct symbols make an encoding")
});

/// A peer's name: the SHA-256 of its public key's SubjectPublicKeyInfo (DER).
///
/// Renewing a certificate keeps it, changing the key changes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The id of the key whose DER-encoded SubjectPublicKeyInfo this is. Any bytes have an id.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The id with these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 characters (60 bits): to tell peers apart in a log, never to decide on trust.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&ALPHABET.encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        if let Some((index, character)) = text
            .chars()
            .enumerate()
            .find(|(_, c)| !matches!(c, 'a'..='z' | '2'..='7'))
        {
            return Err(PeerIdError::Character {
                position: index + 1,
                character,
            });
        }
        // Only ASCII is left, so bytes are characters.
        if text.len() != TEXT_LEN {
            return Err(PeerIdError::Length { found: text.len() });
        }
        let bytes = ALPHABET
            .decode(text.as_bytes())
            .map_err(|error| match error.kind {
                DecodeKind::Trailing => PeerIdError::Trailing,
                DecodeKind::Length | DecodeKind::Symbol | DecodeKind::Padding => {
                    PeerIdError::Length { found: text.len() }
                }
            })?;
        let bytes =
            <[u8; 32]>::try_from(bytes).map_err(|_| PeerIdError::Length { found: text.len() })?;
        Ok(Self(bytes))
    }
}

/// Why a text is not a peer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// Too short or too long.
    #[error("a peer id has 52 characters, this has {found}: copy it whole")]
    Length {
        /// Characters found.
        found: usize,
    },
    /// A character that base32 in lower case does not have.
    #[error(
        "a peer id has only lower-case a to z and 2 to 7, but character {position} is {}", quoted(&character.to_string())
    )]
    Character {
        /// Counted from 1.
        position: usize,
        /// What stands there.
        character: char,
    },
    /// The last character carries bits that no id has.
    #[error("not a peer id: its last character is invalid (a character is wrong or missing)")]
    Trailing,
}
