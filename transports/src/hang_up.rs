//! Whether the other end of a socket or pipe is gone altogether, while nothing is read from it and nothing written to it.
//!
//! Reading tells of a hang-up as long as there is something to read; behind an end of stream it tells nothing more. A duplicate of
//! the descriptor is watched then, for nothing but what epoll reports unasked: `EPOLLHUP` (both directions are over) and
//! `EPOLLERR` (a reset, a keepalive without answer, a pipe without readers). It is made at the first question, and given back
//! once the connection is read again, so that one that is read costs no second descriptor.
//!
//! There are only so many duplicates: whoever counts a connection as one descriptor must not be wrong by as many as there are
//! connections. A connection beyond them is looked at each second.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::PollFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

use crate::limits::descriptor_limit;
use crate::watch::{reported, watch};

/// Urgent data, which nobody sends: what comes unasked is all that is wanted. Elsewhere than on Linux there is no such interest.
#[cfg(target_os = "linux")]
const UNASKED: Interest = Interest::PRIORITY;
#[cfg(not(target_os = "linux"))]
const UNASKED: Interest = Interest::READABLE;

/// Of what a process may open, so many parts are for all duplicates together: half of the eighth that nodes keep back.
const PARTS: usize = 16;

/// How often a connection is looked at that has no duplicate.
const LOOK: Duration = Duration::from_secs(1);

/// Duplicates that there are.
static DUPLICATES: AtomicUsize = AtomicUsize::new(0);

/// One of them.
#[derive(Debug)]
pub(crate) struct Duplicate {
    watched: AsyncFd<OwnedFd>,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted;

impl Counted {
    fn one_of(most: usize) -> Option<Self> {
        let more = |n: usize| (n < most).then_some(n + 1);
        let counted = DUPLICATES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.ok().map(|_| Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DUPLICATES.fetch_sub(1, Ordering::Relaxed);
    }
}

fn most() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| (descriptor_limit() / PARTS).max(8))
}

/// None when there are as many as there may be, the process is out of descriptors, or it is one that can't be watched.
fn duplicate(of: BorrowedFd<'_>, most: usize) -> Option<Duplicate> {
    let counted = Counted::one_of(most)?;
    let own = of.try_clone_to_owned().ok()?;
    Some(Duplicate {
        watched: watch(own, UNASKED).ok()?,
        _counted: counted,
    })
}

/// The watch over one descriptor.
#[derive(Debug, Default)]
pub(crate) enum HangUp {
    #[default]
    NotAsked,
    Watched(Box<Duplicate>),
    Looking(Pin<Box<Sleep>>),
}

impl HangUp {
    /// Nobody asks for now: reading tells.
    pub(crate) fn rest(&mut self) {
        *self = Self::NotAsked;
    }

    /// Ready once the other end is gone: `BrokenPipe` where it closed in order, `ConnectionReset` where not.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, of: impl AsFd) -> Poll<io::Error> {
        self.poll_among(cx, of.as_fd(), most())
    }

    fn poll_among(
        &mut self,
        cx: &mut Context<'_>,
        of: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Error> {
        if let Self::NotAsked = self {
            *self = match duplicate(of, most) {
                Some(it) => Self::Watched(Box::new(it)),
                None => Self::Looking(Box::pin(sleep(Duration::ZERO))),
            };
        }
        loop {
            match self {
                Self::NotAsked => return Poll::Pending,
                Self::Watched(it) => {
                    let Ok(mut guard) = ready!(it.watched.poll_write_ready(cx)) else {
                        return Poll::Pending;
                    };
                    if let Some(error) = look(guard.get_inner().as_fd()) {
                        return Poll::Ready(error);
                    }
                    guard.clear_ready();
                }
                Self::Looking(timer) => {
                    ready!(timer.as_mut().poll(cx));
                    if let Some(error) = look(of) {
                        return Poll::Ready(error);
                    }
                    *timer = Box::pin(sleep(LOOK));
                }
            }
        }
    }
}

/// What the system says now.
fn look(fd: BorrowedFd<'_>) -> Option<io::Error> {
    let seen = reported(fd, PollFlags::empty()).ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_connection_beyond_the_duplicates_is_missed_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = Vec::new();
        let mut far = Vec::new();
        for _ in 0..4 {
            far.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            near.push((listener.accept().unwrap().0, HangUp::default()));
        }
        for (stream, watch) in &mut near {
            let gone = poll_fn(|cx| Poll::Ready(watch.poll_among(cx, stream.as_fd(), 2)));
            assert!(gone.await.is_pending());
        }
        let watched = |it: &&(TcpStream, HangUp)| matches!(it.1, HangUp::Watched(_));
        // Other tests of this process have some as well, perhaps.
        assert!(near.iter().filter(watched).count() <= 2);
        for (n, stream) in far.into_iter().enumerate() {
            if n % 2 == 0 {
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            } else {
                // In order, both ways.
                near[n].0.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
        for (n, (stream, watch)) in near.iter_mut().enumerate() {
            let gone = poll_fn(|cx| watch.poll_among(cx, stream.as_fd(), 2)).await;
            let expected = if n % 2 == 0 {
                io::ErrorKind::ConnectionReset
            } else {
                io::ErrorKind::BrokenPipe
            };
            assert_eq!(gone.kind(), expected, "{n}");
        }
    }
}
