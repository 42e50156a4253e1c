//! Five nodes, two of them relays; one relay dies while it is in use.
//!
//! ```text
//! cargo run --example mesh
//! ```
//!
//! The worker listens nowhere: it is registered at both relays, and its address names both. Ann and Bob each hold a
//! conversation with it. Relay one goes down in the middle of Ann's: she gets an error at once, not silence, opens
//! the service again by the same address, and goes on through relay two. Bob, who knows relay two alone, notices nothing.
//! When relay one is back on its port, the worker registers there again by itself.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Access, Hint, Node, NodeConfig, PeerAddr};
use cepa::protocols::relay::{Relay, RelayConfig, RelayEvent, Relays};
use cepa::session::ServiceStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn config() -> Outcome<NodeConfig> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    Ok(NodeConfig::new(identity, Arc::new(AcceptAny)))
}

fn relay(config: NodeConfig) -> Outcome<(Node, Relay)> {
    let node = Node::new(config);
    let relay = Relay::on(&node, RelayConfig::new(Access::Anyone))?;
    Ok((node, relay))
}

/// A node that reaches others through relays.
fn node() -> Outcome<(Node, Relays)> {
    let node = Node::new(config()?);
    let relays = Relays::on(&node)?;
    Ok((node, relays))
}

/// The way to a peer that is registered at a relay.
fn through(relay: &PeerAddr) -> Outcome<Hint> {
    let relay = relay.to_string();
    Ok(format!("relay:{}", relay.trim_start_matches("cepa://")).parse()?)
}

/// Says four bytes, and expects them back.
async fn says(stream: &mut ServiceStream, word: &[u8; 4]) -> std::io::Result<()> {
    stream.write_all(word).await?;
    stream.flush().await?;
    let mut back = [0; 4];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, *word);
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let any = "tcp:127.0.0.1:0".parse()?;
    let one_config = config()?;
    let (one, first) = relay(one_config.clone())?;
    let (two, second) = relay(config()?)?;
    let mut ways = Vec::new();
    let one_at = one.listen(&any).await?;
    for (node, at) in [(&one, one_at.clone()), (&two, two.listen(&any).await?)] {
        ways.push(PeerAddr::new(node.id()).with_hint(Hint::Direct(at))?);
    }

    let (worker, relays) = node()?;
    worker.serve("echo", Access::Anyone, async |call| {
        println!(
            "worker: called {}",
            call.path().to_string().split(' ').next().unwrap_or("")
        );
        if let Ok(stream) = call.accept().await {
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    })?;
    let mut events = worker.events();
    let mut both = PeerAddr::new(worker.id()).with_service("echo")?;
    for way in &ways {
        relays.register(way).await?;
        both = both.with_hint(through(way)?)?;
    }
    let by_two = PeerAddr::new(worker.id()).with_service("echo")?;
    let by_two = by_two.with_hint(through(&ways[1])?)?;

    let ((ann, _), (bob, _)) = (node()?, node()?);
    let mut anns = ann.open(&both).await?;
    let mut bobs = bob.open(&by_two).await?;
    says(&mut anns, b"anns").await?;
    says(&mut bobs, b"bobs").await?;
    println!(
        "both relays carry: {} and {}",
        first.stats().circuits,
        second.stats().circuits
    );

    one.shutdown(Duration::ZERO).await;
    println!("relay one is down");
    let error = says(&mut anns, b"anns").await;
    println!("ann: it broke off: {}", error.is_err());
    says(&mut bobs, b"bobs").await?;
    println!("bob: goes on");
    let mut anns = ann.open(&both).await?;
    says(&mut anns, b"anns").await?;
    println!(
        "ann: goes on through relay two, which carries {}",
        second.stats().circuits
    );

    let (one, _first) = relay(one_config)?;
    one.listen(&one_at).await?;
    // Its registrations at the start are in the queue as well; what counts is the one after the loss.
    let mut lost = false;
    while let Some(event) = events.next().await {
        match event.protocol() {
            Some(RelayEvent::Unregistered { relay, .. }) if *relay == one.id() => lost = true,
            Some(RelayEvent::Registered { relay }) if lost && *relay == one.id() => break,
            _ => {}
        }
    }
    println!("relay one is back, and the worker is registered there again");
    for node in [ann, bob, worker, one, two] {
        node.shutdown(Duration::ZERO).await;
    }
    Ok(())
}
