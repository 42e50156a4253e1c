//! Files below one folder, and nothing outside of it: the system itself resolves each path (`openat2` with
//! `RESOLVE_BENEATH`), so that neither `..`, nor an absolute path, nor a symlink, nor a folder that somebody renames meanwhile leads out.
//!
//! What a person names may lead through symlinks that stay below the folder ([`Links::Inside`]); what a transfer finds or makes on its way
//! goes through none ([`Links::Never`]). A system without `openat2` (Linux before 5.6, and others) is asked for one name
//! after the other, and follows none at all.
//!
//! A special file is never opened: opening a pipe waits, and opening a device does things.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::wire::{Meta, PATH_MAX};

/// Which symlinks a path may lead through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    Inside,
    Never,
}

/// Permissions of what is made, before it has its own.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// The same in the words of this tool, where the system's are misleading.
fn told(e: Errno) -> io::Error {
    match e {
        Errno::XDEV => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it leads out of the folder of the service",
        ),
        Errno::LOOP => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a symlink on the way is not followed",
        ),
        e => e.into(),
    }
}

#[cfg(target_os = "linux")]
fn resolved(
    at: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: u32,
    links: Links,
) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Never {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let mode = Mode::from_raw_mode(mode);
    let mut tries = 0;
    loop {
        match fs::openat2(at, path, flags, mode, resolve) {
            // Something was renamed at this moment, so that the system can't tell whether it stayed inside.
            Err(Errno::AGAIN | Errno::INTR) if tries < 100 => tries += 1,
            // An old system, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return by_name(at, path, flags, mode),
            result => return result,
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn resolved(
    at: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: u32,
    _links: Links,
) -> Result<OwnedFd, Errno> {
    by_name(at, path, flags, Mode::from_raw_mode(mode as fs::RawMode))
}

/// One name after the other, and no symlink.
fn by_name(at: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    if path.first() == Some(&b'/') {
        return Err(Errno::XDEV);
    }
    let names = path.split(|b| *b == b'/');
    let mut names = names
        .filter(|name| !name.is_empty() && *name != b".")
        .peekable();
    let mut folder = fs::openat(at, ".", FOLDER, Mode::empty())?;
    if names.peek().is_none() {
        return Ok(folder);
    }
    while let Some(name) = names.next() {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let last = names.peek().is_none();
        let flags = if last { flags } else { FOLDER };
        let next = fs::openat(&folder, name, flags | OFlags::NOFOLLOW, mode)?;
        if last {
            return Ok(next);
        }
        folder = next;
    }
    Ok(folder)
}

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink,
    Special,
}

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) meta: Meta,
    /// Which file it is, whatever its name.
    pub(crate) id: (u64, u64),
}

#[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // the types differ between systems
fn found(stat: &Stat) -> Found {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    };
    Found {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        meta: Meta {
            mode: (stat.st_mode & 0o777) as u16,
            seconds: stat.st_mtime as i64,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
        id: (stat.st_dev as u64, stat.st_ino as u64),
    }
}

/// What an open file is.
pub(crate) fn of_open(file: impl AsFd) -> io::Result<Found> {
    Ok(found(&fs::fstat(file)?))
}

/// Gives an open file or folder its permissions and its time.
pub(crate) fn set_meta(file: impl AsFd, meta: Meta) -> io::Result<()> {
    let time = Timespec {
        tv_sec: meta.seconds,
        tv_nsec: meta.nanos.into(),
    };
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_OMIT,
        },
        last_modification: time,
    };
    fs::fchmod(&file, Mode::from_raw_mode(meta.mode.into()))?;
    Ok(fs::futimens(&file, &times)?)
}

impl Folder {
    /// Any folder of this machine.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::openat(CWD, path, FOLDER, Mode::empty())?))
    }

    /// What there is at any path of this machine, a symlink at its end followed.
    pub(crate) fn look_anywhere(path: &Path) -> io::Result<Found> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        Ok(found(&fs::statat(CWD, path, AtFlags::empty())?))
    }

    /// A folder below this one; an empty path is this one.
    pub(crate) fn folder(&self, path: &[u8], links: Links) -> io::Result<Self> {
        self.resolve(path, FOLDER, 0, links).map(Self)
    }

    fn resolve(&self, path: &[u8], flags: OFlags, mode: u32, links: Links) -> io::Result<OwnedFd> {
        if path.len() > PATH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        if path.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        let path = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::CLOEXEC;
        resolved(self.as_fd(), path, flags, mode, links).map_err(told)
    }

    /// A file below this folder, to be read.
    pub(crate) fn file(&self, path: &[u8], links: Links) -> io::Result<(File, Found)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.resolve(path, flags, 0, links)?;
        let found = of_open(&file)?;
        Ok((file.into(), found))
    }

    /// What there is below this folder at a path, a symlink at its end followed or not.
    pub(crate) fn look(&self, path: &[u8], links: Links) -> io::Result<Found> {
        let file = self.resolve(path, OFlags::PATH, 0, links)?;
        of_open(file)
    }

    /// The same for a name in this folder, itself; `None`: there is nothing.
    pub(crate) fn at(&self, name: &[u8]) -> io::Result<Option<Found>> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(found(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// A file with this name, to be written; made where `make`.
    pub(crate) fn writable(&self, name: &[u8], make: bool) -> io::Result<File> {
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        if make {
            flags |= OFlags::CREATE;
        }
        let file = self.resolve(
            name,
            flags,
            if make { PRIVATE_FILE } else { 0 },
            Links::Never,
        )?;
        if of_open(&file)?.kind != Kind::File {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(file.into())
    }

    /// Makes a folder.
    pub(crate) fn make(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::mkdirat(
            &self.0,
            name,
            Mode::from_raw_mode(PRIVATE_FOLDER),
        )?)
    }

    pub(crate) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    pub(crate) fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// The names of what is in it, in order.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// A path of bytes, as the standard library has it.
pub(crate) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder `in` with a file `f` and links of all kinds, beside a file `secret`.
    fn place() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(inside.join("f"), "f").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("../secret", inside.join("up")).unwrap();
        symlink(dir.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("..", inside.join("out")).unwrap();
        symlink("f", inside.join("here")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        (dir, folder)
    }

    const OUT: &[&[u8]] = &[
        b"..",
        b"../secret",
        b"/etc/passwd",
        b"sub/../../secret",
        b"up",
        b"absolute",
        b"out/secret",
        b"magic/etc/passwd",
        b"f\0",
    ];

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let (_dir, folder) = place();
        for path in OUT {
            for links in [Links::Inside, Links::Never] {
                assert!(folder.file(path, links).is_err(), "{path:?}");
                assert!(folder.look(path, links).is_err(), "{path:?}");
                assert!(folder.folder(path, links).is_err(), "{path:?}");
            }
            assert!(folder.writable(path, true).is_err(), "{path:?}");
        }
        for (path, links, fine) in [
            (&b"f"[..], Links::Never, true),
            (b"./sub/../f", Links::Never, true),
            (b"here", Links::Inside, true),
            (b"here", Links::Never, false),
        ] {
            assert_eq!(folder.file(path, links).is_ok(), fine, "{path:?}");
        }
    }

    #[test]
    fn without_the_call_no_path_leads_out_either() {
        let (_dir, folder) = place();
        let open = |path: &[u8]| by_name(folder.as_fd(), path, OFlags::RDONLY, Mode::empty());
        for path in OUT {
            assert!(open(path).is_err(), "{path:?}");
        }
        assert!(open(b"here").is_err());
        assert!(open(b"./f").is_ok());
        assert!(open(b"sub/").is_ok());
    }

    #[test]
    fn a_pipe_is_neither_waited_for_nor_written() {
        let (dir, folder) = place();
        let fifo = dir.path().join("in/fifo");
        fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(folder.at(b"fifo").unwrap().unwrap().kind, Kind::Special);
        assert_eq!(
            folder.file(b"fifo", Links::Never).unwrap().1.kind,
            Kind::Special
        );
        assert!(folder.writable(b"fifo", true).is_err());
    }
}
