//! Who gets what, and through which addresses: the holes that were shown at nodes before one function decided.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind, Pinned, RotationTimes, UnixTime};
use cepa::node::{
    Access, Admission, Admitted, AttemptError, Call, DialError, Event, Hint, Limits, Node,
    NodeConfig, PeerAddr, Protocol, ReachError, Refused, ResolveError, Resolver, Resource,
};
use cepa::protocols::relay::RegisterError;
use cepa::session::{OpenError, Session};
use cepa::stack::StackConfig;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    MeshNode, address, ask, by_hand, closed_port, config, eventually, is_registered, listening,
    node, offer_echo, relay, soon, through, until,
};

/// What the table of who may open what says of a relay's protocols, each row of it.
#[tokio::test]
async fn a_relay_serves_by_the_table() {
    let table = include_str!("../../src/node/access_table.txt");
    let (rows, protocols) = table.split_once("\nprotocol ").unwrap();
    // The others are the tool's: `cli/tests/access.rs`.
    let protocols = protocols.lines().skip(1);
    let protocols: Vec<_> = protocols
        .filter(|line| line.ends_with("  whom the relay serves"))
        .collect();
    assert_eq!(protocols.len(), 5);
    let (listed, other) = (node(), node());
    let offers = [
        ("nobody", Access::Nobody),
        ("these peers", Access::peers([listed.id()])),
        ("anyone", Access::Anyone),
    ];
    for (offered_to, access) in offers {
        let relay = relay(|config| config.access = access);
        let (_, at) = listening(&relay).await;
        for (who, node) in [("one of these", &listed), ("another", &other)] {
            let row = format!("{offered_to:12} {who:28} {:16} ", "came in");
            let verdict = rows.lines().find_map(|line| line.strip_prefix(&row));
            let session = soon(node.session(&at)).await.unwrap();
            for line in &protocols {
                let (name, served) = line.split_once(' ').unwrap();
                assert_eq!(served.trim(), "whom the relay serves");
                let found = match soon(session.open(name)).await {
                    Ok(_) => "allowed",
                    Err(OpenError::Refused { .. }) => "-",
                    Err(error) => panic!("{name}: {error}"),
                };
                assert_eq!(Some(found), verdict, "{name}, {row}");
            }
        }
    }
}

/// Hole 1: the node pins the relay's key and dials it; that gives the relay nothing.
#[tokio::test]
async fn a_relay_opens_no_service_of_a_node_that_registers_with_it() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let hidden = node();
    offer_echo(&hidden);
    hidden.serve_sealed("up", Access::Anyone, async |_| Ok(vec![1]));
    hidden.carry(Some(cepa::protocols::sealed::CarrierConfig::new(
        Access::Anyone,
    )));
    let mut events = hidden.events();
    hidden.register(&at).await.unwrap();
    let session = relay.session_with(hidden.id()).unwrap();
    for name in [
        "echo",
        "",
        "cepa.relay.register",
        "cepa.sealed.carry",
        "none",
    ] {
        let opened = soon(session.open(name)).await;
        assert!(
            matches!(
                opened,
                Err(OpenError::DialInstead { .. } | OpenError::Refused { .. })
            ),
            "{name}: {opened:?}"
        );
        let logged = until(&mut events, |event| match event {
            Event::Refused { peer, service, .. } if *peer == relay.id() => Some(service.clone()),
            _ => None,
        });
        assert_eq!(logged.await, name);
    }
    // The services are there for those who come in, through that relay too.
    let to = through(hidden.id(), &at, "echo");
    soon(ask(node().open(&to).await.unwrap(), b"x"))
        .await
        .unwrap();
    // And for the relay itself, once it is named.
    assert!(hidden.allow("echo", Access::peers([relay.id()])));
    soon(ask(session.open("echo").await.unwrap(), b"x"))
        .await
        .unwrap();
}

/// Hole 1, in general; and a peer that is sent away so may dial by itself, which a node does.
#[tokio::test]
async fn whom_a_node_has_dialled_gets_what_it_was_given_by_name_and_nothing_else() {
    let (owner, other) = (node(), node());
    offer_echo(&owner);
    owner.serve("named", Access::peers([other.id()]), crate::support::echo);
    let ((_, at_owner), (_, at_other)) = (listening(&owner).await, listening(&other).await);
    let dialled = owner.session(&at_other).await.unwrap();
    assert_eq!(dialled.peer().id(), other.id());
    eventually(|| other.session_with(owner.id()).is_some()).await;
    let came_in = other.session_with(owner.id()).unwrap();
    let mut events = owner.events();
    let refused = soon(came_in.open("echo")).await;
    assert!(
        matches!(refused, Err(OpenError::DialInstead { .. })),
        "{refused:?}"
    );
    let reason = until(&mut events, |event| match event {
        Event::Refused { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.await, Refused::Dialled);
    soon(ask(came_in.open("named").await.unwrap(), b"x"))
        .await
        .unwrap();
    // By its address it is the node that sees to it.
    let to = at_owner.with_service("echo").unwrap();
    soon(ask(other.open(&to).await.unwrap(), b"x"))
        .await
        .unwrap();
    // Without a way there it is told what to do.
    let lost = node();
    let (_, at_lost) = listening(&lost).await;
    owner.session(&at_lost).await.unwrap();
    eventually(|| lost.session_with(owner.id()).is_some()).await;
    let nowhere = address(&format!("cepa://{}/echo", owner.id()));
    let error = soon(lost.open(&nowhere)).await.map(drop).unwrap_err();
    assert!(
        matches!(
            error,
            ReachError::Open {
                error: OpenError::DialInstead { .. },
                ..
            }
        ),
        "{error}"
    );
}

/// A node whose trust knows the peer by name has allowed it to come in, so it may on whichever session.
#[tokio::test]
async fn a_peer_that_the_trust_policy_names_counts_as_one_that_came_in() {
    let other = node();
    let (_, at_other) = listening(&other).await;
    for (named, allowed) in [(true, true), (false, false)] {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let trust: Arc<dyn cepa::identity::TrustPolicy> = if named {
            Arc::new(Pinned::one(other.id()))
        } else {
            Arc::new(AcceptAny)
        };
        let owner = MeshNode::new(NodeConfig::new(identity, trust));
        offer_echo(&owner);
        owner.session(&at_other).await.unwrap();
        eventually(|| other.session_with(owner.id()).is_some()).await;
        let session = other.session_with(owner.id()).unwrap();
        let opened = soon(session.open("echo")).await;
        assert_eq!(opened.is_ok(), allowed, "{opened:?}");
    }
}

/// Finds a peer at an address that runs a command.
#[derive(Debug)]
struct Trap(Hint);

impl Resolver for Trap {
    fn resolve(&self, _: cepa::identity::PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>> {
        let hint = self.0.clone();
        Box::pin(async move { Ok(vec![hint]) })
    }
}

/// Hole 3: an address is data, wherever it comes from, and runs no command and opens no device.
#[tokio::test]
async fn an_address_runs_no_command() {
    let place = tempfile::tempdir().unwrap();
    let mark = place.path().join("ran");
    let runs = format!("exec:touch {}", mark.display()).replace(' ', "%20");
    let (client, other) = (node(), node());
    let (peer, relay_id) = (other.id(), node().id());
    let relayed = format!("relay:{relay_id}@{runs}").replace('/', "%2F");
    let direct = runs.replace('/', "%2F");
    for hint in [direct.as_str(), relayed.as_str()] {
        let to = address(&format!("cepa://{peer}@{hint}/up"));
        let error = client.open(&to).await.unwrap_err();
        assert!(
            matches!(error, ReachError::Dial(DialError::LocalHint { .. })),
            "{error}"
        );
        let line = error.to_string();
        assert!(
            line.contains("exec:") && line.contains("not a network address"),
            "{line}"
        );
        let relay = address(&format!("cepa://{peer}@{hint}"));
        let error = soon(client.register(&relay)).await.unwrap_err();
        assert!(matches!(error, RegisterError::Dial(_)) && !error.is_retryable());
        let error = client.sealing_key(&relay, relay_id).await.unwrap_err();
        assert!(error.to_string().contains("exec:"), "{error}");
        // Beside one that is followed it is passed over, and named.
        let both = address(&format!("cepa://{peer}@tcp:127.0.0.1:1;{hint}/up"));
        let Err(ReachError::Dial(DialError::Failed { attempts, .. })) = client.open(&both).await
        else {
            panic!("it is not there");
        };
        let passed_over =
            |(_, error): &(Hint, AttemptError)| matches!(error, AttemptError::NotFollowed);
        assert!(attempts.iter().any(passed_over), "{attempts:?}");
    }
    // What a resolver answers is somebody's word too.
    let mut resolving = config();
    let command = format!("exec:touch {}", mark.display());
    resolving.resolver = Some(Arc::new(Trap(Hint::Direct(command.parse().unwrap()))));
    let resolving = Node::new(resolving);
    let error = resolving.session(&PeerAddr::new(peer)).await.unwrap_err();
    assert!(matches!(error, DialError::LocalHint { .. }), "{error}");
    assert!(!mark.exists(), "it ran");
    // Whoever wants that says so.
    let mut bold = config();
    bold.local_hints = true;
    let bold = Node::new(bold);
    let to = address(&format!("cepa://{peer}@{direct}/up"));
    assert!(bold.open(&to).await.is_err());
    eventually(|| mark.exists()).await;
}

/// Hole 10: there may be several behind one address, and the address of a peer says which is meant.
#[tokio::test]
async fn each_identity_behind_one_listener_is_reached_by_its_address() {
    let second = Identity::generate(KeyKind::P256).unwrap();
    let mut two = config();
    two.stack.more_identities = vec![second.clone()];
    let server = MeshNode::new(two);
    offer_echo(&server);
    let (at, _) = listening(&server).await;
    let client = node();
    for id in [second.peer_id(), server.id()] {
        let to = address(&format!("cepa://{id}@{at}/echo"));
        soon(ask(client.open(&to).await.unwrap(), b"x"))
            .await
            .unwrap();
    }
}

fn rotated(old: &Identity) -> Identity {
    let hour = Duration::from_secs(3600);
    let now = Duration::from_secs(UnixTime::now().as_secs());
    let at = UnixTime::since_unix_epoch;
    let times = RotationTimes {
        issued: at(now.saturating_sub(hour)),
        expires: at(now + hour),
        overlap: at(now + hour),
    };
    old.rotate(KeyKind::Ed25519, times).unwrap()
}

/// Hole 7: lists of ids and the table of sessions follow a peer to its new key.
#[tokio::test]
async fn a_peer_with_a_new_key_is_still_the_one_that_was_named() {
    let old = Identity::generate(KeyKind::Ed25519).unwrap();
    let new = rotated(&old);
    let server = node();
    server.serve("mine", Access::peers([old.peer_id()]), crate::support::echo);
    let (_, at) = listening(&server).await;
    let friend = MeshNode::new(NodeConfig::new(new, Arc::new(AcceptAny)));
    let to = at.clone().with_service("mine").unwrap();
    soon(ask(friend.open(&to).await.unwrap(), b"x"))
        .await
        .unwrap();
    assert!(server.session_with(old.peer_id()).is_some());
    // Without a statement it is somebody else.
    assert!(node().open(&to).await.is_err());
}

/// Hole 16: a relay that is down at the start is waited for.
#[tokio::test]
async fn a_relay_that_is_away_at_the_start_is_registered_at_later() {
    let keys = config();
    let port = {
        let first = MeshNode::new(keys.clone());
        let (real, _) = listening(&first).await;
        first.shutdown(Duration::ZERO).await;
        real
    };
    let hidden = node();
    offer_echo(&hidden);
    let mut events = hidden.events();
    let at = address(&format!("cepa://{}@{port}", keys.stack.identity.peer_id()));
    let error = soon(hidden.register(&at)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let relay = MeshNode::with_relay(
        keys,
        cepa::protocols::relay::RelayConfig::new(Access::Anyone),
    );
    relay.listen(&port).await.unwrap();
    until(&mut events, |event| is_registered(event).then_some(())).await;
    let to = through(hidden.id(), &at, "echo");
    soon(ask(node().open(&to).await.unwrap(), b"x"))
        .await
        .unwrap();
}

/// What listens is gone when a shutdown returns, and a node whose last handle is dropped frees its port.
#[tokio::test]
async fn an_address_is_free_when_its_node_is_gone() {
    let keys = config();
    let first = Node::new(keys.clone());
    let at = format!("tcp:127.0.0.1:{}", closed_port()).parse().unwrap();
    let at = first.listen(&at).await;
    let at = at.unwrap();
    first.shutdown(Duration::from_secs(1)).await;
    assert!(first.listen(&at).await.is_err(), "it is shut down");
    for _ in 0..30 {
        let next = Node::new(keys.clone());
        next.listen(&at).await.unwrap();
        let there = address(&format!("cepa://{}@{at}", next.id()));
        let (_session, _) = soon(by_hand(&there)).await;
        soon(next.shutdown(Duration::from_secs(1))).await;
    }
    let dropped = Node::new(keys.clone());
    dropped.listen(&at).await.unwrap();
    drop(dropped);
    soon(async {
        while Node::new(keys.clone()).listen(&at).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A panic in a handler, before its first await or after, is the end of that substream alone.
#[tokio::test]
async fn a_handler_that_panics_hurts_nobody_else() {
    let server = node();
    offer_echo(&server);
    server.serve("early", Access::Anyone, |call| {
        assert!(
            call.service().is_empty(),
            "a panic before any future is made"
        );
        async {}
    });
    server.serve("late", Access::Anyone, async |call| {
        let stream = call.accept().await;
        assert!(stream.is_err(), "a panic at work");
    });
    let mut events = server.events();
    let (_, at) = listening(&server).await;
    let client = node();
    let to = |name: &str| at.clone().with_service(name).unwrap();
    for name in ["early", "late", "early"] {
        let opened = soon(client.open(&to(name))).await;
        if let Ok(mut stream) = opened {
            use tokio::io::AsyncReadExt as _;
            assert!(soon(stream.read_to_end(&mut Vec::new())).await.is_err());
        }
        let panicked = until(&mut events, |event| match event {
            Event::HandlerPanicked { service, .. } => Some(service.clone()),
            _ => None,
        });
        assert_eq!(panicked.await, name);
        soon(ask(client.open(&to("echo")).await.unwrap(), b"x"))
            .await
            .unwrap();
    }
    assert_eq!(server.sessions().len(), 1, "it is the same session");
    server.shutdown(Duration::from_secs(60)).await;
}

/// A session with a node, as whoever has this identity.
async fn session_of(identity: &Identity, at: &PeerAddr) -> Result<Session, String> {
    let config = StackConfig::new(identity.clone(), Arc::new(AcceptAny));
    let Hint::Direct(endpoint) = &at.hints()[0] else {
        panic!("{at}")
    };
    let session = Session::dial(endpoint, &config).await;
    session.map_err(|e| e.to_string())
}

/// Hole 13: however many sessions one key makes, none that is in use is taken for dead.
#[tokio::test]
async fn many_sessions_of_one_key_close_no_healthy_one() {
    let server = node();
    offer_echo(&server);
    let (_, at) = listening(&server).await;
    let key = Identity::generate(KeyKind::Ed25519).unwrap();
    let mut held = Vec::new();
    for _ in 0..16 {
        let session = session_of(&key, &at).await.unwrap();
        let stream = session.open("echo").await.unwrap();
        held.push((session, stream));
    }
    // The time after which one that does not answer counts as dead.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for (session, stream) in held {
        soon(ask(stream, b"still here")).await.unwrap();
        drop(session);
    }
}

/// Hole 2: one peer has its share of the sessions, learns which limit it was, and others have theirs.
#[tokio::test]
async fn one_peer_has_its_share_of_the_sessions() {
    let server = node();
    offer_echo(&server);
    let mut events = server.events();
    let (_, at) = listening(&server).await;
    let greedy = Identity::generate(KeyKind::Ed25519).unwrap();
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..40 {
        match soon(session_of(&greedy, &at)).await {
            Ok(session) => held.push(session),
            Err(error) => refused = Some(error),
        }
    }
    assert_eq!(held.len(), 16);
    let reason = until(&mut events, |event| match event {
        Event::TurnedAway { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let reason = reason.await;
    assert!(reason.contains("of one peer (at most 16)"), "{reason}");
    let refused = refused.unwrap();
    assert!(
        refused.contains("limit") || refused.contains("sessions"),
        "{refused}"
    );
    // Others are not kept out by that, and it is not by what it has given back.
    let honest = Identity::generate(KeyKind::Ed25519).unwrap();
    let session = soon(session_of(&honest, &at)).await.unwrap();
    soon(ask(session.open("echo").await.unwrap(), b"x"))
        .await
        .unwrap();
    for session in held {
        session.close().await;
    }
    eventually(|| server.held(Resource::Sessions, Some(greedy.peer_id())) == 0).await;
    soon(session_of(&greedy, &at)).await.unwrap();
}

/// What serves a substream costs memory, whether anything moves or not: there is a limit for all sessions of a peer together, which
/// is named at both ends, and others have theirs.
#[tokio::test]
async fn one_peer_has_its_share_of_the_substreams() {
    let mut config = config();
    config.shares.substreams = Limits {
        all: 40,
        peer: 4,
        host: 40,
    };
    let server = MeshNode::new(config);
    offer_echo(&server);
    let mut events = server.events();
    let (_, at) = listening(&server).await;
    let greedy = Identity::generate(KeyKind::Ed25519).unwrap();
    let sessions = [
        session_of(&greedy, &at).await.unwrap(),
        session_of(&greedy, &at).await.unwrap(),
    ];
    let before = server.receive_memory();
    let mut held = Vec::new();
    for n in 0..4 {
        held.push(sessions[n % 2].open("echo").await.unwrap());
    }
    let used = server.receive_memory() - before;
    assert_eq!(used, 4 * 4 * 1024, "they are counted");
    let refused = sessions[0].open("echo").await.unwrap_err().to_string();
    let limit = "too many substreams of one peer (at most 4)";
    assert!(refused.contains(limit), "{refused}");
    let logged = until(&mut events, |event| match event {
        Event::Refused { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let logged = logged.await;
    assert!(logged.contains(limit), "{logged}");
    let honest = Identity::generate(KeyKind::Ed25519).unwrap();
    let session = soon(session_of(&honest, &at)).await.unwrap();
    soon(ask(session.open("echo").await.unwrap(), b"x"))
        .await
        .unwrap();
    drop(held);
    eventually(|| server.held(Resource::Substreams, Some(greedy.peer_id())) == 0).await;
    soon(ask(sessions[0].open("echo").await.unwrap(), b"x"))
        .await
        .unwrap();
}

/// A protocol with one service, which is another one as soon as somebody was let in.
struct Fickle(std::sync::Mutex<&'static str>);

impl Protocol for Fickle {
    fn names(&self) -> &[&'static str] {
        &["cepa.test"]
    }

    fn admission(&self, _name: &str) -> Admission {
        let now = std::mem::replace(&mut *self.0.lock().unwrap(), "not for everybody");
        Admission::With(Access::Anyone, Admitted::to(now))
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let target = *call.admitted::<&'static str>().unwrap();
            let mut stream = call.accept().await.unwrap();
            stream.write_all(target.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        })
    }
}

/// What is served is what the decision was about.
#[tokio::test]
async fn a_service_that_changes_behind_the_decision_is_not_the_one_that_is_served() {
    let server = node();
    let fickle = Fickle(std::sync::Mutex::new("for everybody"));
    server.add_protocol(Arc::new(fickle)).unwrap();
    let (_, at) = listening(&server).await;
    let key = Identity::generate(KeyKind::Ed25519).unwrap();
    let session = session_of(&key, &at).await.unwrap();
    let mut stream = soon(session.open("cepa.test")).await.unwrap();
    let mut said = String::new();
    soon(stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "for everybody");
}
