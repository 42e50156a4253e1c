//! hyper's pooling client over a node's substreams, by a connector.
//!
//! ```text
//! cargo run --example http_client
//! ```
//!
//! The client asks the connector for connections as it wants them, and keeps them for its next requests; each is a substream of the
//! one session. `http_over_substream.rs` does the same by hand, without a node.

use std::convert::Infallible;
use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::node::{Access, Call, Node, NodeConfig, PeerAddr};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let ours = Identity::generate(KeyKind::Ed25519)?;
    let theirs = Identity::generate(KeyKind::Ed25519)?;
    let trust = |who: &Identity| Arc::new(Pinned::one(who.peer_id()));
    let server = Node::new(NodeConfig::new(theirs.clone(), trust(&ours)));
    let client = Node::new(NodeConfig::new(ours, trust(&theirs)));
    server.serve("http", Access::Anyone, serve)?;
    let at = server.listen(&"tcp:127.0.0.1:0".parse()?).await?;
    let at = format!("cepa://{}@{at}/http", theirs.peer_id());
    ask(&client, at.parse()?).await
}

/// One connection is one call.
async fn serve(call: Call) -> Outcome<()> {
    let peer = call.peer().id().short();
    let stream = TokioIo::new(call.accept().await?);
    let answer = service_fn(move |request: Request<_>| {
        let text = format!("{} says {peer} wants it", request.uri().path());
        async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text))) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    Ok(http.serve_connection(stream, answer).await?)
}

async fn ask(node: &Node, at: PeerAddr) -> Outcome<()> {
    let client = Client::builder(TokioExecutor::new());
    let client = client.build::<_, Full<Bytes>>(node.connector(at));
    for path in ["/one", "/two", "/three"] {
        // HTTP wants a name; who answers is told by the address of the peer.
        let answer = client.get(format!("http://peer{path}").parse()?).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        println!("{}", String::from_utf8_lossy(&body));
    }
    Ok(())
}
