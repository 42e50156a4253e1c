//! Being registered, through whatever happens to the relay, to the way there, and to other instances of the same node.

use std::time::Duration;

use cepa::node::{Access, Event, Node, NodeConfig, PeerAddr};
use cepa::protocols::relay::{
    RegisterError, Registration, Relay, RelayConfig, RelayError, RelayEvent, Status,
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::{
    MeshNode, address, ask, by_hand, config, eventually, is_registered, listening, node,
    offer_echo, relay, soon, through, until,
};

/// Opens the echo of a node through a relay, and uses it.
async fn reach(hidden: &MeshNode, at: &PeerAddr) {
    let client = node();
    let stream = client.open(&through(hidden.id(), at, "echo")).await;
    soon(ask(stream.unwrap(), b"hello")).await.unwrap();
}

fn place(at: &PeerAddr) -> String {
    at.hints()[0].to_string().replace("tcp:", "")
}

/// A way to a relay that can be stopped without being cut: from then on nothing passes, as when the process at the near end
/// is stopped.
async fn way(at: &PeerAddr) -> (PeerAddr, CancellationToken) {
    let place = place(at);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!(
        "cepa://{}@tcp:{}",
        at.peer(),
        listener.local_addr().unwrap()
    );
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (place, stopped) = (place.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(place).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = stopped.cancelled() => {}
                }
                if stopped.is_cancelled() {
                    // Both ends stay open.
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (address(&here), stop)
}

/// A relay that does not find sessions dead by itself before the test is over.
fn patient_relay(change: impl FnOnce(&mut RelayConfig)) -> MeshNode {
    let mut node = config();
    node.stack.mux.keepalive_interval = None;
    let mut relay = RelayConfig::new(Access::Anyone);
    change(&mut relay);
    MeshNode::with_relay(node, relay)
}

/// A node as it is when it is started anew, or a second time.
fn instance(of: &NodeConfig) -> MeshNode {
    let node = MeshNode::new(of.clone());
    offer_echo(&node);
    node
}

/// As many instances as one peer may have registered have been stopped where they were.
#[tokio::test]
async fn instances_that_were_stopped_do_not_lock_the_next_one_out() {
    let relay = patient_relay(|_| {});
    let (_, at) = listening(&relay).await;
    let keys = config();
    let (stoppable, stop) = way(&at).await;
    let mut stopped = Vec::new();
    for _ in 0..4 {
        let instance = instance(&keys);
        instance.register(&stoppable).await.unwrap();
        stopped.push(instance);
    }
    assert_eq!(relay.relay_stats().unwrap().registrations, 4);
    stop.cancel();
    let next = instance(&keys);
    let registered = soon(next.register(&at)).await;
    assert!(registered.is_ok(), "{}", registered.unwrap_err());
    reach(&next, &at).await;
}

/// Those that answer stay, and the one too many is refused.
#[tokio::test]
async fn instances_that_are_there_keep_what_they_have() {
    let relay = patient_relay(|config| config.registrations_a_peer = 2);
    let (_, at) = listening(&relay).await;
    let keys = config();
    let [one, two, three] = [(); 3].map(|()| instance(&keys));
    one.register(&at).await.unwrap();
    two.register(&at).await.unwrap();
    let error = three.register(&at).await.unwrap_err();
    let RegisterError::Relay(RelayError::Refused { status, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*status, Status::Quota);
    assert_eq!(relay.relay_stats().unwrap().taken_back, 0);
    // It goes on asking, and is let in when there is room.
    let mut events = three.events();
    one.shutdown(Duration::ZERO).await;
    until(&mut events, |event| is_registered(event).then_some(())).await;
}

/// The newest registrations are asked first, and those that do not answer leave time for the others.
#[tokio::test]
async fn newer_instances_that_were_stopped_do_not_hide_the_older_one() {
    let relay = patient_relay(|_| {});
    let (_, at) = listening(&relay).await;
    let keys = config();
    let older = instance(&keys);
    older.register(&at).await.unwrap();
    let (stoppable, stop) = way(&at).await;
    let newer = [(); 3].map(|()| instance(&keys));
    for instance in &newer {
        instance.register(&stoppable).await.unwrap();
    }
    stop.cancel();
    reach(&older, &at).await;
}

/// Of two registrations of one peer the older one goes to a peer that has none; whoever had it knows at once, and why.
#[tokio::test]
async fn a_registration_that_was_taken_back_is_noticed_and_asked_for_again() {
    // Six for strangers.
    let relay = relay(|config| config.registrations = 8);
    let (_, at) = listening(&relay).await;
    let keys = config();
    let (one, two) = (instance(&keys), instance(&keys));
    one.register(&at).await.unwrap();
    two.register(&at).await.unwrap();
    let mut events = one.events();
    let mut others = Vec::new();
    for _ in 0..5 {
        let (session, _) = by_hand(&at).await;
        let hour = Duration::from_secs(3600);
        let registration = Registration::at(&session, hour).await.unwrap();
        others.push((session, registration));
    }
    let reason = until(&mut events, unregistered).await;
    assert!(reason.contains("taken the registration back"), "{reason}");
    reach(&two, &at).await;
    others.clear();
    until(&mut events, |event| is_registered(event).then_some(())).await;
}

fn unregistered(event: &Event) -> Option<String> {
    match event.protocol() {
        Some(RelayEvent::Unregistered { reason, .. }) => Some(reason.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_relay_that_is_down_at_the_start_is_registered_at_when_it_comes() {
    let keys = config();
    let first = MeshNode::with_relay(keys.clone(), RelayConfig::new(Access::Anyone));
    let (real, at) = listening(&first).await;
    first.shutdown(Duration::ZERO).await;
    let hidden = instance(&config());
    let mut events = hidden.events();
    let error = hidden.register(&at).await.unwrap_err();
    assert!(matches!(error, RegisterError::Dial(_)), "{error}");
    assert!(error.is_retryable());
    let relay = MeshNode::with_relay(keys, RelayConfig::new(Access::Anyone));
    soon(async {
        // The port may be ours a moment later.
        while relay.listen(&real).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    until(&mut events, |event| is_registered(event).then_some(())).await;
    reach(&hidden, &at).await;
}

#[tokio::test]
async fn a_relay_that_refuses_for_now_is_registered_at_when_it_does_not() {
    let node_of_relay = Node::new(config());
    let relay = Relay::on(&node_of_relay, RelayConfig::new(Access::Nobody)).unwrap();
    let any = "tcp:127.0.0.1:0".parse().unwrap();
    let there = node_of_relay.listen(&any).await.unwrap();
    let at = address(&format!("cepa://{}@{there}", node_of_relay.id()));
    let hidden = instance(&config());
    let mut events = hidden.events();
    let error = hidden.register(&at).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("does not serve you"), "{error}");
    relay.set_access(Access::peers([hidden.id()]));
    until(&mut events, |event| is_registered(event).then_some(())).await;
    assert_eq!(relay.registered(), [(hidden.id(), 1)]);
}

/// Whoever is not served any more is told when it renews, and is not reached from then on.
#[tokio::test]
async fn a_registration_is_not_renewed_for_who_is_not_allowed_any_more() {
    let node_of_relay = Node::new(config());
    let mut short = RelayConfig::new(Access::Anyone);
    short.lifetime = Duration::from_secs(1);
    let relay = Relay::on(&node_of_relay, short).unwrap();
    let any = "tcp:127.0.0.1:0".parse().unwrap();
    let there = node_of_relay.listen(&any).await.unwrap();
    let at = address(&format!("cepa://{}@{there}", node_of_relay.id()));
    let (hidden, other) = (instance(&config()), instance(&config()));
    hidden.register(&at).await.unwrap();
    other.register(&at).await.unwrap();
    let mut events = hidden.events();
    relay.set_access(Access::peers([other.id()]));
    let reason = until(&mut events, unregistered).await;
    assert!(reason.contains("does not allow this machine"), "{reason}");
    eventually(|| relay.registered() == [(other.id(), 1)]).await;
    let opened = other.open(&through(hidden.id(), &at, "echo")).await;
    let said = opened.unwrap_err().to_string();
    assert!(said.contains("does not know that peer"), "{said}");
}

/// A wrong address of a relay is no reason to go on.
#[tokio::test]
async fn what_no_other_attempt_would_mend_is_not_tried_again() {
    let hidden = node();
    let itself = address(&format!("cepa://{}@tcp:127.0.0.1:1", hidden.id()));
    let error = hidden.register(&itself).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(!hidden.relays.unregister(hidden.id()), "nothing goes on");
}

/// The relay had dialled the session that there is; what it offers is for those who dial it.
#[tokio::test]
async fn a_node_that_its_relay_has_dialled_registers_by_dialling_it() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let hidden = instance(&config());
    let (_, at_hidden) = listening(&hidden).await;
    relay.session(&at_hidden).await.unwrap();
    eventually(|| hidden.session_with(relay.id()).is_some()).await;
    hidden.register(&at).await.unwrap();
    assert_eq!(relay.relay_stats().unwrap().registrations, 1);
    reach(&hidden, &at).await;
    // Without an address of the relay there is no way to dial it, and that is what it says.
    let other = instance(&config());
    let (_, at_other) = listening(&other).await;
    relay.session(&at_other).await.unwrap();
    eventually(|| other.session_with(relay.id()).is_some()).await;
    let nowhere = PeerAddr::new(relay.id());
    let said = other.register(&nowhere).await.unwrap_err().to_string();
    assert!(said.contains("dial the peer"), "{said}");
}

/// The same for who dials through a relay.
#[tokio::test]
async fn who_was_dialled_by_a_relay_dials_through_it_all_the_same() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let hidden = instance(&config());
    hidden.register(&at).await.unwrap();
    let client = node();
    let (_, at_client) = listening(&client).await;
    relay.session(&at_client).await.unwrap();
    eventually(|| client.session_with(relay.id()).is_some()).await;
    let stream = client.open(&through(hidden.id(), &at, "echo")).await;
    let path = soon(ask(stream.unwrap(), b"hello")).await.unwrap();
    assert_eq!(path, format!("via relay {}", relay.id()));
}

/// One that the relay knows by name is served on whichever session there is.
#[tokio::test]
async fn who_is_allowed_by_name_is_served_on_a_session_that_the_relay_dialled() {
    let hidden = instance(&config());
    let (_, at_hidden) = listening(&hidden).await;
    let id = hidden.id();
    let relay = relay(|config| config.access = Access::peers([id]));
    relay.session(&at_hidden).await.unwrap();
    eventually(|| hidden.session_with(relay.id()).is_some()).await;
    // It listens nowhere, so this is the only one.
    hidden.register(&PeerAddr::new(relay.id())).await.unwrap();
    assert_eq!(relay.relay_stats().unwrap().registrations, 1);
    assert_eq!(hidden.sessions().len(), 1);
}
