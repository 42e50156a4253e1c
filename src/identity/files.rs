//! Files that are their owner's alone: how they are opened, checked and made.
//!
//! A file is opened first and then asked for its mode, so that what was checked is what is read,
//! whatever a symbolic link does meanwhile. New files have mode 0600 from their first moment; they
//! are drafts under a passing name until they are whole, and get their real name in one step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The permission bits of what was opened, where modes exist.
#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)] // the other branch has none
pub(super) fn mode(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(metadata.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
pub(super) fn mode(_: &fs::Metadata) -> Option<u32> {
    None
}

/// The mode, when others than the owner can do something with the file.
pub(crate) fn loose(metadata: &fs::Metadata) -> Option<u32> {
    mode(metadata).filter(|mode| mode & 0o077 != 0)
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
pub(super) fn private_options() -> OpenOptions {
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
