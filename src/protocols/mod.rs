//! What peers do with each other beside plain services: protocols, each added to a [`Node`](crate::node::Node) by whoever wants it.
//!
//! | module | what | feature |
//! | --- | --- | --- |
//! | [`pairing`] | two people bring their machines together by a code | - |
//! | [`directory`] | which services a peer may open | - |
//! | [`forward`] | a service of another peer, offered as one's own | - |
//! | [`sharing`] | several programs of one user on one session | - |
//! | [`relay`] | reaching a peer that nobody can connect to | `mesh` |
//! | [`direct`] | paths without the relay, through NATs | `nat` |
//! | [`introduction`] | references to services that peers give each other | `mesh` |
//! | [`ticket`] | a text that gives whoever uses it first some services of a peer | `mesh` |
//! | [`code`] | a few words in the place of a ticket, by a relay that both ends know | `mesh` |
//! | [`membrane`] | forwarders that wrap the references that pass | `mesh` |
//! | [`sealed`] | messages that a third peer carries and can't read | `sealed` |
// What a feature leaves out can't be linked to.
#![cfg_attr(
    not(all(feature = "mesh", feature = "nat", feature = "sealed")),
    allow(rustdoc::broken_intra_doc_links)
)]

#[cfg(feature = "mesh")]
pub mod code;
mod copy;
#[cfg(test)]
mod copy_tests;
#[cfg(feature = "nat")]
pub mod direct;
pub mod directory;
#[cfg(any(feature = "mesh", feature = "sealed"))]
mod fair;
pub mod forward;
#[cfg(feature = "mesh")]
pub mod introduction;
#[cfg(feature = "mesh")]
pub mod membrane;
pub mod pairing;
mod places;
mod pool;
#[cfg(feature = "mesh")]
pub mod relay;
#[cfg(feature = "sealed")]
pub mod sealed;
pub mod sharing;
#[cfg(any(feature = "mesh", feature = "sealed"))]
mod signed;
#[cfg(feature = "mesh")]
pub mod ticket;

#[cfg(any(feature = "mesh", feature = "sealed"))]
pub use crate::wire::MessageError;

/// For the fuzz target.
#[cfg(all(feature = "mesh", feature = "sealed", any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    code::fuzz(bytes);
    #[cfg(feature = "nat")]
    direct::fuzz(bytes);
    introduction::fuzz(bytes);
    membrane::fuzz(bytes);
    relay::fuzz(bytes);
    sealed::fuzz(bytes);
    ticket::fuzz(bytes);
}
