//! This process's own terminal: raw while a console has it, and as it was before in any case after.
//!
//! Raw means that every key is a byte for the service, ^C among them. The settings come back when the
//! guard is dropped: at an ordinary end, at an error, in a panic, and before we stop ourselves (`~^Z`).
//! Signals that ask for an end lead to an ordinary one.

use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use cepa::transports::{Terminal, WindowSize};
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::say::{Line, say_together};
use crate::stderr;

pub(crate) struct Raw {
    /// A duplicate, since `stdio:` takes the descriptor itself.
    terminal: OwnedFd,
    before: Termios,
    during: Termios,
}

/// The terminal is raw as long as this lives.
pub(crate) struct Guard<'a>(&'a Raw);

impl Raw {
    /// The terminal at standard input.
    pub(crate) fn terminal() -> io::Result<Self> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        Ok(Self {
            terminal,
            before,
            during: raw,
        })
    }

    pub(crate) fn enter(&self) -> io::Result<Guard<'_>> {
        stderr::raw(true);
        let guard = Guard(self);
        // After what is on its way to the screen; what was typed ahead is kept.
        tcsetattr(&self.terminal, OptionalActions::Drain, &self.during)?;
        Ok(guard)
    }

    fn restore(&self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
        stderr::raw(false);
    }

    /// Stops this process, as ^Z does where the terminal is not raw; returns when it goes on.
    pub(crate) fn suspend(&self) {
        self.restore();
        let _ = kill_process(getpid(), Signal::TSTP);
        stderr::raw(true);
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.during);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.restore();
    }
}

/// What the terminal is, for the other end.
pub(crate) fn describe() -> Terminal {
    let kind = std::env::var("TERM").ok().filter(|kind| !kind.is_empty());
    // By its general name, since `stdio:` takes the descriptors.
    let asked = std::fs::File::open("/dev/tty").map(|tty| tcgetwinsize(&tty));
    let size = match asked {
        Ok(Ok(size)) if size.ws_row > 0 && size.ws_col > 0 => WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
        _ => WindowSize::default(),
    };
    Terminal { kind, size }
}

/// Whether the cursor is at the start of a line, as far as the last byte of the output tells.
static AT_START: AtomicBool = AtomicBool::new(true);

/// This went to the screen.
pub(crate) fn shown(output: &[u8]) {
    if let Some(last) = output.last() {
        AT_START.store(*last == b'\n', Ordering::Relaxed);
    }
}

/// Goes to the start of a line, where it is not there: behind a prompt, say.
pub(crate) fn new_line() {
    if io::stderr().is_terminal() && !AT_START.swap(true, Ordering::Relaxed) {
        stderr::write(b"\r\n".to_vec());
    }
}

/// A line of the tool's own amid the output.
pub(crate) fn print_line(line: impl Into<Line>) {
    print_lines([line.into()]);
}

/// Lines of the tool's own amid the output: in one write with what goes to the start of a line, for more output may come at any
/// time, and none of it is to come between them.
pub(crate) fn print_lines(lines: impl IntoIterator<Item = Line>) {
    let before = if io::stderr().is_terminal() {
        AT_START.store(true, Ordering::Relaxed);
        "\r\n"
    } else {
        ""
    };
    say_together(before, lines);
}
