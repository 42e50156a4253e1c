//! A node that takes part in introductions: as who issues them, as who uses them, and as the owner of the services they are for.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::identity::{PeerId, UnixTime};
use crate::node::{Access, Admission, Call, Node, PeerAddr, Protocol, ProtocolError};
use crate::session::ServiceStream;

use super::flaw::Flaw;
use super::link::{Ancestor, Bound, Name};
use super::party::Party;
use super::recipient::IntroducedError;
use super::record::StateFileError;
use super::state::State;
use super::statement::{Introduction, Terms};
use super::wire::SERVICE;
use super::{owner, recipient};

/// The introductions of a node. Clones are the same.
#[derive(Clone)]
pub struct Introductions {
    state: Arc<State>,
}

/// Why a node takes no part in introductions. The text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntroductionsError {
    /// It does so already.
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    /// The state file can't be used.
    #[error("{0}")]
    StateFile(#[from] StateFileError),
}

impl Introductions {
    /// Lets a node take part. Whoever is introduced must be able to have a session with it: its trust has to let strangers in
    /// ([`AcceptAny`](crate::identity::AcceptAny)), who can then open nothing but what they are introduced to, and
    /// what is open to [`Access::Anyone`].
    ///
    /// What was used up or revoked stays so while the process lives. What it has issued itself, for a service that it offered then,
    /// is refused by the next one; so is what others have issued before that one began, as long as the machine's clock does not
    /// go back in between. Where it may, use [`on_with_state`](Self::on_with_state).
    ///
    /// # Errors
    /// The node does so already.
    pub fn on(node: &Node) -> Result<Self, IntroductionsError> {
        Self::with(node, State::new(node.handle(), None)?)
    }

    /// As [`on`](Self::on), with a small file that outlives the process: it says when the newest introduction of others was
    /// issued that was let in or revoked, and nothing as old as that is let in by the next process, whatever its clock shows.
    /// The file is made where there is none, with mode 0600, and replaced in one step; from its first use on it must not be
    /// set back. Another file beside it, with `.lock` behind its name, is locked as long as it is used: one node uses it at a
    /// time. Blocks while it is read.
    ///
    /// # Errors
    /// The node does so already; or the file can't be read or written, is something else, is in use, or others may use it.
    pub fn on_with_state(node: &Node, file: impl AsRef<Path>) -> Result<Self, IntroductionsError> {
        Self::with(node, State::new(node.handle(), Some(file.as_ref()))?)
    }

    fn with(node: &Node, state: State) -> Result<Self, IntroductionsError> {
        let state = Arc::new(state);
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
        self.state.introduce(to, terms)
    }

    /// Passes an introduction on that this node was given.
    ///
    /// # Errors
    /// [`Flaw::Chain`] when it was not given to this node, or may not be passed on.
    pub fn pass_on(&self, it: &Introduction, terms: Terms) -> Result<Introduction, Flaw> {
        it.pass_on_at(self.node().identity(), terms, self.state.reading().wall)
    }

    /// Opens the service that an introduction is for. Of its hints only those are followed that open
    /// network connections.
    ///
    /// # Errors
    /// Which step failed: the introduction itself, the way to the owner, the owner's verdict, or the service.
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream; a use may have been counted.
    pub async fn open(&self, it: &Introduction) -> Result<ServiceStream, IntroducedError> {
        self.open_for(it, None).await
    }

    /// The same because of another peer, who has given it: what has to be dialled is counted to that one.
    pub(in crate::protocols) async fn open_for(
        &self,
        it: &Introduction,
        payer: Option<PeerId>,
    ) -> Result<ServiceStream, IntroducedError> {
        recipient::open(self.node(), it, payer).await
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

    /// The time, which does not go back while the process lives.
    pub(in crate::protocols) fn now(&self) -> UnixTime {
        self.state.now()
    }

    /// Whether it is one that a membrane of this node has made, and not revoked. It has been found to hang together, and
    /// to be signed.
    pub(in crate::protocols) fn is_made_here(&self, it: &Introduction) -> Result<bool, Flaw> {
        if !it.is_made() || it.issuers().first() != Some(&self.node().id()) {
            return Ok(false);
        }
        let reading = self.state.reading();
        self.state.book().is_standing(it, reading)?;
        Ok(true)
    }

    /// Signs one that a membrane gives in the place of another: a use counts on all that it was made from, and what is
    /// revoked of that takes it along.
    pub(in crate::protocols) fn make(
        &self,
        to: &PeerAddr,
        terms: Terms,
        made_from: Vec<Ancestor>,
    ) -> Result<Introduction, Flaw> {
        let bound = Bound {
            epoch: self.state.book().epoch(),
            made_from: Some(made_from),
        };
        let now = self.state.reading().wall;
        Introduction::bound(self.node().identity(), to, terms, now, bound)
    }

    /// Counts the uses of what a membrane has let through, from now until it is released as often.
    pub(in crate::protocols) fn keep(&self, it: &Introduction) -> Result<(), Flaw> {
        self.state.book().keep(it)
    }

    /// A membrane offers nothing any more that was made from it.
    pub(in crate::protocols) fn release(&self, name: Name) {
        self.state.book().release(name);
    }

    /// What a room above keeps for this node, one of each type.
    pub(in crate::protocols) fn beside<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        self.state.beside()
    }

    /// This node, as who uses and issues.
    pub(in crate::protocols) fn own(&self) -> Party {
        Party::own(self.node().identity())
    }
}

impl fmt::Debug for Introductions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introductions")
            .field("node", &self.node().id())
            .finish_non_exhaustive()
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

    // Until it has proven something, a stranger's session gives way to others.
    fn keeps_session(&self) -> bool {
        false
    }

    fn serve(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        Box::pin(async move { owner::serve(&self.0, call).await })
    }
}
