//! What subscribers of `tracing` and recorders of `metrics` learn of sessions and nodes, and what they never do. One test, since
//! both are the process's own.

mod support;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, Invitation, OpenInvitation};
use cepa::node::{Access, Call, Node, NodeConfig, PeerAddr};
use cepa::protocols::pairing;
use cepa::session::Session;
use cepa::stack::StackConfig;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use rustls::pki_types::UnixTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

use support::{identity, soon};

/// All that was reported, at any level.
static REPORTED: Mutex<String> = Mutex::new(String::new());

struct Everything;

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Everything {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("cepa")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut text = REPORTED.lock().unwrap();
        let _ = write!(text, "\nspan {}", span.metadata().name());
        span.record(&mut Text(&mut text));
        Id::from_u64(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Text(&mut REPORTED.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = REPORTED.lock().unwrap();
        let _ = write!(text, "\n{}", event.metadata().target());
        event.record(&mut Text(&mut text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A number, and how often it has moved.
#[derive(Default)]
struct Number {
    value: AtomicU64,
    moved: AtomicU64,
}

impl metrics::CounterFn for Number {
    fn increment(&self, by: u64) {
        self.value.fetch_add(by, Ordering::SeqCst);
        self.moved.fetch_add(1, Ordering::SeqCst);
    }

    fn absolute(&self, _: u64) {}
}

impl metrics::GaugeFn for Number {
    fn increment(&self, by: f64) {
        self.value.increment(by);
        self.moved.fetch_add(1, Ordering::SeqCst);
    }

    fn decrement(&self, by: f64) {
        self.value.decrement(by);
    }

    fn set(&self, value: f64) {
        self.value.set(value);
    }
}

impl HistogramFn for Number {
    fn record(&self, value: f64) {
        assert!((0.0..3600.0).contains(&value), "{value} seconds");
        self.moved.fetch_add(1, Ordering::SeqCst);
    }
}

/// By name, whatever the labels.
static NUMBERS: LazyLock<Mutex<HashMap<String, Arc<Number>>>> = LazyLock::new(Mutex::default);
/// What was described: kind, unit.
static DESCRIBED: LazyLock<Mutex<HashMap<String, (&str, Unit)>>> = LazyLock::new(Mutex::default);

fn number(name: &str) -> Arc<Number> {
    let mut all = NUMBERS.lock().unwrap();
    Arc::clone(all.entry(name.to_owned()).or_default())
}

struct Numbers;

impl Numbers {
    fn describe(kind: &'static str, name: &KeyName, unit: Option<Unit>) {
        let unit = unit.expect("a unit");
        let mut all = DESCRIBED.lock().unwrap();
        all.insert(name.as_str().to_owned(), (kind, unit));
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        Self::describe("counter", &name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        Self::describe("gauge", &name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        Self::describe("histogram", &name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(number(key.name()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(number(key.name()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(number(key.name()))
    }
}

fn gauge(name: &str) -> f64 {
    f64::from_bits(number(name).value.load(Ordering::SeqCst))
}

const PAYLOAD: &str = "payload-that-nobody-reports";
const ARGUMENT: &str = "password-in-an-argument";
const HTTP: &str = "GET /?token=of-somebody-else HTTP/1.1\r\n\r\n";

async fn echo(call: Call) -> std::io::Result<()> {
    let (mut from, mut to) = call.accept().await?.into_split();
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// A node that serves, on loopback.
async fn served(identity: Identity) -> (Node, PeerAddr) {
    let node = Node::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
    node.serve("echo", Access::Anyone, echo).unwrap();
    node.serve("fails", Access::Anyone, async |call: Call| {
        call.accept().await?;
        Err(std::io::Error::other(PAYLOAD))
    })
    .unwrap();
    let at = node.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let address = format!("cepa://{}@{}", node.id(), at.unwrap());
    (node, address.parse().unwrap())
}

async fn asks(session: &Session, service: &str) {
    let Ok(mut stream) = session.open(service).await else {
        return;
    };
    let _ = stream.write_all(PAYLOAD.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(service != "echo" || answer == PAYLOAD, "{answer}");
}

/// The lines of a private key, without the frame around them.
fn secrets(identity: &Identity) -> Vec<String> {
    let pem = identity.to_pem();
    let (key, _) = pem.split_once("-----END PRIVATE KEY").expect("a key");
    let lines = key.lines().filter(|line| !line.contains("-----"));
    lines.map(str::to_owned).collect()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in a minute: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_reported_and_no_secret_is() {
    tracing::subscriber::set_global_default(Everything).unwrap();
    metrics::set_global_recorder(Numbers).ok().unwrap();
    cepa::describe_metrics();

    let (ours, theirs) = (identity(), identity());
    let (node, address) = served(theirs.clone()).await;
    let dialling = Node::new(NodeConfig::new(ours.clone(), Arc::new(AcceptAny)));
    let at = address.hints()[0].to_string();

    // Sessions: one between nodes, and one of a program of its own, which it accepts as well.
    let session = soon(dialling.session(&address)).await.unwrap();
    asks(&session, "echo").await;
    asks(&session, "not-there").await;
    asks(&session, "fails").await;
    // Given up before the answer.
    let opens = || number("cepa_opens_total").moved.load(Ordering::SeqCst);
    let before = opens();
    drop(soon(session.open_early("echo")).await.unwrap());
    assert_eq!(opens(), before + 1);
    // An invitation is used.
    let expires = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 600));
    let invitation = Invitation::new(node.id(), &at, expires).unwrap();
    let code = invitation.code().unwrap();
    let joined = pairing::invite(
        &node,
        OpenInvitation::new(code.parse().unwrap()),
        UnixTime::now,
    );
    let joined = joined.unwrap();
    soon(pairing::join(&session, &invitation)).await.unwrap();
    assert_eq!(soon(joined.joined()).await, Some(ours.peer_id()));
    // What goes wrong: nobody there, a command that is none of ours, and no TLS.
    let config = StackConfig::new(ours.clone(), Arc::new(AcceptAny));
    let command = format!("exec:sh -c 'exit 1' {ARGUMENT}");
    for nowhere in [command.as_str(), "unix:/nonexistent/socket"] {
        let failed = soon(Session::dial(&nowhere.parse().unwrap(), &config)).await;
        assert!(failed.is_err());
    }
    let mut stream = TcpStream::connect(at.strip_prefix("tcp:").unwrap())
        .await
        .unwrap();
    stream.write_all(HTTP.as_bytes()).await.unwrap();
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    until("the nonsense is turned away", || {
        number("cepa_turned_away_total")
            .moved
            .load(Ordering::SeqCst)
            > 0
    })
    .await;
    // A session goes on over another connection.
    let mut config = NodeConfig::new(theirs.clone(), Arc::new(AcceptAny));
    config.stack.resume = Some(cepa::resume::Config::default());
    let lasting = Node::new(config);
    let there = lasting.listen(&"tcp:127.0.0.1:0".parse().unwrap()).await;
    let there = there.unwrap();
    let mut config = StackConfig::new(ours.clone(), Arc::new(AcceptAny));
    config.resume = Some(cepa::resume::Config::default());
    let moving = soon(Session::dial(&there, &config)).await.unwrap();
    soon(moving.migrate(&there)).await.unwrap();
    soon(moving.close()).await;
    drop(moving);
    soon(lasting.shutdown(Duration::from_secs(5))).await;
    assert!(gauge("cepa_sessions") >= 2.0, "both ends are ours");
    session.close().await;
    drop(session);
    soon(dialling.shutdown(Duration::from_secs(5))).await;
    soon(node.shutdown(Duration::from_secs(5))).await;
    until("no session stands", || gauge("cepa_sessions") == 0.0).await;
    until("no substream is held", || gauge("cepa_substreams") == 0.0).await;

    let reported = REPORTED.lock().unwrap().clone();
    for what in [
        "dialling",
        "the dial failed",
        "handshake begins",
        "the handshake failed",
        "session up",
        "session down",
        "service opened",
        "the service was not opened",
        "given up before the peer's answer",
        "service asked for",
        "substream begins",
        "substream ends",
        "a handler failed",
        "turned away",
        "listening",
        "has joined",
        "span dial",
        "span connection",
        "span session",
        "span substream",
        "span reach",
        "exec:…",
        &ours.peer_id().to_string(),
        &theirs.peer_id().to_string(),
        at.as_str(),
        "not-there",
    ] {
        assert!(reported.contains(what), "{what} is missing in {reported}");
    }
    let mut never = vec![PAYLOAD.to_owned(), ARGUMENT.to_owned()];
    never.extend(["of-somebody-else".to_owned(), code.to_string()]);
    // A piece of the code would do.
    never.push(code[code.len() - 20..].to_owned());
    never.extend(secrets(&ours).into_iter().chain(secrets(&theirs)));
    for secret in never {
        assert!(secret.len() >= 8, "{secret:?} is too short to be missed");
        assert!(!reported.contains(&secret), "{secret:?} in {reported}");
    }
    all_of_the_table();
}

/// The table in the documentation names each number, its kind and its unit, and each has moved.
fn all_of_the_table() {
    let page = include_str!("../docs/WATCHING.md");
    let mut described = std::mem::take(&mut *DESCRIBED.lock().unwrap());
    assert!(!described.is_empty());
    for line in page.lines().filter(|line| line.starts_with("| `cepa_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let (kind, unit) = described.remove(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(cells[2], kind, "{name}");
        let (word, many) = (unit.as_canonical_label(), unit.as_str());
        assert!(
            cells[3] == many || cells[3] == word || (cells[3] == "1" && many == "count"),
            "{name}: {many}"
        );
        let moved = number(name).moved.load(Ordering::SeqCst);
        assert!(moved > 0, "{name} has not moved");
    }
    assert!(described.is_empty(), "not in the table: {described:?}");
    let undescribed: Vec<String> = NUMBERS.lock().unwrap().keys().cloned().collect();
    for name in undescribed {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}
