//! Where a peer is, for addresses that do not say it.
//!
//! An address may have no hints (`cepa://PEERID/SERVICE`). A node that has a [`Resolver`]
//! ([`NodeConfig::resolver`](super::NodeConfig::resolver)) asks it then. What it answers are hints like those of an
//! address: nobody has to vouch for them, since whoever answers there must prove to be the peer.
//!
//! | file | holds |
//! | --- | --- |
//! | `resolver.rs` | the trait |
//! | `in_order.rs` | several as one |
//! | `known.rs` | the places in the known-peers file |
//! | `mdns.rs` | peers that announce themselves on the local network, with the feature `mdns` |

mod in_order;
mod known;
#[cfg(feature = "mdns")]
mod mdns;
mod resolver;

pub use in_order::InOrder;
pub use known::KnownPlaces;
#[cfg(feature = "mdns")]
pub use mdns::{Announcement, Mdns, MdnsConfig};
pub use resolver::{ResolveError, Resolver};
