//! Relays, and nodes at relays, that have replaced their keys: the old key vouches for the new one, so whoever knows the
//! old id reaches them as before, and nobody gets more by having had several keys.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{AcceptAny, KeyKind, PeerId, RotationTimes, UnixTime};
use cepa::node::{Access, AttemptError, DialError, NodeConfig, PeerAddr, ReachError};
use cepa::protocols::relay::{InMemory, RegisterError, RelayConfig, RelayError, Status};

use crate::support::{
    MeshNode, address, ask, config, eventually, is_registered, is_unregistered, listening, node,
    offer_echo, relay, soon, through, until,
};

/// The same with a new key, for which the old one vouches.
fn successor(of: &NodeConfig) -> NodeConfig {
    let now = UnixTime::now().as_secs();
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let times = RotationTimes {
        issued: at(now - 60),
        expires: at(now + 3600),
        overlap: at(now + 3600),
    };
    let identity = of.stack.identity.rotate(KeyKind::Ed25519, times).unwrap();
    NodeConfig::new(identity, Arc::new(AcceptAny))
}

fn id(of: &NodeConfig) -> PeerId {
    of.stack.identity.peer_id()
}

/// A node without a listener, registered at a relay.
async fn hidden(config: NodeConfig, at: &PeerAddr) -> MeshNode {
    let hidden = MeshNode::new(config);
    offer_echo(&hidden);
    hidden.register(at).await.unwrap();
    hidden
}

/// Opens the echo of a peer through a relay, and uses it.
async fn reach(peer: PeerId, at: &PeerAddr) {
    let client = node();
    let stream = client.open(&through(peer, at, "echo")).await.unwrap();
    soon(ask(stream, b"hello")).await.unwrap();
}

/// How the relay answers who dials a peer through it.
async fn refusal(client: &MeshNode, peer: PeerId, at: &PeerAddr) -> (Status, String) {
    let error = client.open(&through(peer, at, "echo")).await.unwrap_err();
    let ReachError::Dial(DialError::Failed { attempts, .. }) = &error else {
        panic!("{error}");
    };
    let AttemptError::Relay(error) = &attempts[0].1 else {
        panic!("{error}");
    };
    match error.downcast_ref() {
        Some(RelayError::Refused { status, reason, .. }) => (*status, reason.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_registered_node_with_a_new_key_is_reached_by_its_old_id() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let old = config();
    let new = successor(&old);
    let third = successor(&new);
    let _hidden = hidden(third.clone(), &at).await;
    for known_as in [&third, &new, &old] {
        reach(id(known_as), &at).await;
    }
}

/// One of them has stolen the old key, and nobody here can know which.
#[tokio::test]
async fn of_two_registered_successors_of_one_key_neither_is_reached_by_it() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let old = config();
    let (owner, thief) = (successor(&old), successor(&old));
    let _owner = hidden(owner.clone(), &at).await;
    let second = hidden(thief.clone(), &at).await;
    let client = node();
    let (status, reason) = refusal(&client, id(&old), &at).await;
    assert_eq!(status, Status::NotRegistered);
    assert!(reason.contains("two registered peers"), "{reason}");
    reach(id(&owner), &at).await;
    reach(id(&thief), &at).await;
    second.shutdown(Duration::ZERO).await;
    eventually(|| relay.relay_stats().unwrap().registrations == 1).await;
    reach(id(&old), &at).await;
    // Who has the old key itself comes before all who succeed it.
    let _same = hidden(old.clone(), &at).await;
    reach(id(&old), &at).await;
}

#[tokio::test]
async fn a_relay_with_a_new_key_is_registered_at_by_its_old_id_and_brings_circuits() {
    let old = config();
    let new = successor(&old);
    let relay = MeshNode::with_relay(new.clone(), RelayConfig::new(Access::Anyone));
    let (at_relay, at_new) = listening(&relay).await;
    let at_old = address(&format!("cepa://{}@{at_relay}", id(&old)));
    let config = config();
    let _hidden = hidden(config.clone(), &at_old).await;
    reach(id(&config), &at_old).await;
    reach(id(&config), &at_new).await;
}

#[tokio::test]
async fn a_relay_may_change_its_key_during_a_registration() {
    let old = config();
    let new = successor(&old);
    let first = MeshNode::with_relay(old, RelayConfig::new(Access::Anyone));
    let (at_relay, at_old) = listening(&first).await;
    let config = config();
    let hidden = hidden(config.clone(), &at_old).await;
    let mut events = hidden.events();
    first.shutdown(Duration::ZERO).await;
    until(&mut events, |event| is_unregistered(event).then_some(())).await;
    let second = MeshNode::with_relay(new, RelayConfig::new(Access::Anyone));
    soon(async {
        // The port may be ours a moment later.
        while second.listen(&at_relay).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    until(&mut events, |event| is_registered(event).then_some(())).await;
    reach(id(&config), &at_old).await;
    let at_new = address(&format!("cepa://{}@{at_relay}", second.id()));
    reach(id(&config), &at_new).await;
}

#[tokio::test]
async fn a_node_may_change_its_key_while_it_is_registered() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let old = config();
    let new = successor(&old);
    let first = hidden(old.clone(), &at).await;
    reach(id(&old), &at).await;
    let second = hidden(new.clone(), &at).await;
    reach(id(&old), &at).await;
    reach(id(&new), &at).await;
    first.shutdown(Duration::ZERO).await;
    eventually(|| relay.relay_stats().unwrap().registrations == 1).await;
    reach(id(&old), &at).await;
    drop(second);
}

/// Whatever a peer was called before, it is one peer: its former self and every successor share what one has.
#[tokio::test]
async fn a_new_key_is_no_second_quota() {
    let relay = relay(|config| {
        config.registrations_a_peer = 2;
        config.circuits_a_peer = 1;
    });
    let (_, at) = listening(&relay).await;
    let old = config();
    let (new, fork) = (successor(&old), successor(&old));
    let newest = successor(&new);
    let quota = |error: RegisterError| match error {
        RegisterError::Relay(RelayError::Refused { status, .. }) => status,
        other => panic!("{other}"),
    };
    let one = hidden(old, &at).await;
    let two = hidden(new, &at).await;
    for more in [&newest, &fork] {
        let more = MeshNode::new(more.clone());
        let error = more.register(&at).await.unwrap_err();
        assert_eq!(quota(error), Status::Quota);
    }
    let (others, others_too) = (config(), config());
    let _there = hidden(others.clone(), &at).await;
    let _there_too = hidden(others_too.clone(), &at).await;
    let to = through(id(&others), &at, "echo");
    let open = one.open(&to).await.unwrap();
    let newest = MeshNode::new(newest);
    for more in [&two, &newest] {
        let (status, _) = refusal(more, id(&others_too), &at).await;
        assert_eq!(status, Status::Quota);
    }
    drop(open);
}

/// The loop is seen whatever the end is called.
#[tokio::test]
async fn nobody_is_taken_to_itself_by_its_old_id() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let old = config();
    let new = hidden(successor(&old), &at).await;
    let error = new.open(&through(id(&old), &at, "echo")).await.unwrap_err();
    let own = matches!(error, ReachError::Dial(DialError::Own { .. }));
    assert!(own, "{error}");
    // The relay knows it as well.
    let session = new.session(&at).await.unwrap();
    let dialled = cepa::protocols::relay::dial(&session, id(&old)).await;
    let Err(error) = dialled else {
        panic!("it is nobody else");
    };
    let looped = matches!(
        error,
        RelayError::Refused {
            status: Status::Loop,
            ..
        }
    );
    assert!(looped, "{error}");
}

#[tokio::test]
async fn a_fleet_knows_a_peer_by_its_old_id_as_well() {
    let presence = Arc::new(InMemory::default());
    let [here, there] = [(); 2].map(|()| relay(|config| config.presence = presence.clone()));
    let ((_, at_here), (_, at_there)) = (listening(&here).await, listening(&there).await);
    let old = config();
    let registered = hidden(successor(&old), &at_there).await;
    let client = node();
    let (status, reason) = refusal(&client, id(&old), &at_here).await;
    assert_eq!(status, Status::NotRegistered);
    assert_eq!(
        reason,
        format!("it is registered at the relay {}", there.id())
    );
    // When it is gone nobody says so any more.
    registered.shutdown(Duration::ZERO).await;
    soon(async {
        while !refusal(&client, id(&old), &at_here).await.1.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
