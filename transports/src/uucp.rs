//! Lock files of serial lines, `LCK..ttyUSB0`: older than any other lock, and what minicom, picocom, pppd and UUCP mind.
//!
//! Such a file holds the number of the process that has the line, "ten byte ASCII decimal number, with a trailing newline" (FHS 3.0,
//! section 5.9). It is written under another name and linked into its place, so that nobody reads half of it. One whose process is
//! gone is replaced. It goes with the line.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::endpoint::SerialLock;
use crate::error::describe;

/// How often a file of a process that is gone is removed; somebody else may be as quick.
const TRIES: usize = 8;

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct Lock {
    file: PathBuf,
    text: String,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Locked {
    /// Another process has the line, or what stands there is not known.
    Held(String),
    /// It can't be made.
    Failed(PathBuf, io::Error),
}

/// The lock of a device as its settings want it; the text is a remark about one that can't be had.
pub(crate) fn take(
    device: &Path,
    wanted: &SerialLock,
    shared: bool,
    pty: bool,
) -> Result<(Option<Lock>, Option<String>), Locked> {
    let folder = Path::new(SerialLock::FOLDER);
    match wanted {
        SerialLock::No => Ok((None, None)),
        SerialLock::Usual if shared || pty || !folder.is_dir() => Ok((None, None)),
        SerialLock::Usual => match lock(&file_of(device, folder)) {
            Ok(lock) => Ok((Some(lock), None)),
            Err(Locked::Failed(file, e)) => {
                let remark = format!(
                    "warning: no lock file at {} ({}), so programs that go by those don't see that the line is in use; lock=no for none",
                    file.display(),
                    describe(&e)
                );
                Ok((None, Some(remark)))
            }
            Err(held) => Err(held),
        },
        SerialLock::Yes => Ok((Some(lock(&file_of(device, folder))?), None)),
        SerialLock::At(path) if path.is_dir() => Ok((Some(lock(&file_of(device, path))?), None)),
        SerialLock::At(file) => Ok((Some(lock(file)?), None)),
    }
}

/// Named after the device itself, whatever links lead to it; of one in a folder of `/dev` each `/` becomes `_`.
fn file_of(device: &Path, folder: &Path) -> PathBuf {
    let real = device.canonicalize();
    let real = real.as_deref().unwrap_or(device);
    let name = real.strip_prefix("/dev").unwrap_or(real);
    let name = name.to_string_lossy();
    folder.join(format!(
        "LCK..{}",
        name.trim_start_matches('/').replace('/', "_")
    ))
}

fn lock(file: &Path) -> Result<Lock, Locked> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let failed = |e| Locked::Failed(file.to_owned(), e);
    let pid = std::process::id();
    let text = format!("{pid:10}\n");
    let mut name = std::ffi::OsString::from("LTMP.");
    name.push(format!("{pid}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let written = file.with_file_name(name);
    // Somebody's from another time, with the same number.
    let _ = fs::remove_file(&written);
    let made = fs::File::create_new(&written).and_then(|mut file| {
        use std::io::Write as _;
        file.write_all(text.as_bytes())
    });
    let taken = made.map_err(failed).and_then(|()| link(&written, file));
    let _ = fs::remove_file(&written);
    taken.map(|()| Lock {
        file: file.to_owned(),
        text,
    })
}

fn link(written: &Path, file: &Path) -> Result<(), Locked> {
    let failed = |e| Locked::Failed(file.to_owned(), e);
    for _ in 0..TRIES {
        match fs::hard_link(written, file) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e)),
        }
        let found = match fs::read(file) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed(e)),
        };
        let Some(owner) = owner(&found) else {
            let why = format!("its lock file {} does not name a process", file.display());
            return Err(Locked::Held(why));
        };
        if lives(owner) {
            let number = owner.as_raw_nonzero();
            return Err(Locked::Held(format!(
                "process {number} holds it, according to the lock file {}",
                file.display()
            )));
        }
        // The very file that was read, not one that came since.
        if fs::read(file).is_ok_and(|now| now == found)
            && let Err(e) = fs::remove_file(file)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(e));
        }
    }
    Err(Locked::Held(format!(
        "other programs keep taking its lock file {}",
        file.display()
    )))
}

/// In digits, or as four bytes, as the oldest programs have it.
fn owner(found: &[u8]) -> Option<Pid> {
    let word = std::str::from_utf8(found)
        .ok()
        .and_then(|text| text.split_whitespace().next());
    let digits = word.filter(|word| word.bytes().all(|b| b.is_ascii_digit()));
    let number = match digits {
        Some(digits) => digits.parse().ok()?,
        None => i32::from_ne_bytes(*found.first_chunk().filter(|_| found.len() == 4)?),
    };
    Pid::from_raw(number).filter(|_| number > 0)
}

fn lives(owner: Pid) -> bool {
    // One of another user may not be signalled, and lives.
    !matches!(test_kill_process(owner), Err(Errno::SRCH))
}

impl Drop for Lock {
    fn drop(&mut self) {
        if fs::read(&self.file).is_ok_and(|now| now == self.text.as_bytes()) {
            let _ = fs::remove_file(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of a process that has ended and was waited for.
    fn ended() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn a_lock_is_made_minded_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = SerialLock::At(Box::new(folder.path().to_owned()));
        let device = Path::new("/dev/null");
        let (held, remark) = take(device, &wanted, false, false).unwrap();
        assert_eq!(remark, None);
        let file = folder.path().join("LCK..null");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("{:>10}\n", std::process::id()));
        let again = take(device, &wanted, false, false);
        assert!(
            matches!(&again, Err(Locked::Held(why)) if why.contains("LCK..null")),
            "{again:?}"
        );
        drop(held);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_process_left_that_is_gone_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("LCK..x");
        let wanted = SerialLock::At(Box::new(file.clone()));
        let take = || take(Path::new("/dev/x"), &wanted, false, false);
        for stale in [
            format!("{:10}\n", ended()).into_bytes(),
            format!("{:10} minicom root\n", ended()).into_bytes(),
            ended().to_ne_bytes().to_vec(),
        ] {
            fs::write(&file, &stale).unwrap();
            assert!(take().unwrap().0.is_some(), "{stale:?}");
            assert!(!file.exists());
        }
        for live in [&b"         1\n"[..], b"", b"what?\n"] {
            fs::write(&file, live).unwrap();
            assert!(matches!(take(), Err(Locked::Held(_))), "{live:?}");
            assert_eq!(fs::read(&file).unwrap(), live);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_where_one_was_asked_for() {
        let wanted = SerialLock::At(Box::new("/nowhere/at/all/LCK..x".into()));
        let taken = take(Path::new("/dev/x"), &wanted, false, false);
        assert!(matches!(taken, Err(Locked::Failed(..))), "{taken:?}");
    }

    #[test]
    fn the_file_has_the_name_of_the_device_itself() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("by-id");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(file_of(&link, Path::new("/l")), Path::new("/l/LCK..null"));
        let deep = Path::new("/dev/no/such0");
        assert_eq!(
            file_of(deep, Path::new("/l")),
            Path::new("/l/LCK..no_such0")
        );
    }
}
