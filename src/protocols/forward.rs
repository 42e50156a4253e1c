//! The plaintext forwarder: a service of another peer, offered as one of this node.
//!
//! The other end is opened first, so that its refusal can be passed on; then bytes are handed on as a relay does
//! with a circuit (`copy.rs`). Unlike a relay, a forwarder has the bytes themselves: TLS ends here on both sides.

use std::future::pending;
use std::sync::Arc;

use cepa_transports::throttle::{Grant, Policy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::mux::{StreamTimeouts, Substream};
use crate::node::{Access, Call, Node, PeerAddr, ReachError, Refused};
use crate::onion::Onion;
use crate::session::{AcceptError, OpenError, ServiceNameError};

use super::copy::{End, copy};

/// Substreams that are forwarded at once, unless set otherwise. Each is one on either side, and has two windows; and
/// forwarders that lead in a ring come to an end here.
pub const DEFAULT_PLACES: usize = 64;

/// Forwards substreams from its node to services of other peers. Clones share their places.
#[derive(Clone, Debug)]
pub struct Forwarder {
    node: Node,
    places: Places,
}

impl Forwarder {
    /// For this node, with [`DEFAULT_PLACES`].
    #[must_use]
    pub fn new(node: &Node) -> Self {
        Self::with_places(node, DEFAULT_PLACES)
    }

    /// The same, for so many substreams at once.
    #[must_use]
    pub fn with_places(node: &Node, places: usize) -> Self {
        Self {
            node: node.handle(),
            places: Places::new(places),
        }
    }

    /// Offers a service of another peer as one of this node: a plaintext forwarder. It sees and can change
    /// every byte, and the other peer sees this node and not its caller. Half close, resets and back-pressure pass from end
    /// to end.
    ///
    /// # Errors
    /// The name can't be one of a service.
    pub fn offer(&self, name: &str, access: Access, to: PeerAddr) -> Result<(), ServiceNameError> {
        let (this, to) = (self.clone(), Arc::new(to));
        self.node.serve(name, access, move |call: Call| {
            let (this, to) = (this.clone(), Arc::clone(&to));
            async move {
                let (peer, service) = (call.peer().id(), call.service().to_owned());
                if let Err(error) = this.forward(call, &to).await {
                    let reason = Refused::Other(error.to_string());
                    this.node.emit_refused(peer, service, reason);
                }
            }
        })
    }

    /// Forwards one substream to a service of another peer, to its end.
    ///
    /// # Errors
    /// Why it was refused. The peer that asked has been given a reason, without what concerns this node alone.
    ///
    /// # Cancel safety
    /// Dropping the future resets both substreams.
    pub async fn forward(&self, call: Call, to: &PeerAddr) -> Result<(), ForwardError> {
        let Some(_place) = self.places.take() else {
            return Err(refuse(call, ForwardError::Full).await);
        };
        if call.wants_inner_tls() {
            // Refuses, and says that there is none.
            return call.accept().await.map(drop).map_err(ForwardError::Accept);
        }
        let far = match self.node.open(to).await {
            Ok(far) => far,
            Err(error) => return Err(refuse(call, error.into()).await),
        };
        let near = call.accept().await.map_err(ForwardError::Accept)?;
        join(near, far).await;
        Ok(())
    }
}

/// Places for what is forwarded at once.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))))
    }

    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// Begins a refusal that is passed on.
const BEHIND: &str = "refused behind a forwarder";

/// Why a substream was not forwarded. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// As many as may are forwarded already.
    #[error("too many substreams are forwarded at once; is a forwarder forwarding to itself?")]
    Full,
    /// The service behind it was not opened.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The peer that asked is gone, or wants TLS inside, which would end here.
    #[error("not forwarded: {0}")]
    Accept(#[source] AcceptError),
}

async fn refuse(call: Call, error: ForwardError) -> ForwardError {
    let _ = call.refuse(&for_peer(&error)).await;
    error
}

/// What the peer that asked reads: what the service behind says, and of the way there nothing.
fn for_peer(error: &ForwardError) -> String {
    match error {
        ForwardError::Full => "too much is forwarded here at once: try later".into(),
        ForwardError::Reach(ReachError::Open { error, .. }) => behind(error),
        _ => "the peer behind this service is not reached: try later".into(),
    }
}

/// A refusal that is passed on.
pub(super) fn behind(error: &OpenError) -> String {
    match error {
        // Through several of them it says so once, so that the reason is not cut.
        OpenError::Refused { reason, .. } if reason.starts_with(BEHIND) => reason.clone(),
        OpenError::Refused { reason, .. } => format!("{BEHIND}: {reason}"),
        OpenError::InnerTlsRequired { .. } => {
            "the service behind this one wants TLS inside, which a forwarder can't pass on".into()
        }
        _ => "the service behind this one does not open: try later".into(),
    }
}

/// Hands bytes on, both ways, until both have ended.
async fn join(near: Onion<Substream>, far: Onion<Substream>) {
    // Nothing was ever pushed onto them.
    let (Ok(near), Ok(far)) = (near.into_wire(), far.into_wire()) else {
        return;
    };
    let [mut near, mut far] = [near, far];
    for (stream, _) in [&mut near, &mut far] {
        // How long the two may be silent is for them to say.
        stream.set_timeouts(StreamTimeouts::NONE);
    }
    let (near, far) = (End::new(near), End::new(far));
    copy(near, far, Arc::new(Unlimited), pending(), |_| ()).await;
}

/// No rate but that of the two ends.
struct Unlimited;

impl Policy for Unlimited {
    fn reserve(&self, want: usize, now: Instant) -> Grant {
        Grant {
            bytes: want,
            at: now,
        }
    }
}
