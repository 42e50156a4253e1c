//! What can go wrong with our own key and certificate. Each text is one line and says what to do.

use std::io;
use std::path::PathBuf;

use super::certificate::CertificateError;
use super::files::{ExposedFolder, quoted};
use super::peer_id::PeerId;
use super::rotation::RotationError;

/// Our own identity can't be made, read or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// What follows happened in this file.
    #[error("{}: {problem}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: Box<IdentityError>,
    },
    /// The system's random source or the key generator failed; no key was made.
    #[error("cannot create a key ({reason}): check the system's random source")]
    Generate {
        /// What the cryptographic backend says.
        reason: String,
    },
    /// The file can't be opened or read.
    #[error("can't be read: {0}")]
    Read(#[source] io::Error),
    /// The file can't be made or written.
    #[error("can't be written: {0}")]
    Write(#[source] io::Error),
    /// A file of that name is there already.
    #[error("already exists, and is never overwritten: choose another name, or move it away")]
    Exists,
    /// Others may read the key.
    #[error(
        "other users may read or change this private key (mode {mode:04o}): run `chmod 600 {}`",
        quoted(path)
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode, the permission bits only.
        mode: u32,
    },
    /// Somebody else owns the file, and so can read and change it.
    #[error(
        "this private key belongs to user {owner}, not to you (user {us}) or root, so others may know it: use your own key, or let root run `chown {us} {}`",
        quoted(path)
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others can put another file in the place of this one.
    #[error("{0}")]
    Folder(ExposedFolder),
    /// A directory, or something of a size that no identity has.
    #[error("is not an identity file ({what}): choose another file, or create an identity")]
    NotAnIdentityFile {
        /// What it is instead.
        what: &'static str,
    },
    /// The PEM armour itself is damaged.
    #[error("is damaged PEM ({reason}): restore it from a copy, or make a new identity")]
    Pem {
        /// What the parser stumbled over.
        reason: String,
    },
    /// There is no private key.
    #[error("holds no private key: expected a `-----BEGIN PRIVATE KEY-----` section (PKCS#8)")]
    NoKey,
    /// There is more than one private key.
    #[error("holds {count} private keys: leave only the one that belongs to the certificate")]
    SeveralKeys {
        /// How many there are.
        count: usize,
    },
    /// There is no certificate where one is needed.
    #[error("holds no certificate: expected a `-----BEGIN CERTIFICATE-----` section")]
    NoCertificate,
    /// The private key is under a passphrase, and none was given.
    #[error("holds an encrypted private key: give its passphrase")]
    Encrypted,
    /// The private key is under a passphrase in OpenSSL's older way.
    #[error(
        "holds a private key in OpenSSL's old encrypted format: convert it with `openssl pkcs8 -topk8 -scrypt -in FILE -out NEWFILE`"
    )]
    EncryptedOldWay,
    /// Another passphrase, or a damaged key.
    #[error("the passphrase is wrong, or the key is damaged: try again")]
    Passphrase,
    /// A passphrase of no characters protects nothing.
    #[error("an empty passphrase protects nothing: choose one, or none at all")]
    EmptyPassphrase,
    /// Keys under a passphrase are left out of this build.
    #[error(
        "holds a private key under a passphrase, or is to hold one, and this build is without them (feature `passphrase`): use a key without one"
    )]
    NoPassphrases,
    /// The key is of a kind that the backend does not take.
    #[error(
        "holds a private key that can't be used ({reason}): use Ed25519, P-256, P-384 or RSA of 2048 to 4096 bits, as PKCS#8"
    )]
    Key {
        /// What the backend says.
        reason: String,
    },
    /// The certificate can't be used.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The old key can't sign for the new one.
    #[error("{0}")]
    Rotation(#[from] RotationError),
    /// Key and certificate are of different pairs.
    #[error(
        "the certificate (peer id {certificate}) does not match this private key (peer id {key}): use the two that belong together"
    )]
    Mismatch {
        /// Id of the key in the certificate.
        certificate: PeerId,
        /// Id of the private key's public half.
        key: PeerId,
    },
}

impl IdentityError {
    /// The same problem, with the file it is in.
    pub(super) fn in_file(self, path: &std::path::Path) -> Self {
        match self {
            done @ Self::InFile { .. } => done,
            problem => Self::InFile {
                path: path.to_owned(),
                problem: Box::new(problem),
            },
        }
    }

    /// The problem itself, without the name of the file it is in.
    #[must_use]
    pub fn problem(&self) -> &Self {
        match self {
            Self::InFile { problem, .. } => problem.problem(),
            problem => problem,
        }
    }
}
