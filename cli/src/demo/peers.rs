//! The two peers of a demo run, and the transport between them.
//!
//! Both identities are fresh, made in memory, and each side lets in nobody but the other. The
//! server is the one of `cepa serve`: in this process, or, for the subprocess, the same binary
//! started as `cepa serve stdio:`. Only that one needs a key file; it lies in a folder of ours that
//! nobody else can enter.

use std::path::Path;
use std::sync::Arc;

use cepa::Side;
use cepa::identity::{Identity, KeyKind, PeerId, Pinned};
use cepa::node::{Access, Node};
use cepa::protocols::forward::Forwarder;
use cepa::session::{PathChanges, Session};
use cepa::stack::StackConfig;
use cepa::tls::TlsConfig;
use cepa::transports::{self, Endpoint, Target};

use super::cut::{self, Cutter};
use crate::args::{Service, Target as Served, Transport};
use crate::child::Watched;
use crate::exit::{self, Code, Failure};
use crate::keep::Keep;
use crate::reach::{self, GOODBYE};
use crate::service::Services;

/// A session between two peers, from the client's side.
pub(super) struct Peers {
    pub(super) session: Session,
    /// What has happened to its connections.
    pub(super) changes: PathChanges,
    /// For the substream that has TLS of its own: another identity than the session's.
    pub(super) inner: TlsConfig,
    /// Cuts the connection in the middle of the work.
    pub(super) cutter: Option<Cutter>,
    server: Option<Node>,
    child: Option<Watched>,
}

/// A session outlives its connection.
const KEPT: Keep = Keep::For(None);

/// The names of the services that the work uses.
pub(super) const ECHO: &str = "echo";
pub(super) const LAYERS: &str = "layers";

impl Peers {
    /// Starts the server and dials it.
    pub(super) async fn meet(kind: Transport, place: &Path) -> Result<Self, Failure> {
        let server = Identity::generate(KeyKind::Ed25519)?;
        let client = Identity::generate(KeyKind::Ed25519)?;
        let inner = Identity::generate(KeyKind::P256)?;
        let allowed = [client.peer_id(), inner.peer_id()];
        let expected = Arc::new(Pinned::one(server.peer_id()));
        let inner = TlsConfig::new(&inner, expected.clone())?;
        let mut config = StackConfig::new(client, expected);

        let mut cutter = None;
        let (address, running) = match kind {
            Transport::Tcp => {
                config.resume = KEPT.config();
                let (at, running) = listen("tcp:127.0.0.1:0", None, &server, allowed).await?;
                let Target::Tcp { port, .. } = at.target() else {
                    return Err(Failure::new(Code::Other, format!("{at} has no port")));
                };
                let (proxy, port) = cut::in_front_of(*port).await?;
                cutter = Some(proxy);
                (endpoint(&format!("tcp:127.0.0.1:{port}"))?, running)
            }
            #[cfg(feature = "ws")]
            Transport::Ws => listen("ws:127.0.0.1:0/cepa", None, &server, allowed).await?,
            #[cfg(feature = "quic")]
            Transport::Quic => listen("quic:127.0.0.1:0", None, &server, allowed).await?,
            Transport::Unix => {
                let at = format!("unix:{}", escaped(&place.join("socket"))?);
                listen(&at, None, &server, allowed).await?
            }
            Transport::Serial => {
                let line = escaped(&place.join("line"))?;
                let (at, to) = (
                    format!("pty:{line}"),
                    format!("serial:{line},baud=20000000"),
                );
                listen(&at, Some(&to), &server, allowed).await?
            }
            #[cfg(feature = "rfc2217")]
            Transport::Rfc2217 => {
                let at = "rfc2217:127.0.0.1:0,baud=20000000";
                listen(at, None, &server, allowed).await?
            }
            Transport::Exec => (subprocess(place, &server, allowed)?, None),
        };
        let mut stream = transports::dial(&address).await?;
        let child = stream.take_child().map(Watched::quiet);
        let config = config.for_endpoint(&address);
        match Session::handshake(stream, address.layers(), Side::Client, &config).await {
            Ok(session) => {
                let at = address.clone();
                session.redial_with(&address, move || {
                    let at = at.clone();
                    Box::pin(async move { Ok(transports::dial(&at).await?) })
                });
                Ok(Self {
                    changes: session.path_changes(),
                    session,
                    inner,
                    cutter,
                    server: running,
                    child,
                })
            }
            Err(e) => match child {
                Some(child) => Err(Failure::from(e).with(child.ended().await)),
                None => Err(e.into()),
            },
        }
    }

    /// Ends the session, then the server.
    pub(super) async fn close(self) {
        self.session.close().await;
        if let Some(node) = self.server {
            node.shutdown(GOODBYE).await;
        }
        if let Some(child) = self.child {
            child.ended().await;
        }
    }
}

/// A server in this process, and the address by which it is dialled.
async fn listen(
    at: &str,
    dialled_as: Option<&str>,
    identity: &Identity,
    allowed: [PeerId; 2],
) -> Result<(Endpoint, Option<Node>), Failure> {
    let trust = Arc::new(Pinned::new(allowed));
    let mut config = reach::config(identity, trust.clone());
    config.stack.resume = KEPT.config();
    let node = Node::new(config);
    let inner = TlsConfig::new(identity, trust)?;
    let services = Services::on(&node, inner, Forwarder::new(&node), None)?;
    for (name, target) in [(ECHO, Served::Echo), (LAYERS, Served::Demo)] {
        let service = Service {
            name: name.to_owned(),
            target,
            watch: false,
        };
        services.offer(&node, &service, Access::Anyone)?;
    }
    let real = node.listen(&endpoint(at)?).await?;
    let address = dialled_as.map_or(Ok(real), endpoint)?;
    Ok((address, Some(node)))
}

/// This very binary as `cepa serve stdio:`.
fn subprocess(
    place: &Path,
    identity: &Identity,
    allowed: [PeerId; 2],
) -> Result<Endpoint, Failure> {
    let key = place.join("server.pem");
    identity.save(&key)?;
    let this = std::env::current_exe()
        .map_err(|e| Failure::new(Code::Other, format!("cannot find this program's file: {e}")))?;
    let [one, other] = allowed;
    let words = [
        exit::quoted(&this.to_string_lossy()),
        "serve stdio:".to_owned(),
        format!("--identity {}", exit::quoted(&key.to_string_lossy())),
        format!("--allow {one} --allow {other}"),
        format!("--service {ECHO}=echo: --service {LAYERS}=demo:"),
    ];
    endpoint(&format!("exec:{}", words.join(" ")))
}

fn endpoint(text: &str) -> Result<Endpoint, Failure> {
    text.parse()
        .map_err(|e| Failure::new(Code::Other, format!("{e}")))
}

/// A path as an address takes it.
fn escaped(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| {
        Failure::new(
            Code::Local,
            "the temporary folder's name is not Unicode; set TMPDIR",
        )
    })?;
    Ok(text
        .replace('%', "%25")
        .replace(',', "%2C")
        .replace('?', "%3F"))
}
