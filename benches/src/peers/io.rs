//! What every peer's streams are to a workload.

use cepa::ByteStream;
use tokio::sync::mpsc;

/// A byte stream of any peer.
pub(crate) type Io = Box<dyn ByteStream>;

/// Streams that were accepted and wait.
pub(super) type Queue = mpsc::Receiver<Io>;

/// How many may wait: more than any workload opens.
pub(super) const QUEUE: usize = 32 << 10;
