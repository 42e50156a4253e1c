//! In place of `args/of_forward.rs` in a build without the feature `forward`: no peer has a server listen.

use clap::Args;

use crate::remote_place::Places;

#[derive(Debug, Args)]
pub(crate) struct ServeRemote {}

// As in `args/of_forward.rs`.
#[allow(clippy::unused_self)]
impl ServeRemote {
    pub(crate) fn allowed(&self) -> &[Places] {
        &[]
    }
}
