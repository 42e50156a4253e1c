//! In place of `args/sharing.rs` in a build without the feature `mesh`: each command has a connection of its own.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Sharing {}

// As in `args/sharing.rs`.
#[allow(clippy::unused_self)]
impl Sharing {
    pub(super) fn or(&mut self, _control: Option<bool>) {}

    pub(crate) fn wanted(&self) -> bool {
        false
    }
}
