//! Streams that come from afar, as far as the gate knows: what comes over loopback is of this machine.

use cepa_transports::Remote;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::gate;
use crate::identity::{AcceptAny, Identity, KeyKind, Pinned};
use crate::node::core::Service;
use crate::node::{Access, Admission, Call, NodeConfig, Protocol};
use crate::stack::DEFAULT_LAYERS;

const FAR: &str = "192.0.2.7:4711";
const HOUR: Duration = Duration::from_secs(3600);

fn far() -> Remote {
    Remote::Tcp(FAR.parse().unwrap())
}

fn circuit() -> Remote {
    Remote::Circuit {
        relay: [7; 32],
        says: [1; 32],
    }
}

/// Tolerates three failures. In hours, so that it makes no difference how long the test takes.
fn strict(change: impl FnOnce(&mut gate::Config)) -> Arc<Core> {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let mut config = NodeConfig::new(identity, Arc::new(AcceptAny));
    config.stack.resume = Some(crate::resume::Config::default());
    config.gate = gate::Config {
        penalty_refused: HOUR,
        penalty_timed_out: 4 * HOUR,
        tolerated: 3 * HOUR,
        most: 100 * HOUR,
        ..gate::Config::default()
    };
    change(&mut config.gate);
    Arc::new(Core::new(config))
}

/// Comes from there, and does something; gives why it was turned away, or nothing where it was let in.
async fn knock<F: Future>(
    node: &Arc<Core>,
    from: Remote,
    does: impl FnOnce(DuplexStream) -> F,
) -> Option<String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let stream = Stream::from_io(near, "somebody").with_remote(from);
    let config = &node.config.stack;
    let comes = accept(node, stream, DEFAULT_LAYERS, Vec::new(), config, None);
    let (came, _kept) = tokio::join!(Box::pin(comes), does(far));
    came.err().map(|reason| reason.to_string())
}

/// A session of this identity with the node, over the two ends of a pipe.
async fn up(
    node: &Arc<Core>,
    identity: &Identity,
    near: DuplexStream,
    far: DuplexStream,
) -> Session {
    let dialler = StackConfig::new(identity.clone(), Arc::new(Pinned::one(node.id)));
    let (near, far) = (Stream::from_io(near, "near"), Stream::from_io(far, "far"));
    let config = &node.config.stack;
    let comes = accept(node, near, DEFAULT_LAYERS, Vec::new(), config, None);
    let dials = Session::handshake(far, DEFAULT_LAYERS, Side::Client, &dialler);
    let (came, dialled) = tokio::join!(Box::pin(comes), Box::pin(dials));
    assert!(came.is_ok());
    dialled.unwrap()
}

async fn nonsense(mut far: DuplexStream) {
    let _ = far.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
}

/// As whoever dials the node does.
async fn friend(node: &Arc<Core>, far: DuplexStream) -> Option<Session> {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let config = StackConfig::new(identity, Arc::new(Pinned::one(node.id)));
    let stream = Stream::from_io(far, "test");
    let session = Session::handshake(stream, DEFAULT_LAYERS, Side::Client, &config);
    Box::pin(session).await.ok()
}

#[tokio::test]
async fn who_fails_again_and_again_is_shut_out() {
    for from in [far(), circuit()] {
        let node = strict(|_| {});
        for _ in 0..4 {
            let why = knock(&node, from.clone(), nonsense).await.unwrap();
            assert!(!why.contains("failures"), "{why}");
        }
        let why = knock(&node, from.clone(), |far| friend(&node, far)).await;
        let why = why.expect("it was let in");
        assert!(
            why.starts_with("too many failures from there, shut out for "),
            "{why}"
        );
        // It is that source alone.
        let other = Remote::Tcp("192.0.2.8:4711".parse().unwrap());
        for other in [
            other,
            Remote::Memory,
            Remote::Circuit {
                relay: [8; 32],
                says: [1; 32],
            },
        ] {
            assert_eq!(knock(&node, other, |far| friend(&node, far)).await, None);
        }
    }
}

#[tokio::test]
async fn who_gets_in_is_forgiven() {
    let node = strict(|_| {});
    // Six failures would be too many without what lies between them; after it they do not count for an hour.
    for _ in 0..2 {
        for _ in 0..3 {
            assert!(knock(&node, far(), nonsense).await.is_some());
        }
        assert_eq!(knock(&node, far(), |far| friend(&node, far)).await, None);
    }
    for _ in 0..10 {
        let why = knock(&node, far(), nonsense).await.unwrap();
        assert!(!why.contains("failures"), "{why}");
    }
    assert_eq!(knock(&node, far(), |far| friend(&node, far)).await, None);
}

/// A session of another node with this node's key, which this one knows nothing of: as after a restart.
async fn of_another_life(core: &Arc<Core>) -> (Session, Session, Arc<StackConfig>) {
    let kept = Some(crate::resume::Config::default());
    let client = Identity::generate(KeyKind::Ed25519).unwrap();
    let client = StackConfig::new(client, Arc::new(Pinned::one(core.id))).with_resume(kept.clone());
    let server = core.config.stack.identity.clone();
    let server = StackConfig::new(server, Arc::new(AcceptAny)).with_resume(kept);
    let (near, far) = cepa_transports::memory::pair();
    let (dialled, came) = tokio::join!(
        Box::pin(Session::handshake(
            far,
            DEFAULT_LAYERS,
            Side::Client,
            &client
        )),
        Box::pin(Session::handshake(
            near,
            DEFAULT_LAYERS,
            Side::Server,
            &server
        )),
    );
    (dialled.unwrap(), came.unwrap(), Arc::new(client))
}

#[tokio::test]
async fn who_takes_up_sessions_that_are_not_there_is_shut_out() {
    let node = strict(|gate| gate.penalty_lost = HOUR);
    let (session, _keeps, client) = of_another_life(&node).await;
    let lasting = session.lasting().unwrap();
    let guess = |far: DuplexStream| {
        let far = Stream::from_io(far, "far");
        let client = Arc::clone(&client);
        async move {
            crate::session::paths::reach_on(lasting, far, DEFAULT_LAYERS, &client, false).await
        }
    };
    for _ in 0..4 {
        let why = knock(&node, far(), guess).await.unwrap();
        assert!(why.contains("that is not here any more"), "{why}");
    }
    let why = knock(&node, far(), guess).await.unwrap();
    assert!(why.starts_with("too many failures from there"), "{why}");
}

#[tokio::test]
async fn whose_sessions_have_expired_comes_in_with_a_new_one() {
    // The node's usual penalties: a whole office, behind one address, whose server was restarted.
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let mut config = NodeConfig::new(identity, Arc::new(AcceptAny));
    config.stack.resume = Some(crate::resume::Config::default());
    let node = Arc::new(Core::new(config));
    let (session, _keeps, client) = of_another_life(&node).await;
    let lasting = session.lasting().unwrap();
    for _ in 0..12 {
        let why = knock(&node, far(), async |far| {
            let far = Stream::from_io(far, "far");
            crate::session::paths::reach_on(lasting, far, DEFAULT_LAYERS, &client, false).await
        });
        assert!(why.await.is_some());
    }
    assert_eq!(knock(&node, far(), |far| friend(&node, far)).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_keeps_silent_counts_as_worse() {
    let node = strict(|_| {});
    let why = knock(&node, far(), async |far| far).await.unwrap();
    assert!(why.contains("in time"), "{why}");
    let why = knock(&node, far(), async |far| far).await.unwrap();
    assert!(why.starts_with("too many failures"), "{why}");
}

/// Comes as who dials the node does, and is cut when it has the node's answer.
async fn cut(node: &Arc<Core>, mut far: DuplexStream) {
    let (near, mut wire) = tokio::io::duplex(1 << 16);
    let cuts = async move {
        let mut hello = [0; 1 << 14];
        let n = wire.read(&mut hello).await.unwrap();
        far.write_all(&hello[..n]).await.unwrap();
        assert!(far.read(&mut hello).await.unwrap() > 0);
    };
    let (session, ()) = tokio::join!(Box::pin(friend(node, near)), Box::pin(cuts));
    assert!(session.is_none());
}

/// Of those behind one address, who has a bad line does not shut the others out.
#[tokio::test]
async fn who_is_cut_in_the_handshake_counts_less_than_who_is_refused_yet_counts() {
    let node = strict(|_| {});
    for _ in 0..10 {
        let why = knock(&node, far(), |far| cut(&node, far)).await.unwrap();
        assert!(!why.contains("failures"), "{why}");
    }
    assert_eq!(knock(&node, far(), |far| friend(&node, far)).await, None);
    let node = strict(|gate| gate.penalty_lost = HOUR);
    for _ in 0..4 {
        let why = knock(&node, far(), |far| cut(&node, far)).await.unwrap();
        assert!(!why.contains("failures"), "{why}");
    }
    let why = knock(&node, far(), |far| friend(&node, far)).await;
    assert!(why.is_some_and(|why| why.starts_with("too many failures")));
}

/// Nobody else uses it, and its place at the peer is worth something.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_forgotten_ends_soon_behind_its_last_substream() {
    let node = strict(|_| {});
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let peer = StackConfig::new(identity, Arc::new(AcceptAny));
    let (near, far) = tokio::io::duplex(1 << 16);
    let dials = Session::handshake(near, &[], Side::Client, &node.config.stack);
    let (ours, theirs) = tokio::join!(
        Box::pin(dials),
        Box::pin(Session::handshake(far, &[], Side::Server, &peer))
    );
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let path = Path {
        via: Vec::new(),
        dialled: true,
        label: "test".into(),
    };
    let live = register(&node, ours.clone(), path, Came::Dialled(None)).await;
    assert!(live.is_ok());
    let (lasting, accepted) = tokio::join!(ours.open("x"), async {
        theirs.accept().await.unwrap().accept().await
    });
    node.forget(&ours);
    sleep(Duration::from_secs(60)).await;
    assert!(theirs.closed().now_or_never().is_none(), "it was in use");
    drop((lasting.unwrap(), accepted.unwrap()));
    let end = timeout(Duration::from_secs(60), theirs.closed()).await;
    assert!(end.expect("it keeps its place").is_clean());
}

/// As a relay that passes on little, or a serial line.
#[tokio::test(start_paused = true)]
async fn a_session_in_use_goes_on_beside_a_newer_one_however_slow_it_is() {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let mut config = NodeConfig::new(identity, Arc::new(AcceptAny));
    config.shares.sessions.peer = 4;
    let node = Arc::new(Core::new(config));
    let counts = async |call: Call| {
        let mut stream = call.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_u64(all.len() as u64).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    node.serve("x".into(), Service::new(Access::Anyone, counts));
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let one_more = async |near, far| up(&node, &identity, near, far).await;
    let (near, mut one) = tokio::io::duplex(1 << 16);
    let (mut other, far) = tokio::io::duplex(1 << 16);
    let slow = Arc::new(Notify::new());
    let slows = Arc::clone(&slow);
    tokio::spawn(async move {
        let mut copying = Box::pin(tokio::io::copy_bidirectional(&mut one, &mut other));
        tokio::select! {
            _ = &mut copying => return,
            () = slows.notified() => {}
        }
        sleep(3 * ALIVE).await;
        let _ = copying.await;
    });
    let first = one_more(near, far).await;
    let mut stream = first.open("x").await.unwrap();
    slow.notify_one();
    tokio::task::yield_now().await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let _second = one_more(near, far).await;
    sleep(2 * ALIVE).await;
    stream.write_all(&[0; 4711]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_u64().await.expect("it was cut"), 4711);
}

/// What a load balancer does, once a second.
#[tokio::test(start_paused = true)]
async fn who_leaves_before_the_first_byte_has_not_failed_and_is_news_once_a_minute() {
    for from in [far(), Remote::Tcp("127.0.0.1:1".parse().unwrap())] {
        let node = strict(|_| {});
        let mut events = node.events();
        for _ in 0..120 {
            let why = knock(&node, from.clone(), async |far| drop(far)).await;
            let why = why.unwrap();
            assert!(why.contains("without a word"), "{why}");
            sleep(Duration::from_secs(1)).await;
        }
        drop(node);
        let mut news = 0;
        while let Some(event) = events.next().await {
            news += usize::from(matches!(event, Event::TurnedAway { .. }));
        }
        // In 120 s, or a little more.
        assert!((2..=3).contains(&news), "{news}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_gives_its_place_to_who_comes() {
    let node = strict(|gate| gate.all = 1);
    let silent = knock(&node, far(), async |far| {
        sleep(Duration::from_secs(9)).await;
        drop(far);
    });
    let comes = async {
        sleep(Duration::from_secs(1)).await;
        let other = Remote::Tcp("192.0.2.8:4711".parse().unwrap());
        knock(&node, other, |far| friend(&node, far)).await
    };
    let (silent, came) = tokio::join!(silent, comes);
    assert_eq!(came, None);
    let why = silent.unwrap();
    assert!(why.contains("another one took its place"), "{why}");
}

/// As whoever dials the node; why that comes to nothing.
async fn refused(node: &Arc<Core>, far: DuplexStream) -> String {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let config = StackConfig::new(identity, Arc::new(Pinned::one(node.id)));
    let stream = Stream::from_io(far, "test");
    let session = Session::handshake(stream, DEFAULT_LAYERS, Side::Client, &config);
    let error = Box::pin(session).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    error.to_string()
}

/// At each stage at which there may be no place: at the door, in the queue, and inside.
#[tokio::test(start_paused = true)]
async fn who_gets_no_place_reads_that_it_is_busy_and_tries_again() {
    for (waiting, why) in [
        (0, "too many handshakes at once"),
        (9, "waited 1 s for a place"),
    ] {
        let node = strict(|gate| {
            (gate.all, gate.waiting) = (1, waiting);
            gate.patience = Duration::from_secs(1);
        });
        let silent = knock(&node, Remote::Memory, async |far| {
            sleep(Duration::from_secs(2)).await;
            drop(far);
        });
        let mut read = String::new();
        let comes = async {
            tokio::task::yield_now().await;
            let comes = knock(&node, Remote::Memory, async |far| {
                read = refused(&node, far).await;
            });
            comes.await
        };
        let (_, came) = tokio::join!(silent, comes);
        let came = came.expect("it was let in");
        assert!(came.contains(why), "{came}");
        assert!(read.contains("it is busy"), "{read}");
    }
}

/// One that has begun, and whose place another one gets: before its first byte came, and behind our answer to that.
#[tokio::test(start_paused = true)]
async fn whose_place_is_given_away_reads_that() {
    for begins in [false, true] {
        let node = strict(|gate| gate.all = 1);
        let mut read = Vec::new();
        let slow = knock(&node, Remote::Memory, async |mut far| {
            if begins {
                // Of a handshake that another node is in, up to the answer.
                let (near, mut other) = tokio::io::duplex(1 << 16);
                let hello = tokio::spawn(async move {
                    let mut hello = vec![0; 1 << 14];
                    let n = other.read(&mut hello).await.unwrap();
                    hello.truncate(n);
                    hello
                });
                let _ = friend(&node, near).await;
                far.write_all(&hello.await.unwrap()).await.unwrap();
            }
            far.read_to_end(&mut read).await.unwrap();
        });
        let comes = async {
            sleep(Duration::from_secs(1)).await;
            let other = Remote::Tcp("192.0.2.8:4711".parse().unwrap());
            knock(&node, other, |far| friend(&node, far)).await
        };
        let (slow, came) = tokio::join!(slow, comes);
        assert_eq!(came, None, "{begins}");
        let why = slow.unwrap();
        assert!(why.contains("another one took its place"), "{why}");
        if begins {
            assert_eq!(read.first(), Some(&22), "an answer");
        } else {
            assert_eq!(read, [21, 3, 3, 0, 2, 2, 90]);
        }
    }
}

/// What keeps the wire of a session that is refused open counts to the gate, as the handshake before it did.
#[tokio::test]
async fn who_is_refused_for_want_of_room_holds_its_place_until_it_is_gone() {
    let mut config = NodeConfig::new(
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Arc::new(AcceptAny),
    );
    config.shares.sessions.all = 0;
    let node = Arc::new(Core::new(config));
    let mut gone = None;
    let why = knock(&node, far(), async |far| {
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let config = StackConfig::new(identity, Arc::new(Pinned::one(node.id)));
        let stream = Stream::from_io(far, "test");
        // Up to the mux, and then it neither reads nor leaves.
        let never = pin!(pending());
        let built = stack::build(stream, DEFAULT_LAYERS, Side::Client, &config, never);
        gone = Some(Box::pin(built).await.unwrap());
    });
    let why = why.await.unwrap();
    assert!(why.contains("too many sessions"), "{why}");
    let mut onion = gone.unwrap().onion;
    let said = async {
        onion.write_all(b"still there?").await?;
        onion.flush().await
    };
    assert!(said.await.is_err(), "its wire is still held");
}

/// What opens and closes a stream between two looks is in use all the same.
#[tokio::test(start_paused = true)]
async fn a_session_of_many_short_substreams_is_not_idle() {
    let node = strict(|_| {});
    let echo = async |call: Call| {
        let mut stream = call.accept().await.unwrap();
        let _ = stream.write_all(b"x").await;
        let _ = stream.shutdown().await;
    };
    node.serve("x".into(), Service::new(Access::Anyone, echo));
    let mut session = None;
    let why = knock(&node, far(), async |far| {
        session = friend(&node, far).await;
    });
    assert_eq!(why.await, None);
    let session = session.unwrap();
    for _ in 0..100 {
        let mut stream = session.open("x").await.expect("it was closed");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 1);
        drop(stream);
        sleep(Duration::from_secs(17)).await;
    }
    let end = timeout(Duration::from_secs(1200), session.closed()).await;
    let code = GoAwayCode::Idle;
    assert!(
        matches!(end, Ok(SessionEnd::GoneAway { code: it }) if it == code),
        "idle after all: {end:?}"
    );
}

/// Asks for a proof, for ever.
struct Proof;

impl Protocol for Proof {
    fn names(&self) -> &[&'static str] {
        &["cepa.proof"]
    }

    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut stream = call.accept().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
    }
}

/// Strangers of many hosts, each with keys of its own, hold all that strangers may have.
#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_in_while_strangers_of_many_hosts_hold_sessions_for_nothing() {
    let mut config = NodeConfig::new(
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Arc::new(AcceptAny),
    );
    config.shares.sessions = super::super::Limits {
        all: 16,
        peer: 4,
        host: 2,
    };
    let node = Arc::new(Core::new(config));
    node.add_protocol(Arc::new(Proof)).unwrap();
    let served = async |call: Call| {
        let mut stream = call.accept().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    node.serve("x".into(), Service::new(Access::Anyone, served));
    let come = async |host: u8| {
        let mut session = None;
        let from = Remote::Tcp(([192, 0, 2, host], 4711).into());
        let why = knock(&node, from, async |far| {
            session = friend(&node, far).await;
        });
        (why.await, session)
    };
    // The first one is served, and the rest wait with nothing open, or for a proof.
    let mut all = Vec::new();
    for n in 0..12_u8 {
        let (why, session) = come(1 + n / 2).await;
        assert_eq!(why, None);
        let session = session.unwrap();
        let stream = match n {
            0 => Some(session.open("x").await.unwrap()),
            n if n % 2 == 0 => Some(session.open("cepa.proof").await.unwrap()),
            _ => None,
        };
        all.push((session, stream));
    }
    let mut newcomers = Vec::new();
    for n in 0..9 {
        let (why, session) = come(100 + n).await;
        assert_eq!(why, None, "{n}");
        // It has time for what it came for.
        let session = session.unwrap();
        session.open("x").await.unwrap();
        newcomers.push(session);
    }
    let mut ends = Vec::new();
    for (session, _) in &all {
        ends.push(timeout(Duration::from_secs(5), session.closed()).await.ok());
    }
    let code = GoAwayCode::Limit(crate::mux::LimitKind::Sessions);
    let gone = |end: &&Option<SessionEnd>| matches!(end, Some(SessionEnd::GoneAway { code: it }) if *it == code);
    assert_eq!(ends.iter().filter(gone).count(), 9, "{ends:?}");
    assert!(ends[0].is_none(), "what is served goes on");
    // From this machine all come as from one host, whatever address they have.
    for n in 0..9 {
        let from = Remote::Tcp(([127, 0, 0, n], 4711).into());
        let why = knock(&node, from, async |far| {
            newcomers.extend(friend(&node, far).await);
        });
        assert_eq!(why.await, None, "{n}");
    }
    let here = node.sessions().into_iter();
    let here = here.filter(|(_, live)| live.host == Some(Source::HERE));
    assert!(here.count() <= 2);
}

/// Hole 13: more sessions of one key within one round trip than pings may be on their way.
#[tokio::test(start_paused = true)]
async fn a_session_lives_however_many_of_its_peer_come_up_before_it_answers() {
    const MANY: usize = 100;
    let mut config = NodeConfig::new(
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Arc::new(AcceptAny),
    );
    config.shares.sessions.peer = MANY + 1;
    config.shares.sessions.all = 10 * MANY;
    config.shares.sessions.host = MANY + 1;
    config.shares.descriptors.peer = 5 * MANY;
    config.shares.descriptors.all = 50 * MANY;
    let node = Arc::new(Core::new(config));
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let one_more = async |near, far| up(&node, &identity, near, far).await;
    // The first one's wire carries nothing while this does not run.
    let (near, mut one) = tokio::io::duplex(1 << 16);
    let (mut other, far) = tokio::io::duplex(1 << 16);
    let mut wire = Box::pin(async move {
        let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
    });
    let first = tokio::select! {
        session = one_more(near, far) => session,
        () = &mut wire => unreachable!(),
    };
    let mut others = Vec::new();
    for _ in 0..MANY {
        let (near, far) = tokio::io::duplex(1 << 16);
        others.push(one_more(near, far).await);
        tokio::task::yield_now().await;
    }
    tokio::spawn(wire);
    sleep(2 * ALIVE).await;
    for session in others.iter().chain([&first]) {
        session.ping().await.expect("it was taken for dead");
    }
}
