//! The control socket of a running node: a Unix socket for its owner alone (mode 0600). Whoever connects gets the
//! node's status, one JSON document, and then the end. There is nothing to ask for and nothing to change, so
//! nothing is read.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::Listening;
use cepa::protocols::relay::Relay;
use cepa::transports::{self, Endpoint};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::exit::{Code, Failure, say};
use crate::node::Mesh;

/// Time for a reader to take the status.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the node listens: each with the address that was asked for.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<Mutex<Vec<(Endpoint, Listening)>>>);

impl Listeners {
    pub(super) fn add(&self, asked: Endpoint, listening: Listening) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((asked, listening));
    }

    /// The addresses that were asked for. One whose listener has ended is none any more.
    pub(super) fn asked(&self) -> Vec<Endpoint> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, listening)| !listening.has_ended());
        all.iter().map(|(asked, _)| asked.clone()).collect()
    }

    /// Their addresses. One that has ended is none any more.
    fn addresses(&self) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, listening)| !listening.has_ended());
        let addresses = all.iter().map(|(_, it)| it.endpoint().to_string());
        addresses.collect()
    }
}

/// Open until it is closed.
pub(super) struct Control {
    serving: JoinHandle<()>,
}

impl Control {
    /// The socket's file is gone when this returns.
    pub(super) async fn close(self) {
        self.serving.abort();
        let _ = self.serving.await;
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
        let mesh = mesh.clone();
        let serving = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(Some(mut stream)) => {
                        let mut status = status(&mesh, &listeners, relay.as_ref()).to_string();
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
        Ok(Self { serving })
    }
}

fn status(mesh: &Mesh, listeners: &Listeners, relay: Option<&Relay>) -> Value {
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
    let registered = mesh.relays.registered();
    let relay = relay.map(Relay::stats).map(|stats| {
        json!({
            "registrations": stats.registrations,
            "circuits": stats.circuits,
            "carried": stats.carried,
            "refused": stats.refused,
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
        "registered": registered.iter().map(PeerId::to_string).collect::<Vec<_>>(),
        "sessions": sessions,
        "relay": relay,
        "carrier": carrier,
    })
}
