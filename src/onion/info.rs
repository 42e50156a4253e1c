//! What is known of one layer: who is at its other end, what was agreed, and what passed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cepa_transports::Side;

use crate::tls::Peer;

/// One layer of an onion. A clone goes on counting, wherever the onion went, so the figures can
/// still be read when it has been moved into a driver.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    pub(super) side: Side,
    pub(super) peer: Peer,
    pub(super) counters: Counters,
}

impl LayerInfo {
    /// Our TLS role in this layer.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The other end of this layer, and what was agreed with it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Bytes that have passed this layer so far.
    pub fn bytes(&self) -> LayerBytes {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all = &self.counters.0;
        LayerBytes {
            plain_in: of(&all.plain_in),
            plain_out: of(&all.plain_out),
            sealed_in: of(&all.sealed_in),
            sealed_out: of(&all.sealed_out),
        }
    }
}

/// Bytes at one layer: above it (plain) and below it (sealed, handshake included).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerBytes {
    /// Plaintext bytes received.
    pub plain_in: u64,
    /// Plaintext bytes sent.
    pub plain_out: u64,
    /// Bytes of TLS records received, headers, handshake and alerts included.
    pub sealed_in: u64,
    /// Bytes of TLS records sent, headers, handshake and alerts included.
    pub sealed_out: u64,
}

#[derive(Debug, Default)]
struct Cells {
    plain_in: AtomicU64,
    plain_out: AtomicU64,
    sealed_in: AtomicU64,
    sealed_out: AtomicU64,
}

/// The shared counters of one layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(Arc<Cells>);

impl Counters {
    pub(super) fn inward(&self, sealed: usize, plain: usize) {
        add(&self.0.sealed_in, sealed);
        add(&self.0.plain_in, plain);
    }

    pub(super) fn outward_plain(&self, plain: usize) {
        add(&self.0.plain_out, plain);
    }

    pub(super) fn outward_sealed(&self, sealed: usize) {
        add(&self.0.sealed_out, sealed);
    }
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
