//! What a session and a node tell of themselves to who looks: substreams with their services, and sessions.

mod support;

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{AcceptAny, Pinned};
use cepa::node::{Access, Node, NodeConfig, PeerAddr};
use cepa::session::Session;
use cepa::stack::StackConfig;
use cepa::transports::memory;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use support::identity;

#[tokio::test]
async fn substreams_are_listed_at_both_ends_by_their_service() {
    let (a, b) = (identity(), identity());
    let (for_a, for_b) = (Pinned::one(b.peer_id()), Pinned::one(a.peer_id()));
    let client = StackConfig::new(a, Arc::new(for_a));
    let server = StackConfig::new(b, Arc::new(for_b));
    let (near, far) = memory::pair();
    let (client, server) = tokio::join!(
        Session::handshake(near, &[], Side::Client, &client),
        Session::handshake(far, &[], Side::Server, &server)
    );
    let (client, server) = (client.unwrap(), server.unwrap());
    assert!(client.number() != server.number());
    assert_eq!((client.streams(9).len(), server.streams(9).len()), (0, 0));
    let accepting = async {
        let incoming = server.accept().await.unwrap();
        incoming.accept().await.unwrap()
    };
    let (near, mut far) = tokio::join!(client.open("db"), accepting);
    let mut near = near.unwrap();
    near.write_all(b"hello").await.unwrap();
    let mut five = [0; 5];
    far.read_exact(&mut five).await.unwrap();
    let seen = |session: &Session| {
        let [it] = &session.streams(9)[..] else {
            panic!("one is open")
        };
        assert_eq!(it.label.as_deref(), Some("db"));
        assert_eq!(it.id, near.id());
        assert!(it.age <= session.age());
        (it.by_peer, it.stats.data_in, it.stats.data_out)
    };
    // The request and the answer are data as well.
    let (by_peer, answer, sent) = seen(&client);
    assert!(!by_peer && answer > 0 && sent > 5);
    assert_eq!(seen(&server), (true, sent, answer));
    drop((near, far));
    // A reset is on its way for a moment.
    while !client.streams(9).is_empty() || !server.streams(9).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_nodes_sessions_are_listed_as_they_are_at_both_ends() {
    let server = Node::new(NodeConfig::new(identity(), Arc::new(AcceptAny)));
    let at = server
        .listen(&"tcp:127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    server
        .serve("wait", Access::Anyone, async |call| {
            let mut stream = call.accept().await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        })
        .unwrap();
    let client = Node::new(NodeConfig::new(identity(), Arc::new(AcceptAny)));
    let address: PeerAddr = format!("cepa://{}@{at}/wait", server.id()).parse().unwrap();
    let stream = client.open(&address).await.unwrap();
    for (node, other, dialled) in [(&client, &server, true), (&server, &client, false)] {
        let all = node.standing_sessions();
        let [(peer, path, session)] = &all[..] else {
            panic!("{}", all.len())
        };
        assert_eq!((*peer, path.dialled), (other.id(), dialled));
        let labels: Vec<_> = session.streams(9).into_iter().map(|it| it.label).collect();
        assert_eq!(labels, [Some("wait".into())]);
    }
    drop(stream);
    client.disconnect(server.id()).await;
    assert!(client.standing_sessions().is_empty());
}
