//! In place of `args/of_mesh.rs` in a build without the feature `mesh`: none of these options is there.

use std::path::Path;

use cepa::node::PeerAddr;
use clap::Args;

use crate::values::AllowArg;

#[derive(Debug, Args)]
pub(crate) struct CodeRelay {}

/// Nobody is announced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Multicast {}

#[derive(Debug, Args)]
pub(crate) struct ServeMesh {}

// As in `args/of_mesh.rs`.
#[allow(clippy::unused_self)]
impl ServeMesh {
    pub(crate) fn register(&self) -> &[PeerAddr] {
        &[]
    }

    pub(crate) fn public(&self) -> Option<&str> {
        None
    }

    pub(crate) fn mdns(&self) -> Option<Multicast> {
        None
    }

    pub(crate) fn invite(&self) -> Option<&str> {
        None
    }

    pub(crate) fn introducers(&self) -> &[AllowArg] {
        &[]
    }

    pub(crate) fn state(&self) -> Option<&Path> {
        None
    }

    pub(crate) fn sealed(&self) -> bool {
        false
    }
}
