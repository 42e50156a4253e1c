//! Files that are their owner's alone: how they are opened, checked and made.
//!
//! A file is opened first and then asked for its mode, so that what was checked is what is read,
//! whatever a symbolic link does meanwhile. New files have mode 0600 from their first moment; they
//! are drafts under a passing name until they are whole, and get their real name in one step.
//!
//! A mode says what others than the owner may do, and nothing of who that is. So the owner has to be us or root, who
//! can do everything anyway; of the folder as well, since whoever owns it can put another file in the place of ours, and
//! so can everybody where everybody may write to it or to a folder above, unless it is sticky. That a *group* may write to a folder is left
//! to its owner: what a member puts there is that member's file, and refused.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Why a file or a folder is not its owner's alone, or not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposed {
    /// Others than the owner can do something with it.
    Mode(u32),
    /// It belongs to somebody who is neither us nor root.
    Owner { owner: u32, us: u32 },
}

/// Owner and permission bits of what was opened, and who we are.
#[derive(Clone, Copy, Debug)]
struct Held {
    mode: u32,
    owner: u32,
    us: u32,
}

impl Held {
    #[cfg(unix)]
    #[allow(clippy::unnecessary_wraps)] // the other branch has none
    fn of(metadata: &fs::Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        Some(Self {
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
            us: rustix::process::geteuid().as_raw(),
        })
    }

    /// Where there are neither modes nor owners.
    #[cfg(not(unix))]
    fn of(_: &fs::Metadata) -> Option<Self> {
        None
    }

    fn by_owner(self) -> Result<(), Exposed> {
        let Self { owner, us, .. } = self;
        if owner == us || owner == 0 {
            Ok(())
        } else {
            Err(Exposed::Owner { owner, us })
        }
    }

    /// Nobody but the owner may do anything with a file.
    fn as_file(self) -> Result<(), Exposed> {
        self.by_owner()?;
        if self.mode & 0o077 != 0 {
            return Err(Exposed::Mode(self.mode));
        }
        Ok(())
    }

    /// Not everybody may put something in the place of what is in a folder.
    fn as_folder(self) -> Result<(), Exposed> {
        self.by_owner()?;
        self.not_for_all()
    }

    /// The same of a folder above, whoever owns that.
    fn not_for_all(self) -> Result<(), Exposed> {
        const ALL_WRITE: u32 = 0o002;
        const STICKY: u32 = 0o1000;
        if self.mode & (ALL_WRITE | STICKY) == ALL_WRITE {
            Err(Exposed::Mode(self.mode))
        } else {
            Ok(())
        }
    }
}

/// Whether a file that was opened is private to us.
pub(crate) fn check_file(metadata: &fs::Metadata) -> Result<(), Exposed> {
    Held::of(metadata).map_or(Ok(()), Held::as_file)
}

/// Whether a file that was opened belongs to us or root, whatever its mode.
pub(super) fn check_owner(metadata: &fs::Metadata) -> Result<(), Exposed> {
    Held::of(metadata).map_or(Ok(()), Held::by_owner)
}

/// Why a file is not read that has to be its owner's alone. Each text is one line, without the file's name, and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// It is there, and can't be read.
    #[error("can't be read: {0}")]
    Read(#[source] io::Error),
    /// A symbolic link, or a folder.
    #[error("{what}: use a plain file, or move this away")]
    NotAFile {
        /// What it is instead.
        what: &'static str,
    },
    /// It has more bytes than it can have.
    #[error("it is larger than {} KiB: use another file, or move this away", most / 1024)]
    TooLarge {
        /// The most that it may have, in bytes.
        most: u64,
    },
    /// Others than the owner may read or write it.
    #[error(
        "other users may read or change it (mode {mode:04o}): check its contents, then run `chmod 600` on it"
    )]
    Permissions {
        /// Its mode, the permission bits only.
        mode: u32,
    },
    /// Somebody else owns it.
    #[error(
        "it belongs to user {owner}, not to you (user {us}) or root: check its contents, and make a copy of your own"
    )]
    NotOurs {
        /// Who owns it.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others can put another file in its place.
    #[error("{0}")]
    Folder(ExposedFolder),
}

/// The bytes of a file that has to be its owner's alone, as the known peers are, or none where there is no file.
///
/// # Errors
///
/// It is not its owner's alone, no plain file, of more than `most` bytes, or can't be read.
pub fn read_private(path: &Path, most: u64) -> Result<Option<Vec<u8>>, PrivateFileError> {
    // Before all else: where others can take the file away, there being none says nothing.
    check_folder(path).map_err(PrivateFileError::Folder)?;
    let named = match fs::symlink_metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PrivateFileError::Read(error)),
    };
    if !named.is_file() {
        return Err(PrivateFileError::NotAFile {
            what: if named.is_dir() {
                "it is a folder"
            } else if named.is_symlink() {
                "it is a symbolic link"
            } else {
                "it is a device or a pipe"
            },
        });
    }
    let file = File::open(path).map_err(PrivateFileError::Read)?;
    let opened = file.metadata().map_err(PrivateFileError::Read)?;
    if !opened.is_file() {
        // Exchanged between the two looks.
        return Err(PrivateFileError::NotAFile {
            what: "it is being replaced by something else",
        });
    }
    check_file(&opened).map_err(|why| match why {
        Exposed::Mode(mode) => PrivateFileError::Permissions { mode },
        Exposed::Owner { owner, us } => PrivateFileError::NotOurs { owner, us },
    })?;
    let mut text = Vec::new();
    file.take(most.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(PrivateFileError::Read)?;
    if text.len() as u64 > most {
        return Err(PrivateFileError::TooLarge { most });
    }
    Ok(Some(text))
}

/// A folder that others can exchange files in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedFolder {
    folder: PathBuf,
    why: Exposed,
}

impl std::fmt::Display for ExposedFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folder = quoted(&self.folder);
        match self.why {
            Exposed::Mode(mode) => write!(
                f,
                "every user can put another file in its place (its folder has mode {mode:04o}): run `chmod o-w {folder}`, or move it to a folder of your own"
            ),
            Exposed::Owner { owner, us } => write!(
                f,
                "user {owner}, who owns its folder {folder}, can put another file in its place, and is neither you (user {us}) nor root: move it to a folder of your own"
            ),
        }
    }
}

/// Whether the folder that a path names a file in is safe, and, where that file is a link, the folder of the file that
/// it leads to. What is not there is not looked at.
pub(super) fn check_folder(path: &Path) -> Result<(), ExposedFolder> {
    let real = fs::canonicalize(path).ok();
    let folders = [Some(folder_of(path)), real.as_deref().map(folder_of)];
    for folder in folders.into_iter().flatten() {
        let held = fs::metadata(folder).ok().as_ref().and_then(Held::of);
        held.map_or(Ok(()), Held::as_folder)
            .map_err(|why| ExposedFolder {
                folder: folder.to_owned(),
                why,
            })?;
    }
    // Who can put another folder in the place of one above can do all that as well (as OpenSSH's StrictModes has it).
    for folder in real.iter().flat_map(|real| real.ancestors().skip(2)) {
        let held = fs::metadata(folder).ok().as_ref().and_then(Held::of);
        held.map_or(Ok(()), Held::not_for_all)
            .map_err(|why| ExposedFolder {
                folder: folder.to_owned(),
                why,
            })?;
    }
    Ok(())
}

/// A path as a POSIX shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        text
    } else if text.starts_with('-') {
        format!("'./{}'", text.replace('\'', r"'\''"))
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The folder that a path names a file in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a folder and those above it, mode 0700; one that is there is left as it is.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(folder)
}

/// Makes a new file, mode 0600; never opens one that is there.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    private_options().write(true).create_new(true).open(path)
}

/// Options that make files with mode 0600.
pub(crate) fn private_options() -> OpenOptions {
    #[allow(unused_mut)] // where there are no modes
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options
}

/// The name must outlive a power cut as well as the content; not every file system can promise that.
pub(super) fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// A file under a passing name, removed when this goes, unless it was put in its place.
pub(crate) struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    /// Beside the target, so that a rename stays inside one file system.
    pub(crate) fn beside(target: &Path) -> io::Result<Self> {
        let folder = folder_of(target);
        let name = target
            .file_name()
            .ok_or(io::ErrorKind::IsADirectory)?
            .to_string_lossy();
        // A name left over by a process of the same number that was killed is stepped over.
        let mut number = 0_u32;
        loop {
            let path = folder.join(format!(".{name}.{}-{number}.new", std::process::id()));
            match create_private(&path) {
                Ok(file) => return Ok(Self { path, file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the content and sees it onto the disk.
    pub(crate) fn fill(&self, content: &[u8]) -> io::Result<()> {
        (&self.file).write_all(content)?;
        self.file.sync_all()
    }

    /// Gives it its name, if nothing has that name yet.
    pub(super) fn link_to(&self, target: &Path) -> io::Result<()> {
        fs::hard_link(&self.path, target)
    }

    /// Gives it its name, in place of what had it: whoever looks sees the old file or the new one.
    pub(crate) fn replace(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        sync_folder(folder_of(target));
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mode, owner and who we are; then what comes of it as a file, and as a folder.
    #[test]
    fn who_may_own_what_and_with_which_mode() {
        let alien = |owner, us| Err(Exposed::Owner { owner, us });
        let loose = |mode| Err(Exposed::Mode(mode));
        for (mode, owner, us, file, folder) in [
            (0o600, 1000, 1000, Ok(()), Ok(())),
            (0o400, 1000, 1000, Ok(()), Ok(())),
            (0o700, 1000, 1000, Ok(()), Ok(())),
            // Root can do everything anyway.
            (0o600, 0, 1000, Ok(()), Ok(())),
            (0o600, 0, 0, Ok(()), Ok(())),
            (0o1777, 0, 1000, loose(0o1777), Ok(())),
            // What is another user's is that user's to read and to exchange, whatever the mode says.
            (0o600, 1001, 1000, alien(1001, 1000), alien(1001, 1000)),
            (0o600, 1000, 0, alien(1000, 0), alien(1000, 0)),
            (0o644, 1001, 1000, alien(1001, 1000), alien(1001, 1000)),
            (0o1777, 1001, 1000, alien(1001, 1000), alien(1001, 1000)),
            (0o640, 1000, 1000, loose(0o640), Ok(())),
            (0o755, 1000, 1000, loose(0o755), Ok(())),
            (0o775, 1000, 1000, loose(0o775), Ok(())),
            (0o777, 1000, 1000, loose(0o777), loose(0o777)),
            (0o702, 1000, 1000, loose(0o702), loose(0o702)),
            (0o777, 0, 1000, loose(0o777), loose(0o777)),
        ] {
            let held = Held { mode, owner, us };
            assert_eq!(held.as_file(), file, "{held:?}");
            assert_eq!(held.as_folder(), folder, "{held:?}");
        }
    }
}
