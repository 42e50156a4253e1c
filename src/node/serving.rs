//! Serves the substreams that peers open.
//!
//! Each is served in a task of its own, where the application's code runs: what panics or is slow there
//! touches neither the session nor other substreams. Who may open what, `access.rs` decides.
//!
//! A peer may have thousands of substreams that say nothing, so such a task holds as little as it can. What is needed only to begin
//! is over when the task first waits, and what a handler gets (`Call`) is small, since a future has a place for it
//! wherever it is handed on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::identity::PeerId;
use crate::mux::Held;
use crate::observe;
use crate::session::{Incoming, reserved};

use super::access::{Access, Admission, Admitted, Denied, How, What, decide};
use super::call::{Call, CallContext};
use super::core::{Core, GOODBYE, Service};
use super::event::{Event, Refused};
use super::live::Live;
use super::protocol::{NOT_OPEN, Protocol};
use super::seats::Kept;
use super::shares::{Exceeded, Resource, SUBSTREAM_MEMORY, Share};

/// What serving a protocol means to what is around it.
#[derive(Clone, Copy)]
struct Role {
    delays_shutdown: bool,
    keeps_session: bool,
}

/// Whom a substream is for; and to what the peer was admitted.
enum Callee {
    Service(Service),
    Protocol(Arc<dyn Protocol>, Role, Option<Admitted>),
}

/// Serves a substream, in a task of its own.
pub(super) fn serve(core: &Arc<Core>, incoming: Incoming, live: &Live) {
    let (core, live) = (Arc::clone(core), live.clone());
    // From now on, and not only once the task runs.
    let busy = core.handlers.token();
    let running = core.tasks.token();
    let serving = live.serving.clone();
    let taken = core
        .shares
        .take(live.holder(), &[(Resource::Substreams, 1)]);
    let span = observe::serving(&live.who.id, incoming.service());
    serving.spawn(span.instrument(served(core, live, incoming, taken, busy, running)));
}

/// The task. (What an async fn is given has two places in its future; what a block takes has one.)
#[allow(clippy::manual_async_fn)]
fn served(
    core: Arc<Core>,
    live: Live,
    incoming: Incoming,
    taken: Result<Share, Exceeded>,
    busy: TaskTrackerToken,
    running: TaskTrackerToken,
) -> impl Future<Output = ()> + Send + 'static {
    async move {
        {
            let begun = begin(&core, &live, incoming, taken, busy);
            tokio::select! {
                () = begun.goes_on(&core, &live) => {}
                () = ends(&core, &live) => {}
            }
        }
        drop(running);
    }
}

/// A substream that is served, and all that is held for it. What serves it is boxed by who makes it.
struct Begun {
    name: String,
    work: Started,
    busy: Option<TaskTrackerToken>,
    kept: Option<Kept>,
    share: Option<(Share, Held)>,
}

/// What the application began to do for a substream, unless it panicked.
type Started = std::thread::Result<BoxFuture<'static, Option<String>>>;

impl Begun {
    async fn goes_on(self, core: &Core, live: &Live) {
        guarded(core, live, &self.name, self.work).await;
        drop((self.busy, self.kept, self.share));
    }
}

/// Finds who is to serve a substream, and begins with it.
fn begin(
    core: &Arc<Core>,
    live: &Live,
    incoming: Incoming,
    taken: Result<Share, Exceeded>,
    busy: TaskTrackerToken,
) -> Begun {
    let mut begun = Begun {
        name: incoming.service().to_owned(),
        work: Ok(Box::pin(std::future::ready(None))),
        busy: None,
        kept: None,
        share: None,
    };
    match taken {
        Ok(share) => {
            let memory = live.memory.pool.hold_anyway(SUBSTREAM_MEMORY);
            begun.share = Some((share, memory));
        }
        Err(exceeded) => {
            let text = exceeded.to_string();
            begun.work = Ok(refuse(core, live, incoming, Refused::Limit(exceeded), text));
            return begun;
        }
    }
    // What a protocol says of itself is the application's code as well.
    let found = match catch_unwind(AssertUnwindSafe(|| find(core, live, &begun.name))) {
        Ok(found) => found,
        Err(panic) => {
            begun.work = Err(panic);
            return begun;
        }
    };
    let (callee, named) = match found {
        Ok(found) => found,
        Err((reason, text)) => {
            begun.work = Ok(refuse(core, live, incoming, reason, text));
            return begun;
        }
    };
    let mut call = Call::new(incoming, live.clone(), core.shares.clone());
    if named {
        call.set_named();
    }
    match callee {
        Callee::Service(service) => {
            begun.kept = live.keep();
            begun.busy = Some(busy);
            begun.work = catch_unwind(AssertUnwindSafe(move || (service.handler)(call)));
        }
        Callee::Protocol(protocol, role, admitted) => {
            begun.kept = role.keeps_session.then(|| live.keep()).flatten();
            call.admit_to(admitted);
            // Circuits of others keep nobody from shutting down.
            begun.busy = Some(busy).filter(|_| role.delays_shutdown);
            let serve = move || protocol.serve(call).map(|()| None).boxed();
            begun.work = catch_unwind(AssertUnwindSafe(serve));
        }
    }
    begun
}

/// Refuses a substream.
fn refuse(
    core: &Core,
    live: &Live,
    incoming: Incoming,
    reason: Refused,
    text: String,
) -> BoxFuture<'static, Option<String>> {
    let dial_instead = matches!(reason, Refused::Dialled);
    core.emit(Event::Refused {
        peer: live.who.id,
        service: incoming.service().to_owned(),
        reason,
    });
    Box::pin(async move {
        let _ = if dial_instead {
            incoming.refuse_dial_instead().await
        } else {
            incoming.refuse(&text).await
        };
        None
    })
}

/// Waits until a handler has to end: the node shuts down, its time is up, and the peer was told so. Dropped earlier, its substream
/// would look reset for no reason.
async fn ends(core: &Core, live: &Live) {
    core.over().await;
    let _ = Box::pin(timeout(GOODBYE, live.session.closed())).await;
}

/// Runs code of the application. Its panic ends here, with its substream, and so does its error.
async fn guarded(core: &Core, live: &Live, name: &str, started: Started) {
    let served = match started {
        Ok(serving) => AssertUnwindSafe(serving).catch_unwind().await,
        Err(panic) => Err(panic),
    };
    match served {
        Ok(None) => {}
        Ok(Some(error)) => core.emit(Event::HandlerFailed {
            peer: live.who.id,
            service: name.to_owned(),
            error,
        }),
        Err(_) => panicked(core, live, name),
    }
}

fn panicked(core: &Core, live: &Live, name: &str) {
    core.emit(Event::HandlerPanicked {
        peer: live.who.id,
        service: name.to_owned(),
    });
}

/// Serves a substream of a peer that was introduced to its service.
pub(super) async fn serve_introduced(
    core: &Arc<Core>,
    context: CallContext,
    incoming: Incoming,
    by: Vec<PeerId>,
) {
    let name = incoming.service().to_owned();
    let call = Call::introduced(incoming, context, by);
    let live = call.live().clone();
    match core.named_service(&name) {
        Some(service) if decide(&live.who, how(&live), What::Introduced).is_ok() => {
            let _kept = live.keep();
            let serve = AssertUnwindSafe(move || (service.handler)(call));
            guarded(core, &live, &name, catch_unwind(serve)).await;
        }
        _ => {
            let _ = call.refuse(NOT_OPEN).await;
        }
    }
}

fn how(live: &Live) -> How {
    How {
        dialled: live.path.dialled,
        relayed: !live.path.is_direct(),
    }
}

/// What has this name, if the peer may open it, and whether a protocol is for the peer by name; else why not, for us and for the peer.
/// (Whom any service is for by name, `Shares::knows` says.)
fn find(core: &Core, live: &Live, name: &str) -> Result<(Callee, bool), (Refused, String)> {
    let how = how(live);
    let refused = |denied| match denied {
        Denied::NotAllowed => (Refused::NotOpen, NOT_OPEN.to_owned()),
        Denied::DialInstead => (Refused::Dialled, String::new()),
    };
    let may = |what: What<'_>| decide(&live.who, how, what);
    if reserved::is_reserved(name) {
        let protocol = core.protocol(name);
        let protocol = protocol.ok_or_else(|| refused(Denied::NotAllowed))?;
        let offered = |access: &Access| may(What::Offered(access)).map(|()| names_peers(access));
        let mut admitted = None;
        let decision = match protocol.admission(name) {
            Admission::With(access, to) => {
                admitted = Some(to);
                offered(&access)
            }
            Admission::Access(access) => offered(&access),
            // Whom this node dials of its own accord it knows by its id.
            Admission::OwnProof => {
                may(What::OwnProof).map(|()| live.path.dialled && live.paid_by.is_none())
            }
            Admission::Service(name) => match core.service(&name) {
                Some(service) => offered(&service.access),
                None => Err(Denied::NotAllowed),
            },
        };
        return match decision {
            Ok(named) => {
                let role = Role {
                    delays_shutdown: protocol.delays_shutdown(),
                    keeps_session: protocol.keeps_session(),
                };
                Ok((Callee::Protocol(protocol, role, admitted), named))
            }
            Err(Denied::NotAllowed) => Err((Refused::NotOpen, protocol.refusal().to_owned())),
            Err(denied) => Err(refused(denied)),
        };
    }
    let open = |(name, access): &(String, Access)| {
        !reserved::is_reserved(name) && may(What::Offered(access)).is_ok()
    };
    let wanted = if name.is_empty() {
        let mut all = core.offered().into_iter().filter(open);
        match (all.next(), all.next()) {
            (Some((only, _)), None) => only,
            (Some(_), Some(_)) => {
                let text = format!("choose a service: {}", names(core, open));
                return Err((Refused::Unnamed, text));
            }
            _ => String::new(),
        }
    } else {
        name.to_owned()
    };
    let denied = match core.service(&wanted) {
        Some(service) => match may(What::Offered(&service.access)) {
            Ok(()) => return Ok((Callee::Service(service), false)),
            Err(denied) => denied,
        },
        None => Denied::NotAllowed,
    };
    let there = names(core, open);
    if denied == Denied::NotAllowed && !there.is_empty() {
        // The same for a name that is not there and for one that is not for this peer.
        let text = format!("{NOT_OPEN}; choose a service: {there}");
        return Err((Refused::NotOpen, text));
    }
    Err(refused(denied))
}

/// What a peer may open at a node: [`Node::open_to`](super::Node::open_to).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Open {
    /// Of its services, in order.
    pub names: Vec<String>,
    /// Whether it may open names that are not listed ([`Node::serve_rest`](super::Node::serve_rest)).
    pub serves_rest: bool,
}

/// Whether the peer of a call may open what is offered to these.
pub(super) fn may(context: &CallContext, access: &Access) -> bool {
    let live = context.live();
    decide(&live.who, how(live), What::Offered(access)).is_ok()
}

/// Which services the peer of a call may open.
pub(super) fn open_to(core: &Core, context: &CallContext) -> Open {
    let may = |access: &Access| may(context, access);
    let offered = core.offered().into_iter();
    let open = offered.filter(|(name, access)| !reserved::is_reserved(name) && may(access));
    Open {
        names: open.map(|(name, _)| name).collect(),
        serves_rest: core.rest().is_some_and(|rest| may(&rest.access)),
    }
}

/// Whether who may is listed, one by one.
fn names_peers(access: &Access) -> bool {
    matches!(access, Access::Peers(_))
}

/// The services that are open, for a person.
fn names(core: &Core, open: impl Fn(&(String, Access)) -> bool) -> String {
    let all: Vec<String> = core
        .offered()
        .into_iter()
        .filter(open)
        .map(|(name, _)| name)
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One peer may have thousands that say nothing, and each has such a task.
    #[test]
    fn the_task_of_a_substream_is_small() {
        fn size<A, B, C, D, E, F, R>(_: impl FnOnce(A, B, C, D, E, F) -> R) -> usize {
            size_of::<R>()
        }
        let task = size(served);
        assert!(task <= 1024, "{task}");
        // What is handed to a handler, which has a place for it in several of its futures.
        assert!(size_of::<Call>() <= 96, "{}", size_of::<Call>());
    }
}
