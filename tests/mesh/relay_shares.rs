//! What a relay gives one peer, one host and all of them, and what it takes back; seen from sessions that are no node's, as
//! whoever wants more than its share would write them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::identity::{AcceptAny, AnyOf, Identity, KeyKind, PeerId, Pinned, TrustPolicy};
use cepa::mux::{StreamTimeouts, Substream};
use cepa::node::{Event, PeerAddr};
use cepa::onion::Onion;
use cepa::protocols::relay::{
    CircuitEnd, Registration, RelayConfig, RelayError, RelayStats, Status, dial, is_circuit, take,
};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::{Remote, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    MeshNode, by_hand, config, eventually, listening, node, offer_echo, relay, soon, through, until,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A relay for strangers that knows some peers by name.
fn relay_that_knows(names: &[PeerId], change: impl FnOnce(&mut RelayConfig)) -> MeshNode {
    let mut node = config();
    let named = Pinned::new(names.iter().copied());
    let policies: Vec<Arc<dyn TrustPolicy>> = vec![Arc::new(named), Arc::new(AcceptAny)];
    node.stack.trust = Arc::new(AnyOf::new(policies));
    let mut relay = RelayConfig::new(cepa::node::Access::Anyone);
    // All that a test brings comes from this machine, which is one host.
    relay.circuits_a_host = Some(1000);
    relay.registrations_a_host = Some(1000);
    change(&mut relay);
    MeshNode::with_relay(node, relay)
}

fn identity() -> StackConfig {
    StackConfig::new(
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Arc::new(AcceptAny),
    )
}

async fn session(at: &PeerAddr, config: &StackConfig) -> Session {
    let endpoint = at.hints()[0].to_string().parse().unwrap();
    Session::dial(&endpoint, config).await.unwrap()
}

/// A session with a relay that comes from a host of ours to choose.
async fn session_from(host: Ipv4Addr, relay: &MeshNode, config: &StackConfig) -> Session {
    let (near, far) = tokio::io::duplex(64 << 10);
    let far = Stream::from_io(far, "there").with_remote(Remote::Tcp((host, 4711).into()));
    let (there, here) = tokio::join!(
        relay.accept_via(far, &[], Vec::new()),
        Session::handshake(Stream::from_io(near, "here"), &[], Side::Client, config),
    );
    there.unwrap();
    here.unwrap()
}

/// A registered peer that takes every circuit and holds it.
struct Taker {
    id: PeerId,
    _registration: Registration,
}

async fn taker(at: &PeerAddr) -> Taker {
    let (session, id) = by_hand(at).await;
    let registration = Registration::at(&session, HOUR).await.unwrap();
    tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok(incoming) = session.accept().await {
            assert!(is_circuit(incoming.service()));
            all.extend(take(incoming).await.ok());
        }
    });
    Taker {
        id,
        _registration: registration,
    }
}

fn stats(relay: &MeshNode) -> RelayStats {
    relay.relay_stats().unwrap()
}

fn status(error: &RelayError) -> (Status, &str) {
    match error {
        RelayError::Refused { status, reason, .. } => (*status, reason),
        other => panic!("{other}"),
    }
}

/// How many circuits a session gets, and the circuits.
async fn greedy(session: &Session, to: PeerId) -> Vec<Stream> {
    let mut all = Vec::new();
    while let Ok(stream) = dial(session, to).await {
        all.push(stream);
    }
    all
}

/// How the relay says that a circuit has ended.
async fn end(stream: &mut Stream) -> CircuitEnd {
    let error = soon(stream.read_u8()).await.unwrap_err();
    match error.get_ref().and_then(|e| e.downcast_ref()) {
        Some(end) => *end,
        None => panic!("{error}"),
    }
}

fn taken_back(relay: PeerId) -> CircuitEnd {
    CircuitEnd::TakenBack { relay }
}

#[tokio::test]
async fn four_keys_do_not_hold_all_circuits() {
    let relay = relay(|_| {});
    let (_, at) = listening(&relay).await;
    let to = taker(&at).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let (session, _) = by_hand(&at).await;
        held.push(greedy(&session, to.id).await);
    }
    let (fifth, _) = by_hand(&at).await;
    let opened = dial(&fifth, to.id).await;
    let got: Vec<_> = held.iter().map(Vec::len).collect();
    assert!(opened.is_ok(), "{got:?}, and then {:?}", opened.err());
}

#[tokio::test]
async fn strangers_with_many_keys_hold_no_circuit_for_ever() {
    for (old_enough, expected) in [(true, None), (false, Some(Status::Full))] {
        let relay = relay(|config| {
            config.circuits = 4;
            config.min_life = if old_enough { Duration::ZERO } else { HOUR };
        });
        let (_, at) = listening(&relay).await;
        let to = taker(&at).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            let (session, _) = by_hand(&at).await;
            held.push(dial(&session, to.id).await.unwrap());
        }
        let (newcomer, _) = by_hand(&at).await;
        let opened = dial(&newcomer, to.id).await;
        let refused = opened.as_ref().err().map(|error| status(error).0);
        assert_eq!(refused, expected);
        if old_enough {
            // The oldest one was ended, and says so.
            let relay_id = at.peer();
            assert_eq!(end(&mut held[0]).await, taken_back(relay_id));
            eventually(|| stats(&relay).circuits == 3).await;
            assert_eq!(stats(&relay).taken_back, 1);
            // Whoever has some gets no more by that.
            let error = dial(&newcomer, to.id).await.unwrap_err();
            let (status, reason) = status(&error);
            assert_eq!(status, Status::Full);
            assert!(reason.contains("peers that have none"), "{reason}");
        }
    }
}

/// One that carries nothing is taken back earlier than one that is in use.
#[tokio::test]
async fn a_circuit_without_use_goes_first_when_all_are_taken() {
    let relay = relay(|config| {
        config.circuits = 2;
        config.min_life = HOUR;
        config.idle_when_full = UNUSED;
    });
    let (_, at) = listening(&relay).await;
    let to = taker(&at).await;
    let ((one, _), (two, _)) = (by_hand(&at).await, by_hand(&at).await);
    let mut used = dial(&one, to.id).await.unwrap();
    let mut unused = dial(&two, to.id).await.unwrap();
    let using = tokio::spawn(async move {
        while used.write_all(b"x").await.is_ok() && used.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        used
    });
    let (newcomer, _) = by_hand(&at).await;
    let mut opened = None;
    soon(async {
        while opened.is_none() {
            match dial(&newcomer, to.id).await {
                Ok(stream) => opened = Some(stream),
                Err(error) => assert_eq!(status(&error).0, Status::Full),
            }
        }
    })
    .await;
    assert_eq!(end(&mut unused).await, taken_back(relay.id()));
    drop(opened);
    using.abort();
}

#[tokio::test]
async fn a_circuit_that_carries_nothing_ends_at_both_ends() {
    let relay = relay(|config| config.idle = UNUSED);
    let (_, at) = listening(&relay).await;
    let (registered, id) = by_hand(&at).await;
    let _registration = Registration::at(&registered, HOUR).await.unwrap();
    let (dialler, _) = by_hand(&at).await;
    let both = async {
        let taken = async { take(registered.accept().await.unwrap()).await.unwrap().0 };
        tokio::join!(dial(&dialler, id), taken)
    };
    let (near, mut far) = soon(both).await;
    let mut near = near.unwrap();
    near.write_all(b"last words").await.unwrap();
    let mut words = [0; 10];
    soon(far.read_exact(&mut words)).await.unwrap();
    let idle = CircuitEnd::Idle { relay: relay.id() };
    assert_eq!((end(&mut near).await, end(&mut far).await), (idle, idle));
    eventually(|| stats(&relay).circuits == 0).await;
    assert_eq!((stats(&relay).idle, stats(&relay).taken_back), (1, 0));
    // The sessions have nothing to do with that.
    registered.ping().await.unwrap();
    dialler.ping().await.unwrap();
}

/// Whoever had a session in it reads why, at both ends.
#[tokio::test]
async fn a_session_whose_circuit_was_ended_says_why() {
    let relay = relay(|config| {
        config.circuits = 1;
        config.min_life = Duration::ZERO;
    });
    let (_, at) = listening(&relay).await;
    let (hidden, client) = (node(), node());
    offer_echo(&hidden);
    hidden.register(&at).await.unwrap();
    let mut downs = [hidden.events(), client.events()];
    let to = through(hidden.id(), &at, "echo");
    let open = client.open(&to).await.unwrap();
    let newcomer = node();
    newcomer.open(&to).await.unwrap();
    for events in &mut downs {
        let said = until(events, |event| match event {
            Event::SessionDown { end, .. } => Some(end.to_string()),
            _ => None,
        })
        .await;
        assert!(
            said.contains("is full, and gave the circuit to a peer that had none"),
            "{said}"
        );
    }
    drop(open);
}

#[tokio::test]
async fn strangers_with_many_keys_do_not_keep_a_named_peer_from_registering() {
    let friend = identity();
    let id = friend.identity.peer_id();
    let relay = relay_that_knows(&[id], |config| config.registrations = 8);
    let (_, at) = listening(&relay).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let (session, _) = by_hand(&at).await;
        if let Ok(registration) = Registration::at(&session, HOUR).await {
            held.push((session, registration));
        }
    }
    let session = session(&at, &friend).await;
    let registered = Registration::at(&session, HOUR).await;
    assert!(
        registered.is_ok(),
        "{} strangers, and then {:?}",
        held.len(),
        registered.err()
    );
    assert_eq!(held.len(), 6);
}

#[tokio::test]
async fn a_named_peer_gets_a_circuit_whatever_strangers_hold() {
    let friends: Vec<_> = (0..3).map(|_| identity()).collect();
    let names: Vec<_> = friends.iter().map(|it| it.identity.peer_id()).collect();
    let relay = relay_that_knows(&names, |config| {
        config.circuits = 4;
        config.min_life = HOUR;
    });
    let (_, at) = listening(&relay).await;
    let to = taker(&at).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let (session, _) = by_hand(&at).await;
        held.extend(dial(&session, to.id).await.ok());
    }
    let mut theirs = Vec::new();
    for friend in &friends {
        let session = session(&at, friend).await;
        let opened = dial(&session, to.id).await;
        theirs.push(opened.unwrap_or_else(|error| panic!("{}: {error}", held.len())));
    }
    assert_eq!(held.len(), 3);
    // There was one left for them; two they have from strangers, the oldest first.
    for lost in &mut held[..2] {
        assert_eq!(end(lost).await, taken_back(relay.id()));
    }
    held[2].write_all(b"still there").await.unwrap();
}

#[tokio::test]
async fn one_host_with_many_keys_does_not_take_all() {
    let relay = relay(|config| {
        config.circuits_a_host = Some(2);
        config.registrations_a_host = Some(3);
    });
    let (_, at) = listening(&relay).await;
    let to = taker(&at).await;
    let host = Ipv4Addr::new(192, 0, 2, 1);
    let (mut circuits, mut registrations) = (Vec::new(), Vec::new());
    let mut refused = None;
    for _ in 0..4 {
        let session = session_from(host, &relay, &identity()).await;
        match dial(&session, to.id).await {
            Ok(stream) => circuits.push(stream),
            Err(error) => refused = Some(error),
        }
        registrations.extend(Registration::at(&session, HOUR).await.ok());
    }
    assert_eq!((circuits.len(), registrations.len()), (2, 3));
    let (status, reason) = status(refused.as_ref().unwrap());
    assert_eq!((status, reason), (Status::Quota, "at most 2 from one host"));
    let elsewhere = session_from(Ipv4Addr::new(192, 0, 2, 2), &relay, &identity()).await;
    dial(&elsewhere, to.id).await.unwrap();
    Registration::at(&elsewhere, HOUR).await.unwrap();
}

/// Strangers that come through another relay are strangers of that relay.
#[tokio::test]
async fn another_relay_counts_as_a_host() {
    let relay = relay(|config| config.circuits_a_host = Some(1));
    let (_, at) = listening(&relay).await;
    let to = taker(&at).await;
    let outer = PeerId::from_bytes([9; 32]);
    let (one, two) = (identity(), identity());
    let mut all = Vec::new();
    for config in [&one, &two] {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (there, here) = tokio::join!(
            relay.accept_via(Stream::from_io(far, "relay"), &[], vec![outer]),
            Session::handshake(Stream::from_io(near, "here"), &[], Side::Client, config),
        );
        there.unwrap();
        all.push(here.unwrap());
    }
    let _held = dial(&all[0], to.id).await.unwrap();
    let error = dial(&all[1], to.id).await.unwrap_err();
    assert_eq!(status(&error).0, Status::Quota);
}

/// Both ends have said all, but one does not take it: that is in the relay's memory, and counts.
#[tokio::test]
async fn a_circuit_counts_until_all_of_it_has_left() {
    let relay = relay(|config| config.circuits_a_peer = 1);
    let (_, at) = listening(&relay).await;
    let (registered, id) = by_hand(&at).await;
    let _registration = Registration::at(&registered, HOUR).await.unwrap();
    let (dialler, _) = by_hand(&at).await;
    let (mut near, mut far) = Box::pin(finished(&dialler, &registered, id)).await;
    // Both ends of both ways have been passed on.
    assert_eq!(soon(near.read(&mut [0])).await.unwrap(), 0);
    eventually(|| unsent(&relay) >= KEPT).await;
    assert_eq!(stats(&relay).circuits, 1, "{} bytes", unsent(&relay));
    let more = dial(&dialler, id).await;
    assert_eq!(status(&more.unwrap_err()).0, Status::Quota);
    // It is given back when it is taken, and the last byte arrives.
    let mut all = Vec::new();
    soon(far.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), WINDOW + KEPT);
    eventually(|| stats(&relay).circuits == 0).await;
    assert_eq!(unsent(&relay), 0);
}

#[tokio::test]
async fn what_nobody_takes_is_given_up_in_time() {
    let relay = relay(|config| config.idle = UNUSED);
    let (_, at) = listening(&relay).await;
    let (registered, id) = by_hand(&at).await;
    let _registration = Registration::at(&registered, HOUR).await.unwrap();
    let (dialler, _) = by_hand(&at).await;
    let (_near, mut far) = Box::pin(finished(&dialler, &registered, id)).await;
    eventually(|| stats(&relay).circuits == 0).await;
    eventually(|| unsent(&relay) == 0).await;
    assert_eq!(stats(&relay).idle, 1);
    // What had arrived can be read, and is not taken for all of it.
    let mut all = Vec::new();
    soon(far.read_to_end(&mut all)).await.unwrap_err();
    assert!(!all.is_empty() && all.len() <= WINDOW, "{}", all.len());
}

/// How long a circuit is unused that is to be ended; one in use is not, however busy the machine is.
const UNUSED: Duration = Duration::from_secs(2);

/// What the registered peer takes in at most without reading, and what it leaves at the relay at least, which a queue there holds.
const WINDOW: usize = 64 << 10;
const KEPT: usize = 10_000;

/// A circuit whose two ends have ended in order, and whose registered one does not read.
async fn finished(dialler: &Session, registered: &Session, id: PeerId) -> (Raw, Raw) {
    let taken = async {
        let mut far = registered.accept().await.unwrap().accept().await.unwrap();
        let mut request = [0; 40];
        far.read_exact(&mut request).await.unwrap();
        far.write_all(&[0, 7, 0xa3, 0, 1, 1, 0, 2, 0x60])
            .await
            .unwrap();
        far.shutdown().await.unwrap();
        far
    };
    let opened = async {
        let mut near = dialler.open("cepa.relay.dial").await.unwrap();
        let request = [&[0, 38, 0xa2, 0, 1, 1, 0x58, 0x20], &id.as_bytes()[..]].concat();
        near.write_all(&request).await.unwrap();
        let mut answer = [0; 9];
        near.read_exact(&mut answer).await.unwrap();
        near
    };
    let (mut near, mut far) = Box::pin(soon(async { tokio::join!(opened, taken) })).await;
    for stream in [&mut near, &mut far] {
        stream.wire_mut().set_timeouts(StreamTimeouts::NONE);
    }
    soon(near.write_all(&vec![5; WINDOW + KEPT])).await.unwrap();
    near.shutdown().await.unwrap();
    (near, far)
}

type Raw = Onion<Substream>;

/// Bytes in the relay's queues.
fn unsent(relay: &MeshNode) -> usize {
    relay.sessions().iter().map(|(.., mux)| mux.unsent).sum()
}
