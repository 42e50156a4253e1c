//! When a direct path is tried for, and tried again; and which connection the session goes on over.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa_transports::{Remote, Stream};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::identity::PeerId;
use crate::node::{Call, Event, Events, Node, Path};
use crate::session::{Backoff, PathInfo, Session};
use crate::wire::{linger_close, send};

use super::budget::Whose;
use super::event::{DirectEvent, NotDirect};
use super::mapping::Mapped;
use super::message::{Begin, Offer};
use super::punch::punch;
use super::state::Direct;
use super::talk::{End, Plan, hear};

/// For connections to come about, and for the handshake on one of them.
const DEADLINE: Duration = Duration::from_secs(10);

/// How much later than the one before it a connection is looked at, while it is not known who is there.
const STAGGER: Duration = Duration::from_millis(500);

/// How often it is looked whether a mapped port is still of use.
const LOOK: Duration = Duration::from_secs(5);

/// Connections that wait to be looked at.
const QUEUE: usize = 4;

/// Tries for a direct path to each peer that was dialled through a relay, as long as the node lives.
pub(super) async fn watch(direct: Arc<Direct>, mut events: Events) {
    let trying = Arc::new(Trying::default());
    while let Some(event) = events.next().await {
        let (Event::SessionUp { peer, path }
        | Event::SessionResumed { peer, path, .. }
        | Event::SessionMigrated { peer, path, .. }) = event
        else {
            continue;
        };
        if !is_for_us(&path) {
            continue;
        }
        let Some(entry) = Entry::new(&trying, peer) else {
            continue;
        };
        let direct = Arc::clone(&direct);
        let node = direct.node.handle();
        node.spawn(async move { keep_trying(&direct, entry).await });
    }
}

/// The peers for which a task tries.
type Trying = Mutex<HashSet<PeerId>>;

/// A peer in that list, until it is taken out or its task ends, by a panic too.
struct Entry {
    trying: Arc<Trying>,
    peer: PeerId,
    is_in: bool,
}

impl Entry {
    /// None if the peer is in the list already.
    fn new(trying: &Arc<Trying>, peer: PeerId) -> Option<Self> {
        let is_new = lock(trying).insert(peer);
        is_new.then(|| Self {
            trying: Arc::clone(trying),
            peer,
            is_in: true,
        })
    }

    /// What there is to try with; where that is nothing, the peer is taken out of the list under its lock, so that what happens later
    /// begins anew.
    fn still<T>(&mut self, find: impl FnOnce() -> Option<T>) -> Option<T> {
        let mut trying = lock(&self.trying);
        let found = find();
        if found.is_none() {
            trying.remove(&self.peer);
            // The next entry of the peer is another task's.
            self.is_in = false;
        }
        found
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.is_in {
            lock(&self.trying).remove(&self.peer);
        }
    }
}

/// Whether it is for this end to try: whoever has dialled begins. With two relays on the way neither end sees the same one.
fn is_for_us(path: &Path) -> bool {
    path.dialled && path.via.len() == 1
}

/// Tries until there is a direct path, or nothing to try it for.
async fn keep_trying(direct: &Direct, mut entry: Entry) {
    let (config, peer) = (&direct.config, entry.peer);
    let mut backoff = Backoff::new(config.pause, config.longest_pause);
    let mut pause = config.after;
    loop {
        sleep(pause).await;
        pause = backoff.pause();
        let Some(session) = entry.still(|| by_relay(direct, peer)) else {
            return;
        };
        let with_mapped = direct.is_to_map(peer);
        let reached = attempt(direct, &session).await;
        if !with_mapped && matches!(reached, Err(NotDirect::NoWay(_))) && config.map {
            // Now both ask their routers for a port.
            pause = config.after;
        }
        let is_final = reached.as_ref().is_err_and(NotDirect::is_final);
        report(direct, peer, reached);
        if is_final {
            // The next session may be with a newer version of the peer.
            let _ = session.closed().await;
        }
    }
}

/// The session with the peer, if it leads through a relay or waits for another connection.
fn by_relay(direct: &Direct, peer: PeerId) -> Option<Session> {
    let session = direct.node.session_with(peer)?;
    let is_direct = |path: PathInfo| !matches!(path.remote, Remote::Circuit { .. });
    (!session.path().is_some_and(is_direct)).then_some(session)
}

fn report(direct: &Direct, peer: PeerId, reached: Result<Remote, NotDirect>) {
    match &reached {
        Ok(_) => direct.remember(peer, false),
        Err(NotDirect::NoWay(_)) => direct.remember(peer, true),
        // It was not tried.
        Err(_) => {}
    }
    direct.node.emit(match reached {
        Ok(at) => DirectEvent::Direct { peer, at },
        Err(why) => DirectEvent::NotDirect { peer, why },
    });
}

/// One attempt of the end that has dialled.
async fn attempt(direct: &Direct, session: &Session) -> Result<Remote, NotDirect> {
    // Whom this node has dialled by its id is no stranger.
    let end = End::of(direct, session, true)?;
    pay(direct, session.peer().id(), Whose::Own)?;
    let plan = end.ask().await?;
    let (found, streams) = mpsc::channel(QUEUE);
    let peer = session.peer().id();
    let taking = go_on_over(direct, session, streams);
    until_found(direct, peer, plan, true, found, taking).await
}

fn pay(direct: &Direct, peer: PeerId, whose: Whose) -> Result<(), NotDirect> {
    let may = direct.budget.take(peer, whose, Instant::now());
    may.then_some(()).ok_or(NotDirect::TooOften)
}

/// One attempt of the end that was dialled.
pub(super) async fn serve(direct: &Direct, call: Call) {
    let (session, is_named) = (call.session().clone(), call.context().is_named());
    let Ok(mut stream) = call.accept().await else {
        return;
    };
    let peer = session.peer().id();
    let Ok(begin) = hear::<Begin>(&mut stream).await else {
        return;
    };
    // What cannot be tried costs nothing.
    let end = End::of(direct, &session, is_named);
    let end = end.and_then(|end| pay(direct, peer, Whose::Asked).map(|()| end));
    let planned = match end {
        Ok(end) => end.answer(&mut stream, &begin).await,
        Err(why) => {
            let _ = timeout(
                DEADLINE,
                send(&mut stream, &Offer::refused(&why.to_string())),
            )
            .await;
            Err(why)
        }
    };
    let reached = match planned {
        Ok(plan) => {
            let (found, streams) = mpsc::channel(QUEUE);
            let taking = accepted(direct, peer, streams);
            until_found(direct, peer, plan, false, found, taking).await
        }
        Err(why) => {
            // A reset could overtake what was said last.
            linger_close(&mut stream, DEADLINE).await;
            Err(why)
        }
    };
    report(direct, peer, reached);
}

/// Connects until the session goes on over one of the connections, or it has taken too long.
async fn until_found(
    direct: &Direct,
    peer: PeerId,
    plan: Plan<'_>,
    chooses: bool,
    found: mpsc::Sender<Stream>,
    taking: impl Future<Output = Result<Remote, NotDirect>>,
) -> Result<Remote, NotDirect> {
    let Plan {
        turn: _turn,
        tcp,
        quic,
        mapped,
    } = plan;
    let by_tcp = tcp.to.iter().map(ToString::to_string);
    let by_quic = quic.iter().flat_map(|quic| &quic.to);
    let by_quic = by_quic.map(|at| Remote::Quic(*at).to_string());
    let tried = by_tcp.chain(by_quic).collect::<Vec<_>>().join(", ");
    let punching = async {
        punch(tcp, quic, chooses, found).await;
        std::future::pending().await
    };
    let both = async {
        tokio::select! {
            taken = taking => taken,
            never = punching => never,
        }
    };
    let none = |_| Err(NotDirect::NoWay(format!("tried {tried} for 10 s")));
    let reached = timeout(DEADLINE, both).await.unwrap_or_else(none);
    if let (Some(mapped), Ok(at)) = (mapped, &reached) {
        direct
            .node
            .spawn(keep(direct.node.handle(), mapped, peer, at.clone()));
    }
    reached
}

/// Keeps a mapped port as long as the session with the peer leads there.
async fn keep(node: Node, mut mapped: Mapped, peer: PeerId, at: Remote) {
    let mut renew_at = Instant::now() + mapped.renew_after();
    loop {
        sleep(LOOK).await;
        let path = node.session_with(peer).and_then(|session| session.path());
        if path.is_none_or(|path| path.remote != at) {
            return;
        }
        if Instant::now() >= renew_at {
            // The connection itself needs none, with most routers.
            if !mapped.renew().await {
                return;
            }
            renew_at = Instant::now() + mapped.renew_after();
        }
    }
}

/// As client: the first connection on which the peer proves its key has the session; the others are looked at meanwhile only where
/// that takes long.
pub(super) async fn go_on_over(
    direct: &Direct,
    session: &Session,
    mut streams: mpsc::Receiver<Stream>,
) -> Result<Remote, NotDirect> {
    let mut waiting = VecDeque::new();
    let mut proving = FuturesUnordered::new();
    let mut next_at = Instant::now();
    loop {
        let may_begin = !waiting.is_empty();
        tokio::select! {
            Some(stream) = streams.recv(), if waiting.len() < QUEUE => waiting.push_back(stream),
            Some((at, proven)) = proving.next(), if !proving.is_empty() => match proven {
                Ok(proven) => {
                    let gone = direct.node.go_direct(session, proven).await;
                    return gone.map(|()| at).map_err(|error| NotDirect::NoWay(error.to_string()));
                }
                // Somebody else is there.
                Err(_) => next_at = Instant::now(),
            },
            () = sleep_until(next_at), if may_begin => {
                if let Some((stream, at)) = waiting.pop_front().map(with_remote) {
                    next_at = Instant::now() + STAGGER;
                    proving.push(async move { (at, direct.node.prove_direct(session, stream).await) });
                }
            }
            // Every try is made, the listener has had its share, and none of them was the peer.
            else => return Err(NotDirect::NoWay("somebody else was at each end that was reached".into())),
        }
    }
}

/// As server: whichever connection the peer chooses.
async fn accepted(
    direct: &Direct,
    peer: PeerId,
    mut streams: mpsc::Receiver<Stream>,
) -> Result<Remote, NotDirect> {
    let mut proving = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(stream) = streams.recv() => {
                let (stream, at) = with_remote(stream);
                proving.push(async move { (at, direct.node.accept_direct(peer, stream).await) });
            }
            Some((at, accepted)) = proving.next(), if !proving.is_empty() => {
                if accepted.is_ok() {
                    return Ok(at);
                }
            }
            // Every try is made, and none is under way: others may still come to the listener.
            else => std::future::pending().await,
        }
    }
}

fn with_remote(stream: Stream) -> (Stream, Remote) {
    let at = stream.remote().clone();
    (stream, at)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_leaves_the_list_however_its_task_ends() {
        let (trying, peer) = (Arc::new(Trying::default()), PeerId::from_bytes([1; 32]));
        let entry = Entry::new(&trying, peer).unwrap();
        assert!(Entry::new(&trying, peer).is_none());
        let task = tokio::spawn(async move {
            let _entry = entry;
            panic!("a bug");
        });
        assert!(task.await.unwrap_err().is_panic());
        let mut first = Entry::new(&trying, peer).expect("the peer is in the list for ever");
        assert_eq!(first.still(|| Some(5)), Some(5));
        assert!(Entry::new(&trying, peer).is_none());
        // One that was taken out does not take out its successor.
        assert_eq!(first.still(|| None::<()>), None);
        let _second = Entry::new(&trying, peer).unwrap();
        drop(first);
        assert!(Entry::new(&trying, peer).is_none());
    }
}
