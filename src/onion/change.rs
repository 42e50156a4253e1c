//! Push and pop: the two changes of the stack, each a small machine whose state lives in the onion,
//! so that a call that was dropped half way is gone on with by calling it again.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cepa_transports::{ByteStream, Side};

use super::engine::Advance;
use super::info::{Counters, LayerInfo};
use super::{MAX_LAYERS, Onion, Phase};
use crate::tls::connection::Connection;
use crate::tls::{Peer, TlsConfig, TlsError};

impl<T: ByteStream> Onion<T> {
    /// Puts a TLS layer next to the application, and returns who is at its other end.
    ///
    /// `side` is our role in the handshake; it does not depend on who dialled. Bytes of the peer
    /// that have been read ahead already belong to the new layer: a ClientHello that came in the
    /// same read as the command that announced it is where it is looked for. Corked bytes leave in
    /// front of the handshake, in one write or record with its beginning (see [`Onion::cork`]).
    ///
    /// A TLS 1.3 client returns before the server has judged its certificate. A refusal then
    /// arrives as an error of the first read.
    ///
    /// # Errors
    /// A failed handshake breaks the onion for good: every later call returns the same error.
    /// [`TlsError::Misuse`] while a pop is under way, after shutdown, and beyond [`MAX_LAYERS`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing. The handshake is gone on with by calling push again with
    /// the same arguments; until then reading and writing return an error.
    pub async fn push(&mut self, side: Side, config: &TlsConfig) -> Result<Peer, TlsError> {
        self.push_after(Bytes::new(), side, config).await
    }

    /// As [`push`](Self::push), with bytes that the caller has read already, but that belong to the
    /// new layer: they are its first input.
    ///
    /// # Cancel safety
    /// As for `push`; `early` is taken over at the first call, so the call that goes on with it is
    /// `push`, or this one with no bytes.
    pub async fn push_after(
        &mut self,
        early: Bytes,
        side: Side,
        config: &TlsConfig,
    ) -> Result<Peer, TlsError> {
        self.start_push(&early, side, config)?;
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// Takes the innermost layer off: sends close_notify behind all that was written, waits for the
    /// peer's, and leaves the stream as it was below. The wire stays open.
    ///
    /// Both ends may call it at once, or one of them on having read the end of the layer; each
    /// close is sent once.
    ///
    /// # Errors
    /// [`TlsError::Unread`] when the peer sent data before its close that nobody has read. Nothing
    /// is lost: read the layer to its end and call pop again. [`TlsError::Misuse`] at depth 0,
    /// while a push is under way, and after shutdown. Any other error breaks the onion for good.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: our close may have been sent, the layer can still be read
    /// but not written, and calling pop again goes on with it.
    pub async fn pop(&mut self) -> Result<(), TlsError> {
        self.start_pop()?;
        poll_fn(|cx| self.poll_pop(cx)).await
    }

    fn start_push(&mut self, early: &[u8], side: Side, config: &TlsConfig) -> Result<(), TlsError> {
        if let Some(error) = self.engine.failed() {
            return Err(error.clone());
        }
        match self.phase {
            Phase::Open => {}
            Phase::Pushing if !early.is_empty() => {
                return Err(misuse(
                    "a push is under way and has its early bytes: go on with it by push",
                ));
            }
            Phase::Pushing if self.engine.top().is_none_or(|top| top.side() != side) => {
                return Err(misuse(
                    "a push with the other role is under way: go on with that one",
                ));
            }
            Phase::Pushing => return Ok(()),
            Phase::Popping => {
                return Err(misuse(
                    "a pop is under way: call pop again until it is done, then push",
                ));
            }
            Phase::Shut => return Err(misuse("pushed after shutdown")),
        }
        if self.engine.depth() >= MAX_LAYERS {
            return Err(misuse("no more than 8 layers: pop one first"));
        }
        let session = Connection::new(side, config)?;
        self.engine.unread(early);
        self.corked = false;
        self.engine.push(session, Counters::default());
        self.phase = Phase::Pushing;
        Ok(())
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Peer, TlsError>> {
        self.wakers().reader(cx);
        loop {
            // A wire that takes nothing more may still hold the alert that says why.
            let sent = self.poll_drain_and_flush();
            if self.engine.top().is_none_or(|top| !top.is_handshaking()) {
                if let Err(error) = ready!(sent) {
                    let at = self.engine.depth().saturating_sub(1);
                    return Poll::Ready(Err(self.engine.fail(at, TlsError::from_io(error))));
                }
                return Poll::Ready(self.finish_push());
            }
            ready!(self.poll_record(cx))?;
        }
    }

    fn finish_push(&mut self) -> Result<Peer, TlsError> {
        let at = self.engine.depth().saturating_sub(1);
        let (Some(top), Some(counters)) = (self.engine.top(), self.engine.top_counters()) else {
            return Err(misuse("no push is under way"));
        };
        let (side, counters) = (top.side(), counters.clone());
        let peer = top.peer().map_err(|error| self.engine.fail(at, error))?;
        self.infos.reserve_exact(1);
        self.infos.push(LayerInfo {
            side,
            peer: peer.clone(),
            counters,
        });
        self.phase = Phase::Open;
        Ok(peer)
    }

    fn start_pop(&mut self) -> Result<(), TlsError> {
        if let Some(error) = self.engine.failed() {
            return Err(error.clone());
        }
        match self.phase {
            Phase::Popping => Ok(()),
            Phase::Open if self.engine.depth() == 0 => Err(misuse("there is no layer to pop")),
            Phase::Open => {
                self.corked = false;
                self.engine.close_top()?;
                self.phase = Phase::Popping;
                Ok(())
            }
            Phase::Pushing => Err(misuse(
                "a push is under way: call push again until it is done, then pop",
            )),
            Phase::Shut => Err(misuse("popped after shutdown")),
        }
    }

    fn poll_pop(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        self.wakers().reader(cx);
        loop {
            // Both directions at once: the peer may be waiting to write before it reads.
            let sent = self.poll_drain_and_flush();
            if !self.engine.readable().is_empty() {
                return Poll::Ready(Err(TlsError::Unread));
            }
            if self.engine.top().is_some_and(Connection::peer_closed) {
                if let Err(error) = ready!(sent) {
                    return Poll::Ready(Err(self.engine.fail(0, TlsError::from_io(error))));
                }
                self.engine.pop();
                self.infos.pop();
                self.phase = Phase::Open;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_record(cx))?;
        }
    }

    /// One more record for the innermost layer, from the wire if need be.
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        let at = self.engine.depth().saturating_sub(1);
        let failed = match self.engine.advance() {
            Ok(Advance::Progress) => return Poll::Ready(Ok(())),
            Ok(Advance::Apart) => match ready!(self.poll_apart(cx)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) => error,
            },
            Ok(Advance::NeedWire) => match ready!(self.poll_wire(cx)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) => TlsError::from_io(error),
            },
            // In the middle of a handshake the peer has told that it goes no further.
            Ok(Advance::Closed) if self.phase == Phase::Pushing => {
                self.engine.fail(at, TlsError::GivenUp)
            }
            Ok(Advance::Closed | Advance::EndOfWire) => self.engine.truncated(at),
            Err(error) => error,
        };
        // The alert goes out as far as the wire takes it at once.
        self.drain_for_reader();
        Poll::Ready(Err(failed))
    }
}

fn misuse(what: &'static str) -> TlsError {
    TlsError::Misuse { what }
}
