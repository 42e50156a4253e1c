//! `serial:`: a serial line through tokio-serial.
//!
//! tokio-serial opens, locks (`TIOCEXCL` and flock) and sets up the device (any baud rate, without libudev).
//! What came in before is thrown away: it is of another conversation, or was read at another rate. Only a pty keeps
//! it: there another program has written it, and may have been quicker than we. Three things are done
//! differently here than its stream does them:
//! - **flush** returns at once: every write is in the driver before it is reported, and the drain that
//!   tokio-serial calls blocks the whole thread until the last bit has left the line;
//! - **shutdown** waits, without blocking, until the driver has sent everything (at most 30 s, what the kernel
//!   waits at close too), because closing a device with unsent bytes blocks or loses them. A line has
//!   no end of stream: the peer learns nothing, and reading goes on;
//! - **a hang-up** (the adapter was unplugged, or the other end of a pty was closed) is an error, never an end
//!   of file: nothing on a line says that the peer meant to end.
//!
//! A listener opens its device again when it was gone. The number of a pty is soon somebody else's, a new terminal's say, whose keys would
//! then come here: so another pty is opened only where the link to it was made anew.
//!
//! Settings that a pty cannot have (parity, 7 bits) are ignored by it, which is no failure; nor is RS-485 where
//! the device has none, but that is remarked upon.
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_serial::SerialPort;

use crate::endpoint::{
    DataBits, Endpoint, FlowControl, ModemLine, Parity, Rs485, SerialSettings, StopBits,
};
use crate::error::{Action, TransportError, TransportErrorKind as Kind, describe, kind_of};
use crate::remote::Remote;
use crate::rs485;
use crate::stream::Stream;
use crate::terminal::{Control, LineDoor};
use crate::uucp::{self, Locked};

/// How long shutdown waits for the line: the kernel's own default at close.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How often it looks.
const DRAIN_STEP: Duration = Duration::from_millis(5);
/// What tcsendbreak takes at least: long enough for every baud rate.
const BREAK: Duration = Duration::from_millis(250);
/// Slices that are gathered into one write: one frame of a small line. More saves nothing there.
const GATHER: usize = 4096;

pub(crate) fn dial(
    endpoint: &Endpoint,
    path: &Path,
    settings: &SerialSettings,
) -> Result<Stream, TransportError> {
    let line = Line::open(Action::Dial, endpoint, path, settings)?;
    Ok(line.into_stream(path))
}

/// Waits for the first byte on a line, because that is all the sign of a peer there is.
pub(crate) struct SerialListener {
    path: PathBuf,
    settings: SerialSettings,
    /// One stream at a time: the permit is in the stream, and comes back when that is dropped.
    turn: Arc<Semaphore>,
    /// Between two calls of `accept`: opened, but nothing heard.
    waiting: Option<Line>,
    /// Of the port as it was opened last.
    remarks: Vec<String>,
    /// The pty that the path led to when it was opened last.
    pty: Option<PtyAtPath>,
}

impl SerialListener {
    pub(crate) fn new(
        endpoint: &Endpoint,
        path: &Path,
        settings: &SerialSettings,
    ) -> Result<Self, TransportError> {
        // Opened at once, so that what is wrong with the device is told now.
        let line = Line::open(Action::Listen, endpoint, path, settings)?;
        Ok(Self {
            pty: PtyAtPath::of(path),
            path: path.to_owned(),
            settings: settings.clone(),
            turn: Arc::new(Semaphore::new(1)),
            remarks: line.remarks.clone(),
            waiting: Some(line),
        })
    }

    pub(crate) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    pub(crate) async fn accept(&mut self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        // The semaphore is never closed, so this never fails.
        let permit = Arc::clone(&self.turn).acquire_owned().await.ok();
        if self.waiting.is_none() {
            let pty = PtyAtPath::of(&self.path);
            if let (Some(before), Some(now)) = (&self.pty, &pty)
                && now.is_a_strangers(before)
            {
                let reason = "the pty is gone, and its number is another one's";
                let advice = "make the link to the new one, or restart";
                return Err(TransportError::new(
                    Action::Accept,
                    endpoint,
                    Kind::NotFound,
                    reason,
                    advice,
                ));
            }
            let line = Line::open(Action::Accept, endpoint, &self.path, &self.settings)?;
            self.pty = pty.or_else(|| self.pty.take());
            self.remarks.clone_from(&line.remarks);
            self.waiting = Some(line);
        }
        if let Some(line) = &mut self.waiting {
            let mut first = [0; 1024];
            match line.read(&mut first).await {
                Ok(n) => line.early.extend(first.iter().take(n)),
                Err(error) => {
                    self.waiting = None;
                    let advice = "plug it in again";
                    let error = TransportError::io(Action::Accept, endpoint, error, advice);
                    return Err(error.with_kind(Kind::Lost));
                }
            }
        }
        match self.waiting.take() {
            Some(mut line) => {
                line.permit = permit;
                Ok(line.into_stream(&self.path))
            }
            None => Err(TransportError::new(
                Action::Accept,
                endpoint,
                Kind::Lost,
                "lost",
                "",
            )),
        }
    }
}

struct Line {
    port: tokio_serial::SerialStream,
    /// Read by the listener while it waited.
    early: Vec<u8>,
    hung_up: bool,
    shut: bool,
    drain: Option<(Instant, Pin<Box<Sleep>>)>,
    gathered: Vec<u8>,
    door: Arc<LineDoor>,
    /// Until when the line is held in a break.
    breaking: Option<Pin<Box<Sleep>>>,
    /// Neither flow control nor RS-485 has it for itself.
    rts_is_free: bool,
    /// What was asked of the port and not done.
    remarks: Vec<String>,
    permit: Option<OwnedSemaphorePermit>,
    /// Dropped behind the port: whoever finds the file gone may open it.
    _lock: Option<uucp::Lock>,
}

impl Line {
    fn open(
        action: Action,
        endpoint: &Endpoint,
        path: &Path,
        s: &SerialSettings,
    ) -> Result<Self, TransportError> {
        let fail = |kind, reason: &str, advice: &str| {
            TransportError::new(action, endpoint, kind, reason, advice)
        };
        let Some(name) = path.to_str() else {
            return Err(fail(
                Kind::Invalid,
                "the path is not UTF-8",
                "make a link to it that is",
            ));
        };
        match std::fs::metadata(path) {
            Ok(meta) if meta.file_type().is_char_device() => {}
            Ok(_) => {
                return Err(fail(
                    Kind::Invalid,
                    "it is not a serial device",
                    "check the path",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reason = "there is no such device";
                let advice = "is it plugged in?";
                return Err(fail(Kind::NotFound, reason, advice).with_source(error));
            }
            Err(error) => {
                return Err(TransportError::io(
                    action,
                    endpoint,
                    error,
                    "check the path",
                ));
            }
        }
        let pty = is_pty(path);
        let (lock, warning) =
            uucp::take(path, &s.lock, !s.exclusive, pty).map_err(|locked| match locked {
                Locked::Held(why) => fail(
                    Kind::AddressInUse,
                    &why,
                    "stop that program; remove the file only if no such program runs any more",
                ),
                Locked::Failed(file, error) => {
                    let reason =
                        format!("no lock file at {}: {}", file.display(), describe(&error));
                    let advice =
                        "choose a folder that you may write to with lock=PATH, or lock=no for none";
                    fail(kind_of(&error), &reason, advice).with_source(error)
                }
            })?;
        let builder = tokio_serial::new(name, s.baud)
            .data_bits(match s.data {
                DataBits::Five => tokio_serial::DataBits::Five,
                DataBits::Six => tokio_serial::DataBits::Six,
                DataBits::Seven => tokio_serial::DataBits::Seven,
                DataBits::Eight => tokio_serial::DataBits::Eight,
            })
            .parity(match s.parity {
                Parity::None => tokio_serial::Parity::None,
                Parity::Odd => tokio_serial::Parity::Odd,
                Parity::Even => tokio_serial::Parity::Even,
            })
            .stop_bits(match s.stop {
                StopBits::One => tokio_serial::StopBits::One,
                StopBits::Two => tokio_serial::StopBits::Two,
            })
            .flow_control(match s.flow {
                FlowControl::None => tokio_serial::FlowControl::None,
                FlowControl::Hardware => tokio_serial::FlowControl::Hardware,
                FlowControl::Software => tokio_serial::FlowControl::Software,
            })
            .exclusive(s.exclusive);
        // Held until the port is open for good, so that no line falls meanwhile. Opened before, since an
        // exclusive port can't be opened twice.
        let keep_lines = s.dtr == ModemLine::Keep;
        let held = (keep_lines || s.rs485 != Rs485::Keep).then(|| hold(path, keep_lines));
        let mut port = tokio_serial::SerialStream::open(&builder)
            .map_err(|error| explain(action, endpoint, path, error))?;
        let remarks = rs485::set(endpoint, held.flatten(), s.rs485);
        let remarks = remarks.into_iter().chain(warning).collect();
        // What a device cannot do (a pty has no lines) is no failure: nothing is lost by it.
        if !pty {
            let _ = port.clear(tokio_serial::ClearBuffer::Input);
        }
        let _ = match s.dtr {
            ModemLine::Keep => Ok(()),
            line => port.write_data_terminal_ready(line == ModemLine::On),
        };
        let _ = match s.rts {
            ModemLine::Keep => Ok(()),
            line => port.write_request_to_send(line == ModemLine::On),
        };
        Ok(Self {
            port,
            early: Vec::new(),
            hung_up: false,
            shut: false,
            drain: None,
            gathered: Vec::new(),
            door: Arc::default(),
            breaking: None,
            rts_is_free: s.flow != FlowControl::Hardware && !matches!(s.rs485, Rs485::On(_)),
            remarks,
            permit: None,
            _lock: lock,
        })
    }

    fn into_stream(mut self, path: &Path) -> Stream {
        let control = Control::of_line(Arc::clone(&self.door));
        let remarks = std::mem::take(&mut self.remarks);
        Stream::from_io(self, format!("serial {}", path.display()))
            .with_remote(Remote::Line(path.to_owned()))
            .with_control(control)
            .with_remarks(remarks)
    }

    /// Does what was asked for by the side: modem lines are set, a break is begun and, in time, ended. A device that has none of it goes on
    /// without.
    fn poll_side(&mut self, cx: &mut Context<'_>) {
        let wanted = self.door.poll_wanted(cx);
        if let Some(on) = wanted.dtr {
            let _ = self.port.write_data_terminal_ready(on);
        }
        if let Some(on) = wanted.rts.filter(|_| self.rts_is_free) {
            let _ = self.port.write_request_to_send(on);
        }
        if wanted.sends_break && self.breaking.is_none() && self.port.set_break().is_ok() {
            self.breaking = Some(Box::pin(tokio::time::sleep(BREAK)));
        }
        if let Some(sleep) = &mut self.breaking
            && sleep.as_mut().poll(cx).is_ready()
        {
            let _ = self.port.clear_break();
            self.breaking = None;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.breaking.is_some() {
            let _ = self.port.clear_break();
        }
    }
}

/// Whether the other end of this terminal is a program: by its name, on Linux and the BSDs.
fn is_pty(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_default();
    path.starts_with("/dev/pts") || path.to_string_lossy().starts_with("/dev/ttys")
}

/// Which pty a path leads to, and by which links.
#[derive(Debug)]
struct PtyAtPath {
    /// When it was made tells one from the next one of that number.
    pty: Made,
    links: Vec<Made>,
}

/// Device, inode, and when it was changed last, in seconds and nanoseconds. Using a terminal changes none of these.
type Made = (u64, u64, i64, i64);

/// As many links as the system follows.
const LINKS: usize = 40;

impl PtyAtPath {
    fn of(path: &Path) -> Option<Self> {
        let made = |meta: std::fs::Metadata| {
            let (sec, nsec) = (meta.ctime(), meta.ctime_nsec());
            (meta.dev(), meta.ino(), sec, nsec)
        };
        let pty = made(std::fs::metadata(path).ok()?);
        let (mut links, mut at) = (Vec::new(), path.to_owned());
        while let Ok(to) = std::fs::read_link(&at)
            && links.len() < LINKS
        {
            links.push(made(at.symlink_metadata().ok()?));
            at = at.parent().map_or_else(|| to.clone(), |dir| dir.join(&to));
        }
        is_pty(path).then_some(Self { pty, links })
    }

    /// Whether it is another one, and nobody has led the path there since.
    fn is_a_strangers(&self, before: &Self) -> bool {
        self.pty != before.pty && self.links == before.links
    }
}

/// Opens a port beside the one that is in use, if nobody else has locked it.
///
/// `keep_lines` has the modem lines stay as they are when the port is closed: no hang-up on close (`HUPCL`).
/// Opening a port raises them where they are low, and an edge resets many a board; so the next opening finds
/// them high.
fn hold(path: &Path, keep_lines: bool) -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let port = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&port, FlockOperation::NonBlockingLockExclusive).ok()?;
    if keep_lines && let Ok(mut mode) = tcgetattr(&port) {
        mode.control_modes.remove(ControlModes::HUPCL);
        let _ = tcsetattr(&port, OptionalActions::Now, &mode);
    }
    // The port's own lock comes next.
    rustix::fs::flock(&port, FlockOperation::Unlock).ok()?;
    Some(port)
}

/// Why a device that exists could not be opened. serialport's error keeps little of the reason, so
/// the device is opened once more, plainly, to see what the system says.
fn explain(
    action: Action,
    endpoint: &Endpoint,
    path: &Path,
    error: tokio_serial::Error,
) -> TransportError {
    let fail = |kind, reason: &str, advice: &str| {
        TransportError::new(action, endpoint, kind, reason, advice)
    };
    let no_device = error.kind() == tokio_serial::ErrorKind::NoDevice;
    let error = io::Error::from(error);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reported = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) if !rustix::termios::isatty(&fd) => {
            fail(Kind::Invalid, "it is not a serial device", "check the path")
        }
        // It exists, as was seen before: this is how serialport says that somebody else has locked it.
        Ok(_) | Err(Errno::BUSY) if no_device => fail(
            Kind::AddressInUse,
            "another program holds it",
            "stop that one first (`fuser` names it): two programs on one line take each other's bytes",
        ),
        Err(Errno::ACCESS | Errno::PERM) => fail(
            Kind::PermissionDenied,
            "permission denied",
            "add your user to the group that owns it (`ls -l` shows it; often dialout), and log in again",
        ),
        Err(Errno::NXIO | Errno::NODEV | Errno::IO) => fail(
            Kind::NotFound,
            "there is no device behind it",
            "is it plugged in?",
        ),
        _ => fail(
            kind_of(&error),
            &describe(&error),
            "check the settings in the address",
        ),
    };
    reported.with_source(error)
}

fn hang_up() -> io::Error {
    let text = "the serial line hung up: unplugged, or the other end of the pty was closed";
    io::Error::new(io::ErrorKind::ConnectionReset, text)
}

/// What a device that is gone answers.
fn is_hang_up(error: &io::Error) -> bool {
    [Errno::IO, Errno::NXIO, Errno::NODEV]
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let n = self.early.len().min(buf.remaining());
            for byte in self.early.drain(..n) {
                buf.put_slice(&[byte]);
            }
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.hung_up {
            return Poll::Ready(Err(hang_up()));
        }
        self.poll_side(cx);
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.port).poll_read(cx, buf));
        let gone = match &result {
            Ok(()) => buf.filled().len() == before,
            Err(error) => is_hang_up(error),
        };
        if gone {
            self.hung_up = true;
            return Poll::Ready(Err(hang_up()));
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            let text = "write after shutdown";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, text)));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match ready!(Pin::new(&mut self.port).poll_write(cx, buf)) {
            Err(error) if is_hang_up(&error) => Poll::Ready(Err(hang_up())),
            result => Poll::Ready(result),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        loop {
            // A line that is gone sends nothing any more; reading tells so.
            if self.hung_up || self.port.bytes_to_write().unwrap_or(0) == 0 {
                self.drain = None;
                return Poll::Ready(Ok(()));
            }
            let now = Instant::now();
            let (since, sleep) = self
                .drain
                .get_or_insert_with(|| (now, Box::pin(tokio::time::sleep(DRAIN_STEP))));
            if now.duration_since(*since) > DRAIN_MAX {
                let text =
                    "the serial line did not take what was written within 30 s (flow control?)";
                let _ = self.port.clear(tokio_serial::ClearBuffer::Output);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            ready!(sleep.as_mut().poll(cx));
            sleep.as_mut().reset(now + DRAIN_STEP);
        }
    }

    /// Gathered into one write: a USB adapter sends a packet for each.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.clear();
        for buf in bufs {
            let n = buf.len().min(GATHER - gathered.len());
            gathered.extend(buf.iter().take(n));
        }
        let result = self.as_mut().poll_write(cx, &gathered);
        self.gathered = gathered;
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;
    use crate::listen;

    fn pty() -> (OwnedFd, PathBuf) {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        (master, PathBuf::from(name.to_str().unwrap()))
    }

    /// A terminal that was opened behind one that is gone, and has its number.
    fn of_the_same_number(path: &Path) -> OwnedFd {
        let mut others = Vec::new();
        loop {
            let (master, at) = pty();
            if at == path {
                return master;
            }
            // Somebody else has it at the moment; the number is given away again when that is over.
            others.push(master);
            if others.len() > 64 {
                others.clear();
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[tokio::test]
    async fn a_new_terminal_is_not_opened_for_the_pty_whose_number_it_has() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("line");
        for by_link in [true, false] {
            let (master, at) = pty();
            for name in ["line", "tty"] {
                let _ = std::fs::remove_file(place.path().join(name));
            }
            std::os::unix::fs::symlink(&at, &link).unwrap();
            // One link leads to the next one.
            let tty = place.path().join("tty");
            std::os::unix::fs::symlink("line", &tty).unwrap();
            let path = if by_link { &tty } else { &at };
            let endpoint = format!("serial:{}", path.display()).parse().unwrap();
            let mut listener = listen(&endpoint).await.unwrap();
            drop(master);
            let lost = listener.accept().await.unwrap_err();
            assert_eq!(lost.kind(), Kind::Lost, "{lost}");
            // Times of files have the grain of the system's tick.
            std::thread::sleep(Duration::from_millis(50));

            let stranger = of_the_same_number(&at);

            let error = listener.accept().await.unwrap_err();
            assert!(error.to_string().contains("another one's"), "{error}");
            let mode = tcgetattr(&stranger).unwrap();
            assert!(
                mode.local_modes
                    .contains(rustix::termios::LocalModes::ICANON)
            );
            if by_link {
                // Whoever makes the link anew means that one.
                std::fs::remove_file(&link).unwrap();
                std::os::unix::fs::symlink(&at, &link).unwrap();
                // What is written before it is opened may be thrown away.
                let writes = async {
                    loop {
                        rustix::io::write(&stranger, b"x").unwrap();
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                tokio::select! {
                    accepted = listener.accept() => assert!(accepted.unwrap().is_some()),
                    () = writes => {}
                }
            }
        }
    }
}
