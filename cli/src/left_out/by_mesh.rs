//! In place of `by_mesh.rs` in a build without the feature `mesh`: nobody registers at relays, is introduced, or has a ticket.

use std::future::pending;

use cepa::identity::{Identity, PeerId};
use cepa::mux::Substream;
use cepa::node::{Event, Node, PeerAddr};
use cepa::onion::Onion;
use cepa::session::Session;

use crate::exit::Failure;
use crate::keep::Keep;
use crate::mesh_node::Mesh;
use crate::references::{Introduction, Ticket};

pub(crate) async fn stay_registered(_mesh: &Mesh, _relays: &[PeerAddr]) -> Failure {
    pending().await
}

#[allow(clippy::unused_async)]
pub(crate) async fn open_introduced(
    it: &Introduction,
    _identity: &Identity,
) -> Result<(Onion<Substream>, Session, Node), Failure> {
    match *it {}
}

#[allow(clippy::unused_async)]
pub(crate) async fn show_ticket(
    ticket: &Ticket,
    _identity: &Identity,
    _keep: Keep,
) -> Result<(Session, Node, Vec<String>), Failure> {
    match *ticket {}
}

pub(crate) fn registered_at(_event: &Event) -> Option<PeerId> {
    None
}
