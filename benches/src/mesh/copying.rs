//! What a relay's copying costs, beside forwarding one substream to another and nothing else.

use cepa::session::Session;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::crowd::{Crowd, Node, SINK, circuit, diallers};
use super::options::Options;
use super::relay::{FORWARD, Running};
use crate::Outcome;
use crate::figure::MESH;
use crate::measure::{median, number};

/// Substreams that share the bulk of a round.
const STREAMS: u64 = 4;

pub(super) async fn run(options: &Options) -> Outcome<()> {
    let relay = Running::start(100, u64::MAX / 2, options.unpaced)?;
    let (node, _) = Node::come(&relay, &Crowd::new()).await?;
    let dialling = diallers(&relay, 1).await?;
    let session = &dialling[0].1;
    let bytes = options.mib << 20;
    // Buffers and windows have their sizes after the first ones.
    relayed(session, &node, bytes / 4).await?;
    forwarded(session, &node, bytes / 4).await?;
    let (mut ratios, mut copying, mut forwarding) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let begun = relay.cpu()?;
        forwarded(session, &node, bytes).await?;
        let between = relay.cpu()?;
        relayed(session, &node, bytes).await?;
        let over = relay.cpu()?;
        forwarding.push((between - begun) / number(usize::try_from(options.mib)?) * 1024.0);
        copying.push((over - between) / number(usize::try_from(options.mib)?) * 1024.0);
        ratios.push((over - between) / (between - begun));
    }
    MESH.figure("forwarding-cpu", median(&forwarding), "s/GiB")?;
    MESH.figure("copying-cpu", median(&copying), "s/GiB")?;
    MESH.at_most("copying-to-forwarding", median(&ratios), "times", 1.3)
}

async fn relayed(session: &Session, node: &Node, bytes: u64) -> Outcome<()> {
    let bulk = (0..STREAMS).map(|_| async move {
        let stream = circuit(session, node.id, SINK).await?;
        carry(stream, bytes / STREAMS).await
    });
    futures::future::try_join_all(bulk).await.map(drop)
}

async fn forwarded(session: &Session, node: &Node, bytes: u64) -> Outcome<()> {
    let bulk = (0..STREAMS).map(|_| async move {
        let mut stream = session.open(&format!("{FORWARD}{}", node.id)).await?;
        stream.write_all(&[SINK]).await?;
        carry(stream, bytes / STREAMS).await
    });
    futures::future::try_join_all(bulk).await.map(drop)
}

/// Writes so many bytes, and waits until the other end has had them.
pub(crate) async fn carry(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: u64,
) -> Outcome<()> {
    let chunk = vec![5; 64 << 10];
    for _ in 0..bytes / (64 << 10) {
        stream.write_all(&chunk).await?;
    }
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
