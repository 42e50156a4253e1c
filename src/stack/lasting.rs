//! A session that outlives its connection, as one end keeps it: with whom, over what it runs now, and how it is reached
//! again.
//!
//! ```text
//!             lost                       another path was attached
//!   a path ---------> no path (paused) ---------------------------> a path
//!   a path ------------------------------------------------------> a path (migrated)
//!             another one was attached, before it was lost or after
//! ```
//!
//! What keeps the bytes is below, in `resume`, and does not know whose they are. What dials again is above, in `session`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cepa_transports::meter::Meter;
use cepa_transports::{ByteStream, Rate, Remote, Side};
use futures::future::BoxFuture;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

use crate::identity::{Identity, PeerId};
use crate::onion::LayerInfo;
use crate::resume::{Handle, PathLost, PathLostWhy, Refusal, Ticket};

/// The inside of the TLS layers of one connection, behind its binding.
pub(crate) type Wire = Box<dyn ByteStream>;

/// Reaches the peer again, and takes the session up there.
pub(crate) type Redial =
    Arc<dyn Fn(Arc<Lasting>) -> BoxFuture<'static, Result<(), NotReached>> + Send + Sync>;

/// Why the peer was not reached again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReached {
    /// It was, and does not take the session up.
    Refused(Refusal),
    /// Another attempt may do.
    NotNow,
}

/// What a session's mux is told of its paths.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moved {
    /// There is none.
    Nowhere,
    /// There is another one, of this rate where its line is known.
    To { line_rate: Option<Rate> },
}

/// Changes of paths that a slow watcher may be behind.
const CHANGES: usize = 16;

/// Over what a session runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathInfo {
    /// Where the stream goes or came from, for messages.
    pub label: String,
    /// The same for programs.
    pub remote: Remote,
    /// This end's own address, where it is a TCP connection.
    pub local: Option<SocketAddr>,
    /// The TLS layers, the outermost first.
    pub layers: Arc<[LayerInfo]>,
    /// This end's role in their handshakes: whoever dials is the client.
    pub side: Side,
    /// The number of the path: 0 for the first, and greater for each that takes the session over.
    pub generation: u32,
    /// Since when.
    pub since: Instant,
}

/// Counters and gauges of a session that outlives its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// Connections so far, the first one included.
    pub paths: u64,
    /// Bytes that were sent again.
    pub replayed: u64,
    /// Bytes that are kept now until the peer has them.
    pub held: u64,
    /// The time without a connection, all in all.
    pub without: Duration,
}

/// What happens to the connections of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PathChange {
    /// The connection is lost; the session is kept, and waits for another one.
    Paused {
        /// What it ran over.
        from: PathInfo,
        /// Why it runs there no more.
        why: PathLostWhy,
        /// The session's counters.
        stats: PathStats,
    },
    /// The session goes on.
    Resumed {
        /// What it runs over now.
        path: PathInfo,
        /// How long there was no connection.
        without: Duration,
        /// The session's counters.
        stats: PathStats,
    },
    /// The session goes on over another connection, and was at no time without one.
    Migrated {
        /// What it ran over.
        from: PathInfo,
        /// What it runs over now.
        path: PathInfo,
        /// The session's counters.
        stats: PathStats,
    },
}

/// See the head of this file.
pub(crate) struct Lasting {
    pub(crate) ticket: Ticket,
    /// Who the two ends were when the session began.
    pub(crate) local: PeerId,
    pub(crate) peer: PeerId,
    pub(crate) handle: Handle<Wire>,
    /// Of all connections together.
    pub(crate) meter: Meter,
    /// Somebody does not want to wait for the next attempt.
    pub(crate) nudge: Notify,
    /// One connection is dialled at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// And the hello is said on one at a time, of several that are tried at once.
    pub(crate) hello: tokio::sync::Mutex<()>,
    redial: Mutex<Option<Redial>>,
    /// A node knows how the peer is reached.
    of_node: AtomicBool,
    state: Mutex<State>,
    changes: broadcast::Sender<PathChange>,
    moved: OnceLock<Box<dyn Fn(Moved) + Send + Sync>>,
}

struct State {
    path: Option<PathInfo>,
    last: PathInfo,
    lost_at: Option<Instant>,
}

impl Lasting {
    pub(crate) fn new(
        (ticket, handle): (Ticket, Handle<Wire>),
        meter: Meter,
        first: PathInfo,
    ) -> Option<Self> {
        let layer = first.layers.last()?.peer();
        Some(Self {
            ticket,
            local: layer.local_id(),
            peer: layer.id(),
            handle,
            meter,
            nudge: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            hello: tokio::sync::Mutex::default(),
            redial: Mutex::default(),
            of_node: AtomicBool::new(false),
            state: Mutex::new(State {
                path: Some(first.clone()),
                last: first,
                lost_at: None,
            }),
            changes: broadcast::Sender::new(CHANGES),
            moved: OnceLock::new(),
        })
    }

    /// Whether the innermost layer of another connection is between the same two peers: with the keys of the first one, or
    /// with such as have replaced them. `first` and `more` are the identities that this end can have there.
    pub(crate) fn is_between(
        &self,
        layer: &LayerInfo,
        (first, more): (&Identity, &[Identity]),
    ) -> bool {
        let peer = layer.peer();
        let here = peer.local_id();
        let ours = || {
            let mut all = std::iter::once(first).chain(more);
            all.any(|own| own.peer_id() == here && own.is(&self.local))
        };
        !peer.is_anonymous() && peer.is(&self.peer) && (here == self.local || ours())
    }

    // ---- where it runs ---------------------------------------------------------------------------

    /// Over what it runs; none while there is no path.
    pub(crate) fn path(&self) -> Option<PathInfo> {
        self.state().path.clone()
    }

    /// What happens to its paths from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<PathChange> {
        self.changes.subscribe()
    }

    /// Sets who is told of each path that is lost or attached.
    pub(crate) fn when_moved(&self, tell: impl Fn(Moved) + Send + Sync + 'static) {
        let _ = self.moved.set(Box::new(tell));
    }

    fn tell_moved(&self, moved: Moved) {
        if let Some(tell) = self.moved.get() {
            tell(moved);
        }
    }

    /// The path was lost, unless another one has come since.
    pub(crate) fn paused(&self, lost: &PathLost) {
        {
            let mut state = self.state();
            if self.handle.pathless_since().is_none() {
                return;
            }
            let Some(from) = state.path.take() else {
                return;
            };
            state.lost_at = Some(lost.at);
            let _ = self.changes.send(PathChange::Paused {
                from,
                why: lost.why.clone(),
                stats: self.stats(),
            });
        }
        self.tell_moved(Moved::Nowhere);
    }

    /// Another path was attached.
    pub(crate) fn attached(&self, path: PathInfo, line_rate: Option<Rate>) {
        {
            let mut state = self.state();
            // Two that were attached one behind the other may be told in another order, and one may be lost by now, which
            // is told by itself.
            if state.last.generation > path.generation || self.handle.pathless_since().is_some() {
                return;
            }
            let before = state.path.replace(path.clone());
            state.last = path.clone();
            let lost_at = state.lost_at.take();
            let stats = self.stats();
            let _ = self.changes.send(match (before, lost_at) {
                (Some(from), _) => PathChange::Migrated { from, path, stats },
                (None, lost_at) => PathChange::Resumed {
                    without: lost_at.map_or(Duration::ZERO, |at| {
                        path.since.saturating_duration_since(at)
                    }),
                    path,
                    stats,
                },
            });
        }
        self.tell_moved(Moved::To { line_rate });
    }

    /// Waits until it runs over the path of this number no more.
    pub(crate) async fn left(&self, generation: u32) {
        let mut changes = self.changes();
        loop {
            let here = self.path().is_some_and(|it| it.generation == generation);
            if !here || self.handle.is_over() {
                return;
            }
            tokio::select! {
                changed = changes.recv() => if let Err(RecvError::Closed) = changed {
                    return;
                },
                _ = self.handle.over() => return,
            }
        }
    }

    /// Whether what was said last has not reached the peer.
    pub(crate) fn is_unheard(&self) -> bool {
        match self.handle.how_over() {
            Some(how) => how.is_err(),
            None => self.handle.pathless_since().is_some(),
        }
    }

    pub(crate) fn stats(&self) -> PathStats {
        let stats = self.handle.stats();
        PathStats {
            paths: stats.paths,
            replayed: stats.replayed,
            held: stats.held,
            without: stats.pathless,
        }
    }

    // ---- how it is reached -----------------------------------------------------------------------

    /// How the peer is reached again; none where only the peer can come back.
    pub(crate) fn redial(&self) -> Option<Redial> {
        let redial = self.redial.lock();
        redial.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, by the node that has the session: it knows all ways there are.
    pub(crate) fn set_redial_of_node(&self, redial: Redial) {
        self.of_node.store(true, Ordering::Relaxed);
        self.put_redial(redial);
    }

    /// Says how, where no node does.
    pub(crate) fn set_redial(&self, redial: Redial) {
        if !self.of_node.load(Ordering::Relaxed) {
            self.put_redial(redial);
        }
    }

    fn put_redial(&self, redial: Redial) {
        let mut there = self.redial.lock().unwrap_or_else(PoisonError::into_inner);
        let before = there.replace(redial);
        drop(there);
        drop(before);
        // Who waits since nobody could dial need not any more.
        if self.path().is_none() {
            self.nudge.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lasting")
            .field("peer", &self.peer)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}
