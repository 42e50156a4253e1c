//! Reading, writing, flushing and shutting down: in which order what the parent file does is done.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use cepa_transports::ByteStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::shared::now;
use super::{Durable, Incoming, UNFLUSHED};

impl<P: ByteStream> AsyncRead for Durable<P> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.wakers.reader(cx);
        this.sync();
        if buf.remaining() == 0 {
            this.engine.handle_stopped(now());
            while this.poll_timer().is_ready() {}
            this.pump_for_reader();
            this.drop_broken();
            return Poll::Ready(Ok(()));
        }
        this.engine.handle_reading(now);
        loop {
            let polled = this.poll_frames(cx, buf)?;
            if matches!(polled, Poll::Ready(Incoming::End)) {
                return this.poll_end();
            }
            this.pump_for_reader();
            if matches!(polled, Poll::Ready(Incoming::Data)) {
                return Poll::Ready(Ok(()));
            }
            this.drop_broken();
            if this.poll_timer().is_pending() {
                if this.engine.over().is_some() || this.engine.read_ended() {
                    continue;
                }
                return Poll::Pending;
            }
        }
    }
}

impl<P: ByteStream> AsyncWrite for Durable<P> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.wakers.writer(cx);
        this.sync();
        this.over()?;
        if this.engine.has_ended() || this.engine.over().is_some() {
            let error = io::Error::new(io::ErrorKind::BrokenPipe, "written after shutdown");
            return Poll::Ready(Err(error));
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let mut taken = this.engine.write(parts);
        if taken == 0 {
            // Full: what is in it has to leave, and to arrive.
            if let Poll::Ready(pumped) = this.poll_pump() {
                pumped?;
            }
            this.read_for_writer()?;
            this.over()?;
            taken = this.engine.write(parts);
            if taken == 0 {
                this.room_wanted = true;
                this.keep_time(true);
                this.over()?;
                return Poll::Pending;
            }
        }
        let held = this.engine.held() as u64;
        this.shared.held.store(held, Ordering::Relaxed);
        if this.engine.unwritten() >= UNFLUSHED {
            let waker = this.wakers.joint().clone();
            // An error is told by the next call: these bytes were taken.
            let _ = this.poll_write_path(&mut Context::from_waker(&waker));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.wakers.writer(cx);
        this.sync();
        this.over()?;
        if this.engine.over().is_some() {
            return Poll::Ready(Ok(()));
        }
        let pumped = this.poll_pump();
        this.keep_time(pumped.is_pending() || this.engine.unwritten() > 0);
        this.over()?;
        ready!(pumped)?;
        // Without a path it waits for one.
        if this.engine.unwritten() > 0 && this.engine.over().is_none() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that there is no more, and flushes that.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.sync();
        if this.engine.over().is_none() {
            this.engine.end(now());
        }
        Pin::new(this).poll_flush(cx)
    }
}

impl<P: ByteStream> Durable<P> {
    /// Behind the peer's end nobody reads, so the writer looks for acknowledgements.
    fn read_for_writer(&mut self) -> io::Result<()> {
        if self.engine.peer_ended() {
            let waker = self.wakers.joint().clone();
            // Data would be a violation there, or is known.
            let mut room = [0; 64];
            let mut room = ReadBuf::new(&mut room);
            let _ = self.poll_frames(&mut Context::from_waker(&waker), &mut room)?;
        }
        Ok(())
    }
}
