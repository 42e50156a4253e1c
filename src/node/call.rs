//! A service being asked for: by whom, and how the peer got here.

use crate::identity::PeerId;
use crate::mux::Substream;
use crate::onion::Onion;
use crate::session::{AcceptError, Incoming, Session};
use crate::tls::{Peer, TlsConfig};

use super::Node;
use super::core::Live;
use super::shares::{Exceeded, Resource, Share};

/// How a session came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The relays on the way, the one next to this node first; none where it is direct.
    pub via: Vec<PeerId>,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Where the stream goes or came from, for messages.
    pub label: String,
}

impl Path {
    /// Whether there is no relay on the way.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.via.is_empty()
    }

    /// As the end of a sentence: `over tcp …`, or `via relay …`.
    pub(super) fn phrase(&self) -> String {
        if self.is_direct() {
            format!("over {self}")
        } else {
            self.to_string()
        }
    }
}

impl std::fmt::Display for Path {
    /// `tcp 127.0.0.1:7000`, or `via relay ID, ID`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((first, rest)) = self.via.split_first() else {
            return f.write_str(&self.label);
        };
        write!(f, "via relay {first}")?;
        rest.iter().try_for_each(|relay| write!(f, ", {relay}"))
    }
}

/// A peer that may open a service, and waits for it. Dropped unanswered, it is told that.
#[derive(Debug)]
pub struct Call {
    incoming: Incoming,
    node: Node,
    live: Live,
    introduced_by: Vec<PeerId>,
}

impl Call {
    pub(super) fn new(incoming: Incoming, node: Node, live: Live) -> Self {
        Self {
            incoming,
            node,
            live,
            introduced_by: Vec::new(),
        }
    }

    /// The node that is asked. This handle does not keep the node alive.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Who asks.
    pub fn peer(&self) -> &Peer {
        self.incoming.peer()
    }

    /// The name of the service that was asked for.
    pub fn service(&self) -> &str {
        self.incoming.service()
    }

    /// How the peer's session came to be.
    pub fn path(&self) -> &Path {
        &self.live.path
    }

    /// Who introduced the peer: the first who did, then whoever passed the introduction on. Empty where the
    /// peer opened the service in its own right.
    pub fn introduced_by(&self) -> &[PeerId] {
        &self.introduced_by
    }

    /// The peer's session, to open something there or to see it end.
    pub fn session(&self) -> &Session {
        &self.live.session
    }

    /// A part of the node's pools for what this call needs, counted to the peer that asks. It is given back when the
    /// [`Share`] is dropped, so keep that as long as what it stands for.
    ///
    /// # Errors
    /// [`Exceeded`] names the limit, fit for [`refuse`](Self::refuse).
    pub fn hold(&self, wanted: &[(Resource, usize)]) -> Result<Share, Exceeded> {
        self.node.core().shares.take(self.live.holder(), wanted)
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// The substream alone, as a session brings it.
    pub fn into_incoming(self) -> Incoming {
        self.incoming
    }

    /// Splits off the substream, for a protocol that accepts it and then goes on with what the peer asks for on it
    /// ([`CallContext::resume`]).
    pub(crate) fn into_parts(self) -> (Incoming, CallContext) {
        let context = CallContext {
            node: self.node,
            live: self.live,
        };
        (self.incoming, context)
    }

    /// Whether the peer asks for TLS inside the substream.
    pub fn wants_inner_tls(&self) -> bool {
        self.incoming.wants_inner_tls()
    }

    /// As [`Incoming::accept`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn accept(self) -> Result<Onion<Substream>, AcceptError> {
        self.incoming.accept().await
    }

    /// As [`Incoming::accept_secured`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn accept_secured(self, inner: &TlsConfig) -> Result<Onion<Substream>, AcceptError> {
        self.incoming.accept_secured(inner).await
    }

    /// As [`Incoming::refuse`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn refuse(self, reason: &str) -> Result<(), AcceptError> {
        self.incoming.refuse(reason).await
    }
}

/// What is known of a call beside its substream.
#[derive(Clone, Debug)]
pub(crate) struct CallContext {
    node: Node,
    live: Live,
}

impl CallContext {
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn session(&self) -> &Session {
        &self.live.session
    }

    pub(crate) fn path(&self) -> &Path {
        &self.live.path
    }

    /// Serves what the peer asks for next on a substream, by the service that an introduction is for.
    pub(crate) async fn serve_introduced(self, incoming: Incoming, by: Vec<PeerId>) {
        let call = Call {
            incoming,
            node: self.node,
            live: self.live,
            introduced_by: by,
        };
        super::sessions::serve_introduced(call).await;
    }
}
