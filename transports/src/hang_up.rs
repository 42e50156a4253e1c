//! Whether the other end of a socket or pipe is gone altogether, while nothing is read from it and nothing written to it.
//!
//! Reading tells of a hang-up as long as there is something to read; behind an end of stream it tells nothing more. A duplicate of
//! the descriptor is watched then, for nothing but what epoll reports unasked: `EPOLLHUP` (both directions are over) and
//! `EPOLLERR` (a reset, a keepalive without answer, a pipe without readers). It is made at the first question, and given back
//! once the connection is read again, so that one that is read costs no second descriptor.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::watch::watch;

/// Urgent data, which nobody sends: what comes unasked is all that is wanted. Elsewhere than on Linux there is no such interest.
#[cfg(target_os = "linux")]
const UNASKED: Interest = Interest::PRIORITY;
#[cfg(not(target_os = "linux"))]
const UNASKED: Interest = Interest::READABLE;

/// The watch over one descriptor.
#[derive(Debug, Default)]
pub(crate) enum HangUp {
    #[default]
    NotAsked,
    Watched(AsyncFd<OwnedFd>),
    /// Out of descriptors, or none that could be watched: it is noticed at the next write.
    Blind,
}

impl HangUp {
    /// Nobody asks for now: reading tells.
    pub(crate) fn rest(&mut self) {
        if let Self::Watched(_) = self {
            *self = Self::NotAsked;
        }
    }

    /// Ready once the other end is gone: `BrokenPipe` where it closed in order, `ConnectionReset` where not.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, of: impl AsFd) -> Poll<io::Error> {
        if let Self::NotAsked = self {
            let own = of.as_fd().try_clone_to_owned();
            *self = match own.and_then(|own| watch(own, UNASKED)) {
                Ok(watched) => Self::Watched(watched),
                Err(_) => Self::Blind,
            };
        }
        let Self::Watched(watched) = self else {
            return Poll::Pending;
        };
        loop {
            let Ok(mut guard) = ready!(watched.poll_write_ready(cx)) else {
                return Poll::Pending;
            };
            if let Some(error) = look(guard.get_inner()) {
                return Poll::Ready(error);
            }
            guard.clear_ready();
        }
    }
}

/// What the system says now.
fn look(fd: &OwnedFd) -> Option<io::Error> {
    let mut asked = [PollFd::new(fd, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut asked, Some(&now)).ok()?;
    let [asked] = &asked;
    let seen = asked.revents();
    let pipe = rustix::net::sockopt::socket_type(fd).is_err();
    if seen.contains(PollFlags::ERR) && !pipe {
        let text = "the other end has hung up: reset, or without an answer";
        return Some(io::Error::new(io::ErrorKind::ConnectionReset, text));
    }
    if seen.contains(PollFlags::ERR) {
        // A pipe without readers: what a write would say.
        return Some(rustix::io::Errno::PIPE.into());
    }
    let gone = seen.intersects(PollFlags::HUP | PollFlags::ERR);
    gone.then(|| io::Error::new(io::ErrorKind::BrokenPipe, "the other end has hung up"))
}
