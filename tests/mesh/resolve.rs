//! Addresses that do not say where their peer is.

use std::collections::HashMap;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::{DialError, Hint, PeerAddr, ReachError, ResolveError, Resolver};

use futures::future::BoxFuture;

use crate::support::{
    MeshNode, ask, closed_port, config, listening, node, offer_echo, relay, soon, through,
};

/// Knows some peers, and counts how often it is asked.
#[derive(Debug, Default)]
struct Book {
    known: Mutex<HashMap<PeerId, Vec<Hint>>>,
    asked: AtomicUsize,
}

impl Book {
    /// Enters a peer, with the hints of an address.
    fn enter(&self, peer: PeerId, at: &PeerAddr) {
        let hints = at.hints().to_vec();
        self.known.lock().unwrap().insert(peer, hints);
    }
}

impl Resolver for Book {
    fn resolve(&self, peer: PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let known = self.known.lock().unwrap().get(&peer).cloned();
        Box::pin(ready(Ok(known.unwrap_or_default())))
    }
}

/// Fails, or never answers.
#[derive(Debug)]
struct Useless {
    fails: bool,
}

impl Resolver for Useless {
    fn resolve(&self, _: PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>> {
        if self.fails {
            let error = ResolveError::Other("the library is closed".into());
            return Box::pin(ready(Err(error)));
        }
        Box::pin(pending())
    }
}

fn asking(resolver: Arc<dyn Resolver>) -> MeshNode {
    let mut config = config();
    config.resolver = Some(resolver);
    config.upgrade_after = Duration::from_millis(50);
    MeshNode::new(config)
}

fn bare(peer: PeerId) -> PeerAddr {
    PeerAddr::new(peer).with_service("echo").unwrap()
}

#[tokio::test]
async fn an_address_without_hints_is_asked_for_once() {
    let (server, book) = (node(), Arc::<Book>::default());
    offer_echo(&server);
    let (_, at) = listening(&server).await;
    book.enter(server.id(), &at);
    let client = asking(Arc::clone(&book) as _);
    let to = bare(server.id());
    let many = (0..8).map(|_| async { ask(client.open(&to).await.unwrap(), b"x").await });
    for path in soon(futures::future::join_all(many)).await {
        assert!(path.unwrap().starts_with("tcp "));
    }
    assert_eq!(book.asked.load(Ordering::Relaxed), 1);
    // Who has hints is not asked for.
    let client = asking(Arc::clone(&book) as _);
    client
        .open(&at.with_service("echo").unwrap())
        .await
        .unwrap();
    assert_eq!(book.asked.load(Ordering::Relaxed), 1);
}

/// What a resolver says is a hint: who answers there has to prove who it is.
#[tokio::test]
async fn what_is_resolved_has_to_be_proven() {
    let (server, other, book) = (node(), node(), Arc::<Book>::default());
    offer_echo(&server);
    let (_, at) = listening(&server).await;
    book.enter(other.id(), &at);
    let client = asking(book);
    let error = client.open(&bare(other.id())).await.unwrap_err();
    assert!(
        error.to_string().contains("not the expected one"),
        "{error}"
    );
    assert!(client.sessions().is_empty());
}

#[tokio::test]
async fn relays_are_resolved_too_and_a_direct_way_takes_over() {
    let (relay, book) = (relay(|_| {}), Arc::<Book>::default());
    let (_, at) = listening(&relay).await;
    book.enter(relay.id(), &at);
    // By its id alone, as whoever registers may name it.
    let hidden = asking(Arc::clone(&book) as _);
    offer_echo(&hidden);
    hidden.register(&PeerAddr::new(relay.id())).await.unwrap();
    let port = closed_port();
    let here: cepa::transports::Endpoint = format!("tcp:127.0.0.1:{port}").parse().unwrap();
    let way = through(hidden.id(), &at, "echo");
    // Nobody listens there yet. It stands last, and would be tried first.
    let way = way.with_hint(Hint::Direct(here.clone())).unwrap();
    book.enter(hidden.id(), &way);
    let client = asking(book);
    let to = bare(hidden.id());
    let path = soon(ask(client.open(&to).await.unwrap(), b"1")).await;
    assert!(path.unwrap().starts_with("via relay"));
    hidden.listen(&here).await.unwrap();
    soon(async {
        while ask(client.open(&to).await.unwrap(), b"2")
            .await
            .unwrap()
            .starts_with("via")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn why_a_peer_is_not_found_is_reported() {
    let peer = node().id();
    let book = Arc::<Book>::default();
    let error = async |client: &MeshNode| match soon(client.open(&bare(peer))).await {
        Err(ReachError::Dial(error)) => error,
        other => panic!("{other:?}"),
    };
    for client in [node(), asking(Arc::clone(&book) as _)] {
        let error = error(&client).await;
        assert!(matches!(error, DialError::NoHints { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(&format!("no address is known for {peer}")),
            "{said}"
        );
        assert!(
            said.contains(&format!("cepa://{peer}@tcp:HOST:PORT")),
            "{said}"
        );
    }
    let broken = asking(Arc::new(Useless { fails: true }));
    let said = error(&broken).await.to_string();
    assert!(said.contains("(the library is closed)"), "{said}");
    // Somebody's nonsense: the way to a relay leads through it.
    let loops = format!("relay:{peer}@tcp:127.0.0.1:1").parse().unwrap();
    book.known.lock().unwrap().insert(peer, vec![loops]);
    let looped = error(&asking(Arc::clone(&book) as _)).await;
    assert!(matches!(looped, DialError::Loop { .. }), "{looped}");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_resolver() {
    let client = asking(Arc::new(Useless { fails: false }));
    let peer = node().id();
    let dialling = tokio::spawn({
        let client = client.clone();
        async move { client.open(&bare(peer)).await }
    });
    tokio::task::yield_now().await;
    soon(client.shutdown(Duration::ZERO)).await;
    let error = soon(dialling).await.unwrap().unwrap_err();
    assert!(
        matches!(error, ReachError::Dial(DialError::ShutDown)),
        "{error}"
    );
}
