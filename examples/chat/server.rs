//! The server: who joins is told of those who are there, by introductions, and is one of them from then on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind, PeerId, UnixTime};
use cepa::node::{Access, Call, Node, NodeConfig, PeerAddr};
use cepa::protocols::introduction::{Introductions, Terms};
use cepa::protocols::relay::{Relay, RelayConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::Outcome;

/// Longest line of somebody who joins, in bytes.
const LINE: u64 = 4096;
/// Most who are there at once.
const MOST: usize = 100;

type Members = Arc<Mutex<Vec<(PeerId, String, PeerAddr)>>>;

pub(crate) async fn run(at: &str) -> Outcome<()> {
    let config = NodeConfig::new(Identity::generate(KeyKind::Ed25519)?, Arc::new(AcceptAny));
    let node = Node::new(config);
    let _relay = Relay::on(&node, RelayConfig::new(Access::Anyone))?;
    let members = Members::default();
    let introducer = Introductions::on(&node)?;
    node.serve("join", Access::Anyone, move |call| {
        let (introducer, members) = (introducer.clone(), Arc::clone(&members));
        async move {
            let peer = call.peer().id();
            let _ = join(&introducer, &members, call).await;
            let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
            members.retain(|(member, ..)| *member != peer);
        }
    })?;
    let at = node.listen(&at.parse()?).await?;
    println!("cepa://{}@{at}", node.id());
    // Until nobody wants it any more.
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    node.shutdown(Duration::ZERO).await;
    Ok(())
}

/// One member, for as long as it is there.
async fn join(introducer: &Introductions, members: &Members, call: Call) -> Outcome<()> {
    let peer = call.peer().id();
    let mut stream = BufReader::new(call.accept().await?);
    let mut line = String::new();
    (&mut stream).take(LINE).read_line(&mut line).await?;
    let (name, address) = line.trim().split_once(' ').ok_or("NAME ADDRESS")?;
    let address: PeerAddr = address.parse()?;
    if address.peer() != peer {
        return Err("one joins for oneself".into());
    }
    let others = {
        let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.len() >= MOST {
            return Err("full".into());
        }
        let others = members.clone();
        members.push((peer, name.to_owned(), address));
        others
    };
    let minute = Duration::from_secs(UnixTime::now().as_secs() + 60);
    let terms = Terms::until(UnixTime::since_unix_epoch(minute)).for_peer(peer);
    for (_, name, address) in others {
        let introduction = introducer.introduce(&address, terms)?;
        let line = format!("{name} {introduction}\n");
        stream.write_all(line.as_bytes()).await?;
    }
    stream.write_all(b"\n").await?;
    stream.flush().await?;
    // It is there until its stream ends.
    let mut more = [0];
    let _end = stream.read(&mut more).await?;
    Ok(())
}
