//! In place of `socks_served.rs` in a build without the feature `forward`.

use cepa::mux::{ReceivePool, Substream};
use cepa::onion::Onion;
use cepa::session::Session;

use crate::destination::Destinations;

#[allow(clippy::unused_async)]
pub(crate) async fn serve(
    _name: &str,
    allowed: &Destinations,
    _far: Onion<Substream>,
    _peer: &(Session, ReceivePool),
) -> Result<(), String> {
    match *allowed {}
}
