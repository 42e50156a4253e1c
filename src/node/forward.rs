//! The plaintext forwarder: a service of another peer, offered as one of this node.
//!
//! The other end is opened first, so that its refusal can be passed on; then bytes are handed on as a relay does
//! with a circuit (`relay/copy.rs`). Unlike a relay, a forwarder has the bytes themselves: TLS ends here on both sides.

use std::sync::Arc;

use cepa_transports::throttle::{Grant, Policy};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::mux::{StreamTimeouts, Substream};
use crate::onion::Onion;
use crate::relay::{End, copy};
use crate::session::{AcceptError, Incoming, OpenError};

use super::addr::PeerAddr;
use super::core::Core;
use super::dial;
use super::error::ReachError;

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

/// One substream, to its end.
pub(super) async fn forward(
    core: &Arc<Core>,
    incoming: Incoming,
    to: &PeerAddr,
) -> Result<(), ForwardError> {
    let Some(_place) = place(core) else {
        return Err(refuse(incoming, ForwardError::Full).await);
    };
    if incoming.wants_inner_tls() {
        // Refuses, and says that there is none.
        return incoming
            .accept()
            .await
            .map(drop)
            .map_err(ForwardError::Accept);
    }
    let far = match dial::open(core, to).await {
        Ok(far) => far,
        Err(error) => return Err(refuse(incoming, error.into()).await),
    };
    let near = incoming.accept().await.map_err(ForwardError::Accept)?;
    join(near, far).await;
    Ok(())
}

/// A place among what is forwarded at once.
pub(super) fn place(core: &Core) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&core.forwards).try_acquire_owned().ok()
}

async fn refuse(incoming: Incoming, error: ForwardError) -> ForwardError {
    let _ = incoming.refuse(&told(&error)).await;
    error
}

/// What the peer that asked is told: what the service behind says, and of the way there nothing.
fn told(error: &ForwardError) -> String {
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
    copy(End::new(near), End::new(far), Arc::new(Unlimited), |_| ()).await;
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
