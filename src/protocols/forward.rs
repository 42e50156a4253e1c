//! The plaintext forwarder: a service of another peer, offered as one of this node.
//!
//! The other end is opened first, so that its refusal can be passed on; then bytes are handed on as a relay does
//! with a circuit (`copy.rs`). Unlike a relay, a forwarder has the bytes themselves: TLS ends here on both sides.

use std::sync::Arc;
use std::time::Duration;

use cepa_transports::throttle::{Grant, Policy};
use tokio::time::Instant;

use crate::mux::{StreamTimeouts, Substream};
use crate::node::{Access, Call, DialError, Node, PeerAddr, ReachError, Refused};
use crate::onion::Onion;
use crate::session::{AcceptError, OpenError, ServiceNameError};

use super::copy::{End, TAKEN_BACK, copy};
use super::places::{Place, Places};
use super::pool::{Denied, Holder, Rules};

/// Substreams that are forwarded at once, unless set otherwise. Each is one on either side, and has two windows; and
/// forwarders that lead in a ring come to an end here. A quarter of them is for one peer, and a quarter is for peers that are known
/// by name.
pub const DEFAULT_PLACES: usize = 64;

/// While places are short, one on which nothing has moved for so long goes to a peer that has none: code 11.
const SILENT: Duration = Duration::from_secs(60);

/// And one that has lasted so long, of a peer that has several.
const MIN_LIFE: Duration = Duration::from_secs(5 * 60);

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
            places: self::places(places),
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
        let place = match place(&self.places, &call) {
            Ok(place) => place,
            Err(denied) => return Err(refuse(call, denied.into()).await),
        };
        if call.wants_inner_tls() {
            // Refuses, and says that there is none.
            return call.accept().await.map(drop).map_err(ForwardError::Accept);
        }
        let opened = tokio::select! {
            opened = self.node.open(to) => opened.map_err(ForwardError::Reach),
            () = place.taken_back() => Err(ForwardError::Full),
        };
        let far = match opened {
            Ok(far) => far,
            Err(error) => return Err(refuse(call, error).await),
        };
        let near = call.accept().await.map_err(ForwardError::Accept)?;
        join(near, far, &place).await;
        Ok(())
    }
}

/// Places for what is forwarded at once: how they are shared among peers, `pool.rs` says.
pub(super) fn places(all: usize) -> Places {
    Places::new(Rules {
        all,
        peer: (all / 4).max(1),
        host: all.div_ceil(2),
        silent: SILENT,
        min_life: MIN_LIFE,
        takes_last: false,
    })
}

/// A place for one call.
pub(super) fn place(places: &Places, call: &Call) -> Result<Place, Denied> {
    places.take(Holder::of(call.peer(), &call.context()))
}

impl From<Denied> for ForwardError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Peer(_) | Denied::Scarce => Self::Share,
            Denied::Host(_) => Self::Host,
            Denied::Full => Self::Full,
        }
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
    /// As many as one peer may have are forwarded for this one.
    #[error("too many substreams of one peer are forwarded at once")]
    Share,
    /// As many as strangers of one host may have are forwarded for those of this one.
    #[error("too many substreams of strangers from one host are forwarded at once")]
    Host,
    /// The service behind it was not opened.
    #[error("{0}")]
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
        ForwardError::Host => {
            "too much is forwarded here at once for one host: try later, or have your id allowed"
                .into()
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
    } else if error.is_retryable() {
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
async fn join(near: Onion<Substream>, far: Onion<Substream>, place: &Place) {
    // Nothing was ever pushed onto them.
    let (Ok(near), Ok(far)) = (near.into_wire(), far.into_wire()) else {
        return;
    };
    let [mut near, mut far] = [near, far];
    for (stream, _) in [&mut near, &mut far] {
        // How long the two may be silent is for them to say, as long as nobody else wants the place.
        stream.set_timeouts(StreamTimeouts::NONE);
    }
    let (near, far) = (End::new(near), End::new(far));
    place.used();
    let over = async {
        place.taken_back().await;
        TAKEN_BACK
    };
    let _ = copy(near, far, Arc::new(Unlimited), over, |_| place.used()).await;
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
