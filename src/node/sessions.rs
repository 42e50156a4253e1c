//! The life of a session: it is made of a stream that came, or is handed over by who dialled; it is entered in the table,
//! hands on what the peer opens (`serving.rs`), and ends.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa_transports::{Endpoint, Layer, Stream};
use rustls_pki_types::UnixTime;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::Side;
use crate::gate::{Rejected, Source};
use crate::identity::PeerId;
use crate::mux::{GoAwayCode, LimitKind};
use crate::session::{ConnectError, Resumed, Session, SessionEnd, SessionLost};
use crate::stack::{self, NotAdmitted, StackConfig};

use super::admit;
use super::core::{Core, GOODBYE};
use super::event::{Event, TurnedAway};
use super::live::{Live, Path, Up};
use super::moves::follow;
use super::seats::Seat;
use super::serving::serve;
use super::shares::{self, Share};
use super::table::Origin;

/// How often a session that is no longer used is looked at, to end it when its last substream is over.
const LOOK: Duration = Duration::from_secs(1);

/// How long a session that carries nothing may take to answer a ping when another one with the same peer has come up.
const ALIVE: Duration = Duration::from_secs(5);

/// What came of a stream.
pub(super) enum Accepted {
    /// A session.
    New(Live),
    /// One that was there already goes on over it.
    Resumed(Resumed),
}

impl Accepted {
    /// The session; an error for one that this node does not have (yet).
    pub(super) fn session(self, core: &Core) -> Result<Session, TurnedAway> {
        let resumed = match self {
            Self::New(live) => return Ok(live.session.clone()),
            Self::Resumed(resumed) => resumed,
        };
        let standing = core.table().standing();
        let lasting = |live: &Live| live.session.lasting().cloned();
        let mut sessions = standing.iter();
        let found = sessions.find(|it| lasting(it).is_some_and(|it| resumed.is_of(&it)));
        found
            .map(|live| live.session.clone())
            .ok_or(TurnedAway::Connect(ConnectError::Resumed(resumed)))
    }
}

/// Makes a session, as server, of a stream that came, and takes it in.
pub(super) async fn accept(
    core: &Arc<Core>,
    stream: Stream,
    layers: &[Layer],
    via: Vec<PeerId>,
    config: &StackConfig,
    at: Option<&Endpoint>,
) -> Result<Accepted, TurnedAway> {
    let from = stream.label().to_owned();
    let source = Source::from(stream.remote()).whole();
    match handshake(core, stream, layers, via, config).await {
        Ok((session, path, came)) => {
            let live = register(core, session, path, came).await;
            live.map(Accepted::New)
                .map_err(|ShutDown| TurnedAway::ShutDown)
        }
        Err(Failed {
            reason: TurnedAway::Connect(ConnectError::Resumed(resumed)),
            ..
        }) => Ok(Accepted::Resumed(resumed)),
        Err(Failed { reason, is_news }) => {
            if is_news {
                core.emit(Event::TurnedAway {
                    at: at.cloned(),
                    source,
                    from,
                    reason: reason.clone(),
                });
            }
            Err(reason)
        }
    }
}

/// A stream that became no session; whether anybody wants to know.
struct Failed {
    reason: TurnedAway,
    is_news: bool,
}

impl From<TurnedAway> for Failed {
    fn from(reason: TurnedAway) -> Self {
        Self {
            reason,
            is_news: true,
        }
    }
}

async fn handshake(
    core: &Arc<Core>,
    stream: Stream,
    layers: &[Layer],
    via: Vec<PeerId>,
    config: &StackConfig,
) -> Result<(Session, Path, Came), Failed> {
    let label = stream.label().to_owned();
    let source = Source::from(stream.remote());
    let pass = tokio::select! {
        pass = core.gate.enter(source) => pass,
        () = core.stopping() => return Err(TurnedAway::ShutDown.into()),
    };
    let mut pass = match pass {
        Ok(pass) => pass,
        Err(turned) => {
            turn_away(core, stream, layers, config, turned);
            return Err(TurnedAway::Gate(turned).into());
        }
    };
    let host = source.host();
    let mut config = config.clone();
    let room = admit::Inbound::new(&core.shares, &core.seats, host);
    config.admission = Some(Arc::<admit::Inbound>::clone(&room));
    let (give_up, given_up) = oneshot::channel();
    let unwanted = pin!(async {
        match given_up.await {
            Ok(refused) => refused,
            Err(_) => pending().await,
        }
    });
    let session = Session::over_unless(stream, layers, Side::Server, &config, unwanted);
    let mut session = Box::pin(session);
    let session = tokio::select! {
        session = &mut session => session,
        turned = pass.evicted() => {
            if let Some(_farewell) = core.farewells.begin(source) {
                let _ = give_up.send(NotAdmitted {
                    code: GoAwayCode::Limit(LimitKind::Sessions),
                    reason: turned.to_string(),
                });
                let _ = timeout(GOODBYE, until_stop(core, session)).await;
            }
            return Err(TurnedAway::Gate(turned).into());
        }
        () = core.stopping() => return Err(TurnedAway::ShutDown.into()),
    };
    match session {
        Ok(session) => {
            pass.let_in();
            let path = Path {
                via,
                dialled: false,
                label,
            };
            let seat = room.seat();
            Ok((session, path, Came::In { host, seat }))
        }
        Err(error) => {
            let mut is_news = true;
            if let ConnectError::Resumed(_) = error {
                pass.let_in();
            } else if error.is_probe() {
                is_news = pass.probe();
            } else if let Some(failing) = error.failing() {
                pass.failed(failing);
            }
            let reason = TurnedAway::Connect(error);
            Err(Failed { reason, is_news })
        }
    }
}

/// Tells the peer of a stream that the gate has no place for it, in a task of its own, if not too many are told already.
fn turn_away(
    core: &Arc<Core>,
    stream: Stream,
    layers: &[Layer],
    config: &StackConfig,
    why: Rejected,
) {
    if let Rejected::Penalty { .. } = why {
        return;
    }
    let Some(farewell) = core.farewells.begin(Source::from(stream.remote())) else {
        return;
    };
    let (layers, config) = (layers.to_vec(), config.clone());
    let node_core = Arc::clone(core);
    core.tasks.spawn(async move {
        let goodbye = stack::turn_away(stream, &layers, &config, GOODBYE);
        until_stop(&node_core, goodbye).await;
        drop(farewell);
    });
}

/// Goes on until it is done or the node shuts down.
async fn until_stop(core: &Core, what: impl Future) {
    tokio::select! {
        _ = what => {}
        () = core.stopping() => {}
    }
}

/// The node is shutting down: the session that came too late is closed.
pub(super) struct ShutDown;

/// How a session came about.
pub(super) enum Came {
    /// From there, and has this place.
    In {
        host: Source,
        seat: Option<Arc<Seat>>,
    },
    /// It was dialled; the part of the peer that wanted it, if one did.
    Dialled(Option<Share>),
}

/// Takes a new session in, and runs it in a task of its own.
pub(super) async fn register(
    core: &Arc<Core>,
    session: Session,
    path: Path,
    came: Came,
) -> Result<Live, ShutDown> {
    let who = admit::who(core, &session, &path).await;
    // A shutdown that begins behind this is seen by the session's own task.
    if core.is_stopping() {
        core.close(&session).await;
        return Err(ShutDown);
    }
    let origin = Origin {
        direct: path.is_direct(),
        dialled: path.dialled,
    };
    let memory = core.shares.memory_of(shares::ids(who.id, &who.former));
    let (host, seat, paid_by) = match came {
        Came::In { host, seat } => {
            if let Some(seat) = &seat {
                seat.is_used_here_if(session.use_here());
            }
            (Some(host), seat, None)
        }
        Came::Dialled(paid_by) => (None, None, paid_by),
    };
    let live = Live::from(Up {
        who,
        memory,
        session,
        now: Mutex::new(path.clone()),
        path,
        host,
        seat,
        paid_by,
        superseded: Notify::new(),
        serving: TaskTracker::new(),
    });
    let peer = live.who.id;
    let (number, others) = {
        let mut table = core.table();
        let number = table.add(peer, &live.who.former, origin, live.clone());
        (number, table.others(peer))
    };
    // Who dials it need not wait for the rest of what it tries.
    for id in std::iter::once(&peer).chain(&live.who.former) {
        if let Some(dial) = core.dials.under_way(*id) {
            dial.came();
        }
    }
    core.emit(Event::SessionUp {
        peer,
        path: live.path.clone(),
    });
    if UnixTime::now() > live.session.peer().not_after() {
        core.emit(Event::CertificateExpired { peer });
    }
    for other in others {
        other.superseded.notify_one();
    }
    let task = run(Arc::clone(core), live.clone(), number);
    core.tasks.spawn(task);
    Ok(live)
}

/// Runs a session until it is over.
async fn run(core: Arc<Core>, live: Live, number: u64) {
    let end = tokio::select! {
        end = serve_all(&core, &live) => end,
        never = tend(&core, &live, number) => match never {},
        never = follow(&core, &live, number) => match never {},
    };
    core.table().remove(live.who.id, number);
    live.serving.close();
    core.emit(Event::SessionDown {
        peer: live.who.id,
        path: live.current(),
        end,
    });
}

/// Serves what the peer opens until the session is over, and says how it ended.
async fn serve_all(core: &Arc<Core>, live: &Live) -> SessionEnd {
    loop {
        tokio::select! {
            incoming = live.session.accept() => match incoming {
                Ok(incoming) => serve(core, incoming, live),
                Err(end) => return end,
            },
            () = core.stopping() => break,
        }
    }
    // Substreams that are open go on until the time of their handlers is up; no more are taken.
    let refusing = async {
        loop {
            match live.session.accept().await {
                Ok(incoming) => {
                    let _ = incoming.refuse("this node is shutting down").await;
                }
                Err(end) => return end,
            }
        }
    };
    tokio::select! {
        end = refusing => end,
        () = core.over() => {
            core.nothing_goes_through(live.who.id).await;
            core.close(&live.session).await
        }
        // Who has no connection hears nothing and comes too late: what it has open here would end for no reason but time.
        end = parked(live) => end,
    }
}

/// Waits until the session has no connection, and gives it up then.
async fn parked(live: &Live) -> SessionEnd {
    let Some(lasting) = live.session.lasting() else {
        return pending().await;
    };
    if lasting.handle.lost().await.is_none() {
        // It is over, which is told elsewhere.
        return pending().await;
    }
    lasting.handle.give_up(SessionLost::GivenUp);
    SessionEnd::ClosedUnheard
}

/// Ends a session that nothing uses: at once if it is dead, soon when another one with the same peer is used in its place and
/// it was dialled here (the other end does the same with those that it dialled), else when it was idle for long.
async fn tend(core: &Arc<Core>, live: &Live, number: u64) -> Infallible {
    let (mut superseded, mut unused_since) = (false, Instant::now());
    let mut carried = 0;
    loop {
        let idle = core.config.idle_timeout;
        let look = match idle {
            _ if superseded => LOOK,
            Some(idle) => (idle / 8).clamp(LOOK, 60 * LOOK),
            None => 60 * LOOK,
        };
        tokio::select! {
            () = live.superseded.notified() => {
                superseded = true;
                // A slow way that carries something may need longer for an answer: of a session in use the keepalive
                // decides. Who has said that it will be silent is silent.
                let stats = live.session.mux_stats();
                let waits = stats.peer_pauses || stats.streams > 0;
                if !waits && timeout(ALIVE, live.session.ping()).await.is_err() {
                    live.session.close().await;
                }
            }
            () = sleep(look) => {}
        }
        // The better one may be gone: this one is in use again then.
        superseded = superseded && core.table().is_superseded(live.who.id, number);
        // What came and went since the last look was use as well.
        let stats = live.session.mux_stats();
        let before = std::mem::replace(&mut carried, stats.data_in + stats.data_out);
        if stats.streams > 0 || carried != before {
            unused_since = Instant::now();
            continue;
        }
        // Twice a look: the peer may be opening one just now.
        let most = if superseded && live.path.dialled {
            Some(2 * LOOK)
        } else {
            idle
        };
        if most.is_some_and(|most| unused_since.elapsed() >= most) {
            live.session.close_with(GoAwayCode::Idle).await;
        }
    }
}

#[cfg(test)]
mod tests;
