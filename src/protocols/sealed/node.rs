//! A node that takes part in sealed messages: as who sends, as who receives, as who carries.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::identity::PeerId;
use crate::node::{Access, Admission, Call, Node, PeerAddr, Protocol, ProtocolError};

use super::ask::{self, SealedError};
use super::letter::SealingKey;
use super::quota::{CarrierConfig, CarrierStats};
use super::serve;
use super::state::{SealedCall, State};
use super::wire::{CARRY, DELIVER};

/// The sealed messages of a node. Clones are the same.
#[derive(Clone)]
pub struct Sealed {
    state: Arc<State>,
}

impl Sealed {
    /// Lets a node take part.
    ///
    /// # Errors
    /// The node does so already.
    pub fn on(node: &Node) -> Result<Self, ProtocolError> {
        let state = Arc::new(State::new(node.handle()));
        node.add_protocol(Arc::new(Carry(Arc::clone(&state))))?;
        node.add_protocol(Arc::new(Deliver(Arc::clone(&state))))?;
        Ok(Self { state })
    }

    /// Offers a service to sealed requests: what a carrier brings, and no carrier can read. `access` is about the sender,
    /// whose signature is in the request; a service of the same name for substreams is another one. The handler's answer
    /// is sealed for that sender, and so is its error, as the reason. It runs once for each request, and once begun it
    /// goes on when the carrier is gone.
    pub fn serve<H, F>(&self, name: &str, access: Access, handler: H)
    where
        H: Fn(SealedCall) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<u8>, String>> + Send + 'static,
    {
        let handler = Arc::new(move |call| -> BoxFuture<'static, _> { Box::pin(handler(call)) });
        self.state.serve(name, access, handler);
    }

    /// Takes a service for sealed requests back; returns whether there was one of that name.
    pub fn withdraw(&self, name: &str) -> bool {
        self.state.withdraw(name)
    }

    /// Carries sealed messages for others to peers that have a session with this node; `None` ends that.
    pub fn carry(&self, config: Option<CarrierConfig>) {
        self.state.carry(config);
    }

    /// The carrier's counters, if the node is one.
    #[must_use]
    pub fn carrier_stats(&self) -> Option<CarrierStats> {
        self.state.carrier_stats()
    }

    /// Has the present sealing key of a peer fetched, by a carrier or by that peer itself. It is good for an hour at
    /// least, or until the peer restarts.
    ///
    /// # Errors
    /// [`SealedError`]; a key that is not signed by the peer is [`SealedError::Altered`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn key(&self, carrier: &PeerAddr, of: PeerId) -> Result<SealingKey, SealedError> {
        ask::key(&self.state.node, carrier, of).await
    }

    /// Sends a sealed request to the owner of `key` by a carrier, and opens the answer. Both have at most
    /// [`MAX_BODY`](super::MAX_BODY) bytes. The request is good for two minutes; nothing is sent twice.
    ///
    /// # Errors
    /// [`SealedError`] tells which of them leave it open whether the request was carried out.
    ///
    /// # Cancel safety
    /// Dropping the future gives the answer up; the request may be carried out.
    pub async fn ask(
        &self,
        carrier: &PeerAddr,
        key: &SealingKey,
        service: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, SealedError> {
        ask::ask(&self.state.node, carrier, key, service, body).await
    }
}

/// A carrier's side.
struct Carry(Arc<State>);

impl Protocol for Carry {
    fn names(&self) -> &[&'static str] {
        &[CARRY]
    }

    fn admission(&self, _name: &str) -> Admission {
        let carrier = self.0.carrier();
        Admission::Access(carrier.map_or(Access::Nobody, |it| it.config.access.clone()))
    }

    fn refusal(&self) -> &'static str {
        "this peer carries no sealed messages for you"
    }

    // Only what has a place, or any stranger's session would be of use.
    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { serve::carry(&self.0, call).await })
    }

    // What it carries for others keeps nobody from shutting down.
    fn delays_shutdown(&self) -> bool {
        false
    }
}

/// A recipient's side.
struct Deliver(Arc<State>);

impl Protocol for Deliver {
    fn names(&self) -> &[&'static str] {
        &[DELIVER]
    }

    // A request is signed by its sender.
    fn admission(&self, _name: &str) -> Admission {
        if self.0.takes_any() {
            Admission::OwnProof
        } else {
            Admission::Access(Access::Nobody)
        }
    }

    fn refusal(&self) -> &'static str {
        "this peer takes no sealed messages: its owner has to offer a service to them"
    }

    // Only what has a place, or any stranger's session would be of use.
    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { serve::deliver(&self.0, call).await })
    }
}
