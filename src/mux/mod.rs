//! Many byte streams inside one: the complete yamux protocol over any byte stream.
//!
//! ```no_run
//! # async fn example(io: tokio::io::DuplexStream) -> std::io::Result<()> {
//! use cepa::{Side, mux};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let (session, driver) = mux::mux(io, Side::Client, mux::Config::default());
//! tokio::spawn(driver);
//! let mut stream = session.open().await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?; // ends this direction; the answer can still be read
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer).await?;
//! # Ok(()) }
//! ```
//!
//! The wire is that of hashicorp/yamux `spec.md`, so the other end may be any yamux implementation.
//! Inside: `frame` is the wire, `state` the life of a stream, `credit` flow control, `scheduler` who
//! sends next by [`Priority`], `engine` all rules without any IO, `driver` the IO without any rules. Every limit is
//! in [`Config`], with its reason.
//!
//! # Watching a session
//! [`Mux::stats`] and [`Substream::stats`] are counters and gauges at a moment. [`Mux::events`] tells what
//! happens, in order: streams that open and close, with their last counters; limits that are reached;
//! why the session ended. It is off until [`Config::events`] gives it room.
//!
//! # How a session ends
//! - [`Mux::close`]: streams that were shut down still send what is queued, the others are reset,
//!   the peer gets a go-away, the byte stream below is shut down. All that in [`Config::close_timeout`].
//! - All [`Mux`] handles and all [`Substream`]s dropped: the same, for as long as what is queued moves (a stream
//!   that nobody holds is given up after 60 s without progress). While substreams are left, the
//!   session goes on for them, and refuses what the peer opens.
//! - [`Mux::go_away`]: no new streams; the session ends when the last one is over.
//! - By the peer, or by a failure: [`MuxError`] says which.

mod batch;
mod chunk;
mod code;
mod config;
mod credit;
mod driver;
mod engine;
mod error;
mod event;
mod events;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod line;
mod memory;
#[cfg(test)]
mod model;
mod moment;
mod pacing;
#[cfg(test)]
mod path_tests;
mod pool;
mod preface;
mod priority;
mod queue;
mod scheduler;
mod shared;
mod state;
mod stats;
mod store;
mod stray;
mod stream;
mod stream_entry;
mod stream_preface;
#[cfg(test)]
mod tests;
mod unsent;
mod wakes;

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use cepa_transports::{ByteStream, Rate, Side};

use crate::backend::seed;

pub use chunk::{CHUNK, share as share_chunk, take as take_chunk};
pub use code::{GoAwayCode, LimitKind, Refusal};
pub use config::{Config, StreamTimeouts};
pub use driver::Driver;
pub use error::{MuxError, OpenError, StreamError, StreamTimeout, Violation};
pub use event::{Event, Limit};
pub use events::Events;
pub use pool::{Held, ReceivePool};
pub use priority::Priority;
pub use stats::{Stats, StreamInfo, StreamStats};
pub use stream::Substream;

pub(crate) use frame::{INITIAL_WINDOW, SMALL_WINDOW};
pub(crate) use preface::{Preface, Step};

use engine::Engine;
use shared::Shared;

/// Starts a session over `io`. The two ends must take different sides. Nothing happens until the
/// driver is polled, which has to be inside a tokio runtime with time enabled.
pub fn mux(io: impl ByteStream, side: Side, config: Config) -> (Mux, Driver) {
    mux_behind(io, side, config, 0)
}

/// The same over a layer that puts `lead` bytes at most in front of each write, which are part of its TLS records then.
pub(crate) fn mux_behind(
    io: impl ByteStream,
    side: Side,
    config: Config,
    lead: usize,
) -> (Mux, Driver) {
    let close_timeout = config.close_timeout;
    let shared = Arc::new(Shared::new(Engine::new(
        side,
        config,
        seed(),
        shared::now(),
    )));
    let driver = Driver::new(io, Arc::clone(&shared), close_timeout, lead);
    (
        Mux {
            handle: Arc::new(Handle { shared }),
        },
        driver,
    )
}

/// A session: opens and accepts substreams. Cheap to clone; all clones are the same session.
#[derive(Clone)]
pub struct Mux {
    handle: Arc<Handle>,
}

/// Dropped with the last [`Mux`].
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(Engine::abandon);
    }
}

/// What there is to do with a session without keeping it open: see [`Mux::closer`].
pub(crate) struct Closer(Arc<Shared>);

impl Closer {
    /// As [`Mux::close_with`], without waiting.
    pub(crate) fn close_with(&self, code: GoAwayCode) {
        self.0.with(|engine| engine.close(code));
    }

    /// The layer below has no path at the moment, and keeps what is written.
    pub(crate) fn path_lost(&self) {
        self.0.with(|engine| engine.path_lost(shared::now()));
    }

    /// The layer below goes on over another path, of this rate where it tells it.
    pub(crate) fn path_changed(&self, line_rate: Option<Rate>) {
        self.0
            .with(|engine| engine.path_changed(shared::now(), line_rate));
    }

    /// The peer will be silent for a while: how long it may be, and what ends that when it is dropped.
    pub(crate) fn peer_pauses(&self, wanted: Duration) -> (PeerPause, Duration) {
        let (number, granted) = self
            .0
            .with(|engine| engine.peer_pauses(shared::now(), wanted));
        let shared = Arc::clone(&self.0);
        (PeerPause { shared, number }, granted)
    }

    /// Whether a stream is there that this end has opened.
    pub(crate) fn is_used_here(&self) -> bool {
        let stats = self.0.with(|engine| engine.stats());
        stats.streams > stats.inbound
    }
}

/// What stands at the front of a substream; see [`Mux::accept_begun`].
pub(crate) struct Begun<'a, T> {
    /// What the substream is for.
    pub(crate) label: &'a str,
    /// So many bytes.
    pub(crate) size: usize,
    pub(crate) what: T,
}

/// The peer may be silent as long as this lives, up to what it was granted.
pub(crate) struct PeerPause {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for PeerPause {
    fn drop(&mut self) {
        self.shared.with(|engine| engine.peer_resumes(self.number));
    }
}

impl Mux {
    /// Opens a substream. Does not wait for the peer, except while too many streams are open or
    /// unanswered ([`Config::max_outbound_streams`], [`Config::accept_backlog`]); those who wait are served in the order
    /// in which they came. Cancel safe.
    ///
    /// # Errors
    /// When the session is over or takes no new streams. Nothing was sent then.
    pub async fn open(&self) -> Result<Substream, OpenError> {
        let shared = &self.handle.shared;
        let key = shared.open().await?;
        Ok(Substream::new(Arc::clone(shared), key))
    }

    /// Opens a substream that begins with `first`, a few bytes, unless there is no room at the moment: then those stay. `label` is what
    /// it is for, which comes back in memory that such substreams share. An answer of the peer is to come until `answer_by`, if that is set.
    ///
    /// # Errors
    /// As [`Mux::open`].
    pub(crate) fn open_now(
        &self,
        now: Instant,
        label: &str,
        first: &mut Vec<u8>,
        answer_by: Option<Instant>,
    ) -> Result<Option<(Substream, Arc<String>)>, OpenError> {
        let shared = &self.handle.shared;
        let begin =
            |engine: &mut Engine, key| engine.begin(key, label, std::mem::take(first), answer_by);
        let opened = shared.open_now(now, begin)?;
        let opened = opened.map(|(key, label)| (Substream::new(Arc::clone(shared), key), label));
        Ok(opened)
    }

    /// The same as soon as there is room. Cancel safe.
    ///
    /// # Errors
    /// As [`Mux::open`].
    pub(crate) async fn open_beginning(
        &self,
        label: &str,
        first: Vec<u8>,
        answer_by: Option<Instant>,
    ) -> Result<(Substream, Arc<String>), OpenError> {
        let stream = self.open().await?;
        let begin = |engine: &mut Engine| engine.begin(stream.key, label, first, answer_by);
        let label = stream.shared.with(begin);
        Ok((stream, label))
    }

    /// [`Mux::open`], with another priority than the usual one from the first byte on. Cancel safe.
    ///
    /// # Errors
    /// As [`Mux::open`].
    pub async fn open_with(&self, priority: Priority) -> Result<Substream, OpenError> {
        let mut stream = self.open().await?;
        stream.set_priority(priority);
        Ok(stream)
    }

    /// Waits for the next substream that the peer opens. Cancel safe; several tasks may accept.
    ///
    /// # Errors
    /// When the session is over; [`MuxError::is_clean`] tells a clean end.
    pub async fn accept(&self) -> Result<Substream, MuxError> {
        let shared = &self.handle.shared;
        let (key, ()) = shared.accept(|_, _| ()).await?;
        Ok(Substream::new(Arc::clone(shared), key))
    }

    /// [`Mux::accept`], and what `look` makes of the bytes that have come with the opening, if it makes anything of them. Those are
    /// taken then, and the substream is labelled, which is what comes back as well.
    pub(crate) async fn accept_begun<T>(
        &self,
        look: impl Fn(&[u8]) -> Option<Begun<'_, T>>,
    ) -> Result<(Substream, Option<(Arc<String>, T)>), MuxError> {
        let shared = &self.handle.shared;
        let look = |engine: &mut Engine, key| {
            let Poll::Ready(Ok(Some(mut piece))) = engine.borrow_now(key) else {
                return (Bytes::new(), None);
            };
            let Some(begun) = look(&piece) else {
                return (piece, None);
            };
            let label = engine.set_label(key, begun.label);
            let (size, what) = (begun.size.min(piece.len()), begun.what);
            piece.advance(size);
            (piece, Some((label, what)))
        };
        let (key, (piece, begun)) = shared.accept(look).await?;
        let mut stream = Substream::new(Arc::clone(shared), key);
        stream.piece = piece;
        // Lets go of what is read whole.
        stream.consume(0);
        Ok((stream, begun))
    }

    /// Measures a round trip to the peer's mux. Waits as long as the peer does; silence ends the
    /// session after [`Config::keepalive_timeout`]. Cancel safe.
    ///
    /// # Errors
    /// When the session is over or ends meanwhile.
    pub async fn ping(&self) -> Result<Duration, MuxError> {
        let shared = &self.handle.shared;
        // The semaphore is never closed, so this can only be granted.
        let _turn = shared.pings.acquire().await;
        let answered = shared.ping()?;
        answered.await.map_err(|_| self.end())
    }

    /// Tells the peer that this end takes and opens no more streams, and waits until that has left.
    /// With [`GoAwayCode::Normal`] existing streams go on, and the session ends when the last one is
    /// over (some implementations end it at once when they read this); any other code ends the
    /// session. The go-away overtakes data that is queued.
    pub async fn go_away(&self, code: GoAwayCode) {
        let shared = &self.handle.shared;
        shared.with(|engine| engine.go_away(code));
        self.wait(|inner| inner.go_away_flushed || inner.driver_done)
            .await;
    }

    /// Ends the session and waits until its last byte has left and the driver is done, for
    /// [`Config::close_timeout`] at most. Streams that
    /// were shut down still send what is queued; all others are reset. Whoever has to know that the peer has read everything
    /// waits for its answer before. Dropping the future does not take the close back.
    pub async fn close(&self) {
        self.close_with(GoAwayCode::Normal).await;
    }

    /// [`Mux::close`], with a reason for the peer. Here the session ends with [`MuxError::GaveUp`] then, and there
    /// with [`MuxError::GoAway`]. The first close decides on the code.
    pub async fn close_with(&self, code: GoAwayCode) {
        self.handle.shared.with(|engine| engine.close(code));
        self.closed().await;
    }

    /// The same session, which this does not keep open.
    pub(crate) fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.handle.shared))
    }

    /// Waits until the session is over and its driver done, and says why it ended.
    pub async fn closed(&self) -> MuxError {
        self.wait(|inner| inner.driver_done).await;
        self.end()
    }

    /// Waits until no stream can be opened any more: the session is over, one of its ends goes away, or the numbers of
    /// streams are used up. What is open may go on.
    pub(crate) async fn spent(&self) {
        self.wait(|inner| inner.engine.is_spent()).await;
    }

    /// See [`Mux::spent`].
    pub(crate) fn is_spent(&self) -> bool {
        self.handle.shared.with(|engine| engine.is_spent())
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        self.handle.shared.with(|engine| engine.stats())
    }

    /// The substreams that exist now, opened by either end: at most so many, the oldest first. [`Stats::streams`] is how many there
    /// are.
    pub fn streams(&self, most: usize) -> Vec<StreamInfo> {
        let shared = &self.handle.shared;
        shared.with(|engine| engine.streams(shared::now(), most))
    }

    /// What happens in the session from its first moment on, for metrics and logs. Recorded only where
    /// [`Config::events`] has room for it; else this tells nothing and ends with the session. All
    /// that this returns take from the same queue, so each event is told once.
    pub fn events(&self) -> Events {
        Events::new(Arc::clone(&self.handle.shared))
    }

    async fn wait(&self, until: impl Fn(&shared::Inner) -> bool) {
        let shared = &self.handle.shared;
        loop {
            let mut changed = std::pin::pin!(shared.done.notified());
            changed.as_mut().enable();
            if shared.with_inner(|inner| until(inner)) {
                return;
            }
            changed.await;
        }
    }

    /// Why the session is over, if it is by now.
    pub(crate) fn over(&self) -> Option<MuxError> {
        self.handle.shared.with(|engine| engine.end().cloned())
    }

    fn end(&self) -> MuxError {
        self.handle
            .shared
            .with(|engine| engine.end().cloned())
            .unwrap_or(MuxError::DriverGone)
    }
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux").field("stats", &self.stats()).finish()
    }
}
