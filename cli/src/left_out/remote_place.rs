//! In place of `remote_place.rs` in a build without the feature `forward`: no place can be named.

/// Nobody has one.
#[derive(Clone, Debug)]
pub(crate) enum Places {}
