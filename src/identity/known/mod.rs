//! The peers that we know, in a text file that a person can read and edit.
//!
//! | file | holds |
//! |---|---|
//! | `entry.rs` | one peer, one line: reading and writing it |
//! | `document.rs` | all lines, kept as they were written |
//! | `store.rs` | the file: mode, lock, replacement in one step |
//! | `policy.rs` | trust by that file, first contact, and following a peer to its next key |

mod document;
mod entry;
mod policy;
mod store;

pub use document::{DamagedLine, EditError, KnownPeers};
pub use entry::{EntryError, KnownPeer, Origin, Previous, place_of};
pub use policy::{FollowError, Learned, TrustKnown};
pub use store::{KnownPeersError, KnownPeersFile, KnownPeersProblem};

#[cfg(test)]
mod tests;
