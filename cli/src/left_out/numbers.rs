//! In place of `numbers.rs` in a build without the feature `mesh`: nothing is counted.

pub(crate) fn start() {}
