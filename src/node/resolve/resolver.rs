//! What a resolver is, and why one does not answer.

use std::error::Error;
use std::fmt;

use cepa_transports::text::quoted;
use futures::future::BoxFuture;

use crate::identity::{KnownPeersError, PeerId};
use crate::node::addr::Hint;

/// Says where a peer may be found.
///
/// Any number of calls may be under way at once. A call may be slow, and none may block; how long it takes
/// at most is the resolver's own business, and a dial waits for it.
///
/// The hints are followed as they are. A resolver that has them from somebody else than this node's user must
/// give none that would start a command or open a device: [`Hint::is_network`].
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The hints to `peer`, in the order in which to try; none where it is not known.
    ///
    /// # Errors
    /// When it could not be found out whether the peer is known.
    ///
    /// # Cancel safety
    /// Dropping the future gives the question up, and nothing else.
    fn resolve(&self, peer: PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>>;
}

/// Why it is not known where a peer is. Each text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The known-peers file can't be read.
    #[error("cannot read the known peers: {0}")]
    Known(#[source] KnownPeersError),
    /// The known-peers file has no place of the peer that can be dialled.
    #[error(
        "the known peers: {}, where {name} is, can't be dialled: {reason}",
        quoted(place)
    )]
    Place {
        /// What the peer is called there.
        name: String,
        /// What stands there.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The local network can't be asked.
    #[cfg(feature = "mdns")]
    #[error("mDNS failed: {0}; give the peer's address instead")]
    Mdns(#[source] mdns_sd::Error),
    /// What another resolver says.
    #[error("{0}")]
    Other(#[source] Box<dyn Error + Send + Sync>),
}
