//! What a service says at a console, appended to a file.
//!
//! Before the screen has it, so that what somebody has seen is in the file. The writing is done apart (`tokio::fs`), and what a disk
//! that stands still holds up is the output alone: the keyboard, and with it the way out, is read on. The file is
//! taken out while it is written, so nothing waits for a lock. An error is for the caller to say, once: the log is off then.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::args;
use crate::exit::{Code, Failure};
use crate::files::report::reason;
use crate::say::Now;

pub(super) struct Log {
    inner: Mutex<Inner>,
    timestamps: bool,
    /// What the file is called after where nobody has named it.
    service: String,
}

#[derive(Default)]
struct Inner {
    path: Option<PathBuf>,
    on: bool,
    /// None while it is written, too.
    file: Option<File>,
    /// The next byte begins a line.
    inside: bool,
}

impl Log {
    /// Opens the file, where there is a name.
    pub(super) fn open(args: &args::Console, service: &str) -> Result<Self, Failure> {
        let path = args.log.clone();
        let file = path.as_deref().map(|path| {
            open(path, args.log_truncate).map_err(|e| {
                let why = format!("cannot open the log {}: {}", path.display(), reason(&e));
                Failure::new(Code::Local, why)
            })
        });
        let file = file.transpose()?;
        Ok(Self {
            inner: Mutex::new(Inner {
                on: file.is_some(),
                path,
                file,
                inside: false,
            }),
            timestamps: args.log_timestamps,
            service: service.to_owned(),
        })
    }

    /// Writes this, if the log is on. `Err`: why it is off from now on.
    ///
    /// # Cancel safety
    /// What is dropped is written nonetheless, but not told of.
    pub(super) async fn record(&self, bytes: &[u8]) -> Result<(), String> {
        let (mut file, text) = {
            let mut inner = self.lock();
            if !inner.on {
                return Ok(());
            }
            let Some(file) = inner.file.take() else {
                return Ok(());
            };
            let stamped = self.timestamps.then(|| stamped(bytes, inner.inside));
            if let Some(last) = bytes.last() {
                inner.inside = *last != b'\n';
            }
            (file, stamped)
        };
        let bytes = text.as_deref().unwrap_or(bytes);
        let written = async {
            file.write_all(bytes).await?;
            // Tells how the write went.
            file.flush().await
        };
        let written = written.await;
        let mut inner = self.lock();
        match written {
            // It was switched off and on meanwhile, or off.
            Ok(()) if !inner.on || inner.file.is_some() => Ok(()),
            Ok(()) => {
                inner.file = Some(file);
                Ok(())
            }
            Err(e) => {
                inner.on = false;
                let path = inner.path.as_deref().unwrap_or(Path::new(""));
                Err(format!(
                    "warning: cannot write the log {}: {}; it is off now (~l switches it on again)",
                    path.display(),
                    reason(&e)
                ))
            }
        }
    }

    /// Switches it off, or on; what to say of that.
    pub(super) fn switch(&self) -> String {
        let mut inner = self.lock();
        let path = inner
            .path
            .get_or_insert_with(|| default_name(&self.service))
            .clone();
        let path_shown = path.display();
        if inner.on {
            inner.on = false;
            inner.file = None;
            return format!("log off: {path_shown}");
        }
        match open(&path, false) {
            Ok(file) => {
                inner.on = true;
                inner.file = Some(file);
                // What comes next has its time, wherever the line began.
                inner.inside = false;
                format!("log on: {path_shown}")
            }
            Err(e) => format!("cannot open the log {path_shown}: {}", reason(&e)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // It is whole after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For this user alone, where it is new. A pipe that nobody reads is an error, and not waited for.
fn open(path: &Path, truncate: bool) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(i32::from_ne_bytes(flags.to_ne_bytes()))
        .open(path)?;
    if truncate {
        file.set_len(0)?;
    }
    Ok(File::from_std(file))
}

/// A file in the working folder, named after the service and the time.
fn default_name(service: &str) -> PathBuf {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "-_".contains(c) {
            c
        } else {
            '_'
        }
    };
    let service: String = service.chars().take(64).map(safe).collect();
    let service = match service.as_str() {
        "" => "console",
        service => service,
    };
    let time: String = Now.to_string().chars().take(19).collect();
    format!("cepa-{service}-{}Z.log", time.replace(':', "")).into()
}

/// The same with the time in front of each line; `inside`: it begins within one.
fn stamped(bytes: &[u8], inside: bool) -> Vec<u8> {
    let now = format!("{Now} ");
    let mut out = Vec::with_capacity(bytes.len() + now.len());
    let mut inside = inside;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        if !inside {
            out.extend(now.as_bytes());
        }
        inside = false;
        out.extend(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_begins_with_its_time_once() {
        let text = [stamped(b"a\r\nb", false), stamped(b"c\n\nd", true)].concat();
        let text = String::from_utf8(text).unwrap();
        let ends: Vec<&str> = text
            .split_inclusive('\n')
            .map(|line| line.split_once("Z ").unwrap().1)
            .collect();
        assert_eq!(ends, ["a\r\n", "bc\n", "\n", "d"]);
    }

    #[tokio::test]
    async fn what_comes_after_a_pause_in_the_middle_of_a_line_has_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log {
            inner: Mutex::new(Inner {
                path: Some(path.clone()),
                ..Inner::default()
            }),
            timestamps: true,
            service: String::new(),
        };
        for said in ["prompt> ", "text\n"] {
            assert!(log.switch().starts_with("log on"));
            log.record(said.as_bytes()).await.unwrap();
            assert!(log.switch().starts_with("log off"));
        }
        let text = std::fs::read_to_string(path).unwrap();
        let (_, behind) = text.split_once("prompt> ").unwrap();
        let (time, said) = behind.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{text}");
        assert_eq!(said, "text\n");
    }

    #[test]
    fn the_name_of_a_file_leads_nowhere_else() {
        let name = default_name("../a b/c");
        let name = name.to_str().unwrap();
        assert!(name.starts_with("cepa-___a_b_c-20"), "{name}");
        assert!(!name.contains(['/', ':']), "{name}");
    }
}
