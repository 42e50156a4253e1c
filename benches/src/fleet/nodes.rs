//! The process that has many nodes: each one registers at the relay that it is told, and goes elsewhere by itself when that ends.

use std::io::Write as _;
use std::sync::Arc;

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Access, Node, NodeConfig, PeerAddr};
use cepa::protocols::relay::Relays;
use clap::Args;
use futures::stream::{StreamExt as _, TryStreamExt as _};

use crate::{Failure, Outcome};

/// Handshakes on their way at once: a relay turns more than a hundred away.
const AT_ONCE: usize = 8;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where they register
    #[arg(long)]
    relay: PeerAddr,
    /// How many
    #[arg(long)]
    count: usize,
}

/// Says their ids, one a line, then an empty line when all are registered, and stays.
pub(crate) fn serve(options: &Options) -> Outcome<()> {
    crate::measure::allow_descriptors(10_000)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let coming = (0..options.count).map(|_| come(&options.relay));
        let coming = futures::stream::iter(coming).buffer_unordered(AT_ONCE);
        let all: Vec<(Node, Relays)> = coming.try_collect().await?;
        let mut out = std::io::stdout().lock();
        for (node, _) in &all {
            writeln!(out, "{}", node.id())?;
        }
        writeln!(out)?;
        out.flush()?;
        std::future::pending().await
    })
}

async fn come(relay: &PeerAddr) -> Outcome<(Node, Relays)> {
    let config = NodeConfig::new(Identity::generate(KeyKind::Ed25519)?, Arc::new(AcceptAny));
    let node = Node::new(config);
    node.serve_rest(Access::Anyone, |call| async move {
        if let Ok(stream) = call.accept().await {
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let relays = Relays::on(&node)?;
    relays.register(relay).await?;
    Ok::<_, Failure>((node, relays))
}
