//! In place of `control/` in a build without the feature `mesh`: nobody asks a command what it does.

use std::sync::Arc;

use cepa::identity::PeerId;
use tokio::time::Instant;

use crate::connection::Connected;
use crate::mesh_node::Mesh;

pub(crate) trait Daemon {}

/// A command whose node is all there is to it.
pub(crate) struct OfNode;

impl OfNode {
    pub(crate) fn new(_command: &'static str, _since: Instant, _mesh: &Mesh) -> Self {
        Self
    }
}

impl Daemon for OfNode {}

/// All sessions of a command that makes them one after the other.
#[derive(Clone, Default)]
pub(crate) struct Sessions(());

// As in `control/sessions.rs`.
#[allow(clippy::unused_self)]
impl Sessions {
    pub(crate) fn add(&self, _connection: &Arc<Connected>) {}
}

/// Such a command.
pub(crate) struct OfSessions;

impl OfSessions {
    pub(crate) fn new(
        _command: &'static str,
        _since: Instant,
        _own: PeerId,
        _listening: Vec<String>,
        _sessions: &Sessions,
    ) -> Self {
        Self
    }
}

impl Daemon for OfSessions {}
