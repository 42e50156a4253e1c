//! A path inside the process that breaks: after so many bytes, in one of the ways in which real ones do.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// How a direction breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Both ends of it get an error.
    Reset,
    /// What is written vanishes, nobody is told, and soon nothing more is taken.
    Blackhole,
    /// Who writes gets an error, and who reads waits for ever.
    HalfOpen,
    /// Who reads is told that it ended; what is written vanishes.
    Ended,
}

/// One direction of a path.
#[derive(Debug)]
struct Direction {
    /// Bytes until it breaks.
    left: u64,
    fault: Fault,
    /// Bytes that vanish before nothing is taken any more.
    vanish: u64,
    broken: bool,
    reader: Option<Waker>,
}

impl Direction {
    fn break_now(&mut self) {
        self.broken = true;
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

type Shared = Arc<Mutex<Direction>>;

/// One end of a path.
#[derive(Debug)]
pub(super) struct Faulty {
    io: DuplexStream,
    out: Shared,
    into: Shared,
}

/// A path whose directions carry so many bytes, and then break so. `u64::MAX` bytes never do.
pub(super) fn path(one: (u64, Fault), two: (u64, Fault), buffer: usize) -> (Faulty, Faulty) {
    let (near, far) = duplex(buffer);
    let direction = |(left, fault)| {
        Arc::new(Mutex::new(Direction {
            left,
            fault,
            vanish: 20_000,
            broken: false,
            reader: None,
        }))
    };
    let (one, two) = (direction(one), direction(two));
    let end = |io, out: &Shared, into: &Shared| Faulty {
        io,
        out: Arc::clone(out),
        into: Arc::clone(into),
    };
    (end(near, &one, &two), end(far, &two, &one))
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        {
            let mut into = self.into.lock().unwrap();
            if into.broken {
                return match into.fault {
                    Fault::Reset => reset(),
                    Fault::Ended => Poll::Ready(Ok(())),
                    Fault::Blackhole | Fault::HalfOpen => Poll::Pending,
                };
            }
            into.reader = Some(cx.waker().clone());
        }
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            // The other end is gone, which a path that swallows all does not tell.
            Poll::Ready(Ok(())) if buf.filled().is_empty() && buf.remaining() > 0 => {
                let fault = self.into.lock().unwrap().fault;
                match fault {
                    Fault::Blackhole | Fault::HalfOpen => Poll::Pending,
                    Fault::Reset => reset(),
                    Fault::Ended => Poll::Ready(Ok(())),
                }
            }
            polled => polled,
        }
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = {
            let mut out = self.out.lock().unwrap();
            if out.left == 0 && !out.broken {
                out.break_now();
            }
            if out.broken {
                if matches!(out.fault, Fault::Reset | Fault::HalfOpen) {
                    return reset();
                }
                let n = bytes.len().min(usize::try_from(out.vanish).unwrap());
                out.vanish -= n as u64;
                return if n == 0 {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(n))
                };
            }
            usize::try_from(out.left)
                .unwrap_or(usize::MAX)
                .min(bytes.len())
        };
        match Pin::new(&mut self.io).poll_write(cx, &bytes[..most]) {
            Poll::Ready(Ok(n)) => {
                let mut out = self.out.lock().unwrap();
                out.left = out
                    .left
                    .saturating_sub(if out.left == u64::MAX { 0 } else { n as u64 });
                Poll::Ready(Ok(n))
            }
            polled => polled,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
