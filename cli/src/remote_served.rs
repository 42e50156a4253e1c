//! The far end of `cepa forward -R`: it listens where its owner allows that to the peer that asks, and holds what comes until it is
//! fetched. `remote.rs` has what is said.
//!
//! What a peer can make grow is counted to it: listeners ([`LISTENERS`] a peer, each a descriptor or two), and what waits to be fetched
//! ([`WAITING`] a listener, each a descriptor); further connections wait in the system's queue. What is fetched is a substream like any other.
//! A connection is found only by the peer whose listener it came to.
//!
//! Whoever has it listen goes away with the session, or closes its substream; then nothing listens, and what waits is reset. What was
//! fetched goes on, each in a substream of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::{Access, Admission, Call, CallContext, Node, Protocol, Resource, Share};
use cepa::session::reserved::{REMOTE_ACCEPT_PREFIX, REMOTE_LISTEN};
use cepa::transports::{Endpoint, Listener, Stream, TransportErrorKind};
use futures::future::{BoxFuture, select_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::exit::{Code, Failure};
use crate::log::{say_of, say_once_a_minute};
use crate::remote::{self, ASKING, Answer, News};
use crate::remote_place::{Place, Places};
use crate::say::Line;
use crate::standing::bind;
use crate::upstream::Near;

/// Listeners of one peer.
pub(crate) const LISTENERS: usize = 16;

/// Connections of one listener that are not fetched yet.
const WAITING: usize = 16;

/// Pause after a failed accept; what it lacks may come back.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a listener that is taken over may take to be gone, and its client to hear of it.
const GOING: Duration = Duration::from_secs(5);

/// Where peers may have this end listen.
#[derive(Debug, Default)]
pub(crate) struct RemoteListeners {
    allowed: Mutex<Vec<(Places, Access)>>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    listeners: HashMap<u64, Held>,
    waiting: HashMap<u64, Waiting>,
}

/// A listener.
#[derive(Debug)]
struct Held {
    context: CallContext,
    place: Place,
    /// Ends it; the word that its client reads.
    stop: Arc<(Notify, Mutex<Option<News>>)>,
    /// Closed once nothing listens any more.
    gone: watch::Receiver<()>,
}

impl Held {
    fn stop(&self, news: Option<News>) {
        *lock(&self.stop.1) = news;
        self.stop.0.notify_one();
    }

    fn peer(&self) -> PeerId {
        self.context.session().peer().id()
    }
}

/// A connection that is not fetched yet.
#[derive(Debug)]
struct Waiting {
    listener: u64,
    peer: PeerId,
    place: Place,
    stream: Stream,
    at: Endpoint,
    share: Share,
    _permit: OwnedSemaphorePermit,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole after the one statement that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a node listen for its peers, nowhere yet.
pub(crate) fn on(node: &Node) -> Result<Arc<RemoteListeners>, Failure> {
    let all = Arc::new(RemoteListeners::default());
    let protocols: [Arc<dyn Protocol>; 2] = [
        Arc::new(Listens(Arc::clone(&all))),
        Arc::new(Fetched(Arc::clone(&all))),
    ];
    for protocol in protocols {
        let added = node.add_protocol(protocol);
        added.map_err(|e| Failure::new(Code::Other, e.to_string()))?;
    }
    Ok(all)
}

struct Listens(Arc<RemoteListeners>);

impl Protocol for Listens {
    fn names(&self) -> &[&'static str] {
        &[REMOTE_LISTEN]
    }

    // Each place has its own access.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    fn keeps_session(&self) -> bool {
        false
    }

    fn delays_shutdown(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.0.listen(call).await })
    }
}

struct Fetched(Arc<RemoteListeners>);

impl Protocol for Fetched {
    fn names(&self) -> &[&'static str] {
        &[REMOTE_ACCEPT_PREFIX]
    }

    // Only who listens has anything to fetch.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.0.fetched(call).await })
    }
}

/// What a peer reads that may not.
fn not_allowed(place: &Place) -> String {
    format!("not allowed there (--allow-remote {place})")
}

impl RemoteListeners {
    /// Allows these places from now on, and no others.
    pub(crate) fn allow(&self, places: Vec<(Places, Access)>) {
        *lock(&self.allowed) = places;
        for held in lock(&self.table).listeners.values() {
            if self.find(&held.context, &held.place).is_none() {
                held.stop(None);
            }
        }
    }

    fn find(&self, context: &CallContext, place: &Place) -> Option<Vec<Endpoint>> {
        let allowed = lock(&self.allowed);
        let mut open = allowed.iter().filter(|(_, access)| context.may(access));
        open.find_map(|(places, _)| places.find(place))
    }

    /// Listens for a peer until that ends.
    async fn listen(&self, call: Call) {
        let (incoming, context) = call.into_parts();
        let Ok(mut far) = incoming.accept().await else {
            return;
        };
        let Ok(Ok(asked)) = timeout(ASKING, remote::asked(&mut far)).await else {
            return;
        };
        let opened = match asked {
            Ok(place) => self.open(&context, place).await,
            Err(why) => Err((Answer::Failed, why)),
        };
        let peer = context.session().peer().id();
        let Opened {
            place,
            listeners,
            _share,
            entry,
            stop,
            gone,
        } = match opened {
            Ok(opened) => opened,
            Err((answer, why)) => {
                let line = format!("did not listen for {}…: {why}", peer.short());
                say_once_a_minute(peer, &why, Line::from(line).with("peer", peer));
                let _ = remote::answer(&mut far, answer, &why).await;
                let _ = far.shutdown().await;
                let _ = timeout(GOING, far.wire_mut().drained(None)).await;
                return;
            }
        };
        let _kept = context.keep_session();
        let at: Vec<String> = listeners
            .iter()
            .map(|it| it.endpoint().to_string())
            .collect();
        let at = at.join(" ");
        let line = format!(
            "listening on {} for {}… (forward -R)",
            at.replace(' ', " and "),
            peer.short()
        );
        say_of(
            peer,
            Line::from(line).with("address", &at).with("peer", peer),
        );
        if remote::answer(&mut far, Answer::Listening, &at)
            .await
            .is_err()
        {
            return;
        }
        let (mut read, mut write) = tokio::io::split(far);
        let closed = async {
            let mut nothing = [0; 64];
            while let Ok(1..) = read.read(&mut nothing).await {}
        };
        let told = async {
            let announcing = Announcing {
                all: self,
                context: &context,
                listener: entry.number,
                place,
            };
            tokio::select! {
                () = announcing.run(listeners, &mut write) => {}
                () = stop.0.notified() => {}
            }
            // Nothing listens any more: whoever has taken it over may.
            drop((entry, gone));
            let last = lock(&stop.1).take();
            if let Some(news) = last {
                let _ = remote::tell(&mut write, news).await;
            }
            let _ = timeout(GOING, write.shutdown()).await;
            // The client reads that, and ends its side.
            sleep(GOING).await;
        };
        tokio::select! {
            () = closed => {}
            () = told => {}
        }
        let line = format!(
            "no longer listening on {} for {}…",
            at.replace(' ', " and "),
            peer.short()
        );
        say_of(
            peer,
            Line::from(line).with("address", &at).with("peer", peer),
        );
    }

    /// Listens at a place, if the peer may have that; taken over from the same peer.
    async fn open(
        &self,
        context: &CallContext,
        place: Place,
    ) -> Result<Opened<'_>, (Answer, String)> {
        let peer = context.session().peer().id();
        let at = self.find(context, &place);
        let at = at.ok_or_else(|| (Answer::NotAllowed, not_allowed(&place)))?;
        let full = |why: String| (Answer::Full, why);
        let share = context.hold(&[(Resource::Descriptors, at.len())]);
        let share = share.map_err(|e| full(e.to_string()))?;
        // A port that is chosen is nobody's yet.
        let chosen = matches!(place, Place::Port(_, 0));
        let stop = Arc::new((Notify::new(), Mutex::default()));
        let (gone_sender, gone) = watch::channel(());
        let (before, entry) = {
            let mut table = lock(&self.table);
            let own = || table.listeners.values().filter(|it| it.peer() == peer);
            let same = own().find(|it| !chosen && it.place == place);
            if let Some(same) = same {
                same.stop(Some(News::TakenOver));
            } else if own().count() >= LISTENERS {
                let why = format!("you have {LISTENERS} listeners there already; end one first");
                return Err(full(why));
            }
            let before = same.map(|it| it.gone.clone());
            // Counted from now on, whatever others ask for meanwhile.
            table.last += 1;
            let number = table.last;
            let held = Held {
                context: context.clone(),
                place: place.clone(),
                stop: Arc::clone(&stop),
                gone,
            };
            table.listeners.insert(number, held);
            (before, Entry { all: self, number })
        };
        if let Some(mut gone) = before {
            // An error is its end.
            let _ = timeout(GOING, gone.changed()).await;
        }
        let listeners = bind(&at).await.map_err(|e| {
            if e.kind() == TransportErrorKind::AddressInUse {
                return (Answer::InUse, "something else listens there".to_owned());
            }
            // What exactly is wrong here is for the operator, not for the peer.
            let line = format!("cannot listen for {}…: {e}", peer.short());
            say_once_a_minute(peer, &line, Line::from(&line).with("peer", peer));
            (Answer::Failed, "it cannot; its log says why".to_owned())
        })?;
        Ok(Opened {
            place,
            listeners,
            _share: share,
            entry,
            stop,
            gone: gone_sender,
        })
    }

    /// Joins a connection to the substream that fetches it.
    async fn fetched(&self, call: Call) {
        let peer = call.peer().id();
        let found = remote::number_in(call.service()).and_then(|number| {
            let mut table = lock(&self.table);
            let own = table.waiting.get(&number).is_some_and(|it| it.peer == peer);
            own.then(|| table.waiting.remove(&number)).flatten()
        });
        let Some(Waiting {
            stream,
            place,
            at,
            share,
            _permit: permit,
            ..
        }) = found
        else {
            let _ = call.refuse(remote::GONE).await;
            return;
        };
        drop(permit);
        let _kept = call.context().keep_session();
        let held = (call.session().clone(), call.memory().clone());
        let Ok(far) = call.accept().await else {
            return;
        };
        let name = format!("-R {place}");
        let near = Box::new(Near::of(&name, stream, &held));
        if let Err(e) = near.serve(&at, Box::new(far), |far| far.wire_mut()).await {
            let line = Line::from(format!("{name} for {}…: {e}", peer.short()));
            say_once_a_minute(peer, format_args!("{name}: {e}"), line);
        }
        drop(share);
    }
}

/// A listener that was opened for a peer.
struct Opened<'a> {
    place: Place,
    listeners: Vec<Listener>,
    _share: Share,
    entry: Entry<'a>,
    stop: Arc<(Notify, Mutex<Option<News>>)>,
    gone: watch::Sender<()>,
}

/// Its place in the table: with it goes what waits.
struct Entry<'a> {
    all: &'a RemoteListeners,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut table = lock(&self.all.table);
        let held = table.listeners.remove(&self.number);
        let of = self.number;
        let gone: Vec<Waiting> = table
            .waiting
            .extract_if(|_, it| it.listener == of)
            .map(|(_, it)| it)
            .collect();
        drop(table);
        drop((held, gone));
    }
}

/// What a listener does.
struct Announcing<'a> {
    all: &'a RemoteListeners,
    context: &'a CallContext,
    listener: u64,
    place: Place,
}

impl Announcing<'_> {
    /// Takes what comes, and tells of it; returns when nothing more will, or nobody is there to be told.
    async fn run(
        &self,
        mut listeners: Vec<Listener>,
        out: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) {
        let peer = self.context.session().peer().id();
        let room = Arc::new(Semaphore::new(WAITING));
        loop {
            // It is never closed.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let accepts = listeners.iter_mut().map(|it| {
                Box::pin(async move {
                    let at = it.endpoint().clone();
                    (it.accept().await, at)
                })
            });
            let ((accepted, at), _, _) = select_all(accepts).await;
            let (mut stream, share) = match accepted {
                Ok(Some(stream)) => match self.context.hold(&[(Resource::Descriptors, 1)]) {
                    Ok(share) => (stream, share),
                    Err(e) => {
                        let line = format!("-R {} for {}…: {e}", self.place, peer.short());
                        say_once_a_minute(peer, e, Line::from(line));
                        continue;
                    }
                },
                Ok(None) => return,
                // Out of descriptors, or a connection that was gone again: others may follow.
                Err(e) => {
                    say_once_a_minute(peer, &e, Line::from(e.to_string()));
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Its program must not take what has come of a lost session for all there is.
            stream.cut_when_dropped(true);
            let number = {
                let mut table = lock(&self.all.table);
                table.last += 1;
                let number = table.last;
                let waiting = Waiting {
                    listener: self.listener,
                    peer,
                    place: self.place.clone(),
                    stream,
                    at,
                    share,
                    _permit: permit,
                };
                table.waiting.insert(number, waiting);
                number
            };
            if remote::tell(out, News::Connection(number)).await.is_err() {
                return;
            }
        }
    }
}
