//! The known-peers file: locked while it is changed, replaced in one step, its owner's alone.
//!
//! A change locks a file beside it (`known_peers.lock`; the file itself is replaced, so a lock on it
//! would lock what is gone), reads, changes and writes a draft, which takes the old one's name. So two
//! processes that meet a peer for the first time do so one after the other, and a reader, who needs
//! no lock, sees the text before or after, never half of it.
//!
//! What others can read or write is refused, what belongs to another user, or lies where one could exchange it, and so is
//! a symbolic link: the next change would put a file in its place, where its target was meant. A file that is not there is an empty list; one that
//! is there and can't be read is an error, never an empty list.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs4::fs_std::FileExt as _;

use super::document::{EditError, KnownPeers};
use crate::identity::files::{self, Draft, Exposed, ExposedFolder, PrivateFileError};

/// Tens of thousands of peers; a file that is larger must be something else.
const MAX_FILE: u64 = 4 << 20;
/// A change takes milliseconds; who holds the lock for longer is stuck.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What a new file begins with.
const HEAD: &str = "\
# The peers that cepa knows here, one a line: NAME PEERID [first=TIME] [how=WORD] [at=ADDRESS]
# Edit it while no cepa is writing it, or use `cepa peer`.
";

/// Where the known peers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeersFile {
    path: PathBuf,
}

/// The list can't be read or changed. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct KnownPeersError {
    path: PathBuf,
    #[source]
    problem: KnownPeersProblem,
}

impl KnownPeersError {
    /// What is wrong, without the name of the file.
    #[must_use]
    pub fn problem(&self) -> &KnownPeersProblem {
        &self.problem
    }
}

/// What is wrong with the known-peers file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnownPeersProblem {
    /// It is there, and can't be read.
    #[error("can't be read: {0}")]
    Read(#[source] io::Error),
    /// It can't be written.
    #[error("can't be written: {0}")]
    Write(#[source] io::Error),
    /// A symbolic link, a folder, or something of a size that no list has.
    #[error("is not a known-peers file ({what}): use a plain file, or move this away")]
    NotAFile {
        /// What it is instead.
        what: &'static str,
    },
    /// Others than the owner may read or write it.
    #[error(
        "other users may read or change it (mode {mode:04o}): check its contents, then run `chmod 600` on it"
    )]
    Permissions {
        /// Its mode, the permission bits only.
        mode: u32,
    },
    /// Somebody else owns it, or the lock file beside it, and so can change it.
    #[error(
        "it or its .lock file belongs to user {owner}, not to you (user {us}) or root: check its contents, and make a copy of your own"
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
    /// Another process keeps it locked.
    #[error("another process has held its lock for 5 seconds: end that process, and try again")]
    Locked,
    /// The change itself is not possible.
    #[error("{0}")]
    Edit(#[from] EditError),
}

impl KnownPeersFile {
    /// The file at that path, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the list. A file that is not there is an empty one.
    pub fn read(&self) -> Result<KnownPeers, KnownPeersError> {
        self.read_bytes()
            .map(|text| KnownPeers::parse(&text.unwrap_or_default()))
            .map_err(|problem| self.error(problem))
    }

    /// Reads the list, changes it and writes it, while no other process does. An error of `change`
    /// leaves the file as it was. Blocks, 5 seconds at most, while another process holds the lock.
    pub fn update<T, E: From<KnownPeersError>>(
        &self,
        change: impl FnOnce(&mut KnownPeers) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = |problem| E::from(self.error(problem));
        files::make_folder(files::folder_of(&self.path))
            .map_err(|error| failed(KnownPeersProblem::Write(error)))?;
        files::check_folder(&self.path).map_err(|why| failed(KnownPeersProblem::Folder(why)))?;
        let _lock = self.lock().map_err(failed)?;
        let text = self.read_bytes().map_err(failed)?;
        let before = text.unwrap_or_else(|| HEAD.as_bytes().to_vec());
        let mut known = KnownPeers::parse(&before);
        let done = change(&mut known)?;
        let after = known.to_bytes();
        if after != before {
            self.write(&after)
                .map_err(|error| failed(KnownPeersProblem::Write(error)))?;
        }
        Ok(done)
    }

    /// [`update`](Self::update) for changes that can only fail as changes of the list do.
    pub fn edit<T>(
        &self,
        change: impl FnOnce(&mut KnownPeers) -> Result<T, EditError>,
    ) -> Result<T, KnownPeersError> {
        self.update(|known| change(known).map_err(|e| self.error(KnownPeersProblem::Edit(e))))
    }

    fn error(&self, problem: KnownPeersProblem) -> KnownPeersError {
        KnownPeersError {
            path: self.path.clone(),
            problem,
        }
    }

    /// The bytes of the file, or none where there is no file.
    fn read_bytes(&self) -> Result<Option<Vec<u8>>, KnownPeersProblem> {
        files::read_private(&self.path, MAX_FILE).map_err(|why| match why {
            PrivateFileError::Read(e) => KnownPeersProblem::Read(e),
            PrivateFileError::TooLarge { .. } => KnownPeersProblem::NotAFile {
                what: "it is larger than 4 MiB",
            },
            PrivateFileError::NotAFile { what } => KnownPeersProblem::NotAFile { what },
            PrivateFileError::Permissions { mode } => KnownPeersProblem::Permissions { mode },
            PrivateFileError::NotOurs { owner, us } => KnownPeersProblem::NotOurs { owner, us },
            PrivateFileError::Folder(why) => KnownPeersProblem::Folder(why),
        })
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let draft = Draft::beside(&self.path)?;
        draft.fill(text)?;
        draft.replace(&self.path)
    }

    /// The lock ends when the file is dropped, or its process ends.
    fn lock(&self) -> Result<File, KnownPeersProblem> {
        let mut name = self.path.clone().into_os_string();
        name.push(".lock");
        let path = PathBuf::from(name);
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(KnownPeersProblem::NotAFile {
                what: "the lock file beside it is no plain file",
            });
        }
        let file = files::private_options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(KnownPeersProblem::Write)?;
        // There is nothing to read in it; but its owner could keep it locked for ever.
        let opened = file.metadata().map_err(KnownPeersProblem::Read)?;
        files::check_owner(&opened).map_err(exposed)?;
        let start = Instant::now();
        loop {
            match file.try_lock_exclusive() {
                Ok(true) => return Ok(file),
                Ok(false) if start.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_PAUSE),
                Ok(false) => return Err(KnownPeersProblem::Locked),
                Err(error) => return Err(KnownPeersProblem::Write(error)),
            }
        }
    }
}

fn exposed(why: Exposed) -> KnownPeersProblem {
    match why {
        Exposed::Mode(mode) => KnownPeersProblem::Permissions { mode },
        Exposed::Owner { owner, us } => KnownPeersProblem::NotOurs { owner, us },
    }
}
