//! In place of `args/fleet.rs` in a build without the feature `fleet`: a relay is alone.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Fleet {}
