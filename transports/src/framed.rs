//! A stream whose other end can tell a cut from an end: bytes go in frames, and the end of a direction is a frame of its own.
//!
//! TCP has a reset for whoever must not take what has come for all there is. A Unix socket has none: its peer reads an end, whether the
//! program behind it ended, was killed, or passes on a stream that broke elsewhere. So the end is said (`codec.rs` has the form),
//! by a shutdown and by nothing else; a stream that is dropped says nothing, and reading its other end is an error.
//!
//! Nothing waits here while the stream below takes all: a frame goes with its length in one call. What of a frame is
//! not taken is kept, at most one frame, and goes first in the next call, a read as well: who writes and then waits for
//! the answer need not flush. A frame that is not begun is not promised, so a dropped write has written nothing.

mod codec;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::joint_waker::JointWaker;

use codec::{At, Decoder};

/// Bytes in a frame that we send: as much as a busy splice has in hand, and all that one stream may hold back here.
const CHUNK: usize = 64 * 1024;

pub(crate) struct Framed<S> {
    inner: S,
    decoder: Decoder,
    /// `rest[gone..]` of what is encoded was not taken yet.
    rest: Vec<u8>,
    gone: usize,
    /// The end frame is encoded: nothing comes after it.
    ended: bool,
    wakers: JointWaker,
}

impl<S> Framed<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            decoder: Decoder::new(),
            rest: Vec::new(),
            gone: 0,
            ended: false,
            wakers: JointWaker::new(),
        }
    }

    /// What is below.
    pub(crate) fn inner(&self) -> &S {
        &self.inner
    }

    /// The same, to change it.
    pub(crate) fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Writes what is left of the last frame.
    fn poll_rest(&mut self) -> Poll<io::Result<()>> {
        let joint = self.wakers.joint().clone();
        let cx = &mut Context::from_waker(&joint);
        while let Some(rest) = self.rest.get(self.gone..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.gone += n,
            }
        }
        // A stream that rests has no memory for it.
        self.rest = Vec::new();
        self.gone = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            this.wakers.reader(cx);
            // Its error comes with the next write; a read tells of the other direction.
            let _ = this.poll_rest();
        }
        let before = buf.filled().len();
        loop {
            match this.decoder.at() {
                At::Wrong(length) => return Poll::Ready(Err(wrong(length))),
                At::End => return Poll::Ready(Ok(())),
                At::Within if buf.remaining() == 0 => return Poll::Ready(Ok(())),
                At::Within => {}
            }
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let come = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if come.is_empty() {
                return Poll::Ready(Err(cut()));
            }
            let data = this.decoder.take(come);
            buf.set_filled(before + data);
            if data > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

fn cut() -> io::Error {
    let text = "cut: it closed without the frame that ends it";
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

fn wrong(length: u32) -> io::Error {
    let text = format!(
        "a frame of {length} bytes, at most {} are allowed: are both ends framed?",
        codec::MOST
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        this.wakers.writer(cx);
        ready!(this.poll_rest())?;
        let (head, n) = codec::head(data.len(), CHUNK);
        // A frame without bytes would be the end.
        let Some(data) = data.get(..n).filter(|data| !data.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let parts = [IoSlice::new(&head), IoSlice::new(data)];
        let joint = this.wakers.joint().clone();
        let cx = &mut Context::from_waker(&joint);
        let taken = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &parts))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        if taken < head.len() + n {
            let of_head = head.get(taken..).unwrap_or_default();
            let of_data = data.get(taken.saturating_sub(head.len())..);
            this.rest = [of_head, of_data.unwrap_or_default()].concat();
            // As much as goes now; what does not waits for the next call.
            if let Poll::Ready(Err(e)) = this.poll_rest() {
                return Poll::Ready(Err(e));
            }
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.wakers.writer(cx);
        ready!(this.poll_rest())?;
        let joint = this.wakers.joint().clone();
        Pin::new(&mut this.inner).poll_flush(&mut Context::from_waker(&joint))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.wakers.writer(cx);
        if !this.ended {
            ready!(this.poll_rest())?;
            this.rest = codec::END.to_vec();
            this.ended = true;
        }
        match ready!(this.poll_rest()) {
            // Who has left needs no end, as with the shutdown of a socket; whether it left in order, a read tells.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Poll::Ready(Err(e)),
            _ => {}
        }
        let joint = this.wakers.joint().clone();
        Pin::new(&mut this.inner).poll_shutdown(&mut Context::from_waker(&joint))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn an_end_is_said_and_a_drop_is_a_cut() {
        for ends in [true, false] {
            let (one, other) = duplex(50);
            let (mut one, mut other) = (Framed::new(one), Framed::new(other));
            let sender = tokio::spawn(async move {
                one.write_all(&[7; 1000]).await.unwrap();
                one.flush().await.unwrap();
                if ends {
                    one.shutdown().await.unwrap();
                    assert!(one.write_all(b"x").await.is_err(), "behind its end");
                }
            });
            let mut got = Vec::new();
            let read = other.read_to_end(&mut got).await;
            assert_eq!(got, [7; 1000]);
            match read {
                Ok(_) => assert!(ends),
                Err(e) => {
                    assert!(!ends);
                    assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
                    // It stays so, however often it is read.
                    assert!(other.read(&mut [0]).await.is_err());
                }
            }
            sender.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_length_that_is_none_comes_behind_the_data_before_it() {
        let (mut one, other) = duplex(1000);
        let mut other = Framed::new(other);
        one.write_all(b"\0\0\0\x02okGET / HTTP/1.1\r\n")
            .await
            .unwrap();
        let mut got = Vec::new();
        let error = other.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(got, b"ok");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let text =
            "a frame of 1195725856 bytes, at most 1048576 are allowed: are both ends framed?";
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test]
    async fn one_way_ends_while_the_other_goes_on() {
        let (one, other) = duplex(1000);
        let (mut one, mut other) = (Framed::new(one), Framed::new(other));
        one.shutdown().await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        other.write_all(b"late").await.unwrap();
        other.shutdown().await.unwrap();
        let mut got = String::new();
        one.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "late");
        // The form is the documented one.
        let (one, mut other) = duplex(1000);
        let mut one = Framed::new(one);
        one.write_all(b"abc").await.unwrap();
        one.shutdown().await.unwrap();
        let mut wire = Vec::new();
        other.read_to_end(&mut wire).await.unwrap();
        assert_eq!(wire, b"\0\0\0\x03abc\0\0\0\0");
    }
}
