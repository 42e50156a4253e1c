//! A byte stream over descriptors that this process did not open: standard input and output, and
//! whatever was inherited.
//!
//! The trouble with them is `O_NONBLOCK`. The flag belongs to the *open file description*, and that is
//! shared with whoever passed the descriptor on: the shell, and every other program on its terminal.
//! Set it, and they fail with "resource temporarily unavailable", even after this process has ended.
//! So it is never set here on anything shared. What is done instead depends on what the descriptor is:
//!
//! - a **socket** is read and written with `MSG_DONTWAIT`, which concerns one call alone;
//! - a **pipe** and a **terminal** are opened anew through `/proc/self/fd`: a description of one's own,
//!   which may be non-blocking, on the same pipe or terminal;
//! - a **regular file** (and `/dev/null` and its like) never blocks for long: it goes to tokio's pool of
//!   threads, with the shared description and so with the shared position;
//! - **anything else**, or what may not be opened anew (a terminal of another user after `su`), is served by
//!   a thread of its own for each direction (`thread.rs`). Such a thread is not tokio's: one that is stuck in
//!   a read does not keep the runtime from shutting down or the process from exiting.
//!
//! Half close: a socket is shut down for writing; of everything else the descriptor is closed. An end of
//! file, once seen, is kept: a terminal would go on after Ctrl-D.
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, Mode, OFlags, fstat, major};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::hang_up::HangUp;
use crate::stream::Wire;
use crate::watch::watch;

mod thread;
use thread::{ThreadReader, ThreadWriter, closed};

/// A reading and a writing half that know nothing of each other.
pub(crate) struct Descriptors {
    read: ReadHalf,
    write: WriteHalf,
    hang_up: HangUp,
}

impl Wire for Descriptors {
    /// The two halves know nothing of each other: that one is read tells nothing of who reads the other.
    fn poll_left(&mut self, cx: &mut Context<'_>, _: bool) -> Poll<io::Error> {
        match &self.write {
            WriteHalf::Socket(fd) | WriteHalf::Plain(fd) => self.hang_up.poll(cx, fd.get_ref()),
            WriteHalf::File(_) | WriteHalf::Thread(_) | WriteHalf::Closed => Poll::Pending,
        }
    }
}

impl Descriptors {
    /// Takes over two descriptors, which may be duplicates of one.
    pub(crate) fn new(read: OwnedFd, write: OwnedFd) -> io::Result<Self> {
        let read = match way(&read, OFlags::RDONLY)? {
            Way::Socket => reader(watch(read, Interest::READABLE)?, true),
            Way::Anew(own) => match watch(own, Interest::READABLE) {
                Ok(fd) => reader(fd, false),
                Err(_) => ReadHalf::Thread(ThreadReader::new(read)?),
            },
            Way::File => ReadHalf::File(file(read)),
            Way::Thread => ReadHalf::Thread(ThreadReader::new(read)?),
        };
        let write = match way(&write, OFlags::WRONLY)? {
            Way::Socket => WriteHalf::Socket(watch(write, Interest::WRITABLE)?),
            Way::Anew(own) => match watch(own, Interest::WRITABLE) {
                Ok(fd) => WriteHalf::Plain(fd),
                Err(_) => WriteHalf::Thread(ThreadWriter::new(write)?),
            },
            Way::File => WriteHalf::File(file(write)),
            Way::Thread => WriteHalf::Thread(ThreadWriter::new(write)?),
        };
        Ok(Self {
            read,
            write,
            hang_up: HangUp::default(),
        })
    }

    /// Which way each half goes, for tests.
    #[cfg(test)]
    pub(crate) fn ways(&self) -> (&'static str, &'static str) {
        let read = match &self.read {
            ReadHalf::Poll { socket: true, .. } => "socket",
            ReadHalf::Poll { .. } => "anew",
            ReadHalf::File(_) => "file",
            ReadHalf::Thread(_) => "thread",
        };
        let write = match &self.write {
            WriteHalf::Socket(_) => "socket",
            WriteHalf::Plain(_) => "anew",
            WriteHalf::File(_) => "file",
            WriteHalf::Thread(_) => "thread",
            WriteHalf::Closed => "closed",
        };
        (read, write)
    }
}

fn reader(fd: AsyncFd<OwnedFd>, socket: bool) -> ReadHalf {
    ReadHalf::Poll {
        fd,
        socket,
        first: true,
        ended: false,
    }
}

fn file(fd: OwnedFd) -> tokio::fs::File {
    tokio::fs::File::from_std(File::from(fd))
}

enum Way {
    Socket,
    Anew(OwnedFd),
    File,
    Thread,
}

fn way(fd: &OwnedFd, mode: OFlags) -> io::Result<Way> {
    let stat = fstat(fd)?;
    let reopen = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => return Ok(Way::Socket),
        FileType::RegularFile | FileType::BlockDevice | FileType::Directory => {
            return Ok(Way::File);
        }
        // Major 1: null, zero, full, random and their like; epoll takes none of them.
        FileType::CharacterDevice if cfg!(target_os = "linux") && major(stat.st_rdev) == 1 => {
            return Ok(Way::File);
        }
        // Opening the master of a pty anew would make another pty.
        FileType::CharacterDevice => {
            rustix::termios::isatty(fd) && rustix::pty::ptsname(fd, Vec::new()).is_err()
        }
        FileType::Fifo => true,
        _ => false,
    };
    if !reopen || !cfg!(target_os = "linux") {
        return Ok(Way::Thread);
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = mode | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(path.as_str(), flags, Mode::empty()) {
        Ok(own) => Ok(Way::Anew(own)),
        Err(_) => Ok(Way::Thread),
    }
}

enum ReadHalf {
    Poll {
        fd: AsyncFd<OwnedFd>,
        socket: bool,
        /// Nothing has been read yet. Then it is tried without being told of readiness: of a named
        /// pipe whose writer was gone before it was opened anew, epoll never tells the end.
        first: bool,
        ended: bool,
    },
    File(tokio::fs::File),
    Thread(ThreadReader),
}

fn read_once(fd: &AsyncFd<OwnedFd>, socket: bool, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    let space = buf.initialize_unfilled();
    loop {
        let result = if socket {
            rustix::net::recv(fd.get_ref(), &mut *space, RecvFlags::DONTWAIT).map(|(n, _)| n)
        } else {
            rustix::io::read(fd.get_ref(), &mut *space)
        };
        match result {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

impl AsyncRead for Descriptors {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.read {
            ReadHalf::Poll {
                fd,
                socket,
                first,
                ended,
            } => {
                if *ended || buf.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                if std::mem::take(first) {
                    match read_once(fd, *socket, buf) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return finish_read(result, ended, buf),
                    }
                }
                loop {
                    let mut guard = ready!(fd.poll_read_ready(cx))?;
                    if let Ok(result) = guard.try_io(|fd| read_once(fd, *socket, buf)) {
                        return finish_read(result, ended, buf);
                    }
                }
            }
            ReadHalf::File(file) => Pin::new(file).poll_read(cx, buf),
            ReadHalf::Thread(thread) => thread.poll_read(cx, buf),
        }
    }
}

fn finish_read(
    result: io::Result<usize>,
    ended: &mut bool,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let n = result?;
    *ended = n == 0;
    buf.advance(n);
    Poll::Ready(Ok(()))
}

enum WriteHalf {
    Socket(AsyncFd<OwnedFd>),
    Plain(AsyncFd<OwnedFd>),
    File(tokio::fs::File),
    Thread(ThreadWriter),
    Closed,
}

fn poll_io(
    fd: &AsyncFd<OwnedFd>,
    cx: &mut Context<'_>,
    mut write: impl FnMut(&OwnedFd) -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        let mut guard = ready!(fd.poll_write_ready(cx))?;
        let result = guard.try_io(|fd| {
            loop {
                match write(fd.get_ref()) {
                    Err(Errno::INTR) => {}
                    other => return Ok(other?),
                }
            }
        });
        if let Ok(result) = result {
            return Poll::Ready(result);
        }
    }
}

/// A signal for a broken pipe is not wanted from a socket; Rust programs ignore it for pipes.
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

impl AsyncWrite for Descriptors {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.write {
            WriteHalf::Socket(fd) => poll_io(fd, cx, |fd| rustix::net::send(fd, buf, SEND)),
            WriteHalf::Plain(fd) => poll_io(fd, cx, |fd| rustix::io::write(fd, buf)),
            WriteHalf::File(file) => Pin::new(file).poll_write(cx, buf),
            WriteHalf::Thread(thread) => thread.poll_write(cx, buf),
            WriteHalf::Closed => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.write {
            // A write has gone to the kernel before it is reported.
            WriteHalf::Socket(_) | WriteHalf::Plain(_) | WriteHalf::Closed => Poll::Ready(Ok(())),
            WriteHalf::File(file) => Pin::new(file).poll_flush(cx),
            WriteHalf::Thread(thread) => thread.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match &mut self.write {
            WriteHalf::Socket(fd) => match rustix::net::shutdown(fd.get_ref(), Shutdown::Write) {
                // The peer has closed already: nobody is left to be told.
                Ok(()) | Err(Errno::NOTCONN) => Ok(()),
                Err(error) => Err(error.into()),
            },
            WriteHalf::Plain(_) | WriteHalf::Closed => Ok(()),
            WriteHalf::File(file) => ready!(Pin::new(file).poll_flush(cx)),
            WriteHalf::Thread(thread) => ready!(thread.poll_shutdown(cx)),
        };
        // The duplicate would keep a pipe open.
        self.hang_up = HangUp::default();
        self.write = WriteHalf::Closed;
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // More than the kernel takes in one call (IOV_MAX is at least 1024 on Linux) would be an error.
        let bufs = bufs.get(..1024).unwrap_or(bufs);
        match &mut self.write {
            WriteHalf::Socket(fd) => poll_io(fd, cx, |fd| {
                rustix::net::sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), SEND)
            }),
            WriteHalf::Plain(fd) => poll_io(fd, cx, |fd| rustix::io::writev(fd, bufs)),
            _ => {
                let first = bufs
                    .iter()
                    .find(|b| !b.is_empty())
                    .map_or(&[][..], |b| &**b);
                self.poll_write(cx, first)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.write, WriteHalf::Socket(_) | WriteHalf::Plain(_))
    }
}

#[cfg(test)]
mod tests;
