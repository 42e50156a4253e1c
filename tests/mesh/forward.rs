//! Services of other peers, offered as one's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cepa::identity::{AcceptAny, Pinned};
use cepa::node::{Access, Event, PeerAddr, ReachError};

use cepa::protocols::membrane::Membrane;
use cepa::session::OpenError;
use cepa::tls::TlsConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::support::{
    MeshNode, ask, config, eventually, listening, node, offer_echo, relay, reset_code, soon,
    through, until, with_new_key,
};

/// A forwarder to a service of `owner`; its address.
async fn forwarder(owner: &MeshNode, service: &str) -> (MeshNode, PeerAddr) {
    let (_, at) = listening(owner).await;
    let forwarder = node();
    let to = at.with_service(service).unwrap();
    forwarder.forward("here", Access::Anyone, to);
    let (_, at) = listening(&forwarder).await;
    (forwarder, at.with_service("here").unwrap())
}

#[tokio::test]
async fn a_service_of_another_peer_is_offered_and_its_owner_sees_the_forwarder() {
    let owner = node();
    owner.serve("who", Access::Anyone, async |call| {
        let peer = call.peer().id();
        let mut stream = call.accept().await.unwrap();
        // Only at the end of what comes: half close has to be passed on.
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(peer.as_bytes()).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let (forwarder, at) = forwarder(&owner, "who").await;
    let client = node();
    let mut stream = client.open(&at).await.unwrap();
    let body = vec![7; 300_000];
    stream.write_all(&body).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer[..32], *forwarder.id().as_bytes());
    assert!(answer[32..] == body);
}

#[tokio::test]
async fn resets_are_passed_on_with_their_codes() {
    let owner = node();
    let heard = Arc::new(AtomicUsize::new(0));
    let reported = Arc::clone(&heard);
    owner.serve("resets", Access::Anyone, move |call| {
        let reported = Arc::clone(&reported);
        async move {
            let mut stream = call.accept().await.unwrap();
            match stream.read_u8().await {
                Ok(_) => stream.wire_mut().reset(1234),
                Err(error) => reported.store(reset_code(&error) as usize, Ordering::Relaxed),
            }
        }
    });
    let (_forwarder, at) = forwarder(&owner, "resets").await;
    let client = node();
    let mut stream = client.open(&at).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert_eq!(reset_code(&error), 1234);
    let mut stream = client.open(&at).await.unwrap();
    stream.wire_mut().reset(4321);
    eventually(|| heard.load(Ordering::Relaxed) == 4321).await;
}

#[tokio::test]
async fn who_does_not_read_holds_the_other_end_back() {
    const ALL: usize = 96 << 20;
    let owner = node();
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    owner.serve("slow", Access::Anyone, move |call| {
        let wait = Arc::clone(&wait);
        async move {
            let mut stream = call.accept().await.unwrap();
            wait.notified().await;
            let read = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            stream.write_u64(read.unwrap()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let (_forwarder, at) = forwarder(&owner, "slow").await;
    let client = node();
    let mut stream = client.open(&at).await.unwrap();
    stream
        .wire_mut()
        .set_timeouts(cepa::mux::StreamTimeouts::NONE);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        let chunk = vec![7; 64 * 1024];
        while count.load(Ordering::Relaxed) < ALL {
            stream.write_all(&chunk).await.unwrap();
            count.fetch_add(chunk.len(), Ordering::Relaxed);
        }
        stream.shutdown().await.unwrap();
        stream.read_u64().await.unwrap()
    });
    // No more goes in than the windows of two substreams take.
    soon(async {
        let mut before = 0;
        while before == 0 || sent.load(Ordering::Relaxed) != before {
            before = sent.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!(sent.load(Ordering::Relaxed) < ALL / 2);
    go.notify_one();
    assert_eq!(soon(sending).await.unwrap(), ALL as u64);
}

#[tokio::test]
async fn what_is_not_forwarded_says_why() {
    let owner = node();
    offer_echo(&owner);
    let (forwarder, at) = forwarder(&owner, "no such thing").await;
    let client = node();
    let refusal = async |client: &MeshNode, at: &PeerAddr| match soon(client.open(at)).await {
        Err(ReachError::Open { error, .. }) => match error {
            OpenError::Refused { reason, .. } => reason,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    };
    let mut events = forwarder.events();
    let said = refusal(&client, &at).await;
    assert!(
        said.contains("behind a forwarder: no service of this name"),
        "{said}"
    );
    // Nothing of where it is goes to the peer; the operator is told.
    let nowhere = format!("cepa://{}@tcp:127.0.0.1:1/echo", node().id());
    forwarder.forward("nowhere", Access::Anyone, nowhere.parse().unwrap());
    let said = refusal(&client, &at.clone().with_service("nowhere").unwrap()).await;
    assert!(
        said.contains("not reached") && !said.contains("127.0.0.1"),
        "{said}"
    );
    let reported = until(&mut events, |event| match event {
        Event::Refused {
            service, reason, ..
        } if service == "nowhere" => Some(reason.to_string()),
        _ => None,
    });
    assert!(reported.await.contains("127.0.0.1:1"));
    // TLS that would end here is not taken for TLS with the owner.
    let identity = cepa::identity::Identity::generate(cepa::identity::KeyKind::Ed25519).unwrap();
    let inner = TlsConfig::new(&identity, Arc::new(AcceptAny)).unwrap();
    let session = client.session(&at).await.unwrap();
    let secured = session.open_secured("here", &inner).await;
    assert!(matches!(secured, Err(OpenError::NoInnerTls { .. })));
    // Who may open it is the forwarder's own question.
    assert!(forwarder.allow("nowhere", Access::Nobody));
    let said = refusal(&client, &at.clone().with_service("nowhere").unwrap()).await;
    assert!(
        said.contains("no service of this name is open to you"),
        "{said}"
    );
}

async fn reason(client: &MeshNode, at: &PeerAddr) -> String {
    match soon(client.open(at)).await {
        Err(ReachError::Open {
            error: OpenError::Refused { reason, .. },
            ..
        }) => reason,
        other => panic!("{other:?}"),
    }
}

/// To try later would not help.
#[tokio::test]
async fn where_the_forwarder_itself_is_not_let_in_its_peer_reads_that() {
    let client = node();
    // The peer behind it does not know it.
    let mut strict = config();
    strict.stack.trust = Arc::new(Pinned::one(client.id()));
    let strict = MeshNode::new(strict);
    offer_echo(&strict);
    let (forwarder, at) = forwarder(&strict, "echo").await;
    // Nor does a relay on the way there.
    let relay = relay(|config| config.access = Access::peers([client.id()]));
    let (_, at_relay) = listening(&relay).await;
    forwarder.forward(
        "relayed",
        Access::Anyone,
        through(strict.id(), &at_relay, "echo"),
    );
    let membrane = Membrane::new(&forwarder.introductions, []);
    let behind = listening(&strict).await.1.with_service("echo").unwrap();
    membrane.offer("held", Access::Anyone, behind).unwrap();
    for name in ["here", "relayed", "held"] {
        let said = reason(&client, &at.clone().with_service(name).unwrap()).await;
        assert!(said.contains("does not let this one in"), "{name}: {said}");
        assert!(
            !said.contains("later") && !said.contains("127.0.0.1"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn one_peer_has_its_share_of_what_is_forwarded() {
    let owner = node();
    offer_echo(&owner);
    let (_, at) = listening(&owner).await;
    let to = at.with_service("echo").unwrap();
    let forwarder = MeshNode::with_places(config(), 8);
    forwarder.forward("here", Access::Anyone, to.clone());
    let membrane = Membrane::new(&forwarder.introductions, []);
    membrane.offer("held", Access::Anyone, to).unwrap();
    let (_, at) = listening(&forwarder).await;
    let keys = config();
    let (greedy, heir) = (
        MeshNode::new(keys.clone()),
        MeshNode::new(with_new_key(&keys)),
    );
    // A quarter: of those that were asked for, and of those that a membrane has, where a stranger leaves some for the next.
    for (name, share) in [("here", 2), ("held", 12)] {
        let at = at.clone().with_service(name).unwrap();
        let mut open = Vec::new();
        for _ in 0..share {
            open.push(soon(greedy.open(&at)).await.unwrap());
        }
        for of_it in [&greedy, &heir] {
            let said = reason(of_it, &at).await;
            assert!(said.contains("for one peer"), "{name}: {said}");
        }
        // Another one has its own.
        let other = soon(node().open(&at)).await.unwrap();
        drop((open, other));
        soon(async {
            while greedy.open(&at).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// Whatever strangers hold of one service, they hold of all that the node forwards.
#[tokio::test]
async fn strangers_leave_places_for_a_peer_that_is_named() {
    let owner = node();
    owner.serve("silent", Access::Anyone, async |call| {
        let mut stream = call.accept().await.unwrap();
        let _ = stream.read_u8().await;
    });
    offer_echo(&owner);
    let (_, at) = listening(&owner).await;
    let (forwarder, friend) = (node(), node());
    let to = |service| at.clone().with_service(service).unwrap();
    forwarder.forward("any", Access::Anyone, to("silent"));
    forwarder.forward("friends", Access::peers([friend.id()]), to("echo"));
    let (_, at) = listening(&forwarder).await;
    let here = |service| at.clone().with_service(service).unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        let stranger = node();
        while let Ok(stream) = soon(stranger.open(&here("any"))).await {
            held.push((stranger.clone(), stream));
        }
    }
    assert!(held.len() >= 32, "{}", held.len());
    let stream = soon(friend.open(&here("friends"))).await.unwrap();
    soon(ask(stream, b"x")).await.unwrap();
    // It is the same peer where it uses what is open to anyone.
    let _one = soon(friend.open(&here("any"))).await.unwrap();
    let stranger = node();
    soon(stranger.open(&here("any"))).await.unwrap_err();
}

/// Two that forward to each other come to an end, and are of use again afterwards.
#[tokio::test]
async fn a_ring_of_forwarders_ends() {
    let (one, other) = (MeshNode::with_places(config(), 8), node());
    let (_, at_one) = listening(&one).await;
    let (_, at_other) = listening(&other).await;
    one.forward(
        "ring",
        Access::Anyone,
        at_other.clone().with_service("ring").unwrap(),
    );
    other.forward(
        "ring",
        Access::Anyone,
        at_one.clone().with_service("ring").unwrap(),
    );
    let client = node();
    let error = soon(client.open(&at_one.clone().with_service("ring").unwrap())).await;
    let said = error.unwrap_err().to_string();
    let why = "refused behind a forwarder: too much is forwarded here at once";
    assert!(said.contains(why), "{said}");
    offer_echo(&other);
    one.forward(
        "echo",
        Access::Anyone,
        at_other.with_service("echo").unwrap(),
    );
    let stream = client
        .open(&at_one.with_service("echo").unwrap())
        .await
        .unwrap();
    soon(ask(stream, b"still here")).await.unwrap();
}
