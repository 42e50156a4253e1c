//! Two nodes of this machine and a relay, and what a peer or a relay that lies makes a node do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cepa_transports::SharedPort;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::message::{Begin, Offer, Place, Word};
use super::talk::hear;
use super::*;
use crate::identity::{AcceptAny, Identity, KeyKind, Refusal};
use crate::node::{Access, Event, Events, Hint, NodeConfig, PeerAddr, ShareLimits, TurnedAway};
use crate::protocols::relay::{Nonce, Relay, RelayConfig, Relays, where_seen};
use crate::protocols::signed::Signed;
use crate::resume;
use crate::session::{ConnectError, ServiceStream, Session};
use crate::tls::TlsError;
use crate::transports::Remote;
use crate::wire::{receive, send};

/// The machine may be busy.
const SOON: Duration = Duration::from_secs(120);

async fn soon<F: Future>(it: F) -> F::Output {
    timeout(SOON, it).await.expect("it hung")
}

fn config(durable: bool) -> NodeConfig {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let mut config = NodeConfig::new(identity, Arc::new(AcceptAny));
    config.stack.shared_port = true;
    config.stack.resume = durable.then(resume::Config::default);
    config
}

fn node(durable: bool) -> (Node, Relays) {
    let node = Node::new(config(durable));
    let relays = Relays::on(&node).unwrap();
    (node, relays)
}

/// Which tries for addresses of this machine, at once.
fn here() -> DirectConfig {
    DirectConfig::default()
        .with_loopback(true)
        .with_after(Duration::ZERO)
}

struct World {
    relay: Node,
    at: PeerAddr,
    bob: Node,
    to_bob: PeerAddr,
    _relays: Relays,
}

/// A relay, and bob, who is registered there and sends back what comes to `echo`.
async fn world(durable: bool, config: DirectConfig) -> World {
    let (relay, _) = node(false);
    Relay::on(&relay, RelayConfig::new(Access::Anyone)).unwrap();
    world_at(relay, durable, config).await
}

/// The same, with a relay that listens for `quic:` as well.
async fn world_with_quic(durable: bool, config: DirectConfig) -> World {
    let (relay, _) = node(false);
    Relay::on(&relay, RelayConfig::new(Access::Anyone)).unwrap();
    let by_quic = relay.listen(&"quic:127.0.0.1:0".parse().unwrap()).await;
    by_quic.unwrap();
    world_at(relay, durable, config).await
}

async fn world_at(relay: Node, durable: bool, config: DirectConfig) -> World {
    let at = relay.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let hint = Hint::Direct(at.unwrap());
    let at = PeerAddr::new(relay.id()).with_hint(hint.clone()).unwrap();
    let (bob, relays) = node(durable);
    on(&bob, config).unwrap();
    bob.serve("echo", Access::Anyone, async |call: Call| {
        let (mut from, mut to) = tokio::io::split(call.accept().await?);
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    })
    .unwrap();
    soon(relays.register(&at)).await.unwrap();
    let to_bob = format!("cepa://{}@relay:{}@{hint}/echo", bob.id(), relay.id());
    World {
        at,
        bob,
        to_bob: to_bob.parse().unwrap(),
        relay,
        _relays: relays,
    }
}

async fn outcome(events: &mut Events) -> Result<Remote, NotDirect> {
    loop {
        let event = soon(events.next()).await.expect("the node is gone");
        match event.protocol() {
            Some(DirectEvent::Direct { at, .. }) => return Ok(at.clone()),
            Some(DirectEvent::NotDirect { why, .. }) => return Err(why.clone()),
            None => {}
        }
    }
}

async fn echoes(stream: &mut ServiceStream, word: &[u8]) {
    stream.write_all(word).await.unwrap();
    let mut back = vec![0; word.len()];
    soon(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, word);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_over_a_direct_path_with_what_is_open_in_it() {
    let world = world(true, here()).await;
    let (ann, _relays) = node(true);
    on(&ann, here()).unwrap();
    let (mut events, mut of_bob) = (ann.events(), world.bob.events());
    let mut stream = soon(ann.open(&world.to_bob)).await.unwrap();
    echoes(&mut stream, b"by the relay").await;
    let session = ann.session_with(world.bob.id()).unwrap();
    let at = outcome(&mut events).await.unwrap();
    outcome(&mut of_bob).await.unwrap();
    assert!(
        matches!(at, Remote::Tcp(at) if at.ip().is_loopback()),
        "{at}"
    );
    echoes(&mut stream, b"and without").await;
    assert!(session.is_same(&ann.session_with(world.bob.id()).unwrap()));
    let path = session.path().unwrap();
    assert_eq!(path.remote, at);
    // The relay is left, and what is there is used.
    world.relay.shutdown(Duration::ZERO).await;
    echoes(&mut stream, b"and without any relay").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tcp_leads_nowhere_a_session_goes_on_by_quic() {
    let by_quic = here().with_tcp(false);
    let world = world_with_quic(true, by_quic).await;
    let (ann, _relays) = node(true);
    on(&ann, by_quic).unwrap();
    let mut events = ann.events();
    let mut stream = soon(ann.open(&world.to_bob)).await.unwrap();
    echoes(&mut stream, b"by the relay").await;
    let session = ann.session_with(world.bob.id()).unwrap();
    let with_relay = ann.session_with(world.relay.id()).unwrap();
    let at = outcome(&mut events).await.unwrap();
    assert!(
        matches!(at, Remote::Quic(at) if at.ip().is_loopback()),
        "{at}"
    );
    echoes(&mut stream, b"and without").await;
    assert_eq!(session.path().unwrap().remote, at);
    // The session by which the relay was asked is none of those that the node uses.
    assert!(with_relay.is_same(&ann.session_with(world.relay.id()).unwrap()));
    world.relay.shutdown(Duration::ZERO).await;
    echoes(&mut stream, b"and without any relay").await;
}

/// Where both lead there, the session goes on where it is encrypted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_taken_before_quic() {
    let world = world_with_quic(true, here()).await;
    let (ann, _relays) = node(true);
    on(&ann, here()).unwrap();
    let mut events = ann.events();
    let _stream = soon(ann.open(&world.to_bob)).await.unwrap();
    let at = outcome(&mut events).await.unwrap();
    assert!(matches!(at, Remote::Tcp(_)), "{at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_the_two_that_wants_no_quic_is_told_of_none() {
    let world = world_with_quic(true, here().with_quic(false)).await;
    let (ann, _relays) = node(true);
    on(&ann, here().with_tcp(false)).unwrap();
    let mut events = ann.events();
    let mut stream = soon(ann.open(&world.to_bob)).await.unwrap();
    let why = outcome(&mut events).await.unwrap_err();
    assert!(matches!(why, NotDirect::NoAddress), "{why:?}");
    echoes(&mut stream, b"by the relay").await;
}

/// A TCP port that the relay has signed is no UDP port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_the_other_kind_is_nothing_that_was_signed() {
    let world = world_with_quic(true, here()).await;
    let liar = Liar::new(&world).await;
    let (stream, nonce) = liar.begin().await.unwrap();
    let (seen, again) = (liar.seen(nonce).await, liar.seen(nonce).await);
    let (word, _stream) = liar.offers_both(stream, seen, None, Some(again)).await;
    let why = word.refusal().unwrap();
    assert!(why.contains("nothing that the relay has signed"), "{why}");
}

/// Datagrams that an address gets in one attempt, and the bytes of one.
const DATAGRAMS: (usize, usize) = (16, 17);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_lies_costs_its_victim_a_few_datagrams() {
    let victim = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = victim.local_addr().unwrap();
    let world = world_with_quic(true, here()).await;
    let liar = Liar::new(&world).await;
    let (stream, nonce) = liar.begin().await.unwrap();
    let (relay, id) = (world.relay.identity(), liar.node.id());
    let signed = crate::protocols::relay::testing::sign_udp(relay, id, at, nonce);
    // TCP leads back to the liar, who does not answer.
    let seen = liar.seen(nonce).await;
    let mut events = world.bob.events();
    let (word, mut stream) = liar.offers_both(stream, seen, None, Some(signed)).await;
    assert_eq!(word.refusal(), None);
    send(&mut stream, &Word::done()).await.unwrap();
    let mut datagrams = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        tokio::select! {
            came = victim.recv(&mut buffer) => datagrams.push(came.unwrap()),
            why = outcome(&mut events) => {
                assert!(matches!(why, Err(NotDirect::NoWay(_))), "{why:?}");
                break;
            }
        }
    }
    assert!(
        (1..=DATAGRAMS.0).contains(&datagrams.len()),
        "{datagrams:?}"
    );
    assert!(
        datagrams.iter().all(|bytes| *bytes == DATAGRAMS.1),
        "{datagrams:?}"
    );
    let more = timeout(Duration::from_millis(300), victim.recv(&mut buffer)).await;
    assert!(more.is_err(), "it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_with_its_connection_is_followed_by_a_direct_one() {
    let world = world(false, here()).await;
    let (ann, _relays) = node(false);
    on(&ann, here()).unwrap();
    let mut events = ann.events();
    let first = soon(ann.session(&world.to_bob)).await.unwrap();
    let mut stream = soon(first.open("echo")).await.unwrap();
    outcome(&mut events).await.unwrap();
    // What was open stays where it was, and what is opened is direct.
    echoes(&mut stream, b"old").await;
    let second = ann.session_with(world.bob.id()).unwrap();
    assert!(!second.is_same(&first));
    let is_direct = matches!(
        second.path().unwrap().remote,
        crate::transports::Remote::Tcp(_)
    );
    assert!(is_direct);
    let mut stream = soon(ann.open(&world.to_bob)).await.unwrap();
    echoes(&mut stream, b"new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_tries_where_one_of_the_two_does_not_want_to() {
    // Bob connects to no address of this machine, as any node that is no test's.
    let world = world(true, DirectConfig::default()).await;
    let (ann, _relays) = node(true);
    on(&ann, here()).unwrap();
    let mut events = ann.events();
    let mut stream = soon(ann.open(&world.to_bob)).await.unwrap();
    let why = outcome(&mut events).await.unwrap_err();
    assert!(matches!(why, NotDirect::Refused(_)), "{why:?}");
    echoes(&mut stream, b"by the relay").await;
}

/// A peer of bob's that says what it likes.
struct Liar {
    session: Session,
    /// With the relay.
    below: Session,
    node: Node,
}

impl Liar {
    async fn new(world: &World) -> Self {
        let (node, _) = node(true);
        let session = soon(node.session(&world.to_bob)).await.unwrap();
        let below = soon(node.session(&world.at)).await.unwrap();
        Self {
            session,
            below,
            node,
        }
    }

    /// Begins; the nonce that is to be signed, or why not.
    async fn begin(&self) -> Result<(ServiceStream, Nonce), String> {
        let mut stream = soon(self.session.open(reserved::NAT)).await.unwrap();
        send(&mut stream, &Begin::new([3; 16])).await.unwrap();
        let offer: Offer = soon(receive(&mut stream)).await.unwrap();
        match offer.refusal() {
            Some(why) => Err(why),
            None => Ok((stream, offer.nonce().unwrap())),
        }
    }

    /// What the relay has signed of it.
    async fn seen(&self, nonce: Nonce) -> Signed {
        let seen = where_seen(&self.below, self.node.id(), nonce).await;
        seen.unwrap().signed
    }

    /// What bob says to an offer.
    async fn offers(
        &self,
        stream: ServiceStream,
        seen: Signed,
        local: Option<SocketAddr>,
    ) -> (Word, ServiceStream) {
        self.offers_both(stream, seen, local, None).await
    }

    /// And with a UDP port that the relay has signed.
    async fn offers_both(
        &self,
        mut stream: ServiceStream,
        seen: Signed,
        local: Option<SocketAddr>,
        seen_udp: Option<Signed>,
    ) -> (Word, ServiceStream) {
        let udp = seen_udp.map(|seen| {
            (
                Place {
                    seen,
                    local: None,
                    mapped: None,
                },
                [4; 8],
            )
        });
        let offer = Offer::new(
            None,
            Place {
                seen,
                local,
                mapped: None,
            },
            udp,
        );
        send(&mut stream, &offer).await.unwrap();
        (soon(hear::<Word>(&mut stream)).await.unwrap(), stream)
    }
}

/// Nobody has come there.
async fn is_left_alone(victim: &TcpListener) {
    let came = timeout(Duration::from_millis(300), victim.accept()).await;
    assert!(came.is_err(), "{came:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lies_makes_a_node_connect_nowhere() {
    let victim = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = victim.local_addr().unwrap();
    let world = world(true, here()).await;
    let liar = Liar::new(&world).await;
    let own = liar.node.identity();
    // Signed by the peer itself, with the relay's name below; signed for somebody else; signed for another time.
    let (stream, nonce) = liar.begin().await.unwrap();
    let forged = crate::protocols::relay::testing::sign(own, liar.node.id(), at, nonce);
    let (word, _stream) = liar.offers(stream, forged, None).await;
    assert!(
        word.refusal()
            .unwrap()
            .contains("nothing that the relay has signed")
    );
    let (stream, _nonce) = liar.begin().await.unwrap();
    let stale = liar.seen([9; 16]).await;
    let (word, _stream) = liar.offers(stream, stale, Some(at)).await;
    assert!(word.refusal().is_some());
    // That was the last one for a while, whatever came of it.
    let why = liar.begin().await.map(|_| ()).unwrap_err();
    assert!(why.contains("often enough"), "{why}");
    is_left_alone(&victim).await;
}

/// There is no relay between the two, and so nothing to try, however often it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_tried_uses_up_nobodys_share() {
    let (bob, _relays) = node(true);
    let direct = Arc::new(direct_of(&bob));
    bob.add_protocol(Arc::<Direct>::clone(&direct) as _)
        .unwrap();
    let at = bob.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let at = PeerAddr::new(bob.id()).with_hint(Hint::Direct(at.unwrap()));
    let (ann, _relays) = node(true);
    let session = soon(ann.session(&at.unwrap())).await.unwrap();
    for _ in 0..13 {
        let mut stream = soon(session.open(reserved::NAT)).await.unwrap();
        send(&mut stream, &Begin::new([3; 16])).await.unwrap();
        let offer: Offer = soon(receive(&mut stream)).await.unwrap();
        let why = offer.refusal().unwrap();
        assert!(why.contains("no TCP connection whose port"), "{why}");
    }
    let (budget, now) = (&direct.budget, tokio::time::Instant::now());
    assert!(budget.take(ann.id(), super::budget::Whose::Asked, now));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_vouches_for_is_tried_only_in_ones_own_network() {
    let victim = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = victim.local_addr().unwrap();
    // As it is outside of tests: this machine is out of bounds, and so nothing is left to try.
    let world = world(true, DirectConfig::default()).await;
    let liar = Liar::new(&world).await;
    let (stream, nonce) = liar.begin().await.unwrap();
    let seen = liar.seen(nonce).await;
    let (word, _stream) = liar.offers(stream, seen, Some(at)).await;
    assert!(
        word.refusal()
            .unwrap()
            .contains("no address that may be tried")
    );
    is_left_alone(&victim).await;
}

/// A peer and its relay together can name any address: that costs whoever is there a few connections, on which nothing is said but an
/// alert of TLS: seven bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_lies_costs_its_victim_a_few_connections_and_an_alert() {
    let victim = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = victim.local_addr().unwrap();
    let world = world(true, here()).await;
    let liar = Liar::new(&world).await;
    let (stream, nonce) = liar.begin().await.unwrap();
    let signed =
        crate::protocols::relay::testing::sign(world.relay.identity(), liar.node.id(), at, nonce);
    let (word, mut stream) = liar.offers(stream, signed, None).await;
    assert_eq!(word.refusal(), None);
    send(&mut stream, &Word::done()).await.unwrap();
    let (mut came, _) = soon(victim.accept()).await.unwrap();
    let mut events = world.bob.events();
    let mut all = Vec::new();
    // Until bob gives up.
    let _ = soon(came.read_to_end(&mut all)).await;
    assert!(all.is_empty() || all.len() == 7 && all[0] == 21, "{all:?}");
    let why = outcome(&mut events).await.unwrap_err();
    assert!(matches!(why, NotDirect::NoWay(_)), "{why:?}");
    is_left_alone(&victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_at_the_port_gets_nothing() {
    let world = world(true, here()).await;
    let liar = Liar::new(&world).await;
    let bob_at = {
        let with_relay = world.bob.session_with(world.relay.id()).unwrap();
        with_relay.path().unwrap().local.unwrap()
    };
    let (stream, nonce) = liar.begin().await.unwrap();
    let seen = liar.seen(nonce).await;
    let (word, mut stream) = liar.offers(stream, seen, None).await;
    assert_eq!(word.refusal(), None);
    send(&mut stream, &Word::done()).await.unwrap();
    let stranger = Identity::generate(KeyKind::Ed25519).unwrap();
    let stranger = crate::stack::StackConfig::new(stranger, Arc::new(AcceptAny));
    let mut events = world.bob.events();
    let dialled = Session::dial(&format!("tcp:{bob_at}").parse().unwrap(), &stranger).await;
    dialled.expect_err("a session with a stranger");
    // It was bob who took the connection, and turned away whom it led to; not a system that refused the connection.
    let reason = loop {
        let event = soon(events.next()).await.expect("the node is gone");
        if let Event::TurnedAway { reason, .. } = event {
            break reason;
        }
    };
    let stranger = stranger.identity.peer_id();
    let TurnedAway::Connect(ConnectError::Tls(TlsError::Refused(refusal))) = &reason else {
        panic!("turned away because {reason}");
    };
    assert!(
        matches!(refusal, Refusal::WrongPeer { presented, .. } if *presented == stranger),
        "{refusal:?}"
    );
    assert!(!world.bob.sessions().iter().any(|(id, ..)| *id == stranger));
}

/// What [`on`] makes, for tests that look into it.
fn direct_of(node: &Node) -> Direct {
    Direct {
        node: node.handle(),
        config: here(),
        budget: Budget::default(),
        turn: Semaphore::new(1),
        failed: Mutex::default(),
    }
}

/// As many strangers as the listener accepts, before any try leads to the peer, leave nothing to wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_every_connection_are_a_failed_attempt_and_no_panic() {
    let world = world(true, here()).await;
    let (ann, _relays) = node(true);
    let session = soon(ann.session(&world.to_bob)).await.unwrap();
    let direct = direct_of(&ann);
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (found, streams) = tokio::sync::mpsc::channel(4);
    for _ in 0..4 {
        let own = SharedPort::of("127.0.0.1:0".parse().unwrap());
        let stream = own.connect(stranger.local_addr().unwrap()).await.unwrap();
        found.send(stream).await.unwrap();
        drop(stranger.accept().await.unwrap());
    }
    drop(found);
    let why = soon(super::trying::go_on_over(&direct, &session, streams)).await;
    assert!(matches!(why, Err(NotDirect::NoWay(_))), "{why:?}");
}

/// A peer that says where it is, and then nothing.
struct Silent {
    node: Node,
    relay: crate::identity::PeerId,
    heard: tokio::sync::mpsc::UnboundedSender<()>,
}

impl Protocol for Silent {
    fn names(&self) -> &[&'static str] {
        &[reserved::NAT]
    }

    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut stream = call.accept().await.unwrap();
            let begin: Begin = receive(&mut stream).await.unwrap();
            let below = self.node.session_with(self.relay).unwrap();
            let seen = where_seen(&below, self.node.id(), begin.nonce()).await;
            let offer = Offer::new(
                Some([5; 16]),
                Place {
                    seen: seen.unwrap().signed,
                    local: None,
                    mapped: None,
                },
                None,
            );
            send(&mut stream, &offer).await.unwrap();
            // What comes next is sent when it is decided what to try.
            let theirs: Offer = receive(&mut stream).await.unwrap();
            assert_eq!(theirs.refusal(), None);
            let _ = self.heard.send(());
            std::future::pending::<()>().await;
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_goes_silent_keeps_nobody_else_from_trying() {
    let (relay, _) = node(false);
    Relay::on(&relay, RelayConfig::new(Access::Anyone)).unwrap();
    let at = relay.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let hint = Hint::Direct(at.unwrap());
    let at = PeerAddr::new(relay.id()).with_hint(hint.clone()).unwrap();
    let (bob, relays) = node(true);
    let (heard, mut has_heard) = tokio::sync::mpsc::unbounded_channel();
    let silent = Silent {
        node: bob.handle(),
        relay: relay.id(),
        heard,
    };
    bob.add_protocol(Arc::new(silent)).unwrap();
    soon(relays.register(&at)).await.unwrap();
    let to_bob = format!("cepa://{}@relay:{}@{hint}", bob.id(), relay.id());
    let (ann, _relays) = node(true);
    let session = soon(ann.session(&to_bob.parse().unwrap())).await.unwrap();
    let direct = direct_of(&ann);
    let end = super::talk::End::of(&direct, &session, true).unwrap();
    let ask = end.ask();
    tokio::pin!(ask);
    tokio::select! {
        _ = &mut ask => panic!("the peer never said that it is ready"),
        () = soon(async { has_heard.recv().await.unwrap() }) => {}
    }
    assert_eq!(direct.turn.available_permits(), 1);
}

/// Why a node that has this configuration does not take part, if so.
async fn why_not(limits: ShareLimits, has_it: bool) -> NotDirect {
    let mut config = config(true);
    config.shares = limits;
    let bob = Node::new(config);
    if has_it {
        on(&bob, here()).unwrap();
    }
    let at = bob.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let at = PeerAddr::new(bob.id()).with_hint(Hint::Direct(at.unwrap()));
    let (ann, _relays) = node(true);
    let session = soon(ann.session(&at.unwrap())).await.unwrap();
    let opened = soon(session.open(reserved::NAT)).await;
    NotDirect::NotOffered(opened.expect_err("it was refused").into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_at_a_limit_is_asked_again_and_one_without_it_is_not() {
    let why = why_not(ShareLimits::default(), false).await;
    assert!(why.is_final(), "{why}");
    let none = crate::node::Limits {
        all: 1,
        peer: 0,
        host: 0,
    };
    let why = why_not(ShareLimits::default().with_substreams(none), true).await;
    assert!(!why.is_final(), "{why}");
}

#[tokio::test]
async fn a_node_does_it_once() {
    let (node, _relays) = node(true);
    on(&node, here()).unwrap();
    let again = on(&node, here());
    assert!(matches!(again, Err(ProtocolError::Taken { .. })));
}
