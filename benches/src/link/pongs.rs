//! Withholds or delays the answers to pings, as some yamux peers do.
//!
//! It reads the frames that come back to the sender, so it needs plain yamux on the wire: under TLS nobody in the
//! path can tell a pong from data. Everything else passes at once and in order; a delayed pong is put in between two
//! frames when its time has come.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes of a yamux header (spec.md, "Framing").
const HEADER: usize = 12;

/// What happens to pongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pongs {
    Late(Duration),
    Never,
}

/// A stream of plain yamux whose reader gets pongs late or never.
pub(crate) struct Tampered<T> {
    inner: T,
    pongs: Pongs,
    /// The beginning of a header.
    header: Vec<u8>,
    /// Bytes of the present frame's body that are still to come.
    body: usize,
    held: VecDeque<(Instant, [u8; HEADER])>,
    /// What can be read: from `done` on.
    out: Vec<u8>,
    done: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Tampered<T> {
    pub(crate) fn new(inner: T, pongs: Pongs) -> Self {
        Self {
            inner,
            pongs,
            header: Vec::new(),
            body: 0,
            held: VecDeque::new(),
            out: Vec::new(),
            done: 0,
            timer: None,
        }
    }

    /// Between two frames, with nothing of the next: puts in the pongs that are due.
    fn release(&mut self, now: Instant) {
        if self.body > 0 || !self.header.is_empty() {
            return;
        }
        while let Some((_, pong)) = self.held.front().filter(|(at, _)| *at <= now) {
            self.out.extend(pong);
            self.held.pop_front();
        }
    }

    fn take(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            if self.body > 0 {
                let n = self.body.min(bytes.len());
                self.out.extend(&bytes[..n]);
                self.body -= n;
                bytes = &bytes[n..];
                continue;
            }
            self.release(now);
            let n = bytes.len().min(HEADER - self.header.len());
            self.header.extend(&bytes[..n]);
            bytes = &bytes[n..];
            if let Ok(header) = <[u8; HEADER]>::try_from(self.header.as_slice()) {
                self.header.clear();
                self.frame(header, now);
            }
        }
    }

    fn frame(&mut self, header: [u8; HEADER], now: Instant) {
        let [_, kind, high, low, _, _, _, _, length @ ..] = header;
        // Type 2 is a ping, and with ACK (flag 2) its answer.
        if kind == 2 && u16::from_be_bytes([high, low]) & 2 != 0 {
            match self.pongs {
                Pongs::Late(by) => self.held.push_back((now + by, header)),
                Pongs::Never => {}
            }
            return;
        }
        self.out.extend(header);
        // Only data (type 0) has a body.
        if kind == 0 {
            self.body = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tampered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.release(Instant::now());
            if this.done < this.out.len() {
                let n = into.remaining().min(this.out.len() - this.done);
                into.put_slice(&this.out[this.done..this.done + n]);
                this.done += n;
                return Poll::Ready(Ok(()));
            }
            this.out.clear();
            this.done = 0;
            let mut room = [0; 4096];
            let mut room = ReadBuf::new(&mut room);
            match Pin::new(&mut this.inner).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if room.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => this.take(room.filled(), Instant::now()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let Some((at, _)) = this.held.front().copied() else {
                        return Poll::Pending;
                    };
                    if this.body > 0 || !this.header.is_empty() {
                        return Poll::Pending; // the rest of the frame comes first
                    }
                    let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
                    timer.as_mut().reset(at);
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tampered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PONG: [u8; 12] = [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9];
    const PING: [u8; 12] = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    /// A body of twelve bytes that looks like a pong.
    const DATA: [u8; 24] = [
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9,
    ];

    async fn read(pongs: Pongs, sent: &[u8]) -> Vec<u8> {
        let (near, mut far) = duplex(7);
        let sent = sent.to_vec();
        let writer = tokio::spawn(async move {
            far.write_all(&sent).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            far.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        Tampered::new(near, pongs)
            .read_to_end(&mut got)
            .await
            .unwrap();
        writer.await.unwrap();
        got
    }

    #[tokio::test(start_paused = true)]
    async fn only_pongs_are_withheld() {
        let sent = [&PONG[..], &DATA, &PING, &PONG, &DATA].concat();
        let kept = [&DATA[..], &PING, &DATA].concat();
        assert_eq!(read(Pongs::Never, &sent).await, kept);
    }

    #[tokio::test(start_paused = true)]
    async fn late_pongs_come_after_their_time_and_between_frames() {
        let (near, mut far) = duplex(1000);
        let mut near = Tampered::new(near, Pongs::Late(Duration::from_millis(200)));
        far.write_all(&PONG).await.unwrap();
        far.write_all(&DATA[..20]).await.unwrap();
        let mut got = [0; 20];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(got, DATA[..20]);
        let begun = Instant::now();
        // The frame is not complete, so the pong waits longer than it has to.
        let rest = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            far.write_all(&DATA[20..]).await.unwrap();
            far
        });
        let mut got = [0; 16];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(got[..4], DATA[20..]);
        assert_eq!(got[4..], PONG);
        assert_eq!(begun.elapsed().as_millis() / 10, 50);
        let mut far = rest.await.unwrap();
        far.write_all(&PONG).await.unwrap();
        let begun = Instant::now();
        let mut got = [0; 12];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(got, PONG);
        assert_eq!(begun.elapsed().as_millis() / 10, 20);
    }
}
