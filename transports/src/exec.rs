//! `exec:`: a command's standard input and output.
//!
//! With `pty=yes` that is a terminal of its own (`terminal`), else two pipes:
//!
//! No shell runs. The command stays in this process's own process group: a terminal's interrupt then
//! reaches it too, and it may ask for a password on the terminal (a background group would be stopped
//! for reading it). It is killed when nobody holds it any more: that process alone; what it has
//! started itself learns of the end by the closed pipes.
//!
//! A command that runs for a peer (`dial_for_peer`) leads a group of its own, which is killed whole, before the pipes close
//! (`group`). It is no business of the terminal that this process may have: an interrupt there does not reach it, and
//! reading from that terminal stops it.
//!
//! Shutting the stream down closes the command's standard input, and its standard output stays
//! readable: half close in both directions.
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{self, ChildStdin, ChildStdout};

use crate::child::Child;
use crate::endpoint::{Endpoint, Target};
use crate::error::{Action, TransportError, TransportErrorKind, describe, kind_of};
use crate::limits::restore_for;
use crate::remote::Remote;
use crate::stream::Stream;
use crate::terminal::{self, Terminal};

/// What is started, and on what.
pub(crate) struct Command<'a> {
    pub(crate) argv: &'a [String],
    pub(crate) dir: Option<&'a Path>,
    /// A terminal of its own instead of pipes.
    pub(crate) terminal: Option<&'a Terminal>,
    /// It runs for a peer: in a process group of its own.
    pub(crate) for_peer: bool,
}

pub(crate) fn start(
    action: Action,
    endpoint: &Endpoint,
    what: &Command<'_>,
) -> Result<Stream, TransportError> {
    let Some((program, arguments)) = what.argv.split_first() else {
        // An Endpoint cannot hold this; see Endpoint::new.
        let kind = TransportErrorKind::Invalid;
        return Err(TransportError::new(
            action,
            endpoint,
            kind,
            "no command",
            "write one",
        ));
    };
    let mut command = process::Command::new(program);
    command.args(arguments).kill_on_drop(true);
    if let Some(dir) = what.dir {
        // Looked at first, because the spawn's own error does not tell which of the two is missing.
        match std::fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => command.current_dir(dir),
            Ok(_) => {
                let reason = format!("{} is not a directory", dir.display());
                let kind = TransportErrorKind::Invalid;
                return Err(TransportError::new(
                    action,
                    endpoint,
                    kind,
                    reason,
                    "check dir=",
                ));
            }
            Err(error) => {
                let reason = format!("the directory {}: {}", dir.display(), describe(&error));
                let kind = kind_of(&error);
                return Err(
                    TransportError::new(action, endpoint, kind, reason, "check dir=")
                        .with_source(error),
                );
            }
        };
    }
    let failed = |error| failure(action, endpoint, program, error);
    let name = Path::new(program)
        .file_name()
        .map_or(program.as_str().into(), |n| n.to_string_lossy());
    let label = |process: &process::Child| match process.id() {
        Some(id) => format!("exec {name} (pid {id})"),
        None => format!("exec {name}"),
    };
    if let Some(terminal) = what.terminal {
        let (process, io) = terminal::start(command, terminal).map_err(failed)?;
        restore_for(process.id());
        let (label, control) = (label(&process), io.control());
        let stream = Stream::from_io(io, label)
            .with_remote(Remote::Child)
            .with_control(control);
        // It leads the session of its terminal.
        return Ok(stream.with_child(Child::new(process, true)));
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // As a leader setsid(1) would fork, and what it runs be nobody's child; else it makes the group itself.
    if what.for_peer && name != "setsid" {
        command.process_group(0);
    }
    let mut process = command.spawn().map_err(failed)?;
    restore_for(process.id());
    let pipes = Pipes {
        input: process.stdin.take(),
        output: process.stdout.take(),
    };
    let label = label(&process);
    let stream = Stream::from_io(pipes, label).with_remote(Remote::Child);
    Ok(stream.with_child(Child::new(process, what.for_peer)))
}

fn failure(action: Action, endpoint: &Endpoint, program: &str, error: io::Error) -> TransportError {
    let by_path = program.contains('/');
    // An unreadable directory in PATH makes the system say "permission denied" for a command that
    // is simply nowhere.
    let nowhere = !by_path && !in_path(program);
    let kind = if nowhere {
        TransportErrorKind::NotFound
    } else {
        kind_of(&error)
    };
    let (reason, advice) = match error.kind() {
        io::ErrorKind::NotFound if by_path => (
            format!("there is no file {program}, or the interpreter that it names is missing"),
            "check the path",
        ),
        _ if nowhere && matches!(endpoint.target(), Target::Ssh { .. }) => (
            "there is no ssh on this machine".to_owned(),
            "install OpenSSH's client (Debian: openssh-client)",
        ),
        _ if nowhere => (
            format!("command not found: {program}"),
            "install it, or write its full path",
        ),
        io::ErrorKind::PermissionDenied => (
            format!("{program} may not be executed"),
            "check its permissions (chmod +x)",
        ),
        _ => (
            format!("{program}: {}", describe(&error)),
            "start it by hand to see more",
        ),
    };
    TransportError::new(action, endpoint, kind, reason, advice).with_source(error)
}

/// Whether a directory of PATH has a file of that name.
fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The two pipes; `None` once closed.
struct Pipes {
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "write after shutdown")
}

impl AsyncRead for Pipes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.output {
            Some(output) => Pin::new(output).poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Pipes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, buf),
            None => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A write has gone into the pipe before it is reported.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write_vectored(cx, bufs),
            None => Poll::Ready(Err(closed())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.input
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }
}
