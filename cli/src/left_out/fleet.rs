//! In place of `fleet.rs` in a build without the feature `fleet`: a relay is alone.

use cepa::identity::PeerId;
use cepa::node::Hint;
use cepa::protocols::relay::RelayConfig;
use serde_json::Value;

use crate::args::Fleet;
use crate::exit::Failure;
use crate::numbers::Kind;
use crate::values::AllowArg;

/// None is ever made.
#[derive(Debug)]
pub(crate) enum Member {}

/// Nobody sees one.
pub(crate) enum FleetLook {}

impl FleetLook {
    pub(crate) fn json(&self) -> Value {
        match *self {}
    }

    pub(crate) fn numbers(&self) -> Vec<(&'static str, Kind, &'static str, f64)> {
        match *self {}
    }
}

// As in `fleet.rs`, where it can fail.
#[allow(clippy::unused_async, clippy::unnecessary_wraps)]
impl Member {
    pub(crate) async fn join(
        _args: &Fleet,
        _own: PeerId,
        _allow: &mut Vec<AllowArg>,
        _relay: &mut RelayConfig,
    ) -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    pub(crate) async fn start(&self) {
        match *self {}
    }

    pub(crate) fn reached_at(&self, _addresses: Vec<Hint>) {
        match *self {}
    }

    pub(crate) fn look(&self) -> FleetLook {
        match *self {}
    }

    pub(crate) async fn leave(&self) {
        match *self {}
    }
}
