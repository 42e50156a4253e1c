//! gRPC between two peers: tonic, unchanged, as server and as client.
//!
//! ```text
//! cargo run -p cepa-grpc-example
//! ```
//!
//! The server takes the calls of a node's service as its connections, the client makes its own by a node's connector. Each is a
//! substream, so it has the encryption and the peer of its session, and needs no TLS and no port of its own. The service
//! is gRPC's own health check, which tonic has ready-made. `stream.rs` has what tonic wants to know of a connection.

mod stream;

use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::node::{Access, Node, NodeConfig, PeerAddr};
use cepa::transports::Endpoint;
use futures::StreamExt;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    println!("the peer is {}", run().await?);
    Ok(())
}

async fn run() -> Outcome<&'static str> {
    let [ours, theirs] = [KeyKind::Ed25519; 2].map(Identity::generate);
    let (ours, theirs) = (ours?, theirs?);
    let trust = |who: &Identity| Arc::new(Pinned::one(who.peer_id()));
    let server = Node::new(NodeConfig::new(theirs.clone(), trust(&ours)));
    let client = Node::new(NodeConfig::new(ours, trust(&theirs)));
    let at = server
        .listen(&"tcp:127.0.0.1:0".parse::<Endpoint>()?)
        .await?;
    let serving = tokio::spawn(serve(server));
    let at = format!("cepa://{}@{at}/grpc", theirs.peer_id());
    let status = ask(&client, at.parse()?).await;
    serving.abort();
    status
}

async fn serve(node: Node) -> Outcome<()> {
    let calls = node.incoming("grpc", Access::Anyone)?;
    let connections = calls.then(stream::Connection::accept);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(health);
    Ok(server.serve_with_incoming(connections).await?)
}

async fn ask(node: &Node, at: PeerAddr) -> Outcome<&'static str> {
    // HTTP wants a name; who answers is told by the address of the peer.
    let endpoint = tonic::transport::Endpoint::from_static("http://peer");
    let channel = endpoint.connect_with_connector(node.connector(at)).await?;
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner().status().as_str_name())
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_peer_answers() {
        assert_eq!(super::run().await.unwrap(), "SERVING");
    }
}
