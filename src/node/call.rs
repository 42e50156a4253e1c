//! A service being asked for: by whom, and how the peer got here.

use std::any::Any;

use crate::gate::Source;
use crate::identity::PeerId;
use crate::mux::ReceivePool;
use crate::session::{AcceptError, Incoming, ServiceStream, Session};
use crate::tls::{Peer, TlsConfig};

use super::access::Admitted;
use super::live::{Live, Path};
use super::seats::Kept;
use super::shares::{Exceeded, Holder, Resource, Share, Shares};

/// A peer that may open a service, and waits for it. Dropped unanswered, it is told that.
#[derive(Debug)]
pub struct Call {
    incoming: Incoming,
    live: Live,
    shares: Shares,
    named: bool,
    introduced_by: Vec<PeerId>,
    admitted: Option<Admitted>,
}

impl Call {
    pub(super) fn new(incoming: Incoming, live: Live, shares: Shares) -> Self {
        let named = live.who.named || shares.knows(&live.holder().ids);
        Self {
            incoming,
            named,
            live,
            shares,
            introduced_by: Vec::new(),
            admitted: None,
        }
    }

    /// The same for a peer that was introduced to the service.
    pub(super) fn introduced(
        incoming: Incoming,
        context: CallContext,
        introduced_by: Vec<PeerId>,
    ) -> Self {
        Self {
            incoming,
            live: context.live,
            shares: context.shares,
            named: context.named,
            introduced_by,
            admitted: None,
        }
    }

    /// What it opens is for this peer by name.
    pub(super) fn set_named(&mut self) {
        self.named = true;
    }

    /// What is known of it beside its substream.
    pub fn context(&self) -> CallContext {
        CallContext {
            live: self.live.clone(),
            shares: self.shares.clone(),
            named: self.named,
        }
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
        self.shares.take(self.holder(), wanted)
    }

    /// The same of one resource, of which strangers hold `spare` that give way to a peer that is known by name
    /// ([`CallContext::is_named`]); and how many of those have to go now: whoever asks drops their [`Share`]s next. A stranger is
    /// given nothing of them.
    ///
    /// # Errors
    /// As there.
    pub fn hold_displacing(
        &self,
        wanted: (Resource, usize),
        spare: usize,
    ) -> Result<(Share, usize), Exceeded> {
        self.shares.take_displacing(self.holder(), wanted, spare)
    }

    fn holder(&self) -> Holder {
        Holder {
            named: self.named,
            ..self.live.holder()
        }
    }

    /// The memory that all sessions of the peer have together. What a handler holds of what the peer sends, or does not take, is
    /// to come from there: see [`ReceivePool::hold`].
    pub fn memory(&self) -> &ReceivePool {
        &self.live.memory.pool
    }

    pub(super) fn admit_to(&mut self, admitted: Option<Admitted>) {
        self.admitted = admitted;
    }

    /// What the protocol that serves this has let the peer in to, by [`Admission::With`](super::Admission::With).
    pub fn admitted<T: Any>(&self) -> Option<&T> {
        self.admitted.as_ref()?.get()
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// The substream alone, as a session brings it.
    pub fn into_incoming(self) -> Incoming {
        self.incoming
    }

    /// Splits off the substream, for a protocol that accepts it and then goes on with what the peer asks for on it.
    pub fn into_parts(self) -> (Incoming, CallContext) {
        let context = self.context();
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
    pub async fn accept(self) -> Result<ServiceStream, AcceptError> {
        self.incoming.accept().await
    }

    /// As [`Incoming::accept_secured`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn accept_secured(self, inner: &TlsConfig) -> Result<ServiceStream, AcceptError> {
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
pub struct CallContext {
    live: Live,
    shares: Shares,
    named: bool,
}

impl CallContext {
    /// The peer's session.
    pub fn session(&self) -> &Session {
        &self.live.session
    }

    /// Where it comes from, if it came in: a host, the nearest relay, or [this machine](Source::HERE) as a whole.
    pub fn source(&self) -> Option<Source> {
        self.live.host
    }

    /// Whether the peer is known by name, and is not one of many that anybody can make: the trust policy lists it, the access of
    /// any service or of what it has opened does, or it brings a proof of its own in a session that this node has dialled of its own
    /// accord.
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// How it came to be.
    pub fn path(&self) -> &Path {
        &self.live.path
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// As [`Call::hold`], for what is needed later.
    ///
    /// # Errors
    /// As there.
    pub fn hold(&self, wanted: &[(Resource, usize)]) -> Result<Share, Exceeded> {
        self.shares.take(self.live.holder(), wanted)
    }

    /// The session is of use from now on, until what this gives is dropped: when there is no room for sessions, it does not give way
    /// to a newcomer. For a protocol that [says itself](super::Protocol::keeps_session) when its peer has proven to be
    /// no stranger. Nothing for a session that this node has dialled, which never does.
    pub fn keep_session(&self) -> Option<Kept> {
        self.live.keep()
    }
}
