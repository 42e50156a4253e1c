//! How important a substream is to this end. It decides what this end sends first; the peer is not
//! told, and orders what it sends by its own priorities.

/// The place of a substream among the others of its session: a class, and a weight inside it.
///
/// - Classes are strict: while a stream of a lower-numbered class can send, those of higher numbers
///   wait. Only up to a bound: a class that waits still gets about one byte in 17.
/// - Inside a class, streams that have much to send share in proportion to their weights, and
///   streams with little queued (1 KiB at most) go before those.
///
/// Frames that open, acknowledge, end streams or grant credit go before all data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority {
    class: u8,
    weight: u8,
}

impl Priority {
    const LAST: u8 = 7;

    /// The weight of streams that were given none.
    pub const USUAL_WEIGHT: u8 = 8;

    /// The largest weight. A turn is worth 16 frames then.
    pub const MAX_WEIGHT: u8 = 128;

    /// Class 0, before all others.
    pub const HIGHEST: Self = Self::in_class(0);
    /// Class 3: what streams have that were given no other.
    pub const NORMAL: Self = Self::in_class(3);
    /// Class 7, for what can wait.
    pub const LOWEST: Self = Self::in_class(Self::LAST);

    const fn in_class(class: u8) -> Self {
        Self {
            class,
            weight: Self::USUAL_WEIGHT,
        }
    }

    /// The same in another class: 0 goes first, 7 last; more is taken as 7.
    #[must_use]
    pub const fn with_class(self, class: u8) -> Self {
        Self {
            class: if class > Self::LAST {
                Self::LAST
            } else {
                class
            },
            ..self
        }
    }

    /// The same with another weight: 1 to [`Priority::MAX_WEIGHT`]; what is outside is moved inside.
    #[must_use]
    pub const fn with_weight(self, weight: u8) -> Self {
        let weight = match weight {
            0 => 1,
            1..=Self::MAX_WEIGHT => weight,
            _ => Self::MAX_WEIGHT,
        };
        Self { weight, ..self }
    }

    /// The class, 0 to 7.
    pub const fn class(self) -> u8 {
        self.class
    }

    /// The weight inside the class.
    pub const fn weight(self) -> u8 {
        self.weight
    }

    pub(crate) fn class_index(self) -> usize {
        self.class.into()
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_moved_inside() {
        assert_eq!(Priority::NORMAL.with_class(200), Priority::LOWEST);
        assert_eq!(Priority::NORMAL.with_weight(0).weight(), 1);
        assert_eq!(Priority::NORMAL.with_weight(255).weight(), 128);
        assert_eq!(Priority::default().with_class(3), Priority::NORMAL);
    }
}
