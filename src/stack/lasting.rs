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

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cepa_transports::meter::Meter;
use cepa_transports::{ByteStream, Endpoint, Rate, Remote, Side};
use futures::future::BoxFuture;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

use crate::link::LinkInfo;
use crate::observe;
use crate::onion::LayerInfo;
use crate::resume::{Handle, PathLost, PathLostWhy, Refusal, Ticket};

use super::ends::Ends;

/// The inside of the TLS layers of one connection, behind its binding.
pub(crate) type Wire = Box<dyn ByteStream>;

/// Reaches the peer again, and takes the session up there.
pub(crate) type Redial =
    Arc<dyn Fn(Arc<Lasting>) -> BoxFuture<'static, Result<(), NotReached>> + Send + Sync>;

/// Why the peer was not reached again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReached {
    /// Who answered does not take the session up; and whether others that may lead to the peer gave no answer.
    Refused {
        /// What it said.
        why: Refusal,
        /// Nobody else was tried in vain.
        by_all: bool,
    },
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
    /// The link below them, where there is one.
    pub link: Option<LinkInfo>,
    /// This end's role in their handshakes: whoever dials is the client.
    pub side: Side,
    /// The number of the path: 0 for the first, and greater for each that takes the session over.
    pub generation: u32,
    /// The same, as this end counts from [`FIRST_PATH`] on: two that both ends have dialled at once may have one generation.
    pub(crate) number: u64,
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
    /// For how long the session is kept without a connection: the shorter time of the two ends.
    pub park: Duration,
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
    pub(crate) ends: Ends,
    pub(crate) handle: Handle<Wire>,
    /// Of all connections together.
    pub(crate) meter: Meter,
    /// Somebody does not want to wait for the next attempt.
    pub(crate) nudge: Notify,
    /// It is moved to one connection at a time. One that is lost meanwhile is dialled again all the same.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// The hello is said on one at a time, of several that are tried at once.
    pub(crate) hello: tokio::sync::Mutex<()>,
    redial: Mutex<Option<Redial>>,
    /// Where that leads, if it is one address.
    redials_at: Mutex<Option<Endpoint>>,
    /// A node knows how the peer is reached.
    of_node: AtomicBool,
    state: Mutex<State>,
    parks: Mutex<Parks>,
    changes: broadcast::Sender<PathChange>,
    moved: OnceLock<Box<dyn Fn(Moved) + Send + Sync>>,
    /// What was told of last. Its lock is held while it is told, so that nothing older is told behind it.
    reported: Mutex<Whereabouts>,
}

struct State {
    path: Option<PathInfo>,
    last: PathInfo,
    line_rate: Option<Rate>,
    lost_at: Option<Instant>,
}

/// The number of a session's first path, as the engine counts them.
pub(crate) const FIRST_PATH: u64 = 1;

/// A path by its number, or none.
type Whereabouts = Option<u64>;

/// For how long it is kept without a connection.
#[derive(Default)]
struct Parks {
    /// Usually; none for one that is not kept at all.
    usual: Option<Duration>,
    /// What those want who are silent for a while, by number.
    pauses: BTreeMap<u64, Duration>,
    next: u64,
}

impl Parks {
    fn longest(&self) -> Option<Duration> {
        let usual = self.usual?;
        Some(self.pauses.values().fold(usual, |most, it| most.max(*it)))
    }
}

/// Keeps the session for at least so long without a connection, until it is dropped.
pub(crate) struct Parked {
    session: Arc<Lasting>,
    number: u64,
}

impl Drop for Parked {
    fn drop(&mut self) {
        let number = self.number;
        self.session.set_parks(|parks| {
            parks.pauses.remove(&number);
        });
    }
}

impl Lasting {
    pub(crate) fn new(
        (ticket, handle): (Ticket, Handle<Wire>),
        meter: Meter,
        first: PathInfo,
    ) -> Option<Self> {
        let number = Some(first.number);
        Some(Self {
            ticket,
            ends: Ends::of(&first.layers)?,
            handle,
            meter,
            nudge: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            hello: tokio::sync::Mutex::default(),
            redial: Mutex::default(),
            redials_at: Mutex::default(),
            of_node: AtomicBool::new(false),
            state: Mutex::new(State {
                path: Some(first.clone()),
                last: first,
                line_rate: None,
                lost_at: None,
            }),
            parks: Mutex::default(),
            reported: Mutex::new(number),
            changes: broadcast::Sender::new(CHANGES),
            moved: OnceLock::new(),
        })
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
    pub(crate) fn when_moved(&self, notify: impl Fn(Moved) + Send + Sync + 'static) {
        let _ = self.moved.set(Box::new(notify));
    }

    /// Tells how it is now, if that was not told. Two that were attached at once, or a path that is lost and followed by
    /// the next one, are told by two tasks: whoever comes last tells what holds then, and an older word never comes behind it.
    fn notify_moved(&self) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, line_rate) = {
            let state = self.state();
            let path = state.path.as_ref();
            (path.map(|path| path.number), state.line_rate)
        };
        if std::mem::replace(&mut *reported, now) == now {
            return;
        }
        if let Some(notify) = self.moved.get() {
            notify(match now {
                Some(_) => Moved::To { line_rate },
                None => Moved::Nowhere,
            });
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
            observe::path_changed("lost");
            let _ = self.changes.send(PathChange::Paused {
                from,
                why: lost.why.clone(),
                stats: self.stats(),
            });
        }
        self.notify_moved();
    }

    /// Another path was attached.
    pub(crate) fn attached(&self, path: PathInfo, line_rate: Option<Rate>) {
        {
            let mut state = self.state();
            // Two that were attached one behind the other may be told in another order, and one may be lost by now, which
            // is told by itself.
            if state.last.number > path.number || self.handle.pathless_since().is_some() {
                return;
            }
            let before = state.path.replace(path.clone());
            state.last = path.clone();
            state.line_rate = line_rate;
            let lost_at = state.lost_at.take();
            let stats = self.stats();
            observe::path_changed(match before {
                Some(_) => "migrated",
                None => "resumed",
            });
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
        self.notify_moved();
    }

    /// Waits until it runs over the path of this number no more.
    pub(crate) async fn left(&self, number: u64) {
        let mut changes = self.changes();
        loop {
            let here = self.path().is_some_and(|it| it.number == number);
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
            Some(_) => !self.handle.is_heard(),
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
            park: stats.park,
        }
    }

    // ---- how long it is kept without a connection --------------------------------------------------

    /// Somebody may take it up again: it is kept for so long, as the layer below was told when it was made.
    pub(crate) fn keep(&self, usual: Duration) {
        self.parks().usual = Some(usual);
    }

    /// Nobody may: it ends with its connection, whatever is asked for.
    pub(crate) fn keep_not(&self) {
        self.handle.set_park(Duration::ZERO);
    }

    /// It is kept for at least so long, until what this gives is dropped. Nothing where it is not kept.
    pub(crate) fn keep_at_least(self: &Arc<Self>, time: Duration) -> Option<Parked> {
        self.parks().usual?;
        let mut number = 0;
        self.set_parks(|parks| {
            number = parks.next;
            parks.next += 1;
            parks.pauses.insert(number, time);
        });
        let session = Arc::clone(self);
        Some(Parked { session, number })
    }

    fn set_parks(&self, change: impl FnOnce(&mut Parks)) {
        // The lock is held while it is told, so that what is told last is what holds.
        let mut parks = self.parks();
        let before = parks.longest();
        change(&mut parks);
        let now = parks.longest();
        if now != before {
            self.handle.set_park(now.unwrap_or_default());
        }
    }

    fn parks(&self) -> MutexGuard<'_, Parks> {
        self.parks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- how it is reached -----------------------------------------------------------------------

    /// How the peer is reached again; none where only the peer can come back.
    pub(crate) fn redial(&self) -> Option<Redial> {
        let redial = self.redial.lock();
        redial.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where, if that is one address.
    pub(crate) fn redials_at(&self) -> Option<Endpoint> {
        let at = self.redials_at.lock();
        at.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, by the node that has the session: it knows all ways there are.
    pub(crate) fn set_redial_of_node(&self, redial: Redial) {
        self.of_node.store(true, Ordering::Relaxed);
        self.put_redial(redial, None);
    }

    /// Says how and where, where no node does.
    pub(crate) fn set_redial(&self, redial: Redial, at: &Endpoint) {
        if !self.of_node.load(Ordering::Relaxed) {
            self.put_redial(redial, Some(at.clone()));
        }
    }

    fn put_redial(&self, redial: Redial, at: Option<Endpoint>) {
        let is_at = self.redials_at.lock();
        *is_at.unwrap_or_else(PoisonError::into_inner) = at;
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
            .field("peer", &self.ends.peer())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}
