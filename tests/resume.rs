//! Sessions that outlive their connections: cut, taken up again, moved, given up; and who may do that.
// Two ends in one task.
#![allow(clippy::large_futures)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cepa::Side;
use cepa::identity::{Identity, Pinned};
use cepa::session::{ConnectError, PathChange, PathChanges, Session, SessionEnd};
use cepa::stack::StackConfig;
use cepa::transports::{Endpoint, listen};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use support::{Random, identity, soon};

/// Two peers that expect each other and keep their sessions.
struct Peers {
    client: StackConfig,
    server: StackConfig,
}

impl Peers {
    fn new() -> Self {
        Self::of(identity(), identity())
    }

    fn of(a: Identity, b: Identity) -> Self {
        let kept = Some(cepa::resume::Config::default());
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
    let (tell, sessions) = tokio::sync::mpsc::unbounded_channel();
    let (config, endpoint) = (config.clone(), at.clone());
    let task = tokio::spawn(async move {
        while let Ok(Some(stream)) = listener.accept().await {
            let (config, endpoint, tell) = (config.clone(), endpoint.clone(), tell.clone());
            tokio::spawn(async move {
                match Session::accept_on(stream, &endpoint, &config).await {
                    Ok(session) => drop(tell.send(session)),
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
            let piece: Vec<u8> = (0..n).map(|_| (random.next() >> 32) as u8).collect();
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
        match changes.next().await.expect("the session is over") {
            PathChange::Resumed { without, .. } => return without,
            _ => {}
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
