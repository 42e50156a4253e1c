//! `cepa console` as a person has it: at a pty, with a screen and a keyboard.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::waiting::processes;
use super::{PATIENCE, Place, bin, text};

/// A terminal with the tool in front of it.
pub(crate) struct Desk {
    pub(crate) master: std::fs::File,
    pub(crate) slave: OwnedFd,
    pub(crate) child: Child,
    pub(crate) screen: Receiver<Vec<u8>>,
    pub(crate) seen: String,
    /// All that `until` has passed.
    pub(crate) passed: String,
}

impl Desk {
    pub(crate) fn sit_down(place: &Place, words: &[&str], size: (u16, u16)) -> Self {
        Self::with(place, words, size, |_| {})
    }

    /// The same, with something else about the command.
    pub(crate) fn with(
        place: &Place,
        words: &[&str],
        size: (u16, u16),
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let tool = bin().to_str().unwrap();
        Self::of(place, &[&[tool], words].concat(), size, change)
    }

    /// The same with any command.
    pub(crate) fn of(
        place: &Place,
        words: &[&str],
        size: (u16, u16),
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = std::fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
            .into();
        resize(&master, size);
        // The session's leader, so that the pty is its controlling terminal.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .args(words)
            .env("CEPA_CONFIG_DIR", place.path("config"))
            .env("TERM", "cepa-test")
            .env_remove("NO_COLOR")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap());
        change(&mut command);
        let child = command.spawn().unwrap();
        let master = std::fs::File::from(master);
        let mut reader = master.try_clone().unwrap();
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            master,
            slave,
            child,
            screen,
            seen: String::new(),
            passed: String::new(),
        }
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is on the screen, behind what was waited for before.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str) {
        loop {
            if let Some(at) = self.seen.find(what) {
                self.passed.extend(self.seen.drain(..at + what.len()));
                return;
            }
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => self.seen.push_str(&text(&bytes)),
                Err(e) => panic!("no {what:?} ({e}) in {:?}\n{}", self.seen, processes()),
            }
        }
    }

    /// Waits until all of these are there, in whatever order they come.
    #[track_caller]
    pub(crate) fn until_all(&mut self, whats: &[&str]) {
        loop {
            let ends = whats
                .iter()
                .map(|what| Some(self.seen.find(what)? + what.len()));
            if let Some(ends) = ends.collect::<Option<Vec<_>>>() {
                let behind = ends.into_iter().max().unwrap_or(0);
                self.passed.extend(self.seen.drain(..behind));
                return;
            }
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => self.seen.push_str(&text(&bytes)),
                Err(e) => panic!(
                    "not all of {whats:?} ({e}) in {:?}\n{}",
                    self.seen,
                    processes()
                ),
            }
        }
    }

    pub(crate) fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON)
    }

    /// Leaves a console as a person does.
    #[track_caller]
    pub(crate) fn leave_by_escape(mut self) -> String {
        self.type_in("\r~.");
        let (code, seen) = self.leave();
        assert_eq!(code, Some(0), "{seen}");
        seen
    }

    /// Waits for the end; gives the exit code, and all that came on the screen.
    #[track_caller]
    pub(crate) fn leave(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                let before = processes();
                self.child.kill().unwrap();
                self.seen
                    .extend(self.screen.try_iter().map(|bytes| text(&bytes)));
                panic!("it did not end: {:?}\n{}", self.seen, before);
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert!(!self.is_raw(), "the terminal is as it was");
        // Without a terminal that is open, all that was written is read, and then its end.
        drop(self.slave);
        let start = Instant::now();
        loop {
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => self.seen.push_str(&text(&bytes)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("somebody holds the terminal: {}", self.seen)
                }
            }
            assert!(start.elapsed() < PATIENCE, "it has no end: {}", self.seen);
        }
        (status.code(), self.seen)
    }
}

pub(crate) fn resize(master: &impl std::os::fd::AsFd, (rows, columns): (u16, u16)) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).unwrap();
}
