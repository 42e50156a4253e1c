//! Identity files: who may read them, and how they come to be.
//!
//! Reading: the file is opened first and then asked for its mode, so that what was checked is what
//! is read, whatever a symbolic link does meanwhile. A link to one's own key is fine; what counts is
//! the mode of the file at its end. Anything beyond `rw-------` is refused: a key that others could
//! read must be taken as read. So is what belongs to another user, or lies where one could exchange it.
//!
//! Writing: into a new file beside the target, mode 0600 from its first moment, which is then
//! *linked* to the target's name. A link is never made over an existing name, a dangling symbolic
//! link included, and whoever sees the name sees a whole file; so two processes that both make the
//! default identity at first use end up with one. Where the file system has no links (FAT), the
//! target itself is opened with O_EXCL.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::error::IdentityError;
use super::files::{self, Draft, Exposed};
use super::key::{Identity, KeyKind};

/// No identity is larger; a file that is must be something else.
const MAX_FILE: u64 = 1 << 20;

impl Identity {
    /// Reads an identity from a PEM file that only its owner can read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        read_private(path)
            .and_then(|pem| Self::from_pem_bytes(&pem))
            .map_err(|error| error.in_file(path))
    }

    /// [`load`](Self::load), for a private key that is under a passphrase; see
    /// [`from_encrypted_pem`](Self::from_encrypted_pem).
    pub fn load_encrypted(
        path: impl AsRef<Path>,
        passphrase: &[u8],
    ) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        read_private(path)
            .and_then(|pem| Self::from_encrypted_pem_bytes(&pem, passphrase))
            .map_err(|error| error.in_file(path))
    }

    /// Reads a certificate (chain) and its key from two PEM files; the key's must be readable by its
    /// owner alone.
    pub fn load_pair(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, IdentityError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let key_pem = read_private(key).map_err(|error| error.in_file(key))?;
        let chain = open(certificate)
            .and_then(|(file, _)| read_bounded(file))
            .map_err(|error| error.in_file(certificate))?;
        Self::from_pem_bytes_pair(&chain, &key_pem).map_err(|error| {
            let file = match error {
                IdentityError::NoCertificate | IdentityError::Certificate(_) => certificate,
                _ => key,
            };
            error.in_file(file)
        })
    }

    /// Writes the identity into a new file, mode 0600. An existing file, or a symbolic link of that
    /// name, is never touched. Missing folders are made, mode 0700.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let path = path.as_ref();
        write_new(path, self.to_pem().as_bytes()).map_err(|error| error.in_file(path))
    }

    /// [`save`](Self::save), with the private key under a passphrase.
    pub fn save_encrypted(
        &self,
        path: impl AsRef<Path>,
        passphrase: &[u8],
    ) -> Result<(), IdentityError> {
        let path = path.as_ref();
        self.to_encrypted_pem(passphrase)
            .and_then(|pem| write_new(path, pem.as_bytes()))
            .map_err(|error| error.in_file(path))
    }

    /// Puts this identity in the place of another one, whose key it replaces, in one step: who reads the
    /// file meanwhile gets the one or the other. The old one is kept in `keep` first, a new file; if
    /// that is there already, somebody else is doing the same, and nothing is changed. With a passphrase
    /// both private keys are put under it.
    pub fn save_over(
        &self,
        old: &Self,
        path: impl AsRef<Path>,
        keep: impl AsRef<Path>,
        passphrase: Option<&[u8]>,
    ) -> Result<(), IdentityError> {
        let (path, keep) = (path.as_ref(), keep.as_ref());
        // Through a symbolic link, so that the file at its end is replaced and not the link.
        let real =
            fs::canonicalize(path).map_err(|error| IdentityError::Read(error).in_file(path))?;
        let pem = if let Some(passphrase) = passphrase {
            old.save_encrypted(keep, passphrase)?;
            Zeroizing::new(self.to_encrypted_pem(passphrase)?)
        } else {
            old.save(keep)?;
            self.to_pem()
        };
        let draft = Draft::beside(&real);
        draft
            .and_then(|draft| {
                draft.fill(pem.as_bytes())?;
                draft.replace(&real)
            })
            .map_err(|error| IdentityError::Write(error).in_file(path))
    }

    /// Reads the identity file, or makes it when there is none: for a default identity that comes
    /// to be at first use. The second of two processes that do this at once gets the first's.
    pub fn load_or_create(path: impl AsRef<Path>, kind: KeyKind) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(error) if is_missing(&error) => {}
            done => return done,
        }
        let made = Self::generate(kind)?;
        match made.save(path) {
            Err(error) if matches!(error.problem(), IdentityError::Exists) => Self::load(path),
            done => done.map(|()| made),
        }
    }
}

fn is_missing(error: &IdentityError) -> bool {
    matches!(error.problem(), IdentityError::Read(source) if source.kind() == io::ErrorKind::NotFound)
}

/// Reads a file that must be private.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let (file, metadata) = open(path)?;
    files::check_folder(path).map_err(IdentityError::Folder)?;
    let path = path.to_owned();
    // Write permission counts too: who can change the file can make us be someone else.
    let Err(why) = files::check_file(&metadata) else {
        return read_bounded(file);
    };
    // How to make it private is no advice for a file of something else, such as one of the system's.
    if metadata.is_file() && !has_pem(&read_bounded(file)?) {
        return Err(IdentityError::NotAnIdentityFile {
            what: "it holds nothing in PEM",
        });
    }
    Err(match why {
        Exposed::Mode(mode) => IdentityError::Permissions { path, mode },
        Exposed::Owner { owner, us } => IdentityError::NotOurs { path, owner, us },
    })
}

/// Whether there is something in it that could be a key or a certificate (RFC 7468, section 2).
fn has_pem(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN)
}

/// Opens a file for reading, and tells what was opened.
fn open(path: &Path) -> Result<(File, fs::Metadata), IdentityError> {
    // A pipe with a name would be waited for.
    let kind = fs::metadata(path).map_err(IdentityError::Read)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(IdentityError::NotAnIdentityFile {
            what: "it is no regular file",
        });
    }
    let file = File::open(path).map_err(IdentityError::Read)?;
    let metadata = file.metadata().map_err(IdentityError::Read)?;
    if metadata.is_dir() {
        return Err(IdentityError::NotAnIdentityFile {
            what: "it is a folder",
        });
    }
    Ok((file, metadata))
}

fn read_bounded(file: File) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    // Sized in advance, so that no half-read copy of a key is left in freed memory.
    let size = file
        .metadata()
        .map_or(0, |metadata| metadata.len())
        .min(MAX_FILE);
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(size).unwrap_or(0) + 4096,
    ));
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(IdentityError::Read)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(IdentityError::NotAnIdentityFile {
            what: "it is larger than 1 MiB",
        });
    }
    Ok(bytes)
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let folder = files::folder_of(path);
    files::make_folder(folder).map_err(IdentityError::Write)?;
    files::check_folder(path).map_err(IdentityError::Folder)?;
    if path.file_name().is_none() {
        return Err(IdentityError::NotAnIdentityFile {
            what: "it is a folder",
        });
    }
    let draft = Draft::beside(path).map_err(IdentityError::Write)?;
    draft.fill(content).map_err(IdentityError::Write)?;
    match draft.link_to(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(IdentityError::Exists);
        }
        // Told apart from a folder that can't be written: the draft could.
        Err(_) => write_directly(path, content)?,
    }
    files::sync_folder(folder);
    Ok(())
}

fn write_directly(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let mut file = files::create_private(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => IdentityError::Exists,
        _ => IdentityError::Write(error),
    })?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(|error| {
            // Half a key under the right name would only be in the way.
            let _ = fs::remove_file(path);
            IdentityError::Write(error)
        })
}
