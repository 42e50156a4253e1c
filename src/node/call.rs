//! A service being asked for: by whom, and how the peer got here.

use crate::identity::PeerId;
use crate::mux::Substream;
use crate::onion::Onion;
use crate::session::{AcceptError, Incoming, Session};
use crate::tls::{Peer, TlsConfig};

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
}

impl Path {
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
    session: Session,
    path: Path,
    introduced_by: Vec<PeerId>,
}

impl Call {
    pub(super) fn new(incoming: Incoming, session: Session, path: Path) -> Self {
        Self {
            incoming,
            session,
            path,
            introduced_by: Vec::new(),
        }
    }

    pub(super) fn introduced(mut self, by: Vec<PeerId>) -> Self {
        self.introduced_by = by;
        self
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
        &self.path
    }

    /// Who introduced the peer: the first who did, then whoever passed the introduction on. Empty where the
    /// peer opened the service in its own right.
    pub fn introduced_by(&self) -> &[PeerId] {
        &self.introduced_by
    }

    /// The peer's session, to open something there or to see it end.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The substream alone, as a session brings it.
    pub fn into_incoming(self) -> Incoming {
        self.incoming
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
