//! Sessions: two peers over one stream, services by name, and every way in which that goes wrong.
// Two ends in one task.
#![allow(clippy::large_futures)]

mod support;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use cepa::Side;
use cepa::identity::{
    AcceptAny, Identity, Invitation, KeyKind, NotAdmitted, OpenInvitation, Pinned, Presented,
    Refusal, RotationTimes, TrustPolicy, UnixTime,
};
use cepa::mux::{self, MuxError};
use cepa::onion::Onion;
use cepa::protocols::pairing::{PAIRING_SERVICE, PairingError, admit, join};
use cepa::session::{
    AcceptError, Backoff, ConnectError, OpenError, ReconnectStatus, Reconnecting, Session,
    SessionEnd, Terminated,
};
use cepa::stack::StackConfig;
use cepa::tls::{TlsConfig, TlsError, Version};
use cepa::transports::{ByteStream, Endpoint, Layer, Stream, dial, listen, memory};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use support::{by_hand, identity, layers_by_hand, soon};

/// Two peers that expect each other.
struct Peers {
    client: StackConfig,
    server: StackConfig,
}

impl Peers {
    fn new() -> Self {
        let (a, b) = (identity(), identity());
        let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
        Self {
            client: StackConfig::new(a, Arc::new(for_a)),
            server: StackConfig::new(b, Arc::new(for_b)),
        }
    }

    fn client_trusts(mut self, trust: impl TrustPolicy + 'static) -> Self {
        self.client.trust = Arc::new(trust);
        self
    }

    fn server_trusts(mut self, trust: impl TrustPolicy + 'static) -> Self {
        self.server.trust = Arc::new(trust);
        self
    }

    /// What both ends get, on these two ends of a stream.
    async fn meet(
        &self,
        (a, b): (Stream, Stream),
    ) -> (Result<Session, ConnectError>, Result<Session, ConnectError>) {
        soon(async {
            tokio::join!(
                Session::handshake(a, &[], Side::Client, &self.client),
                Session::handshake(b, &[], Side::Server, &self.server)
            )
        })
        .await
    }

    async fn sessions(&self) -> (Session, Session) {
        let (client, server) = self.meet(memory::pair()).await;
        (client.unwrap(), server.unwrap())
    }
}

/// Two ends of a loopback TCP connection.
async fn tcp() -> (Stream, Stream) {
    pair_at("tcp:127.0.0.1:0").await
}

async fn pair_at(address: &str) -> (Stream, Stream) {
    let mut listener = listen(&address.parse().unwrap()).await.unwrap();
    let at = listener.endpoint().clone();
    let (client, server) = tokio::join!(dial(&at), listener.accept());
    (client.unwrap(), server.unwrap().unwrap())
}

/// Accepts whatever is opened, and sends back what comes.
fn serve_echo(session: Session) {
    tokio::spawn(async move {
        while let Ok(incoming) = session.accept().await {
            tokio::spawn(async move {
                let mut stream = incoming.accept().await.unwrap();
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    match stream.read(&mut buffer).await.unwrap() {
                        0 => break stream.shutdown().await.unwrap(),
                        n => stream.write_all(&buffer[..n]).await.unwrap(),
                    }
                    stream.flush().await.unwrap();
                }
            });
        }
    });
}

async fn echoed<T: ByteStream>(stream: T, bytes: Vec<u8>) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = tokio::spawn(async move {
        writer.write_all(&bytes).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    sent.await.unwrap();
    back
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 31 + i / 251 + seed) % 256).unwrap())
        .collect()
}

fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(
        !text.chars().any(char::is_control),
        "not one line: {text:?}"
    );
    text
}

// ---- sessions that come about ----------------------------------------------------------------

#[tokio::test]
async fn two_peers_know_each_other_over_every_stream() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("s").display());
    for streams in [memory::pair(), tcp().await, pair_at(&socket).await] {
        let peers = Peers::new();
        let (client, server) = peers.meet(streams).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.peer().id(), peers.server.identity.peer_id());
        assert_eq!(server.peer().id(), peers.client.identity.peer_id());
        for session in [&client, &server] {
            assert_eq!(session.peer().version(), Version::Tls13);
            assert_eq!(session.peer().alpn(), Some(b"cepa/2".as_slice()));
            assert_eq!(session.layers().len(), 1);
            assert!(session.handshake_time() > Duration::ZERO);
            assert!(session.meter().bytes_in() > 500 && session.meter().bytes_out() > 500);
            soon(session.ping()).await.unwrap();
        }
        assert_eq!(client.layers()[0].side(), Side::Client);
        assert_eq!(server.layers()[0].side(), Side::Server);
    }
}

#[tokio::test]
async fn an_address_is_dialled() {
    let peers = Peers::new();
    let mut listener = listen(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    for layers in [
        &[][..],
        &[Layer::Mux, Layer::Tls],
        &[Layer::Mux, Layer::Tls, Layer::Tls],
    ] {
        let at = listener.endpoint().clone().with_layers(layers);
        let served = async {
            let stream = listener.accept().await.unwrap().unwrap();
            Session::handshake(stream, layers, Side::Server, &peers.server).await
        };
        let (client, server) = soon(Box::pin(async {
            tokio::join!(Session::dial(&at, &peers.client), served)
        }))
        .await;
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.layers().len(), layers.len().max(2) - 1);
        serve_echo(server);
        let stream = client.open("echo").await.unwrap();
        assert_eq!(
            soon(echoed(stream, pattern(100_000, 1))).await,
            pattern(100_000, 1)
        );
        assert!(client.label().starts_with("tcp "), "{}", client.label());
    }
}

#[tokio::test]
async fn roles_do_not_depend_on_who_dialled() {
    let peers = Peers::new();
    let (dialled, accepted) = tcp().await;
    // The one that was dialled is the client.
    let (client, server) = peers.meet((accepted, dialled)).await;
    serve_echo(client.unwrap());
    let stream = server.unwrap().open("echo").await.unwrap();
    assert_eq!(soon(echoed(stream, b"hello".to_vec())).await, b"hello");
}

#[tokio::test]
async fn the_key_exchange_can_be_chosen_for_a_slow_line() {
    let mut peers = Peers::new();
    peers.client.groups = Some(vec![0x1d]);
    let (client, server) = peers.sessions().await;
    assert_eq!(client.peer().group(), Some(0x1d));
    let bytes = server.meter().bytes_in() + server.meter().bytes_out();
    assert!(bytes < 3000, "{bytes} bytes");
}

// ---- services --------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn many_services_at_once_both_ways() {
    let (client, server) = Peers::new().sessions().await;
    serve_echo(client.clone());
    serve_echo(server.clone());
    let mut all = tokio::task::JoinSet::new();
    for number in 0..50 {
        let session = if number % 2 == 0 {
            client.clone()
        } else {
            server.clone()
        };
        all.spawn(async move {
            let stream = session.open(&format!("echo {number}")).await.unwrap();
            let bytes = pattern(100_000 + number, number);
            assert!(
                echoed(stream, bytes.clone()).await == bytes,
                "stream {number} differs"
            );
        });
    }
    soon(async {
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn the_acceptor_sees_what_is_asked_for_and_by_whom() {
    let peers = Peers::new();
    let (client, server) = peers.sessions().await;
    for service in ["", "db", "größer", &"x".repeat(255)] {
        let (opened, ()) = soon(async {
            tokio::join!(client.open(service), async {
                let incoming = server.accept().await.unwrap();
                assert_eq!(incoming.service(), service);
                assert_eq!(incoming.peer().id(), peers.client.identity.peer_id());
                assert!(!incoming.wants_inner_tls());
                incoming.accept().await.unwrap().shutdown().await.unwrap();
            })
        })
        .await;
        let mut rest = Vec::new();
        opened.unwrap().read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

#[tokio::test]
async fn names_that_can_not_be_sent_are_refused_here() {
    let (client, _server) = Peers::new().sessions().await;
    let invisible = ["d\u{200b}b", "\u{202e}bd", "\u{7f}", "a\nb"].map(str::to_owned);
    for bad in invisible.into_iter().chain(["x".repeat(256)]) {
        let error = client.open(&bad).await.unwrap_err();
        assert!(
            matches!(&error, OpenError::Name { service } if *service == bad),
            "{error}"
        );
        one_line(&error);
    }
}

#[tokio::test]
async fn a_refusal_reaches_the_opener_with_its_reason() {
    let (client, server) = Peers::new().sessions().await;
    for round in 0..50 {
        let reason = format!("no such service {round}");
        let (opened, ()) = soon(async {
            tokio::join!(client.open("nope"), async {
                server
                    .accept()
                    .await
                    .unwrap()
                    .refuse(&reason)
                    .await
                    .unwrap();
            })
        })
        .await;
        let error = opened.unwrap_err();
        assert_eq!(
            one_line(&error),
            format!("the peer refused the service \"nope\": {reason}")
        );
        assert!(matches!(error, OpenError::Refused { reason: r, .. } if r == reason));
    }
    soon(client.ping()).await.unwrap();
}

#[tokio::test]
async fn a_service_for_those_who_dial_says_so() {
    let (client, server) = Peers::new().sessions().await;
    let (opened, ()) = soon(async {
        tokio::join!(server.open("db"), async {
            let incoming = client.accept().await.unwrap();
            incoming.refuse_dial_instead().await.unwrap();
        })
    })
    .await;
    let error = opened.unwrap_err();
    assert!(
        matches!(&error, OpenError::DialInstead { service } if service == "db"),
        "{error}"
    );
    assert_eq!(
        one_line(&error),
        "the peer does not offer the service \"db\" on a session that it dialled: dial the peer, and open it on that session"
    );
    soon(client.ping()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_request_is_distinguished() {
    let (client, server) = Peers::new().sessions().await;
    let (opened, ()) = soon(async {
        tokio::join!(client.open("x"), async {
            drop(server.accept().await.unwrap());
        })
    })
    .await;
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::Dropped { .. }), "{error}");
    one_line(&error);
}

#[tokio::test(start_paused = true)]
async fn an_acceptor_that_never_answers_is_given_up() {
    let mut peers = Peers::new();
    peers.client.open_timeout = Duration::from_secs(5);
    let (client, server) = peers.sessions().await;
    let held = tokio::spawn(async move {
        let held = server.accept().await.unwrap();
        std::future::pending::<()>().await;
        drop(held);
    });
    let error = soon(client.open("x")).await.unwrap_err();
    assert!(matches!(error, OpenError::TimedOut { .. }), "{error}");
    held.abort();
}

// ---- TLS inside a substream ------------------------------------------------------------------

struct InnerTls {
    opener: Identity,
    acceptor: Identity,
}

impl InnerTls {
    fn new() -> Self {
        Self {
            opener: identity(),
            acceptor: identity(),
        }
    }

    fn opener(&self) -> TlsConfig {
        let trust = Pinned::one(self.acceptor.peer_id());
        TlsConfig::new(&self.opener, Arc::new(trust)).unwrap()
    }

    fn acceptor(&self) -> TlsConfig {
        let trust = Pinned::one(self.opener.peer_id());
        TlsConfig::new(&self.acceptor, Arc::new(trust)).unwrap()
    }
}

#[tokio::test]
async fn a_substream_can_have_tls_of_its_own() {
    let (client, server) = Peers::new().sessions().await;
    let inner = InnerTls::new();
    let (opened, accepted) = soon(async {
        let opener = inner.opener();
        let acceptor = inner.acceptor();
        tokio::join!(client.open_secured("vault", &opener), async {
            let incoming = server.accept().await.unwrap();
            assert!(incoming.wants_inner_tls());
            incoming.accept_secured(&acceptor).await
        })
    })
    .await;
    let (mut opened, mut accepted) = (opened.unwrap(), accepted.unwrap());
    assert_eq!(opened.layers()[0].peer().id(), inner.acceptor.peer_id());
    assert_eq!(accepted.layers()[0].peer().id(), inner.opener.peer_id());
    opened.write_all(b"secret").await.unwrap();
    opened.flush().await.unwrap();
    let mut got = [0; 6];
    soon(accepted.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"secret");
    // The layer can be taken off, and the substream goes on.
    let (a, b) = soon(async { tokio::join!(opened.pop(), accepted.pop()) }).await;
    a.unwrap();
    b.unwrap();
    accepted.write_all(b"plain").await.unwrap();
    accepted.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(opened.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"plain");
}

#[tokio::test]
async fn inner_tls_refusals_reach_the_opener_and_leave_the_session_alone() {
    let (client, server) = Peers::new().sessions().await;
    let (inner, stranger) = (InnerTls::new(), InnerTls::new());
    for round in 0..20 {
        // The acceptor does not know this opener: that is heard only after the handshake.
        let own = TlsConfig::new(&stranger.opener, Arc::new(AcceptAny)).unwrap();
        let theirs = inner.acceptor();
        let (opened, accepted) = soon(async {
            tokio::join!(client.open_secured("vault", &own), async {
                server.accept().await.unwrap().accept_secured(&theirs).await
            })
        })
        .await;
        assert!(
            matches!(accepted, Err(AcceptError::Tls(TlsError::Refused(_)))),
            "{accepted:?}"
        );
        let error = opened.unwrap_err();
        assert!(
            matches!(error, OpenError::Tls(TlsError::RefusedByPeer { alert: 46 })),
            "round {round}: {error:?}"
        );
        one_line(&error);

        // The opener does not know this acceptor.
        let (own, theirs) = (
            inner.opener(),
            TlsConfig::new(&stranger.acceptor, Arc::new(AcceptAny)).unwrap(),
        );
        let (opened, accepted) = soon(async {
            tokio::join!(client.open_secured("vault", &own), async {
                server.accept().await.unwrap().accept_secured(&theirs).await
            })
        })
        .await;
        let error = opened.unwrap_err();
        assert!(
            matches!(
                &error,
                OpenError::Tls(TlsError::Refused(Refusal::WrongPeer { .. }))
            ),
            "{error:?}"
        );
        assert!(accepted.is_err());
    }
    soon(client.ping()).await.unwrap();
    soon(server.ping()).await.unwrap();
}

#[tokio::test]
async fn both_sides_must_want_inner_tls() {
    let (client, server) = Peers::new().sessions().await;
    let inner = InnerTls::new();
    let config = inner.opener();
    let (opened, accepted) = soon(async {
        tokio::join!(client.open_secured("plain only", &config), async {
            server.accept().await.unwrap().accept().await
        })
    })
    .await;
    assert!(matches!(accepted, Err(AcceptError::WantsInnerTls)));
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::NoInnerTls { .. }), "{error}");
    one_line(&error);

    let config = inner.acceptor();
    let (opened, accepted) = soon(async {
        tokio::join!(client.open("secured only"), async {
            server.accept().await.unwrap().accept_secured(&config).await
        })
    })
    .await;
    assert!(matches!(accepted, Err(AcceptError::WantsNoInnerTls)));
    let error = opened.unwrap_err();
    assert!(
        matches!(error, OpenError::InnerTlsRequired { .. }),
        "{error}"
    );
    one_line(&error);
}

// ---- sessions that do not come about ---------------------------------------------------------

/// A policy that waits, on its own thread, for something that only the runtime's tasks can bring about: each of its
/// questions says that it has begun, and then waits to be let go.
#[derive(Debug)]
struct Blocks {
    begun: tokio::sync::mpsc::UnboundedSender<&'static str>,
    go: Mutex<std::sync::mpsc::Receiver<()>>,
    answer: Result<(), Refusal>,
}

impl Blocks {
    fn new(
        answer: Result<(), Refusal>,
    ) -> (
        Self,
        tokio::sync::mpsc::UnboundedReceiver<&'static str>,
        std::sync::mpsc::Sender<()>,
    ) {
        let (begun, begins) = tokio::sync::mpsc::unbounded_channel();
        let (let_go, go) = std::sync::mpsc::channel();
        let go = Mutex::new(go);
        (Self { begun, go, answer }, begins, let_go)
    }

    fn wait(&self, question: &'static str) -> bool {
        self.begun.send(question).unwrap();
        let go = self.go.lock().unwrap();
        go.recv_timeout(Duration::from_secs(20)).is_ok()
    }
}

impl TrustPolicy for Blocks {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        let reason = || "nobody else came to run".to_owned();
        if !self.wait("decide") {
            return Err(Refusal::PolicyFailed {
                presented: peer.id,
                reason: reason(),
            });
        }
        self.answer.clone()
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        assert!(self.wait("proven"), "nobody else came to run");
        let _ = peer;
        Ok(())
    }

    fn names(&self, _: &Presented<'_>) -> bool {
        self.wait("names")
    }

    fn may_block(&self) -> bool {
        true
    }
}

/// The runtime of these tests has one thread. A policy that waits for a file's lock on it would stop all others.
#[tokio::test]
async fn a_policy_that_blocks_holds_up_its_own_handshake_only() {
    for of_client in [true, false] {
        let (policy, mut begins, let_go) = Blocks::new(Ok(()));
        let peers = if of_client {
            Peers::new().client_trusts(policy)
        } else {
            Peers::new().server_trusts(policy)
        };
        let other_task = tokio::spawn(async move {
            let mut asked = Vec::new();
            while asked.len() < 3 {
                asked.push(begins.recv().await.unwrap());
                let_go.send(()).unwrap();
            }
            asked
        });
        let (client, server) = peers.sessions().await;
        let judged = if of_client { &client } else { &server };
        assert!(judged.peer().is_named());
        assert_eq!(
            soon(other_task).await.unwrap(),
            ["decide", "names", "proven"]
        );
        soon(client.ping()).await.unwrap();
    }
}

#[tokio::test]
async fn the_client_refuses_another_peer_than_the_expected() {
    for _ in 0..20 {
        for streams in [memory::pair(), tcp().await] {
            let expected = identity().peer_id();
            let peers = Peers::new().client_trusts(Pinned::one(expected));
            let (client, server) = peers.meet(streams).await;
            let presented = peers.server.identity.peer_id();
            let error = client.unwrap_err();
            assert!(
                matches!(&error, ConnectError::Tls(TlsError::Refused(Refusal::WrongPeer { expected: e, presented: p }))
                    if *e == [expected] && *p == presented),
                "{error:?}"
            );
            let error = server.unwrap_err();
            assert!(
                matches!(
                    error,
                    ConnectError::Tls(TlsError::RefusedByPeer { alert: 46 })
                ),
                "{error:?}"
            );
            one_line(&error);
        }
    }
}

#[tokio::test]
async fn a_refused_client_hears_of_it_and_is_not_just_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..30 {
        let socket = format!("unix:{}", folder.path().join(round.to_string()).display());
        for streams in [memory::pair(), tcp().await, pair_at(&socket).await] {
            let peers = Peers::new().server_trusts(Pinned::default());
            let (client, server) = peers.meet(streams).await;
            let presented = peers.client.identity.peer_id();
            let error = server.unwrap_err();
            assert!(
                matches!(&error, ConnectError::Tls(TlsError::Refused(Refusal::Unknown { presented: p }))
                    if *p == presented),
                "{error:?}"
            );
            let error = client.unwrap_err();
            assert!(
                matches!(
                    error,
                    ConnectError::Tls(TlsError::RefusedByPeer { alert: 46 })
                ),
                "round {round}: {error:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_gets_a_moment_to_read_why() {
    for holds in [true, false] {
        let peers = Peers::new().server_trusts(Pinned::default());
        let (near, far) = memory::pair();
        let begun = tokio::time::Instant::now();
        let refused = async {
            let mut onion = layers_by_hand(near, Side::Client, &peers.client).await;
            // It is not cut off while it still sends: what it has sent could else destroy the alert.
            onion.write_all(b"a ping, say").await.unwrap();
            onion.flush().await.unwrap();
            let error = onion.read(&mut [0; 1]).await.unwrap_err();
            let tls = TlsError::inside(&error).expect("the alert").root().clone();
            assert!(
                matches!(tls, TlsError::RefusedByPeer { alert: 46 }),
                "{tls:?}"
            );
            if holds {
                std::future::pending::<()>().await;
            }
        };
        let session = Session::handshake(far, &[], Side::Server, &peers.server);
        let refused = Box::pin(refused);
        let error = soon(async {
            let mut session = std::pin::pin!(session);
            tokio::select! {
                ended = &mut session => ended,
                () = refused => session.await,
            }
        })
        .await
        .unwrap_err();
        assert!(
            matches!(error, ConnectError::Tls(TlsError::Refused(_))),
            "{error:?}"
        );
        // A second for one that stays, none for one that has read it and left.
        assert_eq!(begun.elapsed().as_secs(), u64::from(holds));
    }
}

#[tokio::test]
async fn a_banner_before_tls_is_quoted() {
    for side in [Side::Client, Side::Server] {
        let peers = Peers::new();
        let (near, mut far) = memory::pair();
        far.write_all(b"Welcome to host7\r\nlogin: ").await.unwrap();
        let error = soon(Session::handshake(near, &[], side, &peers.client))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ConnectError::Tls(TlsError::NotTls { .. })),
            "{error:?}"
        );
        let text = one_line(&error);
        assert!(text.contains(r#""Welcome to host7\r\nlogin: ""#), "{text}");
    }
}

#[tokio::test]
async fn garbage_instead_of_tls_is_an_error() {
    let peers = Peers::new();
    for garbage in [
        pattern(500, 3),
        vec![0; 64],
        vec![0x16; 64],
        vec![0x16, 3, 1, 0, 2, 9, 9],
        vec![0x80, 0x2e, 1, 3, 1],
    ] {
        let (near, mut far) = memory::pair();
        far.write_all(&garbage).await.unwrap();
        far.shutdown().await.unwrap();
        let error = soon(Session::handshake(near, &[], Side::Server, &peers.server))
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::Tls(_)), "{error:?}");
        one_line(&error);
    }
}

#[tokio::test]
async fn another_protocol_inside_tls_is_refused() {
    let peers = Peers::new();
    let (near, far) = memory::pair();
    let web = TlsConfig::builder(&peers.client.identity, Arc::new(AcceptAny))
        .alpn(&["h2"])
        .build()
        .unwrap();
    let mut other = Onion::new(near);
    let (pushed, session) = soon(async {
        tokio::join!(
            other.push(Side::Client, &web),
            Session::handshake(far, &[], Side::Server, &peers.server)
        )
    })
    .await;
    assert!(
        matches!(pushed, Err(TlsError::RefusedByPeer { alert: 120 })),
        "{pushed:?}"
    );
    let error = session.unwrap_err();
    assert!(
        matches!(error, ConnectError::Tls(TlsError::Alpn { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn stacks_of_different_height_do_not_meet() {
    let peers = Peers::new();
    let (a, b) = memory::pair();
    let two = [Layer::Mux, Layer::Tls, Layer::Tls];
    let (client, server) = soon(async {
        tokio::join!(
            Session::handshake(a, &two, Side::Client, &peers.client),
            Session::handshake(b, &[], Side::Server, &peers.server)
        )
    })
    .await;
    let (client, server) = (client.unwrap_err(), server.unwrap_err());
    assert!(
        matches!(server, ConnectError::Tls(TlsError::Alpn { .. })),
        "{server:?}"
    );
    assert!(
        matches!(
            client,
            ConnectError::Tls(TlsError::RefusedByPeer { alert: 120 })
        ),
        "{client:?}"
    );
    assert!(one_line(&client).contains("same layers"));
}

#[tokio::test]
async fn layers_that_can_not_work_are_refused_before_dialling() {
    let peers = Peers::new();
    let nobody: Endpoint = "memory:nobody listens here".parse().unwrap();
    for layers in [&[Layer::Mux][..], &[Layer::Tls], &[Layer::Tls, Layer::Mux]] {
        let address = nobody.clone().with_layers(layers);
        let error = Session::dial(&address, &peers.client).await.unwrap_err();
        assert!(matches!(error, ConnectError::Layers { .. }), "{error:?}");
    }
    let error = Session::dial(&nobody, &peers.client).await.unwrap_err();
    assert!(matches!(error, ConnectError::Transport(_)), "{error:?}");
    one_line(&error);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    for side in [Side::Client, Side::Server] {
        let peers = Peers::new();
        let (near, far) = memory::pair();
        let begun = tokio::time::Instant::now();
        let error = soon(Session::handshake(near, &[], side, &peers.client))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ConnectError::TimedOut { during } if during.contains("layer 1 of 1"))
        );
        one_line(&error);
        // 10 s for the layer, and a second in which the peer could have read why.
        let took = begun.elapsed();
        assert!((10..=12).contains(&took.as_secs()), "{took:?}");
        drop(far);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_announced_before_a_ping_came_back() {
    let peers = Peers::new();
    let (near, far) = memory::pair();
    let (_held, session) = soon(async {
        tokio::join!(
            by_hand(near, Side::Client, &peers.client),
            Session::handshake(far, &[], Side::Server, &peers.server)
        )
    })
    .await;
    let error = session.unwrap_err();
    match error {
        ConnectError::TimedOut { during } => assert!(during.contains("first ping")),
        // The mux's own limit for silence is the same 30 s.
        ConnectError::Mux(MuxError::KeepaliveTimeout { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// A stream whose reading side ends after so many bytes.
struct EndsAfter<T> {
    inner: T,
    left: usize,
}

impl<T: AsyncRead + Unpin> AsyncRead for EndsAfter<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.left.min(buf.remaining());
        if most == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut part = vec![0; most];
        let mut room = ReadBuf::new(&mut part);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut room))?;
        let got = room.filled().len();
        buf.put_slice(&part[..got]);
        self.left -= got;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for EndsAfter<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_the_stream_at_any_byte_is_an_error_and_never_a_hang() {
    let peers = Arc::new(Peers::new());
    let (client, server) = peers.sessions().await;
    // The pong that announces a session is 12 bytes of mux in a record of 22 more; the peer's ping
    // of the same size may stand before it, and need not. (What binds the session comes before both.)
    let needed = |session: &Session| usize::try_from(session.meter().bytes_in()).unwrap() - 2 * 34;
    let needed = [needed(&client), needed(&server)];
    drop((client, server));
    let mut all = tokio::task::JoinSet::new();
    for (end, needed) in needed.into_iter().enumerate() {
        for left in 0..needed {
            while all.len() >= 32 {
                all.join_next().await.unwrap().unwrap();
            }
            let peers = Arc::clone(&peers);
            all.spawn(async move {
                let (a, b) = memory::pair();
                let cut = |inner: Stream| Stream::from_io(EndsAfter { inner, left }, "cut");
                let (client, server) = match end {
                    0 => peers.meet((cut(a), b)).await,
                    _ => peers.meet((a, cut(b))).await,
                };
                // The end that was cut off must fail. So must the other, for it has no ping back;
                // unless the cut was behind the handshake, where its own ping was answered already.
                let (cut, other) = if end == 0 {
                    (client, server)
                } else {
                    (server, client)
                };
                let error = cut.expect_err(&format!("end {end} after {left} bytes"));
                one_line(&error);
                if let Err(error) = other {
                    one_line(&error);
                } else {
                    assert!(left > 1000, "announced after {left} bytes");
                }
            });
        }
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

// ---- how sessions end ------------------------------------------------------------------------

#[tokio::test]
async fn a_close_is_clean_at_both_ends() {
    for streams in [memory::pair(), tcp().await] {
        let (client, server) = Peers::new().meet(streams).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        soon(client.close()).await;
        let end = soon(server.accept()).await.unwrap_err();
        assert!(matches!(end, SessionEnd::ClosedByPeer), "{end:?}");
        let end = soon(server.closed()).await;
        assert!(
            matches!(end, SessionEnd::ClosedByPeer) && end.is_clean(),
            "{end:?}"
        );
        let end = soon(client.closed()).await;
        assert!(
            matches!(end, SessionEnd::Closed) && end.is_clean(),
            "{end:?}"
        );
        assert!(matches!(
            client.open("x").await,
            Err(OpenError::Session(SessionEnd::Closed) | OpenError::Mux(_))
        ));
        one_line(&end);
    }
}

#[tokio::test]
async fn what_was_written_and_ended_before_a_close_arrives() {
    let (client, server) = Peers::new().sessions().await;
    let (opened, accepted) = soon(async {
        tokio::join!(client.open("x"), async {
            server.accept().await.unwrap().accept().await
        })
    })
    .await;
    let (mut opened, mut accepted) = (opened.unwrap(), accepted.unwrap());
    let bytes = pattern(100_000, 9);
    opened.write_all(&bytes).await.unwrap();
    opened.shutdown().await.unwrap();
    let mut got = Vec::new();
    let (read, ()) =
        soon(async { tokio::join!(accepted.read_to_end(&mut got), client.close()) }).await;
    read.unwrap();
    assert!(got == bytes);
}

#[tokio::test]
async fn a_cut_is_not_clean() {
    let peers = Peers::new();
    let (a, b) = memory::pair();
    let (near, mut wire_a) = memory::pair();
    // The wire in between can be cut.
    let mut wire_b = b;
    let cut = tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut wire_a, &mut wire_b).await;
    });
    let (client, server) = peers.meet((near, a)).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    let (opened, accepted) = soon(async {
        tokio::join!(client.open("x"), async {
            server.accept().await.unwrap().accept().await
        })
    })
    .await;
    let (mut opened, _accepted) = (opened.unwrap(), accepted.unwrap());
    cut.abort();
    for session in [&client, &server] {
        let end = soon(session.closed()).await;
        assert!(
            matches!(end, SessionEnd::Tls(TlsError::Truncated { .. })),
            "{end:?}"
        );
        assert!(!end.is_clean());
        one_line(&end);
    }
    // And its substreams read an error, never an end.
    assert!(soon(opened.read(&mut [0; 10])).await.is_err());
}

#[tokio::test]
async fn substreams_outlive_the_handles_of_their_session() {
    let (client, server) = Peers::new().sessions().await;
    let (opened, accepted) = soon(async {
        tokio::join!(client.open("x"), async {
            server.accept().await.unwrap().accept().await
        })
    })
    .await;
    let (mut opened, mut accepted) = (opened.unwrap(), accepted.unwrap());
    drop(client);
    opened.write_all(b"still here").await.unwrap();
    opened.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(accepted.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"still here");
    drop((opened, accepted));
    let end = soon(server.closed()).await;
    assert!(end.is_clean(), "{end:?}");
}

// ---- peers that do not keep to the header ----------------------------------------------------

/// A peer whose mux is in our hands.
async fn raw_peer(peers: &Peers) -> (mux::Mux, Session) {
    let (near, far) = memory::pair();
    let (raw, session) = soon(async {
        tokio::join!(
            async {
                let onion = by_hand(near, Side::Client, &peers.client).await;
                let (mux, driver) = mux::mux(onion, Side::Client, mux::Config::default());
                tokio::spawn(driver);
                mux
            },
            Session::handshake(far, &[], Side::Server, &peers.server)
        )
    })
    .await;
    (raw, session.unwrap())
}

#[tokio::test]
async fn a_slow_header_delays_no_other_and_survives_a_dropped_accept() {
    let (raw, session) = raw_peer(&Peers::new()).await;
    let mut slow = raw.open().await.unwrap();
    slow.write_all(b"\x01\x00").await.unwrap();
    slow.flush().await.unwrap();
    let mut quick = raw.open().await.unwrap();
    quick.write_all(b"\x01\x00\x05quick").await.unwrap();
    quick.flush().await.unwrap();
    let incoming = soon(session.accept()).await.unwrap();
    assert_eq!(incoming.service(), "quick");
    // Dropped half way, and nothing of the slow one is lost.
    assert!(
        tokio::time::timeout(Duration::from_millis(20), session.accept())
            .await
            .is_err()
    );
    slow.write_all(b"\x04sl").await.unwrap();
    slow.flush().await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(20), session.accept())
            .await
            .is_err()
    );
    slow.write_all(b"owand more").await.unwrap();
    slow.flush().await.unwrap();
    let incoming = soon(session.accept()).await.unwrap();
    assert_eq!(incoming.service(), "slow");
    let mut stream = incoming.accept().await.unwrap();
    // What follows the header belongs to the service, to the byte.
    let mut got = [0; 8];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"and more");
    let mut answer = [0; 3];
    soon(slow.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [1, 0, 0]);
}

#[tokio::test]
async fn nonsense_headers_are_answered_and_harm_nobody() {
    let (raw, session) = raw_peer(&Peers::new()).await;
    let accepting =
        tokio::spawn(async move { session.accept().await.map(|i| i.service().to_owned()) });
    for nonsense in [
        &b"\x02"[..],
        b"\x01\x80\x00",
        b"\x01\x00\x01\xff",
        "\x01\x00\x05d\u{200b}b".as_bytes(),
        b"GET / HTTP/1.1\r\n",
    ] {
        let mut stream = raw.open().await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer[..2], [1, 4], "{nonsense:?}: {answer:?}");
        assert_eq!(usize::from(answer[2]), answer.len() - 3);
    }
    // One that ends too early gets no answer, only an end.
    let mut short = raw.open().await.unwrap();
    short.write_all(b"\x01\x00\x09abc").await.unwrap();
    short.shutdown().await.unwrap();
    assert!(soon(short.read(&mut [0; 1])).await.is_err());
    let mut good = raw.open().await.unwrap();
    good.write_all(b"\x01\x00\x04good").await.unwrap();
    good.flush().await.unwrap();
    assert_eq!(soon(accepting).await.unwrap().unwrap(), "good");
}

#[tokio::test(start_paused = true)]
async fn a_substream_that_says_nothing_is_reset() {
    let (raw, session) = raw_peer(&Peers::new()).await;
    let accepting = tokio::spawn(async move { session.accept().await.map(drop) });
    let mut silent = raw.open().await.unwrap();
    silent.flush().await.unwrap();
    let error = soon(silent.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    accepting.abort();
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_an_error() {
    let (raw, session) = raw_peer(&Peers::new()).await;
    for answer in [&b"\x02\x00\x00"[..], b"\x01\x09\x00", b"HTTP/1.1 200 OK"] {
        let (opened, _held) = soon(async {
            tokio::join!(session.open("x"), async {
                let mut stream = raw.accept().await.unwrap();
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                stream
            })
        })
        .await;
        let error = opened.unwrap_err();
        assert!(matches!(error, OpenError::Protocol { .. }), "{error:?}");
        one_line(&error);
    }
    // Cut off in the middle of an answer.
    let (opened, ()) = soon(async {
        tokio::join!(session.open("x"), async {
            let mut stream = raw.accept().await.unwrap();
            stream.write_all(b"\x01\x01\x20half").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
    })
    .await;
    assert!(matches!(opened.unwrap_err(), OpenError::Dropped { .. }));
}

// ---- sessions that come back -----------------------------------------------------------------

/// Where a client dials that connects again: each attempt brings a stream here.
struct Door {
    peers: Peers,
    streams: tokio::sync::mpsc::UnboundedReceiver<Stream>,
    knock: tokio::sync::mpsc::UnboundedSender<Stream>,
}

impl Door {
    fn new() -> Self {
        let (knock, streams) = tokio::sync::mpsc::unbounded_channel();
        Self {
            peers: Peers::new(),
            streams,
            knock,
        }
    }

    /// Dials for ever; the first session stands.
    async fn reconnecting(&mut self) -> (Reconnecting, Session) {
        let (knock, config) = (self.knock.clone(), self.peers.client.clone());
        let connect = move || {
            let (near, far) = memory::pair();
            knock.send(far).unwrap();
            let config = config.clone();
            async move { Session::handshake(near, &[], Side::Client, &config).await }
        };
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let dialling = Reconnecting::with(backoff, connect);
        let (line, server) = tokio::join!(dialling, self.answer());
        (line.unwrap(), server.unwrap())
    }

    async fn answer(&mut self) -> Result<Session, ConnectError> {
        let stream = soon(self.streams.recv()).await.unwrap();
        Session::handshake(stream, &[], Side::Server, &self.peers.server).await
    }
}

fn is_down(status: &ReconnectStatus, why: &str) {
    match status {
        ReconnectStatus::Down(reported) if reported.contains(why) => {}
        other => panic!("{other:?} instead of {why}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_comes_back_and_what_was_in_the_old_one_is_an_error() {
    let mut door = Door::new();
    let (mut line, server) = door.reconnecting().await;
    serve_echo(server.clone());
    let old = line.session().await.unwrap();
    let mut stream = old.open("echo").await.unwrap();
    server.close().await;
    assert!(stream.read(&mut [0; 8]).await.is_err());
    is_down(&line.changed().await, "the peer closed the session");
    // The other end is away: nobody answers, and that passes.
    drop(soon(door.streams.recv()).await.unwrap());
    is_down(&line.changed().await, "without a word");
    let waiting = {
        let line = line.clone();
        tokio::spawn(async move { line.session().await })
    };
    let server = door.answer().await.unwrap();
    serve_echo(server);
    let new = soon(waiting).await.unwrap().unwrap();
    assert!(matches!(line.changed().await, ReconnectStatus::Up(_)));
    assert_ne!(old.tls_exporter(), new.tls_exporter());
    let stream = new.open("echo").await.unwrap();
    assert_eq!(echoed(stream, b"again".to_vec()).await, b"again");
    let over = old.open("echo").await;
    assert!(matches!(over, Err(OpenError::Session(_))));
}

/// A server that has too much to do: at its time limit it has heard nothing yet, or its last word has just left.
#[tokio::test(start_paused = true)]
async fn who_is_given_up_at_the_servers_time_limit_reads_that() {
    for hello_first in [false, true] {
        let peers = Peers::new();
        let mut server = peers.server.clone();
        server.layer_timeout = Duration::ZERO;
        let (near, far) = memory::pair();
        let dials = Session::handshake(near, &[], Side::Client, &peers.client);
        let serves = Session::handshake(far, &[], Side::Server, &server);
        let (dialled, served) = if hello_first {
            soon(async { tokio::join!(dials, serves) }).await
        } else {
            soon(async {
                let (served, dialled) = tokio::join!(serves, dials);
                (dialled, served)
            })
            .await
        };
        let served = served.unwrap_err();
        assert!(
            matches!(served, ConnectError::TimedOut { .. }),
            "{hello_first} {served}"
        );
        let error = dialled.unwrap_err();
        assert!(
            matches!(error, ConnectError::Tls(TlsError::GivenUp)) && error.is_transient(),
            "{hello_first} {error:?}"
        );
        assert!(one_line(&error).contains("time limit"), "{error}");
    }
}

/// A server that drains takes nothing new for as long as one of its clients goes on.
#[tokio::test(start_paused = true)]
async fn a_session_that_takes_nothing_more_is_replaced_while_its_substreams_go_on() {
    let mut door = Door::new();
    let (mut line, server) = door.reconnecting().await;
    serve_echo(server.clone());
    let old = line.session().await.unwrap();
    let mut lasting = old.open("echo").await.unwrap();
    soon(server.go_away()).await;
    soon(old.spent()).await;
    let waiting = {
        let line = line.clone();
        tokio::spawn(async move { line.session().await })
    };
    is_down(&soon(line.changed()).await, "takes no more substreams");
    serve_echo(door.answer().await.unwrap());
    let new = soon(waiting).await.unwrap().unwrap();
    let stream = new.open("echo").await.unwrap();
    assert_eq!(echoed(stream, b"new".to_vec()).await, b"new");
    // What was open has lost nothing, and the old session ends in order behind it.
    lasting.write_all(b"old").await.unwrap();
    lasting.shutdown().await.unwrap();
    let mut back = Vec::new();
    soon(lasting.read_to_end(&mut back)).await.unwrap();
    assert_eq!(back, b"old");
    drop(lasting);
    let end = soon(old.closed()).await;
    assert!(end.is_clean(), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_not_wanted_any_more_is_given_up() {
    let mut door = Door::new();
    let (mut line, server) = door.reconnecting().await;
    door.peers.server.trust = Arc::new(Pinned::new([]));
    server.close().await;
    is_down(&line.changed().await, "closed");
    door.answer().await.unwrap_err();
    let over = soon(line.session()).await.unwrap_err();
    let Terminated::Failed(error) = &over else {
        panic!("{over}");
    };
    assert!(!error.is_transient());
    assert!(
        one_line(&over).contains("does not allow this machine"),
        "{over}"
    );
    assert!(matches!(
        line.changed().await,
        ReconnectStatus::Terminated(_)
    ));
    // Closing changes nothing about why it is over.
    line.close().await;
    assert!(matches!(line.session().await, Err(Terminated::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn closing_ends_it_for_good_and_the_peer_learns_it() {
    let mut door = Door::new();
    let (line, server) = door.reconnecting().await;
    let session = line.session().await.unwrap();
    line.close().await;
    assert!(matches!(server.closed().await, SessionEnd::ClosedByPeer));
    assert!(matches!(session.closed().await, SessionEnd::Closed));
    assert!(matches!(line.session().await, Err(Terminated::Closed)));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(door.streams.try_recv().is_err(), "nobody dials any more");
}

#[tokio::test(start_paused = true)]
async fn without_a_handle_nothing_is_dialled_and_the_session_goes_on() {
    let mut door = Door::new();
    let (line, server) = door.reconnecting().await;
    serve_echo(server.clone());
    let session = line.session().await.unwrap();
    drop(line);
    let stream = session.open("echo").await.unwrap();
    assert_eq!(echoed(stream, b"still".to_vec()).await, b"still");
    server.close().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(door.streams.try_recv().is_err(), "nobody dials any more");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drops_every_session_at_once_is_dialled_ever_more_rarely() {
    let mut door = Door::new();
    let (_line, server) = door.reconnecting().await;
    server.close().await;
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        door.answer().await.unwrap().close().await;
    }
    // 0.1, 0.2, 0.4, 0.8, 1.6 and 15 times 2 s, less a quarter at most.
    assert!(
        began.elapsed() >= Duration::from_secs(24),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_first_session_is_made_once() {
    let peers = Peers::new();
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("tcp:{}", listener.local_addr().unwrap())
    };
    let error = Reconnecting::dial(&nobody.parse().unwrap(), &peers.client).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, ConnectError::Transport(_)) && error.is_transient(),
        "{error}"
    );
    let wrong = Reconnecting::dial(&"mux+tcp:127.0.0.1:1".parse().unwrap(), &peers.client).await;
    assert!(!wrong.unwrap_err().is_transient());
}

#[tokio::test]
async fn an_address_is_dialled_again() {
    let peers = Peers::new();
    let mut listener = listen(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = listener.endpoint().clone();
    let mut answer = async || {
        let stream = listener.accept().await.unwrap().unwrap();
        Session::handshake(stream, &[], Side::Server, &peers.server)
            .await
            .unwrap()
    };
    let (line, server) =
        soon(async { tokio::join!(Reconnecting::dial(&at, &peers.client), answer()) }).await;
    let line = line.unwrap();
    server.close().await;
    let server = soon(answer()).await;
    serve_echo(server);
    let session = soon(line.session()).await.unwrap();
    let stream = session.open("echo").await.unwrap();
    assert_eq!(echoed(stream, b"again".to_vec()).await, b"again");
}

// ---- invitations -----------------------------------------------------------------------------

/// A joiner and an inviter, in one session of whoever comes.
async fn invited(joiner: &Identity, inviter: &Identity) -> (Session, Session) {
    let peers = Peers {
        client: StackConfig::new(joiner.clone(), Arc::new(AcceptAny)),
        server: StackConfig::new(inviter.clone(), Arc::new(AcceptAny)),
    };
    peers.sessions().await
}

fn invitation(of: &Identity) -> (Invitation, Mutex<OpenInvitation>) {
    let until = UnixTime::since_unix_epoch(Duration::from_secs(1000));
    let ours = Invitation::new(of.peer_id(), "tcp:host:7000", until).unwrap();
    let theirs = ours.code().unwrap().parse().unwrap();
    (theirs, Mutex::new(OpenInvitation::new(ours)))
}

fn noon() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(500))
}

#[tokio::test]
async fn an_invitation_is_used_by_the_invited_and_by_nobody_before() {
    let (ann, bob) = (identity(), identity());
    let (code, open) = invitation(&ann);
    // Strangers show what they like.
    for _ in 0..7 {
        let (stranger, at_ann) = invited(&identity(), &ann).await;
        let (_, admitted) = soon(async {
            tokio::join!(
                async {
                    let mut stream = stranger.open(PAIRING_SERVICE).await.unwrap();
                    stream.write_all(&[7; 32]).await.unwrap();
                    stream.flush().await.unwrap();
                    stream.read_to_end(&mut Vec::new()).await
                },
                async { admit(&at_ann, at_ann.accept().await.unwrap(), &open, noon).await }
            )
        })
        .await;
        let refused = admitted.unwrap_err();
        assert!(
            matches!(refused, PairingError::NotAdmitted(NotAdmitted::Wrong)),
            "{refused}"
        );
    }
    let (at_bob, at_ann) = invited(&bob, &ann).await;
    let (joined, admitted) = soon(async {
        tokio::join!(join(&at_bob, &code), async {
            admit(&at_ann, at_ann.accept().await.unwrap(), &open, noon).await
        })
    })
    .await;
    joined.unwrap();
    assert_eq!(admitted.unwrap(), bob.peer_id());
}

#[tokio::test]
async fn whoever_made_an_invitation_can_not_use_it_up() {
    let ann = identity();
    let (code, open) = invitation(&ann);
    // Here, before anything is sent.
    let (at_self, _other_end) = invited(&ann, &ann).await;
    let error = soon(join(&at_self, &code)).await.unwrap_err();
    assert!(
        matches!(error, PairingError::NotAdmitted(NotAdmitted::Own)),
        "{error}"
    );
    assert!(one_line(&error).contains("your own"), "{error}");
    // And there, where it was made, by the same key and by its successor.
    let times = RotationTimes {
        issued: UnixTime::since_unix_epoch(Duration::ZERO),
        expires: UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX)),
        overlap: UnixTime::since_unix_epoch(Duration::ZERO),
    };
    let renewed = ann.rotate(KeyKind::Ed25519, times).unwrap();
    for joiner in [&ann, &renewed] {
        let (asking, at_ann) = invited(joiner, &ann).await;
        let (opened, admitted) = soon(async {
            tokio::join!(asking.open(PAIRING_SERVICE), async {
                admit(&at_ann, at_ann.accept().await.unwrap(), &open, noon).await
            })
        })
        .await;
        assert!(matches!(
            admitted,
            Err(PairingError::NotAdmitted(NotAdmitted::Own))
        ));
        let error = opened.unwrap_err();
        assert!(
            matches!(&error, OpenError::Refused { reason, .. } if reason.contains("your own")),
            "{error}"
        );
    }
    // The one who was invited comes to the inviter's next key as well.
    let (at_bob, at_ann) = invited(&identity(), &renewed).await;
    let (joined, admitted) = soon(async {
        tokio::join!(join(&at_bob, &code), async {
            admit(&at_ann, at_ann.accept().await.unwrap(), &open, noon).await
        })
    })
    .await;
    joined.unwrap();
    assert_eq!(admitted.unwrap(), at_ann.peer().id());
    // But not to anybody else.
    let (at_bob, _other) = invited(&identity(), &identity()).await;
    assert!(matches!(
        soon(join(&at_bob, &code)).await,
        Err(PairingError::WrongPeer { .. })
    ));
}

/// A byte now and then is no way to hold an invitation up, nor to keep it once it is used.
#[tokio::test]
async fn an_invitation_waits_for_nobody_for_long() {
    let (ann, bob) = (identity(), identity());
    let (code, open) = invitation(&ann);
    let (at_bob, at_ann) = invited(&bob, &ann).await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let dribble = async {
        let mut stream = at_bob.open(PAIRING_SERVICE).await.unwrap();
        while stream.write_all(&[7]).await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    };
    let admitting = async { admit(&at_ann, at_ann.accept().await.unwrap(), &open, noon).await };
    let refused = tokio::select! {
        () = dribble => panic!("it could go on for ever"),
        admitted = admitting => admitted.unwrap_err(),
    };
    assert!(matches!(refused, PairingError::TimedOut), "{refused}");
    assert!(one_line(&refused).contains("30 s"), "{refused}");
    assert!(begun.elapsed() <= Duration::from_secs(31));

    // The right proof, and then nothing: no end, which says that the answer was read.
    let begun = tokio::time::Instant::now();
    let proof = code.joiner_proof(at_bob.tls_exporter(), bob.peer_id());
    let silent = async {
        let mut stream = at_bob.open(PAIRING_SERVICE).await.unwrap();
        stream.write_all(&proof).await.unwrap();
        stream.flush().await.unwrap();
        std::future::pending::<()>().await;
        drop(stream);
    };
    let admitting = async { admit(&at_ann, at_ann.accept().await.unwrap(), &open, noon).await };
    let admitted = tokio::select! {
        () = silent => unreachable!(),
        admitted = admitting => admitted.unwrap(),
    };
    assert_eq!(admitted, bob.peer_id());
    assert!(begun.elapsed() <= Duration::from_secs(10));
}

#[tokio::test]
async fn who_was_wrong_too_often_reads_when_to_come_again() {
    let (ann, bob) = (identity(), identity());
    let (code, open) = invitation(&ann);
    // Somebody with one letter of the code wrong.
    let until = UnixTime::since_unix_epoch(Duration::from_secs(1000));
    let wrong = Invitation::new(ann.peer_id(), "tcp:host:7000", until).unwrap();
    let (at_bob, at_ann) = invited(&bob, &ann).await;
    let attempt = async |code| {
        soon(async {
            tokio::join!(join(&at_bob, code), async {
                admit(&at_ann, at_ann.accept().await.unwrap(), &open, noon).await
            })
        })
        .await
    };
    for _ in 0..5 {
        let (joined, _) = attempt(&wrong).await;
        let line = one_line(&joined.unwrap_err());
        assert!(line.contains("copy"), "{line}");
    }
    // It has the right one now, and need not ask for another.
    let (joined, admitted) = attempt(&code).await;
    let line = one_line(&joined.unwrap_err());
    assert!(line.contains("try again in 60 s"), "{line}");
    assert!(!line.contains("another one"), "{line}");
    assert!(matches!(
        admitted,
        Err(PairingError::NotAdmitted(NotAdmitted::TooManyTries { .. }))
    ));
}

/// No room for anybody.
#[derive(Debug)]
struct NoRoom;

impl cepa::stack::Admission for NoRoom {
    fn admit(
        &self,
        _: &cepa::tls::Peer,
    ) -> Result<cepa::stack::Admitted, cepa::stack::NotAdmitted> {
        Err(cepa::stack::NotAdmitted {
            code: mux::GoAwayCode::Limit(mux::LimitKind::PeerSessions),
            reason: "too many".into(),
        })
    }
}

#[tokio::test]
async fn a_session_that_there_is_no_room_for_is_refused_before_it_stands() {
    let [one, other] = [(); 2].map(|()| Identity::generate(KeyKind::Ed25519).unwrap());
    let client = StackConfig::new(one, Arc::new(AcceptAny));
    let mut server = StackConfig::new(other, Arc::new(AcceptAny));
    server.admission = Some(Arc::new(NoRoom));
    for _ in 0..50 {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (near, far) = (Stream::from_io(near, "near"), Stream::from_io(far, "far"));
        let (dialled, refused) = tokio::join!(
            Session::handshake(near, &[], Side::Client, &client),
            Session::handshake(far, &[], Side::Server, &server)
        );
        let error = dialled.unwrap_err();
        assert!(matches!(error, ConnectError::GoneAway { .. }), "{error:?}");
        assert!(
            error.to_string().contains("sessions of one peer"),
            "{error}"
        );
        assert!(matches!(refused, Err(ConnectError::NotAdmitted(_))));
    }
}
