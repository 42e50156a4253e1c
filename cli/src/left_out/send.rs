//! In place of `send.rs` in a build without the feature `mesh`: no service takes sealed requests.

use cepa::node::Access;

use crate::args::Service;
use crate::mesh_node::Mesh;

pub(crate) fn serve(_mesh: &Mesh, _service: &Service, _access: Access) {}
