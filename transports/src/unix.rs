//! `unix:`: sockets with a path.
//!
//! A listener's socket is for its owner alone (mode 0600) unless its address says otherwise: it is bound under a temporary name beside its
//! place, given its group and its mode, set listening, and only then moved to its place. Nobody can connect
//! before the mode is set, and nobody who looks at the place finds a socket that does not answer
//! yet. The process's umask, which belongs to all its threads, is left alone.
//!
//! What stands in the place is replaced only if it is a socket that nobody answers at (a server
//! that was killed). A live socket, a regular file or anything else is never touched. On drop the
//! socket is removed if it is still ours.
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::endpoint::{Endpoint, UnixSettings};
use crate::error::{Action, TransportError, TransportErrorKind as Kind, describe, transient};
use crate::remote::Remote;
use crate::stream::Stream;
use crate::watched::{self, Watched};

/// A local connection is made at once or not at all; the bound is for odd file systems.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted; the kernel's own bound applies too.
const BACKLOG: i32 = 128;

pub(crate) async fn dial(
    endpoint: &Endpoint,
    path: &Path,
    settings: &UnixSettings,
) -> Result<Stream, TransportError> {
    let error = match timeout(DIAL_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => return Ok(wrap(stream, path, settings.framed)),
        Ok(Err(error)) => error,
        Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"),
    };
    let fail = |kind, reason: &str, advice: &str| {
        TransportError::new(Action::Dial, endpoint, kind, reason, advice)
    };
    let is_socket = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket());
    Err(match error.kind() {
        io::ErrorKind::ConnectionRefused if is_socket => fail(
            Kind::Refused,
            "the socket is there, but nobody answers (a server that was killed leaves it behind)",
            "start the server",
        ),
        io::ErrorKind::ConnectionRefused => fail(
            Kind::Invalid,
            "it exists, but is not a socket",
            "check the path",
        ),
        io::ErrorKind::NotFound => fail(
            Kind::NotFound,
            "no such socket",
            "check the path, or start the server",
        ),
        io::ErrorKind::PermissionDenied => fail(
            Kind::PermissionDenied,
            "permission denied",
            "the socket or its directory belongs to another user",
        ),
        // A non-blocking connect tells a full queue this way.
        io::ErrorKind::WouldBlock => fail(
            Kind::Refused,
            "the server's queue of connections is full",
            "try again later",
        ),
        _ => {
            return Err(TransportError::io(
                Action::Dial,
                endpoint,
                error,
                "check the path",
            ));
        }
    }
    .with_source(error))
}

/// One that somebody else has connected or accepted.
impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        let named = [stream.peer_addr(), stream.local_addr()];
        // Whoever dialled has no path of its own.
        let path = named.iter().flatten().find_map(|it| it.as_pathname());
        match path.map(Path::to_owned) {
            Some(path) => wrap(stream, &path, false),
            None => Self::from_io(stream, "unix"),
        }
    }
}

/// A socket of this machine, which knows whose process it is connected to.
struct Local;

impl watched::Kind<UnixStream> for Local {
    fn peer_user(&self, stream: &UnixStream) -> Option<u32> {
        stream.peer_cred().ok().map(|who| who.uid())
    }
}

fn wrap(stream: UnixStream, path: &Path, framed: bool) -> Stream {
    let label = format!("unix {}", path.display());
    let connection = Watched::new(stream, Local);
    let stream = Stream::from_wire(connection, label).with_remote(Remote::Unix(path.to_owned()));
    if framed { stream.framed() } else { stream }
}

/// The listening socket, and the file that it owns.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Its connections carry frames.
    framed: bool,
    /// Device and inode of the file as it was made, to know it again.
    identity: Option<(u64, u64)>,
}

impl UnixSocket {
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        path: &Path,
        settings: &UnixSettings,
    ) -> Result<Self, TransportError> {
        let access = Access::of(endpoint, settings)?;
        let fail = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => "make its directory first",
                io::ErrorKind::PermissionDenied => "choose a directory that you may write to",
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
                    "a socket's path may have about 100 bytes; shorten it"
                }
                _ => "check the path",
            };
            TransportError::io(Action::Listen, endpoint, error, advice)
        };
        make_room(endpoint, path).await?;
        let listener = match Self::make(path, access) {
            // Somebody was faster; look again who it is.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                make_room(endpoint, path).await?;
                Self::make(path, access)
            }
            other => other,
        };
        let listener = listener.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::AddrInUse => live(endpoint, error),
            _ => fail(error),
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            framed: settings.framed,
            identity: identity(path),
        })
    }

    /// Somebody else has bound it: that one's are the file and its permissions.
    pub(crate) fn inherited(listener: UnixListener) -> Self {
        let address = listener.local_addr().ok();
        let path = address.and_then(|address| address.as_pathname().map(Path::to_owned));
        Self {
            listener,
            path: path.unwrap_or_default(),
            framed: false,
            identity: None,
        }
    }

    fn make(path: &Path, access: Access) -> io::Result<UnixListener> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(format!(".{}-{count}", std::process::id()));
        let temporary = path.with_file_name(name);
        // Too long for a socket address although the path itself fits: then without the detour.
        let Ok(address) = SocketAddrUnix::new(temporary.as_path()) else {
            return listening(&SocketAddrUnix::new(path)?, path, access);
        };
        let listener = listening(&address, &temporary, access)?;
        match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(listener),
            Err(error) => {
                let _ = std::fs::remove_file(&temporary);
                // A file system that does not know this kind of rename.
                if matches!(error, rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) {
                    return listening(&SocketAddrUnix::new(path)?, path, access);
                }
                Err(error.into())
            }
        }
    }

    /// The next connection. Cancel safe; what passes by itself is waited out, as for TCP.
    pub(crate) async fn accept(&self, endpoint: &Endpoint) -> Result<Stream, TransportError> {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Ok(wrap(stream, &self.path, self.framed)),
                Err(error) if transient(&error) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(TransportError::io(Action::Accept, endpoint, error, "")),
            }
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Who may connect.
#[derive(Clone, Copy)]
struct Access {
    mode: u32,
    group: Option<u32>,
}

impl Access {
    fn of(endpoint: &Endpoint, settings: &UnixSettings) -> Result<Self, TransportError> {
        let group = settings.group.as_deref().map(|name| match name.parse() {
            Ok(number) => Ok(number),
            Err(_) => match nix::unistd::Group::from_name(name) {
                Ok(Some(group)) => Ok(group.gid.as_raw()),
                _ => Err(TransportError::new(
                    Action::Listen,
                    endpoint,
                    Kind::NotFound,
                    format!("this machine has no group {name}"),
                    "`getent group` lists the groups there are",
                )),
            },
        });
        let group = group.transpose()?;
        let usual = if group.is_some() { 0o660 } else { 0o600 };
        Ok(Self {
            mode: settings.mode.map_or(usual, u32::from),
            group,
        })
    }
}

/// A socket bound to `path`, with its group and permissions, listening: in this order, so that nobody connects before.
fn listening(address: &SocketAddrUnix, path: &Path, access: Access) -> io::Result<UnixListener> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::bind(&socket, address)?;
    let given = || {
        if access.group.is_some() {
            std::os::unix::fs::chown(path, None, access.group).map_err(|e| {
                io::Error::new(
                    e.kind(),
                    format!("cannot change its group ({})", describe(&e)),
                )
            })?;
        }
        let mode = std::fs::Permissions::from_mode(access.mode);
        std::fs::set_permissions(path, mode)?;
        Ok(rustix::net::listen(&socket, BACKLOG)?)
    };
    if let Err(error) = given() {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    UnixListener::from_std(socket.into())
}

/// Removes a stale socket; refuses everything else that stands in the place.
async fn make_room(endpoint: &Endpoint, path: &Path) -> Result<(), TransportError> {
    if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
        let kind = Kind::Invalid;
        let advice = "name the socket itself";
        return Err(TransportError::new(
            Action::Listen,
            endpoint,
            kind,
            "it is a directory",
            advice,
        ));
    }
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(TransportError::new(
            Action::Listen,
            endpoint,
            Kind::AddressInUse,
            "something other than a socket is already there",
            "remove it, or choose another path",
        ));
    }
    match timeout(DIAL_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A full queue or a refused permission: somebody's, and perhaps alive.
        Ok(Err(error)) => {
            let reason = format!("a socket is there and may be in use ({})", describe(&error));
            let advice = "choose another path";
            return Err(TransportError::new(
                Action::Listen,
                endpoint,
                Kind::AddressInUse,
                reason,
                advice,
            )
            .with_source(error));
        }
        Ok(Ok(_)) | Err(_) => return Err(live(endpoint, io::ErrorKind::AddrInUse.into())),
    }
    // The very file that did not answer, not one that came since.
    if identity(path) == Some((meta.dev(), meta.ino())) {
        let removed = std::fs::remove_file(path);
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            let advice =
                "a stale socket is there and cannot be removed; remove it, or choose another path";
            return Err(TransportError::io(Action::Listen, endpoint, error, advice));
        }
    }
    Ok(())
}

fn live(endpoint: &Endpoint, error: io::Error) -> TransportError {
    let reason = "something already listens there";
    let advice = "stop that server, or choose another path";
    TransportError::new(Action::Listen, endpoint, Kind::AddressInUse, reason, advice)
        .with_source(error)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path)
        .ok()
        .map(|m| (m.dev(), m.ino()))
}
