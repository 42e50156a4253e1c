//! `pty:`: makes a pseudo terminal in raw mode and links its other end (the slave) at a path. For
//! whoever opens that path it is a serial port, `serial:` included.
//!
//! What the kernel says, and what is made of it (Linux):
//! - as long as nobody has opened the slave, or everybody has closed it, the master "hangs up": reads give
//!   `EIO`, and epoll goes on reporting it, even after the slave is opened again;
//! - **while waiting** (a dialled pty before the first byte; [`PtyListener::accept`]) that means *no one there
//!   yet*. A dialled pty keeps the slave open itself until the first byte has come, so there is no
//!   hang-up; a listener looks every 20 ms whether somebody has come, and gives every stream a duplicate of the
//!   master, because the stale report sticks to what epoll knows of the old one;
//! - **afterwards** it is the end of the stream: whoever was there has closed the slave. Bytes that he
//!   wrote before are read first. (One who leaves and another who comes within the same moment cannot be told
//!   apart: a line has no connections);
//! - what is written while nobody holds the slave would wait for whoever comes next; it is refused
//!   as a broken pipe instead;
//! - closing the master discards what the slave's reader has not read yet. So shutdown waits until that has
//!   been read (at most 10 s). There is no half close: the peer of a line sees no end.
mod claim;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use crate::endpoint::Endpoint;
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::remote::Remote;
use crate::stream::Stream;
use crate::watch::{reported, watch};

use claim::Claim;

/// How often a listener looks whether somebody has opened the slave: no event tells it. Short
/// enough not to be noticed by a person, and nothing for a CPU.
const LOOK: Duration = Duration::from_millis(20);
/// How often shutdown looks whether the other end has read everything, and how long in all.
const DRAIN_STEP: Duration = Duration::from_millis(5);
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub(crate) fn dial(endpoint: &Endpoint, path: &Path) -> Result<Stream, TransportError> {
    let pty = Pty::new(Action::Dial, endpoint, path)?;
    let fail = |error: io::Error| TransportError::io(Action::Dial, endpoint, error, "");
    let held = open_slave(&pty.slave).map_err(fail)?;
    let io = PtyIo::new(Arc::new(pty), Some(held)).map_err(fail)?;
    Ok(wrap(io, path))
}

fn wrap(io: PtyIo, path: &Path) -> Stream {
    let label = format!("pty {}", path.display());
    Stream::from_io(io, label).with_remote(Remote::Line(path.to_owned()))
}

pub(crate) struct PtyListener {
    pty: Arc<Pty>,
    path: PathBuf,
    /// One stream at a time: the permit is in the stream, and comes back when that is dropped.
    turn: Arc<Semaphore>,
}

impl PtyListener {
    pub(crate) fn new(endpoint: &Endpoint, path: &Path) -> Result<Self, TransportError> {
        let pty = Pty::new(Action::Listen, endpoint, path)?;
        // A fresh pty does not report the hang-up before its slave was open once.
        let fail = |error: io::Error| TransportError::io(Action::Listen, endpoint, error, "");
        drop(open_slave(&pty.slave).map_err(fail)?);
        pty.was_empty.store(true, Relaxed);
        Ok(Self {
            pty: Arc::new(pty),
            path: path.to_owned(),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Waits until somebody opens the slave; or, when it was open all the time since the last
    /// stream, until he says something.
    pub(crate) async fn accept(&mut self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        // The semaphore is never closed, so this never fails.
        let permit = Arc::clone(&self.turn).acquire_owned().await.ok();
        let fail = |error: io::Error| TransportError::io(Action::Accept, endpoint, error, "");
        loop {
            let now = reported(&self.pty.master, PollFlags::IN).map_err(fail)?;
            let empty = now.contains(PollFlags::HUP);
            let was_empty = self.pty.was_empty.load(Relaxed);
            if now.contains(PollFlags::IN) || (was_empty && !empty) {
                break;
            }
            if empty && !was_empty {
                self.pty.was_empty.store(true, Relaxed);
                self.pty.forget_unread();
            }
            sleep(LOOK).await;
        }
        let mut io = PtyIo::new(Arc::clone(&self.pty), None).map_err(fail)?;
        io.permit = permit;
        self.pty.was_empty.store(false, Relaxed);
        Ok(wrap(io, &self.path))
    }
}

/// A pty and the link to its slave.
struct Pty {
    master: OwnedFd,
    slave: PathBuf,
    _claim: Claim,
    /// Nobody was there at some time since the listener's last stream began: whoever is there now
    /// is somebody new. Told by that stream or seen by the listener.
    was_empty: AtomicBool,
}

impl Pty {
    fn new(action: Action, endpoint: &Endpoint, link: &Path) -> Result<Self, TransportError> {
        let make = || -> io::Result<(OwnedFd, PathBuf)> {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&master)?;
            unlockpt(&master)?;
            let slave = PathBuf::from(std::ffi::OsString::from_vec(
                ptsname(&master, Vec::new())?.into_bytes(),
            ));
            // On the master this sets the slave's mode.
            let mut mode = tcgetattr(&master)?;
            mode.make_raw();
            tcsetattr(&master, OptionalActions::Now, &mode)?;
            let flags = rustix::fs::fcntl_getfl(&master)?;
            rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
            Ok((master, slave))
        };
        let (master, slave) = make().map_err(|error| {
            let advice = "this system has no more pseudo terminals (see kernel.pty.max)";
            TransportError::io(action, endpoint, error, advice)
        })?;
        match Claim::new(&slave, link) {
            Ok(claim) => Ok(Self {
                master,
                slave,
                _claim: claim,
                was_empty: AtomicBool::new(false),
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(TransportError::new(
                action,
                endpoint,
                Kind::AddressInUse,
                "something is already there",
                "remove it, or choose another path",
            )
            .with_source(error)),
            Err(error) => {
                let advice = "the link needs a directory that exists and may be written to";
                Err(TransportError::io(action, endpoint, error, advice))
            }
        }
    }

    /// Throws away what was written for somebody who has left without reading it.
    fn forget_unread(&self) {
        if let Ok(slave) = open_slave(&self.slave) {
            let _ = tcflush(&slave, QueueSelector::IFlush);
        }
    }
}

fn open_slave(slave: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(slave, flags, Mode::empty())?)
}

struct PtyIo {
    // Dropped before the pty: a duplicate of its master.
    fd: AsyncFd<OwnedFd>,
    /// Held open until the first byte has come from somebody else.
    held: Option<OwnedFd>,
    ended: bool,
    shut: bool,
    drain: Option<Drain>,
    pty: Arc<Pty>,
    permit: Option<OwnedSemaphorePermit>,
}

struct Drain {
    since: Instant,
    /// The slave, to ask how much waits there; `None` when somebody has it for himself (`TIOCEXCL`).
    slave: Option<OwnedFd>,
    /// How often in a row nothing waited. Twice means nothing: between two of the kernel's
    /// buffers bytes are not seen.
    empty: u32,
    sleep: Pin<Box<Sleep>>,
}

impl PtyIo {
    fn new(pty: Arc<Pty>, held: Option<OwnedFd>) -> io::Result<Self> {
        let fd = watch(
            rustix::io::fcntl_dupfd_cloexec(&pty.master, 3)?,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Self {
            fd,
            held,
            ended: false,
            shut: false,
            drain: None,
            pty,
            permit: None,
        })
    }

    /// Nobody holds the slave any more.
    fn deserted(&self) -> bool {
        self.ended
            || reported(self.fd.get_ref(), PollFlags::IN).is_ok_and(|e| e.contains(PollFlags::HUP))
    }

    fn poll_io(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            let text = "write after shutdown";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, text)));
        }
        if self.deserted() {
            let text = "the other end of the pty was closed";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, text)));
        }
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            let result = guard.try_io(|fd| match write(fd.get_ref()) {
                // How a pty says that it is full without O_NONBLOCK's error.
                Ok(0) | Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
                other => Ok(other?),
            });
            if let Ok(result) = result {
                return Poll::Ready(result);
            }
        }
    }
}

impl AsyncRead for PtyIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        loop {
            let mut guard = ready!(this.fd.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled();
            let result = guard.try_io(|fd| {
                loop {
                    match rustix::io::read(fd.get_ref(), &mut *space) {
                        Err(Errno::INTR) => {}
                        Err(Errno::IO) => return Ok(0),
                        other => return Ok(other?),
                    }
                }
            });
            if let Ok(result) = result {
                let n = result?;
                this.ended = n == 0;
                if n > 0 {
                    this.held = None;
                }
                buf.advance(n);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for PtyIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_io(cx, |fd| rustix::io::write(fd, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A write is in the kernel before it is reported.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        let this = &mut *self;
        loop {
            if this.drain.is_none() && this.deserted() {
                return Poll::Ready(Ok(()));
            }
            let drain = this.drain.get_or_insert_with(|| Drain {
                since: Instant::now(),
                slave: open_slave(&this.pty.slave).ok(),
                empty: 0,
                sleep: Box::pin(sleep(DRAIN_STEP)),
            });
            let waiting = match (&drain.slave, &this.held) {
                (Some(slave), _) | (None, Some(slave)) => unread(slave),
                // Cannot be asked: the other end gets 20 looks' time to read, which is plenty for
                // a reader that reads at all.
                (None, None) => 0,
            };
            drain.empty = if waiting == 0 { drain.empty + 1 } else { 0 };
            let enough = if drain.slave.is_none() && this.held.is_none() {
                20
            } else {
                2
            };
            if drain.empty > enough || drain.since.elapsed() > DRAIN_MAX {
                this.drain = None;
                return Poll::Ready(Ok(()));
            }
            ready!(drain.sleep.as_mut().poll(cx));
            drain.sleep.as_mut().reset(Instant::now() + DRAIN_STEP);
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|b| b.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let bufs = bufs.get(..1024).unwrap_or(bufs);
        self.poll_io(cx, |fd| rustix::io::writev(fd, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// Bytes that wait to be read at the slave.
fn unread(slave: &impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(slave).unwrap_or(0)
}

impl Drop for PtyIo {
    /// What one conversation left over must not be read by the next.
    fn drop(&mut self) {
        if self.permit.is_none() {
            return;
        }
        // After the end there is nothing left, and what comes now is the next one's.
        let mut rest = [0; 4096];
        let bound = if self.ended { 0 } else { 256 };
        // Bounded, for somebody who writes without end.
        for _ in 0..bound {
            match rustix::io::read(self.fd.get_ref(), &mut rest) {
                Ok(n) if n > 0 => {}
                _ => break,
            }
        }
        if self.deserted() {
            self.pty.was_empty.store(true, Relaxed);
            self.pty.forget_unread();
        }
    }
}
