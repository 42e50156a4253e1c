//! `fd:`: descriptors that this process inherited, by number: a stream, or a socket that somebody else has bound and listens at.
//!
//! A number is all there is, and nothing says that it is not one of this program's own. Two things guard
//! against taking away a descriptor that other code here holds: what Rust opens is marked close-on-exec,
//! and what was inherited cannot be, so a marked descriptor is refused; and each number is taken once.
//!
//! The descriptor is duplicated (`pidfd_getfd` on this very process, which needs no unsafe code and works for
//! sockets too), and the number then closed, so that closing the stream really closes it. Where
//! a sandbox forbids `pidfd_getfd` (some container profiles do), it is opened anew through
//! `/proc/self/fd`, which works for pipes, terminals and files, but not for sockets.
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::net::{TcpListener, UnixListener};

use crate::descriptor::Descriptors;
use crate::endpoint::{Endpoint, Target, TcpSettings, UnixSettings};
use crate::error::{Action, TransportError, TransportErrorKind as Kind};
use crate::remote::Remote;
use crate::stream::Stream;

static TAKEN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// What to listen on: whoever starts this process may have bound a socket for it, as systemd does.
pub(crate) enum Inherited {
    Connected(Stream),
    /// And where it is bound.
    Tcp(TcpListener, Target),
    Unix(UnixListener, Target),
}

pub(crate) fn open(endpoint: &Endpoint, read: u32, write: u32) -> Result<Stream, TransportError> {
    let action = Action::Dial;
    let (reading, writing) = take(action, endpoint, read, write, |reading| {
        if !is_listening(reading) {
            return Ok(());
        }
        let reason = format!("descriptor {read} is a socket that listens, and carries nothing");
        Err((Kind::Invalid, reason))
    })?;
    connected(action, endpoint, reading, writing, read, write)
}

/// Whether the address is that of an inherited socket that listens, at which any number may connect: [`listen`](crate::listen) gives
/// a stream for each. Asks the system; once `listen` has taken the descriptor, the address of its
/// [`Listener`](crate::Listener) says where.
pub fn is_inherited_listener(endpoint: &Endpoint) -> bool {
    let Target::Fd { read, write } = *endpoint.target() else {
        return false;
    };
    read == write
        && usable(read, OFlags::WRONLY, "").is_ok()
        && duplicate(read, OFlags::RDONLY).is_ok_and(|it| is_listening(&it))
}

/// Must be called inside a runtime, as [`tokio::net`] wants it.
pub(crate) fn listen(
    endpoint: &Endpoint,
    read: u32,
    write: u32,
) -> Result<Inherited, TransportError> {
    let action = Action::Listen;
    let (reading, writing) = take(action, endpoint, read, write, |_| Ok(()))?;
    if !is_listening(&reading) {
        let stream = connected(action, endpoint, reading, writing, read, write)?;
        return Ok(Inherited::Connected(stream));
    }
    // The other duplicate would keep the socket open.
    drop(writing);
    let io = |error| TransportError::io(action, endpoint, error, "check what the socket is");
    match sockopt::socket_domain(&reading) {
        Ok(AddressFamily::UNIX) => {
            let listener = std::os::unix::net::UnixListener::from(reading);
            listener.set_nonblocking(true).map_err(io)?;
            let listener = UnixListener::from_std(listener).map_err(io)?;
            let address = listener.local_addr().map_err(io)?;
            // One without a path is given as the descriptor that it was.
            let target = address.as_pathname().map_or_else(
                || endpoint.target().clone(),
                |path| Target::Unix {
                    path: path.to_owned(),
                    settings: UnixSettings::default(),
                },
            );
            Ok(Inherited::Unix(listener, target))
        }
        Ok(AddressFamily::INET | AddressFamily::INET6) => {
            let listener = std::net::TcpListener::from(reading);
            listener.set_nonblocking(true).map_err(io)?;
            let listener = TcpListener::from_std(listener).map_err(io)?;
            let address = listener.local_addr().map_err(io)?;
            let target = Target::Tcp {
                host: address.ip().to_string(),
                port: address.port(),
                settings: TcpSettings::default(),
            };
            Ok(Inherited::Tcp(listener, target))
        }
        _ => {
            let reason =
                format!("descriptor {read} listens with a protocol that is not known here");
            let advice = "pass on a TCP or a Unix stream socket";
            Err(TransportError::new(
                action,
                endpoint,
                Kind::Unsupported,
                reason,
                advice,
            ))
        }
    }
}

fn is_listening(descriptor: &OwnedFd) -> bool {
    // An error: no socket.
    sockopt::socket_acceptconn(descriptor).unwrap_or(false)
}

fn connected(
    action: Action,
    endpoint: &Endpoint,
    reading: OwnedFd,
    writing: OwnedFd,
    read: u32,
    write: u32,
) -> Result<Stream, TransportError> {
    let streams = Descriptors::new(reading, writing).map_err(|error| {
        TransportError::io(action, endpoint, error, "check what the descriptor is")
    })?;
    let label = if read == write {
        format!("fd {read}")
    } else {
        format!("fd {read},{write}")
    };
    Ok(Stream::from_io(streams, label).with_remote(Remote::Fd))
}

/// Duplicates both and closes the numbers, if `fits` says so of the first.
fn take(
    action: Action,
    endpoint: &Endpoint,
    read: u32,
    write: u32,
    fits: impl FnOnce(&OwnedFd) -> Result<(), (Kind, String)>,
) -> Result<(OwnedFd, OwnedFd), TransportError> {
    let numbers = BTreeSet::from([read, write]);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(n) = numbers.intersection(&taken).next() {
        let reason = format!("descriptor {n} is in use by another stream of this process");
        let advice = "each descriptor can be given once";
        return Err(TransportError::new(
            action,
            endpoint,
            Kind::AddressInUse,
            reason,
            advice,
        ));
    }
    let fail = |(kind, reason): (Kind, String)| {
        let advice =
            "descriptors are passed on by what starts this process, as in a shell: PROGRAM 7<>FILE";
        TransportError::new(action, endpoint, kind, reason, advice)
    };
    let reading =
        usable(read, OFlags::WRONLY, "writing").and_then(|()| duplicate(read, OFlags::RDONLY));
    let reading = reading.map_err(fail)?;
    let writing =
        usable(write, OFlags::RDONLY, "reading").and_then(|()| duplicate(write, OFlags::WRONLY));
    let writing = writing.map_err(fail)?;
    fits(&reading).map_err(|(kind, reason)| {
        let advice = "give it to what listens (`cepa serve`, `relay`, `node`)";
        TransportError::new(action, endpoint, kind, reason, advice)
    })?;
    for n in &numbers {
        close(*n);
    }
    taken.extend(&numbers);
    Ok((reading, writing))
}

/// Refuses a descriptor that is not open, is this program's own, or goes the other way only.
fn usable(n: u32, wrong_way: OFlags, the_other: &str) -> Result<(), (Kind, String)> {
    let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{n}")) else {
        return Err((
            Kind::NotFound,
            format!("descriptor {n} is not open in this process"),
        ));
    };
    let flags = info
        .lines()
        .find_map(|l| l.strip_prefix("flags:"))
        .unwrap_or("")
        .trim();
    let flags = OFlags::from_bits_retain(u32::from_str_radix(flags, 8).unwrap_or(0));
    if flags.contains(OFlags::CLOEXEC) {
        let reason =
            format!("descriptor {n} was not inherited, but belongs to this program itself");
        return Err((Kind::Invalid, reason));
    }
    if flags & OFlags::ACCMODE == wrong_way {
        return Err((
            Kind::Invalid,
            format!("descriptor {n} is open for {the_other} only"),
        ));
    }
    Ok(())
}

fn duplicate(n: u32, mode: OFlags) -> Result<OwnedFd, (Kind, String)> {
    let standard = match n {
        0 => io::stdin().as_fd().try_clone_to_owned().ok(),
        1 => io::stdout().as_fd().try_clone_to_owned().ok(),
        2 => io::stderr().as_fd().try_clone_to_owned().ok(),
        _ => None,
    };
    if let Some(fd) = standard {
        return Ok(fd);
    }
    let by_pidfd = || {
        let this = pidfd_open(getpid(), PidfdFlags::empty())?;
        pidfd_getfd(
            this,
            i32::try_from(n).unwrap_or(-1),
            PidfdGetfdFlags::empty(),
        )
    };
    by_pidfd()
        .or_else(|_| {
            let flags = mode | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(format!("/proc/self/fd/{n}"), flags, Mode::empty())
        })
        .map_err(|error| {
            let reason = format!("descriptor {n} cannot be taken over on this system ({error})");
            (Kind::Unsupported, reason)
        })
}

/// Closes the number, so that the duplicate is the last of it. The standard ones keep referring to
/// something: a file opened later must not become standard output by accident.
fn close(n: u32) {
    match n {
        0..=2 => {
            let Ok(null) = std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
            else {
                return;
            };
            let _ = match n {
                0 => rustix::stdio::dup2_stdin(&null),
                1 => rustix::stdio::dup2_stdout(&null),
                _ => rustix::stdio::dup2_stderr(&null),
            };
        }
        // Inherited, checked in `usable`: no object of this process owns the number.
        _ => {
            let _ = i32::try_from(n).map(nix::unistd::close);
        }
    }
}
