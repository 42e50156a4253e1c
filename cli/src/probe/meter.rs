//! What one end has seen of test data: the counters behind a report, of one direction.

// Estimates are floating point numbers.
#![allow(clippy::cast_precision_loss)]

use std::time::{Duration, Instant};

use super::wire::{BLOCK, Fate, Item};

/// Bits of a block that are compared.
const COMPARED: u64 = 256;
/// Bits of a block that must be whole for it to be counted: its mark, its number and its end.
const MARKS: f64 = 48.0;
/// Bytes that a frame of the link has beside its payload.
const FRAME: f64 = 16.0;

/// Counters of one direction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Meter {
    pub(crate) fates: [Fate; 256],
    /// Blocks sent, as far as it is known, and seen.
    pub(crate) sent: u64,
    pub(crate) seen: u64,
    pub(crate) flips: u64,
    /// From the first block to the last.
    pub(crate) span: Duration,
    first: Option<Instant>,
    /// The number after the last one seen; one that comes twice is not counted twice.
    next: u32,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            fates: [Fate::Unknown; 256],
            sent: 0,
            seen: 0,
            flips: 0,
            span: Duration::ZERO,
            first: None,
            next: 0,
        }
    }
}

impl Meter {
    pub(crate) fn take(&mut self, now: Instant, item: &Item) {
        match item {
            Item::Cell(value, fate) => {
                // Once through is through; noise cannot make a value clean.
                if let Some(known) = self.fates.get_mut(usize::from(*value))
                    && *known != Fate::Clean
                {
                    *known = *fate;
                }
            }
            Item::Block(number, flips) if u32::from(*number) >= self.next => {
                let first = *self.first.get_or_insert(now);
                self.span = now.saturating_duration_since(first);
                self.next = u32::from(*number) + 1;
                self.seen += 1;
                self.flips += u64::from(*flips);
            }
            Item::Line(_) | Item::Block(..) => {}
        }
    }

    /// Bits that were compared.
    pub(crate) fn bits(&self) -> u64 {
        self.seen * COMPARED
    }

    /// Bytes a second, where enough came to tell.
    pub(crate) fn rate(&self) -> Option<f64> {
        let seconds = self.span.as_secs_f64();
        // All blocks but the first came within the span.
        (self.sent > 8 && seconds > 0.0).then(|| ((self.sent - 1) * BLOCK as u64) as f64 / seconds)
    }

    /// The chance that a bit flips.
    pub(crate) fn bit_errors(&self) -> f64 {
        self.flips as f64 / (self.bits().max(1)) as f64
    }

    /// The chance that a byte is lost or joined by another: what blocks are missing, less those whose marks
    /// a flipped bit has spoilt.
    pub(crate) fn lost_bytes(&self) -> f64 {
        let whole = (1.0 - self.bit_errors()).powf(MARKS);
        let arrived = self.seen as f64 / (self.sent.max(1)) as f64;
        let kept = (arrived / whole).clamp(0.0, 1.0);
        let lost = 1.0 - kept.powf(1.0 / BLOCK as f64);
        // Fewer than three are no measure.
        if self.sent.saturating_sub(self.seen) < 3 {
            0.0
        } else {
            lost
        }
    }

    /// The payload of a frame that the most of gets through: √(overhead / loss a byte).
    pub(crate) fn best_frame(&self) -> u64 {
        let loss = 1.0 - (1.0 - self.bit_errors()).powi(8) * (1.0 - self.lost_bytes());
        if loss <= 0.0 {
            return 1024;
        }
        let best = (FRAME / loss).sqrt().clamp(24.0, 1024.0);
        // Between 24 and 1,024.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        {
            best as u64
        }
    }

    pub(crate) fn values(&self, fate: Fate) -> Vec<u8> {
        (0..=u8::MAX)
            .zip(self.fates)
            .filter(|(_, other)| *other == fate)
            .map(|(value, _)| value)
            .collect()
    }
}
