//! The connections of a session that outlives them: over what it runs, what happens to them, and another one by hand.

use std::sync::Arc;

use cepa_transports::{Endpoint, Layer, Stream};
use futures::future::BoxFuture;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::Side;
use crate::observe;
use crate::stack::{self, ConnectError, Lasting, PathChange, PathInfo, PathStats, StackConfig};

use super::runtime::in_runtime;
use super::{Session, resuming};

/// What happens to the connections of a session, from the moment on at which this was made.
#[derive(Debug)]
pub struct PathChanges {
    /// None for a session that ends with its connection.
    changes: Option<broadcast::Receiver<PathChange>>,
    session: Option<Arc<Lasting>>,
}

impl PathChanges {
    /// The next one; none once the session is over. A slow watcher misses the oldest ones, and a connection that was replaced
    /// before its turn came to be reported is left out: the newest is always reported.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<PathChange> {
        let (changes, session) = (self.changes.as_mut()?, self.session.as_ref()?);
        loop {
            tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Ok(change) => return Some(change),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                _ = session.handle.over() => return None,
            }
        }
    }
}

/// Says in a loop how a session is reached at an address.
pub(super) fn redial_at(endpoint: &Endpoint, config: &Arc<StackConfig>) -> stack::Redial {
    let (endpoint, config) = (endpoint.clone(), Arc::clone(config));
    Arc::new(move |lasting: Arc<Lasting>| {
        let (endpoint, config) = (endpoint.clone(), Arc::clone(&config));
        Box::pin(async move { Ok(reach(&lasting, &endpoint, (*config).clone(), true).await?) })
    })
}

/// Dials an address, and takes the session up there.
pub(crate) async fn reach(
    lasting: &Arc<Lasting>,
    endpoint: &Endpoint,
    mut config: StackConfig,
    only_if_lost: bool,
) -> Result<(), ConnectError> {
    let watched = observe::dial(endpoint);
    let gone_on = watched.span().instrument(async {
        let built = Box::pin(stack::dial(endpoint, &mut config)).await?;
        built.meter.join(&lasting.meter);
        resuming::go_on(lasting, built, &config, only_if_lost).await
    });
    let gone_on = gone_on.await;
    watched.ended(endpoint, gone_on.as_ref().err().map(ConnectError::reported));
    gone_on
}

/// The same on a stream that leads to the peer.
pub(crate) async fn reach_on(
    lasting: &Arc<Lasting>,
    stream: Stream,
    layers: &[Layer],
    config: &StackConfig,
    only_if_lost: bool,
) -> Result<(), ConnectError> {
    let never = std::pin::pin!(std::future::pending());
    let built = Box::pin(stack::build(stream, layers, Side::Client, config, never)).await?;
    built.meter.join(&lasting.meter);
    resuming::go_on(lasting, built, config, only_if_lost).await
}

/// The same on a connection on which the peer has proven its key already.
#[cfg(feature = "nat")]
pub(crate) async fn go_on_over(
    lasting: &Arc<Lasting>,
    built: stack::Built,
    config: &StackConfig,
) -> Result<(), ConnectError> {
    built.meter.join(&lasting.meter);
    resuming::go_on(lasting, built, config, false).await
}

impl Session {
    /// Whether the session outlives its connection: both ends had
    /// [`StackConfig::resume`](crate::stack::StackConfig::resume) when it was made.
    #[must_use]
    pub fn outlives_connections(&self) -> bool {
        self.inner.lasting.is_some()
    }

    /// Over what the session runs now; none while its connection is lost and it waits for another one, and when it is over.
    #[must_use]
    pub fn path(&self) -> Option<PathInfo> {
        if self.inner.mux.over().is_some() {
            return None;
        }
        match &self.inner.lasting {
            Some(lasting) => lasting.path(),
            None => Some(self.inner.first.clone()),
        }
    }

    /// Counters of a session that outlives its connections; none of one that does not.
    #[must_use]
    pub fn path_stats(&self) -> Option<PathStats> {
        self.inner.lasting.as_ref().map(|lasting| lasting.stats())
    }

    /// What happens to the session's connections from now on.
    #[must_use]
    pub fn path_changes(&self) -> PathChanges {
        let session = self.inner.lasting.clone();
        PathChanges {
            changes: session.as_ref().map(|it| it.changes()),
            session,
        }
    }

    /// Dials again now, where the connection is lost, and does not wait for the next attempt: for who knows that the network is
    /// back. Nothing where there is a connection.
    pub fn reconnect_now(&self) {
        if let Some(lasting) = &self.inner.lasting
            && lasting.path().is_none()
        {
            lasting.nudge.notify_one();
        }
    }

    /// Goes on over another connection, to an address at which the peer accepts: make before break, so that substreams notice
    /// nothing, or at once where there is no connection at the moment. Either end may do it. The peer is known by its
    /// key, as when the session was made. From now on this address is where the session is dialled again when this connection is
    /// lost; in a session of a [`Node`](crate::node::Node), beside those that the node knows.
    ///
    /// # Errors
    /// Why not; the session is what it was. [`ConnectError::NotKept`] for a session that ends with its connection.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up. Where the peer had taken the connection by then, it is lost, and the session
    /// goes on over another one.
    pub async fn migrate(&self, endpoint: &Endpoint) -> Result<PathInfo, ConnectError> {
        let (lasting, config) = self.kept()?;
        let _turn = lasting.turn.lock().await;
        reach(lasting, endpoint, (**config).clone(), false).await?;
        lasting.set_redial(redial_at(endpoint, config), endpoint);
        lasting.path().ok_or(ConnectError::Over)
    }

    /// The same on a stream that leads to the peer, which accepts a session there
    /// ([`Session::handshake`] as server). `layers` are those of the stack, topmost first; none means `mux+tls`.
    ///
    /// # Errors
    /// As for [`migrate`](Self::migrate).
    ///
    /// # Cancel safety
    /// As for [`migrate`](Self::migrate).
    pub async fn migrate_on(
        &self,
        stream: impl Into<Stream>,
        layers: &[Layer],
    ) -> Result<PathInfo, ConnectError> {
        let (lasting, config) = self.kept()?;
        let _turn = lasting.turn.lock().await;
        reach_on(lasting, stream.into(), layers, config, false).await?;
        lasting.path().ok_or(ConnectError::Over)
    }

    /// Says how this end connects again when the session's connection is lost, where it was made on a stream of the
    /// application's own ([`handshake`](Self::handshake)): `dial` opens the next one, to `endpoint`, whose layers are put on it. A
    /// session that [`dial`](Self::dial) or a node has made knows that by itself. Does nothing for one that ends with its connection.
    pub fn redial_with<F>(&self, endpoint: &Endpoint, dial: F)
    where
        F: Fn() -> BoxFuture<'static, Result<Stream, ConnectError>> + Send + Sync + 'static,
    {
        let (Some(lasting), Some(config)) = (&self.inner.lasting, &self.inner.untuned) else {
            return;
        };
        let config = Arc::new(config.for_endpoint(endpoint));
        let (to, dial) = (endpoint.clone(), Arc::new(dial));
        let redial = Arc::new(move |lasting: Arc<Lasting>| -> BoxFuture<'static, _> {
            let (to, dial) = (to.clone(), Arc::clone(&dial));
            let config = Arc::clone(&config);
            Box::pin(async move {
                let stream = dial().await?;
                reach_on(&lasting, stream, to.layers(), &config, true).await?;
                Ok(())
            })
        });
        lasting.set_redial(redial, endpoint);
    }

    fn kept(&self) -> Result<(&Arc<Lasting>, &Arc<StackConfig>), ConnectError> {
        in_runtime()?;
        let kept = self.inner.lasting.as_ref().zip(self.inner.untuned.as_ref());
        kept.ok_or(ConnectError::NotKept)
    }

    /// What is kept of a session that outlives its connections.
    pub(crate) fn lasting(&self) -> Option<&Arc<Lasting>> {
        self.inner.lasting.as_ref()
    }
}
