//! The control socket of a running node: a Unix socket for its owner alone (mode 0600). Whoever connects gets the
//! node's status, one JSON document, and then the end. There is nothing to ask for and nothing to change, so
//! nothing is read.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::{Listening, Node};
use cepa::protocols::relay::{Relay, RelayEvent};
use cepa::transports;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::exit::{Code, Failure, say};
use crate::node::Mesh;

/// Time for a reader to take the status.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the node listens.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<Mutex<Vec<Listening>>>);

impl Listeners {
    pub(super) fn add(&self, listening: Listening) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(listening);
    }

    /// Their addresses. One that has ended is none any more.
    fn addresses(&self) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|listening| !listening.has_ended());
        let addresses = all.iter().map(|it| it.endpoint().to_string());
        addresses.collect()
    }
}

/// Open until it is closed.
pub(super) struct Control {
    serving: JoinHandle<()>,
    watching: JoinHandle<()>,
}

impl Control {
    /// The socket's file is gone when this returns.
    pub(super) async fn close(self) {
        for task in [self.serving, self.watching] {
            task.abort();
            let _ = task.await;
        }
    }

    pub(super) async fn open(
        path: &Path,
        mesh: &Mesh,
        listeners: Listeners,
        relay: Option<Relay>,
    ) -> Result<Self, Failure> {
        let unusable =
            |why: String| Failure::new(Code::Usage, format!("control {}: {why}", path.display()));
        let path = path.to_str().ok_or_else(|| unusable("no UTF-8".into()))?;
        let at = format!("unix:{path}").parse();
        let at = at.map_err(|e| unusable(format!("{e}")))?;
        let mut listener = transports::listen(&at).await?;
        let relays = Arc::new(Mutex::new(Vec::new()));
        let watching = tokio::spawn(watch(mesh.node.clone(), Arc::clone(&relays)));
        let mesh = mesh.clone();
        let serving = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(Some(mut stream)) => {
                        let mut status =
                            status(&mesh, &listeners, relay.as_ref(), &relays).to_string();
                        status.push('\n');
                        tokio::spawn(tokio::time::timeout(PATIENCE, async move {
                            stream.write_all(status.as_bytes()).await?;
                            stream.shutdown().await
                        }));
                    }
                    Ok(None) => return,
                    Err(e) => {
                        say(e);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Ok(Self { serving, watching })
    }
}

/// At which relays the node is registered, by what it tells.
async fn watch(node: Node, relays: Arc<Mutex<Vec<PeerId>>>) {
    let mut events = node.events();
    drop(node);
    while let Some(event) = events.next().await {
        let mut relays = relays.lock().unwrap_or_else(PoisonError::into_inner);
        match event.protocol() {
            Some(RelayEvent::Registered { relay }) if !relays.contains(relay) => {
                relays.push(*relay);
            }
            Some(RelayEvent::Unregistered { relay, .. }) => relays.retain(|known| known != relay),
            _ => {}
        }
    }
}

fn status(
    mesh: &Mesh,
    listeners: &Listeners,
    relay: Option<&Relay>,
    relays: &Mutex<Vec<PeerId>>,
) -> Value {
    let node = &mesh.node;
    let sessions: Vec<Value> = node
        .sessions()
        .into_iter()
        .map(|(peer, path, stats)| {
            json!({
                "peer": peer.to_string(),
                "path": path.to_string(),
                "relays": path.via.iter().map(PeerId::to_string).collect::<Vec<_>>(),
                "dialled": path.dialled,
                "streams": stats.streams,
            })
        })
        .collect();
    let relays = relays.lock().unwrap_or_else(PoisonError::into_inner);
    let relay = relay.map(Relay::stats).map(|stats| {
        json!({
            "registrations": stats.registrations,
            "circuits": stats.circuits,
            "carried": stats.carried,
            "refused": stats.refused,
            "idle": stats.idle,
            "taken_back": stats.taken_back,
            "bytes": stats.bytes,
        })
    });
    let carrier = mesh.sealed.carrier_stats().map(|stats| {
        json!({
            "now": stats.now,
            "carried": stats.carried,
            "refused": stats.refused,
        })
    });
    json!({
        "version": 1,
        "peer": node.id().to_string(),
        "listening": listeners.addresses(),
        "services": node.services(),
        "registered": relays.iter().map(PeerId::to_string).collect::<Vec<_>>(),
        "sessions": sessions,
        "relay": relay,
        "carrier": carrier,
    })
}
