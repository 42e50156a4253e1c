//! The plaintext forwarder: a service of another peer, offered as one of this node.
//!
//! The other end is opened first, so that its refusal can be passed on; then bytes are handed on as a relay does
//! with a circuit (`copy.rs`). Unlike a relay, a forwarder has the bytes themselves: TLS ends here on both sides.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cepa_transports::throttle::{Grant, Policy};
use tokio::time::Instant;

use crate::identity::PeerId;
use crate::mux::{StreamTimeouts, Substream};
use crate::node::{Access, Call, DialError, Node, PeerAddr, ReachError, Refused};
use crate::onion::Onion;
use crate::session::{AcceptError, OpenError, ServiceNameError};
use crate::tls::Peer;

use super::copy::{End, copy};

/// Substreams that are forwarded at once, unless set otherwise. Each is one on either side, and has two windows; and
/// forwarders that lead in a ring come to an end here. A quarter of them is for one peer.
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
        let _place = match self.places.take(call.peer()) {
            Ok(place) => place,
            Err(none) => return Err(refuse(call, none.into()).await),
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

/// Places for what is forwarded at once. One peer has a quarter of them at most, with all who have replaced the same key.
#[derive(Clone, Debug)]
pub(super) struct Places {
    most: usize,
    of_one: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// By each key of a peer, present and former; none has nothing.
    peers: HashMap<PeerId, usize>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            of_one: (most / 4).max(1),
            held: Arc::default(),
        }
    }

    /// A place for one substream of a peer, given back when dropped.
    pub(super) fn take(&self, peer: &Peer) -> Result<Place, NoPlace> {
        let ids = std::iter::once(peer.id()).chain(peer.former_ids().iter().copied());
        let ids: Vec<PeerId> = ids.collect();
        let mut held = lock(&self.held);
        if held.all >= self.most {
            return Err(NoPlace::All);
        }
        let has_all = |id| held.peers.get(id).is_some_and(|n| *n >= self.of_one);
        if ids.iter().any(has_all) {
            return Err(NoPlace::OfPeer);
        }
        held.all += 1;
        for id in &ids {
            *held.peers.entry(*id).or_default() += 1;
        }
        drop(held);
        let held = Arc::clone(&self.held);
        Ok(Place { held, ids })
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoPlace {
    All,
    OfPeer,
}

impl From<NoPlace> for ForwardError {
    fn from(none: NoPlace) -> Self {
        match none {
            NoPlace::All => Self::Full,
            NoPlace::OfPeer => Self::Share,
        }
    }
}

/// One place.
#[derive(Debug)]
pub(super) struct Place {
    held: Arc<Mutex<Held>>,
    ids: Vec<PeerId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        held.all = held.all.saturating_sub(1);
        for id in &self.ids {
            if let Some(n) = held.peers.get_mut(id) {
                *n = n.saturating_sub(1);
                if *n == 0 {
                    held.peers.remove(id);
                }
            }
        }
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    // Each change is whole before anything can panic.
    held.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// As many as one peer may have are forwarded for this one.
    #[error("as many substreams of it are forwarded at once as one peer may have")]
    Share,
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
pub(super) fn for_peer(error: &ForwardError) -> String {
    match error {
        ForwardError::Full => "too much is forwarded here at once: try later".into(),
        ForwardError::Share => {
            "too much is forwarded here at once for one peer: try later, or end something".into()
        }
        ForwardError::Reach(ReachError::Open { error, .. }) => behind(error),
        ForwardError::Reach(ReachError::Dial(error)) => away(error).into(),
        ForwardError::Accept(_) => "it was not accepted".into(),
    }
}

/// Why the peer behind is not reached, without where it is.
pub(super) fn away(error: &DialError) -> &'static str {
    if error.is_refused() {
        "the peer behind this service does not let this one in: ask who runs this one to have it allowed there"
    } else if error.is_transient() {
        "the peer behind this service is not reached: try later"
    } else {
        "the way to the peer behind this service can't be used: ask who runs this one to mend it"
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
        OpenError::DialInstead { .. } => {
            "the service behind this one is not open to this peer: ask who runs this one".into()
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
