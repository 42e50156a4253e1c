//! Nodes that reach each other directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind, PeerId, Pinned};
use cepa::node::{
    Access, Admission, Call, DialError, Event, Node, NodeConfig, Protocol, ReachError, Route,
    RouteError,
};
use cepa::protocols::sealed::Sealed;
use cepa::session::{OpenError, ServiceNameError, Session};
use cepa::transports::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;

use crate::support::{
    MeshNode, address, ask, config, eventually, listening, node, offer_echo, soon, until,
};

#[tokio::test]
async fn a_service_is_opened_by_address() {
    let (server, client) = (node(), node());
    offer_echo(&server);
    let (_, at) = listening(&server).await;
    let stream = client.open(&at.with_service("echo").unwrap()).await;
    let path = soon(ask(stream.unwrap(), b"hello")).await.unwrap();
    assert!(path.starts_with("tcp 127.0.0.1:"), "{path}");
}

#[tokio::test]
async fn nobody_gets_what_nobody_allowed() {
    let (server, friend, stranger) = (node(), node(), node());
    server.serve("private", Access::default(), crate::support::echo);
    let (_, at) = listening(&server).await;
    let private = at.clone().with_service("private").unwrap();
    let refusal = async |client: &MeshNode, service: &str| {
        let address = at.clone().with_service(service).unwrap();
        match client.open(&address).await {
            Err(ReachError::Open {
                error: OpenError::Refused { reason, .. },
                ..
            }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let denied = refusal(&friend, "private").await;
    assert_eq!(
        denied,
        refusal(&friend, "no such thing").await,
        "who may not open it does not learn that it is there"
    );
    assert!(server.allow("private", Access::peers([friend.id()])));
    soon(ask(friend.open(&private).await.unwrap(), b"me"))
        .await
        .unwrap();
    assert_eq!(refusal(&stranger, "private").await, denied);
    assert!(!server.allow("no such thing", Access::Anyone));
    // The one that is open to us needs no name.
    let stream = friend.open(&at).await.unwrap();
    soon(ask(stream, b"me")).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_run_out_is_reported() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut certificate = rcgen::CertificateParams::new(["x".to_owned()]).unwrap();
    certificate.not_before = rcgen::date_time_ymd(2001, 1, 1);
    certificate.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let certificate = certificate.self_signed(&key).unwrap();
    let pem = key.serialize_pem() + &certificate.pem();
    let identity = Identity::from_pem(&pem).unwrap();
    // Only a key that was named is let in with such a certificate.
    let named = Arc::new(Pinned::one(identity.peer_id()));
    let server = Identity::generate(KeyKind::Ed25519).unwrap();
    let server = MeshNode::new(NodeConfig::new(server, named));
    let client = MeshNode::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
    let mut events = server.events();
    let (_, at) = listening(&server).await;
    let _session = client.session(&at).await.unwrap();
    let reported = until(&mut events, |event| match event {
        Event::CertificateExpired { peer } => (*peer == client.id()).then_some(()),
        _ => None,
    });
    soon(reported).await;
}

#[tokio::test]
async fn names_of_the_protocol_are_no_services() {
    let server = cepa::node::Node::new(config());
    for name in ["cepa.x", "cepa.", "cepa.relay.dial"] {
        let refused = server.serve(name, Access::Anyone, crate::support::echo);
        assert_eq!(refused, Err(ServiceNameError::Reserved), "{name}");
    }
    let long = "x".repeat(256);
    for name in ["", long.as_str(), "a\nb", "a\u{202e}b"] {
        let refused = server.serve(name, Access::Anyone, crate::support::echo);
        assert!(refused.is_err(), "{name:?}");
    }
    assert!(server.services().is_empty());
    let longest = "x".repeat(255);
    server
        .serve(&longest, Access::Anyone, crate::support::echo)
        .unwrap();
    let (at, client) = (
        server.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await,
        node(),
    );
    let to = address(&format!("cepa://{}@{}/{longest}", server.id(), at.unwrap()));
    soon(ask(client.open(&to).await.unwrap(), b"x"))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_wrong_peer_is_never_talked_to() {
    let (server, other, client) = (node(), node(), node());
    offer_echo(&server);
    let (at, _) = listening(&server).await;
    let wrong = address(&format!("cepa://{}@{at}/echo", other.id()));
    let error = client.open(&wrong).await.unwrap_err();
    assert!(
        matches!(error, ReachError::Dial(DialError::Failed { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains(&server.id().to_string()),
        "{error}"
    );
    assert!(client.sessions().is_empty());
}

#[tokio::test]
async fn errors_say_what_was_tried() {
    let (client, other) = (node(), node());
    let id = other.id();
    let own = address(&format!("cepa://{}", client.id()));
    let error = client.session(&own).await.unwrap_err();
    assert!(error.to_string().contains("this node itself"), "{error}");
    let error = client.session(&address(&format!("cepa://{id}"))).await;
    assert!(matches!(error, Err(DialError::NoHints { .. })), "{error:?}");
    // Nobody listens on either; both are named.
    let two = format!("cepa://{id}@tcp:127.0.0.1:1;unix:%2Fno%2Fsuch");
    let error = client
        .session(&address(&two))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("127.0.0.1:1"), "{error}");
    assert!(error.contains("/no/such"), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_dead_hint_does_not_delay_the_next() {
    let (server, client) = (node(), node());
    offer_echo(&server);
    let (at, _) = listening(&server).await;
    // A listener that takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let text = format!("cepa://{}@tcp:{silent};{at}/echo", server.id());
    soon(ask(client.open(&address(&text)).await.unwrap(), b"x"))
        .await
        .unwrap();
}

/// However many dial at once and from either side: in the end there is one session, the same for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_a_pair_however_many_dial() {
    for _ in 0..5 {
        let (a, b) = (node(), node());
        offer_echo(&a);
        offer_echo(&b);
        let (_, at_a) = listening(&a).await;
        let (_, at_b) = listening(&b).await;
        let start = Arc::new(Barrier::new(16));
        let asks = (0..16).map(|i| {
            let (from, to) = if i % 2 == 0 {
                (a.clone(), at_b.clone())
            } else {
                (b.clone(), at_a.clone())
            };
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                let to = to.with_service("echo").unwrap();
                let stream = from.open(&to).await.unwrap();
                ask(stream, &vec![7; 100_000]).await.unwrap();
            })
        });
        for asked in soon(futures::future::join_all(asks)).await {
            asked.unwrap();
        }
        eventually(|| a.sessions().len() == 1 && b.sessions().len() == 1).await;
        let (of_a, of_b) = (&a.sessions()[0].1, &b.sessions()[0].1);
        assert_ne!(of_a.dialled, of_b.dialled, "it is the same session");
    }
}

/// A peer that restarts with the same key is reached again, although its old session was never closed.
#[tokio::test]
async fn a_peer_that_restarts_is_reached_again() {
    let keys = config();
    let client = node();
    let first = MeshNode::new(keys.clone());
    offer_echo(&first);
    let (_, at) = listening(&first).await;
    let to = at.with_service("echo").unwrap();
    soon(ask(client.open(&to).await.unwrap(), b"1"))
        .await
        .unwrap();
    first.shutdown(Duration::ZERO).await;
    let second = MeshNode::new(keys);
    offer_echo(&second);
    let (_, at) = listening(&second).await;
    let to = at.with_service("echo").unwrap();
    soon(ask(client.open(&to).await.unwrap(), b"2"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_shutdown_lets_handlers_finish_and_takes_nothing_new() {
    let (server, client) = (node(), node());
    server.serve("slow", Access::Anyone, async |call| {
        let mut stream = call.accept().await.unwrap();
        let mut word = [0; 2];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(b"done").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let (_, at) = listening(&server).await;
    let to = at.with_service("slow").unwrap();
    let mut stream = client.open(&to).await.unwrap();
    let down = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown(Duration::from_secs(60)).await }
    });
    // From when on it takes no more is seen by trying.
    soon(async {
        while client.open(&to).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!down.is_finished(), "the handler is still at work");
    stream.write_all(b"go").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "done");
    drop(stream);
    soon(down).await.unwrap();
    eventually(|| client.sessions().is_empty()).await;
}

/// Strangers that hold a handshake open take places, and give them back.
#[tokio::test]
async fn handshakes_at_once_have_their_bound() {
    let mut narrow = config();
    narrow.gate.all = 1;
    narrow.gate.waiting = 0;
    let server = MeshNode::new(narrow);
    offer_echo(&server);
    let (endpoint, at) = listening(&server).await;
    let mut events = server.events();
    let place = endpoint.to_string().replace("tcp:", "");
    let silent = tokio::net::TcpStream::connect(place).await.unwrap();
    let to = at.with_service("echo").unwrap();
    // Its place may not be taken yet at this moment.
    soon(async { while node().open(&to).await.is_ok() {} }).await;
    let why = until(&mut events, |event| match event {
        Event::TurnedAway { reason, .. } => Some(reason.to_string()),
        _ => None,
    })
    .await;
    assert_eq!(why, "too many handshakes at once");
    drop(silent);
    soon(async { while node().open(&to).await.is_err() {} }).await;
}

/// A pty stands for an adapter: when its master is closed, the device is gone.
#[cfg(feature = "serial")]
#[tokio::test]
async fn a_serial_line_that_was_unplugged_is_listened_on_again() {
    use cepa::transports::{Endpoint, dial};
    let folder = tempfile::tempdir().unwrap();
    let line = folder.path().join("line");
    let plug: Endpoint = format!("pty:{}", line.display()).parse().unwrap();
    let adapter = dial(&plug).await.unwrap();
    let server = node();
    offer_echo(&server);
    let mut events = server.events();
    let port: Endpoint = format!("serial:{},rs485=on", line.display())
        .parse()
        .unwrap();
    server.listen(&port).await.unwrap();
    let listening = |e: &Event| matches!(e, Event::Listening { .. }).then_some(());
    until(&mut events, listening).await;
    let remark = |e: &Event| match e {
        Event::Remark { text, .. } => Some(text.clone()),
        _ => None,
    };
    let remark = until(&mut events, remark).await;
    assert!(remark.contains("RS-485 is unsupported"), "{remark}");
    drop(adapter);
    let gone = |e: &Event| match e {
        Event::ListenerFailed { retrying: true, .. } => Some(()),
        _ => None,
    };
    until(&mut events, gone).await;
    // Back again, and somebody is at its other end.
    let stack = cepa::stack::StackConfig::new(
        Identity::generate(KeyKind::Ed25519).unwrap(),
        Arc::new(Pinned::one(server.id())),
    );
    let session = cepa::session::Session::dial(&plug, &stack);
    let back = |e: &Event| matches!(e, Event::ListenerBack { .. }).then_some(());
    let (session, ()) = soon(async { tokio::join!(session, until(&mut events, back)) }).await;
    let stream = session.unwrap().open("echo").await.unwrap();
    soon(ask(stream, b"hello")).await.unwrap();
}

/// Calls the node that it is dropped by.
struct CallsBack(Node);

impl Drop for CallsBack {
    fn drop(&mut self) {
        self.0.offers("echo");
        let _ = self.0.services();
        let _ = self.0.add_protocol(Arc::new(Odd(None)));
    }
}

/// A protocol whose other parts than `serve` are the application's code as well.
struct Odd(Option<CallsBack>);

impl Protocol for Odd {
    fn names(&self) -> &[&'static str] {
        if let Some(CallsBack(node)) = &self.0 {
            let _ = node.services();
            let _ = node.add_protocol(Arc::new(Odd(None)));
        }
        &["cepa.odd"]
    }

    fn admission(&self, _name: &str) -> Admission {
        panic!("it does not know who may open it")
    }

    fn serve(self: Arc<Self>, _call: Call) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Route for CallsBack {
    fn connect<'a>(
        &'a self,
        _session: &'a Session,
        _target: PeerId,
    ) -> BoxFuture<'a, Result<Stream, RouteError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn what_a_node_lets_go_of_may_call_it() {
    let (done, ended) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let node = Node::new(config());
    // In a thread of its own, since it would stand still for ever.
    std::thread::spawn(move || {
        let handler = || {
            let held = Arc::new(CallsBack(node.handle()));
            move |_call: Call| {
                let held = Arc::clone(&held);
                async move { drop(held) }
            }
        };
        for _ in 0..2 {
            node.serve("replaced", Access::Anyone, handler()).unwrap();
            node.serve_rest(Access::Anyone, handler());
            node.set_route(Arc::new(CallsBack(node.handle())));
        }
        assert!(node.withdraw("replaced"));
        node.serve("left", Access::Anyone, handler()).unwrap();
        let sealed = Sealed::on(&node).unwrap();
        for _ in 0..2 {
            let held = CallsBack(node.handle());
            sealed.serve("up", Access::Anyone, move |_| {
                let _ = &held;
                std::future::ready(Ok(Vec::new()))
            });
        }
        assert!(sealed.withdraw("up"));
        let odd = Odd(Some(CallsBack(node.handle())));
        let _ = node.add_protocol(Arc::new(odd));
        runtime.block_on(node.shutdown(Duration::ZERO));
        let _ = done.send(());
    });
    soon(ended).await.unwrap();
}

#[tokio::test]
async fn a_protocol_that_panics_before_it_serves_costs_its_substream_alone() {
    let (server, client) = (node(), node());
    server.add_protocol(Arc::new(Odd(None))).unwrap();
    offer_echo(&server);
    let mut events = server.events();
    let (_, at) = listening(&server).await;
    let session = client.session(&at).await.unwrap();
    let opened = soon(session.open("cepa.odd")).await;
    assert!(opened.is_err());
    let panicked = until(&mut events, |event| match event {
        Event::HandlerPanicked { peer, service } => Some((*peer, service.clone())),
        _ => None,
    });
    assert_eq!(panicked.await, (client.id(), "cepa.odd".to_owned()));
    let stream = session.open("echo").await.unwrap();
    soon(ask(stream, b"still here")).await.unwrap();
}

/// Takes connections and says nothing on them; counts them.
async fn silent() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp:{}", listener.local_addr().unwrap());
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    (at, came)
}

/// One whose handshakes wait for hours, so that who waits for a dead address waits for good.
fn patient() -> MeshNode {
    let mut config = config();
    config.stack.layer_timeout = Duration::from_secs(36_000);
    config.stack.stack_timeout = Duration::from_secs(36_000);
    MeshNode::new(config)
}

#[tokio::test]
async fn who_knows_a_good_address_does_not_wait_for_who_knows_a_dead_one() {
    let (server, client) = (node(), patient());
    offer_echo(&server);
    let (_, good) = listening(&server).await;
    let (at, came) = silent().await;
    let dead = address(&format!("cepa://{}@{at}", server.id()));
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.session(&dead).await }
    });
    eventually(|| came.load(Ordering::SeqCst) == 1).await;
    let second = soon(client.session(&good)).await.unwrap();
    // What came of it is the first one's too.
    let first = soon(first).await.unwrap().unwrap();
    assert!(first == second, "two sessions with one peer");
    assert_eq!(came.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_peer_that_comes_by_itself_is_waited_for_no_longer() {
    let (server, client) = (node(), patient());
    let (_, client_at) = listening(&client).await;
    let (at, came) = silent().await;
    let dead = address(&format!("cepa://{}@{at}", server.id()));
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.session(&dead).await }
    });
    eventually(|| came.load(Ordering::SeqCst) == 1).await;
    let _session = soon(server.session(&client_at)).await.unwrap();
    let found = soon(waits).await.unwrap().unwrap();
    assert_eq!(found.peer().id(), server.id());
}

#[tokio::test]
async fn those_who_dial_the_same_peer_share_what_comes_of_it() {
    const CALLERS: usize = 20;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let (client, counted) = (patient(), Arc::clone(&came));
    let nobody = PeerId::from_bytes([7; 32]);
    let to = address(&format!("cepa://{nobody}@tcp:{at}"));
    let callers = futures::future::join_all((0..CALLERS).map(|_| client.session(&to)));
    let refusing = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            // All of them wait by now: each was polled before the first could connect.
            drop(stream);
        }
    };
    let outcomes = tokio::select! {
        outcomes = soon(callers) => outcomes,
        () = refusing => unreachable!(),
    };
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(
            matches!(&error, DialError::Failed { attempts, .. } if attempts.len() == 1),
            "{error}"
        );
    }
    assert_eq!(came.load(Ordering::SeqCst), 1, "each dialled for itself");
}

#[tokio::test]
async fn a_dial_ends_with_the_last_who_waits_for_it() {
    let client = patient();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let nobody = PeerId::from_bytes([7; 32]);
    let to = address(&format!("cepa://{nobody}@tcp:{at}"));
    let mut callers: Vec<_> = (0..2)
        .map(|_| {
            let (client, to) = (client.clone(), to.clone());
            tokio::spawn(async move { client.session(&to).await })
        })
        .collect();
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    let mut hello = [0; 1];
    soon(stream.read_exact(&mut hello)).await.unwrap();
    callers.remove(0).abort();
    let mut rest = Vec::new();
    let open = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut rest));
    assert!(open.await.is_err(), "given up, though one waits still");
    callers.remove(0).abort();
    let _ = soon(stream.read_to_end(&mut rest)).await;
}
