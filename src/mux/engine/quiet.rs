//! What a session gives back when bulk has come and nothing came for a second: buffers that bulk has made large, here and in the layers below, and what queues
//! keep beyond what is in them.
//!
//! A stream that nobody reads keeps parts of read chunks, which keep the whole chunks; while bulk moves, copies would cost more
//! than that is worth. A second later they are made. Windows are not taken back: what the peer was granted it may use.

use std::time::{Duration, Instant};

use super::Engine;

/// How long nothing has come.
const QUIET: Duration = Duration::from_secs(1);

/// After less than so many bytes there is nothing to give back.
const BURST: u64 = 8 << 10;

impl Engine {
    /// Whether memory was given back since this was last asked: whoever reads the byte stream is to do the same.
    pub(crate) fn take_quiet(&mut self) -> bool {
        std::mem::take(&mut self.quiet)
    }

    /// When it is time to give memory back.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        (self.came >= BURST).then(|| self.received_at + QUIET)
    }

    pub(super) fn look_for_quiet(&mut self, now: Instant) {
        if self.quiet_at().is_none_or(|at| now < at) {
            return;
        }
        self.came = 0;
        self.quiet = true;
        for (_, entry) in self.store.iter_mut() {
            let before = entry.recv.held();
            entry.recv.compact();
            self.memory.change(before, entry.recv.held());
            entry.send.compact();
        }
        self.memory.eased(&mut self.wakes);
    }
}
