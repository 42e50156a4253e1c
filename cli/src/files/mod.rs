//! Files between peers: what `cepa cp` and a service `files:DIR` say to each other. docs/PROTOCOL.md has the bytes.
//!
//! ```text
//! wire         messages as bytes
//! engine       which may follow which; no IO
//! line         messages over a substream, for a thread
//! tree         files below one folder, and nothing outside of it
//! partial      a file that is on its way
//! holders      who writes which
//! sender       goes through what is to be sent
//! receiver     puts what comes where it belongs
//! destination  where that is, by the rules of cp
//! served       the service
//! report       what is told meanwhile
//! ```

pub(crate) mod destination;
pub(crate) mod engine;
mod holders;
pub(crate) mod line;
mod partial;
pub(crate) mod receiver;
pub(crate) mod report;
pub(crate) mod sender;
pub(crate) mod served;
pub(crate) mod tree;
pub(crate) mod wire;

#[cfg(test)]
mod tests;
