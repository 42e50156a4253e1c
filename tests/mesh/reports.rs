//! How errors, registrations and ends are told: by what happened, to whoever waits, and without being lost with who waited.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa::identity::{Invitation, OpenInvitation, UnixTime};
use cepa::node::{Access, DialError, PeerAddr};
use cepa::protocols::introduction::Terms;
use cepa::protocols::pairing;
use cepa::protocols::relay::{RegisterError, RelayEvent};
use cepa::protocols::sealed::CarrierConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    MeshNode, address, ask, by_hand, config, eventually, listening, node, offer_echo, relay, soon,
    through, until, with_new_key,
};

/// Takes connections and says nothing on them.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            all.push(stream);
        }
    });
    format!("tcp:{at}")
}

fn is_shut_down(error: &RegisterError) -> bool {
    matches!(error, RegisterError::Dial(DialError::ShutDown))
}

#[tokio::test]
async fn several_addresses_of_one_relay_are_one_registration() {
    let relay = relay(|_| {});
    let (_, good) = listening(&relay).await;
    let bad = address(&format!("cepa://{}@{}", relay.id(), silent().await));
    let node = node();
    // The second is told while the first is being tried.
    let (first, second) =
        soon(async { tokio::join!(node.register(&bad), node.register(&good)) }).await;
    for reported in [first, second] {
        reported.unwrap();
    }
    assert_eq!(relay.relay_stats().unwrap().registrations, 1);
    // One more for the same registration, which stands.
    node.register(&bad).await.unwrap();
    assert_eq!(relay.relay_stats().unwrap().registrations, 1);
    assert!(node.relays.unregister(relay.id()));
    eventually(|| relay.relay_stats().unwrap().registrations == 0).await;
}

#[tokio::test]
async fn a_registration_that_is_taken_back_is_reported_as_such() {
    let node = node();
    let other = crate::support::node().id();
    let at = address(&format!("cepa://{other}@{}", silent().await));
    let registering = node.register(&at);
    let take_back = async {
        while !node.relays.unregister(other) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (error, ()) = soon(async { tokio::join!(registering, take_back) }).await;
    let error = error.unwrap_err();
    assert!(!is_shut_down(&error), "{error}");
    assert!(
        error.to_string().contains("cancelled the registration"),
        "{error}"
    );
}

#[tokio::test]
async fn a_relay_that_says_nothing_is_reported_though_nobody_waits_any_more() {
    let mut config = config();
    config.stack.layer_timeout = Duration::from_secs(1);
    let node = MeshNode::new(config);
    let mut events = node.events();
    let other = crate::support::node().id();
    let at = address(&format!("cepa://{other}@{}", silent().await));
    let given_up = tokio::time::timeout(Duration::from_millis(50), node.register(&at)).await;
    assert!(given_up.is_err(), "{given_up:?}");
    until(&mut events, |event| match event.protocol() {
        Some(RelayEvent::Unregistered { relay, .. }) if *relay == other => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_listener_can_be_asked_for_again() {
    let node = node();
    let any = "tcp:127.0.0.1:0".parse().unwrap();
    let mut listening = node.bind(&any).await.unwrap();
    node.shutdown(Duration::ZERO).await;
    soon(listening.ended()).await.unwrap();
    soon(listening.ended()).await.unwrap();
    soon(listening.close()).await;
}

#[tokio::test]
async fn a_former_id_of_a_node_is_its_own() {
    let keys = config();
    let old = keys.stack.identity.peer_id();
    let owner = MeshNode::new(with_new_key(&keys));
    offer_echo(&owner);
    let nowhere = address(&format!("cepa://{old}@tcp:127.0.0.1:1/echo"));
    let dialled = owner.session(&nowhere).await.unwrap_err();
    assert!(matches!(dialled, DialError::Own { .. }), "{dialled}");
    // It does not need the network to take its own word back.
    let hour = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 3600));
    let it = owner.introduce(&nowhere, Terms::until(hour)).unwrap();
    owner.revoke(&it).await.unwrap();
}

/// A joiner that leaves right behind its proof has been let in, and the code is used up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_admitted_has_joined_whatever_becomes_of_the_answer() {
    let inviter = node();
    let (_, at) = listening(&inviter).await;
    let end = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 3600));
    let invitation = Invitation::new(inviter.id(), "tcp:h:1", end).unwrap();
    let (joining, joiner) = by_hand(&at).await;
    let proof = invitation.joiner_proof(joining.tls_exporter(), joiner);
    let open = Mutex::new(OpenInvitation::new(invitation));
    eventually(|| inviter.session_with(joiner).is_some()).await;
    let theirs = inviter.session_with(joiner).unwrap();
    let (give, mut take) = tokio::sync::mpsc::channel(1);
    inviter.serve_rest(Access::Anyone, move |call| {
        let give = give.clone();
        async move {
            let _ = give.send(call.into_parts().0).await;
        }
    });
    let (leave, leaving) = tokio::sync::oneshot::channel();
    let joins = tokio::spawn({
        let joining = joining.clone();
        async move {
            let mut stream = joining.open("pair").await.unwrap();
            stream.write_all(&proof).await.unwrap();
            stream.flush().await.unwrap();
            leaving.await.unwrap();
            // Unfinished: a reset.
            drop(stream);
        }
    });
    let (asked, leave) = (AtomicUsize::new(0), Mutex::new(Some(leave)));
    let now = || {
        // The second time, the proof is there and not judged.
        if asked.fetch_add(1, Ordering::SeqCst) == 1 {
            leave.lock().unwrap().take().unwrap().send(()).unwrap();
            // Time for the reset to come; that the answer leaves before it would be as good.
            std::thread::sleep(Duration::from_millis(300));
        }
        UnixTime::now()
    };
    let incoming = soon(take.recv()).await.unwrap();
    let admitted = soon(pairing::admit(&theirs, incoming, &open, now)).await;
    assert_eq!(admitted.unwrap(), joiner);
    joins.await.unwrap();
}

/// A way to a peer whose connections of before are reset with the next byte, as when the machine behind was started anew and has
/// not said a word.
async fn rebooting(at: &PeerAddr) -> (PeerAddr, Arc<AtomicUsize>) {
    let place = at.hints()[0].to_string().replace("tcp:", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap();
    let here = address(&format!("cepa://{}@tcp:{port}", at.peer()));
    let boots = Arc::new(AtomicUsize::new(0));
    let boot = Arc::clone(&boots);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (place, boot) = (place.clone(), Arc::clone(&boot));
            tokio::spawn(async move {
                let mine = boot.load(Ordering::SeqCst);
                let far = TcpStream::connect(place).await.unwrap();
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let back = tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
                });
                let mut some = [0; 4096];
                while let Ok(n @ 1..) = near_in.read(&mut some).await {
                    if boot.load(Ordering::SeqCst) != mine {
                        break;
                    }
                    if far_out.write_all(&some[..n]).await.is_err() {
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    (here, boots)
}

/// Whatever is opened on the session that there is with a peer, a session that has turned out to be dead is replaced.
#[tokio::test]
async fn a_dead_session_is_replaced_whatever_is_opened_on_it() {
    let relay = relay(|_| {});
    relay.carry(Some(CarrierConfig::new(Access::Anyone)));
    offer_echo(&relay);
    relay.serve_sealed("up", Access::Anyone, |call| async move {
        Ok(call.body().to_ascii_uppercase())
    });
    let (_, at) = listening(&relay).await;
    let hidden = node();
    offer_echo(&hidden);
    hidden.register(&at).await.unwrap();
    let (way, boots) = rebooting(&at).await;
    let client = node();
    let boot = async || {
        client.session(&way).await.unwrap();
        boots.fetch_add(1, Ordering::SeqCst);
    };
    boot().await;
    let stream = client.open(&through(hidden.id(), &way, "echo")).await;
    soon(ask(stream.unwrap(), b"x")).await.unwrap();
    boot().await;
    client.register(&way).await.unwrap();
    boot().await;
    client.sealing_key(&way, relay.id()).await.unwrap();
    boot().await;
    relay.introducers("echo", Access::Nobody);
    let hour = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 3600));
    let it = relay.introduce(
        &way.clone().with_service("echo").unwrap(),
        Terms::until(hour),
    );
    let stream = client.open_introduced(&it.unwrap()).await;
    soon(ask(stream.unwrap(), b"x")).await.unwrap();
}
