//! The stream to a service, which both ends of an opened substream hold; and what it can be told and asked, whatever
//! TLS layers are on it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncBufRead as _, AsyncWrite as _};

use crate::mux::{Priority, StreamStats, StreamTimeouts, Substream};
use crate::onion::Onion;

/// A stream to a service: what [`Session::open`](super::Session::open) gives, and
/// [`Incoming::accept`](super::Incoming::accept) at the other end.
///
/// It reads and writes by tokio's `AsyncRead`, `AsyncBufRead` and `AsyncWrite`, and with the feature `futures-io` by those
/// of the futures crate. It is a [substream](Substream) of the session, and an [`Onion`]: TLS of its own can be
/// [pushed](Onion::push) onto it and [popped](Onion::pop) off again. [`Onion::into_split`] makes halves for two
/// tasks.
///
/// `shutdown` ends this direction, and the other one goes on. A peer whose stream is dropped without it reads an error, so
/// that a cut is never taken for the end.
///
/// ```
/// use cepa::ServiceStream;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// /// Says one thing, and hears all of the answer, if it is not longer than 64 KiB.
/// async fn ask(mut stream: ServiceStream, question: &str) -> std::io::Result<String> {
///     stream.write_all(question.as_bytes()).await?;
///     stream.shutdown().await?;
///     let mut answer = String::new();
///     stream.take(1 << 16).read_to_string(&mut answer).await?;
///     Ok(answer)
/// }
/// ```
pub type ServiceStream = Onion<Substream>;

impl ServiceStream {
    /// The number of the substream in its session: odd when the session's client opened it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.wire().id()
    }

    /// Puts it before or behind the others of its session, in what this end sends. See [`Substream::set_priority`].
    pub fn set_priority(&mut self, priority: Priority) {
        self.wire_mut().set_priority(priority);
    }

    /// The priority that was set last; [`Priority::NORMAL`] at first.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.wire().priority()
    }

    /// Replaces its time limits. See [`Substream::set_timeouts`].
    pub fn set_timeouts(&mut self, timeouts: StreamTimeouts) {
        self.wire_mut().set_timeouts(timeouts);
    }

    /// Counters and gauges of the substream, its TLS layers included.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.wire().stats()
    }

    /// Reads whatever has arrived; `None` at the end of the stream. Without a copy, unless a TLS layer is on it.
    ///
    /// # Errors
    /// As reading does.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read_chunk(cx)).await
    }

    /// [`read_chunk`](Self::read_chunk) for those who poll.
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Some(substream) = self.clear_wire() {
            return substream.poll_read_chunk(cx);
        }
        let bytes = ready!(Pin::new(&mut *self).poll_fill_buf(cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let piece = Bytes::copy_from_slice(bytes);
        Pin::new(self).consume(piece.len());
        Poll::Ready(Ok(Some(piece)))
    }

    /// Writes all of `data`, as [`Substream::write_chunk`]: without a copy, unless a TLS layer is on it.
    ///
    /// # Errors
    /// As writing does.
    ///
    /// # Cancel safety
    /// A dropped future may have written a part. Use [`poll_write_chunk`](Self::poll_write_chunk) where that matters.
    pub async fn write_chunk(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            poll_fn(|cx| self.poll_write_chunk(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Takes from the front of `data` what there is room for.
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        if let Some(substream) = self.clear_wire() {
            return substream.poll_write_chunk(cx, data);
        }
        let n = ready!(Pin::new(self).poll_write(cx, data))?;
        data.advance(n);
        Poll::Ready(Ok(n))
    }

    /// Ends both directions at once and drops what is queued; the peer reads an error with this code. See
    /// [`Substream::reset`].
    pub fn reset(&mut self, code: u32) {
        self.wire_mut().reset(code);
    }
}
