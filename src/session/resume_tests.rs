//! Who may take a session up on another connection, and who may not: with the token and without the key, with the key and
//! without the token. And what a change of the network does for one that waits.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::meter::Meter;
use cepa_transports::{Layer, Remote, Side, memory};
use tokio::io::copy_bidirectional;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

use super::resuming;
use super::{ConnectError, PathChange, Session};
use crate::identity::{AcceptAny, Identity, KeyKind, RotationTimes, UnixTime};
use crate::network::{NetworkChanges, NetworkSignal};
use crate::resume::{Config, Refusal};
use crate::stack::{self, Lasting, StackConfig};

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
    assert_eq!(accepted.unwrap_err().to_string(), refused);
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

const S: fn(u64) -> Duration = Duration::from_secs;

/// A session over a wire that can be cut, or go silent: the client's end, its path as it looks to it, and the hand on its network.
struct Wired {
    session: Session,
    signal: NetworkSignal,
    wire: tokio::task::JoinHandle<()>,
    silence: tokio::sync::oneshot::Sender<()>,
    _far: Session,
}

async fn wired(local: &str, remote: &str) -> Wired {
    let (signal, network) = NetworkChanges::told();
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
        _far: far.unwrap(),
    }
}

/// Attempts to reach the peer again, none of which does; each takes so long.
fn attempts(session: &Session, take: Duration) -> UnboundedReceiver<Instant> {
    let (tell, told) = unbounded_channel();
    session.dial_again_by(&"tcp:127.0.0.1:1".parse().unwrap(), move || {
        let _ = tell.send(Instant::now());
        Box::pin(async move {
            sleep(take).await;
            Err(ConnectError::Over)
        })
    });
    told
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
