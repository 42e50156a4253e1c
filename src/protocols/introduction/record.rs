//! What outlives the owner's process: when the newest introduction was issued that was let in or revoked. One line in a
//! file of the owner's own.
//!
//! It is written before that introduction is let in, so an earlier process has let in nothing newer than what its
//! successor reads, whatever the clocks do. The file is replaced in one step, has mode 0600, and is refused where others can
//! change it: who sets the line back brings back what was used up.
//!
//! Two processes with one file would set it back for each other, so a lock beside it is held as long as it is used.
//!
//! Where many come, the line says a second more than has come, so that it is written twice a second at most.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fs4::fs_std::FileExt as _;

use crate::identity::{Draft, Exposed, check_file, private_options};

/// Begins the line; its end is seconds and nanoseconds since 1970.
const HEAD: &str = "cepa introductions 1 ";
/// No line is longer.
const MAX_FILE: u64 = 64;
/// How much more than has come is written where they come quickly, and how quickly that is.
const STEP: Duration = Duration::from_secs(1);

/// What is wrong with a state file. The text is one line.
#[derive(Debug, thiserror::Error)]
#[error("the state file {}: {problem}", path.display())]
pub struct StateFileError {
    /// Which file.
    path: PathBuf,
    problem: StateFileProblem,
}

impl StateFileError {
    /// Which file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub fn problem(&self) -> &StateFileProblem {
        &self.problem
    }
}

/// What is wrong with a state file. The text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileProblem {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[source] io::Error),
    /// It can't be written.
    #[error("it can't be written: {0}")]
    Write(#[source] io::Error),
    /// It is something else.
    #[error(
        "it is not a state file of introductions: choose another path, or remove it, which refuses all introductions that others have made so far"
    )]
    Content,
    /// Another process uses it, or another node of this one.
    #[error("it is in use: stop the other process, or give each node a file of its own")]
    InUse,
    /// Others can read or write it.
    #[error("other users may read or change it (mode {mode:o}): run chmod 600 on it")]
    Permissions {
        /// Its mode.
        mode: u32,
    },
    /// Somebody else owns it, and so can change it.
    #[error(
        "it belongs to user {owner}, not to you (user {us}) or root: choose another path, or let root run chown on it"
    )]
    NotOurs {
        /// Who owns it.
        owner: u32,
        /// Who we are.
        us: u32,
    },
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    written: Mutex<Written>,
    /// Held while the file is written.
    writing: Mutex<()>,
    /// Locked until it is dropped, or its process ends.
    _lock: File,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    /// What the file says.
    mark: Duration,
    /// When it was written, by a clock that nobody sets.
    at: Option<Duration>,
}

impl Record {
    /// Reads the file, and makes it where there is none: then with `now`. Gives what it said.
    pub(super) fn open(
        path: &Path,
        now: Duration,
    ) -> Result<(Self, Option<Duration>), StateFileError> {
        let failed = |problem| StateFileError {
            path: path.to_owned(),
            problem,
        };
        let lock = lock_beside(path).map_err(failed)?;
        let mark = read(path).map_err(failed)?;
        let record = Self {
            path: path.to_owned(),
            written: Mutex::new(Written {
                mark: mark.unwrap_or(now),
                at: None,
            }),
            writing: Mutex::new(()),
            _lock: lock,
        };
        // Now, and not with the first introduction, it is said that it can't be written.
        let wrote = write(path, mark.unwrap_or(now));
        wrote.map_err(|error| failed(StateFileProblem::Write(error)))?;
        Ok((record, mark))
    }

    /// Whether the file says this much already.
    pub(super) fn covers(&self, issued: Duration) -> bool {
        issued <= lock(&self.written).mark
    }

    /// Sees to it that the file says this much at least; `passed` is a clock that nobody sets. Blocks while it is
    /// written. The error is one line.
    pub(super) fn raise(&self, issued: Duration, passed: Duration) -> Result<(), String> {
        let _writing = lock(&self.writing);
        let before = *lock(&self.written);
        if issued <= before.mark {
            return Ok(());
        }
        let recent = before.at.is_some_and(|at| passed < at.saturating_add(STEP));
        let mark = if recent {
            issued.saturating_add(STEP)
        } else {
            issued
        };
        write(&self.path, mark).map_err(|error| {
            let path = self.path.clone();
            let problem = StateFileProblem::Write(error);
            StateFileError { path, problem }.to_string()
        })?;
        let at = Some(passed);
        *lock(&self.written) = Written { mark, at };
        Ok(())
    }
}

/// Locks the file of that name with `.lock` behind it, which stays.
fn lock_beside(path: &Path) -> Result<File, StateFileProblem> {
    let mut name = path.to_owned().into_os_string();
    name.push(".lock");
    let name = PathBuf::from(name);
    if fs::symlink_metadata(&name).is_ok_and(|found| !found.is_file()) {
        return Err(StateFileProblem::Content);
    }
    let options = private_options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(name);
    let file = options.map_err(StateFileProblem::Write)?;
    match file.try_lock_exclusive() {
        Ok(true) => Ok(file),
        Ok(false) => Err(StateFileProblem::InUse),
        Err(error) => Err(StateFileProblem::Write(error)),
    }
}

fn read(path: &Path) -> Result<Option<Duration>, StateFileProblem> {
    match fs::symlink_metadata(path) {
        Ok(named) if !named.is_file() => return Err(StateFileProblem::Content),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateFileProblem::Read(error)),
    }
    let file = File::open(path).map_err(StateFileProblem::Read)?;
    let opened = file.metadata().map_err(StateFileProblem::Read)?;
    check_file(&opened).map_err(|why| match why {
        Exposed::Mode(mode) => StateFileProblem::Permissions { mode },
        Exposed::Owner { owner, us } => StateFileProblem::NotOurs { owner, us },
    })?;
    let mut bytes = Vec::new();
    let whole = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
    whole.map_err(StateFileProblem::Read)?;
    let text = String::from_utf8(bytes).map_err(|_| StateFileProblem::Content)?;
    parse(&text).map(Some).ok_or(StateFileProblem::Content)
}

fn write(path: &Path, mark: Duration) -> io::Result<()> {
    let draft = Draft::beside(path)?;
    draft.fill(print(mark).as_bytes())?;
    draft.replace(path)
}

fn print(mark: Duration) -> String {
    format!("{HEAD}{}.{:09}\n", mark.as_secs(), mark.subsec_nanos())
}

fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('\n')?.strip_prefix(HEAD)?;
    let (seconds, nanos) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(nanos) || nanos.len() != 9 {
        return None;
    }
    Some(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_written_is_read_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (record, mark) = Record::open(&path, at(100)).unwrap();
        assert_eq!(mark, None);
        assert!(record.covers(at(100)) && !record.covers(at(101)));
        record.raise(Duration::new(101, 7), at(0)).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "cepa introductions 1 101.000000007\n"
        );
        let used = Record::open(&path, at(5)).unwrap_err();
        assert!(matches!(used.problem(), StateFileProblem::InUse), "{used}");
        drop(record);
        let (record, mark) = Record::open(&path, at(5)).unwrap();
        assert_eq!(mark, Some(Duration::new(101, 7)));
        // Less changes nothing; soon after another one it is a second more, and then not written for a while.
        record.raise(at(90), at(1)).unwrap();
        record.raise(at(102), at(1)).unwrap();
        assert!(record.covers(at(102)) && !record.covers(Duration::new(102, 1)));
        record.raise(Duration::new(102, 1), at(1)).unwrap();
        assert!(record.covers(at(103)) && !record.covers(at(104)));
        drop(record);
        let (_, mark) = Record::open(&path, at(5)).unwrap();
        assert_eq!(mark, Some(Duration::new(103, 1)));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "no drafts are left"
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for text in [
            "",
            "cepa introductions 1 1.000000000",
            "cepa introductions 2 1.000000000\n",
            "cepa introductions 1 1.0\n",
            "cepa introductions 1 -1.000000000\n",
            "cepa introductions 1 99999999999999999999999.000000000\n",
            "cepa introductions 1 1.000000000\n\n",
        ] {
            fs::write(&path, text).unwrap();
            make_private(&path);
            let error = Record::open(&path, at(1)).unwrap_err();
            assert!(
                matches!(error.problem(), StateFileProblem::Content),
                "{text}"
            );
            assert!(!error.to_string().contains('\n'), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "left as it is");
        }
        let error = Record::open(folder.path(), at(1)).unwrap_err();
        assert!(matches!(error.problem(), StateFileProblem::Content));
        let error = Record::open(&folder.path().join("no/where"), at(1)).unwrap_err();
        assert!(matches!(error.problem(), StateFileProblem::Write(_)));
    }

    #[cfg(unix)]
    fn make_private(path: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[cfg(not(unix))]
    fn make_private(_: &Path) {}

    #[cfg(unix)]
    #[test]
    fn it_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (record, _) = Record::open(&path, at(1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        record.raise(at(2), at(0)).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(record);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        let error = Record::open(&path, at(1)).unwrap_err();
        assert!(matches!(
            error.problem(),
            StateFileProblem::Permissions { mode: 0o620 }
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (record, _) = Record::open(&path, at(1)).unwrap();
        // Where it can't be written nothing is forgotten of what it said.
        drop(folder);
        let error = record.raise(at(9), at(0)).unwrap_err();
        assert!(error.contains("can't be written"), "{error}");
        assert!(!record.covers(at(9)) && record.covers(at(2)));
    }
}
