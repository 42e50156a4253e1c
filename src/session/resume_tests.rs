//! Who may take a session up on another connection, and who may not: with the token and without the key, with the key and
//! without the token.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::meter::Meter;
use cepa_transports::{Layer, Side, Stream, memory};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};

use super::resuming;
use super::{ConnectError, Session};
use crate::identity::{AcceptAny, Identity, KeyKind, RotationTimes, UnixTime};
use crate::mux::{GoAwayCode, LimitKind, ReceivePool};
use crate::resume::{Config, Refusal};
use crate::stack::{self, Admission, Admitted, Lasting, NotAdmitted, StackConfig};
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
async fn another_server_is_told_nothing_of_the_session() {
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
    while far.path().is_some() || client.path().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
    while pool.used() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
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
async fn who_comes_back_to_a_session_that_made_room_is_told_so() {
    let (a, b, other) = (identity(), identity(), identity());
    let room = Arc::new(Wanted::default());
    let mut server = config(&b);
    server.admission = Some(Arc::<Wanted>::clone(&room));
    let (client, far, wire) = meet_over(&config(&a), &server).await;
    let mut roomy = server.clone();
    roomy.admission = None;
    let (own, _keeps) = meet(&config(&other), &roomy).await;
    wire.send_replace(Wire::IsCut);
    while far.path().is_some() || client.path().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    room.0.notify_waiters();
    far.closed().await;
    // It is nobody else's business.
    let (tried, _) = take_up(&stolen(&client, &own), &config(&other), &server).await;
    assert!(matches!(
        tried,
        Err(ConnectError::NotResumed(Refusal::Unknown))
    ));
    let (tried, _) = take_up(client.lasting().unwrap(), &config(&a), &server).await;
    let why = tried.unwrap_err();
    assert!(matches!(why, ConnectError::NotResumed(Refusal::NoRoom)));
    assert!(why.to_string().contains("no room left"), "{why}");
}
