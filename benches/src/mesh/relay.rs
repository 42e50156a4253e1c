//! The relay's process, with a service beside it that forwards a substream to another one and does nothing else: what
//! copying is measured against.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cepa::identity::{AcceptAny, Identity, KeyKind, PeerId};
use cepa::node::{Access, Call, Limits, Node, NodeConfig, PeerAddr};
use cepa::protocols::relay::{Relay, RelayConfig};
use clap::Args;
use tokio::io::AsyncWriteExt as _;

use crate::Outcome;
use crate::measure::allow_descriptors;

/// What the service that forwards is called, before the peer to which it forwards.
pub(super) const FORWARD: &str = "forward ";

/// What it opens at that peer.
pub(super) const RAW: &str = "raw";

/// More than any part of the bench needs.
const PLENTY: usize = 10_000;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Circuits that one peer dials
    #[arg(long)]
    circuits_a_peer: usize,
    /// Bytes a second of one peer
    #[arg(long)]
    rate: u64,
    /// Without the mux's pacing
    #[arg(long)]
    unpaced: bool,
    /// With the limits that a relay has by default, but those above
    #[arg(long)]
    default_limits: bool,
}

/// Says `PORT PEERID`, and relays until it is killed.
pub(crate) fn serve(options: &Options) -> Outcome<()> {
    allow_descriptors(PLENTY)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(relay(options))
}

async fn relay(options: &Options) -> Outcome<()> {
    let identity = Identity::generate(KeyKind::Ed25519)?;
    let mut relay = RelayConfig::new(Access::Anyone);
    relay.circuits_a_peer = options.circuits_a_peer;
    relay.rate = options.rate;
    let mut config = NodeConfig::new(identity, Arc::new(AcceptAny));
    config.stack.mux.pacing = !options.unpaced;
    if !options.default_limits {
        relay.registrations = PLENTY;
        relay.circuits = PLENTY;
        let plenty = Limits {
            all: 2 * PLENTY,
            peer: PLENTY,
            host: PLENTY,
        };
        config.shares.sessions = plenty;
        config.shares.descriptors = plenty;
        config.stack.mux.max_inbound_streams = PLENTY;
        config.stack.mux.max_outbound_streams = PLENTY;
    }
    let node = Node::new(config);
    let _relay = Relay::on(&node, relay)?;
    let forwarder = node.clone();
    node.serve_rest(Access::Anyone, move |call| {
        let node = forwarder.clone();
        async move {
            if let Err(error) = forward(node, call).await {
                eprintln!("forward: {error}");
            }
        }
    });
    let at = node.listen(&"tcp:127.0.0.1:0".parse()?).await?.to_string();
    let port = at.rsplit(':').next().unwrap_or_default();
    writeln!(std::io::stdout(), "{port} {}", node.id())?;
    std::future::pending().await
}

/// The least that forwarding can be: chunks from one substream to the other, one way.
async fn forward(node: Node, call: Call) -> Outcome<()> {
    let peer = call
        .service()
        .strip_prefix(FORWARD)
        .ok_or("no such service")?;
    let session = node.session(&PeerAddr::new(peer.parse()?)).await?;
    let far = session.open(RAW).await?;
    let near = call.accept().await?;
    let (Ok((mut near, held)), Ok((mut far, _))) = (near.into_wire(), far.into_wire()) else {
        return Err("a layer on a substream".into());
    };
    far.write_chunk(held).await?;
    while let Some(chunk) = near.read_chunk().await? {
        far.write_chunk(chunk).await?;
    }
    far.shutdown().await?;
    while far.read_chunk().await?.is_some() {}
    near.shutdown().await?;
    Ok(())
}

/// The relay's process, seen from outside; killed when this is dropped.
pub(super) struct Running {
    child: Child,
    pub(super) port: u16,
    pub(super) id: PeerId,
    /// As the bench was told.
    pub(super) unpaced: bool,
}

impl Running {
    pub(super) fn start(circuits_a_peer: usize, rate: u64, unpaced: bool) -> Outcome<Self> {
        let limits = ["--circuits-a-peer", &circuits_a_peer.to_string()];
        Self::with(
            &[&limits[..], &["--rate", &rate.to_string()]].concat(),
            unpaced,
        )
    }

    /// One as it is by default.
    pub(super) fn default_one(unpaced: bool) -> Outcome<Self> {
        let limits = ["--circuits-a-peer", "4", "--rate", "10485760"];
        Self::with(&[&limits[..], &["--default-limits"]].concat(), unpaced)
    }

    fn with(limits: &[&str], unpaced: bool) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("mesh-relay")
            .args(limits)
            .args(unpaced.then_some("--unpaced"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        // Killed from here on, whatever it says.
        let id = PeerId::from_bytes([0; 32]);
        let mut running = Self {
            child,
            port: 0,
            id,
            unpaced,
        };
        let out = running.child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let (port, id) = line.trim().split_once(' ').ok_or("no port was told")?;
        running.port = port.parse()?;
        running.id = id.parse()?;
        Ok(running)
    }

    /// Bytes that it has in memory, once nothing has happened for a while.
    pub(super) async fn memory(&self) -> Outcome<f64> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        crate::measure::resident_bytes_of(self.child.id())
    }

    /// Seconds of CPU that it has used, in user and in system mode.
    pub(super) fn cpu(&self) -> Outcome<f64> {
        crate::measure::cpu_seconds_of(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
