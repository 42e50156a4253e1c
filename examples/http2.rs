//! HTTP/2 between two peers: hyper, unchanged, as server and as client.
//!
//! ```text
//! cargo run --example http2
//! ```
//!
//! HTTP/2 has streams of its own, so one substream carries all requests of a client, at once: a quick one is answered while a slow one
//! waits. There is no TLS and no ALPN in it: the session below has both, and knows the peer before its first request. `http_client.rs` is
//! the same with HTTP/1, where each connection is a substream.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cepa::identity::{Identity, KeyKind, Pinned};
use cepa::node::{Access, Call, Node, NodeConfig, PeerAddr};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Notify;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let ours = Identity::generate(KeyKind::Ed25519)?;
    let theirs = Identity::generate(KeyKind::Ed25519)?;
    let trust = |who: &Identity| Arc::new(Pinned::one(who.peer_id()));
    let server = Node::new(NodeConfig::new(theirs.clone(), trust(&ours)));
    let client = Node::new(NodeConfig::new(ours, trust(&theirs)));
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    server.serve("http", Access::Anyone, move |call| {
        counted.fetch_add(1, Ordering::Relaxed);
        serve(call)
    })?;
    let at = server.listen(&"tcp:127.0.0.1:0".parse()?).await?;
    let at = format!("cepa://{}@{at}/http", theirs.peer_id());
    ask(&client, at.parse()?).await?;
    let connections = connections.load(Ordering::Relaxed);
    println!("all of that on {connections} substream");
    Ok(())
}

/// One connection is one call. What is slow waits until it is released.
async fn serve(call: Call) -> Outcome<()> {
    let stream = TokioIo::new(call.accept().await?);
    let released = Arc::new(Notify::new());
    let answer = service_fn(move |request: Request<Incoming>| {
        let released = Arc::clone(&released);
        async move {
            let path = request.uri().path().to_owned();
            // What is left unread takes the window of the whole connection.
            let body = request.into_body().collect().await.unwrap_or_default();
            match path.as_str() {
                "/slow" => released.notified().await,
                "/release" => released.notify_one(),
                _ => {}
            }
            let text = format!("{path} got {} bytes", body.to_bytes().len());
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        }
    });
    let http = server::conn::http2::Builder::new(TokioExecutor::new());
    Ok(http.serve_connection(stream, answer).await?)
}

async fn ask(node: &Node, at: PeerAddr) -> Outcome<()> {
    let stream = TokioIo::new(node.open(&at).await?);
    let http = client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = http.handshake(stream).await?;
    tokio::spawn(connection);
    let get = async |path: &str, bytes| -> Outcome<String> {
        // HTTP wants a name; who answers is told by the address of the peer.
        let request = Request::post(format!("http://peer{path}"));
        let request = request.body(Full::<Bytes>::from(vec![0; bytes]))?;
        let answer = sender.clone().send_request(request).await?;
        let (status, body) = (answer.status(), answer.into_body().collect().await?);
        let body = String::from_utf8(body.to_bytes().into())?;
        Ok(format!("{status}: {body}"))
    };
    let slow = async {
        println!("{}", get("/slow", 1 << 20).await?);
        Ok(())
    };
    let quick = async {
        println!("{}", get("/quick", 10).await?);
        get("/release", 0).await
    };
    tokio::try_join!(slow, quick)?;
    Ok(())
}
