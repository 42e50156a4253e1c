//! Numbers and bytes that a seed repeats.

/// A small random number generator (splitmix64), for tests only.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from `low` to `high`, both included; `low` when they are the wrong way round.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        let span = high.saturating_sub(low).saturating_add(1) as u64;
        // The remainder is below `span`, so it fits.
        low + usize::try_from(self.next_u64() % span.max(1)).unwrap_or(0)
    }

    /// True in so many cases out of a hundred.
    pub fn percent(&mut self, chance: u8) -> bool {
        self.next_u64() % 100 < u64::from(chance)
    }
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The byte that stands at `position` of the pattern of `seed`.
fn byte(seed: u64, position: u64) -> u8 {
    let word = mix(seed.wrapping_mul(0x9e37_79b9).wrapping_add(position / 8)).to_le_bytes();
    word.get(usize::try_from(position % 8).unwrap_or(0))
        .copied()
        .unwrap_or(0)
}

/// Fills `buf` with what the pattern of `seed` has from `position` on.
pub fn fill(seed: u64, position: u64, buf: &mut [u8]) {
    for (at, slot) in (position..).zip(buf) {
        *slot = byte(seed, at);
    }
}

/// Compares bytes with what the pattern of `seed` has from `position` on.
///
/// # Errors
/// Tells the first position that differs, and how.
pub fn verify(seed: u64, position: u64, bytes: &[u8]) -> Result<(), String> {
    for (at, got) in (position..).zip(bytes) {
        let expected = byte(seed, at);
        if *got != expected {
            return Err(format!("byte {at} is {got:#04x}, not {expected:#04x}"));
        }
    }
    Ok(())
}
