//! How fast a line carries bytes, one way.

use std::fmt;

/// Bytes a second, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// So many bytes a second; what is less than 1, or no number, becomes 1.
    #[must_use]
    pub fn bytes_per_second(rate: f64) -> Self {
        Self(rate.max(1.0))
    }

    /// As a number.
    #[must_use]
    pub fn as_bytes_per_second(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} B/s", self.0)
    }
}
