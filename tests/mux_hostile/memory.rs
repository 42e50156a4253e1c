//! What the process has allocated, counted by the allocator of this test program.

use std::time::Duration;

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;

/// Bytes allocated since a moment; to be used under [`super::alone`].
pub(crate) struct Since {
    before: usize,
}

impl Since {
    pub(crate) fn now() -> Self {
        settle();
        ALLOCATED.reset_peak_usage();
        Self {
            before: ALLOCATED.current_usage(),
        }
    }

    /// The same, not counting what the attacker itself needs.
    pub(crate) fn without(self, attacker: usize) -> Self {
        Self {
            before: self.before + attacker,
        }
    }

    /// The most that was held at once.
    pub(crate) fn peak(&self) -> usize {
        ALLOCATED.peak_usage().saturating_sub(self.before)
    }

    /// What is held.
    pub(crate) fn held(&self) -> usize {
        ALLOCATED.current_usage().saturating_sub(self.before)
    }
}

/// Waits until what the test before this one had is given back: the threads of its runtime end a moment after it.
fn settle() {
    let (mut before, mut same) = (ALLOCATED.current_usage(), 0);
    for _ in 0..400 {
        std::thread::sleep(Duration::from_millis(5));
        let now = ALLOCATED.current_usage();
        // On a busy machine such a thread may sleep in between.
        same = if now == before { same + 1 } else { 0 };
        if same == 20 {
            return;
        }
        before = now;
    }
}

#[test]
fn what_is_allocated_is_counted() {
    let _alone = super::alone();
    let since = Since::now();
    let block = vec![1u8; MIB];
    assert!((MIB..MIB + 64 * KIB).contains(&since.held()));
    drop(block);
    assert!(since.held() < 64 * KIB);
    assert!(since.peak() >= MIB);
}
