//! What tests of streams share: the conformance suite that every stream type of cepa passes, and streams
//! that cut, delay and break in a way that a seed repeats.
//!
//! - [`check_streams`] takes a factory of connected pairs and runs every check on fresh ones, in both
//!   orientations;
//! - [`Chopped`] cuts reads and writes to given or random sizes and says "pending" without need, which
//!   finds whoever believes that a read fills its buffer or that a write takes all;
//! - [`Faulty`] ends, fails or stalls a stream after an exact number of bytes;
//! - [`Line`] is one direction of a noisy serial line, time being an argument, and [`Medium`] both, each on wires
//!   of its own, or on the same, where what both ends send collides; [`cable`] and [`bus`] join two streams by
//!   them, in tokio's time, and [`plug`] gives each end a pty;
//! - [`CuttingProxy`] is a TCP proxy on loopback that cuts what it carries, or swallows it;
//! - [`Rng`], [`fill`] and [`verify`]: bytes that are random, but known by their position.
//!
//! Nothing here panics: a check returns what it found, so that it can run anywhere.

mod cable;
mod chopped;
mod conformance;
mod faults;
mod line;
mod medium;
mod pattern;
mod plug;
mod proxy;

pub use cable::{CableEnd, CableWatch, bus, cable};
pub use chopped::{Chopped, Cuts};
pub use conformance::{Failure, Options, check_streams};
pub use faults::{Fault, Faulty};
pub use line::{Line, LineSettings, Noise};
pub use medium::Medium;
pub use pattern::{Rng, fill, verify};
pub use plug::plug;
pub use proxy::{CuttingProxy, Harm, HarmAfter, Harmed, RandomHarm, Way};
