//! Remote calls between two peers: tarpc, unchanged, as server and as client.
//!
//! ```text
//! cargo run -p cepa-tarpc-example
//! ```
//!
//! tarpc takes any byte stream for its messages, and a substream is one. The service needs no login of its own: each connection is
//! a call of a node, which knows whose key is at its other end, and the server answers by that.

use std::sync::Arc;

use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::node::{Access, Call, Node, NodeConfig, PeerAddr};
use futures::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_util::codec::{Framed, LengthDelimitedCodec};
use tarpc::{client, context, serde_transport};
use tokio_serde::formats::Json;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Longest message, in bytes: memory for one is taken by what a peer declares.
const MOST: usize = 64 * 1024;

#[tarpc::service]
trait Onions {
    /// Peels so many layers off a word, and says who asked for it.
    async fn peel(word: String, layers: usize) -> (String, String);
}

#[derive(Clone)]
struct Server {
    peer: PeerId,
}

impl Onions for Server {
    async fn peel(self, _: context::Context, word: String, layers: usize) -> (String, String) {
        let rest = word.chars().skip(layers).collect();
        (rest, self.peer.to_string())
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let (word, peer) = run().await?;
    println!("{word}, for {peer}");
    Ok(())
}

async fn run() -> Outcome<(String, String)> {
    let ours = Identity::generate(KeyKind::Ed25519)?;
    let theirs = Identity::generate(KeyKind::Ed25519)?;
    let trust = |who: &Identity| Arc::new(Pinned::one(who.peer_id()));
    let server = Node::new(NodeConfig::new(theirs.clone(), trust(&ours)));
    let client = Node::new(NodeConfig::new(ours, trust(&theirs)));
    server.serve("onions", Access::Anyone, serve)?;
    let at = server.listen(&"tcp:127.0.0.1:0".parse()?).await?;
    let at = format!("cepa://{}@{at}/onions", theirs.peer_id());
    ask(&client, at.parse()?).await
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MOST)
        .new_codec()
}

/// One connection is one call of the node, and carries many calls of tarpc.
async fn serve(call: Call) -> Outcome<()> {
    let peer = call.peer().id();
    let stream = Framed::new(call.accept().await?, codec());
    let transport = serde_transport::new(stream, Json::default());
    let channel = BaseChannel::with_defaults(transport);
    let answers = channel.execute(Server { peer }.serve());
    answers.for_each_concurrent(16, |answer| answer).await;
    Ok(())
}

async fn ask(node: &Node, at: PeerAddr) -> Outcome<(String, String)> {
    let stream = Framed::new(node.open(&at).await?, codec());
    let transport = serde_transport::new(stream, Json::default());
    let client = OnionsClient::new(client::Config::default(), transport).spawn();
    let peel = |layers| client.peel(context::current(), "((onion".to_owned(), layers);
    let (one, both) = tokio::try_join!(peel(1), peel(2))?;
    assert_eq!(one.0, "(onion");
    Ok(both)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_peer_answers() {
        assert_eq!(super::run().await.unwrap().0, "onion");
    }
}
