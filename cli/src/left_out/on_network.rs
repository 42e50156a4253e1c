//! In place of `on_network.rs` in a build without the feature `mdns`: nobody is announced, and who asks for it is told.

use std::sync::Arc;

use cepa::identity::PeerId;
use cepa::transports::Endpoint;

use crate::args::Multicast;
use crate::exit::{Code, Failure};

/// None is ever made.
#[derive(Debug)]
pub(crate) enum OnNetwork {}

impl OnNetwork {
    pub(crate) fn start_if(
        scope: Option<Multicast>,
        _: PeerId,
    ) -> Result<Option<Arc<Self>>, Failure> {
        scope.map_or(Ok(None), |_| Err(off()))
    }

    pub(crate) fn announce(&self, _: &Endpoint) {
        match *self {}
    }

    #[allow(clippy::unused_async)]
    pub(crate) async fn leave(&self) {
        match *self {}
    }
}

fn off() -> Failure {
    let why = "this cepa was built without multicast DNS (feature `mdns`)";
    Failure::new(Code::Usage, why)
}
