//! The peers that we know, in a text file that a person can read and edit.
//!
//! | file | holds |
//! |---|---|
//! | `entry.rs` | one peer, one line: reading and writing it |
//! | `document.rs` | all lines, kept as they were written |
//! | `store.rs` | the file: mode, lock, replacement in one step |

mod document;
mod entry;
mod store;

pub use document::{DamagedLine, EditError, KnownPeers};
pub use entry::{EntryError, KnownPeer, Origin, Previous, place_of};
pub use store::{KnownPeersError, KnownPeersFile, KnownPeersProblem};

#[cfg(test)]
mod tests;
