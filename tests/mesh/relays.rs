//! Nodes that reach each other through a relay that does what it should.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{PeerId, Pinned};
use cepa::node::{Access, AttemptError, DialError, Event, ReachError};
use cepa::protocols::relay::RegisterError;
use cepa::protocols::relay::{Presence, RelayError, Status};
use cepa::transports::Remote;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    MeshNode, address, ask, by_hand, closed_port, config, eventually, is_registered,
    is_unregistered, listening, listening_apart, node, offer_echo, relay, soon, through, until,
};

/// A node without a listener, registered at a relay.
async fn hidden(at_relay: &cepa::node::PeerAddr) -> MeshNode {
    let hidden = node();
    offer_echo(&hidden);
    hidden.register(at_relay).await.unwrap();
    hidden
}

/// With which status the relay refused.
fn status(error: &ReachError) -> Status {
    let ReachError::Dial(DialError::Failed { attempts, .. }) = error else {
        panic!("{error}");
    };
    match &attempts[0].1 {
        AttemptError::Relay(error) => match error.downcast_ref() {
            Some(RelayError::Refused { status, .. }) => *status,
            other => panic!("{other:?}"),
        },
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_node_without_a_listener_is_reached_through_its_relay() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let (hidden, client) = (hidden(&at).await, node());
    let to = through(hidden.id(), &at, "echo");
    let path = soon(ask(client.open(&to).await.unwrap(), &vec![3; 300_000])).await;
    assert_eq!(path.unwrap(), format!("via relay {}", relay.id()));
    // The second is a substream of the same session.
    soon(ask(client.open(&to).await.unwrap(), b"again"))
        .await
        .unwrap();
    let stats = relay.relay_stats().unwrap();
    assert_eq!(
        (stats.registrations, stats.circuits, stats.carried),
        (1, 1, 1)
    );
    assert!(stats.bytes > 600_000, "{stats:?}");
    client.shutdown(Duration::ZERO).await;
    eventually(|| relay.relay_stats().unwrap().circuits == 0).await;
    hidden.shutdown(Duration::ZERO).await;
    eventually(|| relay.relay_stats().unwrap().registrations == 0).await;
}

/// As many as an address can have; none but the outermost has a listener.
#[tokio::test]
async fn relays_in_a_row() {
    let outer = relay(|_| {});
    let (_, mut way) = listening(&outer).await;
    let mut passed = vec![outer.id()];
    let client = node();
    let mut inners = Vec::new();
    loop {
        let hidden = hidden(&way).await;
        let to = through(hidden.id(), &way, "echo");
        let path = soon(ask(client.open(&to).await.unwrap(), &vec![1; 100_000])).await;
        let via: Vec<String> = passed.iter().map(ToString::to_string).collect();
        assert_eq!(path.unwrap(), format!("via relay {}", via.join(", ")));
        if passed.len() == cepa::node::MAX_RELAYS {
            break;
        }
        let inner = relay(|_| {});
        inner.register(&way).await.unwrap();
        let next = through(inner.id(), &way, "x").to_string();
        way = address(next.strip_suffix("/x").unwrap());
        passed.insert(0, inner.id());
        inners.push(inner);
    }
    assert_eq!(passed.len(), 3);
}

/// Two relays that are each reached through the other one, by two dials at once.
#[tokio::test]
async fn ways_that_cross_do_not_wait_for_each_other() {
    let (a, b) = (relay(|_| {}), relay(|_| {}));
    let ((_, at_a), (_, at_b)) = (listening(&a).await, listening(&b).await);
    a.register(&at_b).await.unwrap();
    b.register(&at_a).await.unwrap();
    let (behind_a, behind_b) = (hidden(&at_a).await, hidden(&at_b).await);
    let client = node();
    let way = |to: &MeshNode, last: &MeshNode, first: &cepa::node::PeerAddr| {
        let first = first.to_string().replace("cepa://", "relay:");
        address(&format!(
            "cepa://{}@relay:{}@{first}/echo",
            to.id(),
            last.id()
        ))
    };
    let (one, two) = (way(&behind_a, &a, &at_b), way(&behind_b, &b, &at_a));
    let both = async { tokio::join!(client.open(&one), client.open(&two)) };
    let (one, two) = soon(both).await;
    for stream in [one.unwrap(), two.unwrap()] {
        soon(ask(stream, b"hello")).await.unwrap();
    }
}

#[tokio::test]
async fn a_way_through_one_relay_twice_is_refused() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let hidden = hidden(&at).await;
    let (client, other) = (node(), node());
    let way = at.to_string().replace("cepa://", "relay:");
    let (to, again, other) = (hidden.id(), relay.id(), other.id());
    for text in [
        format!("cepa://{to}@relay:{again}@{way}/echo"),
        format!("cepa://{to}@relay:{again}@relay:{other}@{way}/echo"),
        // Through the peer itself, through this node, and through either further away.
        format!("cepa://{to}@relay:{to}@tcp:127.0.0.1:1/echo"),
        format!("cepa://{to}@relay:{other}@relay:{to}@tcp:127.0.0.1:1/echo"),
        format!("cepa://{to}@relay:{}@tcp:127.0.0.1:1/echo", client.id()),
        format!(
            "cepa://{to}@relay:{other}@relay:{}@tcp:127.0.0.1:1/echo",
            client.id()
        ),
    ] {
        let error = soon(client.open(&address(&text))).await.unwrap_err();
        let looped = matches!(error, ReachError::Dial(DialError::Loop { .. }));
        assert!(looped, "{text}: {error}");
        let said = error.to_string();
        assert!(said.contains("named twice; give another relay"), "{said}");
    }
    assert!(client.sessions().is_empty());
}

#[tokio::test]
async fn every_refusal_has_its_reason() {
    let relay = relay(|config| {
        config.circuits = 2;
        config.circuits_a_peer = 1;
        config.registrations = 3;
        config.registrations_a_peer = 1;
    });
    let (at_relay, at) = listening(&relay).await;
    let (one, two) = (hidden(&at).await, hidden(&at).await);
    let client = node();
    let refusal = async |client: &MeshNode, to: &cepa::node::PeerAddr| {
        let error = client.open(to).await.unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
        (status(&error), error.to_string())
    };

    let nobody = through(node().id(), &at, "echo");
    let (is, said) = refusal(&client, &nobody).await;
    assert_eq!(is, Status::NotRegistered);
    assert!(said.contains("not registered there"), "{said}");

    let open = client.open(&through(one.id(), &at, "echo")).await.unwrap();
    let (is, said) = refusal(&client, &through(two.id(), &at, "echo")).await;
    assert_eq!(is, Status::Quota);
    assert!(
        said.contains("allows this machine no more; close something first (at most 1 of one peer"),
        "{said}"
    );
    let other = node();
    let second = other.open(&through(two.id(), &at, "echo")).await.unwrap();
    let (is, said) = refusal(&node(), &through(two.id(), &at, "echo")).await;
    assert_eq!(is, Status::Full);
    assert!(said.contains("is full"), "{said}");
    drop((open, second));

    // Ways that lead nowhere are refused before anything is dialled, or by the relay.
    let own = through(client.id(), &at, "echo");
    let error = client.open(&own).await.unwrap_err();
    assert!(matches!(error, ReachError::Dial(DialError::Own { .. })));
    assert!(error.to_string().contains("is this node itself"), "{error}");
    let itself = address(&format!("cepa://{0}@relay:{0}@{at_relay}/echo", relay.id()));
    assert!(matches!(
        client.open(&itself).await,
        Err(ReachError::Dial(DialError::Loop { .. }))
    ));

    // One key has one registration here; the third of all is the last.
    let keys = config();
    let (third, twin) = (MeshNode::new(keys.clone()), MeshNode::new(keys));
    third.register(&at).await.unwrap();
    let said = twin.register(&at).await.unwrap_err().to_string();
    assert!(said.contains("at most 1 of one peer"), "{said}");
    let said = node().register(&at).await.unwrap_err().to_string();
    assert!(said.contains("is full"), "{said}");
    third.shutdown(Duration::ZERO).await;
    eventually(|| relay.relay_stats().unwrap().registrations == 2).await;
    twin.register(&at).await.unwrap();
    assert!(relay.relay_stats().unwrap().refused >= 4);
}

/// Beside the bound for all there is one for each key.
#[tokio::test]
async fn one_peer_has_no_more_registrations_than_its_share() {
    let relay = relay(|config| config.registrations_a_peer = 2);
    let (_, at) = listening(&relay).await;
    let keys = config();
    let [one, two, three] = [(); 3].map(|()| MeshNode::new(keys.clone()));
    one.register(&at).await.unwrap();
    two.register(&at).await.unwrap();
    let error = three.register(&at).await.unwrap_err();
    let RegisterError::Relay(RelayError::Refused { status, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*status, Status::Quota);
    assert!(
        error.to_string().contains("this machine no more"),
        "{error}"
    );
    // Others have theirs, and so has this one again when it has ended one.
    hidden(&at).await;
    one.shutdown(Duration::ZERO).await;
    eventually(|| relay.relay_stats().unwrap().registrations == 2).await;
    three.register(&at).await.unwrap();
}

/// The words of a registered node that takes no circuit come through to the dialler.
#[tokio::test]
async fn who_is_registered_may_refuse_and_say_why() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let (session, id) = by_hand(&at).await;
    let hour = Duration::from_secs(3600);
    let _registered = cepa::protocols::relay::Registration::at(&session, hour)
        .await
        .unwrap();
    let client = node();
    let to = through(id, &at, "echo");
    let refuses = async {
        let incoming = session.accept().await.unwrap();
        assert!(cepa::protocols::relay::is_circuit(incoming.service()));
        incoming.refuse("not on Sundays").await.unwrap();
    };
    let (opened, ()) = soon(async { tokio::join!(client.open(&to), refuses) }).await;
    let error = opened.unwrap_err();
    assert_eq!(status(&error), Status::Refused);
    let said = error.to_string();
    assert!(said.contains("the peer refused (not on Sundays)"), "{said}");
    assert_eq!(relay.relay_stats().unwrap().circuits, 0);
}

/// Whoever dials through a relay, and whoever it is brought to, know by which one.
#[tokio::test]
async fn a_circuit_leads_to_its_relay() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let ((near, near_id), (far, far_id)) = (by_hand(&at).await, by_hand(&at).await);
    let hour = Duration::from_secs(3600);
    let _registered = cepa::protocols::relay::Registration::at(&far, hour)
        .await
        .unwrap();
    let taken = async { cepa::protocols::relay::take(far.accept().await.unwrap()).await };
    let both = Box::pin(async { tokio::join!(cepa::protocols::relay::dial(&near, far_id), taken) });
    let (dialled, taken) = soon(both).await;
    let remote = |says: PeerId| Remote::Circuit {
        relay: *relay.id().as_bytes(),
        says: *says.as_bytes(),
    };
    assert_eq!(dialled.unwrap().remote(), &remote(far_id));
    assert_eq!(taken.unwrap().0.remote(), &remote(near_id));
}

#[tokio::test]
async fn strangers_are_not_served() {
    let friend = node();
    let id = friend.id();
    let relay = relay(move |config| config.access = Access::peers([id]));
    let (_, at) = listening(&relay).await;
    friend.register(&at).await.unwrap();
    let stranger = node();
    let said = stranger.register(&at).await.unwrap_err().to_string();
    assert!(said.contains("does not serve you"), "{said}");
    let error = stranger.open(&through(id, &at, "echo")).await.unwrap_err();
    assert!(error.to_string().contains("does not serve you"), "{error}");
}

#[tokio::test]
async fn who_is_no_relay_says_so() {
    let (server, client) = (node(), node());
    let (_, at) = listening(&server).await;
    let said = client.register(&at).await.unwrap_err().to_string();
    assert!(said.contains("does not relay for this machine"), "{said}");
}

/// Whoever is turned away again and again is shut out, and not all who come by the same relay.
#[tokio::test]
async fn who_fails_by_a_relay_shuts_nobody_else_out() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let friends: Vec<_> = (0..8).map(|_| node()).collect();
    let mut strict = config();
    let pinned = Pinned::new(friends.iter().map(|friend| friend.id()).chain([relay.id()]));
    strict.stack.trust = Arc::new(pinned);
    let strict = MeshNode::new(strict);
    offer_echo(&strict);
    strict.register(&at).await.unwrap();
    let to = through(strict.id(), &at, "echo");
    let stranger = node();
    for _ in 0..6 {
        soon(stranger.open(&to)).await.map(drop).unwrap_err();
    }
    let mut events = strict.events();
    soon(stranger.open(&to)).await.map(drop).unwrap_err();
    let turned = until(&mut events, |event| match event {
        Event::TurnedAway { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let turned = turned.await;
    assert!(turned.starts_with("too many failures"), "{turned}");
    // Parts are counted, not diallers: somebody may have the stranger's.
    let mut in_all = 0;
    for friend in &friends {
        in_all += usize::from(soon(friend.open(&to)).await.is_ok());
    }
    assert!(in_all >= 4, "{in_all} of 8");
}

/// Only a relay that a node is registered at may bring it circuits.
#[tokio::test]
async fn circuits_from_anybody_else_are_refused() {
    let (server, client) = (node(), node());
    let (_, at) = listening(&server).await;
    let to = at.with_service("cepa.relay.circuit").unwrap();
    assert!(client.open(&to).await.is_err());
}

#[tokio::test]
async fn a_direct_way_takes_over_when_one_comes_up() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let hidden = hidden(&at).await;
    let mut impatient = config();
    impatient.upgrade_after = Duration::from_millis(50);
    let client = MeshNode::new(impatient);
    // A port that nobody listens on yet.
    let port = closed_port();
    let way = through(hidden.id(), &at, "echo").to_string();
    let way = way.replacen('@', &format!("@tcp:127.0.0.1:{port};"), 1);
    let to = address(&way);
    let path = soon(ask(client.open(&to).await.unwrap(), b"1"))
        .await
        .unwrap();
    assert!(path.starts_with("via relay"), "{path}");
    // What is open stays where it is.
    let mut long = client.open(&to).await.unwrap();
    let here = format!("tcp:127.0.0.1:{port}").parse().unwrap();
    hidden.listen(&here).await.unwrap();
    soon(async {
        while ask(client.open(&to).await.unwrap(), b"2")
            .await
            .unwrap()
            .starts_with("via")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    long.write_all(b"still there").await.unwrap();
    long.shutdown().await.unwrap();
    let mut all = String::new();
    soon(long.read_to_string(&mut all)).await.unwrap();
    assert!(
        all.starts_with("via relay") && all.ends_with("still there"),
        "{all}"
    );
    drop(long);
    // The relayed one goes when nothing uses it; the relay's own session stays.
    eventually(|| relay.relay_stats().unwrap().circuits == 0).await;
}

#[tokio::test]
async fn a_relay_that_comes_back_is_registered_at_again() {
    let keys = config();
    let first = MeshNode::with_relay(
        keys.clone(),
        cepa::protocols::relay::RelayConfig::new(Access::Anyone),
    );
    let (real, at) = listening_apart(&first).await;
    let hidden = hidden(&at).await;
    let mut events = hidden.events();
    first.shutdown(Duration::ZERO).await;
    until(&mut events, |event| match event {
        event if is_unregistered(event) => Some(()),
        _ => None,
    })
    .await;
    let second = MeshNode::with_relay(
        keys,
        cepa::protocols::relay::RelayConfig::new(Access::Anyone),
    );
    soon(async {
        // The port may be ours a moment later.
        while second.listen(&real).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    until(&mut events, |event| match event {
        event if is_registered(event) => Some(()),
        _ => None,
    })
    .await;
    let to = through(hidden.id(), &at, "echo");
    soon(ask(node().open(&to).await.unwrap(), b"back"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_registration_is_renewed_before_it_ends() {
    let relay = relay(|config| config.lifetime = Duration::from_secs(1));
    let (_, at) = listening(&relay).await;
    let hidden = hidden(&at).await;
    let mut events = hidden.events();
    let client = node();
    let to = through(hidden.id(), &at, "echo");
    let lost = until(&mut events, |event| match event {
        event if is_unregistered(event) => Some(()),
        _ => None,
    });
    // Three lifetimes.
    assert!(
        tokio::time::timeout(Duration::from_secs(3), lost)
            .await
            .is_err(),
        "it was not renewed in time"
    );
    soon(ask(client.open(&to).await.unwrap(), b"x"))
        .await
        .unwrap();
}

/// A store that takes whatever it is asked for, and never answers.
struct Silent {
    puts: bool,
}

impl Presence for Silent {
    fn put(&self, _: PeerId, _: PeerId, _: Duration) -> BoxFuture<'_, std::io::Result<()>> {
        if self.puts {
            Box::pin(std::future::ready(Ok(())))
        } else {
            Box::pin(std::future::pending())
        }
    }

    fn get(&self, _: PeerId) -> BoxFuture<'_, std::io::Result<Vec<PeerId>>> {
        Box::pin(std::future::pending())
    }

    fn remove(&self, _: PeerId, _: PeerId) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(std::future::pending())
    }
}

/// A relay whose store hangs says so within its own patience, and a registration is not held up by one that goes.
#[tokio::test]
async fn a_store_that_never_answers_holds_nobody() {
    for puts in [true, false] {
        let relay = relay(|config| {
            config.patience = Duration::from_millis(200);
            config.presence = Arc::new(Silent { puts });
        });
        let (_, at) = listening(&relay).await;
        let client = node();
        let registered = soon(client.register(&at)).await;
        let why = registered.as_ref().map_err(ToString::to_string);
        if puts {
            why.unwrap();
        } else {
            assert!(why.unwrap_err().contains("is full"), "{registered:?}");
        }
        let nobody = through(PeerId::from_bytes([9; 32]), &at, "echo");
        let why = soon(node().open(&nobody)).await.unwrap_err().to_string();
        assert!(
            why.contains("got no answer from the peer; try later"),
            "{why}"
        );
    }
}

/// Those who register and leave, one after the other, hold up nobody else, however long each of them takes to be taken out.
#[tokio::test]
async fn who_leaves_holds_up_nobody_else_at_a_slow_store() {
    let relay = relay(|config| {
        config.patience = Duration::from_secs(5);
        config.presence = Arc::new(Silent { puts: true });
    });
    let (_, at) = listening(&relay).await;
    for _ in 0..8 {
        let (session, _) = by_hand(&at).await;
        let hour = Duration::from_secs(3600);
        let registered = cepa::protocols::relay::Registration::at(&session, hour).await;
        drop(registered.unwrap());
        session.close().await;
    }
    eventually(|| relay.relay_stats().unwrap().registrations == 0).await;
    soon(node().register(&at)).await.unwrap();
}

/// Its own address is refused by itself, in whichever way a session is asked for.
#[tokio::test]
async fn a_node_dials_itself_in_no_way() {
    let itself = node();
    let (_, at) = listening(&itself).await;
    for dialled in [itself.session(&at).await, itself.own_session(&at).await] {
        assert!(matches!(dialled, Err(DialError::Own { .. })), "{dialled:?}");
    }
}
