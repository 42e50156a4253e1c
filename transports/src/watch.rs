//! Registering a descriptor with the runtime, in the one place that names the constructor; and asking the system about one at once.
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for readiness; fails with `EPERM` for what epoll does not take (files).
///
/// tokio has deprecated its safe constructors, because a type may lie about its descriptor; the unsafe
/// successors demand one valid descriptor, the same until it is dropped. That is what an `OwnedFd`
/// is, so for it the safe ones are right, and this crate has no unsafe code.
#[allow(deprecated, reason = "sound for OwnedFd, see above")]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// What the system reports of a descriptor now, of `what` and of what it reports unasked.
pub(crate) fn reported(fd: impl AsFd, what: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), what)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now))?;
    let [fd] = fds;
    Ok(fd.revents())
}
