//! A command on a terminal of its own: `exec:…,pty=yes`.
//!
//! The command leads a session whose controlling terminal is a new pty, so that a shell has job control
//! and a program finds its window. We hold the master:
//! - the pty keeps the modes that terminals start with (echo, line editing, ^C as a signal): whoever is at
//!   the other end puts their own terminal into raw mode and leaves all that to this one;
//! - when the command and all that it left on the pty are gone, the master reads `EIO`: that is the end;
//! - **shutting down** types the character that stands for the end of input (^D, twice, for the first may
//!   only end a half line): a terminal has no half close;
//! - **dropping** closes the master, which hangs up: the command and what is in the foreground get SIGHUP.
//!
//! [`Control`] is the side door: window size, and for serial lines a break and what is known of the line. It keeps nothing open.
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
#[cfg(any(feature = "serial", feature = "rfc2217"))]
use std::sync::Mutex;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::process;

use crate::line_notices::{LineNotices, OutLine};
use crate::watch::watch;

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSize {
    /// Lines of text.
    pub rows: u16,
    /// Characters in one.
    pub columns: u16,
}

impl Default for WindowSize {
    /// 24 by 80, what programs assume where they cannot know.
    fn default() -> Self {
        Self {
            rows: 24,
            columns: 80,
        }
    }
}

/// The terminal at which somebody sits, for a command that is started for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Its kind, as `TERM` names it; default this process's own.
    pub kind: Option<String>,
    /// Its window.
    pub size: WindowSize,
}

/// Starts a command whose standard input, output and error are a new pty.
pub(crate) fn start(
    command: process::Command,
    terminal: &Terminal,
) -> io::Result<(process::Child, TerminalIo)> {
    let (master, slave) = pty_process::open().map_err(plain)?;
    let size = terminal.size;
    let size = pty_process::Size::new(size.rows, size.columns);
    master.resize(size).map_err(plain)?;
    let mut command = pty_process::Command::from(command);
    if let Some(kind) = &terminal.kind {
        command = command.env("TERM", kind);
    }
    // It takes the slave with it: nobody but the command holds it from here on.
    let child = command.spawn(slave).map_err(plain)?;
    Ok((child, TerminalIo::new(master.into())?))
}

/// The system's own error, where it was one.
fn plain(error: pty_process::Error) -> io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        pty_process::Error::Rustix(errno) => errno.into(),
        other => io::Error::other(other.to_string()),
    }
}

/// What can be told to the device under a stream, beside bytes. It does not keep the stream open.
#[derive(Clone, Debug)]
pub struct Control(Device);

#[derive(Clone, Debug)]
enum Device {
    /// The master of a command's terminal.
    Terminal(Weak<OwnedFd>),
    /// A serial line.
    #[cfg(any(feature = "serial", feature = "rfc2217"))]
    Line(Arc<LineDoor>),
}

impl Control {
    /// Tells a command on a terminal that its window has another size. Nothing happens where that
    /// terminal is gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        let master = match &self.0 {
            Device::Terminal(master) => master.upgrade(),
            #[cfg(any(feature = "serial", feature = "rfc2217"))]
            Device::Line(_) => None,
        };
        let Some(master) = master else {
            return Ok(());
        };
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&*master, size)?)
    }

    /// Has a serial line send a break (a quarter of a second of space), as soon as somebody reads from its
    /// stream. Nothing happens anywhere else, or where one is asked for already.
    pub fn send_break(&self) {
        #[cfg(any(feature = "serial", feature = "rfc2217"))]
        if let Device::Line(door) = &self.0 {
            door.ask(|wanted| wanted.sends_break = true);
        }
    }

    /// From now on a break that the other end of this line tells of is sent by that line, too: for who passes on the bytes of a client
    /// at `rfc2217:` to a device. Nothing happens where this is no such line.
    #[cfg_attr(
        not(feature = "rfc2217"),
        allow(unused_variables, clippy::needless_pass_by_value)
    )]
    pub fn pass_breaks_to(&self, line: Self) {
        #[cfg(feature = "rfc2217")]
        if let Device::Line(door) = &self.0 {
            *LineDoor::lock(&door.breaks_to) = Some(line);
        }
    }

    #[cfg(any(feature = "serial", feature = "rfc2217"))]
    pub(crate) fn of_line(door: Arc<LineDoor>) -> Self {
        Self(Device::Line(door))
    }

    /// Has a serial line raise one of its modem lines, or lower it, as soon as somebody reads from its stream. Nothing happens
    /// anywhere else, nor where flow control or RS-485 has that line for itself.
    #[cfg_attr(
        not(any(feature = "serial", feature = "rfc2217")),
        allow(unused_variables)
    )]
    pub fn set_line(&self, line: OutLine, on: bool) {
        match &self.0 {
            Device::Terminal(_) => {}
            #[cfg(any(feature = "serial", feature = "rfc2217"))]
            Device::Line(door) => door.ask(|wanted| match line {
                OutLine::Dtr => wanted.dtr = Some(on),
                OutLine::Rts => wanted.rts = Some(on),
            }),
        }
    }

    /// What a serial server has told of its port so far; `None` for any other device.
    pub fn line_notices(&self) -> Option<LineNotices> {
        match &self.0 {
            Device::Terminal(_) => None,
            #[cfg(any(feature = "serial", feature = "rfc2217"))]
            Device::Line(door) => *LineDoor::lock(&door.notices),
        }
    }
}

/// What a serial line's stream was asked for by its [`Control`].
#[cfg(any(feature = "serial", feature = "rfc2217"))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) sends_break: bool,
    pub(crate) dtr: Option<bool>,
    pub(crate) rts: Option<bool>,
}

/// What passes between a serial line's stream and its [`Control`].
#[cfg(any(feature = "serial", feature = "rfc2217"))]
#[derive(Debug, Default)]
pub(crate) struct LineDoor {
    wanted: Mutex<Wanted>,
    reader: Mutex<Option<std::task::Waker>>,
    notices: Mutex<Option<LineNotices>>,
    /// The line that sends the breaks that are told of here.
    #[cfg(feature = "rfc2217")]
    breaks_to: Mutex<Option<Control>>,
}

#[cfg(any(feature = "serial", feature = "rfc2217"))]
impl LineDoor {
    fn ask(&self, for_what: impl FnOnce(&mut Wanted)) {
        for_what(&mut Self::lock(&self.wanted));
        let waker = Self::lock(&self.reader).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What was asked for since; the reader is woken when there is more.
    pub(crate) fn poll_wanted(&self, cx: &Context<'_>) -> Wanted {
        *Self::lock(&self.reader) = Some(cx.waker().clone());
        std::mem::take(&mut *Self::lock(&self.wanted))
    }

    #[cfg(feature = "rfc2217")]
    pub(crate) fn notice(&self, notices: LineNotices) {
        let before = Self::lock(&self.notices).replace(notices);
        let more = before.is_none_or(|before| notices.breaks > before.breaks);
        if notices.breaks > 0
            && more
            && let Some(line) = &*Self::lock(&self.breaks_to)
        {
            line.send_break();
        }
    }

    fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        of.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) struct TerminalIo {
    fd: AsyncFd<OwnedFd>,
    /// A duplicate, for what may outlive this; alone in having it, this closes it.
    control: Arc<OwnedFd>,
    ended: bool,
    /// How many characters that stand for the end of input were typed.
    typed_ends: u8,
}

impl TerminalIo {
    fn new(master: OwnedFd) -> io::Result<Self> {
        let control = Arc::new(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
        Ok(Self {
            fd: watch(master, Interest::READABLE | Interest::WRITABLE)?,
            control,
            ended: false,
            typed_ends: 0,
        })
    }

    pub(crate) fn control(&self) -> Control {
        Control(Device::Terminal(Arc::downgrade(&self.control)))
    }

    fn poll_type(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            let written = guard.try_io(|fd| match rustix::io::write(fd.get_ref(), bytes) {
                // How a pty says that it is full without O_NONBLOCK's error.
                Ok(0) | Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
                // Nobody has the terminal any more.
                Err(Errno::IO) => Err(io::ErrorKind::BrokenPipe.into()),
                other => Ok(other?),
            });
            if let Ok(written) = written {
                return Poll::Ready(written);
            }
        }
    }
}

impl AsyncRead for TerminalIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut guard = ready!(this.fd.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled();
            let read = guard.try_io(|fd| match rustix::io::read(fd.get_ref(), &mut *space) {
                Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
                Err(Errno::IO) => Ok(0),
                other => Ok(other?),
            });
            if let Ok(read) = read {
                let n = read?;
                this.ended = n == 0;
                buf.advance(n);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for TerminalIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.typed_ends > 0 {
            let text = "write after shutdown";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, text)));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_type(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A write is in the kernel before it is reported.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.typed_ends < 2 && !self.ended {
            let Ok(mode) = tcgetattr(self.fd.get_ref()) else {
                break;
            };
            let end = mode.special_codes[SpecialCodeIndex::VEOF];
            match ready!(self.poll_type(cx, &[end])) {
                Ok(_) => self.typed_ends += 1,
                // Who is gone needs no end.
                Err(_) => break,
            }
        }
        self.typed_ends = 2;
        Poll::Ready(Ok(()))
    }
}
