//! The life of a session: it is made of a stream that came, from a listener or a relay, or is handed over by
//! who dialled; it is entered in the table, serves what the peer opens, and ends.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::{Layer, Remote, Stream};
use futures::future::BoxFuture;
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
        Err(why) => {
            let source = Source::from(&Remote::Circuit {
                relay: *relay.as_bytes(),
            });
            core.tell(Event::TurnedAway(source, format!("relay {relay}"), why));
        }
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
    let source = Source::from(stream.remote());
    let turned = |why: String| core.tell(Event::TurnedAway(source, label.clone(), why));
    let pass = match core.gate.enter(source) {
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
                Ok(incoming) => {
                    tokio::spawn(serve(core, incoming, session.clone(), path.clone()));
                }
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

/// Whether a service's name is one of the protocol's own, which no service can have. What `cepa console` puts before
/// a name asks for a service of that name, with a terminal.
fn is_reserved(name: &str) -> bool {
    name.starts_with("cepa.") && !name.starts_with("cepa.console.")
}

/// Gives a substream to whom it is for; the future serves it to its end.
pub(super) fn serve(
    core: &Arc<Core>,
    incoming: Incoming,
    session: Session,
    path: Path,
) -> BoxFuture<'static, ()> {
    let peer = session.peer().id();
    let name = incoming.service().to_owned();
    // From now on, and not only once the future runs.
    let busy = core.busy();
    if is_circuit(&name) && core.takes_circuits_of(peer) {
        let via = std::iter::once(peer)
            .chain(path.via.iter().copied())
            .collect();
        let core = Arc::clone(core);
        return Box::pin(async move {
            circuit(&core, incoming, via).await;
            drop(busy);
        });
    }
    if let Some(relay) = core.relay.clone().filter(|_| Relay::serves(&name)) {
        // Circuits of others keep nobody from shutting down.
        drop(busy);
        return Box::pin(async move { relay.serve(incoming, &session).await });
    }
    if name == INTRODUCTION {
        let core = Arc::clone(core);
        return Box::pin(async move {
            owner::serve(&core, incoming, session, path).await;
            drop(busy);
        });
    }
    if name == CARRY {
        let core = Arc::clone(core);
        // As with circuits.
        drop(busy);
        return Box::pin(async move { sealed::carry(&core, incoming).await });
    }
    if name == DELIVER {
        let core = Arc::clone(core);
        return Box::pin(async move {
            sealed::deliver(&core, incoming).await;
            drop(busy);
        });
    }
    let found = if is_reserved(&name) {
        Err("no service of this name is open to you")
    } else {
        core.find(peer, &name)
    };
    let call = Call::new(incoming, session, path);
    match found {
        Ok(service) => {
            let handled = (service.handler)(call);
            Box::pin(async move {
                handled.await;
                drop(busy);
            })
        }
        Err(reason) => {
            core.tell(Event::Refused(peer, name, reason.to_owned()));
            Box::pin(async move {
                let _ = call.refuse(reason).await;
            })
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

#[cfg(test)]
mod tests {
    //! Streams that come from afar, as far as the gate knows. Only such sources are told apart by the gate; what comes over
    //! loopback does not count as one (`gate::Source::is_far`).

    use tokio::io::{AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::gate;
    use crate::identity::{AcceptAny, Identity, KeyKind, Pinned};
    use crate::node::{Node, NodeConfig};

    const FAR: &str = "192.0.2.7:4711";
    const HOUR: Duration = Duration::from_secs(3600);

    /// Tolerates three failures. In hours, so that it makes no difference how long the test takes.
    fn strict() -> Node {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let mut config = NodeConfig::new(identity, Arc::new(AcceptAny));
        config.gate = gate::Config {
            penalty_refused: HOUR,
            penalty_timed_out: 4 * HOUR,
            tolerated: 3 * HOUR,
            most: 100 * HOUR,
            ..gate::Config::default()
        };
        Node::new(config)
    }

    /// Comes from there, and does something; gives why it was turned away, or nothing where it was let in.
    async fn knock<F: Future>(
        node: &Node,
        from: &str,
        does: impl FnOnce(DuplexStream) -> F,
    ) -> Option<String> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut events = node.events();
        let remote = from.parse().map_or(Remote::Memory, Remote::Tcp);
        let stream = Stream::from_io(near, from).with_remote(remote);
        let config = &node.core.config.stack;
        let (session, _kept) = tokio::join!(
            come(&node.core, stream, DEFAULT_LAYERS, Vec::new(), config),
            does(far)
        );
        if session.is_some() {
            return None;
        }
        loop {
            if let Event::TurnedAway(_, who, why) = events.next().await.unwrap() {
                assert_eq!(who, from);
                return Some(why);
            }
        }
    }

    async fn nonsense(mut far: DuplexStream) {
        let _ = far.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    }

    /// As whoever dials the node does.
    async fn friend(node: &Node, far: DuplexStream) -> Session {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let config = StackConfig::new(identity, Arc::new(Pinned::one(node.id())));
        let stream = Stream::from_io(far, "test");
        let session = Session::over(stream, DEFAULT_LAYERS, Side::Client, &config).await;
        session.unwrap()
    }

    #[tokio::test]
    async fn who_fails_again_and_again_is_shut_out() {
        let node = strict();
        for _ in 0..4 {
            let why = knock(&node, FAR, nonsense).await.unwrap();
            assert!(!why.contains("failures"), "{why}");
        }
        let why = knock(&node, FAR, |far| friend_or_not(&node, far)).await;
        let why = why.expect("it was let in");
        assert!(
            why.starts_with("too many failures from there, shut out for "),
            "{why}"
        );
        // It is that source alone.
        let other = "192.0.2.8:4711";
        assert_eq!(knock(&node, other, |far| friend(&node, far)).await, None);
        assert_eq!(knock(&node, "memory", |far| friend(&node, far)).await, None);
    }

    /// The other end of a stream that is turned away before anything is read of it.
    async fn friend_or_not(node: &Node, far: DuplexStream) {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let config = StackConfig::new(identity, Arc::new(Pinned::one(node.id())));
        let stream = Stream::from_io(far, "test");
        let session = Session::over(stream, DEFAULT_LAYERS, Side::Client, &config).await;
        assert!(session.is_err());
    }

    #[tokio::test]
    async fn who_gets_in_is_forgiven() {
        let node = strict();
        // Six failures would be too many without what lies between them.
        for _ in 0..2 {
            for _ in 0..3 {
                assert!(knock(&node, FAR, nonsense).await.is_some());
            }
            assert_eq!(knock(&node, FAR, |far| friend(&node, far)).await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_silent_counts_as_worse() {
        let node = strict();
        let why = knock(&node, FAR, async |far| far).await.unwrap();
        assert!(why.contains("in time"), "{why}");
        let why = knock(&node, FAR, async |far| far).await.unwrap();
        assert!(why.starts_with("too many failures"), "{why}");
    }
}
