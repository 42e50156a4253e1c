//! Whom the commands take a peer for: the policies behind `--expect`, `--trust` and `--allow`.
//!
//! Told nothing, they take nobody: an empty [`Pinned`] answers that the peer is unknown, and the
//! message for that carries the command that would let it in.

use std::sync::Arc;

use cepa::identity::{AcceptAny, Pinned, TrustPolicy};

use crate::args::{Trust, Who};

/// What a dialling command was told about the other end.
pub(crate) fn of_dialler(args: &Trust) -> Arc<dyn TrustPolicy> {
    match (args.expect, args.trust) {
        (_, Some(_any)) => Arc::new(AcceptAny),
        (expected, None) => Arc::new(Pinned::new(expected)),
    }
}

/// What a server was told with `--allow`.
pub(crate) fn of_server(allow: &[Who]) -> Arc<dyn TrustPolicy> {
    let mut peers = Vec::new();
    for who in allow {
        match who {
            Who::Any => return Arc::new(AcceptAny),
            Who::Peer(id) => peers.push(*id),
        }
    }
    Arc::new(Pinned::new(peers))
}
