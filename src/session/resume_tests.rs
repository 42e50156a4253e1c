//! Who may take a session up on another connection, and who may not: with the token and without the key, with the key and
//! without the token. And what a change of the network does for one that waits.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::meter::Meter;
use cepa_transports::{Layer, Remote, Side, Stream, memory};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::resuming;
use super::{ConnectError, OpenError, PathChange, Session, SessionEnd};
use crate::identity::{AcceptAny, Identity, KeyKind, RotationTimes, UnixTime};
use crate::mux::{GoAwayCode, LimitKind, ReceivePool};
use crate::network::{NetworkChanges, NetworkSignal};
use crate::resume::{At, Config, OverReason, Refusal, SessionLost};
use crate::stack::{
    self, Admission, Admitted, Ends, Found, Lasting, Moved, NotAdmitted, NotReached, StackConfig,
};
use crate::tls::Peer;

const MUX_TLS: &[Layer] = &[Layer::Mux, Layer::Tls];

fn config(identity: &Identity) -> StackConfig {
    StackConfig::new(identity.clone(), Arc::new(AcceptAny)).with_resume(Some(Config::default()))
}

fn identity() -> Identity {
    Identity::generate(KeyKind::Ed25519).unwrap()
}

async fn meet(client: &StackConfig, server: &StackConfig) -> (Session, Session) {
    let (near, far) = memory::pair();
    let (client, server) = tokio::join!(
        Box::pin(Session::handshake(near, MUX_TLS, Side::Client, client)),
        Box::pin(Session::handshake(far, MUX_TLS, Side::Server, server)),
    );
    (client.unwrap(), server.unwrap())
}

/// Whoever has `lasting` tries to take it up as `client`; what came of it at either end.
async fn take_up(
    lasting: &Arc<Lasting>,
    client: &StackConfig,
    server: &StackConfig,
) -> (Result<(), ConnectError>, Result<Session, ConnectError>) {
    let (near, far) = memory::pair();
    let dials = async {
        let never = std::pin::pin!(std::future::pending());
        let built = stack::build(near, MUX_TLS, Side::Client, client, never).await?;
        resuming::go_on(lasting, built, client, false).await
    };
    let accepts = Session::handshake(far, MUX_TLS, Side::Server, server);
    tokio::join!(Box::pin(dials), Box::pin(accepts))
}

/// A copy of a session's name and token, held by somebody who believes to be the same peer.
fn stolen(from: &Session, thief: &Session) -> Arc<Lasting> {
    let (lasting, own) = (from.lasting().unwrap(), thief.lasting().unwrap());
    let parts = (lasting.ticket.clone(), own.handle.clone());
    let first = thief.path().unwrap();
    Arc::new(Lasting::new(parts, Meter::default(), first).unwrap())
}

/// Without hanging, should it not come.
async fn soon(what: impl Future<Output = ()>) {
    let patience = Duration::from_secs(120);
    tokio::time::timeout(patience, what)
        .await
        .expect("it hangs");
}

#[tokio::test]
async fn the_token_is_worth_nothing_without_the_key() {
    let (a, b, thief) = (identity(), identity(), identity());
    let server = config(&b);
    let (client, far) = meet(&config(&a), &server).await;
    let (own, _keeps) = meet(&config(&thief), &server).await;
    let (tried, accepted) = take_up(&stolen(&client, &own), &config(&thief), &server).await;
    let refused = ConnectError::NotResumed(Refusal::NotYours).to_string();
    assert_eq!(tried.unwrap_err().to_string(), refused);
    let ConnectError::NotTakenUp { peer, why } = accepted.unwrap_err() else {
        panic!("it is told who asked");
    };
    assert_eq!((peer, why), (thief.peer_id(), Refusal::NotYours));
    assert_eq!(
        far.path().unwrap().generation,
        0,
        "the session runs where it ran"
    );
    far.ping().await.unwrap();
    client.ping().await.unwrap();
}

#[tokio::test]
async fn the_key_is_worth_nothing_without_the_token() {
    let (a, b) = (identity(), identity());
    let server = config(&b);
    let (client, far) = meet(&config(&a), &server).await;
    let (other, _keeps) = meet(&config(&a), &server).await;
    // The name of one, the token of another session of the same peer.
    let (mut ticket, own) = (
        other.lasting().unwrap().ticket.clone(),
        other.lasting().unwrap(),
    );
    ticket.id = client.lasting().unwrap().ticket.id;
    let parts = (ticket, own.handle.clone());
    let forged = Lasting::new(parts, Meter::default(), other.path().unwrap());
    let (tried, accepted) = take_up(&Arc::new(forged.unwrap()), &config(&a), &server).await;
    assert!(matches!(
        tried,
        Err(ConnectError::NotResumed(Refusal::NotYours))
    ));
    assert!(accepted.is_err());
    assert_eq!(far.path().unwrap().generation, 0);
    // The holder of both may, and its session goes on.
    let (taken, accepted) = take_up(client.lasting().unwrap(), &config(&a), &server).await;
    taken.unwrap();
    assert!(matches!(accepted, Err(ConnectError::Resumed(_))));
    far.ping().await.unwrap();
    assert_eq!(far.path().unwrap().generation, 1);
}

#[tokio::test]
async fn another_server_gets_nothing_of_the_session() {
    let (a, b, other) = (identity(), identity(), identity());
    let (client, far) = meet(&config(&a), &config(&b)).await;
    let (tried, _) = take_up(client.lasting().unwrap(), &config(&a), &config(&other)).await;
    assert!(matches!(tried, Err(ConnectError::OtherPeer(id)) if id == other.peer_id()));
    client.ping().await.unwrap();
    far.ping().await.unwrap();
}

#[tokio::test]
async fn the_heir_of_a_key_may_take_its_session_up() {
    let (a, b) = (identity(), identity());
    let server = config(&b);
    let (client, far) = meet(&config(&a), &server).await;
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let times = RotationTimes {
        issued: at(0),
        expires: at(u64::MAX),
        overlap: at(0),
    };
    let heir = a.rotate(KeyKind::Ed25519, times).unwrap();
    let (taken, accepted) = take_up(client.lasting().unwrap(), &config(&heir), &server).await;
    taken.unwrap();
    assert!(matches!(accepted, Err(ConnectError::Resumed(_))));
    far.ping().await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(far.path().unwrap().layers[0].peer().id(), heir.peer_id());
}

/// How a path is that carries nothing any more.
#[derive(Clone, Copy, PartialEq)]
enum Wire {
    Works,
    Stalls,
    IsCut,
}

/// A session over a wire that can be stopped.
async fn meet_over(
    client: &StackConfig,
    server: &StackConfig,
) -> (Session, Session, watch::Sender<Wire>) {
    let (near, mut left) = tokio::io::duplex(1 << 16);
    let (mut right, far) = tokio::io::duplex(1 << 16);
    let (wire, mut state) = watch::channel(Wire::Works);
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut left, &mut right) => {}
            _ = state.wait_for(|it| *it != Wire::Works) => {}
        }
        let _ = state.wait_for(|it| *it == Wire::IsCut).await;
    });
    let (near, far) = (Stream::from_io(near, "near"), Stream::from_io(far, "far"));
    let (client, server) = tokio::join!(
        Box::pin(Session::handshake(near, MUX_TLS, Side::Client, client)),
        Box::pin(Session::handshake(far, MUX_TLS, Side::Server, server)),
    );
    (client.unwrap(), server.unwrap(), wire)
}

/// Waits until a session keeps no more bytes than before.
async fn kept(session: &Session) -> usize {
    let held = || session.path_stats().unwrap().held;
    let (mut before, mut quiet) = (held(), 0);
    while quiet < 40 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let now = held();
        quiet = if now == before && now > 0 {
            quiet + 1
        } else {
            0
        };
        before = now;
    }
    usize::try_from(before).unwrap()
}

/// A peer that acknowledges nothing, and one that is away, make this end keep what their pool has room for and no more;
/// nothing is lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_a_peer_comes_from_its_pool() {
    const STREAMS: usize = 24;
    const EACH: usize = 200 << 10;
    // What a session keeps without asking.
    const FREE: usize = 64 << 10;
    let (a, b) = (identity(), identity());
    let pool = ReceivePool::new(2 << 20);
    let mut server = config(&b);
    server.mux.receive_pool = Some(pool.clone());
    let (client, far, wire) = meet_over(&config(&a), &server).await;
    let accepting = tokio::spawn({
        let client = client.clone();
        async move {
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(client.accept().await.unwrap().accept().await.unwrap());
            }
            streams
        }
    });
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(far.open("bulk").await.unwrap());
    }
    let arriving = accepting.await.unwrap();
    wire.send_replace(Wire::Stalls);
    let writing: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                stream.write_all(&vec![7; EACH]).await.unwrap();
                stream.shutdown().await.unwrap();
            })
        })
        .collect();
    for state in [Wire::Stalls, Wire::IsCut] {
        wire.send_replace(state);
        let held = kept(&far).await;
        let used = pool.used();
        assert!(used <= pool.limit(), "{used} of the pool");
        assert!(held <= used + FREE, "{held} kept, {used} paid");
        assert!(held >= FREE / 2, "{held} kept: there was room");
    }
    soon(async {
        while far.path().is_some() || client.path().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (taken, _) = take_up(client.lasting().unwrap(), &config(&a), &server).await;
    taken.unwrap();
    for mut stream in arriving {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), EACH);
    }
    for writing in writing {
        writing.await.unwrap();
    }
    drop((client, far));
    soon(async {
        while pool.used() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// What was sent with an opening is the session's to keep until it has arrived, and so is the answer.
#[tokio::test]
async fn an_open_that_does_not_wait_goes_on_over_the_next_connection() {
    let (a, b) = (identity(), identity());
    let server = config(&b);
    for answered_before in [false, true] {
        let (client, far, wire) = meet_over(&config(&a), &server).await;
        let until_lost = soon(async {
            while far.path().is_some() || client.path().is_some() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        let answer = async |far: &Session| {
            let incoming = far.accept().await.unwrap();
            assert_eq!(incoming.service(), "db");
            let mut stream = incoming.accept().await.unwrap();
            let mut asked = [0; 8];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"question");
            stream.write_all(b"answer").await.unwrap();
            stream.shutdown().await.unwrap();
        };
        if !answered_before {
            wire.send_replace(Wire::Stalls);
        }
        let mut stream = client.open_early("db").await.unwrap();
        stream.write_all(b"question").await.unwrap();
        let mut refused = client.open_early("nope").await.unwrap();
        if answered_before {
            answer(&far).await;
            let nope = far.accept().await.unwrap();
            wire.send_replace(Wire::IsCut);
            nope.refuse("no").await.unwrap();
        }
        wire.send_replace(Wire::IsCut);
        until_lost.await;
        let (taken, _) = take_up(client.lasting().unwrap(), &config(&a), &server).await;
        taken.unwrap();
        if !answered_before {
            answer(&far).await;
            far.accept().await.unwrap().refuse("no").await.unwrap();
        }
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"answer");
        let error = refused.accepted().await.unwrap_err();
        assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
    }
}

/// Room that is wanted for another session at some time.
#[derive(Debug, Default)]
struct Wanted(Arc<Notify>);

impl Admission for Wanted {
    fn admit(&self, _: &Peer) -> Result<Admitted, NotAdmitted> {
        let wanted = Arc::clone(&self.0);
        Ok(Admitted::default().until(async move {
            wanted.notified().await;
            Some(GoAwayCode::Limit(LimitKind::Sessions))
        }))
    }
}

#[tokio::test]
async fn who_comes_back_to_a_session_that_made_room_is_reported_so() {
    let (a, b, other) = (identity(), identity(), identity());
    let room = Arc::new(Wanted::default());
    let mut server = config(&b);
    server.admission = Some(Arc::<Wanted>::clone(&room));
    let (client, far, wire) = meet_over(&config(&a), &server).await;
    let mut roomy = server.clone();
    roomy.admission = None;
    let (own, _keeps) = meet(&config(&other), &roomy).await;
    wire.send_replace(Wire::IsCut);
    soon(async {
        while far.path().is_some() || client.path().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    room.0.notify_waiters();
    far.closed().await;
    // It is nobody else's business.
    let (tried, _) = take_up(&stolen(&client, &own), &config(&other), &server).await;
    assert!(matches!(
        tried,
        Err(ConnectError::NotResumed(Refusal::NotYours))
    ));
    let (tried, _) = take_up(client.lasting().unwrap(), &config(&a), &server).await;
    let why = tried.unwrap_err();
    assert!(matches!(why, ConnectError::NotResumed(Refusal::NoRoom)));
    assert!(why.to_string().contains("no room left"), "{why}");
}

/// Room that is wanted back without a word, and what its memory held when it was given back.
#[derive(Debug)]
struct Shared {
    pool: ReceivePool,
    wanted: Arc<Notify>,
    left: Arc<std::sync::Mutex<Option<usize>>>,
}

struct Room(ReceivePool, Arc<std::sync::Mutex<Option<usize>>>);

impl Drop for Room {
    fn drop(&mut self) {
        *self.1.lock().unwrap() = Some(self.0.used());
    }
}

impl Admission for Shared {
    fn admit(&self, _: &Peer) -> Result<Admitted, NotAdmitted> {
        let wanted = Arc::clone(&self.wanted);
        let room = Room(self.pool.clone(), Arc::clone(&self.left));
        let admitted = Admitted::holding(room).with_receive_pool(self.pool.clone());
        Ok(admitted.until(async move {
            wanted.notified().await;
            None
        }))
    }
}

fn shared() -> Shared {
    Shared {
        pool: ReceivePool::new(2 << 20),
        wanted: Arc::default(),
        left: Arc::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn room_is_given_back_behind_the_memory_that_was_kept_in_it() {
    let (pool, wanted, left);
    let mut server = config(&identity());
    {
        let room = shared();
        pool = room.pool.clone();
        wanted = Arc::clone(&room.wanted);
        left = Arc::clone(&room.left);
        server.admission = Some(Arc::new(room));
    }
    let (client, far, wire) = meet_over(&config(&identity()), &server).await;
    let arriving = {
        let client = client.clone();
        tokio::spawn(async move {
            let first = client.accept().await.unwrap().accept().await.unwrap();
            (
                first,
                client.accept().await.unwrap().accept().await.unwrap(),
            )
        })
    };
    // More than is kept without asking.
    let mut streams = [
        far.open("bulk").await.unwrap(),
        far.open("bulk").await.unwrap(),
    ];
    let _arriving = arriving.await.unwrap();
    wire.send_replace(Wire::Stalls);
    let writing = tokio::spawn(async move {
        let [one, two] = &mut streams;
        let bulk = vec![7; 1 << 20];
        tokio::try_join!(one.write_all(&bulk), two.write_all(&bulk)).map(drop)
    });
    kept(&far).await;
    assert!(pool.used() > 0, "something is kept for the peer");
    wanted.notify_one();
    far.closed().await;
    writing.await.unwrap().unwrap_err();
    let given_back = async {
        while left.lock().unwrap().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(S(60), given_back).await.unwrap();
    assert_eq!(*left.lock().unwrap(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_there_reads_that_its_session_makes_room() {
    let room = shared();
    let wanted = Arc::clone(&room.wanted);
    let mut server = config(&identity());
    server.admission = Some(Arc::new(room));
    let (client, _far) = meet(&config(&identity()), &server).await;
    wanted.notify_one();
    let end = timeout(S(60), client.closed()).await.unwrap();
    let SessionEnd::GivenUp(SessionLost::GivenUpByPeer { reason }) = &end else {
        panic!("{end:?}");
    };
    assert_eq!(*reason, OverReason::NoRoom);
}

/// The name of a session that ended in order is remembered, for a peer that did not hear that its end had arrived.
#[tokio::test]
async fn who_asks_for_a_session_that_ended_in_order_is_reported_so() {
    let (a, b, c) = (identity(), identity(), identity());
    let server = config(&b);
    let (client, far) = meet(&config(&a), &server).await;
    let (other, _keeps) = meet(&config(&a), &server).await;
    let (thief, _keeps_too) = meet(&config(&c), &server).await;
    let (asks, steals) = (stolen(&client, &other), stolen(&client, &thief));
    client.close().await;
    assert!(client.closed().await.is_clean());
    assert!(far.closed().await.is_clean());
    let id = asks.ticket.id;
    let buried = async {
        while !matches!(server.registry.find(&id), Some(Found::Ended(_))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), buried)
        .await
        .unwrap();
    let (tried, _) = take_up(&asks, &config(&a), &server).await;
    assert!(
        matches!(tried, Err(ConnectError::NotResumed(Refusal::Over))),
        "{tried:?}"
    );
    let (tried, _) = take_up(&steals, &config(&c), &server).await;
    assert!(
        matches!(tried, Err(ConnectError::NotResumed(Refusal::NotYours))),
        "{tried:?}"
    );
}

/// Each layer has to prove what it did on the first connection.
#[tokio::test]
async fn every_layer_counts_and_in_order() {
    let (a, b, c, d) = (identity(), identity(), identity(), identity());
    let (inner, _far) = meet(&config(&a), &config(&b)).await;
    let (outer, _far_too) = meet(&config(&c), &config(&d)).await;
    let [inner, outer] = [inner, outer].map(|it| it.path().unwrap().layers.to_vec());
    let both = [&outer[..], &inner].concat();
    let own = (&a, &[c.clone()][..]);
    let ends = Ends::of(&both).unwrap();
    assert!(ends.are(&both, own));
    assert!(ends.are(&[&outer[..], &outer, &inner, &inner].concat(), own));
    assert!(!ends.are(&inner, own), "the outer one is not there");
    assert!(!ends.are(&outer, own));
    assert!(!ends.are(&[&inner[..], &outer].concat(), own));
    assert!(!ends.are(&[&inner[..], &inner].concat(), own));
    assert!(!ends.are(&[&both[..], &outer].concat(), own));
    assert!(!ends.are(&[], own));
    let one = Ends::of(&[&inner[..], &inner].concat()).unwrap();
    assert!(one.are(&inner, own), "two that prove the same are one");
    assert!(!one.are(&both, own));
}

/// Takes what a peer opens, so that it can ask for a pause.
fn serve(session: &Session) {
    let session = session.clone();
    tokio::spawn(async move { while session.accept().await.is_ok() {} });
}

async fn peer_keeps(session: &Session, time: Duration) {
    let handle = &session.lasting().unwrap().handle;
    let reported = async {
        while handle.stats().peer_park != Some(time) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reported = tokio::time::timeout(Duration::from_secs(60), reported).await;
    assert!(reported.is_ok(), "{:?} instead of {time:?}", handle.stats());
}

/// Two that want silence at once: the end of the older one leaves the newer one what it was given.
#[tokio::test]
async fn the_longest_pause_counts_until_it_ends() {
    let (a, b) = (identity(), identity());
    let (client, far) = meet(&config(&a), &config(&b)).await;
    serve(&client);
    serve(&far);
    let [usual, short, long] = [600, 1200, 1800].map(Duration::from_secs);
    let first = client.pause(short).await.unwrap();
    peer_keeps(&far, short).await;
    let second = client.pause(long).await.unwrap();
    peer_keeps(&far, long).await;
    drop(first);
    let third = client.pause(short).await.unwrap();
    // Behind a round trip: what the first one's end had changed would be told by now.
    client.ping().await.unwrap();
    assert_eq!(far.lasting().unwrap().handle.stats().peer_park, Some(long));
    drop(second);
    peer_keeps(&far, short).await;
    drop(third);
    peer_keeps(&far, usual).await;
}

/// Whoever is stopped as soon as its peer has agreed has said by then how long it keeps the session itself.
#[tokio::test]
async fn who_grants_a_pause_knows_for_how_long_the_session_is_kept() {
    let (a, b) = (identity(), identity());
    let (client, far) = meet(&config(&a), &config(&b)).await;
    serve(&far);
    let time = Duration::from_secs(1200);
    let _pause = client.pause(time).await.unwrap();
    let peer_park = far.lasting().unwrap().handle.stats().peer_park;
    assert_eq!(peer_park, Some(time));
}

/// A session that nobody could find again is kept for nobody.
#[tokio::test]
async fn a_pause_keeps_no_session_that_is_not_kept() {
    let (a, b) = (identity(), identity());
    let mut server = config(&b);
    server.begins_nothing = true;
    let (client, far) = meet(&config(&a), &server).await;
    serve(&client);
    serve(&far);
    peer_keeps(&client, Duration::ZERO).await;
    let _pauses = [
        client.pause(Duration::from_secs(1200)).await.unwrap(),
        far.pause(Duration::from_secs(1200)).await.unwrap(),
    ];
    client.ping().await.unwrap();
    let kept = client.lasting().unwrap().handle.stats().peer_park;
    assert_eq!(kept, Some(Duration::ZERO));
}

/// "No path" is told by one task and "another path" by the next one: however slow the first is, its word comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_word_on_where_a_session_runs_never_comes_last() {
    let (a, b) = (identity(), identity());
    let (session, _far) = meet(&config(&a), &config(&b)).await;
    let first = session.path().unwrap();
    let ticket = session.lasting().unwrap().ticket.clone();
    let (near, far) = tokio::io::duplex(1 << 16);
    let near: stack::Wire = Box::new(near);
    let (mut stream, handle) = crate::resume::durable(near, Side::Client, &Config::default());
    handle.endure();
    let lasting = Lasting::new((ticket, handle.clone()), Meter::default(), first.clone());
    let lasting = Arc::new(lasting.unwrap());
    let words = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (begun, begins) = std::sync::mpsc::channel();
    let reported = Arc::clone(&words);
    lasting.when_moved(move |moved| {
        let here = matches!(moved, Moved::To { .. });
        if !here {
            let _ = begun.send(());
            // Time for the other one, which in the old order overtook this.
            std::thread::sleep(Duration::from_millis(300));
        }
        reported.lock().unwrap().push(here);
    });
    let reading = tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        stream.read_u8().await
    });
    drop(far);
    let lost = handle.lost().await.unwrap();
    let slow = {
        let lasting = Arc::clone(&lasting);
        std::thread::spawn(move || lasting.paused(&lost))
    };
    tokio::task::spawn_blocking(move || begins.recv())
        .await
        .unwrap()
        .unwrap();
    let (near, _far) = tokio::io::duplex(1 << 16);
    let at = crate::resume::At {
        generation: 1,
        received: 0,
    };
    let claim = handle.claim(at).await.unwrap();
    let number = claim.attach(Box::new(near), None).await.unwrap();
    let path = stack::PathInfo {
        generation: 1,
        number,
        ..first
    };
    lasting.attached(path, None);
    slow.join().unwrap();
    assert_eq!(*words.lock().unwrap(), [false, true]);
    reading.abort();
}

/// Both ends have dialled at once: two paths of one generation follow each other, and are told of in another order.
#[tokio::test]
async fn of_two_paths_of_one_generation_the_later_one_stays() {
    let (session, _far) = meet(&config(&identity()), &config(&identity())).await;
    let first = session.path().unwrap();
    let ticket = session.lasting().unwrap().ticket.clone();
    let (near, _first) = tokio::io::duplex(1 << 16);
    let near: stack::Wire = Box::new(near);
    let (mut stream, handle) = crate::resume::durable(near, Side::Client, &Config::default());
    handle.endure();
    let lasting = Lasting::new((ticket, handle.clone()), Meter::default(), first.clone());
    let lasting = Arc::new(lasting.unwrap());
    let moves = Arc::new(std::sync::Mutex::new(0));
    let counted = Arc::clone(&moves);
    lasting.when_moved(move |_| *counted.lock().unwrap() += 1);
    let reading = tokio::spawn(async move { stream.read_u8().await });
    let at = At {
        generation: 1,
        received: 0,
    };
    let proposal = handle.propose().await.unwrap();
    let (near, _theirs) = tokio::io::duplex(1 << 16);
    let claim = handle.claim(at).await.unwrap();
    let theirs = claim.attach(Box::new(near), None).await.unwrap();
    let (near, _ours) = tokio::io::duplex(1 << 16);
    let ours = proposal.attach(Box::new(near), at, None).await.unwrap();
    let path = |label: &str, number| stack::PathInfo {
        generation: 1,
        number,
        label: label.to_owned(),
        ..first.clone()
    };
    let (theirs, ours) = (path("theirs", theirs), path("ours", ours));
    // In order: the second one is told of too, and who waits for the end of the first one is told.
    lasting.attached(theirs.clone(), None);
    let left = lasting.left(theirs.number);
    lasting.attached(ours, None);
    timeout(S(30), left).await.unwrap();
    assert_eq!(*moves.lock().unwrap(), 2);
    // And in the other order.
    lasting.attached(theirs, None);
    assert_eq!(lasting.path().unwrap().label, "ours");
    reading.abort();
}

const S: fn(u64) -> Duration = Duration::from_secs;

/// A session over a wire that can be cut, or go silent: the client's end, its path as it looks to it, and the hand on its network.
struct Wired {
    session: Session,
    signal: NetworkSignal,
    wire: tokio::task::JoinHandle<()>,
    silence: tokio::sync::oneshot::Sender<()>,
    server: StackConfig,
    _far: Session,
}

async fn wired(local: &str, remote: &str) -> Wired {
    let (signal, network) = NetworkChanges::manual();
    let client = config(&identity()).with_network(network);
    let server = config(&identity()).with_network(NetworkChanges::never());
    let (near, mut one) = memory::pair();
    let (mut two, far) = memory::pair();
    let (silence, silent) = tokio::sync::oneshot::channel();
    let wire = tokio::spawn(async move {
        tokio::select! {
            _ = copy_bidirectional(&mut one, &mut two) => {}
            _ = silent => std::future::pending().await,
        }
    });
    let near = near
        .with_remote(Remote::Tcp(remote.parse().unwrap()))
        .with_local(Some(local.parse().unwrap()));
    let (session, far) = tokio::join!(
        Box::pin(Session::handshake(near, MUX_TLS, Side::Client, &client)),
        Box::pin(Session::handshake(far, MUX_TLS, Side::Server, &server)),
    );
    // What the handshake left on its way has been acknowledged.
    sleep(S(2)).await;
    Wired {
        session: session.unwrap(),
        signal,
        wire,
        silence,
        server,
        _far: far.unwrap(),
    }
}

/// Attempts to reach the peer again, none of which does; each takes so long.
fn attempts(session: &Session, take: Duration) -> UnboundedReceiver<Instant> {
    attempts_at(session, "tcp:127.0.0.1:1", take)
}

fn attempts_at(session: &Session, at: &str, take: Duration) -> UnboundedReceiver<Instant> {
    let (notify, reported) = unbounded_channel();
    session.redial_with(&at.parse().unwrap(), move || {
        let _ = notify.send(Instant::now());
        Box::pin(async move {
            sleep(take).await;
            Err(ConnectError::Over)
        })
    });
    reported
}

async fn paused(session: &Session, within: Duration) -> Option<Duration> {
    let (began, mut changes) = (Instant::now(), session.path_changes());
    match timeout(within, changes.next()).await {
        Ok(Some(PathChange::Paused { .. })) => Some(began.elapsed()),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_network_cuts_the_pause_short_and_a_storm_of_them_is_none_of_attempts() {
    let wired = wired("127.0.0.1:1", "127.0.0.1:2").await;
    let mut tried = attempts(&wired.session, Duration::ZERO);
    wired.wire.abort();
    assert!(paused(&wired.session, S(1)).await.is_some());
    // Until the pauses are those of somebody who is away.
    let mut last = tried.recv().await.unwrap();
    let mut pause = Duration::ZERO;
    while pause < S(20) {
        let next = tried.recv().await.unwrap();
        (pause, last) = (next - last, next);
    }
    sleep(S(5)).await;
    let changed = Instant::now();
    wired.signal.changed();
    let next = tried.recv().await.unwrap();
    assert!(
        next - changed <= Duration::from_millis(300),
        "{:?}",
        next - changed
    );
    // The next ones follow soon, too: what the network needs besides may come without a word.
    last = next;
    let next = tried.recv().await.unwrap();
    assert!(next - last <= S(2), "{:?}", next - last);
    last = next;
    let flaps = Instant::now();
    let mut count = 0;
    while flaps.elapsed() < S(60) {
        wired.signal.changed();
        sleep(Duration::from_millis(10)).await;
        while let Ok(at) = tried.try_recv() {
            assert!(at - last >= S(1), "{:?}", at - last);
            (last, count) = (at, count + 1);
        }
    }
    assert!((30..=60).contains(&count), "{count} attempts in 60 s");
}

/// Nobody else pays for an attempt on a line of this machine, and somebody may just have put the plug back in.
#[tokio::test(start_paused = true)]
async fn a_line_is_tried_every_two_seconds_however_long_it_is_away() {
    for (at, longest) in [
        ("serial:/dev/ttyUSB0,baud=115200", 2),
        ("tcp:127.0.0.1:1", 30),
    ] {
        let wired = wired("127.0.0.1:1", "127.0.0.1:2").await;
        let mut tried = attempts_at(&wired.session, at, Duration::ZERO);
        wired.wire.abort();
        let mut last = tried.recv().await.unwrap();
        let mut longest_pause = Duration::ZERO;
        for _ in 0..16 {
            let next = tried.recv().await.unwrap();
            longest_pause = longest_pause.max(next - last);
            last = next;
        }
        let expected = S(longest) * 3 / 4..=S(longest) + Duration::from_millis(100);
        assert!(expected.contains(&longest_pause), "{at}: {longest_pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_a_change_of_the_network_overtook_has_some_seconds_left() {
    let wired = wired("127.0.0.1:1", "127.0.0.1:2").await;
    let mut tried = attempts(&wired.session, S(1000));
    wired.wire.abort();
    let first = tried.recv().await.unwrap();
    sleep(S(20)).await;
    assert!(tried.try_recv().is_err(), "nothing has changed");
    // An interface that goes on to come and go leaves each attempt more time than the one before.
    let mut last = first;
    let mut gaps = Vec::new();
    while gaps.len() < 4 {
        wired.signal.changed();
        sleep(Duration::from_millis(100)).await;
        if let Ok(at) = tried.try_recv() {
            gaps.push((at - last).as_secs());
            last = at;
        }
    }
    assert_eq!(gaps[1..], [6, 12, 24]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_behind_a_change_is_followed_by_the_next_at_once() {
    let wired = wired("127.0.0.1:1", "127.0.0.1:2").await;
    let mut tried = attempts(&wired.session, S(2));
    wired.wire.abort();
    let mut last = tried.recv().await.unwrap();
    let mut pause = Duration::ZERO;
    while pause < S(20) {
        let next = tried.recv().await.unwrap();
        (pause, last) = (next - last, next);
    }
    wired.signal.changed();
    let next = tried.recv().await.unwrap();
    assert!(next - last <= S(4), "{:?}", next - last);
}

/// A path that came while this end's own attempt was under way, and is gone before that has failed.
#[tokio::test(start_paused = true)]
async fn a_path_that_is_lost_before_anybody_has_looked_is_reported_lost() {
    let wired = wired("127.0.0.1:1", "127.0.0.1:2").await;
    let mut tried = attempts(&wired.session, Duration::from_millis(500));
    let mut changes = wired.session.path_changes();
    wired.wire.abort();
    let mut next = async || timeout(S(60), changes.next()).await.unwrap().unwrap();
    assert!(matches!(next().await, PathChange::Paused { .. }));
    tried.recv().await.unwrap();

    let (near, mut one) = memory::pair();
    let (mut two, far) = memory::pair();
    let wire = tokio::spawn(async move { copy_bidirectional(&mut one, &mut two).await });
    let (moved, _) = tokio::join!(
        Box::pin(wired.session.migrate_on(near, MUX_TLS)),
        Box::pin(Session::handshake(
            far,
            MUX_TLS,
            Side::Server,
            &wired.server
        )),
    );
    moved.unwrap();
    assert!(matches!(next().await, PathChange::Resumed { .. }));
    wire.abort();
    assert!(matches!(next().await, PathChange::Paused { .. }));
    assert!(wired.session.path().is_none());
}

/// What some say is not yet what all say.
#[tokio::test(start_paused = true)]
async fn all_have_to_refuse_twice_whatever_some_said_before() {
    let wired = wired("127.0.0.1:1", "127.0.0.1:2").await;
    let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let lasting = wired.session.lasting().unwrap();
    lasting.set_redial_of_node(Arc::new(move |_| {
        let before = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let refused = NotReached::Refused {
            why: Refusal::Unknown,
            by_all: before > 0,
        };
        Box::pin(async move { Err(refused) })
    }));
    wired.wire.abort();
    timeout(S(60), wired.session.closed()).await.unwrap();
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 3);
}

/// An address for examples (RFC 5737), which no machine has.
const GONE: &str = "192.0.2.7:5";

#[tokio::test(start_paused = true)]
async fn a_path_from_an_address_that_is_gone_is_asked_at_once_when_the_network_changes() {
    // Silent, and by no change of the network: what keeps a connection finds out.
    let undoubted = wired(GONE, "127.0.0.1:2").await;
    undoubted.silence.send(()).unwrap();
    let found = paused(&undoubted.session, S(60)).await.unwrap();
    assert!(found > S(20), "{found:?}");

    let doubted = wired(GONE, "127.0.0.1:2").await;
    doubted.silence.send(()).unwrap();
    doubted.signal.changed();
    let found = paused(&doubted.session, S(60)).await.unwrap();
    assert!(found < S(3), "{found:?}");

    // One from an address that is still there is not in doubt.
    let fine = wired("127.0.0.1:1", "127.0.0.1:2").await;
    fine.silence.send(()).unwrap();
    fine.signal.changed();
    assert_eq!(paused(&fine.session, S(10)).await, None);

    // And one that answers goes on, however often it is asked.
    let answers = wired(GONE, "127.0.0.1:2").await;
    for _ in 0..20 {
        answers.signal.changed();
        assert_eq!(paused(&answers.session, S(2)).await, None);
    }
    answers.session.ping().await.unwrap();
}
