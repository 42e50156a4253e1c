//! Registering a descriptor with the runtime, in the one place that names the constructor.
use std::io;
use std::os::fd::OwnedFd;

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
