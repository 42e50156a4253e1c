//! What programs that use the library reach for, as they would write it.
// Two ends in one task.
#![allow(clippy::large_futures)]

mod support;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa::identity::AcceptAny;
use cepa::mux::{self, GoAwayCode, Priority, StreamError, StreamTimeouts, Substream};
use cepa::node::{Access, Event, Events, ListenError, Node, NodeConfig, PeerAddr, ShareLimits};
use cepa::session::{
    AcceptError, ConnectError, OpenError, OpenOptions, Reconnecting, Session, SessionEnd,
};
use cepa::stack::{DEFAULT_LAYERS, SERIAL_LAYERS, StackConfig};
use cepa::tls::KeyForm;
use cepa::transports::{Remote, Stream};
use cepa::{Endpoint, Layer, ServiceStream, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use support::{identity, soon};

fn config() -> StackConfig {
    StackConfig::new(identity(), Arc::new(AcceptAny))
}

/// The two ends of a session over a pipe.
async fn sessions(client: StackConfig, server: StackConfig) -> (Session, Session) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (near, far) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, &client),
            Session::handshake(far, &[], Side::Server, &server)
        )
    })
    .await;
    (near.unwrap(), far.unwrap())
}

async fn pair() -> (Session, Session) {
    sessions(config(), config()).await
}

/// An open substream, both ends.
async fn stream(near: &Session, far: &Session) -> (ServiceStream, ServiceStream) {
    let (near, far) = soon(async {
        tokio::join!(near.open("x"), async {
            far.accept().await.unwrap().accept().await
        })
    })
    .await;
    (near.unwrap(), far.unwrap())
}

fn node() -> Node {
    Node::new(NodeConfig::new(identity(), Arc::new(AcceptAny)))
}

async fn listening(node: &Node) -> PeerAddr {
    let at = node.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let address = format!("cepa://{}@{}", node.id(), at.unwrap());
    address.parse().unwrap()
}

async fn until<T>(events: &mut Events, mut is: impl FnMut(&Event) -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(found) = is(&events.next().await.expect("the node is gone")) {
                return found;
            }
        }
    })
    .await
}

// ---- a stream that came in at an address --------------------------------------------------------

#[tokio::test]
async fn an_acceptor_takes_the_layers_and_the_line_from_the_address() {
    // With the layers as the other end has to write them, and what is agreed on in each.
    let two = [Layer::Mux, Layer::Tls, Layer::Tls];
    for (address, layers, form) in [
        ("tcp:127.0.0.1:7000", DEFAULT_LAYERS, KeyForm::Certificate),
        ("mux+tls+tls+unix:/run/x", &two, KeyForm::Certificate),
        ("serial:/dev/ttyS0", SERIAL_LAYERS, KeyForm::RawPublicKey),
    ] {
        let at: Endpoint = address.parse().unwrap();
        let (client, server) = (config().for_endpoint(&at), config());
        let (near, far) = tokio::io::duplex(1 << 16);
        let (near, far) = soon(Box::pin(async {
            tokio::join!(
                Session::handshake(near, layers, Side::Client, &client),
                Session::accept_on(far, &at, &server)
            )
        }))
        .await;
        let (near, far) = (near.unwrap(), far.unwrap());
        let tls = layers.iter().filter(|layer| layer.is_tls()).count();
        assert_eq!(far.layers().len(), tls, "{address}");
        for layer in far.layers() {
            assert_eq!(layer.side(), Side::Server, "{address}");
            assert_eq!(layer.peer().key_form(), form, "{address}");
            // The group that costs a line 2.3 kB less.
            let short = layer.peer().group() == Some(0x001d);
            assert_eq!(short, form == KeyForm::RawPublicKey, "{address}");
        }
        let (mut one, mut other) = stream(&near, &far).await;
        one.write_all(b"hello").await.unwrap();
        one.shutdown().await.unwrap();
        let mut heard = String::new();
        soon(other.read_to_string(&mut heard)).await.unwrap();
        assert_eq!(heard, "hello", "{address}");
    }
}

#[tokio::test]
async fn an_acceptor_refuses_an_address_that_carries_no_session() {
    let at: Endpoint = "tls+tcp:127.0.0.1:7000".parse().unwrap();
    let (_near, far) = tokio::io::duplex(1 << 16);
    let error = soon(Session::accept_on(far, &at, &config()))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Layers { .. }), "{error:?}");
}

// ---- a session ends when its work is done ------------------------------------------------------

#[tokio::test]
async fn a_session_that_goes_away_finishes_what_is_open_and_takes_nothing_new() {
    let (near, far) = pair().await;
    let (mut one, mut other) = stream(&near, &far).await;
    soon(far.go_away()).await;
    // The peer's openings fail, and say that it may ask elsewhere.
    let refused = soon(async {
        loop {
            match near.open("x").await {
                Ok(_) => {}
                Err(error) => break error,
            }
        }
    })
    .await;
    assert!(refused.is_safe_to_retry(), "{refused:?}");
    assert!(!refused.is_limit() && !refused.is_local(), "{refused:?}");
    let ours = far.open("x").await.unwrap_err();
    assert!(ours.is_safe_to_retry() && ours.is_local(), "{ours:?}");
    // What was open goes on to its end.
    let drained = tokio::spawn({
        let far = far.clone();
        async move { far.drain(Duration::from_secs(3600)).await }
    });
    for n in 0..100_u32 {
        one.write_u32(n).await.unwrap();
        assert_eq!(soon(other.read_u32()).await.unwrap(), n);
    }
    one.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
    assert_eq!(soon(one.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    assert_eq!(soon(other.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    drop((one, other));
    assert!(soon(drained).await.unwrap().is_clean());
    let end = soon(near.closed()).await;
    assert!(end.is_clean(), "{end}");
}

#[tokio::test]
async fn a_drain_ends_what_does_not_end_by_itself() {
    let (near, far) = pair().await;
    let (mut one, _other) = stream(&near, &far).await;
    let end = soon(far.drain(Duration::from_millis(50))).await;
    assert!(end.is_clean() && end.is_local(), "{end}");
    assert!(soon(one.read_u8()).await.is_err());
    let end = soon(near.closed()).await;
    assert!(matches!(end, SessionEnd::ClosedByPeer), "{end:?}");
}

#[tokio::test]
async fn a_node_opens_again_where_a_session_goes_away() {
    let (server, client) = (node(), node());
    server
        .serve("x", Access::Anyone, async |call| {
            call.accept().await?.shutdown().await
        })
        .unwrap();
    let at = listening(&server).await.with_service("x").unwrap();
    let first = soon(client.session(&at)).await.unwrap();
    let held = soon(client.open(&at)).await.unwrap();
    soon(server.session_with(client.id()).unwrap().go_away()).await;
    // The old session stands while a stream is held; none of these is lost to it.
    for _ in 0..10 {
        let mut stream = soon(client.open(&at)).await.unwrap();
        assert_eq!(soon(stream.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    }
    assert!(soon(client.session(&at)).await.unwrap() != first);
    drop(held);
}

// ---- a node takes back what it offers ----------------------------------------------------------

#[tokio::test]
async fn a_listener_is_ended_by_its_address() {
    let (server, client) = (node(), node());
    let any = "tcp:127.0.0.1:0".parse().unwrap();
    let first = server.listen(&any).await.unwrap();
    let second = server.listen(&any).await.unwrap();
    assert_eq!(server.listeners(), [first.clone(), second.clone()]);
    let at: PeerAddr = format!("cepa://{}@{first}", server.id()).parse().unwrap();
    let session = soon(client.session(&at)).await.unwrap();
    assert!(soon(server.unlisten(&first)).await);
    assert!(!soon(server.unlisten(&first)).await, "it is gone");
    assert_eq!(server.listeners(), [second]);
    // The address is free at once, and what came through it goes on.
    assert_eq!(server.listen(&first).await.unwrap(), first);
    soon(session.ping()).await.unwrap();
    // Peers are parted with one by one.
    assert_eq!(soon(server.disconnect(client.id())).await, 1);
    assert!(soon(session.closed()).await.is_clean());
}

// ---- streams of one's own ----------------------------------------------------------------------

#[tokio::test]
async fn a_session_is_made_on_any_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (client, server) = (config(), config());
    let dialled = async {
        let stream = TcpStream::connect(at).await.unwrap();
        Session::handshake(stream, &[], Side::Client, &client).await
    };
    let accepted = async {
        let (stream, _) = listener.accept().await.unwrap();
        // Whatever is a byte stream, with a word on where it leads.
        let stream = tokio::io::BufStream::new(stream);
        let stream = Stream::from_io(stream, "a buffered stream");
        Session::handshake(stream, &[], Side::Server, &server).await
    };
    let (near, far) = Box::pin(soon(async { tokio::join!(dialled, accepted) })).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(near.label(), format!("tcp {at}"));
    assert_eq!(far.label(), "a buffered stream");
    soon(near.ping()).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_session_is_made_on_a_unix_socket() {
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let (client, server) = (config(), config());
    let (near, far) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, &client),
            Session::handshake(far, &[], Side::Server, &server)
        )
    })
    .await;
    soon(near.unwrap().ping()).await.unwrap();
    drop(far);
}

#[tokio::test]
async fn a_node_takes_a_stream_and_where_it_came_from() {
    let server = node();
    let mut events = server.events();
    let (near, far) = tokio::io::duplex(1 << 16);
    let origin = Remote::Tcp("192.0.2.7:4711".parse().unwrap());
    let client = config();
    let (dialled, accepted) = soon(async {
        tokio::join!(
            Session::handshake(near, &[], Side::Client, &client),
            server.accept(far, origin)
        )
    })
    .await;
    assert_eq!(accepted.unwrap().peer().id(), client.identity.peer_id());
    soon(dialled.unwrap().ping()).await.unwrap();
    let label = until(&mut events, |event| match event {
        Event::SessionUp { path, .. } => Some(path.label.clone()),
        _ => None,
    });
    assert_eq!(label.await, "tcp 192.0.2.7:4711");
}

// ---- what an open stream can do ----------------------------------------------------------------

#[tokio::test]
async fn a_stream_is_opened_with_a_priority_and_limits_and_can_be_given_others() {
    let (near, far) = pair().await;
    let limits = StreamTimeouts {
        half_closed: Some(Duration::from_millis(50)),
        ..StreamTimeouts::NONE
    };
    let options = OpenOptions::new()
        .priority(Priority::HIGHEST)
        .timeouts(limits);
    let accepting = async { far.accept().await.unwrap().accept().await.unwrap() };
    let (opened, other) = Box::pin(soon(async {
        tokio::join!(near.open_with("x", &options), accepting)
    }))
    .await;
    let mut opened = opened.unwrap();
    assert_eq!(opened.priority(), Priority::HIGHEST);
    opened.set_priority(Priority::LOWEST);
    assert_eq!(opened.stats().priority, Priority::LOWEST);
    assert_eq!(opened.id(), other.id());
    // The limit on silence behind a half-close is this stream's own.
    opened.shutdown().await.unwrap();
    let error = soon(opened.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    // And so is its patience with the peer.
    let options = OpenOptions::new().patience(Duration::from_millis(50));
    let late = soon(near.open_with("x", &options)).await.unwrap_err();
    assert!(matches!(late, OpenError::TimedOut { .. }), "{late:?}");
    let (near, far) = pair().await;
    let (mut one, mut other) = stream(&near, &far).await;
    one.set_timeouts(StreamTimeouts::NONE);
    one.reset(7);
    let error = soon(other.read_u8()).await.unwrap_err();
    let inside = error.get_ref().and_then(|it| it.downcast_ref());
    assert!(
        matches!(inside, Some(StreamError::ResetByPeer { code: 7 })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_stream_is_split_among_tasks_and_joined_again() {
    let (near, far) = pair().await;
    let (one, mut other) = stream(&near, &far).await;
    let (reader, mut writer) = one.into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(b"hello").await.unwrap();
        writer.shutdown().await.unwrap();
        writer
    });
    let mut text = String::new();
    soon(other.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "hello");
    other.write_all(b"back").await.unwrap();
    other.shutdown().await.unwrap();
    let mut one = reader.unsplit(soon(writing).await.unwrap());
    let mut text = String::new();
    soon(one.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "back");
}

#[cfg(feature = "futures-io")]
#[tokio::test]
async fn a_stream_has_the_traits_of_the_futures_crate() {
    use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (near, far) = pair().await;
    let (mut one, other) = stream(&near, &far).await;
    futures::AsyncWriteExt::write_all(&mut one, b"hello\nworld")
        .await
        .unwrap();
    futures::AsyncWriteExt::close(&mut one).await.unwrap();
    let (mut reader, mut writer) = futures::AsyncReadExt::split(other);
    let mut text = String::new();
    soon(reader.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "hello\nworld");
    writer.write_all(b"back").await.unwrap();
    writer.close().await.unwrap();
    let mut line = Vec::new();
    soon(futures::AsyncReadExt::read_to_end(&mut one, &mut line))
        .await
        .unwrap();
    assert_eq!(line, b"back");
}

/// Errors go where a function returns those of IO, with the kind that fits and themselves inside.
#[tokio::test]
async fn errors_of_the_library_are_errors_of_io() {
    async fn asks(session: &Session) -> io::Result<u8> {
        session.open("x").await?.read_u8().await
    }
    async fn dials(node: &Node, at: &PeerAddr) -> io::Result<u8> {
        node.open(at).await?.read_u8().await
    }
    let (near, far) = pair().await;
    let refusing = async { far.accept().await.unwrap().refuse("no").await.unwrap() };
    let (asked, ()) = soon(async { tokio::join!(asks(&near), refusing) }).await;
    let error = asked.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let inside = error.get_ref().and_then(|it| it.downcast_ref());
    assert!(
        matches!(inside, Some(OpenError::Refused { .. })),
        "{error:?}"
    );
    far.close().await;
    let error = soon(asks(&near)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error:?}");
    let unknown = PeerAddr::new(identity().peer_id());
    let error = dials(&node(), &unknown).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error:?}");
    let error = Session::dial(&"tcp:127.0.0.1:1".parse().unwrap(), &config()).await;
    let kind = io::Error::from(error.unwrap_err()).kind();
    assert_eq!(kind, io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_shared_among_tasks_can_be() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Session>();
    shared::<Node>();
    shared::<Reconnecting>();
    shared::<Substream>();
    shared::<ServiceStream>();
    shared::<cepa::session::Incoming>();
    shared::<cepa::node::Call>();
    shared::<OpenError>();
    shared::<AcceptError>();
    shared::<cepa::node::ReachError>();
    sent::<Stream>();
    let one = node();
    assert!(one == one.clone() && one != node());
}

// ---- services ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_handler_captures_and_may_fail() {
    let (server, client) = (node(), node());
    let (count, names) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let (counted, noted) = (Arc::clone(&count), Arc::clone(&names));
    server
        .serve("count", Access::Anyone, async move |call| {
            counted.fetch_add(1, Ordering::SeqCst);
            noted.lock().unwrap().push(call.service().to_owned());
            let mut stream = call.accept().await?;
            stream.read_u8().await?;
            stream.write_u8(1).await?;
            if counted.load(Ordering::SeqCst) == 2 {
                return Err(io::Error::other("the second is\none too many"));
            }
            stream.shutdown().await
        })
        .unwrap();
    let mut events = server.events();
    let at = listening(&server).await.with_service("count").unwrap();
    let mut first = soon(client.open(&at)).await.unwrap();
    first.write_u8(1).await.unwrap();
    assert_eq!(soon(first.read_to_end(&mut Vec::new())).await.unwrap(), 1);
    let mut second = soon(client.open(&at)).await.unwrap();
    second.write_u8(1).await.unwrap();
    let error = soon(second.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    let event = until(&mut events, |event| match event {
        Event::HandlerFailed { .. } => Some(event.clone()),
        _ => None,
    });
    let event = event.await;
    assert_eq!(event.peer(), Some(client.id()));
    let text = event.to_string();
    assert!(
        text.contains("count") && text.contains("one too many"),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(*names.lock().unwrap(), ["count", "count"]);
}

#[tokio::test]
async fn calls_of_a_service_come_as_a_stream() {
    use futures::StreamExt;
    let (server, client) = (node(), node());
    let mut calls = server.incoming("x", Access::Anyone).unwrap();
    let at = listening(&server).await.with_service("x").unwrap();
    let serving = tokio::spawn(async move {
        let mut peers = Vec::new();
        for _ in 0..3 {
            let call = StreamExt::next(&mut calls).await.unwrap();
            peers.push(call.peer().id());
            call.accept().await.unwrap().shutdown().await.unwrap();
        }
        peers
    });
    for _ in 0..3 {
        let mut stream = soon(client.open(&at)).await.unwrap();
        assert_eq!(soon(stream.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    }
    assert_eq!(soon(serving).await.unwrap(), [client.id(); 3]);
    // Its reader is gone by now.
    let refused = soon(client.open(&at)).await.unwrap_err().to_string();
    assert!(refused.contains("nobody serves it"), "{refused}");
    // And one that is withdrawn ends.
    let mut calls = server.incoming("y", Access::Anyone).unwrap();
    assert!(server.withdraw("y"));
    assert!(soon(calls.next()).await.is_none());
}

/// Of any request; it keeps the node, and its errors are those of opening the service.
#[tokio::test]
async fn a_connector_opens_the_service_of_its_address_for_each_connection() {
    use tower_service::Service as _;
    let (server, client) = (node(), node());
    server.serve("x", Access::Anyone, says_x).unwrap();
    let at = listening(&server).await;
    let mut connector = client.connector(at.clone().with_service("x").unwrap());
    let mut nobody = client.connector(at.with_service("nobody").unwrap());
    drop(client);
    for _ in 0..2 {
        let stream = soon(connector.call("http://peer/")).await.unwrap();
        let mut read = String::new();
        soon(stream.into_inner().read_to_string(&mut read))
            .await
            .unwrap();
        assert_eq!(read, "x");
    }
    assert_eq!(server.sessions().len(), 1);
    let error = soon(nobody.call(())).await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
}

async fn says_x(call: cepa::node::Call) {
    let mut stream = call.accept().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn substreams_of_a_session_come_as_a_stream() {
    use futures::StreamExt as _;
    let (near, far) = pair().await;
    let serving = tokio::spawn(async move {
        let served = far.incoming().map(|incoming| async move {
            let service = incoming.service().to_owned();
            incoming.accept().await?.shutdown().await?;
            Ok::<_, io::Error>(service)
        });
        served.buffer_unordered(8).collect::<Vec<_>>().await
    });
    for name in ["a", "b", "c"] {
        let mut stream = soon(near.open(name)).await.unwrap();
        assert_eq!(soon(stream.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    }
    soon(near.close()).await;
    let served: Result<Vec<_>, _> = soon(serving).await.unwrap().into_iter().collect();
    assert_eq!(served.unwrap(), ["a", "b", "c"]);
}

// ---- errors tell a limit from a drop, and here from there --------------------------------------

#[tokio::test(start_paused = true)]
async fn an_opening_says_whose_limit_stands_in_its_way() {
    let patience = OpenOptions::new().patience(Duration::from_millis(100));
    // Ours: as many are open as we allow.
    let mut few = config();
    few.mux = few.mux.with_max_outbound_streams(1);
    let (near, far) = sessions(few, config()).await;
    let held = stream(&near, &far).await;
    let error = soon(near.open_with("x", &patience)).await.unwrap_err();
    assert!(matches!(error, OpenError::NoRoom { .. }), "{error:?}");
    assert!(error.is_limit() && error.is_local() && error.is_safe_to_retry());
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::QuotaExceeded);
    drop(held);
    // The peer's: it has no more places, and its backlog is full.
    let mut few = config();
    few.mux = few.mux.with_max_inbound_streams(1).with_accept_backlog(1);
    let (near, far) = sessions(config(), few).await;
    let _held = stream(&near, &far).await;
    // One waits where there is room for one, the other is refused.
    let both = async {
        tokio::join!(
            near.open_with("x", &patience),
            near.open_with("x", &patience)
        )
    };
    let (waited, refused) = soon(both).await;
    let waited = waited.unwrap_err();
    assert!(matches!(waited, OpenError::TimedOut { .. }), "{waited:?}");
    let error = refused.unwrap_err();
    assert!(
        matches!(&error, OpenError::RefusedStream { reason, .. } if reason.is_limit()),
        "{error:?}"
    );
    assert!(error.is_limit() && !error.is_local() && error.is_safe_to_retry());
    assert!(error.to_string().contains("too many streams"), "{error}");
    // A drop is neither.
    let (near, far) = pair().await;
    let dropping = async { drop(far.accept().await.unwrap()) };
    let (opened, ()) = soon(async { tokio::join!(near.open("x"), dropping) }).await;
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::Dropped { .. }), "{error:?}");
    assert!(!error.is_limit() && !error.is_local() && !error.is_safe_to_retry());
}

#[tokio::test]
async fn an_end_says_whose_it_was_and_whether_a_limit() {
    let code = GoAwayCode::Limit(cepa::mux::LimitKind::Sessions);
    let (near, far) = pair().await;
    soon(far.close_with(code)).await;
    let (ours, theirs) = (soon(far.closed()).await, soon(near.closed()).await);
    assert!(ours.is_local() && ours.is_limit(), "{ours:?}");
    assert!(!theirs.is_local() && theirs.is_limit(), "{theirs:?}");
    assert!(!ours.is_clean() && !theirs.is_clean());
    let error = near.open("x").await.unwrap_err();
    assert!(error.is_limit() && !error.is_local(), "{error:?}");
}

// ---- configurations ----------------------------------------------------------------------------

#[test]
fn configurations_are_made_in_one_expression() {
    let config = NodeConfig::new(identity(), Arc::new(AcceptAny))
        .with_idle_timeout(None)
        .with_gate(cepa::gate::Config::default().with_all(7))
        .with_shares(ShareLimits::default().with_receive_memory(1 << 20))
        .with_stack(
            config()
                .with_open_timeout(Duration::from_secs(5))
                .with_link(cepa::link::Config::default().with_mtu(Some(200)))
                .with_mux(
                    mux::Config::default()
                        .with_max_inbound_streams(16)
                        .with_keepalive_interval(None),
                ),
        );
    assert_eq!(config.idle_timeout, None);
    assert_eq!(config.gate.all, 7);
    assert_eq!(config.shares.receive_memory, 1 << 20);
    assert_eq!(config.stack.open_timeout, Duration::from_secs(5));
    assert_eq!(config.stack.link.mtu, Some(200));
    assert_eq!(config.stack.mux.max_inbound_streams, 16);
    assert_eq!(config.stack.mux.keepalive_interval, None);
}

/// Every public struct that can't be written as a literal, and is named as what a user fills in.
#[test]
fn each_field_of_a_configuration_has_a_setter() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut configs) = (vec![root], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for rest in text.split("#[non_exhaustive]\npub struct ").skip(1) {
                let (name, rest) = rest.split_once(' ').unwrap();
                if !name.ends_with("Config") && name != "ShareLimits" {
                    continue;
                }
                configs += 1;
                let body = rest.split_once("\n}\n").unwrap().0;
                let fields = body.lines().filter_map(|it| it.strip_prefix("    pub "));
                for (field, _) in fields.filter_map(|it| it.split_once(": ")) {
                    let setter = format!("with_{field} => {field}: ");
                    assert!(text.contains(&setter), "{path:?}: {name}::{field}");
                }
            }
        }
    }
    assert!(configs >= 8, "{configs}: looking in the wrong place");
}

/// With what cepa itself names, and no dependency on rustls beside it.
#[test]
fn a_clock_and_a_provider_need_no_dependency_of_ones_own() {
    use cepa::tls::{CryptoProvider, TimeProvider, TlsConfig, UnixTime, rustls};
    #[derive(Debug)]
    struct Fixed;
    impl TimeProvider for Fixed {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(1 << 31)))
        }
    }
    let provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
    TlsConfig::builder(&identity(), Arc::new(AcceptAny))
        .clock(Arc::new(Fixed))
        .provider(Arc::new(provider))
        .build()
        .unwrap();
}

// ---- without a runtime, and when it is gone ----------------------------------------------------

#[test]
fn outside_a_runtime_there_is_an_error_and_no_panic() {
    use futures::executor::block_on;
    let at = "tcp:127.0.0.1:1".parse().unwrap();
    let error = block_on(Session::dial(&at, &config())).unwrap_err();
    assert!(matches!(error, ConnectError::NoRuntime), "{error:?}");
    let (near, _far) = tokio::io::duplex(1 << 16);
    let error = block_on(Session::handshake(near, &[], Side::Client, &config())).unwrap_err();
    assert!(matches!(error, ConnectError::NoRuntime), "{error:?}");
    let error = block_on(Reconnecting::dial(&at, &config())).unwrap_err();
    assert!(matches!(error, ConnectError::NoRuntime), "{error:?}");
    assert!(block_on(cepa::transports::dial(&at)).is_err());
    assert!(block_on(cepa::transports::listen(&at)).is_err());
    let node = node();
    let error = block_on(node.listen(&at)).unwrap_err();
    assert!(matches!(error, ListenError::NoRuntime), "{error:?}");
    let peer = identity().peer_id();
    let to: PeerAddr = format!("cepa://{peer}@{at}/x").parse().unwrap();
    let error = block_on(node.open(&to)).unwrap_err();
    assert!(error.to_string().contains("tokio runtime"), "{error}");
    block_on(node.shutdown(Duration::from_secs(1)));
    drop(node);
}

/// The session lives, in a runtime that is not the caller's.
#[test]
fn a_session_that_is_used_outside_its_runtime_gives_an_error_and_no_panic() {
    use futures::executor::block_on;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (near, far, mut one, _other, incoming) = runtime.block_on(async {
        let (near, far) = pair().await;
        let (one, other) = stream(&near, &far).await;
        let opens = {
            let near = near.clone();
            tokio::spawn(async move { near.open("y").await })
        };
        let incoming = soon(far.accept()).await.unwrap();
        drop(opens);
        (near, far, one, other, incoming)
    });
    let second = Some(Duration::from_secs(1));
    let end = block_on(far.accept()).unwrap_err();
    assert!(matches!(end, SessionEnd::NoRuntime), "{end:?}");
    let refused = block_on(incoming.refuse("no")).unwrap_err();
    assert!(
        matches!(refused, AcceptError::Session(SessionEnd::NoRuntime)),
        "{refused:?}"
    );
    let drained = block_on(one.wire_mut().drained(second)).unwrap_err();
    assert_eq!(drained.kind(), std::io::ErrorKind::Unsupported);
    let end = block_on(near.drain(Duration::from_secs(1)));
    assert!(matches!(end, SessionEnd::NoRuntime), "{end:?}");
    // It has not been touched.
    runtime.block_on(async { soon(near.ping()).await.unwrap() });
    drop(runtime);
    assert!(!block_on(near.drain(Duration::from_secs(1))).is_clean());
    assert!(block_on(one.wire_mut().drained(second)).is_err());
}

/// Whatever waits in another runtime, or in none, hears of the end of the one that served it.
#[test]
fn handles_end_with_the_runtime_that_serves_them() {
    use futures::executor::block_on;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut gone = runtime.block_on(async {
        let (near, far) = pair().await;
        let (one, other) = stream(&near, &far).await;
        let lasting = Reconnecting::with(cepa::session::Backoff::default(), {
            let far = far.clone();
            move || {
                let far = far.clone();
                async move { Ok(far) }
            }
        });
        (near, one, other, lasting.await.unwrap())
    });
    // Some wait by then, others come later.
    let (waiting, line) = (gone.0.clone(), gone.3.clone());
    let waits = std::thread::spawn(move || {
        let end = block_on(waiting.closed());
        let over = block_on(async {
            let mut line = line;
            loop {
                if let cepa::session::ReconnectStatus::Terminated(over) = line.changed().await {
                    break over;
                }
            }
        });
        (end, over)
    });
    drop(runtime);
    let (end, over) = waits.join().unwrap();
    assert!(!end.is_clean(), "{end:?}");
    assert!(matches!(over, cepa::session::Terminated::Gone), "{over:?}");
    let (near, one, other, lasting) = &mut gone;
    assert!(block_on(near.open("x")).is_err());
    assert!(block_on(near.accept()).is_err());
    assert!(block_on(near.ping()).is_err());
    assert!(block_on(one.read_u8()).is_err());
    assert!(block_on(async { other.write_all(&[0; 64]).await }).is_err());
    block_on(near.close());
    block_on(near.go_away());
    assert!(block_on(lasting.session()).is_err());
}

#[test]
fn a_node_ends_with_the_runtime_that_serves_it() {
    use futures::executor::block_on;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, mut listening, at, mut calls) = runtime.block_on(async {
        let (server, node) = (node(), node());
        let any = "tcp:127.0.0.1:0".parse().unwrap();
        let listening = node.bind(&any).await.unwrap();
        let calls = node.incoming("x", Access::Anyone).unwrap();
        let at = self::listening(&server).await.with_service("x").unwrap();
        node.session(&at).await.unwrap();
        (node, listening, at, calls)
    });
    drop(runtime);
    let _ = block_on(listening.ended());
    assert!(listening.has_ended());
    assert!(!block_on(node.unlisten(&listening.endpoint().clone())));
    assert!(block_on(node.open(&at)).is_err());
    // In a runtime that lives it dials anew, and says why that fails.
    let other = tokio::runtime::Runtime::new().unwrap();
    assert!(
        other
            .block_on(async { soon(node.open(&at)).await })
            .is_err()
    );
    other.block_on(async { soon(node.shutdown(Duration::from_secs(1))).await });
    assert!(block_on(calls.next()).is_none());
}
