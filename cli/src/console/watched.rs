//! Watching a console that somebody else has: a serial line that a peer has open, or a kept console.
//!
//! ```text
//!   output --> Source --push--> ring, 64 KiB, while somebody watches --> Watcher, Watcher, …
//!                 ^                                                         |
//!                 \-- is asked for what there was, is told who watches -----/
//! ```
//!
//! Nobody waits for a watcher: who falls behind by more than the ring has misses that, and is told how much it was. Without a watcher
//! nothing is kept here. A source with a history (a kept console) is asked for that when the first watcher comes; a line has
//! none, and shows what comes from then on.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use cepa::identity::PeerId;
use cepa::transports::Stream;
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::escapes::Escapes;
use super::ring::Ring;
use crate::splice::Leaves;

/// Passed on to a watcher at once.
const PIECE: usize = 4096;

/// Watchers that have been told of at one source; with more the longest ago is told of again.
const TOLD: usize = 64;

/// All consoles that can be watched at a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    list: Mutex<Vec<Entry>>,
    count: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    what: What,
    hub: Hub,
}

/// What can be watched, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct What {
    pub(crate) service: String,
    /// The name of a kept console.
    pub(crate) kept: Option<String>,
    pub(crate) peer: PeerId,
    /// It is one of those that are told names.
    pub(crate) is_named: bool,
}

/// The end where the output comes from; nothing can be watched there any more once it is dropped.
#[derive(Debug)]
pub(crate) struct Source {
    sources: Sources,
    number: u64,
    hub: Hub,
}

/// What a source is asked.
pub(crate) enum Asked {
    /// For what there was.
    History,
    /// To tell this to whoever has it.
    Tell(String),
}

#[derive(Clone, Debug)]
struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    source: AtomicWaker,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    has_history: bool,
    /// `ring` has what there was, and gets what comes.
    is_fed: bool,
    ring: Ring,
    modes: Escapes,
    watchers: usize,
    /// Watchers up to this number have to go.
    sent_away: u64,
    count: u64,
    asked: VecDeque<String>,
    wants_history: bool,
    told: VecDeque<PeerId>,
    over: bool,
}

/// Somebody who watches.
pub(crate) struct Watcher {
    hub: Hub,
    number: u64,
    /// None until what there was is known.
    at: Option<u64>,
}

/// What comes to a watcher.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// So many bytes are missing here.
    Skipped(u64),
    /// The console is no more.
    Over,
    /// The service is another one now, or is for others.
    SentAway,
}

impl Sources {
    /// Something can be watched from now on.
    pub(crate) fn open(&self, what: What, has_history: bool) -> Source {
        let number = self.0.count.fetch_add(1, Ordering::Relaxed);
        let state = State {
            has_history,
            ..State::default()
        };
        let hub = Hub(Arc::new(Shared {
            state: Mutex::new(state),
            source: AtomicWaker::new(),
            changed: Notify::new(),
        }));
        self.list().push(Entry {
            number,
            what,
            hub: hub.clone(),
        });
        Source {
            sources: self.clone(),
            number,
            hub,
        }
    }

    /// Watches what a service has open: the console kept under this name, if one is given. `Err` says in one line why not.
    pub(crate) fn watch(
        &self,
        service: &str,
        kept: Option<&str>,
        peer: PeerId,
        called: impl FnOnce(&What) -> String,
    ) -> Result<Watcher, &'static str> {
        let (what, hub) = self.find(service, kept, peer)?;
        let line = called(&what);
        Ok(hub.join(peer, line))
    }

    fn find(
        &self,
        service: &str,
        kept: Option<&str>,
        peer: PeerId,
    ) -> Result<(What, Hub), &'static str> {
        let list = self.list();
        let all = list.iter().filter(|it| it.what.service == service);
        let all: Vec<&Entry> = match kept {
            None => all.collect(),
            Some(_) => all.filter(|it| it.what.kept.as_deref() == kept).collect(),
        };
        // One's own goes before another peer's of the same name.
        let own = all.iter().find(|it| kept.is_some() && it.what.peer == peer);
        match (own, all.as_slice()) {
            (Some(it), _) | (None, [it]) => Ok((it.what.clone(), it.hub.clone())),
            (None, []) if kept.is_some() => Err("no console of this name is kept at this service"),
            (None, []) => Err(
                "nothing to watch: nobody has a kept console (--attach) or a line open here now",
            ),
            (None, _) if kept.is_some() => Err(
                "several peers have a console of this name; it cannot be told which one to watch",
            ),
            (None, _) => Err("several consoles are open here; name one of them with --attach NAME"),
        }
    }

    /// Whoever watches this service does so no more.
    pub(crate) fn send_away(&self, service: &str) {
        for entry in self.list().iter() {
            if entry.what.service == service {
                let mut state = entry.hub.state();
                state.sent_away = state.count;
                drop(state);
                entry.hub.0.changed.notify_waiters();
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Each change is whole after the one statement that makes it.
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let number = self.number;
        self.sources.list().retain(|entry| entry.number != number);
        self.hub.state().over = true;
        self.hub.0.changed.notify_waiters();
    }
}

impl Source {
    /// This came.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut state = self.hub.state();
        if state.watchers == 0 || !state.is_fed {
            return;
        }
        state.ring.push(bytes);
        state.modes.follow(bytes);
        drop(state);
        self.hub.0.changed.notify_waiters();
    }

    /// What there was until now.
    pub(crate) fn history(&self, ring: &Ring, modes: &Escapes) {
        let mut state = self.hub.state();
        state.ring = ring.clone();
        state.modes = modes.clone();
        state.is_fed = true;
        drop(state);
        self.hub.0.changed.notify_waiters();
    }

    /// What it is to do next.
    pub(crate) fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<Asked> {
        self.hub.0.source.register(cx.waker());
        let mut state = self.hub.state();
        if std::mem::take(&mut state.wants_history) {
            return Poll::Ready(Asked::History);
        }
        match state.asked.pop_front() {
            Some(line) => Poll::Ready(Asked::Tell(line)),
            None => Poll::Pending,
        }
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(self, peer: PeerId, line: String) -> Watcher {
        let number = {
            let mut state = self.state();
            state.watchers += 1;
            state.count += 1;
            if !state.is_fed {
                state.wants_history = state.has_history;
                state.is_fed = !state.has_history;
            }
            if !state.told.contains(&peer) {
                state.told.truncate(TOLD - 1);
                state.told.push_front(peer);
                // Those who are told of wait no longer than the source does.
                state.asked.truncate(TOLD - 1);
                state.asked.push_back(line);
            }
            state.count
        };
        self.0.source.wake();
        Watcher {
            hub: self,
            number,
            at: None,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        state.watchers -= 1;
        if state.watchers == 0 {
            state.is_fed = false;
            state.wants_history = false;
            state.ring = Ring::default();
            state.modes = Escapes::default();
        }
    }
}

impl Watcher {
    /// Waits for what comes next.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Piece {
        let hub = self.hub.clone();
        loop {
            // Made before it is looked, so that no change is missed.
            let changed = hub.0.changed.notified();
            if let Some(piece) = self.now() {
                return piece;
            }
            changed.await;
        }
    }

    fn now(&mut self) -> Option<Piece> {
        let state = self.hub.state();
        if self.number <= state.sent_away {
            return Some(Piece::SentAway);
        }
        if !state.is_fed {
            return state.over.then_some(Piece::Over);
        }
        let ring = &state.ring;
        let Some(at) = self.at else {
            let at = if state.has_history {
                ring.first_line()
            } else {
                ring.total()
            };
            self.at = Some(at);
            // What switched them on may not be kept.
            return Some(Piece::Bytes(state.modes.on()));
        };
        if at < ring.start() {
            self.at = Some(ring.first_line());
            return Some(Piece::Skipped(ring.first_line() - at));
        }
        let fresh = ring.from(at);
        let fresh = fresh.get(..PIECE).unwrap_or(fresh);
        if fresh.is_empty() {
            return state.over.then_some(Piece::Over);
        }
        self.at = Some(at + fresh.len() as u64);
        Some(Piece::Bytes(fresh.to_vec()))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// A stream whose output can be watched.
#[derive(Debug)]
pub(crate) struct Tapped<'a> {
    pub(crate) stream: &'a mut Stream,
    pub(crate) source: Option<&'a Source>,
}

impl AsyncRead for Tapped<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut *self.stream).poll_read(cx, into))?;
        if let Some(source) = self.source {
            let came = into.filled().get(before..).unwrap_or_default();
            if !came.is_empty() {
                source.push(came);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

impl crate::chunk::Pieces for Tapped<'_> {}

impl Leaves for Tapped<'_> {
    fn poll_left(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Error> {
        self.stream.poll_left(cx, reading)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use std::task::Waker;

    use super::super::ring::RING;
    use super::*;

    const ANN: PeerId = PeerId::from_bytes([1; 32]);
    const BOB: PeerId = PeerId::from_bytes([2; 32]);

    fn what(kept: Option<&str>, peer: PeerId) -> What {
        What {
            service: "sh".to_owned(),
            kept: kept.map(str::to_owned),
            peer,
            is_named: true,
        }
    }

    fn watch(sources: &Sources, kept: Option<&str>) -> Result<Watcher, &'static str> {
        sources.watch("sh", kept, BOB, |_| "bob watches".to_owned())
    }

    fn asked(source: &Source) -> Option<Asked> {
        let mut cx = Context::from_waker(Waker::noop());
        match source.poll_asked(&mut cx) {
            Poll::Ready(asked) => Some(asked),
            Poll::Pending => None,
        }
    }

    fn next(watcher: &mut Watcher) -> Option<Piece> {
        watcher.next().now_or_never()
    }

    fn bytes(text: &[u8]) -> Piece {
        Piece::Bytes(text.to_vec())
    }

    #[test]
    fn a_line_is_shown_from_now_on_and_its_holder_is_told_once() {
        let sources = Sources::default();
        assert!(watch(&sources, None).is_err());
        let line = sources.open(what(None, ANN), false);
        line.push(b"before");
        let mut one = watch(&sources, None).unwrap();
        assert!(matches!(asked(&line), Some(Asked::Tell(said)) if said == "bob watches"));
        assert_eq!(next(&mut one), Some(bytes(b"")));
        line.push(b"then");
        let mut other = watch(&sources, None).unwrap();
        assert!(asked(&line).is_none(), "it was told of bob");
        assert_eq!(next(&mut one), Some(bytes(b"then")));
        assert_eq!(next(&mut one), None);
        assert_eq!(next(&mut other), Some(bytes(b"")));
        assert_eq!(next(&mut other), None);
        line.push(b"last");
        drop(line);
        assert_eq!(next(&mut other), Some(bytes(b"last")));
        assert_eq!(next(&mut other), Some(Piece::Over));
        assert!(watch(&sources, None).is_err());
    }

    #[test]
    fn who_is_slow_misses_some_and_nothing_grows() {
        let sources = Sources::default();
        let line = sources.open(what(None, ANN), false);
        let mut slow = watch(&sources, None).unwrap();
        assert_eq!(next(&mut slow), Some(bytes(b"")));
        for _ in 0..100 {
            line.push(&[b'x'; 4096]);
        }
        let missed = 100 * 4096 - RING as u64;
        assert_eq!(next(&mut slow), Some(Piece::Skipped(missed)));
        assert_eq!(next(&mut slow), Some(bytes(&[b'x'; PIECE])));
    }

    #[test]
    fn a_kept_console_is_shown_from_what_is_kept() {
        let sources = Sources::default();
        let kept = sources.open(what(Some("work"), ANN), true);
        let mut ring = Ring::default();
        ring.push(b"earlier");
        kept.push(b"earlier");
        let mut one = watch(&sources, Some("work")).unwrap();
        assert_eq!(next(&mut one), None);
        assert!(matches!(asked(&kept), Some(Asked::History)));
        kept.history(&ring, &Escapes::default());
        kept.push(b" and now");
        assert_eq!(next(&mut one), Some(bytes(b"")));
        assert_eq!(next(&mut one), Some(bytes(b"earlier and now")));
        sources.send_away("sh");
        assert_eq!(next(&mut one), Some(Piece::SentAway));
    }

    #[test]
    fn which_one_is_meant_is_never_guessed() {
        let sources = Sources::default();
        let _one = sources.open(what(Some("work"), ANN), true);
        assert!(watch(&sources, None).is_ok());
        assert!(watch(&sources, Some("other")).is_err());
        let other = sources.open(what(Some("work"), PeerId::from_bytes([3; 32])), true);
        assert!(watch(&sources, None).unwrap_err().contains("--attach"));
        assert!(watch(&sources, Some("work")).is_err());
        let _own = sources.open(what(Some("work"), BOB), true);
        assert!(watch(&sources, Some("work")).is_ok());
        drop(other);
    }
}
