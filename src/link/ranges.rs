//! A set of positions in the stream, as ranges: what was received out of order, what is lost.
//!
//! There are never more ranges than frames in flight, so a sorted vector is the whole of it.

use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Sorted; none is empty, none touches the next.
    list: Vec<Range<u64>>,
}

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.list.iter().cloned()
    }

    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.list.first().cloned()
    }

    /// How many positions are in it.
    pub(crate) fn total(&self) -> u64 {
        self.list.iter().map(|range| range.end - range.start).sum()
    }

    pub(crate) fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let from = self.list.partition_point(|old| old.end < new.start);
        let to = self.list.partition_point(|old| old.start <= new.end);
        let touched = self.list.get(from..to).unwrap_or_default();
        let start = touched
            .first()
            .map_or(new.start, |r| r.start.min(new.start));
        let end = touched.last().map_or(new.end, |r| r.end.max(new.end));
        self.list.splice(from..to, std::iter::once(start..end));
    }

    pub(crate) fn remove(&mut self, gone: Range<u64>) {
        if gone.is_empty() {
            return;
        }
        let from = self.list.partition_point(|old| old.end <= gone.start);
        let to = self.list.partition_point(|old| old.start < gone.end);
        let touched = self.list.get(from..to).unwrap_or_default();
        let left = touched.first().map(|r| r.start..gone.start);
        let right = touched.last().map(|r| gone.end..r.end);
        let rest: Vec<_> = [left, right]
            .into_iter()
            .flatten()
            .filter(|range| !range.is_empty())
            .collect();
        self.list.splice(from..to.max(from), rest);
    }

    /// The parts of `range` that are not in the set.
    pub(crate) fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let from = self.list.partition_point(|old| old.end <= range.start);
        for held in self.list.iter().skip(from) {
            if held.start >= range.end {
                break;
            }
            if at < held.start {
                gaps.push(at..held.start);
            }
            at = held.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..40)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (add, start, len) in steps {
                let range = start..start + len;
                if add {
                    model.extend(range.clone());
                    ranges.insert(range);
                } else {
                    for at in range.clone() {
                        model.remove(&at);
                    }
                    ranges.remove(range);
                }
                let flat: BTreeSet<u64> = ranges.iter().flatten().collect();
                prop_assert_eq!(&flat, &model);
                prop_assert_eq!(ranges.total(), model.len() as u64);
                for pair in ranges.list.windows(2) {
                    prop_assert!(pair[0].end < pair[1].start, "{ranges:?}");
                }
                let gaps: Vec<u64> = ranges.missing(10..50).into_iter().flatten().collect();
                let expected: Vec<u64> = (10..50).filter(|at| !model.contains(at)).collect();
                prop_assert_eq!(gaps, expected);
            }
        }
    }
}
