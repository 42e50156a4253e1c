//! The life of a session: it is made of a stream that came, from a listener or a relay, or is handed over by
//! who dialled; it is entered in the table, serves what the peer opens, and ends.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{Layer, Stream};
use rustls_pki_types::UnixTime;
use tokio::time::{sleep, timeout};

use crate::Side;
use crate::gate::Source;
use crate::identity::PeerId;
use crate::relay::{self, Relay, is_circuit};
use crate::session::{Incoming, Session};
use crate::stack::{DEFAULT_LAYERS, StackConfig};

use super::call::{Call, Path};
use super::core::{Core, Live};
use super::event::Event;
use super::introduction::owner;
use super::introduction::wire::SERVICE as INTRODUCTION;
use super::sealed::serve as sealed;
use super::sealed::wire::{CARRY, DELIVER};
use super::table::Origin;

/// How often a session that is no longer used is looked at, to end it when its last substream is over.
const LOOK: Duration = Duration::from_secs(1);

/// How long a session may take to answer a ping when another one with the same peer has come up.
const ALIVE: Duration = Duration::from_secs(5);

/// A circuit that a relay brings becomes a session like any other.
async fn circuit(core: &Arc<Core>, incoming: Incoming, via: Vec<PeerId>) {
    let relay = incoming.peer().id();
    match relay::take(incoming).await {
        Ok((stream, _from)) => {
            come(core, stream, DEFAULT_LAYERS, via, &core.config.stack).await;
        }
        Err(why) => core.tell(Event::TurnedAway(format!("relay {relay}"), why)),
    }
}

/// Makes a session, as server, of a stream that came.
pub(super) async fn come(
    core: &Arc<Core>,
    stream: Stream,
    layers: &[Layer],
    via: Vec<PeerId>,
    config: &StackConfig,
) -> Option<Session> {
    let label = stream.label().to_owned();
    let turned = |why: String| core.tell(Event::TurnedAway(label.clone(), why));
    let pass = match core.gate.enter(Source::of(&label)) {
        Ok(pass) => pass,
        Err(why) => {
            turned(why.to_string());
            return None;
        }
    };
    if core.table().len() >= core.config.sessions {
        turned("too many sessions at once".into());
        return None;
    }
    let session = tokio::select! {
        session = Session::over(stream, layers, Side::Server, config) => session,
        () = core.stopping() => return None,
    };
    match session {
        Ok(session) => {
            pass.let_in();
            let path = Path {
                via,
                dialled: false,
                label,
            };
            adopt(core, session.clone(), path);
            Some(session)
        }
        Err(error) => {
            if let Some(failing) = error.failing() {
                pass.failed(failing);
            }
            turned(error.to_string());
            None
        }
    }
}

/// Takes a new session in, and runs it in a task of its own.
pub(super) fn adopt(core: &Arc<Core>, session: Session, path: Path) {
    let peer = session.peer().id();
    let origin = Origin {
        direct: path.is_direct(),
        dialled: path.dialled,
    };
    let live = Live {
        session: session.clone(),
        path: path.clone(),
    };
    let (number, others) = {
        let mut table = core.table();
        let number = table.add(peer, origin, live);
        (number, table.others(peer))
    };
    core.tell(Event::Up(peer, path.clone()));
    if UnixTime::now() > session.peer().not_after() {
        core.tell(Event::CertificateExpired(peer));
    }
    for (other, origin, live) in others {
        tokio::spawn(retire(Arc::clone(core), peer, other, origin, live.session));
    }
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let end = run(&core, &session, &path).await;
        core.table().remove(peer, number);
        core.tell(Event::Down(peer, path, end));
    });
}

/// Serves a session until it is over, and says how it ended.
async fn run(core: &Arc<Core>, session: &Session, path: &Path) -> String {
    loop {
        tokio::select! {
            incoming = session.accept() => match incoming {
                Ok(incoming) => take(core, incoming, session, path),
                Err(end) => return end.to_string(),
            },
            () = core.stopping() => break,
        }
    }
    // Substreams that are open go on until the node closes the session; no more are taken.
    loop {
        match session.accept().await {
            Ok(incoming) => {
                let _ = incoming.refuse("this node is shutting down").await;
            }
            Err(end) => return end.to_string(),
        }
    }
}

/// Gives a substream to whom it is for.
fn take(core: &Arc<Core>, incoming: Incoming, session: &Session, path: &Path) {
    let peer = session.peer().id();
    let name = incoming.service().to_owned();
    let busy = core.busy();
    if is_circuit(&name) && core.takes_circuits_of(peer) {
        let via = std::iter::once(peer)
            .chain(path.via.iter().copied())
            .collect();
        let core = Arc::clone(core);
        tokio::spawn(async move {
            circuit(&core, incoming, via).await;
            drop(busy);
        });
        return;
    }
    if let Some(relay) = core.relay.clone().filter(|_| Relay::serves(&name)) {
        let session = session.clone();
        // Circuits of others keep nobody from shutting down.
        drop(busy);
        tokio::spawn(async move { relay.serve(incoming, &session).await });
        return;
    }
    if name == INTRODUCTION {
        let (core, session, path) = (Arc::clone(core), session.clone(), path.clone());
        tokio::spawn(async move {
            owner::serve(&core, incoming, session, path).await;
            drop(busy);
        });
        return;
    }
    if name == CARRY {
        let core = Arc::clone(core);
        // As with circuits.
        drop(busy);
        tokio::spawn(async move { sealed::carry(&core, incoming).await });
        return;
    }
    if name == DELIVER {
        let core = Arc::clone(core);
        tokio::spawn(async move {
            sealed::deliver(&core, incoming).await;
            drop(busy);
        });
        return;
    }
    let found = if name.starts_with("cepa.") {
        Err("no service of this name is open to you")
    } else {
        core.find(peer, &name)
    };
    let call = Call::new(incoming, session.clone(), path.clone());
    match found {
        Ok(service) => {
            let handled = (service.handler)(call);
            tokio::spawn(async move {
                handled.await;
                drop(busy);
            });
        }
        Err(reason) => {
            core.tell(Event::Refused(peer, name, reason.to_owned()));
            tokio::spawn(async move { call.refuse(reason).await });
        }
    }
}

/// Ends a session that is not the chosen one: at once if it is dead, else when nothing uses it any more, if
/// it was dialled here. (The other end does the same with those that it dialled.)
async fn retire(core: Arc<Core>, peer: PeerId, number: u64, origin: Origin, session: Session) {
    if timeout(ALIVE, session.ping()).await.is_err() {
        session.close().await;
        return;
    }
    if !origin.dialled {
        return;
    }
    let mut unused = 0;
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            _ = session.closed() => return,
        }
        match core.chosen(peer) {
            Some((chosen, ..)) if chosen != number => {}
            // The better one is gone: this one is in use again.
            _ => return,
        }
        // Twice in a row: the peer may be opening one just now.
        unused = if session.mux_stats().streams == 0 {
            unused + 1
        } else {
            0
        };
        if unused >= 2 {
            session.close().await;
            return;
        }
    }
}
