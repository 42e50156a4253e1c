//! In place of `mesh_node.rs` in a build without the feature `mesh`: a node for plain services and sessions.

use std::path::Path;

use cepa::node::{Access, Node, NodeConfig};
use cepa::protocols::forward::Forwarder;

use crate::exit::Failure;

#[derive(Clone)]
pub(crate) struct Mesh {
    pub(crate) node: Node,
    pub(crate) forwarder: Forwarder,
}

// As in `mesh_node.rs`, where it can fail.
#[allow(clippy::unnecessary_wraps, clippy::unused_self)]
impl Mesh {
    pub(crate) fn new(config: NodeConfig) -> Result<Self, Failure> {
        Self::with_state(config, None)
    }

    pub(crate) fn with_state(config: NodeConfig, _state: Option<&Path>) -> Result<Self, Failure> {
        let node = Node::new(config);
        Ok(Self {
            forwarder: Forwarder::new(&node),
            node,
        })
    }

    pub(crate) fn introducers(&self, _service: &str, _who: Access) {}
}
