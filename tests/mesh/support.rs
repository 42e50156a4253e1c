//! Nodes for tests, and a service that sends back what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind, PeerId, RotationTimes, UnixTime};
use cepa::mux::{StreamError, Substream};
use cepa::node::{Access, Call, Event, Events, HandlerOutput, Hint, Node, NodeConfig, PeerAddr};
use cepa::onion::Onion;
use cepa::protocols::forward::Forwarder;
use cepa::protocols::introduction::{Flaw, IntroducedError, Introduction, Introductions, Terms};
use cepa::protocols::membrane::Membrane;
use cepa::protocols::relay::{RegisterError, Relay, RelayConfig, RelayEvent, RelayStats, Relays};
use cepa::protocols::sealed::{
    CarrierConfig, CarrierStats, Sealed, SealedCall, SealedError, SealingKey,
};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A test that hangs fails with a word instead of standing there.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(120), future)
        .await
        .expect("it hung")
}

pub(crate) fn config() -> NodeConfig {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    NodeConfig::new(identity, Arc::new(AcceptAny))
}

/// The same peer with a new key, which the old one has named.
pub(crate) fn with_new_key(of: &NodeConfig) -> NodeConfig {
    let now = UnixTime::now().as_secs();
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let times = RotationTimes {
        issued: at(now - 1),
        overlap: at(now + 3600),
        expires: at(now + 3600),
    };
    let next = of.stack.identity.rotate(KeyKind::Ed25519, times).unwrap();
    NodeConfig::new(next, Arc::new(AcceptAny))
}

/// A node with every protocol of the mesh.
#[derive(Clone)]
pub(crate) struct MeshNode {
    node: Node,
    pub(crate) relays: Relays,
    pub(crate) introductions: Introductions,
    pub(crate) sealed: Sealed,
    forwarder: Forwarder,
    pub(crate) relay: Option<Relay>,
}

impl std::ops::Deref for MeshNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl MeshNode {
    pub(crate) fn new(config: NodeConfig) -> Self {
        let node = Node::new(config);
        Self {
            relays: Relays::on(&node).unwrap(),
            introductions: Introductions::on(&node).unwrap(),
            sealed: Sealed::on(&node).unwrap(),
            forwarder: Forwarder::new(&node),
            relay: None,
            node,
        }
    }

    pub(crate) fn with_relay(config: NodeConfig, relay: RelayConfig) -> Self {
        let mut this = Self::new(config);
        this.relay = Some(Relay::on(&this.node, relay).unwrap());
        this
    }

    /// Forwards so many substreams at once.
    pub(crate) fn with_places(config: NodeConfig, places: usize) -> Self {
        let mut this = Self::new(config);
        this.forwarder = Forwarder::with_places(&this.node, places);
        this
    }

    pub(crate) fn serve<H, F>(&self, name: &str, access: Access, handler: H)
    where
        H: FnOnce(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        self.node.serve(name, access, handler).unwrap();
    }

    pub(crate) async fn register(&self, relay: &PeerAddr) -> Result<(), RegisterError> {
        self.relays.register(relay).await
    }

    pub(crate) fn relay_stats(&self) -> Option<RelayStats> {
        self.relay.as_ref().map(Relay::stats)
    }

    pub(crate) async fn leave(&self, patience: Duration) {
        self.relay.as_ref().unwrap().leave(patience).await;
    }

    pub(crate) fn forward(&self, name: &str, access: Access, to: PeerAddr) {
        self.forwarder.offer(name, access, to).unwrap();
    }

    pub(crate) fn membrane(&self, hints: impl IntoIterator<Item = Hint>) -> Membrane {
        Membrane::new(&self.introductions, hints)
    }

    pub(crate) fn introducers(&self, service: &str, who: Access) {
        self.introductions.introducers(service, who);
    }

    pub(crate) fn introduce(&self, to: &PeerAddr, terms: Terms) -> Result<Introduction, Flaw> {
        self.introductions.introduce(to, terms)
    }

    pub(crate) fn pass_on(&self, it: &Introduction, terms: Terms) -> Result<Introduction, Flaw> {
        self.introductions.pass_on(it, terms)
    }

    pub(crate) async fn open_introduced(
        &self,
        it: &Introduction,
    ) -> Result<Onion<Substream>, IntroducedError> {
        self.introductions.open(it).await
    }

    pub(crate) async fn revoke(&self, it: &Introduction) -> Result<(), IntroducedError> {
        self.introductions.revoke(it).await
    }

    pub(crate) fn serve_sealed<H, F>(&self, name: &str, access: Access, handler: H)
    where
        H: Fn(SealedCall) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<u8>, String>> + Send + 'static,
    {
        self.sealed.serve(name, access, handler);
    }

    pub(crate) fn withdraw_sealed(&self, name: &str) -> bool {
        self.sealed.withdraw(name)
    }

    pub(crate) fn carry(&self, config: Option<CarrierConfig>) {
        self.sealed.carry(config);
    }

    pub(crate) fn carrier_stats(&self) -> Option<CarrierStats> {
        self.sealed.carrier_stats()
    }

    pub(crate) async fn sealing_key(
        &self,
        carrier: &PeerAddr,
        of: PeerId,
    ) -> Result<SealingKey, SealedError> {
        self.sealed.key(carrier, of).await
    }

    pub(crate) async fn ask_sealed(
        &self,
        carrier: &PeerAddr,
        key: &SealingKey,
        service: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, SealedError> {
        self.sealed.ask(carrier, key, service, body).await
    }
}

pub(crate) fn node() -> MeshNode {
    MeshNode::new(config())
}

pub(crate) fn relay(change: impl FnOnce(&mut RelayConfig)) -> MeshNode {
    let mut relay = RelayConfig::new(Access::Anyone);
    // All that a test brings comes from this machine, which is one host.
    relay.circuits_a_host = Some(1000);
    relay.registrations_a_host = Some(1000);
    change(&mut relay);
    MeshNode::with_relay(config(), relay)
}

/// Listens on loopback; the address of the node there.
/// A port that is free now and stays so: below those that the system gives out (`ip_local_port_range`), and each once.
pub(crate) fn closed_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let next = NEXT.fetch_add(7, Ordering::Relaxed) % 20_000;
        let port = 10_000 + (first + next) % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The same for a node that will be there again: nobody else takes its port meanwhile.
pub(crate) async fn listening_apart(node: &MeshNode) -> (Endpoint, PeerAddr) {
    let at = format!("tcp:127.0.0.1:{}", closed_port()).parse().unwrap();
    let at = node.listen(&at).await.unwrap();
    (at.clone(), address(&format!("cepa://{}@{at}", node.id())))
}

pub(crate) async fn listening(node: &MeshNode) -> (Endpoint, PeerAddr) {
    let any = "tcp:127.0.0.1:0".parse().unwrap();
    let at = node.listen(&any).await.unwrap();
    (at.clone(), address(&format!("cepa://{}@{at}", node.id())))
}

/// A session with the peer of an address that is no node's.
pub(crate) async fn by_hand(at: &PeerAddr) -> (Session, PeerId) {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let id = identity.peer_id();
    let config = StackConfig::new(identity, Arc::new(AcceptAny));
    let Hint::Direct(endpoint) = &at.hints()[0] else {
        panic!("{at}")
    };
    let session = Session::dial(endpoint, &config).await.unwrap();
    (session, id)
}

pub(crate) fn address(text: &str) -> PeerAddr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// `peer`, through the relay at `at`, for a service.
pub(crate) fn through(peer: PeerId, relay: &PeerAddr, service: &str) -> PeerAddr {
    let way = relay.to_string().replace("cepa://", "relay:");
    address(&format!("cepa://{peer}@{way}/{service}"))
}

/// Sends back what it gets, behind a line that says how the peer came.
pub(crate) async fn echo(call: Call) {
    let path = call.path().to_string();
    let Ok(mut stream) = call.accept().await else {
        return;
    };
    let _ = stream.write_all(format!("{path}\n").as_bytes()).await;
    let (mut from, mut to) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

pub(crate) fn offer_echo(node: &MeshNode) {
    node.serve("echo", Access::Anyone, echo);
}

/// Sends bytes to the echo and expects them back; returns how it says that we came.
pub(crate) async fn ask(stream: Onion<Substream>, bytes: &[u8]) -> std::io::Result<String> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut back = Vec::new();
    let send = async {
        to.write_all(bytes).await?;
        to.shutdown().await
    };
    let (sent, got) = tokio::join!(send, from.read_to_end(&mut back));
    sent?;
    got?;
    let line = back.iter().position(|b| *b == b'\n').unwrap_or_default();
    assert_eq!(back[line + 1..], *bytes, "what came back is what was sent");
    Ok(String::from_utf8_lossy(&back[..line]).into_owned())
}

/// Waits for an event.
pub(crate) async fn until<T>(events: &mut Events, mut is: impl FnMut(&Event) -> Option<T>) -> T {
    soon(async {
        loop {
            let event = events.next().await.expect("the node is gone");
            if let Some(found) = is(&event) {
                return found;
            }
        }
    })
    .await
}

/// Waits until something is so, which another task sees to.
pub(crate) async fn eventually(mut is: impl FnMut() -> bool) {
    soon(async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// The code of a reset by the peer.
pub(crate) fn reset_code(error: &std::io::Error) -> u32 {
    let error = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<StreamError>());
    match error {
        Some(StreamError::ResetByPeer { code }) => *code,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn is_registered(event: &Event) -> bool {
    matches!(event.protocol(), Some(RelayEvent::Registered { .. }))
}

pub(crate) fn is_unregistered(event: &Event) -> bool {
    matches!(event.protocol(), Some(RelayEvent::Unregistered { .. }))
}
