//! Sessions that outlive their connections: cut, taken up again, moved, given up; and who may do that.
// Two ends in one task.
#![allow(clippy::large_futures)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, Pinned};
use cepa::node::{Access, Call, Event, Events, Node, NodeConfig, PeerAddr};
use cepa::protocols::relay::{Relay, RelayConfig, Relays};
use cepa::resume::{Config, Refusal};
use cepa::session::{ConnectError, PathChange, PathChanges, Session, SessionEnd, SessionLost};
use cepa::stack::{SERIAL_LAYERS, StackConfig};
use cepa::transports::testkit::{CableWatch, LineSettings, cable};
use cepa::transports::{Endpoint, Stream, listen, memory};
use cepa::{PeerId, Side};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use support::{Random, identity, soon};

/// Two peers that expect each other and keep their sessions.
#[derive(Clone)]
struct Peers {
    client: StackConfig,
    server: StackConfig,
}

impl Peers {
    fn new() -> Self {
        Self::of(identity(), identity())
    }

    /// That keep a session without a connection for so long.
    fn park(mut self, park: Duration) -> Self {
        for config in [&mut self.client, &mut self.server] {
            config.resume = Some(Config::default().with_park(park));
        }
        self
    }

    fn of(a: Identity, b: Identity) -> Self {
        let kept = Some(Config::default());
        let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
        Self {
            client: StackConfig::new(a, Arc::new(for_a)).with_resume(kept.clone()),
            server: StackConfig::new(b, Arc::new(for_b)).with_resume(kept),
        }
    }
}

/// A server that accepts for ever; sessions that are new come out of the channel.
struct Server {
    at: Endpoint,
    sessions: tokio::sync::mpsc::UnboundedReceiver<Session>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(address: &str, config: &StackConfig) -> Server {
    let mut listener = listen(&address.parse().unwrap()).await.unwrap();
    let at = listener.endpoint().clone();
    let (sender, sessions) = tokio::sync::mpsc::unbounded_channel();
    let (config, endpoint) = (config.clone(), at.clone());
    let task = tokio::spawn(async move {
        while let Ok(Some(stream)) = listener.accept().await {
            let (config, endpoint, sender) = (config.clone(), endpoint.clone(), sender.clone());
            tokio::spawn(async move {
                match Session::accept_on(stream, &endpoint, &config).await {
                    Ok(session) => drop(sender.send(session)),
                    Err(ConnectError::Resumed(_)) => {}
                    Err(error) => eprintln!("server: {error}"),
                }
            });
        }
    });
    Server { at, sessions, task }
}

/// A TCP proxy whose connections can be cut, and which can be down.
#[derive(Clone)]
struct Proxy {
    at: SocketAddr,
    /// How often all connections were cut, and whether new ones are refused.
    state: Arc<watch::Sender<(u64, bool)>>,
}

impl Proxy {
    async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new((0, false)));
        let watched = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut state = watched.subscribe();
                let (cuts, is_down) = *state.borrow();
                if is_down {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(to).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|(now, _)| *now != cuts) => {
                            // A reset, as of a host that is gone.
                            near.set_zero_linger().unwrap();
                            far.set_zero_linger().unwrap();
                        }
                    }
                });
            }
        });
        Self { at, state }
    }

    fn cut(&self) {
        self.state.send_modify(|(cuts, _)| *cuts += 1);
    }

    fn set_down(&self, down: bool) {
        self.state.send_modify(|(_, is_down)| *is_down = down);
    }

    fn endpoint(&self) -> Endpoint {
        format!("tcp:{}", self.at).parse().unwrap()
    }
}

fn address_of(endpoint: &Endpoint) -> SocketAddr {
    endpoint
        .to_string()
        .rsplit_once("tcp:")
        .unwrap()
        .1
        .parse()
        .unwrap()
}

/// Sends back what comes, on every stream.
fn echo(session: Session) {
    tokio::spawn(async move {
        while let Ok(incoming) = session.accept().await {
            tokio::spawn(async move {
                let stream = incoming.accept().await.unwrap();
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
}

/// Sends so many bytes and expects them back, with whatever happens meanwhile.
async fn there_and_back(session: &Session, seed: u64, bytes: usize) {
    let stream = session.open("echo").await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let sent = tokio::spawn(async move {
        let (mut random, mut hash, mut left) = (Random::new(seed), Sha256::new(), bytes);
        while left > 0 {
            let n = (1 + random.below(64 << 10)).min(left);
            let piece: Vec<u8> = (0..n).map(|_| random.next().to_be_bytes()[2]).collect();
            hash.update(&piece);
            to.write_all(&piece).await.unwrap();
            left -= n;
        }
        to.shutdown().await.unwrap();
        hash.finalize()
    });
    let (mut hash, mut got) = (Sha256::new(), 0);
    let mut piece = vec![0; 64 << 10];
    loop {
        match from.read(&mut piece).await.unwrap() {
            0 => break,
            n => {
                hash.update(&piece[..n]);
                got += n;
            }
        }
    }
    assert_eq!(got, bytes);
    assert_eq!(
        hash.finalize(),
        sent.await.unwrap(),
        "other bytes came back"
    );
}

async fn until_resumed(changes: &mut PathChanges) -> Duration {
    loop {
        let change = changes.next().await.expect("the session is over");
        if let PathChange::Resumed { without, .. } = change {
            return without;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_when_its_connection_is_cut_in_the_middle_of_a_transfer() {
    soon(async {
        let peers = Peers::new();
        let mut server = serve("tcp:127.0.0.1:0", &peers.server).await;
        let proxy = Proxy::new(address_of(&server.at)).await;
        let client = Session::dial(&proxy.endpoint(), &peers.client)
            .await
            .unwrap();
        assert!(client.outlives_connections());
        let far = server.sessions.recv().await.unwrap();
        echo(far.clone());
        there_and_back(&client, 1, 1 << 20).await;
        let mut changes = client.path_changes();
        let cutter = tokio::spawn({
            let proxy = proxy.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                proxy.cut();
            }
        });
        there_and_back(&client, 2, 16 << 20).await;
        cutter.await.unwrap();
        until_resumed(&mut changes).await;
        there_and_back(&client, 3, 1 << 20).await;
        assert_eq!(client.path().unwrap().generation, 1);
        assert_eq!(client.path_stats().unwrap().paths, 2);
        assert!(client.tls_exporter() == far.tls_exporter());
        client.close().await;
        assert!(matches!(client.closed().await, SessionEnd::Closed));
        let end = far.closed().await;
        assert!(end.is_clean(), "{end}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_it_gets_a_session_as_ever() {
    for (client_has, server_has) in [(true, false), (false, true), (false, false)] {
        soon(async {
            let mut peers = Peers::new();
            if !client_has {
                peers.client.resume = None;
            }
            if !server_has {
                peers.server.resume = None;
            }
            let mut server = serve("tcp:127.0.0.1:0", &peers.server).await;
            let proxy = Proxy::new(address_of(&server.at)).await;
            let client = Session::dial(&proxy.endpoint(), &peers.client)
                .await
                .unwrap();
            let far = server.sessions.recv().await.unwrap();
            assert!(!client.outlives_connections() && !far.outlives_connections());
            echo(far);
            there_and_back(&client, 1, 1 << 20).await;
            let error = client.migrate(&server.at).await.unwrap_err();
            assert!(matches!(error, ConnectError::NotKept), "{error}");
            proxy.cut();
            let end = client.closed().await;
            assert!(!end.is_clean(), "{end}");
        })
        .await;
    }
}

/// Client, server's end, and what stands between them.
async fn meet(peers: &Peers) -> (Session, Session, Proxy, Server) {
    let mut server = serve("tcp:127.0.0.1:0", &peers.server).await;
    let proxy = Proxy::new(address_of(&server.at)).await;
    let client = Session::dial(&proxy.endpoint(), &peers.client)
        .await
        .unwrap();
    let far = server.sessions.recv().await.unwrap();
    (client, far, proxy, server)
}

/// Cuts all connections now and then until it is dropped.
struct Cutter(JoinHandle<()>);

impl Cutter {
    fn of(proxy: &Proxy, seed: u64, up_to: usize) -> Self {
        let (proxy, mut random) = (proxy.clone(), Random::new(seed));
        Self(tokio::spawn(async move {
            loop {
                let pause = u64::try_from(1 + random.below(up_to)).unwrap();
                tokio::time::sleep(Duration::from_millis(pause)).await;
                proxy.cut();
            }
        }))
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cuts_lose_and_double_nothing() {
    soon(async {
        let (client, far, proxy, _server) = meet(&Peers::new()).await;
        echo(far.clone());
        let cutter = Cutter::of(&proxy, 7, 60);
        let mut seed = 0;
        while client.path_stats().unwrap().paths <= 100 {
            seed += 1;
            there_and_back(&client, seed, 256 << 10).await;
        }
        drop(cutter);
        there_and_back(&client, 9999, 1 << 20).await;
        assert!(client.path().is_some() && far.path().is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_streams_both_ways_come_whole_through_cuts() {
    soon(async {
        let (client, far, proxy, _server) = meet(&Peers::new()).await;
        echo(far.clone());
        echo(client.clone());
        let _cutter = Cutter::of(&proxy, 3, 200);
        let mut all = tokio::task::JoinSet::new();
        for n in 0..64_u64 {
            let session = if n % 2 == 0 {
                client.clone()
            } else {
                far.clone()
            };
            all.spawn(async move { there_and_back(&session, n, 256 << 10).await });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        assert!(client.path_stats().unwrap().paths > 1, "never cut");
    })
    .await;
}

/// Each end knows where the other one listens, and both dial when the connection is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_may_dial_at_once() {
    soon(async {
        let peers = Peers::new();
        let (client, far, proxy, _server) = meet(&peers).await;
        let here = serve("tcp:127.0.0.1:0", &peers.client).await;
        let back = Proxy::new(address_of(&here.at)).await;
        echo(far.clone());
        echo(client.clone());
        let path = far.migrate(&back.endpoint()).await.unwrap();
        assert_eq!(path.side, Side::Client);
        let cutters = [Cutter::of(&proxy, 1, 100), Cutter::of(&back, 2, 100)];
        let mut seed = 0;
        while far.path_stats().unwrap().paths <= 30 {
            seed += 1;
            tokio::join!(
                there_and_back(&client, seed, 128 << 10),
                there_and_back(&far, 1000 + seed, 128 << 10)
            );
        }
        drop(cutters);
        there_and_back(&client, 9999, 1 << 20).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_from_one_kind_of_connection_to_the_next_while_it_carries() {
    soon(async {
        let peers = Peers::new();
        let (client, far, proxy, server) = meet(&peers).await;
        echo(far.clone());
        let place = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", place.path().join("socket").display());
        let unix = serve(&socket, &peers.server).await;
        let mut changes = client.path_changes();
        // The peer takes it up in its own words as well.
        let mut theirs = far.path_changes();
        let bulk = {
            let client = client.clone();
            tokio::spawn(async move { there_and_back(&client, 1, 48 << 20).await })
        };
        let mut ticker = client.open("echo").await.unwrap();
        let ticks = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            for n in 0..2000_u64 {
                tick.tick().await;
                ticker.write_u64(n).await.unwrap();
                ticker.flush().await.unwrap();
                assert_eq!(ticker.read_u64().await.unwrap(), n);
            }
        });
        let mut expected = 0;
        for round in 0..3 {
            let path = client.migrate(&unix.at).await.unwrap();
            expected += 1;
            assert_eq!(path.generation, expected, "{round}");
            assert!(path.label.starts_with("unix"), "{}", path.label);
            let (near, end) = memory::pair();
            let accepting = Session::handshake(end, &[], Side::Server, &peers.server);
            let (moved, accepted) = tokio::join!(client.migrate_on(near, &[]), accepting);
            expected += 1;
            assert_eq!(moved.unwrap().generation, expected);
            assert!(matches!(accepted, Err(ConnectError::Resumed(_))));
            client.migrate(&server.at).await.unwrap();
            client.migrate(&proxy.endpoint()).await.unwrap();
            expected += 2;
        }
        ticks.await.unwrap();
        bulk.await.unwrap();
        // The end that accepts does not report a path that has been replaced before it came to say so.
        for (changes, reports_all) in [(&mut changes, true), (&mut theirs, false)] {
            let mut reported = 0;
            while reported < expected {
                let PathChange::Migrated { path, .. } = changes.next().await.unwrap() else {
                    panic!("no migration");
                };
                assert!(path.generation > reported, "{path:?} behind {reported}");
                assert!(!reports_all || path.generation == reported + 1, "{path:?}");
                reported = path.generation;
            }
        }
        client.close().await;
        assert!(far.closed().await.is_clean());
    })
    .await;
}

/// From the one to the other and back, with bytes of every kind on the way.
#[tokio::test]
async fn a_session_moves_between_tcp_and_quic_under_load() {
    soon(async {
        let peers = Peers::new();
        let (client, far, _proxy, server) = meet(&peers).await;
        echo(far.clone());
        let quic = serve("quic:127.0.0.1:0", &peers.server).await;
        let bulk = {
            let client = client.clone();
            tokio::spawn(async move { there_and_back(&client, 1, 16 << 20).await })
        };
        for _ in 0..3 {
            let path = client.migrate(&quic.at).await.unwrap();
            assert!(path.label.starts_with("quic "), "{}", path.label);
            let path = client.migrate(&server.at).await.unwrap();
            assert!(path.label.starts_with("tcp "), "{}", path.label);
        }
        client.migrate(&quic.at).await.unwrap();
        bulk.await.unwrap();
        there_and_back(&client, 2, 1 << 20).await;
        client.close().await;
        assert!(far.closed().await.is_clean());
    })
    .await;
}

fn lost(end: &SessionEnd) -> &SessionLost {
    match end {
        SessionEnd::GivenUp(lost) => lost,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_nobody_takes_up_in_time_is_lost_and_no_clean_end() {
    soon(async {
        let peers = Peers::new().park(Duration::from_secs(1));
        let (client, far, proxy, _server) = meet(&peers).await;
        echo(far.clone());
        let mut stream = client.open("echo").await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        proxy.set_down(true);
        proxy.cut();
        let error = stream.read(&mut back).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        for session in [&client, &far] {
            let end = session.closed().await;
            assert!(!end.is_clean());
            assert!(matches!(lost(&end), SessionLost::Expired { .. }), "{end}");
            assert!(session.path().is_none());
        }
        let error = client.migrate(&proxy.endpoint()).await.unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::Over | ConnectError::Transport(_) | ConnectError::ClosedAtOnce(_)
            ),
            "{error}"
        );
    })
    .await;
}

/// The server's process is another one: it has the key, and knows nothing of the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_started_anew_refuses_and_the_session_is_lost_at_once() {
    soon(async {
        let (a, b) = (identity(), identity());
        let peers = Peers::of(a.clone(), b.clone());
        let (client, _far, proxy, server) = meet(&peers).await;
        let anew = Peers::of(a, b);
        let at = server.at.clone();
        drop(server);
        proxy.set_down(true);
        proxy.cut();
        let _anew = loop {
            // The port is free when the listener of the old one is dropped.
            if let Ok(listener) = listen(&at).await {
                drop(listener);
                break serve(&at.to_string(), &anew.server).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        proxy.set_down(false);
        client.reconnect_now();
        let end = client.closed().await;
        let is_unknown = matches!(lost(&end), SessionLost::Refused(Refusal::Unknown));
        assert!(is_unknown, "{end}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_closed_without_a_connection_is_not_closed_in_order() {
    soon(async {
        let peers = Peers::new().park(Duration::from_secs(5));
        let (client, far, proxy, _server) = meet(&peers).await;
        let mut changes = client.path_changes();
        proxy.set_down(true);
        proxy.cut();
        assert!(matches!(
            changes.next().await,
            Some(PathChange::Paused { .. })
        ));
        client.close().await;
        let end = client.closed().await;
        assert!(matches!(end, SessionEnd::ClosedUnheard), "{end}");
        assert!(!end.is_clean());
        let end = far.closed().await;
        assert!(matches!(lost(&end), SessionLost::Expired { .. }), "{end}");
    })
    .await;
}

async fn node(identity: &Identity, peer: PeerId) -> (Node, Endpoint) {
    let mut config = NodeConfig::new(identity.clone(), Arc::new(Pinned::one(peer)));
    config.stack.resume = Some(Config::default());
    let node = Node::new(config);
    let at = node
        .listen(&"tcp:127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    node.serve("echo", Access::Anyone, async |call: Call| {
        let (mut from, mut to) = call.accept().await?.into_split();
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    })
    .unwrap();
    (node, at)
}

async fn event(events: &mut Events, is_it: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.next().await.expect("the node is gone");
        if is_it(&event) {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_its_sessions_over_cuts_and_reports_them() {
    soon(async {
        let (a, b) = (identity(), identity());
        let (near, _) = node(&a, b.peer_id()).await;
        let (far, at) = node(&b, a.peer_id()).await;
        let proxy = Proxy::new(address_of(&at)).await;
        // The first one is never there.
        let address = format!(
            "cepa://{}@tcp:127.0.0.1:9;{}",
            b.peer_id(),
            proxy.endpoint()
        );
        let address: PeerAddr = address.parse().unwrap();
        let (mut here, mut there) = (near.events(), far.events());
        let session = near.session(&address).await.unwrap();
        there_and_back(&session, 1, 1 << 20).await;
        proxy.set_down(true);
        proxy.cut();
        event(&mut here, |event| {
            matches!(event, Event::SessionPaused { .. })
        })
        .await;
        event(&mut there, |event| {
            matches!(event, Event::SessionPaused { .. })
        })
        .await;
        assert!(near.session_with(b.peer_id()) == Some(session.clone()));
        assert_eq!(far.sessions().len(), 1);
        proxy.set_down(false);
        for events in [&mut here, &mut there] {
            let resumed = event(events, |event| {
                matches!(event, Event::SessionResumed { .. })
            })
            .await;
            let line = resumed.to_string();
            assert!(line.contains("goes on over tcp"), "{line}");
        }
        there_and_back(&session, 2, 1 << 20).await;
        session.migrate(&at).await.unwrap();
        for events in [&mut here, &mut there] {
            event(events, |event| {
                matches!(event, Event::SessionMigrated { .. })
            })
            .await;
        }
        assert!(near.session(&address).await.unwrap() == session);
        assert_eq!((near.sessions().len(), far.sessions().len()), (1, 1));
        near.shutdown(Duration::from_secs(1)).await;
        let down = event(&mut there, |event| {
            matches!(event, Event::SessionDown { .. })
        })
        .await;
        assert!(down.to_string().contains("the peer has stopped"), "{down}");
    })
    .await;
}

/// Another process runs with the server's key and is reached in its place: it refuses, and the next attempt leads to the right one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_another_process_with_the_same_key_ends_nothing_by_itself() {
    for keeps in [false, true] {
        soon(async {
            let (a, b) = (identity(), identity());
            let peers = Peers::of(a.clone(), b.clone());
            let (client, far, proxy, server) = meet(&peers).await;
            echo(far);
            let mut other = Peers::of(a, b).server;
            if !keeps {
                other.resume = None;
            }
            let other = serve("tcp:127.0.0.1:0", &other).await;
            let dialled = Arc::new(AtomicUsize::new(0));
            let (wrong, right, count) = (other.at.clone(), server.at.clone(), dialled.clone());
            client.redial_with(&server.at, move || {
                let first = count.fetch_add(1, Ordering::Relaxed) == 0;
                let at = if first { wrong.clone() } else { right.clone() };
                Box::pin(async move { Ok(cepa::transports::dial(&at).await?) })
            });
            let mut changes = client.path_changes();
            proxy.cut();
            until_resumed(&mut changes).await;
            assert_eq!(dialled.load(Ordering::Relaxed), 2);
            there_and_back(&client, 5, 1 << 16).await;
        })
        .await;
    }
}

/// The same with two addresses, of which the one that leads to the right process is away for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_at_one_address_ends_nothing_while_another_one_may_lead_there() {
    soon(async {
        let (a, b) = (identity(), identity());
        let (near, _) = node(&a, b.peer_id()).await;
        let (far, at) = node(&b, a.peer_id()).await;
        let (other, at_other) = node(&b, a.peer_id()).await;
        let (right, wrong) = (
            Proxy::new(address_of(&at)).await,
            Proxy::new(address_of(&at_other)).await,
        );
        wrong.set_down(true);
        let ways = format!("{};{}", right.endpoint(), wrong.endpoint());
        let address: PeerAddr = format!("cepa://{}@{ways}", b.peer_id()).parse().unwrap();
        let session = near.session(&address).await.unwrap();
        // The end that was dialled has it a moment later.
        while far.sessions().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut refusals = other.events();
        let mut changes = session.path_changes();
        wrong.set_down(false);
        right.set_down(true);
        right.cut();
        for _ in 0..3 {
            event(&mut refusals, |event| {
                matches!(event, Event::TurnedAway { .. })
            })
            .await;
        }
        right.set_down(false);
        until_resumed(&mut changes).await;
        there_and_back(&session, 1, 1 << 16).await;
    })
    .await;
}

/// Where it is to go nobody answers, and meanwhile it loses what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_being_moved_is_dialled_again_all_the_same() {
    soon(async {
        let (client, far, proxy, _server) = meet(&Peers::new()).await;
        echo(far);
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there: Endpoint = format!("tcp:{}", silent.local_addr().unwrap())
            .parse()
            .unwrap();
        let moving = {
            let client = client.clone();
            tokio::spawn(async move { client.migrate(&there).await })
        };
        let _held = silent.accept().await.unwrap();
        let mut changes = client.path_changes();
        proxy.cut();
        until_resumed(&mut changes).await;
        assert!(!moving.is_finished(), "it waited for that");
        there_and_back(&client, 1, 1 << 16).await;
        moving.abort();
    })
    .await;
}

/// A node that relays for others, and where it is.
async fn relay() -> (Node, Relay, String) {
    let node = Node::new(NodeConfig::new(identity(), Arc::new(AcceptAny)));
    let mut config = RelayConfig::new(Access::Anyone);
    config.rate = 1 << 30;
    let relay = Relay::on(&node, config).unwrap();
    let at = node
        .listen(&"tcp:127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let way = format!("{}@tcp:{}", node.id(), address_of(&at));
    (node, relay, way)
}

/// Over a line between two ends of a cable: `mover` goes there, and the peer, which has `config`, accepts.
async fn over_a_cable(mover: &Session, config: &StackConfig) -> CableWatch {
    let settings = LineSettings::new(2e6);
    let (near, end) = cable(&settings, &settings, 1);
    let watch = near.watch();
    let end = Stream::from_io(end, "serial");
    let accepting = Session::handshake(end, SERIAL_LAYERS, Side::Server, config);
    let near = Stream::from_io(near, "serial");
    let (moved, accepted) = tokio::join!(mover.migrate_on(near, SERIAL_LAYERS), accepting);
    assert_eq!(moved.unwrap().side, Side::Client);
    assert!(
        matches!(accepted, Err(ConnectError::Resumed(_))),
        "{accepted:?}"
    );
    watch
}

/// One session, of two nodes that both move it, over all kinds of connections that there are, while it carries bytes both ways.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_over_serial_tcp_unix_a_command_a_relay_and_back() {
    use std::os::unix::fs::PermissionsExt as _;
    soon(async {
        let (a, b) = (identity(), identity());
        let [of_near, of_far] = [&a, &b].map(|own| {
            let mut config = NodeConfig::new(own.clone(), Arc::new(AcceptAny));
            config.stack.resume = Some(Config::default());
            config.upgrade_after = Duration::from_millis(200);
            config
        });
        let stacks = [of_near.stack.clone(), of_far.stack.clone()];
        let (near, far) = (Node::new(of_near), Node::new(of_far));
        let anywhere: Endpoint = "tcp:127.0.0.1:0".parse().unwrap();
        for node in [&near, &far] {
            let both = Access::peers([a.peer_id(), b.peer_id()]);
            node.serve("echo", both, async |call: Call| {
                let (mut from, mut to) = call.accept().await?.into_split();
                tokio::io::copy(&mut from, &mut to).await?;
                to.shutdown().await
            })
            .unwrap();
        }
        let (at_near, at_far) = (
            near.listen(&anywhere).await.unwrap(),
            far.listen(&anywhere).await.unwrap(),
        );
        let place = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", place.path().join("socket").display());
        let socket = far.listen(&socket.parse().unwrap()).await.unwrap();
        // A command that leads there, as `ssh` would.
        let command = place.path().join("lead");
        let port = address_of(&at_far).port();
        let script = format!(
            "#!/usr/bin/env bash\nexec 3<>/dev/tcp/127.0.0.1/{port}\ncat <&3 &\nexec cat >&3\n"
        );
        std::fs::write(&command, script).unwrap();
        std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o700)).unwrap();
        let command: Endpoint = format!("exec:{}", command.display()).parse().unwrap();

        let (_relaying, _relay, way) = relay().await;
        let (relays, _relays) = (Relays::on(&far).unwrap(), Relays::on(&near).unwrap());
        let at_relay: PeerAddr = format!("cepa://{way}").parse().unwrap();
        relays.register(&at_relay).await.unwrap();
        let (direct, back) = (
            Proxy::new(address_of(&at_far)).await,
            Proxy::new(address_of(&at_near)).await,
        );
        let address = format!("cepa://{}@{};relay:{way}", far.id(), direct.endpoint());
        let address: PeerAddr = address.parse().unwrap();

        let session = near.session(&address).await.unwrap();
        let theirs = loop {
            if let Some(theirs) = far.session_with(near.id()) {
                break theirs;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let over = Arc::new(AtomicBool::new(false));
        let carrying = [&session, &theirs].map(|session| {
            let (session, over) = (session.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut seed = 0;
                while !over.load(Ordering::Relaxed) {
                    seed += 1;
                    there_and_back(&session, seed, 100_000).await;
                }
            })
        });
        over_a_cable(&session, &stacks[1]).await;
        let path = theirs.migrate(&back.endpoint()).await.unwrap();
        assert!(path.label.starts_with("tcp"), "{}", path.label);
        let path = session.migrate(&socket).await.unwrap();
        assert!(path.label.starts_with("unix"), "{}", path.label);
        let path = session.migrate(&command).await.unwrap();
        assert!(path.label.contains("lead"), "{}", path.label);
        let plug = over_a_cable(&theirs, &stacks[0]).await;
        assert_eq!(session.path_stats().unwrap().paths, 6);

        // Nothing is left but the relay, until the direct way is there again.
        let mut here = near.events();
        for proxy in [&direct, &back] {
            proxy.set_down(true);
        }
        plug.cut_off();
        event(
            &mut here,
            |event| matches!(event, Event::SessionResumed { path, .. } if !path.via.is_empty()),
        )
        .await;
        there_and_back(&session, 7, 1 << 20).await;
        direct.set_down(false);
        event(
            &mut here,
            |event| matches!(event, Event::SessionMigrated { path, .. } if path.via.is_empty()),
        )
        .await;
        over.store(true, Ordering::Relaxed);
        for carrying in carrying {
            carrying.await.unwrap();
        }
        there_and_back(&session, 8, 1 << 20).await;
        there_and_back(&theirs, 9, 1 << 20).await;
        assert!(near.session_with(far.id()) == Some(session));
        assert_eq!(far.session_with(near.id()), Some(theirs));
    })
    .await;
}
