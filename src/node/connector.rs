//! A peer's service as what HTTP clients call a connector: each connection that hyper, tonic or another client of
//! [`tower_service`] asks for is a substream of its own.
//!
//! Who answers is told by the address of the peer, whatever name or port a URI has; so the request's own name, which HTTP
//! wants, is only a name. TLS is below: the URI is written with `http`, not `https`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::session::ServiceStream;

use super::addr::PeerAddr;
use super::core::Core;
use super::dial;
use super::error::ReachError;

/// Opens the service of an address for each connection that is asked for: [`Node::connector`](super::Node::connector).
#[derive(Clone)]
pub struct Connector {
    core: Arc<Core>,
    /// What keeps the node alive, if the handle did that this is of.
    _owner: Option<Arc<dyn Any + Send + Sync>>,
    to: PeerAddr,
}

impl Connector {
    pub(super) fn new(
        core: Arc<Core>,
        owner: Option<Arc<dyn Any + Send + Sync>>,
        to: PeerAddr,
    ) -> Self {
        Self {
            core,
            _owner: owner,
            to,
        }
    }
}

/// Of any request: where it leads is known already. Errors are those of [`Node::open`](super::Node::open), and dropping the
/// future resets the substream. It is always ready; how many connections there are is up to the client that asks.
impl<R> Service<R> for Connector {
    type Response = TokioIo<ServiceStream>;
    type Error = ReachError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ReachError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _for: R) -> Self::Future {
        let (core, to) = (Arc::clone(&self.core), self.to.clone());
        Box::pin(async move { dial::open(&core, &to).await.map(TokioIo::new) })
    }
}

/// What hyper-util's client asks of a connection: there is nothing to tell.
impl Connection for ServiceStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}
