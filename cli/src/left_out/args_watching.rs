//! In place of `args/watching.rs` in a build without the feature `mesh`: nobody looks, so there are no options for it.

use clap::Args;

use crate::values::AllowArg;

#[derive(Debug, Args)]
pub(crate) struct Watchers {
    #[command(flatten)]
    pub(crate) watching: Watching,
}

// As in `args/watching.rs`.
#[allow(clippy::unused_self)]
impl Watchers {
    pub(crate) fn allow_status(&self) -> &[AllowArg] {
        &[]
    }
}

#[derive(Debug, Args)]
pub(crate) struct Watching {}
