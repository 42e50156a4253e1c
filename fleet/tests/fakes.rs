//! What is no etcd, or a bad one, at the other end: slow, with errors, with garbage, with more than is taken. Nothing ends, what is held
//! stays bounded, and the real one is found again.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cepa::identity::PeerId;
use cepa::protocols::relay::fleet::{Fleet, FleetConfig};
use cepa_fleet::etcd::{Client, EtcdError, Options};
use cepa_fleet::{FleetAddress, Keeper, StoreEvent, check};
use http::{HeaderMap, Response};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

/// What a fake answers to one call.
#[derive(Clone)]
enum Answer {
    /// A message, as gRPC frames it, and that all is well.
    Message(Vec<u8>),
    /// The same without an end: a stream.
    Open(Vec<u8>),
    /// An error, by its number.
    Status(u8, &'static str),
    /// These bytes where messages should be.
    Bytes(Vec<u8>),
    /// Another answer of HTTP.
    Http(u16),
    Never,
}

/// A server of HTTP/2 that answers each call as it is told; its place, and how many connections there were.
async fn fake(
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let answer = Arc::new(answer);
    let serve = move |stream: TcpStream| {
        let answer = Arc::clone(&answer);
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let answer = answer(request.uri().path());
                tokio::spawn(async move {
                    let _request = request;
                    say(&mut respond, answer).await;
                });
            }
        }
    };
    server(serve).await
}

async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (String, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let count = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counting.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream));
        }
    });
    (place, count)
}

async fn say(respond: &mut h2::server::SendResponse<Bytes>, answer: Answer) {
    let head = |status: u16| {
        let head = Response::builder().status(status);
        head.header("content-type", "application/grpc")
            .body(())
            .unwrap()
    };
    let (bytes, ends) = match answer {
        Answer::Never => std::future::pending().await,
        Answer::Http(status) => {
            let _ = respond.send_response(head(status), true);
            return;
        }
        Answer::Status(code, text) => {
            let mut head = head(200);
            head.headers_mut()
                .insert("grpc-status", u16::from(code).into());
            head.headers_mut()
                .insert("grpc-message", text.parse().unwrap());
            let _ = respond.send_response(head, true);
            return;
        }
        Answer::Message(message) => (framed(&message), true),
        Answer::Open(message) => (framed(&message), false),
        Answer::Bytes(bytes) => (bytes, true),
    };
    let Ok(mut body) = respond.send_response(head(200), false) else {
        return;
    };
    let _ = body.send_data(bytes.into(), false);
    if ends {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        let _ = body.send_trailers(trailers);
    } else {
        std::future::pending::<()>().await;
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// As an etcd that has nothing and at which nothing happens would answer, field by field.
fn good(path: &str) -> Answer {
    match path.rsplit('/').next().unwrap() {
        "Status" => Answer::Message(vec![0x20, 1]),
        "LeaseGrant" | "LeaseKeepAlive" => Answer::Message(vec![0x10, 7, 0x18, 10]),
        "Range" | "Txn" => Answer::Message(vec![0x0a, 2, 0x18, 5]),
        "Watch" => Answer::Open(vec![0x0a, 2, 0x18, 5, 0x18, 1]),
        _ => Answer::Status(12, "no such call"),
    }
}

fn soon() -> Options {
    Options {
        patience: Duration::from_secs(1),
        ..Options::default()
    }
}

async fn refused(place: &str) -> EtcdError {
    match Client::connect(place, &soon()).await {
        Err(error) => error,
        Ok(client) => client.page(b"a", b"b", 0).await.expect_err("no page"),
    }
}

/// All the bad ones.
async fn bad_ones() -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let (place, _) = server(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    all.push(("another protocol", place));
    let (place, _) = server(async |mut stream: TcpStream| {
        let _ = stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            .await;
    })
    .await;
    all.push(("HTTP/1.1", place));
    let (place, _) = server(async |stream: TcpStream| drop(stream)).await;
    all.push(("ends at once", place));
    let (place, _) = server(async |stream: TcpStream| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    all.push(("silent", place));
    let answers: [(&str, Answer); 12] = [
        ("slow", Answer::Never),
        ("an error", Answer::Status(13, "disk on fire")),
        (
            "overloaded",
            Answer::Status(8, "etcdserver: too many requests"),
        ),
        ("no leader", Answer::Status(14, "etcdserver: no leader")),
        ("no etcd", Answer::Status(12, "unknown service")),
        ("a proxy", Answer::Http(502)),
        ("a web server", Answer::Http(404)),
        ("garbage", Answer::Bytes(vec![0xff; 300])),
        (
            "a length without bytes",
            Answer::Bytes(vec![0, 0x40, 0, 0, 0, 1]),
        ),
        ("a cut message", Answer::Bytes(vec![0, 0, 0, 0, 9, 1])),
        ("no protobuf", Answer::Message(vec![0xff; 300])),
        ("nothing", Answer::Bytes(Vec::new())),
    ];
    for (name, answer) in answers {
        let (place, _) = fake(move |_| answer.clone()).await;
        all.push((name, place));
    }
    let (place, _) = fake(|path| match good(path) {
        Answer::Message(_) if path.ends_with("Range") => Answer::Message(vec![0; 0]),
        other => other,
    })
    .await;
    all.push(("no revision", place));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_one_is_an_error_with_a_reason_and_ends_in_time() {
    let (place, _) = fake(good).await;
    let client = Client::connect(&place, &soon()).await.unwrap();
    assert_eq!(client.page(b"a", b"b", 0).await.unwrap().revision, 5);
    for (name, place) in bad_ones().await {
        let error = refused(&place).await;
        assert!(!error.is_configuration(), "{name}: {error}");
        assert!(!error.to_string().contains('\n'));
        println!("{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_more_than_is_taken_is_not_waited_for() {
    for declared in [5u32 << 20, u32::MAX] {
        let (place, _) = fake(move |path| match path {
            "/etcdserverpb.KV/Range" => {
                let mut bytes = vec![0];
                bytes.extend(declared.to_be_bytes());
                bytes.extend([0; 1000]);
                Answer::Bytes(bytes)
            }
            path => good(path),
        })
        .await;
        let error = refused(&place).await;
        assert!(matches!(error, EtcdError::TooLarge(_)), "{error}");
    }
}

fn fleet() -> Fleet {
    let (own, other) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
    Fleet::new(own, FleetConfig::new([own, other]))
}

fn start(fleet: &Fleet, places: &[&str]) -> Keeper {
    let address: FleetAddress = format!("etcd://{}/cepa", places.join(",")).parse().unwrap();
    Keeper::start(fleet.clone(), &address, soon(), Arc::new(|_| {}))
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_bad_ones_a_good_one_is_found() {
    let bad = bad_ones().await;
    let (good, _) = fake(good).await;
    let mut waiting = Vec::new();
    for some in bad.chunks(2) {
        let mut places: Vec<&str> = some.iter().map(|(_, place)| place.as_str()).collect();
        places.push(&good);
        let fleet = fleet();
        let keeper = start(&fleet, &places);
        let names: Vec<_> = some.iter().map(|(name, _)| *name).collect();
        waiting.push(async move {
            assert!(keeper.ready(Duration::from_secs(60)).await, "{names:?}");
            assert!(fleet.stats().reachable);
            keeper.leave().await;
        });
    }
    futures::future::join_all(waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_at_once_is_not_asked_all_the_time() {
    let (place, count) = fake(|_| Answer::Status(14, "etcdserver: no leader")).await;
    let fleet = fleet();
    let keeper = start(&fleet, &[&place]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Pauses of at least 0.1, 0.2, 0.4, 0.8 and 1.6 s.
    let asked = count.load(Ordering::Relaxed);
    assert!((1..=6).contains(&asked), "{asked}");
    assert!(!fleet.stats().reachable);
    assert!(keeper.health().error.unwrap().contains("no leader"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_gives_the_same_page_for_ever_is_left() {
    // {header: {revision: 5}, kvs: [{key: "cepa/a"}], more: true}
    let page = vec![
        0x0a, 2, 0x18, 5, 0x12, 8, 0x0a, 6, b'c', b'e', b'p', b'a', b'/', b'a', 0x18, 1,
    ];
    let (place, _) = fake(move |path| match path {
        "/etcdserverpb.KV/Range" => Answer::Message(page.clone()),
        path => good(path),
    })
    .await;
    let fleet = fleet();
    let keeper = start(&fleet, &[&place]);
    let error = async {
        loop {
            if let Some(error) = keeper.health().error {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(60), error)
        .await
        .unwrap();
    assert!(error.contains("out of their order"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_for_good_is_told_before_the_start_and_what_is_away_is_not() {
    let at = |place: &str| {
        format!("etcd://{place}/cepa")
            .parse::<FleetAddress>()
            .unwrap()
    };
    let (login, _) = fake(|_| Answer::Status(3, "etcdserver: user name is empty")).await;
    let error = check(&at(&login), &soon()).await.unwrap_err();
    assert!(matches!(error, EtcdError::Login(_)), "{error}");
    let (denied, _) = fake(|path| match path {
        "/etcdserverpb.KV/Range" => Answer::Status(7, "etcdserver: permission denied"),
        path => good(path),
    })
    .await;
    let error = check(&at(&denied), &soon()).await.unwrap_err();
    assert!(matches!(error, EtcdError::Denied(_)), "{error}");
    let away = check(&at("127.0.0.1:1"), &soon()).await.unwrap();
    assert!(matches!(away, Some(EtcdError::Unreachable { .. })));
    let (good, _) = fake(good).await;
    assert_eq!(
        check(&at(&format!("127.0.0.1:1,{good}")), &soon()).await,
        Ok(None)
    );
}

fn address(places: &[&str]) -> FleetAddress {
    format!("etcd://{}/cepa", places.join(",")).parse().unwrap()
}

/// Another server may end the connection before or after it has said who it is: the answer is the same each time.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_etcd_is_told_each_time_in_the_same_way() {
    let (web, _) = server(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let (closes, _) = server(async |stream: TcpStream| drop(stream)).await;
    let (secret, _) = server(async |mut stream: TcpStream| {
        let _ = stream.write_all(&[0x15, 3, 1, 0, 2, 2, 70]).await;
    })
    .await;
    for _ in 0..50 {
        for (place, why) in [
            (&web, "no etcd: an HTTP/1 server"),
            (&closes, "with TLS it is etcds:"),
            (&secret, "write etcds: in place of etcd:"),
        ] {
            let error = check(&address(&[place]), &Options::default()).await;
            let error = error.unwrap().expect("it is no etcd").to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}

/// However long they are silent, and in whatever order they are named.
#[tokio::test(flavor = "multi_thread")]
async fn before_the_start_all_are_asked_at_once_and_the_order_decides_nothing() {
    let silent = async |stream: TcpStream| {
        std::future::pending::<()>().await;
        drop(stream);
    };
    let ((one, asked), (two, asked_too)) = (server(silent).await, server(silent).await);
    let (good, _) = fake(good).await;
    let patient = Options {
        patience: Duration::from_secs(3600),
        ..Options::default()
    };
    let places = address(&[&one, &two, &good]);
    let checked = tokio::time::timeout(Duration::from_secs(60), check(&places, &patient)).await;
    assert_eq!(checked.expect("the good one has answered"), Ok(None));
    assert_eq!(
        (
            asked.load(Ordering::Relaxed),
            asked_too.load(Ordering::Relaxed)
        ),
        (1, 1)
    );
    // All silent: each ends, though nobody answers.
    let silence = check(&address(&[&one, &two]), &soon()).await;
    assert!(
        matches!(silence, Ok(Some(EtcdError::Slow(_)))),
        "{silence:?}"
    );

    let (login, _) = fake(|_| Answer::Status(3, "etcdserver: user name is empty")).await;
    let (foreign, _) = fake(|_| Answer::Http(404)).await;
    let (waits, _) = fake(|_| Answer::Status(14, "etcdserver: no leader")).await;
    let away = "127.0.0.1:1".to_owned();
    let kind = |checked: Result<Option<EtcdError>, EtcdError>| match checked {
        Ok(None) => "good",
        Ok(Some(EtcdError::Malformed(_))) => "foreign",
        Ok(Some(_)) => "away",
        Err(EtcdError::Login(_)) => "login",
        Err(_) => "another",
    };
    for (one, two, expected) in [
        (&login, &good, "good"),
        (&foreign, &good, "good"),
        (&waits, &good, "good"),
        (&foreign, &login, "login"),
        (&away, &login, "login"),
        (&foreign, &waits, "away"),
        (&foreign, &away, "foreign"),
    ] {
        for places in [[&one[..], two], [two, one]] {
            let checked = check(&address(&places), &soon()).await;
            let said = format!("{checked:?}");
            assert_eq!(kind(checked), expected, "{said}");
        }
    }
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    assert!(length < 0x80 || value.len() < 0x100);
    let mut bytes = vec![number << 3 | 2];
    if length < 0x80 {
        bytes.push(length);
    } else {
        bytes.extend([length, 1]);
    }
    bytes.extend(value);
    bytes
}

/// As of an etcd that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_within_an_answer_is_called_that() {
    let (place, _) = server(async |stream: TcpStream| {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut open = Vec::new();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let head = Response::builder().header("content-type", "application/grpc");
        let mut body = respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        body.send_data(vec![0, 0, 0, 0, 9, 1].into(), false)
            .unwrap();
        open.push(body);
        // What was said is on its way before the connection ends.
        let _ = tokio::time::timeout(Duration::from_millis(200), connection.accept()).await;
    })
    .await;
    let error = refused(&place).await;
    assert!(matches!(error, EtcdError::NotReady(_)), "{error:?}");
    assert!(
        error.to_string().contains("the connection is lost"),
        "{error}"
    );
}

/// An etcd whose space is used up, or whose user may only read.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_can_only_be_read_is_away_and_that_is_said_once() {
    // Something in this relay's name that nobody wants: it is to be deleted.
    let (own, peer) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([3; 32]));
    let entry = field(1, format!("cepa/r/{peer}/{own}").as_bytes());
    let page = [
        vec![0x0a, 2, 0x18, 5],
        field(2, &[entry, vec![0x18, 4]].concat()),
    ]
    .concat();
    let is_full = Arc::new(AtomicBool::new(true));
    let (full, written) = (Arc::clone(&is_full), Arc::<AtomicUsize>::default());
    let tried = Arc::clone(&written);
    let (place, _) = fake(move |path| match path {
        "/etcdserverpb.KV/Range" => Answer::Message(page.clone()),
        "/etcdserverpb.KV/Txn" => {
            tried.fetch_add(1, Ordering::Relaxed);
            if full.load(Ordering::Relaxed) {
                Answer::Status(8, "etcdserver: mvcc: database space exceeded")
            } else {
                good(path)
            }
        }
        path => good(path),
    })
    .await;
    let fleet = fleet();
    let said = Arc::<Mutex<Vec<StoreEvent>>>::default();
    let log = Arc::clone(&said);
    let listener = Arc::new(move |event| log.lock().unwrap().push(event));
    let keeper = Keeper::start(fleet.clone(), &address(&[&place]), soon(), listener);
    let tries = async {
        while written.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), tries)
        .await
        .expect("it is tried again");
    assert!(!fleet.stats().reachable);
    assert!(keeper.health().error.unwrap().contains("space exceeded"));
    let events = said.lock().unwrap().clone();
    assert!(
        matches!(events[..], [StoreEvent::Away { .. }]),
        "{events:?}"
    );
    is_full.store(false, Ordering::Relaxed);
    assert!(keeper.ready(Duration::from_secs(60)).await);
    assert!(fleet.stats().reachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_asks_the_others_where_one_fails() {
    let asked = Arc::<Mutex<Vec<usize>>>::default();
    let mut places = Vec::new();
    for n in 0..3 {
        let asked = Arc::clone(&asked);
        let (place, _) = fake(move |path| match path {
            "/etcdserverpb.Lease/LeaseRevoke" => {
                asked.lock().unwrap().push(n);
                Answer::Status(14, "etcdserver: no leader")
            }
            path => good(path),
        })
        .await;
        places.push(place);
    }
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    let keeper = start(&fleet(), &places);
    assert!(keeper.ready(Duration::from_secs(60)).await);
    let leave = keeper.leave();
    leave.await;
    let mut asked = asked.lock().unwrap().clone();
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2]);
}

/// One that answers well at first, and then tells a watcher garbage, or that its lease is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_garbage_begins_anew() {
    let (place, count) = fake(|path| match path {
        "/etcdserverpb.Watch/Watch" => {
            let mut bytes = framed(&[0x0a, 2, 0x18, 5, 0x18, 1]);
            bytes.extend(framed(&[0xff; 40]));
            Answer::Bytes(bytes)
        }
        path => good(path),
    })
    .await;
    let fleet = fleet();
    let keeper = start(&fleet, &[&place]);
    let again = async {
        while count.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again)
        .await
        .unwrap();
    assert!(keeper.health().connections >= 2);
}
