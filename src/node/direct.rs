//! A session through a relay goes on over a connection with the peer itself, which somebody else has made (`protocols/direct/`).

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;

use cepa_transports::{Stream, Target};
use tokio::runtime::Handle;

use crate::Side;
use crate::identity::{PeerId, Presented, Refusal, TrustPolicy};
use crate::session::{ConnectError, Session, paths};
use crate::stack::{self, Built, DEFAULT_LAYERS};

use super::event::TurnedAway;
use super::live::Path;
use super::sessions::{Came, accept, register};
use super::{Node, dial};

/// A connection on which the peer has proven its key.
pub(crate) struct Proven(Box<Built>);

impl Node {
    /// Whether the peer of a session is at the other end of a stream. Takes the client's part.
    pub(crate) async fn prove_direct(
        &self,
        session: &Session,
        stream: Stream,
    ) -> Result<Proven, ConnectError> {
        let config = dial::pinned(&self.core, session.peer().id());
        let never = pin!(pending());
        let built = stack::build(stream, DEFAULT_LAYERS, Side::Client, &config, never);
        Box::pin(built).await.map(|built| Proven(Box::new(built)))
    }

    /// A session with a peer over a stream, beside what this node has: nothing is served in it, and nobody else uses it. Takes the client's
    /// part.
    pub(crate) async fn aside(
        &self,
        peer: PeerId,
        stream: Stream,
    ) -> Result<Session, ConnectError> {
        let mut config = dial::pinned(&self.core, peer);
        config.resume = None;
        let never = pin!(pending());
        let built = stack::build(stream, DEFAULT_LAYERS, Side::Client, &config, never);
        let built = Box::pin(built).await?;
        Box::pin(Session::over_built(built, &config)).await
    }

    /// The port at which this node listens for `quic:`, the first of them if there are several.
    pub(crate) fn quic_port(&self) -> Option<u16> {
        let all = self.core.listeners.endpoints();
        all.iter().find_map(|endpoint| match endpoint.target() {
            Target::Quic { port, .. } => Some(*port),
            _ => None,
        })
    }

    /// Runs something that a shutdown waits for and does not cut short, so that it has to be bounded.
    pub(crate) fn spawn_last(&self, task: impl Future<Output = ()> + Send + 'static) {
        if Handle::try_current().is_ok() {
            self.core.tasks.spawn(task);
        }
    }

    /// The session goes on there with all that is open in it; one that can't is followed by a new one, which is used from then on.
    pub(crate) async fn go_direct(
        &self,
        session: &Session,
        Proven(built): Proven,
    ) -> Result<(), ConnectError> {
        let peer = session.peer().id();
        let config = dial::pinned(&self.core, peer);
        if let Some(lasting) = session.lasting() {
            let _turn = lasting.turn.lock().await;
            return Box::pin(paths::go_on_over(lasting, *built, &config)).await;
        }
        let new = Box::pin(Session::over_built(*built, &config)).await?;
        let path = Path {
            via: Vec::new(),
            dialled: true,
            label: new.label().to_owned(),
        };
        let registered = register(&self.core, new, path, Came::Dialled(None));
        Box::pin(registered)
            .await
            .map(|_| ())
            .map_err(|_| ConnectError::Over)
    }

    /// The server's part of that: this very peer comes over a stream, and is let in as through any listener.
    pub(crate) async fn accept_direct(
        &self,
        peer: PeerId,
        stream: Stream,
    ) -> Result<(), TurnedAway> {
        let mut config = self.core.config.stack.clone();
        let let_in = Arc::clone(&config.trust);
        config.trust = Arc::new(Only { peer, let_in });
        let accepted = accept(
            &self.core,
            stream,
            DEFAULT_LAYERS,
            Vec::new(),
            &config,
            None,
        );
        Box::pin(accepted).await.map(|_| ())
    }
}

/// One peer alone, where another policy lets it in.
#[derive(Debug)]
struct Only {
    peer: PeerId,
    let_in: Arc<dyn TrustPolicy>,
}

impl TrustPolicy for Only {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        if peer.id != self.peer {
            return Err(Refusal::WrongPeer {
                expected: vec![self.peer],
                presented: peer.id,
            });
        }
        self.let_in.decide(peer)
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.let_in.proven(peer)
    }

    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        self.let_in.overlooks_dates(peer)
    }

    fn may_block(&self) -> bool {
        self.let_in.may_block()
    }

    fn names(&self, peer: &Presented<'_>) -> bool {
        self.let_in.names(peer)
    }
}
