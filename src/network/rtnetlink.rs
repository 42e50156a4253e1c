//! Linux tells of its network in messages of rtnetlink(7), on a socket that anybody may open. That one came is all we read of it.
//!
//! A thread blocks on the socket: it needs no runtime, and one serves all of a process.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// `RTMGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR` and `_IPV6_ROUTE` of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Between two that are passed on, so that a flood of messages is not one of wake-ups.
const PAUSE: Duration = Duration::from_millis(200);

/// Messages of one change; a flood that goes on is read on after the pause.
const MANY: usize = 10_000;

/// Calls `tell` after each change, from another thread. Where the system does not allow it, `tell` is dropped.
pub(super) fn listen(notify: impl Fn() + Send + 'static) {
    let Ok(socket) = open() else {
        return;
    };
    // Where no thread can be had, there are no changes either.
    let _ = thread::Builder::new()
        .name("cepa-network".to_owned())
        .stack_size(64 << 10)
        .spawn(move || run(&socket, &notify));
}

fn open() -> Result<OwnedFd, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE, which is 0.
        None,
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

fn run(socket: &OwnedFd, notify: &impl Fn()) {
    loop {
        match next(socket, RecvFlags::empty()) {
            Ok(()) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        // What came with it is the same change.
        for _ in 0..MANY {
            if next(socket, RecvFlags::DONTWAIT).is_err() {
                break;
            }
        }
        notify();
        thread::sleep(PAUSE);
    }
}

/// Takes a message off the socket; what does not fit is thrown away with it.
fn next(socket: &OwnedFd, flags: RecvFlags) -> Result<(), Errno> {
    match recv(socket, &mut [0_u8; 16], flags) {
        // Some were lost, which is as good as having read them.
        Ok(_) | Err(Errno::NOBUFS) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anybody_may_listen_and_hears_nothing_where_nothing_changes() {
        // Sandboxes may forbid it, and then there are no changes.
        let Ok(socket) = open() else {
            eprintln!("SKIPPED: no socket of rtnetlink here");
            return;
        };
        // The machine's network may change while the test runs.
        for _ in 0..MANY {
            match next(&socket, RecvFlags::DONTWAIT) {
                Ok(()) => {}
                Err(error) => return assert_eq!(error, Errno::AGAIN),
            }
        }
    }
}
