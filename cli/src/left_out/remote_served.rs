//! In place of `remote_served.rs` in a build without the feature `forward`: peers have this end listen nowhere.

use cepa::node::{Access, Node};

use crate::exit::Failure;
use crate::remote_place::Places;

pub(crate) struct RemoteListeners;

#[allow(clippy::unnecessary_wraps)]
pub(crate) fn on(_node: &Node) -> Result<RemoteListeners, Failure> {
    Ok(RemoteListeners)
}

// As in `remote_served.rs`.
#[allow(clippy::unused_self)]
impl RemoteListeners {
    pub(crate) fn allow(&self, _places: Vec<(Places, Access)>) {}
}
