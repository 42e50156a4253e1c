//! What protocols open on a node's sessions: on the one there is or a new one, tried again where another session would do.

use futures::future::BoxFuture;

#[cfg(feature = "mesh")]
use crate::identity::PeerId;
use crate::network::NetworkChanges;
use crate::session::{OpenError, ServiceStream, Session};

use super::addr::PeerAddr;
use super::error::{OnSession, OnSessionError};
use super::{Node, dial};

impl Node {
    /// Tells when the network changes: for protocols that wait to try something again
    /// ([`Backoff::with_network`](crate::session::Backoff::with_network)).
    #[must_use]
    pub fn network(&self) -> NetworkChanges {
        self.core.config.stack.network.clone()
    }

    /// Opens something on the session with the peer of an address, for a protocol: on the one there is or a new one; again on
    /// another one, where `open` says that the session was over, or that the peer wants to have been dialled
    /// ([`OnSession::mended_by`]). Gives the session as well.
    ///
    /// # Errors
    /// That there is no session, or what came of the last attempt.
    ///
    /// # Cancel safety
    /// As `open` is.
    pub async fn on_session<T, E: OnSession>(
        &self,
        address: &PeerAddr,
        open: impl Fn(&Session) -> BoxFuture<'static, Result<T, E>>,
    ) -> Result<(Session, T), OnSessionError<E>> {
        dial::on_session(&self.core, dial::To::Address(address, None), open).await
    }

    /// As [`open`](Self::open), for a protocol: any service, and the session as well.
    ///
    /// # Errors
    /// As for [`on_session`](Self::on_session).
    ///
    /// # Cancel safety
    /// Dropping the future resets the substream.
    pub async fn open_on_session(
        &self,
        address: &PeerAddr,
        service: &'static str,
    ) -> Result<(Session, ServiceStream), OnSessionError<OpenError>> {
        self.on_session(address, opens(service)).await
    }

    /// The same, because of another peer; see [`session_for`](Self::session_for).
    #[cfg(feature = "mesh")]
    pub(crate) async fn open_on_session_for(
        &self,
        payer: Option<PeerId>,
        address: &PeerAddr,
        service: &'static str,
    ) -> Result<(Session, ServiceStream), OnSessionError<OpenError>> {
        let payer = payer.map(|payer| self.holder(payer));
        let to = dial::To::Address(address, payer.as_ref());
        dial::on_session(&self.core, to, opens(service)).await
    }
}

/// Opens a service.
fn opens(
    service: &'static str,
) -> impl Fn(&Session) -> BoxFuture<'static, Result<ServiceStream, OpenError>> {
    move |session| {
        let session = session.clone();
        Box::pin(async move { session.open(service).await })
    }
}
