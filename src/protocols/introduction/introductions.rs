//! A node that takes part in introductions: as who issues them, as who uses them, and as the owner of the services they are for.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::identity::{PeerId, UnixTime};
use crate::mux::Substream;
use crate::node::{Access, Admission, Call, Node, PeerAddr, Protocol, ProtocolError};
use crate::onion::Onion;

use super::flaw::Flaw;
use super::recipient::IntroducedError;
use super::state::State;
use super::statement::{Introduction, Terms};
use super::wire::SERVICE;
use super::{owner, recipient};

/// The introductions of a node. Clones are the same.
#[derive(Clone)]
pub struct Introductions {
    state: Arc<State>,
}

impl Introductions {
    /// Lets a node take part. Whoever is introduced must be able to have a session with it: its trust has to let strangers in
    /// ([`AcceptAny`](crate::identity::AcceptAny)), who can then open nothing but what they are introduced to, and
    /// what is open to [`Access::Anyone`].
    ///
    /// # Errors
    /// The node does so already.
    pub fn on(node: &Node) -> Result<Self, ProtocolError> {
        let state = Arc::new(State::new(node.handle()));
        node.add_protocol(Arc::new(Owner(Arc::clone(&state))))?;
        Ok(Self { state })
    }

    /// Sets who may introduce others to a service: nobody, until set, but this node itself.
    pub fn introducers(&self, service: &str, who: Access) {
        self.state.set_introducers(service, who);
    }

    /// Signs an introduction to a service, this node's own or another's.
    ///
    /// # Errors
    /// [`Flaw`]: the address names no service or is too long, or the key cannot sign.
    pub fn introduce(&self, to: &PeerAddr, terms: Terms) -> Result<Introduction, Flaw> {
        Introduction::new(self.node().identity(), to, terms, UnixTime::now())
    }

    /// Passes an introduction on that this node was given.
    ///
    /// # Errors
    /// [`Flaw::Chain`] when it was not given to this node, or may not be passed on.
    pub fn pass_on(&self, it: &Introduction, terms: Terms) -> Result<Introduction, Flaw> {
        it.pass_on(self.node().identity(), terms, UnixTime::now())
    }

    /// Opens the service that an introduction is for. Of its hints only those are followed that open
    /// network connections.
    ///
    /// # Errors
    /// Which step failed: the introduction itself, the way to the owner, the owner's verdict, or the service.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream; a use may have been counted.
    pub async fn open(&self, it: &Introduction) -> Result<Onion<Substream>, IntroducedError> {
        recipient::open(self.node(), it).await
    }

    /// Takes an introduction back that this node has issued, or that is for a service of its own; and with it
    /// all that was passed on from it. What is open goes on.
    ///
    /// # Errors
    /// As [`open`](Self::open): the owner of the service has to hear of it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up; it may have been taken back all the same.
    pub async fn revoke(&self, it: &Introduction) -> Result<(), IntroducedError> {
        recipient::revoke(self.node(), &self.state, it).await
    }

    pub(in crate::protocols) fn node(&self) -> &Node {
        &self.state.node
    }

    /// Who has revoked it, as far as this node knows.
    pub(in crate::protocols) fn revoked_by(&self, it: &Introduction) -> Option<PeerId> {
        self.state.book().revoked(it)
    }
}

/// The owner's side of the protocol.
struct Owner(Arc<State>);

impl Protocol for Owner {
    fn names(&self) -> &[&'static str] {
        &[SERVICE]
    }

    // An introduction proves for whom it is.
    fn admission(&self, _name: &str) -> Admission {
        Admission::OwnProof
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { owner::serve(&self.0, call).await })
    }
}
