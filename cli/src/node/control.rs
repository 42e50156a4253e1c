//! The control socket of a running node: a Unix socket for its owner alone (mode 0600). Whoever connects and asks for nothing gets the
//! node's status, one JSON document, and then the end. A first line `{"invite":{"name":…,"minutes":…}}` opens an invitation, which
//! is answered by lines of JSON and closed with the connection.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::Listening;
use cepa::protocols::relay::Relay;
use cepa::transports::{self, Endpoint, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::exit::{Code, Failure, say};
use crate::numbers;
use crate::reach::Mesh;

use super::inviter::Inviter;

/// Time for a reader to take the status.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time to ask for something: it is sent at once.
const ASKING: Duration = Duration::from_millis(300);
/// Longest line that asks, in bytes.
const MOST_ASKED: u64 = 4096;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the node listens: each with the address that was asked for; without a listener while its device is absent.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<Mutex<Vec<Place>>>);

type Place = (Endpoint, Option<Listening>);

impl Listeners {
    /// A listener is waited for.
    pub(super) fn expect(&self, asked: Endpoint) {
        self.standing().push((asked, None));
    }

    pub(super) fn add(&self, asked: Endpoint, listening: Listening) {
        let mut all = self.standing();
        all.retain(|(other, listening)| *other != asked || listening.is_some());
        all.push((asked, Some(listening)));
    }

    /// The addresses that were asked for. One whose listener has ended is none any more.
    pub(super) fn asked(&self) -> Vec<Endpoint> {
        let all = self.standing();
        all.iter().map(|(asked, _)| asked.clone()).collect()
    }

    /// The addresses of those that listen.
    fn addresses(&self) -> Vec<Endpoint> {
        let all = self.standing();
        let listening = all.iter().filter_map(|(_, listening)| listening.as_ref());
        listening.map(|it| it.endpoint().clone()).collect()
    }

    fn standing(&self) -> MutexGuard<'_, Vec<Place>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, listening)| listening.as_ref().is_none_or(|it| !it.has_ended()));
        all
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
        inviter: Inviter,
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
                    Ok(Some(stream)) => {
                        let (mesh, listeners) = (mesh.clone(), listeners.clone());
                        let (relay, inviter) = (relay.clone(), inviter.clone());
                        tokio::spawn(async move {
                            let mut stream = BufReader::new(stream);
                            if let Some(asked) = asked(&mut stream).await {
                                return inviter
                                    .invite(&asked, &listeners.addresses(), stream)
                                    .await;
                            }
                            let status = status(&mesh, &listeners, relay.as_ref());
                            let _ = timeout(PATIENCE, async move {
                                stream.write_all(format!("{status}\n").as_bytes()).await?;
                                stream.shutdown().await
                            })
                            .await;
                        });
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

/// What is asked for in a first line, if anything is: who wants the status says nothing.
async fn asked(stream: &mut BufReader<Stream>) -> Option<Value> {
    let mut line = Vec::new();
    let mut asking = stream.take(MOST_ASKED);
    let _ = timeout(ASKING, asking.read_until(b'\n', &mut line)).await;
    serde_json::from_slice(&line).ok()
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
        "listening": listeners.addresses().iter().map(Endpoint::to_string).collect::<Vec<_>>(),
        "services": node.services(),
        "registered": registered.iter().map(PeerId::to_string).collect::<Vec<_>>(),
        "sessions": sessions,
        "relay": relay,
        "carrier": carrier,
        "metrics": numbers::values(),
    })
}
