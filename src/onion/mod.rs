//! A byte stream with a stack of TLS layers that can be put on and taken off while it is live.
//!
//! [`Onion`] is a stream like the one below it. With no layer it hands bytes through; each
//! [`push`](Onion::push) puts a TLS layer next to the application, each [`pop`](Onion::pop) takes
//! the innermost off again, and the object stays the same throughout.
//!
//! # What a layer's end looks like
//!
//! - The peer sends close_notify: reading returns end of stream, again and again, until
//!   [`pop`](Onion::pop) takes the layer off. What the peer sent behind it belongs to the layer
//!   below and is read after the pop; not a byte of it is lost.
//! - The wire ends, or an outer layer is closed, with a layer still open: reading fails with
//!   [`TlsError::Truncated`], for good. An end that was not said
//!   under TLS is never a clean end, since anybody on the path can cut a wire.
//! - Any other fault fails for good too. What was decrypted before it can still be read first.
//!
//! # Who may do what when
//!
//! Reading and writing may be split between two tasks ([`tokio::io::split`]); push and pop take the
//! whole. A push belongs where both ends agree that the old layer is quiet; [`Onion::offer`] and
//! [`Onion::answer`] negotiate such a place.
//!
//! | file | holds |
//! | --- | --- |
//! | `engine.rs` | the layers and their buffers, without IO |
//! | `writers.rs` | where the engine lets a layer write its records to |
//! | `io_impl.rs` | reading, writing, flushing, shutting down |
//! | `change.rs` | push and pop |
//! | `apart.rs` | a handshake whose trust policy takes its time, on a thread of its own |
//! | `offer.rs` | the negotiated push |
//! | `futures_io.rs` | the traits of the futures crate |

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use cepa_transports::ByteStream;
use cepa_transports::joint_waker::JointWaker;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

mod apart;
mod buffer;
mod change;
mod engine;
#[cfg(feature = "futures-io")]
mod futures_io;
mod info;
mod io_impl;
mod offer;
mod writers;

pub use info::{LayerBytes, LayerInfo};
pub use offer::{Answer, Offer, OfferError};

use crate::tls::TlsError;
use engine::{Engine, Taken};

/// The most TLS layers of one onion. Each costs a handshake, a buffer and a pass of encryption; a
/// peer that could push without end would spend ours.
pub const MAX_LAYERS: usize = 8;

/// A byte stream with a stack of TLS layers; see the [module](self).
///
/// It has tokio's `AsyncRead`, `AsyncBufRead` and `AsyncWrite`, and with the feature `futures-io` those of the futures crate.
/// Reading is cancel safe: what a dropped future has not returned stays in the stream. So is one write; not so `write_all`,
/// which is many.
pub struct Onion<T> {
    wire: T,
    engine: Engine,
    infos: Vec<LayerInfo>,
    phase: Phase,
    corked: bool,
    /// Why the wire takes no more bytes; reading goes on, for the peer may have said why.
    write_error: Option<Box<(io::ErrorKind, String)>>,
    /// The wire was written to and not flushed since.
    unflushed: bool,
    /// Of the two tasks of a stream that has layers. One that never had any has none: each task waits at the wire by itself.
    wakers: Option<Box<JointWaker>>,
    /// The innermost session is on another thread with a record of its handshake; see `apart.rs`.
    away: Option<JoinHandle<Taken>>,
}

/// Where the onion stands; the same whichever role we play.
///
/// ```text
///            push                    handshake done
///   Open ───────────▶ Pushing ──────────────────────▶ Open
///   Open ───────────▶ Popping ──────────────────────▶ Open
///            pop                     both closes passed
///   any  ───────────▶ Shut
///          shutdown
/// ```
///
/// An error is no phase: it is the engine's, and ends all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The innermost layer shakes hands. Nothing can be read or written.
    Pushing,
    /// Our close_notify is on its way in the innermost layer. It can be read, not written.
    Popping,
    /// All layers were closed and the wire's write side shut. It can be read, not written.
    Shut,
}

impl<T: ByteStream> Onion<T> {
    /// An onion without layers: a clean passthrough.
    pub fn new(wire: T) -> Self {
        Self {
            wire,
            engine: Engine::default(),
            infos: Vec::new(),
            phase: Phase::Open,
            corked: false,
            write_error: None,
            unflushed: false,
            wakers: None,
            away: None,
        }
    }

    /// Two halves, for two tasks; `reader.unsplit(writer)` joins them again.
    ///
    /// Dropping the write half ends nothing: `shutdown` does. When both are dropped, so is the stream.
    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

impl<T> Onion<T> {
    /// How many layers there are.
    pub fn depth(&self) -> usize {
        self.infos.len()
    }

    /// The layers whose handshake is done, the outermost first.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.infos
    }

    /// 32 bytes that follow from the keys of one layer, for `label` and `context`: both ends get the
    /// same, and nobody else can (RFC 8446 section 7.5, RFC 5705). So what is signed or compared
    /// with them is bound to this very connection.
    ///
    /// `layer` counts from 0, the outermost. Another label is another purpose; one that is not
    /// registered begins with `EXPERIMENTAL` (RFC 5705 section 4). The client's certificate has no
    /// part in these bytes: who wants it bound puts its id into `context`.
    ///
    /// # Errors
    /// [`TlsError::Misuse`] where there is no such layer.
    pub fn export_keying_material(
        &self,
        layer: usize,
        label: &[u8],
        context: &[u8],
    ) -> Result<[u8; 32], TlsError> {
        if layer >= self.infos.len() {
            return Err(TlsError::Misuse {
                what: "there is no such layer whose handshake is done",
            });
        }
        self.engine
            .export(layer, label, context)
            .unwrap_or(Err(TlsError::Misuse {
                what: "there is no such layer",
            }))
    }

    /// The stream below all layers.
    pub fn wire(&self) -> &T {
        &self.wire
    }

    /// The stream below all layers. Reading or writing it by hand breaks the layers above.
    pub fn wire_mut(&mut self) -> &mut T {
        &mut self.wire
    }

    /// How many bytes fill one record of every layer exactly. Writes in multiples of it (up to
    /// 64 KiB are taken at once) leave no small record behind.
    pub fn write_unit(&self) -> usize {
        self.engine.write_unit()
    }

    /// Holds back what is written from now on, up to 64 KiB, until [`flush`], [`push`] or [`pop`].
    ///
    /// So a command and what follows it leave as one: the line that announces a push in one write
    /// (or in one record of the layer below) with the ClientHello, the last line of a layer in one
    /// write with its close_notify.
    ///
    /// [`flush`]: tokio::io::AsyncWriteExt::flush
    /// [`push`]: Onion::push
    /// [`pop`]: Onion::pop
    pub fn cork(&mut self) {
        self.corked = true;
    }

    /// Gives back the stream and what was read ahead from it, or the onion itself while it has
    /// layers or bytes that have not been written out: flush, and pop the layers first.
    #[allow(clippy::result_large_err)] // the onion is handed back, that is the point
    pub fn into_wire(self) -> Result<(T, Bytes), Self> {
        if self.engine.depth() > 0 || self.engine.unsent() > 0 || self.engine.failed().is_some() {
            return Err(self);
        }
        Ok((self.wire, Bytes::from(self.engine.into_read_ahead())))
    }

    fn write_error(&self) -> Option<io::Error> {
        let (kind, text) = self.write_error.as_deref()?;
        Some(io::Error::new(*kind, text.clone()))
    }

    /// A context for the wire's write side; see `joint_waker.rs` of the transports.
    fn with_joint<R>(&mut self, act: impl FnOnce(&mut Self, &mut Context<'_>) -> R) -> R {
        let joint = self.wakers().joint().clone();
        act(self, &mut Context::from_waker(&joint))
    }

    /// The wire, where what is read and written is the wire's own: there is no layer, and nothing was read ahead or waits.
    pub(crate) fn clear_wire(&mut self) -> Option<&mut T> {
        let is_whole = self.is_clear() && self.engine.wire_drained() && self.phase == Phase::Open;
        is_whole.then_some(&mut self.wire)
    }

    fn wakers(&mut self) -> &mut JointWaker {
        self.wakers.get_or_insert_default()
    }

    /// Whether what is written is the wire's at once: there is no layer, and nothing waits here that a reader might have to send.
    fn is_clear(&self) -> bool {
        self.engine.is_clear() && !self.corked && self.write_error.is_none()
    }
}

impl<T> fmt::Debug for Onion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onion")
            .field("layers", &self.infos)
            .field("phase", &self.phase)
            .field("failed", &self.engine.failed())
            .finish_non_exhaustive()
    }
}

/// Turns "not now" into `Pending`.
fn pending<V>(result: io::Result<V>) -> Poll<io::Result<V>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}
