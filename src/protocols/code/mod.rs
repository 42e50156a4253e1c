//! Short codes: a few words that a person can say aloud, in the place of a text that has to be pasted.
//!
//! Two peers that know the same relay meet there. One [offers](Offer) something, a ticket for example, and gets a *nameplate*, a small
//! number; it adds two words of its own, and the three are the [code](ShortCode), `7-lusab-badaf`. The other one
//! [fetches](fetch()) with the code. The relay passes four messages between the two: a password-authenticated key exchange (SPAKE2) whose
//! password is the code and whose names are the relay's id, the nameplate and the two roles; a proof of the key by
//! whoever fetches; and, only behind a right one, the other end's proof with what is offered, encrypted under the key.
//!
//! A code is good for one guess. Whoever comes with its nameplate uses it up, with a right code or a wrong one, and both ends enforce that:
//! the relay gives the nameplate to nobody else, and whoever offers answers once. So the relay, which may try as anybody may, has one guess of
//! 2²⁴ as well, and who offered learns that there was one. What it sees besides is who talks to whom, and ciphertext.
//!
//! | file | holds |
//! | --- | --- |
//! | `text.rs` | the code, and its text |
//! | `wire.rs` | the messages |
//! | `pake.rs` | the exchange, without IO |
//! | `ends.rs` | offering and fetching |
//! | `../relay/nameplates.rs` | what the relay does |

mod ends;
mod pake;
mod text;
mod wire;

pub use ends::{CodeError, MAX_OFFERED, Offer, fetch};
pub use text::{CodeTextError, ShortCode};
pub use wire::CodeRefusal;
pub(super) use wire::{Ask, Passed, Wanted};

/// For the fuzz target.
#[cfg(all(feature = "sealed", any(test, feature = "fuzzing")))]
pub(super) fn fuzz(bytes: &[u8]) {
    text::fuzz(bytes);
    wire::fuzz(bytes);
}
