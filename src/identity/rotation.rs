//! Replacing a key: the old key says who its successor is, and the new key says whom it succeeds.
//!
//! A statement, all numbers big-endian:
//!
//! ```text
//! version     1 byte   1
//! old key     2 bytes of length, SubjectPublicKeyInfo (DER)
//! new key     2 bytes of length, SubjectPublicKeyInfo (DER)
//! issued      8 bytes  seconds since 1970; not good before
//! expires     8 bytes  nobody learns the new key from this statement after that
//! overlap     8 bytes  the old key is still good until then
//!             --------- what is signed ends here
//! by old key  2 bytes SignatureScheme (RFC 8446 section 4.2.3), 2 bytes of length, signature
//! by new key  the same
//! ```
//!
//! Signed is `cepa key rotation\0`, then `old\0` or `new\0`, then the bytes above: so neither signature
//! passes for the other, and no signature that the key makes in TLS passes for either (those begin
//! with 64 spaces). The old key's signature is what makes others follow. The new key's keeps an old
//! key from naming somebody else's key as its successor, and with it taking over that peer's place
//! in a list.
//!
//! A peer carries the statements that led to its key in its certificate, as an extension that is not
//! critical: whoever knows one of the keys before learns of the new one in the handshake itself, after
//! years as well, and no message of the session has to be invented for it. The extension holds up to
//! eight statements, oldest first, each with 2 bytes of length before it.
//!
//! Statements are read first and checked later, and only those on a path that begins at a key which the
//! asker knows: strangers can't make us check signatures.

use std::time::Duration;

use data_encoding::BASE64;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::peer_id::PeerId;
use super::signature::{self, Signature};

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"cepa key rotation\0";
const OLD: &[u8] = b"old\0";
const NEW: &[u8] = b"new\0";

/// Statements that a certificate carries; with a key a year, eight years.
pub(super) const MAX_STATEMENTS: usize = 8;
/// A key or a signature; those of RSA with 4,096 bits have about half of this.
const MAX_PART: usize = 1024;

/// Where the statements stand in a certificate: 2.25 is the arc of numbers that nobody assigns
/// (ITU-T X.667), the rest is random. It has 63 bits where a UUID has 128, since the encoder takes
/// no larger ones.
pub(super) const EXTENSION: [u64; 3] = [2, 25, 7_318_604_329_182_755_093];

/// One key replaced by another, as both keys have said.
///
/// A value of this type was read, but need not have been [checked](Self::check).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    old: Vec<u8>,
    new: Vec<u8>,
    issued: UnixTime,
    expires: UnixTime,
    overlap: UnixTime,
    by_old: Signature,
    by_new: Signature,
}

/// When a statement counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationTimes {
    /// From when on.
    pub issued: UnixTime,
    /// Until when others may learn the new key from it.
    pub expires: UnixTime,
    /// Until when the old key is still good.
    pub overlap: UnixTime,
}

/// Why a key is not followed to its successor. Each text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The bytes are no statement.
    #[error("cannot read the rotation statement ({reason}): ask its owner for a complete one")]
    Malformed {
        /// What was expected.
        reason: &'static str,
    },
    /// A version that is not known here.
    #[error(
        "the rotation statement has version {version}, but this release supports only version 1: update cepa"
    )]
    Version {
        /// The version.
        version: u8,
    },
    /// One of the two keys has not signed it.
    #[error("the rotation statement is not signed by the {which} key: do not follow it")]
    Signature {
        /// `old` or `new`.
        which: &'static str,
    },
    /// Made in the future, as our clock has it.
    #[error("the rotation statement is not valid before {}: correct the clock that is wrong", date(*.issued))]
    NotYet {
        /// From when it counts.
        issued: UnixTime,
    },
    /// It is too late to learn from it.
    #[error(
        "the rotation statement expired on {}: compare the new id with its owner, and add it by hand",
        date(*.expires)
    )]
    Expired {
        /// Until when it counted.
        expires: UnixTime,
    },
    /// The old key was replaced by another one before.
    #[error(
        "the old key names two successors, {first} and {second}, and one is a thief's: ask its owner which is right"
    )]
    Fork {
        /// The one that is known.
        first: PeerId,
        /// The one that was refused.
        second: PeerId,
    },
    /// The key can't sign, or the random source failed.
    #[error("the rotation statement can't be signed ({reason}): use another key")]
    Sign {
        /// What the backend says.
        reason: String,
    },
}

fn date(time: UnixTime) -> String {
    super::certificate::date(time)
}

impl Rotation {
    /// Signs with both keys.
    pub(super) fn sign(
        old: &dyn SigningKey,
        new: &dyn SigningKey,
        times: RotationTimes,
    ) -> Result<Self, RotationError> {
        let mut statement = Self {
            old: spki(old)?,
            new: spki(new)?,
            issued: times.issued,
            expires: times.expires,
            overlap: times.overlap,
            by_old: Signature::none(),
            by_new: Signature::none(),
        };
        statement.by_old = sign(old, &statement.signed(OLD))?;
        statement.by_new = sign(new, &statement.signed(NEW))?;
        Ok(statement)
    }

    /// The peer id before.
    pub fn old(&self) -> PeerId {
        PeerId::from_spki(&self.old)
    }

    /// The peer id after.
    pub fn new_id(&self) -> PeerId {
        PeerId::from_spki(&self.new)
    }

    /// When it counts.
    pub fn times(&self) -> RotationTimes {
        RotationTimes {
            issued: self.issued,
            expires: self.expires,
            overlap: self.overlap,
        }
    }

    /// Reads one statement; nothing may stand behind it. The signatures are not looked at.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RotationError> {
        let mut reader = Reader(bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(RotationError::Version { version });
        }
        let statement = Self {
            old: reader.part()?.to_vec(),
            new: reader.part()?.to_vec(),
            issued: reader.time()?,
            expires: reader.time()?,
            overlap: reader.time()?,
            by_old: reader.signature()?,
            by_new: reader.signature()?,
        };
        reader.end()?;
        if statement.old == statement.new {
            return Err(malformed("the two keys are the same"));
        }
        Ok(statement)
    }

    /// The statement as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.body();
        for signature in [&self.by_old, &self.by_new] {
            bytes.extend(signature.scheme.to_be_bytes());
            put(&mut bytes, &signature.bytes);
        }
        bytes
    }

    /// Whether both keys have signed it, and it counts now.
    pub fn check(&self, now: UnixTime) -> Result<(), RotationError> {
        if now < self.issued {
            return Err(RotationError::NotYet {
                issued: self.issued,
            });
        }
        if now > self.expires {
            return Err(RotationError::Expired {
                expires: self.expires,
            });
        }
        for (which, key, role, signature) in [
            ("old", &self.old, OLD, &self.by_old),
            ("new", &self.new, NEW, &self.by_new),
        ] {
            if !signature.verifies(key, &self.signed(role)) {
                return Err(RotationError::Signature { which });
            }
        }
        Ok(())
    }

    /// What both signatures are about.
    fn body(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(&mut bytes, &self.old);
        put(&mut bytes, &self.new);
        for time in [self.issued, self.expires, self.overlap] {
            bytes.extend(time.as_secs().to_be_bytes());
        }
        bytes
    }

    fn signed(&self, role: &[u8]) -> Vec<u8> {
        [DOMAIN, role, &self.body()].concat()
    }
}

/// The statements, oldest first, as a certificate carries them.
pub(super) fn write_all(statements: &[Rotation]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for statement in statements {
        put(&mut bytes, &statement.to_bytes());
    }
    bytes
}

/// Reads what [`write_all`] writes.
pub(super) fn read_all(bytes: &[u8]) -> Result<Vec<Rotation>, RotationError> {
    let mut reader = Reader(bytes);
    let mut statements = Vec::new();
    while !reader.0.is_empty() {
        if statements.len() == MAX_STATEMENTS {
            return Err(malformed("there are more than eight"));
        }
        let length = reader.length()?;
        statements.push(Rotation::from_bytes(reader.take(length)?)?);
    }
    Ok(statements)
}

/// The statements in a certificate; none where it has no such extension.
pub(super) fn in_certificate(
    certificate: &CertificateDer<'_>,
) -> Result<Vec<Rotation>, RotationError> {
    read_all(extension_of(certificate).unwrap_or_default())
}

/// Those of the statements in a certificate that can be read; none where there are more than eight.
pub(super) fn readable_in(certificate: &CertificateDer<'_>) -> Vec<Rotation> {
    readable(extension_of(certificate).unwrap_or_default())
}

/// The same of what [`write_all`] writes.
pub(super) fn readable(bytes: &[u8]) -> Vec<Rotation> {
    let mut reader = Reader(bytes);
    let mut statements = Vec::new();
    let mut count = 0;
    while let Ok(bytes) = reader.length().and_then(|length| reader.take(length)) {
        count += 1;
        if count > MAX_STATEMENTS {
            return Vec::new();
        }
        statements.extend(Rotation::from_bytes(bytes));
    }
    statements
}

/// What a certificate has where the statements stand.
fn extension_of<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let is_ours = |arcs: Option<Vec<u64>>| arcs.is_some_and(|arcs| arcs == EXTENSION);
    certificate
        .extensions()
        .iter()
        .find(|extension| is_ours(extension.oid.iter().map(Iterator::collect)))
        .map(|extension| extension.value)
}

/// The statements that lead from a key that the asker knows to the one that was presented, checked;
/// none where there are none. The path that begins latest is taken: the key that is known best.
pub(super) fn path(
    statements: Vec<Rotation>,
    presented: PeerId,
    now: UnixTime,
    knows: impl Fn(PeerId) -> bool,
) -> Result<Vec<Rotation>, RotationError> {
    let mut path: Vec<Rotation> = Vec::new();
    let mut wanted = presented;
    for statement in statements.into_iter().rev() {
        if statement.new_id() != wanted {
            break;
        }
        wanted = statement.old();
        path.push(statement);
        if knows(wanted) {
            path.reverse();
            path.iter().try_for_each(|statement| statement.check(now))?;
            return Ok(path);
        }
    }
    Ok(Vec::new())
}

/// The word before statements as text.
const TEXT: &str = "cepa-rotation:";

/// Statements as one line of text, for peers that are told by other means than a certificate.
#[must_use]
pub fn rotations_to_text(statements: &[Rotation]) -> String {
    format!("{TEXT}{}", BASE64.encode(&write_all(statements)))
}

/// Reads what [`rotations_to_text`] writes; white space around it does not matter.
pub fn rotations_from_text(text: &str) -> Result<Vec<Rotation>, RotationError> {
    let base64 = text
        .trim()
        .strip_prefix(TEXT)
        .ok_or(malformed("it begins with cepa-rotation:"))?;
    let bytes = BASE64
        .decode(base64.as_bytes())
        .map_err(|_| malformed("what follows is base64"))?;
    // The decoder takes padding in the middle too; one list of statements has one text.
    if BASE64.encode(&bytes) != base64 {
        return Err(malformed("what follows is base64 in one piece"));
    }
    read_all(&bytes)
}

fn spki(key: &dyn SigningKey) -> Result<Vec<u8>, RotationError> {
    let spki = key.public_key().ok_or_else(|| RotationError::Sign {
        reason: "its public half can't be told".into(),
    })?;
    Ok(spki.to_vec())
}

fn sign(key: &dyn SigningKey, message: &[u8]) -> Result<Signature, RotationError> {
    signature::sign(key, message).map_err(|reason| RotationError::Sign { reason })
}

fn malformed(reason: &'static str) -> RotationError {
    RotationError::Malformed { reason }
}

/// Two bytes of length, and the bytes. What we write is a key, a signature or a statement of those.
fn put(to: &mut Vec<u8>, part: &[u8]) {
    let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
    to.extend(length.to_be_bytes());
    to.extend(part.iter().take(usize::from(length)));
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RotationError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(malformed("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RotationError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| malformed("it is cut off"))
    }

    fn byte(&mut self) -> Result<u8, RotationError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<usize, RotationError> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn time(&mut self) -> Result<UnixTime, RotationError> {
        let seconds = u64::from_be_bytes(self.array()?);
        Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }

    fn part(&mut self) -> Result<&'a [u8], RotationError> {
        let length = self.length()?;
        if length > MAX_PART {
            return Err(malformed("a part is longer than 1024 bytes"));
        }
        self.take(length)
    }

    fn signature(&mut self) -> Result<Signature, RotationError> {
        Ok(Signature {
            scheme: u16::from_be_bytes(self.array()?),
            bytes: self.part()?.to_vec(),
        })
    }

    fn end(&self) -> Result<(), RotationError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(malformed("bytes follow its end"))
        }
    }
}
