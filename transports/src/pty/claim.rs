//! Who has made the link to a pty's slave. The number of a slave is given to somebody else as soon as it is free, so a link
//! that a killed process left behind may lead to a stranger's pty, and nothing about the link shows that.
//!
//! So a file beside it (`.NAME.cepa`) names what it leads to, and is locked (flock(2)) as long as its maker lives. A link that is as the
//! file says, and a file that nobody locks, are left over, and are replaced; any other link is left alone.
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A link and the lock that says that its maker is there. Dropping it removes both.
pub(super) struct Claim {
    link: PathBuf,
    slave: PathBuf,
    beside: PathBuf,
    _lock: File,
}

impl Claim {
    /// Makes the link.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`]: something is there that nobody of ours has left behind.
    pub(super) fn new(slave: &Path, link: &Path) -> io::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(link.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(".cepa");
        let beside = link.with_file_name(name);
        // Not followed, and not made, where the link is another's: nothing is left beside it then.
        let found = std::fs::read_link(link);
        let is_free = matches!(&found, Err(e) if e.kind() == io::ErrorKind::NotFound);
        if !is_free && found.is_err() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut lock = lock(&beside)?;
        if let Ok(target) = found {
            let mut left = Vec::new();
            (&lock).take(4096).read_to_end(&mut left)?;
            // What leads nowhere is nobody's, and what leads to the pty just made has its number from before.
            let is_ours = left == target.as_os_str().as_bytes()
                || target == slave
                || std::fs::metadata(link).is_err();
            if !is_ours {
                if left.is_empty() {
                    let _ = std::fs::remove_file(&beside);
                }
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::remove_file(link)?;
        }
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(slave.as_os_str().as_bytes())?;
        symlink(slave, link)?;
        Ok(Self {
            link: link.to_owned(),
            slave: slave.to_owned(),
            beside,
            _lock: lock,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if std::fs::read_link(&self.link).is_ok_and(|target| target == self.slave) {
            let _ = std::fs::remove_file(&self.link);
        }
        // Before the lock is given up: whoever has opened it meanwhile looks whether it is still there.
        let _ = std::fs::remove_file(&self.beside);
    }
}

/// The locked file; [`io::ErrorKind::AlreadyExists`] where its maker lives.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let here = file.metadata()?;
        // Removed by who had it before: lock the one that is there now.
        if std::fs::symlink_metadata(path)
            .is_ok_and(|at| at.ino() == here.ino() && at.dev() == here.dev())
        {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_replaced_whoever_has_its_number_now() {
        let folder = tempfile::tempdir().unwrap();
        let (link, others) = (folder.path().join("line"), folder.path().join("others"));
        std::fs::write(&others, "").unwrap();
        let claim = Claim::new(&others, &link).unwrap();
        // While it is there nobody takes it.
        let taken = Claim::new(Path::new("/dev/null"), &link).err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        // As after a kill: the lock is gone, and nothing else.
        let left = std::fs::read(folder.path().join(".line.cepa")).unwrap();
        drop(claim);
        symlink(&others, &link).unwrap();
        std::fs::write(folder.path().join(".line.cepa"), left).unwrap();
        let claim = Claim::new(Path::new("/dev/null"), &link).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("/dev/null"));
        drop(claim);
        let rest: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(rest.len(), 1, "{rest:?}");
    }

    #[test]
    fn what_is_anothers_stays_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("line");
        for make in [
            (|at: &Path| symlink("/dev/null", at)) as fn(&Path) -> io::Result<()>,
            |at| std::fs::write(at, "x"),
            |at| std::fs::create_dir(at),
        ] {
            make(&link).unwrap();
            let error = Claim::new(Path::new("/dev/zero"), &link).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
            let _ = std::fs::remove_file(&link);
        }
    }
}
