//! Holding a stream to a rate, in either direction.
//!
//! A direction asks its [`Policy`] *before* it moves bytes: how many, and from when on? The answer is a
//! reservation. It waits until then, moves at most that many, and asks again when they are used up;
//! what it holds and does not use is given back when the stream is dropped. Asking in advance makes
//! sharing fair by itself: reservations of several streams queue up in the order in which they were
//! asked for, so none starves, and together they never exceed the rate by more than the burst.
//!
//! [`TokenBucket`] is the policy for a plain rate; the trait is there for others (a rate by the hour of the
//! day, a quota, one bucket inside another). Put a [`Throttled`] stream directly on the transport to make the
//! rate count wire bytes.
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What a [`Policy`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How many bytes may be moved; more than were asked for is fine, the direction keeps the rest for
    /// later. With 0 the policy is asked again at `at` (a millisecond later at the earliest).
    pub bytes: usize,
    /// From when on. In the past or now: at once.
    pub at: Instant,
}

/// Decides how many bytes a direction may move, and when.
///
/// One policy may serve many directions of many streams at once. It is called inside of polls, so
/// it must answer at once and not block. Time is an argument, so that tests run in virtual time.
pub trait Policy: Send + Sync + 'static {
    /// Reserves bytes; `want` (at least 1) is what the direction could move now.
    fn reserve(&self, want: usize, now: Instant) -> Grant;

    /// Takes back bytes that were granted and will not be moved.
    fn refund(&self, bytes: usize) {
        let _ = bytes;
    }
}

/// A rate, and how much may be saved up while nothing moves. Clones share one bucket.
///
/// The bucket starts empty, so a rate also holds over the first second.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    state: Arc<Mutex<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes a second; at least 1.
    rate: u64,
    /// Bytes that may be saved up; at least 1.
    burst: u64,
    /// When the bucket is empty: in the past by what is saved up, in the future by what is reserved.
    /// `None` before the first use.
    empty_at: Option<Instant>,
}

/// Saved up by default: 20 ms of the rate. It has to cover the timer's granularity (1 ms) and a
/// late wake-up, or the rate is not reached; more would show as a burst on a slow line.
const BURST: Duration = Duration::from_millis(20);
/// A reservation: 10 ms of the rate, so that a stream that shares a bucket waits no longer than
/// that for each of the others; and never more than 64 KiB.
const TURN: Duration = Duration::from_millis(10);
const TURN_MAX: u64 = 64 * 1024;

impl TokenBucket {
    /// A bucket for so many bytes a second (0 is taken as 1), saving up 20 ms of it.
    pub fn new(bytes_per_second: u64) -> Self {
        let rate = bytes_per_second.max(1);
        Self::with_burst(rate, bytes_in(rate, BURST))
    }

    /// A bucket that saves up to `burst` bytes while nothing moves.
    pub fn with_burst(bytes_per_second: u64, burst: u64) -> Self {
        let rate = bytes_per_second.max(1);
        let bucket = Bucket {
            rate,
            burst: burst.max(1),
            empty_at: None,
        };
        Self {
            state: Arc::new(Mutex::new(bucket)),
        }
    }

    /// Changes the rate from now on; what is reserved already keeps its time.
    pub fn set_rate(&self, bytes_per_second: u64) {
        let mut bucket = self.lock();
        bucket.rate = bytes_per_second.max(1);
        bucket.burst = bytes_in(bucket.rate, BURST).max(1);
    }

    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        self.lock().rate
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policy for TokenBucket {
    /// Always a whole turn, whatever is wanted: if it depended on that, a stream of small writes would
    /// get less than its share beside one of large ones.
    fn reserve(&self, _want: usize, now: Instant) -> Grant {
        let mut bucket = self.lock();
        let turn = bytes_in(bucket.rate, TURN).clamp(1, TURN_MAX);
        let saved = time_for(bucket.burst, bucket.rate);
        let oldest = now.checked_sub(saved).unwrap_or(now);
        let empty_at = bucket.empty_at.map_or(now, |at| at.max(oldest));
        let at = empty_at + time_for(turn, bucket.rate);
        bucket.empty_at = Some(at);
        // At most 64 KiB.
        Grant {
            bytes: usize::try_from(turn).unwrap_or(usize::MAX),
            at,
        }
    }

    fn refund(&self, bytes: usize) {
        let mut bucket = self.lock();
        let time = time_for(bytes as u64, bucket.rate);
        bucket.empty_at = bucket.empty_at.and_then(|at| at.checked_sub(time));
    }
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Rounded up to the nanosecond: the error is below 1 in 10,000,000 for a turn of 10 ms.
fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What one direction may move by its [`Policy`], and when: what [`Throttled`] asks, for those who move bytes
/// otherwise. What was granted and not used goes back to the policy when this is dropped.
pub struct Allowance {
    policy: Arc<dyn Policy>,
    /// Granted and not used yet; may be used once `wait` is over.
    granted: usize,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Allowance {
    /// Nothing is granted yet.
    pub fn new(policy: Arc<dyn Policy>) -> Self {
        Self {
            policy,
            granted: 0,
            wait: None,
        }
    }

    /// How many of `want` bytes may be moved now; [`used`](Self::used) tells what was.
    pub fn poll(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<usize> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            if self.granted > 0 {
                return Poll::Ready(self.granted.min(want));
            }
            let now = Instant::now();
            let grant = self.policy.reserve(want, now);
            self.granted = grant.bytes;
            let at = if self.granted == 0 {
                grant.at.max(now + Duration::from_millis(1))
            } else {
                grant.at
            };
            if at > now {
                self.wait = Some(Box::pin(sleep_until(at)));
            }
        }
    }

    /// So many of the bytes that may be moved were.
    pub fn used(&mut self, bytes: usize) {
        self.granted = self.granted.saturating_sub(bytes);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        if self.granted > 0 {
            self.policy.refund(self.granted);
        }
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowance")
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

/// A byte stream that is held to a policy in either direction. As cancel safe as the stream inside.
///
/// Flush and shutdown are not held up; end of file is seen as soon as the reading direction may
/// read one byte.
pub struct Throttled<T> {
    inner: T,
    read: Option<Allowance>,
    write: Option<Allowance>,
}

impl<T> Throttled<T> {
    /// Nothing is held up yet.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            read: None,
            write: None,
        }
    }

    /// Holds reading to a policy.
    #[must_use]
    pub fn with_read(mut self, policy: impl Policy) -> Self {
        self.read = Some(Allowance::new(Arc::new(policy)));
        self
    }

    /// Holds writing to a policy.
    #[must_use]
    pub fn with_write(mut self, policy: impl Policy) -> Self {
        self.write = Some(Allowance::new(Arc::new(policy)));
        self
    }

    /// The stream inside.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

/// A shared policy is one too.
impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn reserve(&self, want: usize, now: Instant) -> Grant {
        (**self).reserve(want, now)
    }

    fn refund(&self, bytes: usize) {
        (**self).refund(bytes);
    }
}

impl<T: fmt::Debug> fmt::Debug for Throttled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttled")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Throttled<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(direction) = this.read.as_mut().filter(|_| buf.remaining() > 0) else {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        };
        let n = ready!(direction.poll(cx, buf.remaining()));
        let space = buf.initialize_unfilled_to(n);
        let mut part = ReadBuf::new(space);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        buf.advance(n);
        direction.used(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Throttled<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(direction) = this.write.as_mut().filter(|_| !buf.is_empty()) else {
            return Pin::new(&mut this.inner).poll_write(cx, buf);
        };
        let n = ready!(direction.poll(cx, buf.len()));
        let part = buf.get(..n).unwrap_or(buf);
        let n = ready!(Pin::new(&mut this.inner).poll_write(cx, part))?;
        direction.used(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let total = bufs.iter().map(|b| b.len()).fold(0, usize::saturating_add);
        let Some(direction) = this.write.as_mut().filter(|_| total > 0) else {
            return Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        };
        let mut left = ready!(direction.poll(cx, total));
        let n = if left >= total {
            ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?
        } else {
            // The first slices, as far as the grant reaches.
            let mut part = Vec::with_capacity(bufs.len());
            for buf in bufs {
                let n = buf.len().min(left);
                left -= n;
                part.push(IoSlice::new(buf.get(..n).unwrap_or(buf)));
                if left == 0 {
                    break;
                }
            }
            ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &part))?
        };
        direction.used(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
