//! Reading, writing, flushing and shutting down: the thin shell around the engine.
//!
//! Every read first tries to get rid of pending output, at depth 0 too. Two ends that both wait to
//! write before they read would else wait for ever.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cepa_transports::ByteStream;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::engine::{Advance, UNSENT};
use super::{Onion, Phase, pending};
use crate::tls::TlsError;

impl<T: ByteStream> Onion<T> {
    /// Hands the wire what waits for it.
    pub(super) fn poll_drain(&mut self) -> Poll<io::Result<()>> {
        if let Some(error) = self.write_error() {
            return Poll::Ready(Err(error));
        }
        self.with_joint(|onion, cx| {
            while onion.engine.wants_write() {
                let mut wire = WireWriter {
                    wire: &mut onion.wire,
                    cx,
                };
                let error = match ready!(pending(onion.engine.emit(&mut wire))) {
                    Ok(0) => io::ErrorKind::WriteZero.into(),
                    Ok(_) => {
                        onion.unflushed = true;
                        continue;
                    }
                    Err(error) => error,
                };
                onion.engine.discard_unsent();
                onion.write_error = Some(Box::new((error.kind(), error.to_string())));
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Ok(()))
        })
    }

    /// The same, and flushes the wire.
    pub(super) fn poll_drain_and_flush(&mut self) -> Poll<io::Result<()>> {
        ready!(self.poll_drain())?;
        if self.unflushed {
            self.with_joint(|onion, cx| {
                ready!(Pin::new(&mut onion.wire).poll_flush(cx))?;
                onion.unflushed = false;
                Poll::Ready(Ok(()))
            })
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Notes who reads, where the reader may have something to send, and sends it.
    fn reader(&mut self, cx: &Context<'_>) {
        if !self.is_clear() {
            self.wakers().reader(cx);
            self.drain_for_reader();
        }
    }

    /// Sends what a reader must not sit on. An error is the writer's to hear of: what the peer sent
    /// before it stopped listening can still be read, and may say why.
    pub(super) fn drain_for_reader(&mut self) {
        if self.engine.wants_write() {
            let _ = self.poll_drain_and_flush();
        }
    }

    /// Reads from the wire into the engine.
    pub(super) fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = self.engine.wire_room();
        debug_assert!(
            !room.is_empty(),
            "a read into no room would look like the end"
        );
        let mut room = ReadBuf::new(room);
        let polled = Pin::new(&mut self.wire).poll_read(cx, &mut room);
        let n = room.filled().len();
        match polled {
            Poll::Ready(Ok(())) if n == 0 => self.engine.wire_end(),
            Poll::Ready(Ok(())) => self.engine.wire_filled(n),
            Poll::Ready(Err(error)) => {
                if self.engine.depth() > 0 {
                    let error = TlsError::from_io(error);
                    return Poll::Ready(Err(self.engine.fail(0, error).into()));
                }
                return Poll::Ready(Err(error));
            }
            Poll::Pending => {
                self.engine.idle();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until there is something to read: true, or an end: false.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if !self.engine.readable().is_empty() {
                return Poll::Ready(Ok(true));
            }
            match self.engine.advance() {
                Ok(Advance::Progress) => {}
                Ok(Advance::Closed | Advance::EndOfWire) => return Poll::Ready(Ok(false)),
                Ok(Advance::NeedWire) => ready!(self.poll_wire(cx))?,
                // Shut down in the middle of a push, and read on.
                Ok(Advance::Apart) => ready!(self.poll_apart(cx))?,
                Err(error) => {
                    self.drain_for_reader();
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    fn may_read(&self) -> io::Result<()> {
        match self.phase {
            Phase::Pushing => {
                Err(self.failure_or("a push is under way: call push again to go on with it"))
            }
            Phase::Open | Phase::Popping | Phase::Shut => Ok(()),
        }
    }

    fn may_write(&self) -> io::Result<()> {
        if let Some(error) = self.engine.failed() {
            return Err(error.clone().into());
        }
        if let Some(error) = self.write_error() {
            return Err(error);
        }
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Pushing => Err(misuse(
                "a push is under way: call push again to go on with it",
            )),
            Phase::Popping => Err(TlsError::Closed.into()),
            Phase::Shut => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "written after shutdown",
            )),
        }
    }

    fn failure_or(&self, text: &'static str) -> io::Error {
        match self.engine.failed() {
            Some(error) => error.clone().into(),
            None => misuse(text),
        }
    }

    /// Takes from `parts` what fits behind what is held already.
    fn hold(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let mut room = UNSENT.saturating_sub(self.engine.unsent());
        let mut taken = 0;
        for part in parts {
            let now = part.get(..room.min(part.len())).unwrap_or_default();
            self.engine.hold(now);
            room -= now.len();
            taken += now.len();
        }
        taken
    }
}

impl<T: ByteStream> AsyncRead for Onion<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let onion = &mut *self;
        onion.may_read()?;
        onion.reader(cx);
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if onion.engine.depth() == 0 && onion.engine.wire_drained() {
            // No layer: straight through.
            return Pin::new(&mut onion.wire).poll_read(cx, out);
        }
        if !ready!(onion.poll_readable(cx))? {
            return Poll::Ready(Ok(()));
        }
        // Fill from as many records as are at hand.
        loop {
            let bytes = onion.engine.readable();
            let n = bytes.len().min(out.remaining());
            out.put_slice(bytes.get(..n).unwrap_or_default());
            onion.engine.consume(n);
            if out.remaining() == 0 || onion.engine.depth() == 0 {
                return Poll::Ready(Ok(()));
            }
            while onion.engine.readable().is_empty() {
                // An error or an end stays, for the next read to tell.
                match onion.engine.advance() {
                    Ok(Advance::Progress) => {}
                    Ok(_) | Err(_) => return Poll::Ready(Ok(())),
                }
            }
        }
    }
}

impl<T: ByteStream> AsyncBufRead for Onion<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let onion = self.get_mut();
        onion.may_read()?;
        onion.reader(cx);
        if ready!(onion.poll_readable(cx))? {
            Poll::Ready(Ok(onion.engine.readable()))
        } else {
            Poll::Ready(Ok(&[]))
        }
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        self.engine.consume(n);
    }
}

impl<T: ByteStream> AsyncWrite for Onion<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let onion = &mut *self;
        onion.may_write()?;
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if onion.is_clear() {
            onion.unflushed = true;
            return Pin::new(&mut onion.wire).poll_write_vectored(cx, parts);
        }
        onion.wakers().writer(cx);
        if onion.corked {
            match onion.hold(parts) {
                0 => {
                    onion.corked = false;
                    onion.engine.release()?;
                }
                n => return Poll::Ready(Ok(n)),
            }
        }
        if let Poll::Ready(Err(error)) = onion.poll_drain() {
            return Poll::Ready(Err(error));
        }
        if onion.engine.depth() == 0 && !onion.engine.wants_write() {
            onion.unflushed = true;
            return onion
                .with_joint(|onion, cx| Pin::new(&mut onion.wire).poll_write_vectored(cx, parts));
        }
        if onion.engine.unsent() >= UNSENT {
            return Poll::Pending;
        }
        let n = onion.engine.write(parts)?;
        // What the wire does not take now is kept; an error is told by the next call.
        let _ = onion.poll_drain();
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let onion = &mut *self;
        if onion.is_clear() {
            if onion.unflushed {
                ready!(Pin::new(&mut onion.wire).poll_flush(cx))?;
                onion.unflushed = false;
            }
            return Poll::Ready(Ok(()));
        }
        onion.wakers().writer(cx);
        onion.corked = false;
        if onion.phase == Phase::Open {
            onion.engine.release()?;
        }
        onion.poll_drain_and_flush()
    }

    /// Closes all layers, the innermost first, flushes, and shuts the wire's write side.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_clear() {
            self.phase = Phase::Shut;
            ready!(self.as_mut().poll_flush(cx))?;
            return Pin::new(&mut self.wire).poll_shutdown(cx);
        }
        let onion = &mut *self;
        onion.wakers().writer(cx);
        onion.corked = false;
        if onion.phase != Phase::Shut {
            onion.phase = Phase::Shut;
            // A failed onion has nothing to close; its alert is still to be sent.
            let _ = onion.engine.close_all();
        }
        ready!(onion.poll_drain_and_flush())?;
        onion.with_joint(|onion, cx| Pin::new(&mut onion.wire).poll_shutdown(cx))
    }
}

fn misuse(what: &'static str) -> io::Error {
    TlsError::Misuse { what }.into()
}

/// The wire's write side as the engine writes to it.
struct WireWriter<'a, 'b, T> {
    wire: &'a mut T,
    cx: &'a mut Context<'b>,
}

impl<T: AsyncWrite + Unpin> Write for WireWriter<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        would_block(Pin::new(&mut *self.wire).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        would_block(Pin::new(&mut *self.wire).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        would_block(Pin::new(&mut *self.wire).poll_flush(self.cx))
    }
}

fn would_block<V>(polled: Poll<io::Result<V>>) -> io::Result<V> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
